"""BLEU and chrF2 as sums of per-utterance statistics, counted by sacrebleu, so that they can be resampled.

`bleu` and `chrf2` turn sums into sacrebleu's corpus scores, many sums at once. BLEU: tokeniser 13a, case
kept, exponential smoothing, no effective order; one reference (Papineni et al., 2002; Post, 2018). chrF2:
character n-grams up to 6, beta 2 (Popović, 2015). Letters: n utterances, R resamples.
"""

from dataclasses import dataclass

import numpy as np
from sacrebleu.metrics import BLEU, CHRF

ORDERS, CHAR_ORDERS, BETA = 4, 6, 2
NUMBERS = range(1, ORDERS + 1)
METRICS = {"BLEU": BLEU, "chrF2": CHRF}
# the columns of utterances.csv, in sacrebleu's order
COLUMNS = {
    "BLEU": (
        "BLEU_hyp_len",
        "BLEU_ref_len",
        *(f"BLEU_correct_{n}" for n in NUMBERS),
        *(f"BLEU_total_{n}" for n in NUMBERS),
    ),
    "chrF2": tuple(
        f"chrF2_{what}_{n}" for n in range(1, CHAR_ORDERS + 1) for what in ("hyp", "ref", "match")
    ),
}
RESAMPLES, SEED = 1000, 12345  # sacrebleu's own, of its option --confidence


@dataclass(frozen=True)
class SacrebleuInterval:
    """What `sacrebleu --confidence` prints: mean of the resamples, half width of their middle 95 %."""

    mean: float
    half_width: float


def statistics(name, references, hypotheses):
    """Lists of n texts -> (n, 10) of BLEU or (n, 18) of chrF2, int64, in the order of COLUMNS.

    ValueError: lists of different length, an empty list. TypeError: not lists of texts.
    """
    check(references, hypotheses)
    found = _metric(name)._extract_corpus_statistics(hypotheses, [references])
    return np.array(found, dtype=np.int64)


def check(references, hypotheses):
    """Raises where sacrebleu would score what two lists have in common, or nothing at all."""
    for name, texts in (("references", references), ("hypotheses", hypotheses)):
        if not isinstance(texts, (list, tuple)):
            raise TypeError(f"{name} is a {type(texts).__name__}, it must be a list of utterances' texts.")
        wrong = next((i for i, text in enumerate(texts) if not isinstance(text, str)), None)
        if wrong is not None:
            raise TypeError(f"{name}[{wrong}] is {texts[wrong]!r}. Each entry must be an utterance's text.")
    if len(references) != len(hypotheses):
        raise ValueError(
            f"{len(references)} references but {len(hypotheses)} hypotheses: "
            "give one of each per utterance, in the same order."
        )
    if not references:
        raise ValueError("0 utterances: BLEU and chrF2 need at least one reference and its hypothesis.")


def _metric(name):
    """Without sacrebleu's warning about text that looks tokenised, which says nothing of one system"""
    if name not in METRICS:
        raise ValueError(f"metric is {name!r}. It must be one of {', '.join(METRICS)}.")
    return BLEU(force=True) if name == "BLEU" else METRICS[name]()


def signature(name, confidence=False):
    """sacrebleu's signature of BLEU or chrF2; confidence=True: of the metric with its interval."""
    metric = _metric(name)
    metric.num_refs = 1
    if confidence:
        metric.n_bootstrap, metric.seed = RESAMPLES, SEED
    return str(metric.get_signature())


def bleu(sums):
    """Sums (..., 10) -> BLEU (...,), 0 to 100"""
    sums = np.asarray(sums, dtype=float)
    hypothesis, reference = sums[..., 0], sums[..., 1]
    correct, total = sums[..., 2 : 2 + ORDERS], sums[..., 2 + ORDERS :]
    # each order without a match halves the count that stands in for it
    halvings = np.cumsum((correct == 0) & (total > 0), axis=-1)
    counts = np.where(correct > 0, correct, 0.5**halvings)
    with np.errstate(divide="ignore", invalid="ignore"):
        precisions = np.log(100 * counts / total).mean(axis=-1)
        brevity = np.where(hypothesis < reference, np.exp(1 - reference / hypothesis), 1.0)
        scores = brevity * np.exp(precisions)
    # no match at all, or too short for an n-gram of each order
    return np.where((correct.sum(axis=-1) > 0) & (total > 0).all(axis=-1), scores, 0.0)


def chrf2(sums):
    """Sums (..., 18) -> chrF2 (...,), 0 to 100"""
    sums = np.asarray(sums, dtype=float)
    hypothesis, reference, match = (sums[..., k::3] for k in range(3))
    used = (hypothesis > 0) & (reference > 0)
    orders = np.maximum(used.sum(axis=-1), 1)

    def average(counts):
        return np.divide(match, counts, out=np.zeros_like(match), where=used).sum(axis=-1) / orders

    precision, recall = average(hypothesis), average(reference)
    weighted = BETA**2 * precision + recall
    score = np.divide(
        100 * (1 + BETA**2) * precision * recall,
        weighted,
        out=np.zeros_like(weighted),
        where=weighted > 0,
    )
    return score


SCORES = {"BLEU": bleu, "chrF2": chrf2}


def score(name, references, hypotheses):
    """Lists of n texts -> sacrebleu's corpus score; raises as `statistics`"""
    return float(SCORES[name](statistics(name, references, hypotheses).sum(axis=0)))


def sacrebleu_interval(name, counts):
    """Statistics (n, k) -> SacrebleuInterval: utterances drawn as sacrebleu draws them (1,000 times, seed
    12345, whatever SACREBLEU_SEED says), its half width the +/- of published tables.

    Speakers are not known to it: the interval of metrics.bootstrap is the one to trust.
    """
    counts = np.asarray(counts, dtype=np.float32)  # as sacrebleu holds them
    drawn = np.random.default_rng(SEED).choice(len(counts), size=(RESAMPLES, len(counts)), replace=True)
    sums = np.stack([counts[rows].sum(axis=0) for rows in drawn])
    scores = np.sort(SCORES[name](sums))
    tail = RESAMPLES // 40
    half_width = 0.5 * (scores[RESAMPLES - tail - 1] - scores[tail])
    return SacrebleuInterval(float(scores.mean()), float(half_width))
