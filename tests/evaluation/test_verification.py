"""EER, minDCF and DET against brute force, SpeechBrain and scikit-learn; the bootstrap over speakers."""

import time
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.metrics import det_curve, roc_auc_score
from speechbrain.utils import metric_stats

from lebench_sb.evaluation.metrics import verification
from lebench_sb.evaluation.metrics.verification import (
    Ranking,
    adaptive_s_norm,
    det_points,
    differences,
    equal_error_rate,
    intervals,
    measure,
    measures,
    min_dcf,
    normalised_min_dcf,
)

EER = {"EER": equal_error_rate}


@st.composite
def trial_sets(draw, scores=None):
    """(scores, targets): up to 14 trials of both kinds; by default few different scores, so many ties"""
    scores = st.integers(0, 5).map(float) if scores is None else scores
    trials = draw(st.lists(st.tuples(scores, st.booleans()), min_size=2, max_size=14))
    targets = np.array([target for _, target in trials])
    assume(0 < targets.sum() < len(targets))
    return np.array([score for score, _ in trials]), targets


def brute(scores, targets):
    """[(false alarm rate, miss rate)] at every threshold, ascending, each counted anew as a fraction"""
    rates = []
    for threshold in [-np.inf, *sorted(set(scores.tolist()))]:
        alarms = sum(s > threshold for s, t in zip(scores, targets, strict=True) if not t)
        misses = sum(s <= threshold for s, t in zip(scores, targets, strict=True) if t)
        rates.append(
            (Fraction(int(alarms), int((~targets).sum())), Fraction(int(misses), int(targets.sum())))
        )
    return rates


@given(trial_sets())
def test_eer_is_the_mean_rate_where_they_differ_least_at_the_lowest_such_threshold(trials):
    rates = brute(*trials)
    alarm, miss = min(rates, key=lambda pair: abs(pair[0] - pair[1]))  # min keeps the first
    assert equal_error_rate(*Ranking(*trials).counts()) == pytest.approx(float(50 * (alarm + miss)))


@given(trial_sets(), st.sampled_from([(0.01, 1, 1), (0.5, 1, 1), (0.9, 2, 1), (0.05, 10, 1)]))
def test_min_dcf_is_the_least_cost_over_all_thresholds(trials, costs):
    p_target, c_miss, c_fa = costs
    least = min(p_target * c_miss * m + (1 - p_target) * c_fa * a for a, m in brute(*trials))
    counts = Ranking(*trials).counts()
    assert min_dcf(*counts, *costs) == pytest.approx(float(least))
    trivial = min(p_target * c_miss, (1 - p_target) * c_fa)
    assert normalised_min_dcf(*counts, *costs) == pytest.approx(float(least) / trivial)
    assert normalised_min_dcf(*counts, *costs) <= 1 + 1e-12


@settings(max_examples=60)
@given(trial_sets(st.integers(-40, 40).map(lambda n: n / 64)))
def test_equal_to_speechbrain(trials):
    scores, targets = trials
    gaps = sorted(abs(alarm - miss) for alarm, miss in brute(scores, targets)[1:])
    assume(len(gaps) < 2 or gaps[0] < gaps[1])  # it breaks ties by the rounding of float32
    positive, negative = torch.tensor(scores[targets]).float(), torch.tensor(scores[~targets]).float()
    counts = Ranking(scores, targets).counts()
    assert equal_error_rate(*counts) == pytest.approx(100 * metric_stats.EER(positive, negative)[0], abs=1e-4)
    assert min_dcf(*counts) == pytest.approx(metric_stats.minDCF(positive, negative)[0], abs=1e-6)


def test_speechbrain_never_accepts_everything_where_that_is_cheapest():
    positive, negative = torch.tensor([0.0, 1.0, 2.0]), torch.tensor([1.5, 3.0])
    counts = Ranking(np.array([0.0, 1, 2, 1.5, 3]), np.array([True] * 3 + [False] * 2)).counts()
    assert min_dcf(*counts, p_target=0.9) == pytest.approx(0.1)
    assert metric_stats.minDCF(positive, negative, p_target=0.9)[0] == pytest.approx(0.4)


@given(trial_sets(), st.data())
def test_a_whole_weight_is_a_trial_repeated(trials, data):
    scores, targets = trials
    weights = np.array(data.draw(st.lists(st.integers(0, 4), min_size=len(scores), max_size=len(scores))))
    assume((weights * targets).any() and (weights * ~targets).any())
    repeated = Ranking(np.repeat(scores, weights), np.repeat(targets, weights)).counts()
    weighted = Ranking(scores, targets).counts(np.stack([weights, np.ones(len(scores))]))
    plain = Ranking(scores, targets).counts()
    for function, *_ in measures().values():
        assert function(*weighted)[0] == pytest.approx(function(*repeated))
        assert function(*weighted)[1] == pytest.approx(function(*plain))


