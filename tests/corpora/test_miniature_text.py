"""Properties of the miniature's text and gold annotation, measured on the whole of it."""

import random
import re
from collections import Counter, defaultdict
from itertools import product

import pytest

from lebench_sb.corpora.miniature import texts
from lebench_sb.corpora.miniature.grammar import EMOTIONS, LANGUAGES, Pattern, realise
from lebench_sb.corpora.miniature.patterns import PATTERNS
from lebench_sb.corpora.miniature.slots import Draw, phrase
from lebench_sb.text.normaliser import normaliser

UPOS = set("ADJ ADP ADV AUX CCONJ DET INTJ NOUN NUM PART PRON PROPN PUNCT SCONJ SYM VERB X".split())
UNIVERSAL_RELATIONS = set(
    "acl advcl advmod amod appos aux case cc ccomp clf compound conj cop csubj dep det discourse "
    "dislocated expl fixed flat goeswith iobj list mark nmod nsubj nummod obj obl orphan parataxis "
    "punct reparandum root vocative xcomp".split()
)


@pytest.fixture(scope="module")
def plan():
    return texts.clips(seed=0, scale=1.0)


@pytest.fixture(scope="module")
def sentences(plan):
    return [sentence for clip in plan for sentence in clip.sentences]


def within_one_word(a, b):
    """Whether the word edit distance of two sequences is 0 or 1, from the definition."""
    if abs(len(a) - len(b)) > 1:
        return False
    start = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    rest = a[start:], b[start:]
    if len(a) == len(b):
        return rest[0][1:] == rest[1][1:]
    shorter, longer = sorted(rest, key=len)
    return shorter == longer[1:]


def parts(plan):
    found = defaultdict(list)
    for clip in plan:
        found[clip.corpus, clip.split] += clip.sentences
    return found


def test_size_and_variety(plan, sentences):
    normalise = normaliser("fr-1")
    forms = {word for sentence in sentences for word in normalise(sentence.text).split()}
    assert len({sentence.pattern for sentence in sentences}) == len(PATTERNS) >= 40
    assert len(forms) >= 1500
    hours = sum(texts.estimated_seconds(clip.speaker, clip.sentences) for clip in plan) / 3600
    assert 1.8 < hours < 2.3
    labelled = parts(plan)
    test, train = (
        [normalise(s.text).split() for s in labelled["commonvoice", split]] for split in ("test", "train")
    )
    known = {word for words in train for word in words}
    said = [word for words in test for word in words]
    assert sum(word not in known for word in said) >= 0.05 * len(said)
    speakers = {clip.speaker for clip in plan}
    assert len(speakers) >= 40
    assert len({clip.speaker for clip in plan if (clip.corpus, clip.split) == ("commonvoice", "test")}) >= 12


def test_no_test_sentence_is_within_one_word_of_a_train_sentence(plan):
    found = parts(plan)
    train = found["commonvoice", "train"] + found["mls", "train"]
    test = found["commonvoice", "test"] + found["mls", "test"]
    counted, written = (lambda s: s.words), (lambda s: s.written_words)
    for words in (counted, written):
        train_words = [words(sentence) for sentence in train]
        for sentence in test:
            near = [other for other in train_words if within_one_word(words(sentence), other)]
            assert not near, (sentence.text, near)


def test_edit_neighbourhood_agrees_with_the_definition():
    alphabet = [tuple(word) for n in range(4) for word in product("ab", repeat=n)]
    for a in alphabet:
        near = texts.Neighbourhood()
        near._add(a)
        for b in alphabet:
            assert near._near(b) == within_one_word(a, b), (a, b)


def test_every_sentence_is_said_once_and_has_no_digits(sentences):
    said = Counter(sentence.words for sentence in sentences)
    assert said.most_common(1)[0][1] == 1
    written = [sentence.text + "".join(sentence.translations.values()) for sentence in sentences]
    assert not [text for text in written if re.search(r"\d|[{}_|/~]|  ", text)]
    normalise = normaliser("fr-1")
    assert all(tuple(normalise(sentence.text).split()) == sentence.words for sentence in sentences)


def test_trees_are_trees_with_universal_labels_and_spell_the_sentence(sentences):
    for sentence in sentences:
        tokens = sentence.tokens
        assert "".join(t.form + ("" if t.glued else " ") for t in tokens) == sentence.text
        assert [t.relation for t in tokens].count("root") == [t.head for t in tokens].count(0) == 1
        for number, token in enumerate(tokens, 1):
            assert token.upos in UPOS and token.relation.partition(":")[0] in UNIVERSAL_RELATIONS, (
                sentence.text,
                token,
            )
            seen, at = set(), number
            while at:
                assert at not in seen, sentence.text
                seen.add(at)
                at = tokens[at - 1].head
        leaves = set(range(1, len(tokens) + 1)) - {t.head for t in tokens}
        assert all(number in leaves for number, t in enumerate(tokens, 1) if t.upos in ("PUNCT", "DET"))
        assert [line.split("\t")[1] for line in sentence.conllu.split("\n")] == [t.form for t in tokens]


