"""French text: golden pairs, and what must hold for any text."""

import json
import re
import unicodedata
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from num2words import num2words

from lebench_sb.text import normaliser as text
from lebench_sb.text.normaliser import FR1_LETTERS, PUNCTUATION, SIGNS, normaliser

GOLDEN = Path(__file__).parent / "golden"
PIECES = """l' d' qu' j' aujourd'hui quelqu'un prud'homme L’ ‘ ’ ' « » " - – . , ; : … / € $ £ % °C ° n° ² ½ &
+ 0 1 2 5 9 12 21 80 100 1998 06 000 30 h er e ème ᵉʳ XXI Ve Ier m homme Être œ Œ é É e\u0301 ÿ ñ ß Ł ﬁ İ Σ
и\u0306 \u00ad \u200b""".split()
FRENCH = st.lists(st.sampled_from([*PIECES, " ", "\u00a0", "\u202f", "\n"]), max_size=14).map("".join)
LETTERS = st.text(st.characters(categories=["L", "M", "Nd", "Zs", "Cf", "Cc"]), max_size=12)


def golden(name):
    pairs = json.loads((GOLDEN / f"{name}.json").read_text(encoding="utf-8"))
    return [pytest.param(name, *pair, id=f"{name}-{index}") for index, pair in enumerate(pairs)]


@pytest.mark.parametrize(
    "name, written, expected", golden("fr-1") + golden("fr-2") + golden("speechbrain-commonvoice-fr")
)
def test_golden(name, written, expected):
    assert normaliser(name)(written) == expected


@settings(max_examples=400, deadline=None)
@given(FRENCH | LETTERS, st.sampled_from(["fr-1", "fr-2"]))
def test_normalising_twice_changes_nothing(written, name):
    once = normaliser(name)(written)
    assert normaliser(name)(once) == once


@pytest.mark.parametrize("name, written, expected", golden("fr-1"))
def test_what_no_sign_joins_is_read_as_before(name, written, expected):
    assert normaliser("fr-2")(written) == expected


PLAIN = ["1914", "5", "1 000", "2.000", "3,5", "06"]
MARKED = [
    "1er",
    "1ᵉʳ",
    "2e",
    "16ème",
    "3es",
    "12h",
    "14h30",
    "10:30",
    "50 %",
    "20%",
    "5€",
    "3,50 €",
    "20°C",
    "20°",
]
NUMBERS = st.sampled_from([*PLAIN, *MARKED, "12/05/2020"])
HYPHENS = st.sampled_from(["-", "‐", "‑", "–", "—", " – "])


@settings(max_examples=500, deadline=None)
@given(st.lists(NUMBERS, min_size=2, max_size=3), HYPHENS)
def test_numbers_that_a_hyphen_joins_are_read_as_they_are_alone(numbers, hyphen):
    read = normaliser("fr-2")
    assume(not re.match(r"\d{4}-\d{1,2}-\d", hyphen.join(numbers)))  # a date
    assert read(hyphen.join(numbers)) == " ".join(map(read, numbers))
    assert read(f"de {hyphen.join(numbers)}, dit-il") == f"de {' '.join(map(read, numbers))} dit il"


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(MARKED), min_size=2, max_size=3), st.sampled_from("/,;"))
def test_marked_numbers_that_a_slash_or_comma_joins_are_read_as_they_are_alone(numbers, sign):
    numbers = [number for number in numbers if not number[-1].isdigit()] + ["16e"]  # "10:30,5" is a decimal
    read = normaliser("fr-2")
    assert read(sign.join(numbers)) == " ".join(map(read, numbers))


@settings(max_examples=200, deadline=None)
@given(st.integers(2, 999), st.integers(2, 999), st.sampled_from(["e-{}e", "-{}e", "e/{}e", "/{}e", ",{}e"]))
def test_two_ordinals(first, second, form):
    read = normaliser("fr-2")
    one = read(f"{first}e") if form.startswith("e") else read(str(first))
    assert read(str(first) + form.format(second)) == f"{one} {read(f'{second}e')}"


@settings(max_examples=300, deadline=None)
@given(FRENCH)
def test_the_alphabet_of_french_text_is_closed(written):
    normal = normaliser("fr-1")(written.replace("Σ", "").replace("и\u0306", ""))
    assert set(normal) <= set(FR1_LETTERS + "' ")
    assert normal == " ".join(normal.split())


@settings(max_examples=300, deadline=None)
@given(FRENCH)
def test_composed_and_decomposed_text_are_the_same(written):
    for name in ("fr-1", "none"):
        forms = {normaliser(name)(unicodedata.normalize(form, written)) for form in ("NFC", "NFD")}
        assert len(forms) == 1


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 10**12 - 1))
def test_whole_numbers_are_read_as_num2words_does(number):
    expected = num2words(number, lang="fr").replace("-", " ")
    assert normaliser("fr-1")(f"il y en a {number}.") == f"il y en a {expected}"
    if number >= 1000:
        assert normaliser("fr-1")(f"{number:,}".replace(",", "\u202f")) == expected


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 99), min_size=1, max_size=5))
def test_no_digit_vanishes(numbers):
    """Numbers apart by punctuation are each read: as many readings as numbers, in order."""
    expected = " ".join(num2words(n, lang="fr").replace("-", " ") for n in numbers)
    assert normaliser("fr-1")(" ; ".join(map(str, numbers))) == expected


@pytest.mark.parametrize("number", [*range(2, 32), 70, 71, 91, 100, 101, 1000, 2000])
def test_ordinals_are_read_as_num2words_does(number):
    expected = num2words(number, lang="fr", to="ordinal").replace("-", " ")
    assert normaliser("fr-1")(f"le {number}e") == normaliser("fr-1")(f"le {number}ème") == f"le {expected}"


@pytest.mark.parametrize("character", ["[", "<", "{", "~", "^", "\\", "😀", "①", "→"])
def test_a_character_without_reading_is_named(character):
    with pytest.raises(ValueError) as error:
        normaliser("fr-1")(f"oui {character} non")
    assert f"{character!r} (U+{ord(character):04X} {unicodedata.name(character)})" in str(error.value)
    assert "oui" in str(error.value)


@pytest.mark.parametrize("character", sorted(PUNCTUATION))
def test_only_listed_punctuation_is_dropped(character):
    assert normaliser("fr-1")(f"oui {character} non") == "oui non"


@pytest.mark.parametrize("sign", sorted(SIGNS))
def test_every_sign_is_read(sign):
    assert normaliser("fr-1")(f"oui {sign} non") == f"oui {SIGNS[sign]} non"


def test_elided_and_spaced_hypotheses_score_the_same():
    assert normaliser("fr-1")("c'est l'ami qu'elle a") == normaliser("fr-1")("c' est l' ami qu' elle a")


def test_none_keeps_everything_but_form_and_white_space():
    assert normaliser("none")("  L’Œuvre,\u00a0 e\u0301 3\n") == "L’Œuvre, é 3"


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(ValueError, match="'fr1'.*Did you mean fr-1.*fr-1, fr-2, speechbrain-.*, none"):
        normaliser("fr1")


def test_every_normaliser_has_a_docstring_and_takes_empty_text():
    for name, function in text.NORMALISERS.items():
        assert function.__doc__ and normaliser(name)("") == ""