def test_known_values():
    targets = np.array([True] * 4 + [False] * 4)
    assert equal_error_rate(*Ranking([5, 6, 7, 8, 1, 2, 3, 4], targets).counts()) == 0
    assert equal_error_rate(*Ranking([1, 2, 3, 4, 5, 6, 7, 8], targets).counts()) == 100
    counts = Ranking([1.0] * 8, targets).counts()  # useless: all alike
    assert equal_error_rate(*counts) == 50 and normalised_min_dcf(*counts) == pytest.approx(1)
    assert min_dcf(*counts) == pytest.approx(0.01)
    assert equal_error_rate(*Ranking([2, 6, 7, 8, 1, 3, 4, 5], targets).counts()) == pytest.approx(25)


@pytest.mark.parametrize(
    "scores, targets, said",
    [
        ([1.0, 2.0], [True, True], "2 target and 0 non-target"),
        ([1.0, 2.0], [False, False], "0 target and 2 non-target"),
        ([1.0, np.nan, np.inf], [True, False, False], "2 scores are not finite, first at trial 1: nan"),
        ([1.0], [True, False], r"shape \(1,\) and targets \(2,\)"),
        ([], [], "0 target and 0 non-target"),
    ],
)
def test_what_cannot_be_scored_is_an_error(scores, targets, said):
    with pytest.raises(ValueError, match=said):
        Ranking(scores, targets)


@pytest.mark.parametrize("costs", [(0, 1, 1), (1, 1, 1), (0.01, 0, 1), (0.01, 1, -1), (0.01, 1, np.inf)])
def test_costs_that_mean_nothing_are_errors(costs):
    with pytest.raises(ValueError, match="p_target must lie between 0 and 1"):
        measures(*costs)


def test_the_unit_of_a_cost_tells_its_parameters():
    counts = Ranking(np.random.default_rng(0).normal(size=200), np.arange(200) < 50).counts()
    made = measures(0.0312, 10, 2.5)
    assert made["minDCF"][1] == "Ptar 0.0312, Cmiss 10, Cfa 2.5"
    for name, (function, unit, _) in made.items():
        assert measure(name, unit)(*counts) == function(*counts)
    with pytest.raises(ValueError, match="WER is no metric of verification: EER"):
        measure("WER", "%")


def test_a_million_trials_in_seconds():
    rng = np.random.default_rng(0)
    targets = rng.random(1_000_000) < 0.05
    scores = rng.normal(size=len(targets)) + 2.0 * targets
    started = time.process_time()
    counts = Ranking(scores, targets).counts()
    values = {name: float(function(*counts)) for name, (function, *_) in measures().items()}
    assert time.process_time() - started < 5
    assert values["EER"] == pytest.approx(15.87, abs=0.3)  # two normals two deviations apart: Phi(-1)


def test_det_points_are_scikit_learns():
    rng = np.random.default_rng(1)
    targets = rng.random(300) < 0.3
    scores = np.round(rng.normal(size=300) + targets, 1)
    alarms, misses = det_points(scores, targets)
    theirs = det_curve(targets, scores)
    pairs = set(zip(alarms.round(9), misses.round(9), strict=True))
    assert set(zip(theirs[0].round(9), theirs[1].round(9), strict=True)) <= pairs
    assert (alarms[0], misses[0], alarms[-1], misses[-1]) == (1, 0, 0, 1)
    area = -np.trapezoid(1 - misses, alarms)
    assert area == pytest.approx(roc_auc_score(targets, scores))
    thinned = det_points(rng.normal(size=50_000), rng.random(50_000) < 0.5, most=500)
    assert len(thinned[0]) == 500 and (np.diff(thinned[0]) <= 0).all() and (np.diff(thinned[1]) >= 0).all()


# ---- intervals


def voices(rng, speakers, excerpts, size=20):
    """All trials of `excerpts` of each of `speakers`: scores, targets, names of both sides"""
    centres = rng.normal(size=(speakers, 1, size)) * rng.uniform(0.7, 1.3, size=(speakers, 1, 1))
    spread = rng.uniform(0.6, 1.4, size=(speakers, 1, 1))  # speakers differ in how alike they sound each day
    vectors = (centres + spread * rng.normal(size=(speakers, excerpts, size))).reshape(-1, size)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    names = np.repeat([f"s{k:03d}" for k in range(speakers)], excerpts)
    i, j = np.triu_indices(len(names), 1)
    return (vectors[i] * vectors[j]).sum(axis=1), names[i] == names[j], (names[i].tolist(), names[j].tolist())


def test_weights_are_those_of_a_list_made_of_the_drawn_speakers():
    """Counted by making the list: copies of one person are compared with themselves only"""
    names = [f"s{k}" for k in range(11)]
    pairs = [(a, b) for k, a in enumerate(names) for b in names[: k + 1]]
    design = verification._Design(tuple(zip(*pairs, strict=True)), len(pairs))
    weights = design._weights(np.random.default_rng(0), 5)
    drawn = np.random.default_rng(0).integers(11, size=(5, 11))
    order = sorted(names)
    for row, places in zip(weights, drawn, strict=True):
        people = [order[place] for place in places]
        made = [
            sum(x == a for x in people) if a == b else sum(x == a and y == b for x in people for y in people)
            for a, b in pairs
        ]
        assert row.tolist() == made


