"""BLEU and chrF2 against sacrebleu itself: corpora of any kind, resamples, signatures, its own interval."""

import random

import numpy as np
import pytest
import sacrebleu
from hypothesis import given, settings
from hypothesis import strategies as st
from sacrebleu.metrics import BLEU, CHRF
from sacrebleu.significance import _bootstrap_resample, estimate_ci

from lebench_sb.evaluation.metrics import translation
from lebench_sb.evaluation.metrics.bootstrap import interval

WORDS = "the a cat dog , . ! sat on mat it's 3,5 € Élan naïve the the".split()
PUBLIC = {"BLEU": BLEU, "chrF2": CHRF}


def corpus(n, seed, spoil=0.3):
    rng = random.Random(seed)
    references = [" ".join(rng.choices(WORDS, k=rng.randint(1, 14))) for _ in range(n)]
    hypotheses = []
    for text in references:
        words = [w if rng.random() > spoil else rng.choice(WORDS) for w in text.split()]
        hypotheses.append(" ".join(words[: max(0, len(words) - rng.randint(0, 2))]))
    return references, hypotheses


texts = st.text(alphabet="ab .,é'€3\u2028", max_size=12)
pairs = st.lists(st.tuples(texts, texts), min_size=1, max_size=6)


@pytest.mark.parametrize("name", PUBLIC)
@settings(max_examples=150, deadline=None)
@given(pairs=pairs)
def test_the_score_of_the_sums_is_sacrebleus_corpus_score(name, pairs):
    """Empty texts, no match of an order, hypotheses too short for four words: all of it"""
    references, hypotheses = map(list, zip(*pairs, strict=True))
    expected = PUBLIC[name]().corpus_score(hypotheses, [references]).score
    assert translation.score(name, references, hypotheses) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("name, call", [("BLEU", sacrebleu.corpus_bleu), ("chrF2", sacrebleu.corpus_chrf)])
def test_many_sums_at_once(name, call):
    references, hypotheses = corpus(40, 1)
    counts = translation.statistics(name, references, hypotheses)
    assert counts.shape == (40, len(translation.COLUMNS[name]))
    rows = np.random.default_rng(0).integers(40, size=(20, 15))
    together = translation.SCORES[name](counts[rows].sum(axis=1))
    for found, chosen in zip(together, rows, strict=True):
        expected = call([hypotheses[i] for i in chosen], [[references[i] for i in chosen]]).score
        assert found == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("spoil, seed", [(0.3, 2), (0.9, 3)])
@pytest.mark.parametrize("name", PUBLIC)
def test_sacrebleus_own_interval(name, spoil, seed, monkeypatch):
    monkeypatch.delenv("SACREBLEU_SEED", raising=False)
    references, hypotheses = corpus(60, seed, spoil)
    public = PUBLIC[name]()
    expected = public.corpus_score(hypotheses, [references], n_bootstrap=1000)
    found = translation.sacrebleu_interval(name, translation.statistics(name, references, hypotheses))
    assert found.half_width == pytest.approx(expected._ci, abs=1e-4)
    assert found.mean == pytest.approx(expected._mean, abs=1e-4)
    assert translation.signature(name, confidence=True) == str(public.get_signature())


def test_sacrebleus_own_interval_where_it_fails_itself():
    """Resamples without any match: sacrebleu 2.6 cannot average the kinds of numbers it has then"""
    references, hypotheses = ["the cat sat on it", *["dog"] * 9], ["the cat sat on it", *["x"] * 9]
    counts = translation.statistics("BLEU", references, hypotheses)
    _, scores = _bootstrap_resample(counts.tolist(), BLEU(), 1000)
    mean, half_width = estimate_ci(np.array([float(found.score) for found in scores]))
    found = translation.sacrebleu_interval("BLEU", counts)
    assert found.half_width == pytest.approx(half_width, abs=1e-4) and half_width > 1
    assert found.mean == pytest.approx(mean, abs=1e-4)


def test_signatures():
    assert translation.signature("BLEU") == (
        f"nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:{sacrebleu.__version__}"
    )
    assert translation.signature("chrF2").startswith("nrefs:1|case:mixed|eff:yes|nc:6|nw:0|space:no|version:")
    public = BLEU()
    public.corpus_score(["a"], [["a"]])
    assert translation.signature("BLEU") == str(public.get_signature())


@pytest.mark.parametrize("name", PUBLIC)
def test_our_interval_holds_the_score_and_resamples_speakers(name):
    references, hypotheses = corpus(80, 4)
    counts = translation.statistics(name, references, hypotheses)
    speakers = [f"s{i % 12}" for i in range(80)]
    found = interval(counts, translation.SCORES[name], speakers)
    assert found.low < found.value < found.high and found.method == "bootstrap over speakers"
    assert found.value == pytest.approx(translation.score(name, references, hypotheses))
    over_utterances = interval(counts, translation.SCORES[name], None)
    theirs = translation.sacrebleu_interval(name, counts).half_width
    assert (over_utterances.high - over_utterances.low) / 2 == pytest.approx(theirs, rel=0.15)


@pytest.mark.parametrize(
    "references, hypotheses, error, message",
    [
        (["a", "b"], ["a"], ValueError, "2 references but 1 hypotheses"),
        (["a"], ["a", "b"], ValueError, "1 references but 2 hypotheses"),
        ([], [], ValueError, "0 utterances"),
        ("ab", ["a", "b"], TypeError, "references is a str"),
        (["a"], [None], TypeError, r"hypotheses\[0\] is None"),
    ],
)
def test_lists_are_checked_before_scoring(references, hypotheses, error, message):
    for name in PUBLIC:
        with pytest.raises(error, match=message):
            translation.statistics(name, references, hypotheses)


def test_an_unknown_metric():
    with pytest.raises(ValueError, match="must be one of BLEU, chrF2"):
        translation.statistics("bleu", ["a"], ["a"])
