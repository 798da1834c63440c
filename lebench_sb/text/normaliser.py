"""French text normalisation: pure functions with versioned names, so that an error rate says what it counted.

`normaliser("fr-1")(text)` is what the recipes use, `fr-2` reads joined numbers better;
`speechbrain-commonvoice-fr` repeats the preparation behind published SpeechBrain numbers, faults included;
`none` leaves the words alone. A rule changes only under a new name.
"""

import difflib
import re
import unicodedata
from functools import lru_cache

from lebench_sb.core.errors import UsageError

FR1_LETTERS = "abcdefghijklmnopqrstuvwxyzàâçéèêëîïôùûüÿ"

# Words whose apostrophe ends them; between other letters it is spelling: aujourd'hui, prud'homme, o'connor
ELIDED = frozenset("c d j l m n s t qu jusqu lorsqu puisqu quoiqu quelqu presqu".split())
APOSTROPHES = "’‘‛ʼʻʹ′´`＇"

# What fr-1 drops, each for a space. Hyphens too: nobody hears them, and the spelling of 1990 moved many.
PUNCTUATION = frozenset('.,;:!?…¡¿"“”„‟«»‹›()-‐‑‒–—―−·•‧|_/⁄¦¶†‡©®™')
SIGNS = {
    **{"%": "pour cent", "‰": "pour mille", "€": "euros", "$": "dollars", "£": "livres", "¥": "yens"},
    **{"&": "et", "+": "plus", "=": "égale", "×": "fois", "÷": "divisé par", "±": "plus ou moins"},
    **{"@": "arobase", "#": "dièse", "*": "astérisque", "§": "paragraphe", "°": "degrés", "№": "numéro"},
    **{"²": "carré", "³": "cube", "½": "un demi", "¼": "un quart", "¾": "trois quarts", "µ": "micro"},
}
CURRENCIES = {"€": "euro", "$": "dollar", "£": "livre", "¥": "yen"}
MONTHS = "janvier février mars avril mai juin juillet août septembre octobre novembre décembre".split()

# Letters that Unicode does not decompose into a base letter and a mark
BASES = {"œ": "oe", "æ": "ae", "ø": "o", "ł": "l", "đ": "d", "ð": "d", "þ": "th", "ß": "ss", "ı": "i"}


class UnreadableText(ValueError):
    """A text holds characters the normaliser has no reading for; `characters` lists them, `normaliser` is its
    name."""

    def __init__(self, name, text, characters):
        names = ", ".join(f"{c!r} (U+{ord(c):04X} {unicodedata.name(c, 'unnamed')})" for c in characters)
        super().__init__(f"no French reading in {name} for {names} in {text!r}: spell it out or remove it.")
        self.normaliser, self.characters = name, characters


def normaliser(name):
    """The function str -> str called `name`. Raises UsageError with the nearest name for any other."""
    if name in NORMALISERS:
        return NORMALISERS[name]
    close = difflib.get_close_matches(str(name), NORMALISERS, n=1, cutoff=0.3)
    hint = f" Did you mean {close[0]}?" if close else ""
    raise UsageError(f"unknown text normaliser {name!r}.{hint} There are: {', '.join(NORMALISERS)}.")


def none(text):
    """Unicode composition (NFC), and one space for any run of white space; case, punctuation and digits stay.

    Composition is not cosmetic: "é" as one or as two characters would count as an error and as two symbols.
    """
    return " ".join(unicodedata.normalize("NFC", text).split())


def fr_1(text):
    """French as it is heard, in lower case: letters, apostrophes and single spaces.

    - Composed (NFC); œ, æ become oe, ae. Latin letters other than FR1_LETTERS lose their marks (ñ is n,
      ø is o, ß is ss); letters of other scripts stay as they are.
    - An elided word keeps its apostrophe and stands alone: "l' homme", "qu' il". That is the unit
      SpeechBrain's Common Voice preparation counts, and "l'homme" and "l' homme" score the same. An
      apostrophe inside any other word stays ("aujourd'hui"); at an edge it is a quotation mark and goes.
    - Hyphens and dashes become spaces: "peut être", "quatre vingt dix".
    - Digits are read: 1 234,5; 3.14 with "point"; 1er, 2e, XXIe; 14h30 and 14:30; 12/05/2020; 3,50 €; $5;
      20 °C; -5; 007 digit by digit. "1.234" is a thousand, as French writes it. One and twenty-one are
      masculine except for hours and pounds: the noun that follows is not analysed.
    - SIGNS (%, €, &, +, ...) are read, PUNCTUATION is dropped for a space, invisible characters vanish.
    - Abbreviations and Roman numerals that are no ordinals stay letters ("m", "xiv").

    fr_1(fr_1(x)) == fr_1(x). Raises UnreadableText naming each character without reading ("[", "<", "~", an
    emoji): nothing outside PUNCTUATION is dropped.
    """
    return _french("fr-1", text, _read_numbers)


