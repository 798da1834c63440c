"""Metrics with their 95 % intervals, and their differences from the trivial baseline.

A task says of each metric {name: (statistics, score, unit, better)}: statistics (n, k) of the rows, whose
sums `score` makes the metric of; unit "%" or such; better "lower" or "higher".
"""

import numpy as np

from lebench_sb.evaluation.metrics.bootstrap import interval, paired_interval
from lebench_sb.evaluation.results import metric_entry


def metric_entries(statistics, speakers, seed):
    """The metrics of results.json; speakers: of the n rows"""
    entries = {}
    for name, (sums, score, unit, better) in statistics.items():
        of_metric = interval(sums, score, speakers, seed=seed)
        entries |= metric_entry(name, of_metric.value, unit, of_metric, better)
    return entries


def differences_from_baseline(statistics, of_baseline, baseline, speakers, seed):
    """{metric: score of the trivial baseline, this system minus it with its 95 % interval, which is better}

    statistics, of_baseline: of the system and of the baseline, on the same rows; baseline: what it does.
    Paired over the same speakers or utterances.
    """
    entries = {}
    for name, (sums, score, unit, better) in statistics.items():
        theirs = of_baseline[name][0]
        pair = paired_interval(sums, theirs, score, speakers, seed=seed)
        value = float(score(np.asarray(theirs, dtype=float).sum(axis=0)))
        entries[name] = difference_entry(baseline, value, unit, pair, better)
    return entries


def difference_entry(baseline, value, unit, pair, better):
    """One entry of the comparison. value: of the baseline; pair: Difference of the system from it; `beats` is
    None without interval"""
    beats = None if pair.low is None else (pair.high < 0 if better == "lower" else pair.low > 0)
    return {
        "system": baseline, "value": value, "unit": unit, "difference": pair.value,
        "ci95": None if pair.low is None else [pair.low, pair.high], "beats": beats,
    }  # fmt: skip
