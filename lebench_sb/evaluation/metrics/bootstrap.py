"""Confidence intervals of scores and of differences between systems, by resampling speakers or utterances.

A score is a function of sums of per-utterance statistics (an error rate: errors and reference words), so a
resample is a vector of counts times a matrix of sums (Bisani & Ney 2004, "Bootstrap estimates for
confidence intervals in ASR performance evaluation"). Utterances of one speaker are not independent draws:
whole speakers are resampled where there are enough (cluster bootstrap: Cameron, Gelbach & Miller 2008,
"Bootstrap-based improvements for inference with clustered errors"), else the interval is several times too
narrow.

Letters: n utterances, k statistics, U units (speakers or utterances), R resamples.
"""

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr, ndtri, stdtr, stdtrit

MIN_SPEAKERS = 10
OVER_SPEAKERS = "bootstrap over speakers"
FEW_SPEAKERS = f"bootstrap over utterances: fewer than {MIN_SPEAKERS} speakers"
NO_SPEAKERS = "bootstrap over utterances: speakers unknown"
NO_INTERVAL = "no interval: {}"
_CELLS = 1 << 21  # counts held at once, speakers x resamples


@dataclass(frozen=True)
class Interval:
    """`low` and `high` are None where `method` says why there is no interval.

    `resamples` counts those with a defined score.
    """

    value: float
    low: float | None
    high: float | None
    method: str
    resamples: int
    n: int
    n_units: int


@dataclass(frozen=True)
class Difference(Interval):
    """`value` = score of a - score of b.

    `probability`: two-sided, 1 minus the level at which the interval touches 0; None without interval.
    """

    probability: float | None


def interval(statistics, score, speakers=None, resamples=1000, seed=0, level=0.95):
    """Interval of `score` on one test set.

    statistics (n, k) per utterance; score: sums (..., k) -> (...,), vectorised; speakers: n names, or None.
    Speakers are resampled when there are at least 10, else utterances, and `method` says which. The bounds
    are expanded percentiles (Hesterberg 2015, "What teachers should know about the bootstrap"): the
    percentile interval of Efron & Tibshirani (1993, ch. 13) at the level that gives a mean the width of its
    t interval, because plain percentiles cover less than they promise with few speakers (simulated in
    tests/evaluation/test_bootstrap.py, where BCa bounds did no better). A resample where the score is not
    finite (no reference word) is left out and not counted.

    ValueError: bad shapes or values, or a score that is not finite on the whole set.
    """
    units, method, n = _units(statistics, speakers)
    value, draws, fields = _draws(units, score, method, n, resamples, seed)
    low, high = _bounds(draws, len(units), level)
    return Interval(value, low, high, **fields)


def paired_interval(statistics_a, statistics_b, score, speakers=None, resamples=1000, seed=0, level=0.95):
    """Difference of two systems on the same n utterances in the same order (the caller compares the ids).

    As `interval`, with one draw of units for both systems: what makes an utterance hard for both cancels out.
    """
    statistics_a, statistics_b = np.asarray(statistics_a, dtype=float), np.asarray(statistics_b, dtype=float)
    if statistics_a.shape != statistics_b.shape:
        raise ValueError(
            f"statistics have shapes {statistics_a.shape} and {statistics_b.shape}: "
            "a paired comparison needs the same utterances and statistics of both systems."
        )
    units, method, n = _units(np.concatenate([statistics_a, statistics_b], axis=-1), speakers)
    k = statistics_a.shape[-1]

    def difference(sums):
        return score(sums[..., :k]) - score(sums[..., k:])

    value, draws, fields = _draws(units, difference, method, n, resamples, seed)
    low, high = _bounds(draws, len(units), level)
    return Difference(value, low, high, **fields, probability=_probability(draws, len(units)))