def test_an_interval_is_made_of_speakers_where_there_are_ten():
    scores, targets, speakers = voices(np.random.default_rng(0), 30, 3)
    found = intervals(scores, targets, speakers, EER)["EER"]
    assert found.value == pytest.approx(equal_error_rate(*Ranking(scores, targets).counts()))
    assert found.low < found.value < found.high
    assert (found.method, found.n, found.n_units) == (verification.OVER_PAIRS, len(scores), 30)
    assert intervals(scores, targets, speakers, EER)["EER"] == found
    few = intervals(*voices(np.random.default_rng(0), 9, 3), EER)["EER"]
    assert few.method == "bootstrap over trials: fewer than 10 speakers" and few.n_units == few.n
    unknown = intervals(scores, targets, (["", *speakers[0][1:]], speakers[1]), EER)["EER"]
    assert unknown.method == verification.NO_SPEAKERS
    assert unknown.high - unknown.low < found.high - found.low
    with pytest.raises(ValueError, match="3 and 3 speakers for 4 trials"):
        intervals([1, 2, 3, 4], [True, False] * 2, (["a"] * 3, ["b"] * 3), EER)


def test_the_same_scores_do_not_differ_and_better_ones_do():
    scores, targets, speakers = voices(np.random.default_rng(0), 30, 3)
    functions = {name: function for name, (function, *_) in measures().items()}
    same = differences(scores, scores * 2 + 1, targets, speakers, functions, resamples=200)
    assert all((d.value, d.low, d.high, d.probability) == (0, 0, 0, 1) for d in same.values())
    better = differences(scores + 0.5 * targets, scores, targets, speakers, EER, resamples=500)["EER"]
    assert better.high < 0 and better.probability < 0.01 and better.method == verification.OVER_PAIRS


@pytest.mark.slow
def test_coverage_of_the_intervals():
    """95 % intervals of the EER of 30 speakers hold the EER of very many in about 95 of 100 tests; drawing
    trials as if they were independent, in far fewer"""
    rng = np.random.default_rng(7)
    parts = [voices(rng, 300, 4)[:2] for _ in range(10)]
    truth = float(equal_error_rate(*Ranking(*map(np.concatenate, zip(*parts, strict=True))).counts()))
    hits = np.zeros(2)
    for seed in range(200):
        scores, targets, speakers = voices(rng, 30, 4)
        for kind, names in enumerate((speakers, ([""] * len(scores), speakers[1]))):
            found = intervals(scores, targets, names, EER, resamples=300, seed=seed)["EER"]
            hits[kind] += found.low <= truth <= found.high
    assert 0.90 <= hits[0] / 200 <= 0.99
    assert hits[1] / 200 < hits[0] / 200 - 0.05


# ---- score normalisation


def test_s_norm_by_hand():
    rng = np.random.default_rng(0)
    cohort, enrolled, tested = rng.normal(size=(5, 12)), np.array([0, 1, 4]), np.array([2, 3, 0])
    scores = rng.normal(size=3)
    expected = []
    for score, e, t in zip(scores, enrolled, tested, strict=True):
        sides = [sorted(cohort[row])[-4:] for row in (e, t)]
        expected.append(np.mean([(score - np.mean(side)) / np.std(side, ddof=1) for side in sides]))
    assert adaptive_s_norm(scores, enrolled, tested, cohort, 4) == pytest.approx(expected)
    whole = adaptive_s_norm(scores, enrolled, tested, cohort, 100)
    assert whole == pytest.approx(adaptive_s_norm(scores, enrolled, tested, cohort, 12))
    assert adaptive_s_norm(scores, tested, enrolled, cohort, 4) == pytest.approx(expected)  # symmetric


def test_s_norm_lowers_the_error_where_recordings_differ_in_level():
    """Each recording has a level that is in all of its scores, those with the cohort too"""
    rng = np.random.default_rng(0)
    speakers, levels = np.tile(np.arange(20), 4), rng.normal(size=80)
    first, second = np.triu_indices(80, 1)
    targets = speakers[first] == speakers[second]
    scores = 2.0 * targets + levels[first] + levels[second] + 0.5 * rng.normal(size=len(first))
    cohort = levels[:, None] + 0.5 * rng.normal(size=(80, 60))
    normalised = adaptive_s_norm(scores, first, second, cohort, 20)
    before, after = (equal_error_rate(*Ranking(s, targets).counts()) for s in (scores, normalised))
    assert 0 < after < before - 5.0


@pytest.mark.parametrize("cohort, top", [(np.ones((3, 1)), 5), (np.eye(3), 1), (np.ones((3, 4)), 3)])
def test_a_cohort_that_cannot_normalise_is_an_error(cohort, top):
    with pytest.raises(ValueError, match="s-norm"):
        adaptive_s_norm(np.zeros(2), np.array([0, 1]), np.array([1, 2]), cohort, top)