def fr_2(text):
    """As fr-1, but numbers that a hyphen, a slash or a comma joins are each read as they are alone:
    "15e-16e siècles" is "quinzième seizième siècles" (fr-1: "quinzième seize e"), "10-12h", "1 000-2 000",
    "10:30-11:30", "14h/15h", "mi-15e", "XVe-16e"; "10 %-20%" holds no minus. "3/4" stays "trois sur quatre".
    """
    return _french("fr-2", text, lambda composed: _read_numbers(_apart(composed)))


def _french(name, text, read_numbers):
    """What the versions of fr share; read_numbers: composed text -> text without digits"""
    composed = unicodedata.normalize("NFC", "".join(map(_plain, unicodedata.normalize("NFC", text))))
    spoken = unicodedata.normalize("NFC", read_numbers(composed).lower())
    letters = [_letter(c) for c in spoken]
    if None in letters:
        unknown = {c for c, read in zip(spoken, letters, strict=True) if read is None}
        raise UnreadableText(name, text, sorted(unknown))
    return " ".join(piece for word in "".join(letters).split() for piece in _elisions(word))


@lru_cache(maxsize=4096)
def _plain(c):
    """Digits of every script as 0-9, typographic apostrophes as ', superscript letters as letters (XXᵉ)."""
    category = unicodedata.category(c)
    if c in APOSTROPHES:
        return "'"
    if category == "Nd":
        return str(unicodedata.decimal(c))
    if category == "Lm" and unicodedata.normalize("NFKC", c).isascii():
        return unicodedata.normalize("NFKC", c)
    if category == "Cf":  # zero-width and soft hyphen, direction marks, BOM
        return ""
    return "°" if c == "º" else c


@lru_cache(maxsize=4096)
def _letter(c):
    """What a lower-case character becomes: itself, base letters, words, a space, nothing; None: unknown."""
    category = unicodedata.category(c)
    if c in FR1_LETTERS or c == "'":
        return c
    if c in PUNCTUATION or c.isspace() or category == "Cc":
        return " "
    if c in SIGNS:
        return f" {SIGNS[c]} "
    if category.startswith("L"):
        parts = unicodedata.normalize("NFKD", c)
        base = "".join(BASES.get(part, part) for part in parts if not unicodedata.combining(part))
        return base.lower() if base.isascii() and base.isalpha() else c
    if category.startswith("M"):
        # marks that belong to a script (Devanagari vowels) stay with its letters
        return "" if unicodedata.name(c, "").startswith(("COMBINING", "VARIATION")) else c
    return None


def _elisions(word):
    """ "d'l'homme" -> "d'", "l'", "homme"; quotation marks at the edges go."""
    word = word.strip("'") + ("'" if word.endswith("'") else "")
    head, mark, tail = word.partition("'")
    while mark and head in ELIDED:
        yield head + "'"
        word = tail.lstrip("'")
        head, mark, tail = word.partition("'")
    word = re.sub("'+", "'", word).strip("'")
    if word:
        yield word


# Numbers in French typography. Each pattern is read by the function beside it in `_read_numbers`.
START = r"(?<![\w.,:/-])"  # a number starts here: no letter, digit or joining sign before it
NUMBER = r"(?<![\w.,])(\d+)(?:[.,](\d+))?"
DAY, MONTH = r"(0?[1-9]|[12]\d|3[01])", r"(0?[1-9]|1[0-2])"
ROMAN = re.compile(r"\b(?=[IVX])(X{0,3})(IX|IV|V?I{0,3})(er|re|ère|ème|eme|e)\b")
ROMAN_UNITS = ("", "I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX")
ORDINAL = re.compile(START + r"(\d+)(ers?|res?|[èe]res?|i?[èe]mes?|es?|nde?s?)(?!\w)", re.IGNORECASE)
GROUPS = re.compile(
    START + r"[1-9]\d{0,2}(?:(?:[ \u00a0\u202f\u2009]\d{3})+|(?:\.\d{3})+|(?:'\d{3})+)(?![.']?\d)"
)
DATE = re.compile(rf"{START}{DAY}([/.]){MONTH}\2(\d{{4}}|\d\d)(?![\d/])")
ISO_DATE = re.compile(rf"{START}(\d{{4}})-{MONTH}-{DAY}(?![\w-])")
HOURS = re.compile(START + r"(\d+)\s?h(?:\s?([0-5]\d))?(?!\w)", re.IGNORECASE)
CLOCK = re.compile(START + r"([01]?\d|2[0-3]):([0-5]\d)(?![\w:])")
PRICE_AFTER = re.compile(NUMBER + r"\s?([€$£¥])")
PRICE_BEFORE = re.compile(r"([€$£¥])\s?(\d+)(?:[.,](\d+))?")
DEGREES = re.compile(NUMBER + r"\s?°\s?([CF]\b)?", re.IGNORECASE)