def test_concepts_are_many_have_values_and_tag_the_words(sentences):
    names = Counter(concept.name for sentence in sentences for concept in sentence.concepts)
    assert len(names) >= 15
    for sentence in sentences:
        for concept in sentence.concepts:
            assert concept.value and 0 <= concept.start < concept.stop <= len(sentence.tokens)
        stops = [0, *(c.stop for c in sentence.concepts)]
        assert all(c.start >= stop for c, stop in zip(sentence.concepts, stops, strict=False))
        tagged = re.findall(r"<([\w-]+)> ([^<>]+) >", sentence.semantics)
        assert [name for name, _ in tagged] == [concept.name for concept in sentence.concepts]
        untagged = re.sub(r"<[\w-]+>|>", " ", sentence.semantics)
        assert normaliser("fr-1")(untagged) == normaliser("fr-1")(sentence.text)


def test_translations_and_emotions(sentences):
    assert {sentence.emotion for sentence in sentences} == set(EMOTIONS)
    for sentence in sentences:
        assert set(sentence.translations) == set(LANGUAGES)
        for text in sentence.translations.values():
            assert text[-1] == sentence.text[-1] and text.lstrip("¡¿")[0].isupper()
    english = {s.translations["en"] for s in sentences}
    assert len(english) > 0.97 * len(sentences)  # what is said, not only the pattern, is translated


@pytest.mark.parametrize(
    "text, spoken",
    [
        ("je/PRON/nsubj aime/VERB/root le/DET/det@hôtel hôtel/NOUN/obj", "J'aime l'hôtel."),
        ("il/PRON/nsubj parle/VERB/root de/ADP/case@pont le/DET/det@pont pont/NOUN/obl", "Il parle du pont."),
        ("si/SCONJ/mark@veut il/PRON/nsubj@veut veut/VERB/root", "S'il veut."),
        ("ce/DET/det@arbre arbre/NOUN/nsubj tombe/VERB/root", "Cet arbre tombe."),
        ("le/DET/det@haricot haricot/NOUN/root", "Le haricot."),
        (
            "il/PRON/nsubj va/VERB/root à/ADP/case@hôpital le/DET/det@hôpital hôpital/NOUN/obl",
            "Il va à l'hôpital.",
        ),
        (
            "il/PRON/nsubj a/VERB/root peur/NOUN/obj de/ADP/case@ours des/DET/det@ours ours/NOUN/obl",
            "Il a peur d'ours.",
        ),
    ],
)
def test_elision_and_contraction(text, spoken):
    sentence = realise(Pattern("p", text, "x", "x", "x"), Draw(random.Random(0)), phrase)
    assert sentence.text == spoken
    assert [t.head for t in sentence.tokens].count(0) == 1


@pytest.mark.parametrize(
    "language, before, after",
    [
        ("es", "voy a el mercado de el rey", "Voy al mercado del rey."),
        ("pt", "em o dia de a festa vou a as oito por a rua", "No dia da festa vou às oito pela rua."),
        ("pt", "gosto de este livro", "Gosto deste livro."),
        ("en", "a apple and a useful hour", "An apple and a useful hour."),
    ],
)
def test_contractions_of_the_translations(language, before, after):
    templates = dict.fromkeys(LANGUAGES, "x") | {language: before}
    pattern = Pattern("p", "oui/INTJ/root", **templates)
    assert realise(pattern, Draw(random.Random(0)), phrase).translations[language] == after


def test_unknown_slot_is_named():
    with pytest.raises(ValueError, match="No slot 'citty'"):
        phrase("citty", Draw(random.Random(0)))


def test_the_text_depends_on_the_seed_alone():
    first, again, other = (texts.clips(seed, 0.05) for seed in (0, 0, 1))
    assert first == again
    assert [c.text for c in first] != [c.text for c in other]


def test_test_variants_are_in_no_other_part(plan):
    variants = defaultdict(set)
    for clip in plan:
        variants[clip.split].add(clip.speaker.variant)
    assert not variants["test"] & (variants["train"] | variants["dev"])
    assert not variants["dev"] & variants["train"]
    assert {clip.speaker.engine for clip in plan} == {"espeak", "pico"}
    assert {clip.speaker.gender for clip in plan} == {"F", "M"}
