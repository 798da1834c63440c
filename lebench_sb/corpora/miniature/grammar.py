"""From a pattern and drawn words to a sentence with its gold annotation.

A pattern is one line of French items and one translation template per language:

    {p:person}/nsubj a/AUX/aux:tense {v:verb.thing.pp}/root {o:np.thing}/obj {t:past}/obl:mod

`form/UPOS/relation[@head]` is a word, `{name:slot}/relation[@head]` a phrase drawn from `slots.py` (`<name`
after the slot: agree with that phrase; `un|une~name`: the form agrees). The head is named by its form or
slot; without `@` it is the item whose relation is `root`. `<concept[=value] ... >` marks a concept; without a
value it is the words. French elision and contraction (`à le` -> `au`) and those of Spanish, Portuguese and
English follow by rule.
"""

import re
from dataclasses import dataclass, field

LANGUAGES = ("en", "es", "pt")
EMOTIONS = ("neutral", "joy", "anger", "sadness", "fear", "surprise")
ELIDED = {"le", "la", "je", "que", "ne", "se", "me", "te", "de", "jusque", "lorsque", "puisque"}
ASPIRATED = (
    "haricot",
    "homard",
    "hérisson",
    "hibou",
    "huit",
    "onze",
    "hugo",
    "haut",
    "honte",
    "hamon",
    "oui",
)
LIAISON = {"ma": "mon", "ta": "ton", "sa": "son", "ce": "cet"}  # determiners before a vowel
CONTRACTED = {
    ("de", "des"): "de",
    ("à", "le"): "au",
    ("à", "les"): "aux",
    ("de", "le"): "du",
    ("de", "les"): "des",
}
TARGET_RULES = {
    "en": [(r"\ba (?=[aeiou])(?!uni|use|one |euro)", "an "), (r"\ba (?=hour)", "an ")],
    "es": [(r"\ba el\b", "al"), (r"\bde el\b", "del"), (r"\by (?=h?i(?!e))", "e "), (r"\bo (?=h?o)", "u ")],
    "pt": [
        (r"\bem ([oa]s?)\b", r"n\1"),
        (r"\bde ([oa]s?)\b", r"d\1"),
        (r"\bpor ([oa]s?)\b", r"pel\1"),
        (r"\ba (os?)\b", r"a\1"),
        (r"\ba (as?)\b", lambda m: "à" + m[1][1:]),
        (r"\b(em|de) (est[ea]s?)\b", lambda m: m[1].replace("em", "n").replace("de", "d") + m[2]),
    ],
}


@dataclass
class Word:
    """One word while a sentence is built; `head` is another Word, None for the root of the phrase."""

    form: str
    upos: str
    relation: str = ""
    head: "Word | None" = None
    concept: list | None = None


@dataclass
class Phrase:
    """French words with one root, their translations, and what agreement needs: gender per language,
    number."""

    words: list
    translations: dict
    genders: dict = field(default_factory=dict)
    plural: bool = False

    @property
    def root(self):
        return next(word for word in self.words if word.head is None)


@dataclass(frozen=True)
class Token:
    """One token of a dependency tree; `head` counts from 1, 0 is the root; no space after it if `glued`."""

    form: str
    upos: str
    head: int
    relation: str
    glued: bool = False


@dataclass(frozen=True)
class Concept:
    """A concept over tokens[start:stop]."""

    name: str
    value: str
    start: int
    stop: int


@dataclass(frozen=True)
class Sentence:
    """French text and its gold annotation. `tokens` spell `text`; punctuation marks are leaves of the
    tree."""

    text: str
    tokens: tuple
    translations: dict
    concepts: tuple
    emotion: str
    pattern: str

    @property
    def words(self):
        """Words as an error rate counts them (the normaliser fr-1): elided words and the parts of hyphens
        alone."""
        return tuple(re.findall(r"\w+'?", self.text.lower()))

    @property
    def written_words(self):
        """Lower-case words between spaces, without punctuation: `d'avignon` and `vingt-six` are one word
        each."""
        return tuple(re.findall(r"[\w'-]+", self.text.lower()))

    @property
    def semantics(self):
        """`<concept> words > ...`: the tagged text of MEDIA, lower case, without punctuation."""
        pieces, at = [], 0
        for concept in self.concepts:
            pieces += [spell(self.tokens[at : concept.start]).lower(), f"<{concept.name}>"]
            pieces += [spell(self.tokens[concept.start : concept.stop]).lower(), ">"]
            at = concept.stop
        return " ".join(piece for piece in [*pieces, spell(self.tokens[at:]).lower()] if piece)

    @property
    def conllu(self):
        """The tree as the ten columns of CoNLL-U, one line per token."""
        lines = []
        for number, token in enumerate(self.tokens, 1):
            misc = "SpaceAfter=No" if token.glued else "_"
            row = [
                str(number),
                token.form,
                "_",
                token.upos,
                "_",
                "_",
                str(token.head),
                token.relation,
                "_",
                misc,
            ]
            lines.append("\t".join(row))
        return "\n".join(lines)


def spell(tokens):
    """Text of tokens without punctuation."""
    kept = [token for token in tokens if token.upos != "PUNCT"]
    return (
        "".join(token.form + ("" if token.glued and token.form[-1] == "'" else " ") for token in kept)
        .replace(" -", "-")
        .strip()
    )


