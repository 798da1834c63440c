"""Speaker verification: equal error rate, minimum detection cost, DET curve, and intervals over speakers.

A threshold t accepts the trials with a score above t, so only K + 1 thresholds differ: below all scores, and
at each of the K distinct ones; equal scores are accepted or refused together. One sort and two cumulative
sums give both error rates at all of them.

- EER: mean of the false alarm rate and the miss rate at the threshold where they differ least, the lowest
  such threshold if several do (as SpeechBrain's `EER`, which counts each threshold anew). Nothing is
  interpolated. The EER of the ROC convex hull (BOSARIS toolkit) is where the hull of the curve crosses
  FAR = FRR; on a short list, where the curve has few steps, it may lie above or below this one.
- minDCF: minimum over thresholds of `p_target c_miss P_miss + (1 - p_target) c_fa P_fa`, accepting and
  refusing everything included; normalised: divided by the cost of the better of those two, min(p_target
  c_miss, (1 - p_target) c_fa), as in NIST's evaluations. SpeechBrain's `minDCF` is the first, not divided.

Letters: n trials, K distinct scores, U speakers, R resamples.
"""

import re
from functools import partial

import numpy as np

from lebench_sb.evaluation.metrics.bootstrap import (
    MIN_SPEAKERS,
    NO_INTERVAL,
    Difference,
    Interval,
    _bounds,
    _probability,
)

OVER_PAIRS = "bootstrap over the speakers of trials"
FEW_SPEAKERS = f"bootstrap over trials: fewer than {MIN_SPEAKERS} speakers"
NO_SPEAKERS = "bootstrap over trials: speakers unknown"
_CELLS = 1 << 21  # weights held at once, trials x resamples


class Ranking:
    """The trials sorted by score, once for any number of weightings.

    scores (n,) finite; targets (n,) True where both sides are the same speaker. Raises ValueError for other
    shapes, scores that are not finite, or trials of one kind only (a rate would be 0 / 0).
    """

    def __init__(self, scores, targets):
        scores, targets = np.asarray(scores, dtype=float), np.asarray(targets, dtype=bool)
        if scores.ndim != 1 or scores.shape != targets.shape:
            raise ValueError(f"scores have shape {scores.shape} and targets {targets.shape}, expected (n,).")
        bad = np.flatnonzero(~np.isfinite(scores))
        if bad.size:
            raise ValueError(f"{bad.size} scores are not finite, first at trial {bad[0]}: {scores[bad[0]]}.")
        if targets.all() or not targets.any():
            raise ValueError(
                f"{targets.sum()} target and {(~targets).sum()} non-target trials: error rates need both."
            )
        self.order = np.argsort(scores, kind="stable")
        ordered = scores[self.order]
        self.targets = targets[self.order].astype(float)
        self.ends = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True))
        self.thresholds = np.append(-np.inf, ordered[self.ends])

    def counts(self, weights=None):
        """weights (..., n) in the order of the trials, by default all 1 -> misses, false alarms (..., K + 1)

        at the K + 1 thresholds, ascending. Sums of whole numbers are exact.
        """
        weights = np.ones(len(self.order)) if weights is None else np.asarray(weights, float)[..., self.order]
        of_targets = _cumulated(weights * self.targets, self.ends)
        of_others = _cumulated(weights, self.ends) - of_targets
        return of_targets, of_others[..., -1:] - of_others


def _cumulated(values, ends):
    """values (..., n) -> (..., K + 1): 0, then the sums up to each of `ends`"""
    sums = np.cumsum(values, axis=-1)[..., ends]
    return np.concatenate([np.zeros((*sums.shape[:-1], 1)), sums], axis=-1)


def equal_error_rate(misses, false_alarms):
    """Counts (..., K + 1) of `Ranking.counts` -> EER (...,) in %; NaN without targets or non-targets"""
    targets, others = misses[..., -1:], false_alarms[..., :1]
    place = np.abs(misses * others - false_alarms * targets).argmin(axis=-1)[..., None]
    rates = [
        np.take_along_axis(counts, place, axis=-1) / _positive(total)
        for counts, total in ((misses, targets), (false_alarms, others))
    ]
    return 50 * (rates[0] + rates[1])[..., 0]


