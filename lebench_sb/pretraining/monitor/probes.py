"""What the representations are worth while they are being learnt: effective rank and linear probes.

n utterances of D features, C classes; M frames.
"""

import logging
import math

import torch

from lebench_sb.core.errors import UsageError
from lebench_sb.manifests.member_names import manifest_paths
from lebench_sb.manifests.reading import read_manifest
from lebench_sb.training.data import crop_limits, load_audio, seed_of

logger = logging.getLogger(__name__)
FOLDS = 5
SHORTEST = 0.1  # seconds; less may not fill a frame
OWN = {"spk_id": "speaker", "gender": "gender", "language": "language"}  # columns that are no labels


def effective_rank(gram):
    """gram (D, D), the sum over frames z of z z^T -> number between 1 and D: the exponential of the entropy
    of the frames' singular values, each divided by their sum (RankMe; Garrido et al., 2023, equation 1).

    The frames are not centred, as there. 0.0 if all are zero, NaN if one is not finite.
    """
    if not gram.isfinite().all():
        return math.nan
    singular = torch.linalg.eigvalsh(gram.double().cpu()).clamp_min(0).sqrt()
    shares = singular / singular.sum().clamp_min(torch.finfo(torch.float64).tiny)
    return float(torch.exp(-torch.special.xlogy(shares, shares).sum())) if shares.sum() > 0 else 0.0


class Probe:
    """Linear classifiers of mean-pooled frames, trained and scored by cross-validation on a small manifest.

    `path`: manifest(s) as for `train_csv`; `labels`: columns to predict (`spk_id`, `gender`, `emotion`,
    `wrd`, ...); longer utterances are cut to `max_crop` seconds. Raises UsageError for a column that is
    absent, or that has fewer than two classes of FOLDS utterances each; smaller classes are left out, with a
    message, and utterances under SHORTEST seconds.
    """

    def __init__(self, path, labels, data_folder, max_crop, normalise):
        found = [u for one in manifest_paths(path) for u in read_manifest(one, data_folder)]
        self.utterances = [u for u in found if u.duration >= SHORTEST]
        self.max_crop, self.normalise = max_crop, normalise
        labels = [labels] if isinstance(labels, str) else labels
        self.tasks = {label: self.task(path, label) for label in labels}

    def task(self, path, label):
        """-> (rows (n,), classes (n,), folds (n,), C) of the utterances that take part"""
        values = [column(path, u, label) for u in self.utterances]
        counts = {value: values.count(value) for value in set(values) - {""}}
        kept_classes = sorted(value for value, count in counts.items() if count >= FOLDS)
        if len(kept_classes) < 2:
            raise UsageError(
                f"probe_csv {path}: column {label} has {len(kept_classes)} classes of at least {FOLDS} "
                "utterances, a probe needs 2. Give another manifest or another of probe_labels."
            )
        rows = [row for row, value in enumerate(values) if value in kept_classes]
        if len(rows) < len(values):
            left = len(values) - len(rows)
            logger.info("probe %s: %d utterances of classes with under %d left out", label, left, FOLDS)
        classes = [kept_classes.index(values[row]) for row in rows]
        folds = fold_numbers([self.utterances[row] for row in rows], classes, label)
        return torch.tensor(rows), torch.tensor(classes), torch.tensor(folds), len(kept_classes)

    def scores(self, frames_of):
        """frames_of: wav (T,) -> frames (F, D). -> as `scored`, by one process alone"""
        return self.scored(torch.stack(list(self.means(frames_of).values())))

    def means(self, frames_of, rank=0, world=1):
        """{row: mean of the frames (D,)} of the utterances that process `rank` of `world` takes"""
        own = range(rank, len(self.utterances), world)
        return {row: self.pooled(self.utterances[row], frames_of) for row in own}

    def scored(self, features):
        """features (n, D) of all utterances -> {"probe_<label>": unweighted average recall (%),
        "probe_<label>_chance": chance recall}; NaN where one is not finite"""
        scores = {}
        for label, (rows, classes, folds, number) in self.tasks.items():
            recall = math.nan
            if features[rows].isfinite().all():
                predicted = cross_validated(features[rows], classes, folds, number)
                recall = average_recall(predicted, classes, number)
            scores |= {f"probe_{label}": recall, f"probe_{label}_chance": 100 / number}
        return scores

    def pooled(self, utterance, frames_of):
        """Mean of the frames of an utterance (D,), on the CPU, float64"""
        u = utterance
        first, last = crop_limits(u.id, 0, u.start, u.duration, 0, self.max_crop)
        channel = u.labels.get("channel", "")
        wav = load_audio(u.wav, first, u.stop if last is None else last, channel)
        return frames_of(self.normalise(wav)).mean(dim=0).double().cpu()


