"""Time-continuous emotion: one value per frame of a recording, trained to agree with its trace.

A recording is cut into chunks, for the attention of the encoder; the frames of its chunks are joined again,
the head hears the whole recording, and the loss compares it with the trace at the times of the frames. The
score compares at the times of the trace, so that encoders of any frame rate are scored on the same instants;
it is that of all test recordings joined. As LeBenchmark (NeurIPS 2021, `AER/`) does, but for what the YAML
says.

Letters: K chunks of a recording, F frames of a chunk, N frames of a recording, D features.
"""

import logging
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import torch
from speechbrain.dataio.batch import PaddedData
from speechbrain.utils.epoch_loop import EpochCounterWithStopper
from torch import nn

from lebench_sb.audio.waveforms import SAMPLE_RATE
from lebench_sb.core.errors import DataError, UsageError
from lebench_sb.evaluation.metrics import concordance
from lebench_sb.manifests.labels import require
from lebench_sb.manifests.speakers import check_speakers
from lebench_sb.manifests.traces import read_traces
from lebench_sb.tasks.brain import TaskBrain
from lebench_sb.training.brain import TRAIN, VALID
from lebench_sb.training.data import EpochPlan, as_dataset, audio_item

logger = logging.getLogger(__name__)
SUMS = tuple(f"CCC_{name}" for name in concordance.COLUMNS)
SHORTEST = 1.0  # seconds; a shorter rest of a recording belongs to the chunk before it
AT_ONCE = 128.0  # seconds of audio encoded at once in valid and test
MARK = "#"  # between a recording's id and the number of its chunk


class LinTanh(nn.Module):
    """Linear and tanh, frame by frame."""

    def __init__(self, input_size):
        super().__init__()
        self.output = nn.Linear(input_size, 1)

    def forward(self, frames):
        """frames (1, N, D) -> values (1, N) in (-1, 1)"""
        return self.output(frames).squeeze(-1).tanh()


class GRUTanh(nn.Module):
    """One-directional GRU, linear, tanh; `hidden`-`layers` is 32-1 or 64-1 in LeBenchmark."""

    def __init__(self, input_size, hidden=32, layers=1):
        super().__init__()
        self.recurrent = nn.GRU(input_size, hidden, layers, batch_first=True)
        self.output = LinTanh(hidden)

    def forward(self, frames):
        """frames (1, N, D) -> values (1, N) in (-1, 1), each from the frames up to it"""
        return self.output(self.recurrent(frames)[0])


def concordance_loss(predictions, targets, correction=0):
    """predictions (N,), targets (N,) -> 1 - CCC, between 0 and 2; 1 where either never changes.

    correction: what variances divide by is N - correction. 0 is the score; 1 is LeBenchmark's training loss,
    which keeps the covariance divided by N (torch's default beside a mean).
    """
    x, y = targets.float(), predictions.float()
    covariance = ((x - x.mean()) * (y - y.mean())).mean()
    spread = x.var(correction=correction) + y.var(correction=correction) + (x.mean() - y.mean()) ** 2
    return 1 - 2 * covariance / spread.clamp_min(1e-8)


class PatientCounter(EpochCounterWithStopper):
    """Counts epochs up to `limit` and stops `patience` epochs after the best one, not before epoch `after`.

    better: "lower" or "higher". SpeechBrain's looks for the best epoch after its warm-up only.
    """

    def __init__(self, limit, patience, after, better):
        super().__init__(limit, patience, after, {"lower": "min", "higher": "max"}[better])

    def update_metric(self, current_metric):
        if self.sign * current_metric < self.sign * self.best_score:
            self.best_limit, self.best_score = self.current, current_metric
        # as LeBenchmark's modelWrapper.py, which asks after it has counted the epoch
        counted = self.current + 1
        late = counted - self.best_limit >= self.limit_to_stop and counted > self.limit_warmup
        self.should_stop = late
        if late:
            logger.info("Stopped after epoch %d: the best was epoch %d.", self.current, self.best_limit)


def chunks(utterance, seconds):
    """Utterance -> Utterances of at most `seconds` + SHORTEST, in order, named <id>#<number>"""
    start = utterance.start or 0.0
    stop = start + utterance.duration if utterance.stop is None else utterance.stop
    count = max(1, int(np.ceil((stop - start - SHORTEST) / seconds)))
    edges = [start, *(start + seconds * k for k in range(1, count)), stop]
    return [
        replace(utterance, id=f"{utterance.id}{MARK}{k:04d}", duration=b - a, start=a, stop=b)
        for k, (a, b) in enumerate(zip(edges, edges[1:], strict=False))
    ]


def check_labels(splits, settings, findings):
    """A trace for every recording, with values in `trace_range`; no speaker in two splits"""
    if len(require(splits, "trace", settings, findings)) == len(splits):
        traces = findings.collect(traces_of, splits, settings) or {}
        flat = {split: [u.id for u in part if u.labels["trace"] in traces and is_constant(traces, u)]
                for split, part in splits.items()}  # fmt: skip
        for split, names in flat.items():
            if names and len(names) == len(splits[split]):
                findings.refuse(f"{split}: every trace is constant: nothing to agree with", names[0])
        findings.tell("constant_traces", {split: len(names) for split, names in flat.items() if names})
    findings.collect(check_speakers, splits, settings["allow_speaker_overlap"])