def _read_numbers(text):
    """Every number as words, the longest patterns first: a date must not be read as three numbers."""
    text = re.sub(r"\b[nN]\s?°\s?", " numéro ", text)
    text = ROMAN.sub(_roman, text)
    if not any(c.isdigit() for c in text):
        return text
    text = GROUPS.sub(lambda m: re.sub(r"\D", "", m[0]), text)
    text = DATE.sub(lambda m: _date(m[1], m[3], m[4]), text)
    text = ISO_DATE.sub(lambda m: _date(m[3], m[2], m[1]), text)
    text = re.sub(r"(?<![\w)])-(?=\d)|−\s?(?=\d)", " moins ", text)
    text = HOURS.sub(lambda m: _time(m[1], m[2]), text)
    text = CLOCK.sub(lambda m: _time(m[1], m[2]), text)
    text = ORDINAL.sub(lambda m: _ordinal(m[0], int(m[1]), m[2].lower()), text)
    text = PRICE_AFTER.sub(lambda m: _price(m[1], m[2], m[3]), text)
    text = PRICE_BEFORE.sub(lambda m: _price(m[2], m[3], m[1]), text)
    text = DEGREES.sub(lambda m: _degrees(m[1], m[2], (m[3] or "").upper()), text)
    text = re.sub(r"(?<=\d)\s?[/⁄]\s?(?=\d)", " sur ", text)
    # a lone comma is a decimal one; "1,2,3" is a list
    text = re.sub(r"(?<![\d,])(\d+),(\d+)(?!,?\d)", r"\1 virgule \2", text)
    text = re.sub(r"(?<=\d)\.(?=\d)", " point ", text)
    return re.sub(r"\d+", lambda m: f" {_digits(m[0])} ", text)


# fr-2. A sign between numbers gives way to APART, a control character: what stands on its two sides is never
# taken for one number, as "1 000" and "200" behind a space would be.
APART = " \x01 "
SUFFIX = r"(?:ers?|res?|[èe]res?|i?[èe]mes?|es?|nde?s?)(?!\w)"
DATE_AFTER_SIGN = re.compile(rf"(?<![\w.,:/]){DAY}([/.]){MONTH}\2(\d{{4}}|\d\d)(?![\d/])")
ISO_AFTER_SIGN = re.compile(rf"(?<![\w.,:-])(\d{{4}})-{MONTH}-{DAY}(?![\w-])")
HYPHEN = re.compile(r"(?<=[\w%‰€$£¥°²³)'»\"”])-(?=\d)|(?<=\x01 )-(?=\d)")
AFTER_LETTER = re.compile(r"(?<=[^\W\d_])[/⁄.,:;](?=\d)|(?<=[%‰€$£¥°])[/⁄.,:;](?=\d)")
BEFORE_ORDINAL = re.compile(rf"(?<=\d)[/⁄,](?=\d+{SUFFIX})", re.IGNORECASE)
PART_OF_HOURS = re.compile(r"(?<=\d)[/⁄](?=\d+\s?h)", re.IGNORECASE)


def _apart(text):
    """Text in which numbers that a sign joins stand apart; dates are read, for theirs are their own"""
    if not any(c.isdigit() for c in text):
        return text
    text = DATE_AFTER_SIGN.sub(lambda m: APART + _date(m[1], m[3], m[4]) + APART, text)
    text = ISO_AFTER_SIGN.sub(lambda m: APART + _date(m[3], m[2], m[1]) + APART, text)
    text = HYPHEN.sub(APART, text)
    text = BEFORE_ORDINAL.sub(APART, text)
    text = PART_OF_HOURS.sub(" sur ", text)
    return AFTER_LETTER.sub(APART, text)


@lru_cache(maxsize=4096)
def _cardinal(number):
    """French words of a whole number, hyphens as spaces."""
    from num2words import num2words  # here: most texts hold no digit

    return num2words(number, lang="fr").replace("-", " ")


def _feminine(words):
    return re.sub(r"\bun$", "une", words)


def _digits(digits):
    """Leading zeros one by one, then the number: "05" -> "zéro cinq". Codes of over twelve digits: each."""
    rest = digits.lstrip("0")
    if len(rest) > 12:
        return " ".join(_cardinal(int(digit)) for digit in digits)
    zeros = ["zéro"] * (len(digits) - len(rest))
    return " ".join(zeros + ([_cardinal(int(rest))] if rest else []))


