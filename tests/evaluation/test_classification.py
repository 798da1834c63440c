"""Accuracy, unweighted recall and macro F1 against scikit-learn, absent classes included."""

import warnings

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, balanced_accuracy_score, confusion_matrix, f1_score

from lebench_sb.evaluation.metrics.bootstrap import interval
from lebench_sb.evaluation.metrics.classification import (
    accuracy,
    macro_f1,
    matrix,
    statistics,
    unweighted_recall,
)

CLASSES = ["anger", "fear", "joy", "neutral", "sadness"]


def drawn(seed):
    """Names that may leave classes out of references, of answers, of both"""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 60))
    some = rng.choice(CLASSES, int(rng.integers(1, 6)), replace=False)
    other = rng.choice(CLASSES, int(rng.integers(1, 6)), replace=False)
    return list(rng.choice(some, n)), list(rng.choice(other, n))


@pytest.mark.parametrize("seed", range(60))
def test_equal_to_scikit_learn(seed):
    references, answers = drawn(seed)
    cells = statistics(references, answers, CLASSES)
    assert (cells.sum(axis=1) == 1).all()
    sums = cells.sum(axis=0)
    np.testing.assert_array_equal(matrix(sums), confusion_matrix(references, answers, labels=CLASSES))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn warns of absent classes
        recall = balanced_accuracy_score(references, answers)
        f1 = f1_score(references, answers, average="macro", zero_division=0)
    assert accuracy(sums) == pytest.approx(100 * accuracy_score(references, answers))
    assert unweighted_recall(sums) == pytest.approx(100 * recall)
    assert macro_f1(sums) == pytest.approx(100 * f1)


def test_vectorised_over_resamples():
    sums = np.stack([statistics(*drawn(seed), CLASSES).sum(axis=0) for seed in range(12)])
    for score in (accuracy, unweighted_recall, macro_f1):
        many = score(sums.reshape(3, 4, 25))
        assert many.shape == (3, 4)
        np.testing.assert_allclose(many.ravel(), [score(row) for row in sums])


def test_unequal_classes_tell_the_scores_apart():
    references, answers = ["joy"] * 9 + ["fear"], ["joy"] * 10
    sums = statistics(references, answers, CLASSES).sum(axis=0)
    assert accuracy(sums) == 90 and unweighted_recall(sums) == 50
    assert macro_f1(sums) == pytest.approx(100 * (18 / 19) / 2)


def test_nothing_has_no_score():
    assert all(np.isnan(score(np.zeros(25))) for score in (accuracy, unweighted_recall, macro_f1))


def test_wrong_input_is_named():
    with pytest.raises(ValueError, match="'disgust'.*anger, fear"):
        statistics(["disgust"], ["joy"], CLASSES)
    with pytest.raises(ValueError, match="2 references but 1"):
        statistics(["joy", "joy"], ["joy"], CLASSES)
    with pytest.raises(ValueError, match="24 entries"):
        matrix(np.zeros(24))


def test_the_interval_of_a_guess_contains_chance():
    rng = np.random.default_rng(0)
    references, answers = list(rng.choice(CLASSES, 500)), list(rng.choice(CLASSES, 500))
    found = interval(statistics(references, answers, CLASSES), unweighted_recall, resamples=300)
    assert found.low < 20 < found.high and found.high - found.low < 12