def min_dcf(misses, false_alarms, p_target=0.01, c_miss=1.0, c_fa=1.0):
    """Counts (..., K + 1) of `Ranking.counts` -> minimum detection cost (...,); NaN as `equal_error_rate`"""
    check_costs(p_target, c_miss, c_fa)
    missed, alarmed = misses / _positive(misses[..., -1:]), false_alarms / _positive(false_alarms[..., :1])
    return (p_target * c_miss * missed + (1 - p_target) * c_fa * alarmed).min(axis=-1)


def normalised_min_dcf(misses, false_alarms, p_target=0.01, c_miss=1.0, c_fa=1.0):
    """`min_dcf` over the cost of the better of accepting and refusing everything: 1 for a useless system"""
    cost = min_dcf(misses, false_alarms, p_target, c_miss, c_fa)
    return cost / min(p_target * c_miss, (1 - p_target) * c_fa)


def check_costs(p_target, c_miss, c_fa):
    """Raises ValueError unless 0 < p_target < 1 and both costs are positive and finite"""
    if not (0 < p_target < 1 and 0 < c_miss < np.inf and 0 < c_fa < np.inf):
        raise ValueError(
            f"p_target {p_target}, c_miss {c_miss}, c_fa {c_fa}: p_target must lie between 0 and 1, "
            "costs above 0."
        )


def _positive(totals):
    return np.where(totals > 0, totals, np.nan)


def measures(p_target=0.01, c_miss=1.0, c_fa=1.0):
    """{metric: (function of `Ranking.counts`, unit, better)}; the parameters of a cost stand in its unit."""
    check_costs(p_target, c_miss, c_fa)
    costs = {"p_target": p_target, "c_miss": c_miss, "c_fa": c_fa}
    costs_in_words = f"Ptar {p_target:.10g}, Cmiss {c_miss:.10g}, Cfa {c_fa:.10g}"
    return {
        "EER": (equal_error_rate, "%", "lower"),
        "minDCF": (partial(min_dcf, **costs), costs_in_words, "lower"),
        "minDCF_norm": (
            partial(normalised_min_dcf, **costs),
            f"{costs_in_words}, over the trivial cost",
            "lower",
        ),
    }


def measure(name, unit):
    """The function of a metric of `measures`, with the parameters that stand in its unit"""
    costs = re.match(r"Ptar (\S+), Cmiss (\S+), Cfa ([^\s,]+)", unit)
    named_measures = measures(*map(float, costs.groups())) if costs else measures()
    if name not in named_measures:
        raise ValueError(f"{name} is no metric of verification: {', '.join(named_measures)}.")
    return named_measures[name][0]


def det_points(scores, targets, most=2000):
    """(false alarm rates, miss rates), each (m,) with m <= `most`: the corners of the DET curve, thinned
    evenly in rank where there are more"""
    misses, false_alarms = Ranking(scores, targets).counts()
    positions = np.unique(np.linspace(0, len(misses) - 1, min(most, len(misses))).round().astype(int))
    return false_alarms[positions] / false_alarms[0], misses[positions] / misses[-1]


def intervals(scores, targets, speakers, functions, resamples=1000, seed=0, level=0.95):
    """{metric: Interval} of one system. functions: {metric: function of `Ranking.counts`}.

    speakers: two lists of n names, of the enrolment and of the test side. Two trials that share a speaker are
    not independent, so speakers are drawn with replacement and a trial weighs w_i w_j, how often its two
    speakers were drawn, and a trial of one speaker w_i: it is compared with itself once per copy, copies of
    one person are never compared with each other. (For networks: Snijders & Borgatti 1999, "Non-parametric
    standard errors and tests for network statistics"; for biometrics, bootstraps over persons: Bolle et al.
    2004, "The subsets bootstrap"; Poh, Martin & Bengio 2007, "joint user-specific and sample bootstraps".)
    Bounds are the expanded percentiles of `metrics.bootstrap`. Below 10 speakers, or with an unknown one,
    trials are drawn instead and `method` says so: such an interval is too narrow. Coverage was simulated in
    tests/evaluation/test_verification.py. Raises ValueError as `Ranking` does.
    """
    ranking, design = Ranking(scores, targets), _Design(speakers, len(scores))
    value = {name: float(function(*ranking.counts())) for name, function in functions.items()}

    def draw(weights):
        counts = ranking.counts(weights)
        return {name: function(*counts) for name, function in functions.items()}

    draws = design.draws(draw, resamples, seed)
    return {name: Interval(value[name], *design.summary(draws[name], level)) for name in functions}


