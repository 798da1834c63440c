"""Intervals: coverage in a simulation with speaker effects, and properties of the resampling."""

import numpy as np
import pytest
from scipy.special import ndtr, ndtri, stdtr, stdtrit

from lebench_sb.evaluation.metrics import bootstrap
from lebench_sb.evaluation.metrics.bootstrap import interval, paired_interval
from lebench_sb.evaluation.metrics.errors import rate

DRAWS = 400
TRUE_RATE = 25.0  # %; mean of Beta(2, 6)


def draw_test_set(rng, speakers=40):
    """Statistics (n, 2) and n speaker names; a speaker has 1 to some 60 utterances and his own word error
    rate.

    Numbers of utterances and words do not depend on the speaker's rate, so the pooled rate tends to
    E[Beta(2, 6)] = 1/4.
    """
    utterances = rng.geometric(1 / 12, size=speakers)
    rates = np.repeat(rng.beta(2, 6, size=speakers), utterances)
    words = rng.integers(3, 16, size=len(rates))
    names = np.repeat([f"spk{i:02d}" for i in range(speakers)], utterances)
    return np.stack([rng.binomial(words, rates), words], axis=1), names


def coverage(inside):
    return 100 * np.mean([inside(seed) for seed in range(DRAWS)])


def covers_true_rate(seed, with_speakers):
    statistics, names = draw_test_set(np.random.default_rng(seed))
    found = interval(statistics, rate, names if with_speakers else None, seed=seed)
    return found.low <= TRUE_RATE <= found.high


def test_intervals_over_speakers_cover_the_true_rate():
    assert 92 <= coverage(lambda seed: covers_true_rate(seed, True)) <= 98


def test_intervals_over_utterances_undercover_with_speaker_effects():
    """The same simulation can fail: resampling utterances ignores that a speaker's errors go together."""
    assert coverage(lambda seed: covers_true_rate(seed, False)) < 70


def test_plain_percentiles_undercover_with_ten_speakers():
    """Why percentiles are expanded: `plain` is the level whose expanded percentiles are 2.5 and 97.5 %."""
    plain = 1 - 2 * stdtr(9, ndtri(0.025) / bootstrap._expansion(10))

    def inside(seed, level):
        statistics, names = draw_test_set(np.random.default_rng(seed), speakers=10)
        found = interval(statistics, rate, names, seed=seed, level=level)
        return found.low <= TRUE_RATE <= found.high

    assert coverage(lambda seed: inside(seed, plain)) < 89 < 91 < coverage(lambda seed: inside(seed, 0.95))


def draw_two_systems(rng, gain):
    """System b repeats each word error of a with probability `gain`, so its true rate is gain x TRUE_RATE."""
    statistics, names = draw_test_set(rng)
    errors, words = statistics.T
    better = np.stack([rng.binomial(errors, gain), words], axis=1)
    return statistics, better, names


def test_paired_intervals_cover_the_true_difference():
    def inside(seed):
        a, b, names = draw_two_systems(np.random.default_rng(seed), 0.9)
        found = paired_interval(a, b, rate, names, seed=seed)
        return found.low <= 0.1 * TRUE_RATE <= found.high

    assert 92 <= coverage(inside) <= 98


def test_paired_interval_is_narrower_than_two_intervals():
    a, b, names = draw_two_systems(np.random.default_rng(1), 0.9)
    paired = paired_interval(a, b, rate, names)
    single = [interval(x, rate, names) for x in (a, b)]
    assert paired.value == pytest.approx(single[0].value - single[1].value)
    assert paired.high - paired.low < 0.5 * min(s.high - s.low for s in single)
    assert paired.low > 0 and paired.probability < 0.05
    assert single[0].low < single[1].high  # the intervals overlap, yet the difference is certain


def test_probability_is_where_the_interval_touches_zero():
    rng = np.random.default_rng(5)
    statistics, names = draw_test_set(rng)
    errors, words = statistics.T
    other = np.stack([np.minimum(rng.poisson(1.03 * errors), words), words], axis=1)
    found = paired_interval(statistics, other, rate, names, resamples=20000)
    assert 0.001 < found.probability < 0.999
    at = paired_interval(statistics, other, rate, names, resamples=20000, level=1 - found.probability)
    width = at.high - at.low
    assert min(abs(at.low), abs(at.high)) < 0.01 * width


def test_swapping_the_systems_changes_the_sign_only():
    a, b, names = draw_two_systems(np.random.default_rng(2), 0.97)
    one, two = paired_interval(a, b, rate, names), paired_interval(b, a, rate, names)
    assert (one.value, one.low, one.high) == pytest.approx((-two.value, -two.high, -two.low))
    assert one.probability == pytest.approx(two.probability)


def test_equal_systems_do_not_differ():
    statistics, names = draw_test_set(np.random.default_rng(0))
    found = paired_interval(statistics, statistics, rate, names)
    assert (found.value, found.low, found.high, found.probability) == (0, 0, 0, 1)


