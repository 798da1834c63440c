"""Accuracy, unweighted average recall and macro F1, from the sums of a confusion matrix.

Letters: n utterances, C classes. A row of statistics has C * C entries: 1 at reference * C + hypothesis.
"""

import numpy as np


def statistics(references, hypotheses, classes):
    """Lists of n class names -> (n, C * C) of 0 and 1, what the scores below sum.

    ValueError: lists of different length, a name that is no class.
    """
    number = {name: i for i, name in enumerate(classes)}
    unknown = sorted({*references, *hypotheses} - set(number))
    if unknown:
        raise ValueError(f"{', '.join(map(repr, unknown))}: no class; there are {', '.join(classes)}.")
    if len(references) != len(hypotheses):
        raise ValueError(f"{len(references)} references but {len(hypotheses)} hypotheses.")
    cells = np.zeros((len(references), len(classes) ** 2))
    for row, (reference, hypothesis) in enumerate(zip(references, hypotheses, strict=True)):
        cells[row, number[reference] * len(classes) + number[hypothesis]] = 1
    return cells


def matrix(sums):
    """Sums (..., C * C) -> confusion matrix (..., C, C), a line per reference, a column per hypothesis"""
    sums = np.asarray(sums, dtype=float)
    size = round(sums.shape[-1] ** 0.5)
    if size * size != sums.shape[-1]:
        raise ValueError(f"sums have {sums.shape[-1]} entries, expected the square of the number of classes.")
    return sums.reshape(*sums.shape[:-1], size, size)


def accuracy(sums):
    """Sums (..., C * C) -> % of utterances with the right class (...,), NaN without utterances"""
    confusion = matrix(sums)
    return _mean_percent(_diagonal(confusion).sum(-1), confusion.sum((-2, -1)))


def unweighted_recall(sums):
    """Sums (..., C * C) -> mean over classes of the % recognised (...,).

    Classes without reference utterance have no recall and are left out, as in scikit-learn's
    `balanced_accuracy_score`.
    """
    confusion = matrix(sums)
    return _over_classes(_diagonal(confusion), confusion.sum(-1))


def macro_f1(sums):
    """Sums (..., C * C) -> mean over classes of F1 in % (...,).

    F1 of a class is 2 hits / (references + hypotheses); a class with neither is left out, as in
    scikit-learn's `f1_score(average="macro")`.
    """
    confusion = matrix(sums)
    return _over_classes(2 * _diagonal(confusion), confusion.sum(-1) + confusion.sum(-2))


def _diagonal(confusion):
    return np.diagonal(confusion, axis1=-2, axis2=-1)


def _mean_percent(values, counts):
    return 100 * np.divide(values, counts, out=np.full(np.shape(values), np.nan), where=counts > 0)[()]


def _over_classes(values, counts):
    """Quotients (..., C), mean in % of those with a count (...,)"""
    there = counts > 0
    quotients = np.divide(values, counts, out=np.zeros(values.shape), where=there)
    return _mean_percent(quotients.sum(-1), there.sum(-1))


SCORES = {"accuracy": accuracy, "UAR": unweighted_recall, "F1": macro_f1}  # of the sums
