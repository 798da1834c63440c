"""Emotion of an utterance as one of several classes: pooled frames, a linear layer, cross-entropy.

Letters: B utterances, F frames, D features, C classes.
"""

import json
import logging
from collections import Counter, defaultdict

import torch
from speechbrain.utils.distributed import if_main_process
from torch import nn
from torch.nn import functional as F

from lebench_sb.core.errors import DataError, Problems, nearest
from lebench_sb.core.files import write_atomically
from lebench_sb.core.masks import valid_mask
from lebench_sb.evaluation import plots
from lebench_sb.evaluation.metrics import classification
from lebench_sb.manifests.labels import require
from lebench_sb.manifests.speakers import check_speakers
from lebench_sb.tasks.brain import TaskBrain, with_modules
from lebench_sb.training.brain import TRAIN
from lebench_sb.training.data import as_dataset, audio_item

logger = logging.getLogger(__name__)
METRICS = classification.SCORES


class MeanPooling(nn.Module):
    """Linear projector, mean over the valid frames, linear layer: SUPERB's head of emotion recognition.

    The mean of features that have mean 0 over each utterance, as a filterbank's, tells nothing: use
    ConvolutionPooling with them.
    """

    def __init__(self, input_size, output_size, projector=256):
        super().__init__()
        self.projector = nn.Linear(input_size, projector)
        self.output = nn.Linear(projector, output_size)

    def forward(self, frames, frame_lens):
        """frames (B, F, D), frame_lens (B,) -> scores of the classes (B, C)"""
        return self.output(masked_mean(self.projector(frames), frame_lens))