@dataclass(frozen=True)
class Pattern:
    """One sentence pattern; `text` and the translations are written as the module's docstring says."""

    name: str
    text: str
    en: str
    es: str
    pt: str
    emotion: str = "neutral"
    mark: str = "."


def realise(pattern, draw, slots):
    """Draws the pattern's slots and returns a Sentence. `slots(spec, draw, other)` gives a Phrase."""
    words, phrases = _french(pattern, draw, slots)
    words = _contract(_elide(_contract(words, {"des"})), {"le", "les"})
    filling = {name: phrase.translations for name, phrase in phrases.items()}
    translations = {}
    for language in LANGUAGES:
        text = getattr(pattern, language).format(**{name: t[language] for name, t in filling.items()})
        for rule, replacement in TARGET_RULES[language]:
            text = re.sub(rule, replacement, text)
        translations[language] = text[0].upper() + text[1:]
    return _sentence(words, translations, pattern)


def _french(pattern, draw, slots):
    """The pattern's items in order as Words whose heads are set, and the drawn phrases by name."""
    items, phrases, concept = [], {}, None
    for piece in pattern.text.split():
        if piece.startswith("<"):
            concept = piece[1:].partition("=")[::2]
            concept = [*concept]  # a new list: two concepts of one name stay apart
        elif piece == ">":
            concept = None
        else:
            items.append(_item(piece, draw, slots, phrases, concept))
    roots = {name: phrase.root for name, phrase, _, _ in reversed(items)}  # of two equal names, the first
    root = next(roots[name] for name, _, relation, _ in items if relation == "root")
    for word, relation, head in [(phrase.root, relation, head) for _, phrase, relation, head in items]:
        word.relation = relation
        word.head = None if relation == "root" else roots[head] if head else root
    return [word for _, phrase, _, _ in items for word in phrase.words], phrases


def _item(piece, draw, slots, phrases, concept):
    """One item -> (its name, Phrase, relation, name of its head or '')."""
    body, relation = piece.split("/", 1)
    relation, _, head = relation.rpartition("/")[2].partition("@")
    if body.startswith("{"):
        name, spec = body[1:-1].split(":")
        spec, _, other = spec.partition("<")
        phrase = phrases[name] = slots(spec, draw, phrases.get(other))
    else:
        forms, _, other = body.partition("~")
        name, *variants = forms.split("|")
        feminine = bool(variants) and phrases[other].genders["fr"] == "f"
        phrase = Phrase([Word(variants[0] if feminine else name, piece.split("/")[1])], {})
    for word in phrase.words:
        word.concept = concept
    return name, phrase, relation, head


def _begins_with_vowel(form):
    form = form.lower()
    return form[0] in "aeiouâàéèêëîïôûœhæ" and not form.startswith(ASPIRATED)


def _elide(words):
    """`le` + `homme` -> `l'`, `ma` + `amie` -> `mon`, `ce` + `hôtel` -> `cet`, `si` + `il` -> `s'`."""
    for word, following in zip(words, words[1:], strict=False):
        if not _begins_with_vowel(following.form):
            continue
        if word.upos == "DET" and word.form in LIAISON:
            word.form = LIAISON[word.form]
        elif word.form in ELIDED or (word.form, following.form) in {
            ("si", "il"),
            ("si", "ils"),
            ("ce", "est"),
            ("ce", "était"),
        }:
            word.form = word.form[:-1] + "'"
    return words


def _contract(words, articles):
    """Preposition and one of `articles` become one token, which keeps the preposition's place in the tree."""
    contracted = []
    for word in words:
        pair = (contracted[-1].form, word.form) if contracted else None
        if pair in CONTRACTED and word.form in articles and word.upos == "DET":
            contracted[-1].form = CONTRACTED[pair]
        else:
            contracted.append(word)
    return contracted


def _sentence(words, translations, pattern):
    root = next(word for word in words if word.relation == "root")
    words = [*words, Word(pattern.mark, "PUNCT", "punct", root)]
    words[0].form = words[0].form[0].upper() + words[0].form[1:]
    number = {id(word): position for position, word in enumerate(words, 1)}
    tokens = []
    for word, following in zip(words, [*words[1:], None], strict=True):
        spaced = pattern.mark in "!?" and following is words[-1]  # French sets a space before ! and ?
        glued = (
            following is None
            or word.form[-1] == "'"
            or following.form[0] in "-,."
            or (following.upos == "PUNCT" and not spaced)
        )
        head = number[id(word.head)] if word.head else 0
        tokens.append(Token(word.form, word.upos, head, word.relation, glued))
    text = "".join(token.form + ("" if token.glued else " ") for token in tokens)
    marks = {
        language: _mark(translation, pattern.mark, language) for language, translation in translations.items()
    }
    return Sentence(text, tuple(tokens), marks, _concepts(words, tokens), pattern.emotion, pattern.name)


def _mark(text, mark, language):
    opening = {"!": "¡", "?": "¿"}.get(mark, "") if language == "es" else ""
    return opening + text + mark


def _concepts(words, tokens):
    concepts, start = [], 0
    while start < len(words):
        concept, stop = words[start].concept, start + 1
        while stop < len(words) and words[stop].concept is concept:
            stop += 1
        if concept is not None:
            name, value = concept
            concepts.append(Concept(name, value or spell(tokens[start:stop]).lower(), start, stop))
        start = stop
    return tuple(concepts)