def column(path, utterance, label):
    """The utterance's value in a column of its manifest"""
    if label in OWN:
        return getattr(utterance, OWN[label])
    if label not in utterance.labels:
        known = ", ".join([*OWN, *utterance.labels])
        raise UsageError(f"probe_csv {path} has no column {label}; probe_labels may be of: {known}.")
    return utterance.labels[label]


def fold_numbers(utterances, classes, label):
    """-> FOLDS numbers for n utterances. No speaker is in two folds where there are FOLDS of them, unless
    speakers are what is predicted; else the utterances of each class are dealt out."""
    speakers = sorted({u.speaker for u in utterances}, key=seed_of)
    if label != "spk_id" and len(speakers) >= FOLDS:
        return [speakers.index(u.speaker) % FOLDS for u in utterances]
    dealt, folds = {}, [0] * len(utterances)
    for row in sorted(range(len(utterances)), key=lambda row: seed_of(utterances[row].id)):
        dealt[classes[row]] = dealt.get(classes[row], -1) + 1
        folds[row] = dealt[classes[row]] % FOLDS
    return folds


def cross_validated(features, classes, folds, number):
    """features (n, D), classes (n,), folds (n,) -> (n,) classes predicted from the other folds"""
    predicted = torch.empty_like(classes)
    for fold in folds.unique():
        tested = folds == fold
        weights = ridge(features[~tested], classes[~tested], number)
        predicted[tested] = (extended(features[tested], weights[0]) @ weights[1]).argmax(dim=1)
    return predicted


def ridge(features, classes, number):
    """Ridge regression to one-hot classes, each class with the same total weight -> (scaling, weights).

    Features are standardised by their weighted mean and deviation; the penalty is 1 per unit of weight, so
    that it weighs as much as a feature's variance. The intercept is not penalised.
    """
    counts = torch.bincount(classes, minlength=number).clamp_min(1)
    weight = (1 / counts[classes])[:, None].double()
    total = weight.sum()
    mean = (weight * features).sum(dim=0) / total
    deviation = ((weight * (features - mean) ** 2).sum(dim=0) / total).sqrt().clamp_min(1e-8)
    inputs = (features - mean) / deviation
    targets = torch.nn.functional.one_hot(classes, number).double()
    average = (weight * targets).sum(dim=0, keepdim=True) / total
    # with fewer utterances than features the system of equations between utterances is the smaller one
    root = weight.sqrt()
    left, right = root * inputs, root * (targets - average)
    kernel = left @ left.T + total * torch.eye(len(left), dtype=torch.float64)
    return (mean, deviation), torch.cat([left.T @ torch.linalg.solve(kernel, right), average])


def extended(features, scaling):
    """(n, D) -> (n, D + 1): standardised, and 1 for the intercept"""
    mean, deviation = scaling
    return torch.cat([(features - mean) / deviation, features.new_ones(len(features), 1)], dim=1)


def average_recall(predicted, classes, number):
    """Mean over the classes of the share (%) of their utterances that were recognised"""
    right = (predicted == classes).double()
    return 100 * float(torch.stack([right[classes == c].mean() for c in range(number)]).mean())