def differences(scores_a, scores_b, targets, speakers, functions, resamples=1000, seed=0, level=0.95):
    """{metric: Difference} of two systems on the same n trials, both weighted by the same draws of speakers
    (see `intervals`)"""
    rankings, design = (
        (Ranking(scores_a, targets), Ranking(scores_b, targets)),
        _Design(speakers, len(targets)),
    )

    def difference(weights=None):
        a, b = (ranking.counts(weights) for ranking in rankings)
        return {name: function(*a) - function(*b) for name, function in functions.items()}

    value, draws = difference(), design.draws(difference, resamples, seed)
    return {
        name: Difference(
            float(value[name]),
            *design.summary(draws[name], level),
            probability=_probability(_finite(draws[name]), design.units),
        )
        for name in functions
    }


class _Design:
    """What is drawn with replacement: the speakers of n trials, or the trials themselves."""

    def __init__(self, speakers, n):
        enrolled, tested = speakers
        if not len(enrolled) == len(tested) == n:
            raise ValueError(f"{len(enrolled)} and {len(tested)} speakers for {n} trials.")
        names, numbers = np.unique(np.asarray([*enrolled, *tested], dtype=str), return_inverse=True)
        self.n, self.pairs, self.units, self.method = n, None, len(names), OVER_PAIRS
        if not all(names):
            self.units, self.method = n, NO_SPEAKERS
        elif len(names) < MIN_SPEAKERS:
            self.units, self.method = n, FEW_SPEAKERS
        else:
            self.pairs = numbers[:n], numbers[n:]

    def draws(self, function, resamples, seed):
        """{metric: (R,)} of `function(weights (r, n))`, in blocks that bound the memory"""
        rng, counts = np.random.default_rng(seed), []
        block = max(1, _CELLS // max(self.n, self.units))
        for start in range(0, resamples, block):
            counts.append(function(self._weights(rng, min(block, resamples - start))))
        return {name: np.concatenate([part[name] for part in counts]) for name in counts[0]}

    def _weights(self, rng, rows):
        """(rows, n): how much each trial weighs in each resample"""
        drawn = rng.integers(self.units, size=(rows, self.units)) + self.units * np.arange(rows)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=rows * self.units).reshape(rows, self.units)
        if self.pairs is None:
            return counts
        first, second = self.pairs
        return counts[:, first] * np.where(first == second, 1, counts[:, second])

    def summary(self, draws, level):
        """(low, high, method, resamples, n, n_units) of the draws of one metric"""
        finite = _finite(draws)
        method = self.method if finite.size else NO_INTERVAL.format("score undefined in every resample")
        return (*_bounds(finite, self.units, level), method, finite.size, self.n, self.units)


def _finite(draws):
    return np.sort(draws[np.isfinite(draws)])


def adaptive_s_norm(scores, enrolled, tested, cohort, top):
    """Adaptive symmetric score normalisation (Matejka et al. 2017, "Analysis of score normalization in
    multilingual speaker recognition"; s-norm: Kenny 2010).

    scores (n,) cosines; enrolled, tested (n,) rows of `cohort` (E, C), the cosines of each embedding with
    each of C cohort speakers. A score is standardised once with the mean and standard deviation of the `top`
    highest cohort scores of its enrolment side, once with those of its test side, and both are averaged.
    Raises ValueError for a cohort below two speakers, or one all alike to some embedding.
    """
    cohort = np.asarray(cohort, dtype=float)
    if cohort.ndim != 2 or cohort.shape[1] < 2 or top < 2:
        raise ValueError(f"s-norm over {top} of {cohort.shape[-1]} cohort speakers: it needs two at least.")
    best = np.sort(cohort, axis=1)[:, -top:]
    mean, deviation = best.mean(axis=1), best.std(axis=1, ddof=1)
    if not (deviation > 0).all():
        raise ValueError("s-norm: an embedding is equally close to the whole cohort.")
    sides = [(scores - mean[side]) / deviation[side] for side in (enrolled, tested)]
    return (sides[0] + sides[1]) / 2