class ConvolutionPooling(nn.Module):
    """Two convolutions over time, mean and standard deviation of their outputs over the valid frames, linear.

    frame_rate: of the encoder; the first convolution steps so that at most `max_rate` frames per second
    remain: a 100 Hz filterbank and a 50 Hz SSL encoder meet the same head.
    """

    def __init__(self, input_size, frame_rate, output_size, hidden=128, kernel=5, dropout=0.2, max_rate=50.0):
        super().__init__()
        self.stride = max(1, round(frame_rate / max_rate))
        self.norm = nn.LayerNorm(input_size)
        width = kernel * self.stride
        self.first = nn.Conv1d(input_size, hidden, width, self.stride, padding=width // 2)
        self.middle = nn.LayerNorm(hidden)
        self.second = nn.Conv1d(hidden, hidden, kernel, padding=kernel // 2)
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(2 * hidden, output_size)

    def forward(self, frames, frame_lens):
        """frames (B, F, D), frame_lens (B,) -> scores of the classes (B, C)"""
        states = self.convolved(self.first, self.norm(frames), frame_lens)
        lens = torch.div(frame_lens + self.stride - 1, self.stride, rounding_mode="floor")
        states = self.convolved(self.second, self.dropout(self.middle(states)), lens).float()
        mean = masked_mean(states, lens)
        variance = masked_mean((states - mean[:, None]) ** 2, lens)
        pooled = torch.cat([mean, (variance + 1e-5).sqrt()], dim=-1)  # the root's slope is infinite at 0
        return self.output(self.dropout(pooled))

    @staticmethod
    def convolved(convolution, states, lens):
        """(B, F, D) -> rectified (B, F', D'), as if silence, not padding, surrounded each utterance"""
        inside = states.masked_fill(~valid_mask(lens, states.shape[1], states.device)[:, :, None], 0.0)
        return F.relu(convolution(inside.transpose(1, 2)).transpose(1, 2))


def masked_mean(states, lens):
    """states (B, F, D), lens (B,) -> mean over the first lens[b] of F, (B, D)"""
    inside = valid_mask(lens, states.shape[1], states.device)
    return (states * inside[:, :, None]).sum(1) / inside.sum(1, keepdim=True)


def classes_of(utterances):
    """Utterances of each split -> names of the classes, the emotions of train, sorted.

    Raises DataError that lists utterances without emotion and those of valid and test whose emotion train
    does not have.
    """
    classes = sorted({u.labels.get("emotion", "") for u in utterances["train"]} - {""})
    problems = Problems("emotions")
    for split, found in utterances.items():
        for u in found:
            emotion = u.labels.get("emotion", "")
            if not emotion:
                problems.add("no emotion (column emotion)", f"{u.id} ({split})")
            elif emotion not in classes:
                hint = nearest(emotion, classes)
                problems.add(f"emotion that train does not have{hint}", f"{emotion!r} of {u.id} ({split})")
    problems.raise_if_any()
    if len(classes) < 2:
        raise DataError(f"train: one emotion only ({classes[0]}), nothing to tell apart.")
    return classes


def check_labels(splits, settings, findings):
    """An emotion for every utterance, those of valid and test in train; no speaker in two splits"""
    emotions = require(splits, "emotion", settings, findings)
    if len(emotions) == len(splits):
        findings.collect(classes_of, splits)
        check_classes(emotions, findings)
    findings.collect(check_speakers, splits, settings["allow_speaker_overlap"])


def check_classes(emotions, findings):
    """emotions: {split: names}. Names that differ by case or spaces alone, emotions a split has no example
    of"""
    counts = {split: Counter(of_split) for split, of_split in emotions.items()}
    for names in same_but_for_case(set().union(*counts.values()) - {""}):
        findings.refuse("emotions that differ by case or spaces alone", " and ".join(map(repr, names)))
    missing = {split: sorted(set(counts["train"]) - set(of_split)) for split, of_split in counts.items()}
    for split, names in missing.items():
        said = f"{split}: no example of {', '.join(names)}; UAR and F1 are of the other emotions"
        findings.tell("emotions_without_example", {s: n for s, n in missing.items() if n}, names and said)


def same_but_for_case(names):
    """Groups, sorted, of names that are one name but for case and white space"""
    groups = defaultdict(list)
    for name in sorted(names):
        groups["".join(name.casefold().split())].append(name)
    return [found for found in groups.values() if len(found) > 1]


def datasets(utterances, hparams):
    """Utterances of each split -> (SpeechDatasets with `sig` and `emotion`, names of the classes)"""
    classes = classes_of(utterances)
    keys = ["sig", "emotion", "spk_id", "gender", "duration"]
    return {split: as_dataset(found, [audio_item], keys) for split, found in utterances.items()}, classes


def categorical_brain(hparams, run_opts, utterances):
    """A loaded YAML -> (CategoricalEmotionBrain, datasets): a head with an output per emotion"""
    splits, classes = datasets(utterances, hparams)
    modules = with_modules(hparams, head=hparams["head"](output_size=len(classes)))
    brain = CategoricalEmotionBrain(modules, hparams, run_opts, hparams["checkpointer"], classes)
    brain.caveats = check_speakers(utterances, hparams["allow_speaker_overlap"])
    return brain, splits


class CategoricalEmotionBrain(TaskBrain):
    """modules: encoder (see encoders/encoder.py) and head (frames -> scores of the classes)."""

    def __init__(self, modules, hparams, run_opts, checkpointer, classes):
        super().__init__(modules, hparams, run_opts, checkpointer)
        self.classes = list(classes)
        self.number = {name: i for i, name in enumerate(self.classes)}
        if if_main_process():
            write_atomically(self.folder / "classes.json", json.dumps(self.classes, ensure_ascii=False))

    def compute_forward(self, batch, stage):
        """-> scores of the classes (B, C)"""
        return self.modules.head(*self.encode(batch, stage))

    def compute_objectives(self, predictions, batch, stage):
        """Cross-entropy, mean over the batch; on valid and test also the rows of the scores"""
        targets = torch.tensor([self.number[name] for name in batch.emotion], device=predictions.device)
        if stage != TRAIN:
            answers = [self.classes[i] for i in predictions.argmax(-1).tolist()]
            self.rows += self.score(batch, answers)
        return F.cross_entropy(predictions.float(), targets)

    def score(self, batch, answers):
        """One row per utterance: whether the answer is right, the emotion, the answer"""
        rows = []
        for row, emotion, answer in zip(self.described(batch), batch.emotion, answers, strict=True):
            hits = {"accuracy_hits": int(answer == emotion), "accuracy_utterances": 1}
            rows.append({**row, **hits, "reference": emotion, "hypothesis": answer})
        return rows

    def cells(self, rows):
        """Rows -> (n, C * C), what the scores sum"""
        references, answers = ([row[key] for row in rows] for key in ("reference", "hypothesis"))
        return classification.statistics(references, answers, self.classes)

    def scores(self, rows):
        """Rows -> {"accuracy", "UAR", "F1"} in %"""
        sums = self.cells(rows).sum(axis=0)
        return {name: float(score(sums)) for name, score in METRICS.items()}

    def statistics(self, rows):
        """{metric: (statistics (n, C * C), score function, unit, better)} for the intervals"""
        cells = self.cells(rows)
        return {name: (cells, score, "%", "higher") for name, score in METRICS.items()}

    def draw(self, rows):
        """The confusion matrix"""
        path = self.folder / "confusion_matrix.png"
        cells = classification.matrix(self.cells(rows).sum(axis=0))
        title = ", ".join(f"{name} {value:.1f} %" for name, value in self.scores(rows).items())
        plots.attempt(plots.confusion_matrix, cells, self.classes, path, title)

    def fit(self, train_set, valid_set):
        """Also notes the commonest emotion of train, for the trivial baseline"""
        emotions = [train_set.data[name]["emotion"] for name in train_set.data_ids]
        self.commonest = max(self.classes, key=emotions.count)
        super().fit(train_set, valid_set)

    def trivial_baseline(self, rows):
        """The commonest emotion of train for every utterance"""
        answers = []
        for row in rows:
            hit = int(row["reference"] == self.commonest)
            answers.append({**row, "accuracy_hits": hit, "hypothesis": self.commonest})
        return f"always {self.commonest}", answers
