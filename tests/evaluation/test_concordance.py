"""Concordance against numpy from the definition, on random, constant and degenerate traces."""

import numpy as np
import pytest

from lebench_sb.evaluation.metrics.bootstrap import interval
from lebench_sb.evaluation.metrics.concordance import ccc, constant, rmse, sums


def by_definition(x, y):
    covariance = np.mean((x - x.mean()) * (y - y.mean()))
    return 2 * covariance / (x.var() + y.var() + (x.mean() - y.mean()) ** 2)


@pytest.mark.parametrize("seed", range(20))
def test_equal_to_the_definition(seed):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(2, 3000))
    x = rng.normal(rng.uniform(-1, 1), rng.uniform(0.01, 2), n)
    y = rng.uniform(-1, 1) * x + rng.normal(rng.uniform(-1, 1), rng.uniform(0.01, 2), n)
    assert ccc(sums(x, y)) == pytest.approx(by_definition(x, y), abs=1e-9)
    assert rmse(sums(x, y)) == pytest.approx(np.sqrt(np.mean((x - y) ** 2)), rel=1e-9)
    # Pearson's coefficient bounds it, and swapping changes nothing
    assert abs(ccc(sums(x, y))) <= abs(np.corrcoef(x, y)[0, 1]) + 1e-9
    assert ccc(sums(y, x)) == pytest.approx(ccc(sums(x, y)), abs=1e-12)


def test_sums_of_files_give_the_score_of_their_concatenation_not_the_mean_of_scores():
    rng = np.random.default_rng(0)
    files = [(rng.normal(k, 0.1, 50 + k), rng.normal(k, 0.5, 50 + k)) for k in range(5)]
    each = np.array([sums(x, y) for x, y in files])
    joined = by_definition(*(np.concatenate(side) for side in zip(*files, strict=True)))
    assert ccc(each.sum(axis=0)) == pytest.approx(joined, abs=1e-12)
    assert joined > 0.8 and abs(np.mean(ccc(each))) < 0.4
    assert ccc(each).shape == (5,) and ccc(each.reshape(5, 1, 6)).shape == (5, 1)


def test_the_perfect_and_the_opposite_answer():
    x = np.random.default_rng(1).normal(size=100)
    assert ccc(sums(x, x)) == pytest.approx(1) and rmse(sums(x, x)) == pytest.approx(0, abs=1e-7)
    assert ccc(sums(x, 2 * x.mean() - x)) == pytest.approx(-1)
    assert ccc(sums(x, x + 1)) < 1 and ccc(sums(x, 2 * x)) < 1  # unlike a correlation


@pytest.mark.parametrize("value", [0.0, 0.3, -7.1, 1e6, 1e-9])
def test_constant_traces_are_zero_and_told(value):
    varied, flat = np.random.default_rng(2).normal(size=7501), np.full(7501, value)
    for x, y, expected in ((flat, varied, (True, False)), (varied, flat, (False, True)),
                           (flat, flat, (True, True)), (flat, flat + 1, (True, True)),
                           (varied, varied, (False, False))):  # fmt: skip
        assert ccc(sums(x, y)) == pytest.approx(0 if any(expected) else 1)
        assert tuple(map(bool, constant(sums(x, y)))) == expected


def test_a_small_variation_is_not_constant():
    x = 0.5 + 1e-4 * np.random.default_rng(3).normal(size=7501)
    assert constant(sums(x, x)) == (False, False)
    assert ccc(sums(x, x)) == pytest.approx(1)


def test_no_instant_has_no_score():
    assert np.isnan(ccc(np.zeros(6))) and np.isnan(rmse(np.zeros(6)))
    np.testing.assert_allclose(ccc([np.zeros(6), sums(np.arange(3.0), np.arange(3.0))]), [np.nan, 1])


def test_wrong_input_is_named():
    with pytest.raises(ValueError, match=r"\(2,\).*\(3,\)"):
        sums([1.0, 2.0], [1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match="NaN"):
        sums([1.0, np.nan], [1.0, 2.0])


def test_the_bootstrap_takes_it():
    rng = np.random.default_rng(4)
    files = []
    for _ in range(30):
        x = rng.normal(size=200)
        files.append(sums(x, x + rng.normal(size=200)))
    found = interval(files, ccc, resamples=300)
    # var_x = 1, var_y = 2, covariance 1
    assert found.low < 2 / 3 < found.high and found.low <= found.value <= found.high
    assert found.high - found.low < 0.1