def is_constant(traces, utterance):
    """Whether the trace of a recording, {path: Trace}, holds one value"""
    return float(np.ptp(traces[utterance.labels["trace"]].values)) == 0.0


def traces_of(utterances, hparams):
    """{path: Trace} of the Utterances of each split.

    Raises DataError for traces that cannot be used, UsageError for a trace_range that is none.
    """
    low, high = hparams["trace_range"]
    if not low < high:
        raise UsageError(f"trace_range {[low, high]}: the lowest value, then the highest.")
    everything = [u for found in utterances.values() for u in found]
    return read_traces(everything, hparams["trace_column"], (low, high))


def datasets(utterances, hparams):
    """Utterances of each split -> (SpeechDatasets of chunks, {path: Trace}).

    Chunks last `chunk_seconds`; a filterbank, which has no attention to spare, hears recordings whole.
    Raises DataError for traces that cannot be used, UsageError for a trace_range that is none.
    """
    traces = traces_of(utterances, hparams)
    everything = [u for part in utterances.values() for u in part]
    seconds = hparams["chunk_seconds"] if hparams["encoder"].num_layers else np.inf
    least = hparams["encoder"].min_samples / SAMPLE_RATE
    short = [u.id for u in everything if u.duration < least]
    if short:
        raise DataError(f"{len(short)} recordings shorter than one frame ({least:.3f} s), first {short[0]}.")
    keys = ["sig", "trace", "start", "stop", "spk_id", "gender", "duration"]
    splits = {
        split: as_dataset([chunk for u in part for chunk in chunks(u, seconds)], [audio_item], keys)
        for split, part in utterances.items()
    }
    return splits, traces


class RecordingPlan(EpochPlan):
    """One recording a batch: its chunks in order, or in training as many as fit into max_batch_seconds."""

    def __init__(self, dataset, max_batch_seconds, seed, shuffle):
        super().__init__(dataset.durations, max_batch_seconds, seed, shuffle)
        self.recordings = {}
        for position, name in enumerate(dataset.data_ids):
            self.recordings.setdefault(name.rpartition(MARK)[0], []).append(position)

    def one_pass(self, number):
        batches = [batch for chunks in self.recordings.values() for batch in self.pieces(chunks)]
        if self.shuffle:
            rng = np.random.default_rng([self.seed % 2**32, number])
            return [batches[i] for i in rng.permutation(len(batches))]
        return batches

    def pieces(self, positions):
        """Positions of the chunks of a recording -> lists that fit into max_batch_seconds, padded"""
        longest = max(self.durations[i] for i in positions)
        size = max(1, int(min(self.max_batch_seconds / longest, len(positions))))
        return [positions[k : k + size] for k in range(0, len(positions), size)]


def continuous_brain(hparams, run_opts, utterances):
    """A loaded YAML -> (ContinuousEmotionBrain, datasets)"""
    splits, traces = datasets(utterances, hparams)
    modules, checkpointer = hparams["modules"], hparams["checkpointer"]
    brain = ContinuousEmotionBrain(modules, hparams, run_opts, checkpointer, traces)
    brain.caveats = check_speakers(utterances, hparams["allow_speaker_overlap"])
    return brain, splits


