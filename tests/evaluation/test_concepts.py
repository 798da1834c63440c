"""Concept, concept-value and character errors: by hand, and against SpeechBrain's ErrorRateStats."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from speechbrain.utils.metric_stats import ErrorRateStats

from lebench_sb.evaluation.metrics.concepts import concepts, count_all, count_concepts, count_symbols, symbols
from lebench_sb.evaluation.metrics.errors import rate

TOKENS = st.sampled_from(["<ville>", "<temps-date>", "<nom-hotel>", ">", "le", "mans", "a", "à", "12"])
TEXTS = st.lists(TOKENS, max_size=9).map(" ".join)
PAIRS = st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=6)


def speechbrain_rate(references, hypotheses, **options):
    """The rate of SpeechBrain, from the sequences of symbols its MEDIA recipe scores"""
    labels = sorted({s for t in references + hypotheses for s in symbols(t)} | {"_"})
    number = {label: i for i, label in enumerate(labels)}

    def encode(text):
        return [number[s.replace(" ", "_")] for s in symbols(text)]

    def decode(sequences):
        return [[labels[int(i)] for i in sequence] for sequence in sequences]

    stats = ErrorRateStats(**options)
    for i, (r, h) in enumerate(zip(references, hypotheses, strict=True)):
        stats.append([str(i)], [encode(h)], [encode(r)], ind2lab=decode)
    return stats.summarize("error_rate")


@settings(max_examples=150, deadline=None)
@given(PAIRS)
def test_the_rates_are_those_of_speechbrain(pairs):
    references, hypotheses = map(list, zip(*pairs, strict=True))
    ours = {name: rate(c.statistics.sum(axis=0)) for name, c in count_all(references, hypotheses).items()}
    if not any(map(symbols, references)):
        return  # no rate without a reference token; SpeechBrain divides by 1
    tags = {"extract_concepts_values": True, "tag_in": "<", "tag_out": ">"}
    assert ours["ChER"] == pytest.approx(speechbrain_rate(references, hypotheses))
    if any(map(concepts, references)):
        for name, keep in (("COER", False), ("CVER", True)):
            theirs = speechbrain_rate(references, hypotheses, keep_values=keep, **tags)
            assert ours[name] == pytest.approx(theirs), name


def test_concepts_by_hand():
    text = "euh <ville> le mans > pour <nb-nuit> deux nuits <reponse> oui > voilà >"
    assert concepts(text) == ["<ville>", "<nb-nuit>", "<reponse>"]
    # the unclosed one ends at the next tag and keeps its words; words outside are ignored
    assert concepts(text, values=True) == ["<ville> le mans", "<nb-nuit> deux nuits", "<reponse> oui"]
    assert concepts("rien du tout") == concepts("", values=True) == []
    assert concepts("<ville> > <ville> paris", values=True) == ["<ville>", "<ville> paris"]


@pytest.mark.parametrize(
    "reference, hypothesis, coer, cver, length",
    [
        ("<a> x > <b> y >", "<a> x > <b> y >", 0, 0, 2),
        ("<a> x > <b> y >", "<a> x > <b> z >", 0, 1, 2),
        ("<a> x > <b> y >", "<b> y >", 1, 1, 2),
        ("<a> x > <b> y >", "<a> x y >", 1, 2, 2),
        ("bonjour", "au revoir", 0, 0, 0),
        ("bonjour", "<a> bonjour >", 1, 1, 0),
        ("bonjour", "<a> bon > <b> jour >", 2, 2, 0),
        ("<a> x >", "", 1, 1, 1),
        ("", "", 0, 0, 0),
    ],
)
def test_errors_by_hand(reference, hypothesis, coer, cver, length):
    assert count_concepts([reference], [hypothesis]).statistics.tolist() == [[coer, length]]
    assert count_concepts([reference], [hypothesis], values=True).statistics.tolist() == [[cver, length]]


def test_a_tag_is_one_symbol_and_a_space_is_one():
    assert symbols(" <ville>  le mans > ") == ["<ville>", " ", *"le", " ", *"mans", " ", ">"]
    assert count_symbols(["<ville> le >"], ["<rue> le >"]).statistics.tolist() == [[1, 6]]
    assert count_symbols(["<ville> le >"], ["le >"]).errors.tolist() == [2]


def test_lists_of_different_length_are_refused():
    with pytest.raises(ValueError, match="2 references but 1 hypotheses"):
        count_concepts(["<a> x >", "y"], ["y"])


def test_what_speechbrain_is_given_is_what_its_recipe_scores():
    """The comparison above would prove nothing if the symbols lost the tags"""
    assert speechbrain_rate(["<a> x >"], ["<b> x >"], keep_values=False, extract_concepts_values=True,
                            tag_in="<", tag_out=">") == 100.0  # fmt: skip
    assert torch.tensor(count_concepts(["<a> x >"], ["<b> x >"]).statistics).tolist() == [[1, 1]]