def _decimal(whole, fraction):
    """ "3", "05" -> "trois virgule zéro cinq"; fraction None or "" for a whole number."""
    return _digits(whole) + (f" virgule {_digits(fraction)}" if fraction else "")


def _roman(match):
    """An ordinal in Roman numerals up to the thirty-ninth: centuries, republics, kings."""
    tens, units, suffix = match.groups()
    number = 10 * len(tens) + ROMAN_UNITS.index(units)
    if suffix in ("er", "re", "ère") and number != 1:
        return match[0]
    return _ordinal(match[0], number, suffix)


def _ordinal(written, number, suffix):
    """The words of an ordinal, or `written` itself where number and suffix do not go together (21er)."""
    plural = "s" if suffix.endswith("s") else ""
    suffix = suffix.removesuffix("s").replace("è", "e")
    if suffix in ("er", "re", "ere") or (suffix == "e" and number == 1):
        first = "premier" if suffix in ("er", "e") else "première"
        return f" {first}{plural} " if number == 1 else written
    if suffix in ("nd", "nde"):
        return f" second{suffix[2:]}{plural} " if number == 2 else written
    words = re.sub("(vingt|cent|million|milliard)s$", r"\1", _cardinal(number)).removesuffix("e")
    words = re.sub("cinq$", "cinqu", re.sub("neuf$", "neuv", words))
    return f" {words}ième{plural} "


def _date(day, month, year):
    day = "premier" if int(day) == 1 else _cardinal(int(day))
    return f" {day} {MONTHS[int(month) - 1]} {_digits(year)} "


def _time(hours, minutes):
    """ "14", "30" -> "quatorze heures trente"; minutes None or "00" for the full hour."""
    unit = "heures" if int(hours) > 1 else "heure"
    spoken = _feminine(_cardinal(int(minutes))) if minutes and int(minutes) else ""
    return f" {_feminine(_cardinal(int(hours)))} {unit} {spoken} "


def _price(whole, fraction, sign):
    """ "3", "50", "€" -> "trois euros cinquante"; other than two decimals are read before the currency."""
    cents = fraction if fraction and len(fraction) == 2 else ""
    words = _decimal(whole, "" if cents else fraction)
    words = _feminine(words) if sign == "£" else words
    unit = CURRENCIES[sign] + ("s" if int(whole) > 1 else "")
    if re.search("(million|milliard)s?$", words):
        unit = ("d' " if sign == "€" else "de ") + unit
    return f" {words} {unit} {_cardinal(int(cents)) if cents and int(cents) else ''} "


def _degrees(whole, fraction, scale):
    unit = "degrés" if int(whole) > 1 else "degré"
    name = {"C": "celsius", "F": "fahrenheit", "": ""}[scale]
    return f" {_decimal(whole, fraction)} {unit} {name} "


def speechbrain_commonvoice_fr(text):
    """The transcripts of SpeechBrain's French Common Voice recipes (`accented_letters: True`).

    Upper case; everything but letters, digits and apostrophes becomes a space; L' S' D' J' N' C' M' QU' are
    split from the next word, T' is not, and the apostrophe after other letters is deleted, except in
    AUJOURD'HUI. Reproduced faults: œ is lost (it is put in upper case before it is replaced: "cœurs" -> "C
    URS"), so are ÿ and combining accents; digits stay digits; Cyrillic stays. The recipe then drops sentences
    under three words, test included: that is the corpus's business, not this function's. Behaviour of
    `language_specific_preprocess` in recipes/CommonVoice/common_voice_prepare.py, SpeechBrain 1.x.
    """
    text = SPEECHBRAIN_DROPS.sub(" ", text).upper()
    # again, because upper case takes Œ and Ÿ out of the kept range
    text = SPEECHBRAIN_DROPS.sub(" ", text).replace("’", "'")
    text = re.sub("([LSDJNCM]|QU)'", r"\1' ", text)
    text = re.sub(" +", " ", text).replace(" '", " ")
    text = re.sub("([ABEFGKQVWZOX])'", r"\1", text)
    text = text.replace("AUJOURD' HUI", "AUJOURD'HUI")
    return re.sub(" +", " ", text).strip(" ")


SPEECHBRAIN_DROPS = re.compile("[^’'A-Za-z0-9À-ÖØ-öø-ÿЀ-ӿœ]+")
NORMALISERS = {
    "fr-1": fr_1,
    "fr-2": fr_2,
    "speechbrain-commonvoice-fr": speechbrain_commonvoice_fr,
    "none": none,
}