class ContinuousEmotionBrain(TaskBrain):
    """modules: encoder (see encoders/encoder.py) and head (frames (1, N, D) -> values (1, N)).

    A batch is one recording, whose loss is the unit. traces: {path: Trace}. `trace_range` of the YAML is
    mapped to the (-1, 1) of the heads for the loss and back for the scores.
    """

    def __init__(self, modules, hparams, run_opts, checkpointer, traces):
        super().__init__(modules, hparams, run_opts, checkpointer)
        self.traces = traces
        low, high = self.hparams.trace_range
        self.middle, self.half = (low + high) / 2, (high - low) / 2

    def plan(self, dataset, stage):
        """Recordings are scored whole, whatever their length"""
        seconds = self.hparams.max_batch_seconds if stage == TRAIN else np.inf
        return RecordingPlan(dataset, seconds, self.hparams.seed, shuffle=stage == TRAIN)

    def units(self, predictions, batch):
        return 1

    def compute_forward(self, batch, stage):
        """-> values (N,) in (-1, 1), and the second of the recording each belongs to, (N,) numpy"""
        parts = [batch] if stage == TRAIN else self.parts(batch)
        pieces = []
        for part in parts:
            frames, lens = self.encode(part, stage)
            pieces += [frames[k, :n] for k, n in enumerate(lens.tolist())]
        joined, lens = torch.cat(pieces), [len(piece) for piece in pieces]
        places = zip(batch.start, lens, batch.duration, strict=True)
        times = [self.frame_times(float(start), n, float(seconds)) for start, n, seconds in places]
        return self.modules.head(joined[None])[0], np.concatenate(times)

    def parts(self, batch):
        """The chunks of a long recording, a few at a time, as `encode` takes them: memory has its limits"""
        name = "sig" if self.cache is None else "features"
        data, lengths = getattr(batch, name)
        size = max(1, int(AT_ONCE // max(map(float, batch.duration))))
        for first in range(0, len(data), size):
            rows = slice(first, first + size)
            yield SimpleNamespace(**{name: PaddedData(data[rows], lengths[rows])})

    def frame_times(self, start, count, seconds):
        """Second of the middle of each frame of a chunk, (F,)

        UsageError if there are not as many frames as its duration gives: `augment` changed the speed.
        """
        encoder = self.hparams.encoder
        hop, window = 1 / encoder.frame_rate, encoder.min_samples / SAMPLE_RATE
        expected = (seconds - window) / hop + 1
        if abs(count - expected) > 2 + 0.02 * expected:
            raise UsageError(
                f"{count} frames of a chunk that should have {expected:.0f}: `augment` must not change the "
                "speed of recordings with a trace (lebench_sb.audio.augment.no_augment)."
            )
        return start + window / 2 + hop * np.arange(count)

    def compute_objectives(self, predictions, batch, stage):
        """The loss between values and trace at the frames; on valid and test also the rows of the scores"""
        values, times = predictions
        trace = self.traces[batch.trace[0]]
        targets = torch.from_numpy((trace.at(times) - self.middle) / self.half).to(values.device)
        if stage != TRAIN:
            answers = self.middle + self.half * values.detach().double().cpu().numpy()
            self.rows += self.score(batch, trace, times, answers)
        return self.hparams.loss(values, targets.float())

    def score(self, batch, trace, times, answers):
        """One row per chunk: the sums of trace and answers (N,), both at the times of the trace"""
        rows = []
        for k, row in enumerate(self.described(batch)):
            start, stop = float(batch.start[k]), float(batch.stop[k])
            inside = (trace.times >= start) & (trace.times < stop)
            if k == len(batch) - 1:
                inside |= trace.times == stop
            heard = np.interp(trace.times[inside], times, answers)
            sums = concordance.sums(trace.values[inside], heard)
            rows.append({**row, **dict(zip(SUMS, map(float, sums), strict=True))})
        return rows

    def scores(self, rows):
        """Rows -> {"CCC", "RMSE"} of all recordings joined"""
        total = np.sum([[row[name] for name in SUMS] for row in rows], axis=0)
        return {"CCC": float(concordance.ccc(total)), "RMSE": float(concordance.rmse(total))}

    def statistics(self, rows):
        """{metric: (statistics (n, 6), score function, unit, better)} for the intervals"""
        sums = [[row[name] for name in SUMS] for row in rows]
        return {"CCC": (sums, concordance.ccc, "", "higher"), "RMSE": (sums, concordance.rmse, "", "lower")}

    def evaluate(self, test_set):
        """Rows of the recordings; constant traces, which no answer can agree with, are counted and logged"""
        rows = by_recording(super().evaluate(test_set))
        flat, silent = concordance.constant([[row[name] for name in SUMS] for row in rows])
        if flat.any():
            names = ", ".join(row["ID"] for row, c in zip(rows, flat, strict=True) if c)
            logger.warning("%d of %d test traces are constant, CCC 0 alone: %s", flat.sum(), len(rows), names)
        if silent.any():
            logger.warning("%d of %d test answers are constant, CCC 0 alone.", silent.sum(), len(rows))
        return rows

    def fit(self, train_set, valid_set):
        """Also notes the mean of the training traces, for the trivial baseline"""
        paths = {train_set.data[name]["trace"] for name in train_set.data_ids}
        self.typical = float(np.concatenate([self.traces[path].values for path in sorted(paths)]).mean())
        super().fit(train_set, valid_set)

    def trivial_baseline(self, rows):
        """The mean of the training traces at every instant"""
        answers = []
        for row in rows:
            n, x, y = row["CCC_n"], row["CCC_x"], self.typical
            answers.append({**row, "CCC_y": n * y, "CCC_yy": n * y * y, "CCC_xy": x * y})
        return f"always {self.typical:.3f}, the mean of train", answers

    def on_stage_end(self, stage, stage_loss, epoch=None):
        if stage == VALID:
            scores = {"loss": float(stage_loss), **self.scores(self.rows)}
            self.hparams.epoch_counter.update_metric(scores[self.hparams.key_metric])
        super().on_stage_end(stage, stage_loss, epoch)


def by_recording(rows):
    """Rows of chunks -> one row per recording, sorted by ID: durations and sums added"""
    joined = {}
    for row in rows:
        name = row["ID"].rpartition(MARK)[0]
        whole = joined.setdefault(name, {**row, "ID": name, **dict.fromkeys((*SUMS, "duration"), 0.0)})
        for column in (*SUMS, "duration"):
            whole[column] += row[column]
    return [joined[name] for name in sorted(joined)]