def _units(statistics, speakers):
    """(n, k) -> sums per unit (U, k), how units were chosen, n. Units are sorted by speaker."""
    statistics = np.asarray(statistics, dtype=float)
    if statistics.ndim != 2 or 0 in statistics.shape:
        raise ValueError(f"statistics have shape {statistics.shape}, expected (utterances, statistics) > 0.")
    bad = np.flatnonzero(~np.isfinite(statistics).all(axis=1))
    if bad.size:
        raise ValueError(
            f"statistics of {bad.size} utterances are not finite, first at row {bad[0]}: {statistics[bad[0]]}"
        )
    n = len(statistics)
    if speakers is not None and len(speakers) != n:
        raise ValueError(f"{len(speakers)} speakers for {n} utterances: give one per row of statistics.")
    if speakers is None or not all(speakers):
        return statistics, NO_SPEAKERS, n
    names, unit_of = np.unique(np.asarray(speakers, dtype=str), return_inverse=True)
    if len(names) < MIN_SPEAKERS:
        return statistics, FEW_SPEAKERS, n
    sums = [np.bincount(unit_of, column, minlength=len(names)) for column in statistics.T]
    return np.stack(sums, axis=1), OVER_SPEAKERS, n


def _draws(units, score, method, n, resamples, seed):
    """Score of all units, sorted finite scores of R resamples, and the fields that describe the interval."""
    value = float(score(units.sum(axis=0)))
    if not np.isfinite(value):
        raise ValueError(f"the score of {n} utterances is {value}: an error rate needs a reference token.")
    if resamples < 1:
        raise ValueError(f"resamples is {resamples}, it must be at least 1.")
    draws = np.asarray(score(_resampled_sums(units, resamples, seed)), dtype=float)
    if draws.shape != (resamples,):
        raise ValueError(
            f"score turned sums ({resamples}, {units.shape[1]}) into {draws.shape}: it must be vectorised."
        )
    draws = np.sort(draws[np.isfinite(draws)])
    if len(units) < 2:
        draws, method = draws[:0], NO_INTERVAL.format(f"{len(units)} utterance")
    elif not draws.size:
        method = NO_INTERVAL.format("score undefined in every resample")
    return value, draws, {"method": method, "resamples": draws.size, "n": n, "n_units": len(units)}


def _resampled_sums(units, resamples, seed):
    """(U, k) -> (R, k): sums over U units drawn with replacement, in blocks that bound the memory."""
    rng = np.random.default_rng(seed)
    count = len(units)
    block = max(1, _CELLS // count)
    sums = np.empty((resamples, units.shape[1]))
    for start in range(0, resamples, block):
        rows = min(block, resamples - start)
        drawn = rng.integers(count, size=(rows, count)) + count * np.arange(rows)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=rows * count).reshape(rows, count)
        sums[start : start + rows] = counts.astype(float) @ units
    return sums


def _expansion(units):
    """sqrt(U / (U - 1)): standard error of a mean of U values over the deviation of its resamples."""
    return np.sqrt(units / (units - 1))


def _bounds(draws, units, level):
    """Expanded percentiles of the sorted `draws`; (None, None) without draws."""
    if not 0 < level < 1:
        raise ValueError(f"level is {level}, it must lie between 0 and 1.")
    if not draws.size:
        return None, None
    tail = ndtr(_expansion(units) * stdtrit(units - 1, (1 - level) / 2))
    low, high = np.quantile(draws, [tail, 1 - tail])
    return float(low), float(high)


def _probability(draws, units):
    """Two-sided probability of a difference as far from 0, from the share of draws on each side: `_bounds`
    inverted.

    Never below what R draws can tell: a share of 0 counts as half a draw.
    """
    if not draws.size:
        return None
    below = (np.count_nonzero(draws < 0) + 0.5 * np.count_nonzero(draws == 0)) / draws.size
    tail = max(min(below, 1 - below), 0.5 / draws.size)
    return float(min(1.0, 2 * stdtr(units - 1, ndtri(tail) / _expansion(units))))
