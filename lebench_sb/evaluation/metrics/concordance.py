"""Agreement of two traces: concordance correlation coefficient and root mean squared error, from sums.

CCC = 2 cov / (var_x + var_y + (mean_x - mean_y)^2), Lin (1989), "A concordance correlation coefficient to
evaluate reproducibility"; variances and covariance divide by n, as in numpy and in LeBenchmark's scoring.
Both scores are functions of six sums, and sums add up: those of all files of a test set give the scores of
their concatenation, and the bootstrap resamples files.

Letters: n instants; x the reference, y the prediction.
"""

import numpy as np

COLUMNS = ("n", "x", "y", "xx", "yy", "xy")  # count, then sums of x, y, x^2, y^2, x y
# a trace whose variance is below this share of its mean square varies by rounding only
_ROUNDING = 1e-11


def sums(x, y):
    """Reference and prediction (n,), (n,) -> (6,) float64 as in COLUMNS. ValueError: shapes, NaN."""
    x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if x.ndim != 1 or x.shape != y.shape:
        raise ValueError(f"reference {x.shape} and prediction {y.shape} must be two rows of one length.")
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise ValueError("reference or prediction holds NaN or infinity.")
    return np.array([len(x), x.sum(), y.sum(), x @ x, y @ y, x @ y])


def ccc(sums):
    """Sums (..., 6) -> CCC (...,) in [-1, 1]; NaN without any instant.

    A constant reference or prediction has no covariance: 0, also where both are the same constant and Lin's
    quotient is 0/0.
    """
    n, x, y, xx, yy, xy = np.moveaxis(np.asarray(sums, dtype=float), -1, 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean_x, mean_y = x / n, y / n
        var_x, var_y = _variance(n, x, xx), _variance(n, y, yy)
        covariance = np.where((var_x == 0) | (var_y == 0), 0.0, xy / n - mean_x * mean_y)
        below = var_x + var_y + (mean_x - mean_y) ** 2
        score = 2 * covariance / below
    return np.where(n > 0, np.where(covariance == 0, 0.0, score), np.nan)[()]


def rmse(sums):
    """Sums (..., 6) -> root of the mean squared difference (...,); NaN without any instant"""
    n, _, _, xx, yy, xy = np.moveaxis(np.asarray(sums, dtype=float), -1, 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(n > 0, np.sqrt(np.maximum(xx + yy - 2 * xy, 0.0) / n), np.nan)[()]


def constant(sums):
    """Sums (..., 6) -> two bool (...,): whether the reference, and whether the prediction, never changes"""
    n, x, y, xx, yy, _ = np.moveaxis(np.asarray(sums, dtype=float), -1, 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return (_variance(n, x, xx) == 0) & (n > 0), (_variance(n, y, yy) == 0) & (n > 0)


def _variance(n, total, squares):
    """(...,): divided by n, and 0 where only rounding is left"""
    variance = squares / n - (total / n) ** 2
    return np.where(variance <= _ROUNDING * squares / n, 0.0, variance)


SCORES = {"CCC": ccc, "RMSE": rmse}  # both of the same six sums
