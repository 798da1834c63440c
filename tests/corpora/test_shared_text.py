"""What all corpora do alike with texts."""

import logging
from collections import Counter

import pytest

from lebench_sb.core.errors import Problems, UsageError
from lebench_sb.corpora._text import changed_characters, gender, readable
from lebench_sb.manifests.markers import LeftOut

GENDERS = {
    "F": "F f female Female FEMININE femme féminin fe\u0301minin female_feminine",
    "M": "M m male homme masculin male_masculine",
    "U": "U transgender non-binary do_not_wish_to_say other intersex unknown",
}


WRITTEN = [(letter, word) for letter, words in GENDERS.items() for word in words.split()]


@pytest.mark.parametrize("letter, written", [*WRITTEN, ("F", " femme "), ("U", "non binary")])
def test_genders(letter, written):
    assert gender(written) == letter


def test_what_is_no_gender():
    assert gender("") == "U" and gender("  ") == "U"
    assert [gender(each) for each in ("feemale", "42", "F/M")] == [None] * 3


@pytest.mark.parametrize("counted", [False, True])
@pytest.mark.parametrize("split", ["train", "valid", "test"])
@pytest.mark.parametrize("texts", [100, 99])
def test_one_policy_for_what_the_normaliser_cannot_read(split, counted, texts, caplog):
    left_out, problems = LeftOut(split), Problems("x.tsv")
    lines = [(f"line {n}", "Oui, 3 !") for n in range(texts - 1)] + [("line 7", "Bien [rire]")]
    with caplog.at_level(logging.WARNING):
        found = readable(lines, "fr-1", left_out, problems, counted)
    assert found == ["oui trois"] * (texts - 1) + [None]
    assert left_out.changed == Counter({",": texts - 1, "3": texts - 1, "!": texts - 1})
    if split == "train" and texts == 100 or split != "train" and counted:
        assert left_out == {"characters fr-1 cannot read": 1} and not problems
        assert "x.tsv" in caplog.text and "line 7 '[' ']'" in caplog.text
    else:
        assert not left_out
        assert problems.found == {
            "characters fr-1 cannot read (spell them out or remove them)": ["line 7 '[' ']'"]
        }


def test_an_unknown_normaliser_is_a_mistake_of_the_user():
    with pytest.raises(UsageError, match="unknown text normaliser 'fr1'. Did you mean fr-1"):
        readable([], "fr1", LeftOut("train"), Problems("x"))


@pytest.mark.parametrize(
    "written, normal, changed",
    [
        ("L’œuvre", "l' oeuvre", "’œ"),
        ("E\u0301te\u0301", "été", ""),
        ("12 ans", "douze ans", "12"),
        ("a  b\n", "a b", ""),
        ("œœ!", "OEOE", "œœ!"),
    ],
)
def test_which_characters_changed(written, normal, changed):
    assert changed_characters(written, normal) == Counter(changed)