def test_bounds_of_a_mean_are_its_t_interval():
    """A mean of normal values: the bootstrap's bounds tend to mean +- t x standard error."""
    values = np.random.default_rng(4).normal(10, 2, size=12)
    statistics = np.stack([values, np.ones(12)], axis=1)
    found = interval(statistics, lambda s: s[..., 0] / s[..., 1], resamples=200_000)
    half = stdtrit(11, 0.975) * values.std(ddof=1) / np.sqrt(12)
    assert found.low == pytest.approx(values.mean() - half, abs=0.12 * half)
    assert found.high == pytest.approx(values.mean() + half, abs=0.12 * half)


def test_units_are_speakers_from_ten_on():
    rng = np.random.default_rng(0)
    statistics = np.stack([rng.integers(0, 5, 60), np.full(60, 5)], axis=1)
    ten = interval(statistics, rate, [f"s{i % 10}" for i in range(60)])
    nine = interval(statistics, rate, [f"s{i % 9}" for i in range(60)])
    assert (ten.method, ten.n, ten.n_units) == ("bootstrap over speakers", 60, 10)
    assert (nine.method, nine.n_units) == ("bootstrap over utterances: fewer than 10 speakers", 60)
    unknown = interval(statistics, rate, [f"s{i % 10}" for i in range(59)] + [""])
    assert unknown.method == "bootstrap over utterances: speakers unknown"
    assert (unknown.low, unknown.high) == (nine.low, nine.high)


def test_order_of_utterances_and_block_size_change_nothing(monkeypatch):
    rng = np.random.default_rng(7)
    statistics, names = draw_test_set(rng)
    found = interval(statistics, rate, names)
    order = rng.permutation(len(names))
    assert interval(statistics[order], rate, names[order]) == found
    monkeypatch.setattr(bootstrap, "_CELLS", 37 * 40)
    assert interval(statistics, rate, names) == found
    assert interval(statistics, rate, names, seed=1) != found


def test_resampled_sums_have_the_mean_and_variance_of_multinomial_counts():
    units = np.random.default_rng(0).normal(size=(15, 2))
    sums = bootstrap._resampled_sums(units, 100_000, seed=0)
    np.testing.assert_allclose(sums.mean(axis=0), units.sum(axis=0), atol=0.05)
    np.testing.assert_allclose(np.cov(sums.T), 15 * np.cov(units.T, bias=True), rtol=0.03, atol=0.1)


def test_level_widens_the_interval():
    statistics, names = draw_test_set(np.random.default_rng(0))
    found = [interval(statistics, rate, names, level=level) for level in (0.5, 0.9, 0.95, 0.99)]
    widths = [i.high - i.low for i in found]
    assert widths == sorted(widths) and widths[0] < 0.5 * widths[2]


def test_resamples_without_a_reference_word_are_left_out():
    found = interval([[1, 4], [1, 0]], rate, resamples=1000)
    assert 600 < found.resamples < 900  # a quarter of the resamples draws the second utterance twice
    assert np.isfinite([found.low, found.high]).all()


def test_one_utterance_has_no_interval():
    found = interval([[1, 4]], rate)
    assert (found.value, found.low, found.high, found.resamples) == (25.0, None, None, 0)
    assert found.method == "no interval: 1 utterance"
    assert paired_interval([[1, 4]], [[2, 4]], rate).probability is None


@pytest.mark.parametrize(
    "statistics, speakers, words",
    [
        ([[1, 0], [2, 0]], None, "needs a reference token"),
        ([[1, np.nan], [2, 3]], None, "first at row 0"),
        ([1, 2], None, r"shape \(2,\)"),
        (np.zeros((0, 2)), None, r"shape \(0, 2\)"),
        ([[1, 2], [2, 3]], ["a"], "1 speakers for 2 utterances"),
    ],
)
def test_bad_statistics_are_refused(statistics, speakers, words):
    with pytest.raises(ValueError, match=words):
        interval(statistics, rate, speakers)


def test_bad_options_are_refused():
    with pytest.raises(ValueError, match=r"shapes \(2, 2\) and \(1, 2\)"):
        paired_interval([[1, 2], [2, 3]], [[1, 2]], rate)
    with pytest.raises(ValueError, match="level is 95"):
        interval([[1, 2], [2, 3]], rate, level=95)
    with pytest.raises(ValueError, match="resamples is 0"):
        interval([[1, 2], [2, 3]], rate, resamples=0)
    with pytest.raises(ValueError, match="vectorised"):
        interval([[1, 2], [2, 3]], lambda sums: 1.0)


def test_expansion_leaves_large_sets_alone():
    """With 10,000 units the expanded level is the plain one within a hundredth of a percent."""
    assert ndtr(bootstrap._expansion(10_000) * stdtrit(9_999, 0.025)) == pytest.approx(0.025, abs=1e-4)
