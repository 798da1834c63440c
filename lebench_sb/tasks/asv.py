"""Speaker verification: ECAPA-TDNN trained to tell speakers apart, cosines of embeddings of unseen speakers.

Training hears random chunks of one length. Valid and test embed whole utterances, each once, and score a
trial list. Nothing here chooses the threshold above which a trial is accepted: error rates are those of every
threshold.

Letters: B utterances, T samples, F frames, D features, E embedding, S training speakers, n trials.
"""

import logging
import random
from collections import defaultdict
from functools import partial

import numpy as np
import torch
from speechbrain.nnet.losses import AdditiveAngularMargin
from speechbrain.utils.distributed import if_main_process
from torch.nn import functional as F

from lebench_sb.core.errors import DataError, Problems, UsageError
from lebench_sb.core.files import write_atomically
from lebench_sb.evaluation import intervals, plots, results
from lebench_sb.evaluation.metrics import verification
from lebench_sb.manifests.trials import Trials, make_trials, read_trials, trials_csv
from lebench_sb.tasks.brain import TaskBrain, with_modules
from lebench_sb.tasks.heads.ecapa import repeat_pad
from lebench_sb.training.brain import TEST, TRAIN, VALID
from lebench_sb.training.data import (
    SAMPLE_RATE,
    EpochPlan,
    as_dataset,
    audio_item,
    cropped_audio_item,
    seed_of,
)

logger = logging.getLogger(__name__)
MADE = "made"  # the value of `trials` that asks for a list made of the test set's speakers
OVERLAP = (
    "test speakers heard in train or valid (leave them out, or --allow_speaker_overlap True, which is "
    "a caveat of the result)"
)
COLUMNS = ["sig", "spk_id", "gender", "duration"]
BLOCK = 1 << 16  # trials whose cosines are computed at once


def repeat_pad_crop(seconds):
    """-> function wave (T,) -> (`seconds` x 16000,): a shorter wave is said again, rounding is cut off"""
    samples = round(seconds * SAMPLE_RATE)
    return lambda wave: wave.repeat(-(-samples // len(wave)))[:samples]


def datasets(utterances, hparams):
    """Utterances of each split -> SpeechDataset: chunks of `chunk` seconds for train, whole utterances else.

    "whole" holds the whole training utterances, "cohort" at most `snorm_utterances` of each speaker.
    """
    seconds = hparams["chunk"]
    chunks = cropped_audio_item(hparams["seed"], seconds, repeat_pad_crop(seconds))
    splits = {split: as_dataset(part, [audio_item], COLUMNS) for split, part in utterances.items()}
    splits["whole"] = splits["train"]
    splits["train"] = as_dataset(utterances["train"], [chunks], COLUMNS)
    splits["cohort"] = as_dataset(
        few_of_each(utterances["train"], hparams["snorm_utterances"]), [audio_item], COLUMNS
    )
    return splits


def frame_crop(seed, most, name, number, count):
    """(first, last) of at most `most` frames out of `count`, decided by (seed, pass, utterance) alone"""
    share = random.Random(seed_of("frames", seed, number, name)).random()
    first = int(share * (max(count - most, 0) + 1))
    return first, min(first + most, count)


def few_of_each(utterances, most):
    """Utterances -> the first `most` of each speaker by ID"""
    of_speaker = defaultdict(list)
    for u in sorted(utterances, key=lambda u: u.id):
        of_speaker[u.speaker].append(u)
    return [u for found in of_speaker.values() for u in found[:most]]


def check_labels(splits, settings, findings):
    """Speakers of train, trials of valid and test"""
    findings.collect(check_speakers, splits, settings["allow_speaker_overlap"])
    findings.collect(trial_lists, splits, settings)


def check_speakers(utterances, allow_overlap):
    """Training needs two known speakers, and none of train or valid may be tested -> the names they share.

    Raises DataError that lists what is wrong; shared speakers are returned where `allow_overlap` is True.
    """
    problems = Problems("speakers")
    in_train = {u.speaker for u in utterances["train"] if u.speaker}
    for split, found in utterances.items():
        seen = set()
        for u in found:
            if not u.speaker and split == "train":
                problems.add("training utterances without spk_id", u.id)
            if u.id in seen:
                problems.add(f"IDs in several {split} manifests", u.id)
            seen.add(u.id)
    if len(in_train) < 2:
        problems.add("fewer than two speakers to learn from", ", ".join(sorted(in_train)) or "none")
    chosen = in_train | {u.speaker for u in utterances["valid"] if u.speaker}
    shared = sorted(chosen & {u.speaker for u in utterances["test"]})
    for name in shared if not allow_overlap else []:
        problems.add(OVERLAP, name)
    problems.raise_if_any()
    return shared


def trial_lists(utterances, hparams):
    """-> {VALID: Trials, TEST: Trials}, checked before anything is computed: valid's made of its speakers,
    test's read from `trials`, or made where that is the word "made"."""
    try:
        valid = make_trials(utterances["valid"], hparams["seed"], hparams["valid_trials"])
    except DataError as error:
        raise DataError(f"valid: {error}") from error
    if hparams["trials"] != MADE:
        test = read_trials(hparams["trials"], utterances["test"], hparams["enrolment"])
        return {VALID: valid, TEST: test}
    test = make_trials(utterances["test"], hparams["seed"], hparams["valid_trials"])
    logger.info("test: %d trials made of the speakers of test", len(test))
    return {VALID: valid, TEST: test}


def speaker_brain(hparams, run_opts, utterances):
    """A loaded YAML -> (ASVBrain, datasets): a classifier of the training speakers, the trials of valid and
    test"""
    shared = check_speakers(utterances, hparams["allow_speaker_overlap"])
    trials = trial_lists(utterances, hparams)
    names = sorted({u.speaker for u in utterances["train"]})
    modules = with_modules(hparams, classifier=hparams["classifier"](out_neurons=len(names)))
    data = datasets(utterances, hparams)
    brain = ASVBrain(modules, hparams, run_opts, hparams["checkpointer"], names, trials, data)
    brain.caveats = ["speaker overlap allowed"] if shared else []
    return brain, data


class ASVBrain(TaskBrain):
    """modules: encoder, head (SpeakerEmbedder), classifier (SpeechBrain's: cosines with S speakers).

    names: the S training speakers, in the classifier's order; trials: as `trial_lists`; data:
    as `datasets`.
    """

    def __init__(self, modules, hparams, run_opts, checkpointer, names, trials, data):
        super().__init__(modules, hparams, run_opts, checkpointer)
        self.number = {name: i for i, name in enumerate(names)}
        self.trials, self.whole, self.cohort = trials, data["whole"], data["cohort"]
        self.means = None  # of the cohort
        self.margin = AdditiveAngularMargin(self.hparams.margin, self.hparams.scale)
        self.check_options({row["spk_id"] for row in data["valid"].data.values()})

    def check_options(self, validated):
        """Raises UsageError for values that would stop the run at its end. validated: speakers of valid"""
        hparams = vars(self.hparams)
        try:
            self.measures = verification.measures(*(hparams[k] for k in ("p_target", "c_miss", "c_fa")))
        except ValueError as error:
            raise UsageError(str(error)) from error
        if self.hparams.max_batch_seconds < 2 * self.hparams.chunk:
            raise UsageError(
                f"max_batch_seconds is {self.hparams.max_batch_seconds}: batch normalisation needs two "
                f"chunks of {self.hparams.chunk} s; raise it to {2 * self.hparams.chunk}."
            )
        if self.hparams.snorm_top < 0 or self.hparams.snorm_top == 1:
            raise UsageError(
                f"snorm_top is {self.hparams.snorm_top}: 0 for cosines, or two training speakers or more."
            )
        metrics = [*self.measures, *(("accuracy", "loss") if validated & self.number.keys() else ())]
        if self.hparams.key_metric not in metrics:
            raise UsageError(
                f"key_metric {self.hparams.key_metric}: valid has {', '.join(metrics)} (accuracy and loss "
                "only where it shares speakers with train)."
            )

    def plan(self, dataset, stage):
        if stage == TRAIN:
            return ChunkPlan(
                len(dataset), self.hparams.chunk, self.hparams.max_batch_seconds, self.hparams.seed
            )
        if self.debug and set(dataset.data_ids) != set(self.cohort.data_ids):
            return FewPlan(dataset, self.trials[stage])
        return super().plan(dataset, stage)

    def loader(self, dataset, stage):
        """As TaskBrain; from a cache, which holds whole utterances, chunks are cut out of their frames"""
        if self.cache is None or stage != TRAIN:
            return super().loader(dataset, stage)
        loader = super().loader(self.whole, stage)
        frames = round(self.hparams.chunk * self.hparams.encoder.frame_rate)
        loader.dataset.crop = partial(frame_crop, self.hparams.seed, frames)
        return loader

    def compute_forward(self, batch, stage):
        """-> embeddings (B, E) float32"""
        frames, lens = self.encode(batch, stage)
        if stage == TRAIN:  # where an utterance is shorter than a chunk, it is said again
            frames, lens = repeat_pad(frames, lens.to(frames.device), frames.shape[1])
        return self.modules.head(frames, lens).float()

    def compute_objectives(self, embeddings, batch, stage):
        """AAM-softmax, mean over the utterances of training speakers (in training, all of them)"""
        of_train = [k for k, name in enumerate(batch.spk_id) if name in self.number]
        right, loss = {}, embeddings.new_zeros(())
        if of_train:
            numbers = torch.tensor([self.number[batch.spk_id[k]] for k in of_train], device=embeddings.device)
            with torch.autocast(embeddings.device.type, enabled=False):  # an angle needs float32
                cosines = self.modules.classifier(embeddings[of_train]).squeeze(1)
                one_hot = F.one_hot(numbers, len(self.number)).float()
                loss = F.cross_entropy(self.margin(cosines, one_hot), numbers)
            right = dict(zip(of_train, (cosines.argmax(-1) == numbers).tolist(), strict=True))
        if stage != TRAIN:
            vectors = F.normalize(embeddings, dim=-1).cpu().numpy()
            for k, row in enumerate(self.described(batch)):
                self.rows.append({**row, "embedding": vectors[k], "right": right.get(k)})
        return loss

    def units(self, predictions, batch):
        """Utterances of training speakers"""
        return sum(name in self.number for name in batch.spk_id)

    def on_stage_start(self, stage, epoch=None):
        self.stage = stage

    def run_stage(self, loader, stage, epoch):
        """As TaskBrain, with no loss (None) where no utterance is of a training speaker"""
        if self.world > 1:  # statistics of batch normalisation that processes kept for themselves
            with self.unwrapped():
                for buffer in self.modules.head.buffers():
                    torch.distributed.broadcast(buffer, 0)
        loss = super().run_stage(loader, stage, epoch)
        return loss if any(row["right"] is not None for row in self.rows) else None

    def scores(self, rows):
        """Rows of embeddings -> EER and minDCF of the stage's trials; accuracy (%) among training speakers"""
        trials, scores = self.score_trials(rows, self.trials[self.stage])
        counts = verification.Ranking(scores, trials.targets).counts()
        found = {name: float(function(*counts)) for name, (function, *_) in self.measures.items()}
        right = [row["right"] for row in rows if row["right"] is not None]
        return found | ({"accuracy": 100 * sum(right) / len(right)} if right else {})

    def score_trials(self, rows, trials):
        """Rows of embeddings -> the Trials they hold both sides of (all, but for --debug), scores (n,)"""
        place = {row["ID"]: i for i, row in enumerate(rows)}
        if self.debug:
            trials = only(trials, place)
        vectors = np.stack([row["embedding"] for row in rows])
        # a model of several utterances is the mean of their embeddings
        models = [vectors[[place[name] for name in names]].mean(axis=0) for names in trials.models.values()]
        place |= {key: len(vectors) + i for i, key in enumerate(trials.models)}
        vectors = np.concatenate([vectors, unit(np.stack(models))]) if models else vectors
        sides = [np.array([place[name] for name in names]) for names in (trials.enrol, trials.test)]
        scores = cosines(vectors, *sides)
        if self.stage == TEST and self.hparams.snorm_top > 0:
            self.means = self.cohort_vectors() if self.means is None else self.means
            cohort = vectors @ self.means.T
            scores = verification.adaptive_s_norm(scores, *sides, cohort, self.hparams.snorm_top)
        return trials, scores

    def cohort_vectors(self):
        """(C, E): the mean embedding of each training speaker, length 1; the test set takes no part"""
        tested, self.rows = self.rows, []
        of_speaker = defaultdict(list)
        super().run_stage(self.loader(self.cohort, TEST), TEST, None)
        for row in self.rows:
            of_speaker[row["spk_id"]].append(row["embedding"])
        self.rows = tested
        return unit(np.stack([np.mean(found, axis=0) for _, found in sorted(of_speaker.items())]))

    def evaluate(self, test_set):
        """Embeds the test set once with the checkpoint best on valid -> one row per trial"""
        self.means = None
        embedded = super().evaluate(test_set)
        trials, scores = self.score_trials(embedded, self.trials[TEST])
        if if_main_process():
            write_atomically(self.folder / "trials.csv", trials_csv(trials))
        of = {row["ID"]: row for row in embedded}
        return trial_rows(of | {key: of[ids[0]] for key, ids in trials.models.items()}, trials, scores)

    def draw(self, rows):
        """`det.png` of the trials"""
        scores, targets, *_ = self.trial_columns(rows)
        system = np.array(scores), np.array(targets)
        plots.attempt(plots.det_curve, {self.folder.name: system}, self.folder / "det.png")

    def trivial_baseline(self, rows):
        """Every trial scored alike: EER 50 %, minDCF_norm 1"""
        return "the same score for every trial", [{**row, "score": 0.0} for row in rows]

    def against_trivial_baseline(self, rows):
        """As TaskBrain, paired over the speakers of both sides of a trial"""
        what, baseline = self.trivial_baseline(rows)
        scores, *design = self.trial_columns(rows)
        blind, *_ = self.trial_columns(baseline)
        pairs = verification.differences(scores, blind, *design, seed=self.hparams.seed)
        counts, entries = verification.Ranking(blind, design[0]).counts(), {}
        for name, (function, unit, better) in self.measures.items():
            value = float(function(*counts))
            entries[name] = intervals.difference_entry(what, value, unit, pairs[name], better)
        return entries

    def trial_columns(self, rows):
        """Rows of trials -> scores, targets, names of both sides, {metric: function}"""
        targets = [row["reference"] == "target" for row in rows]
        speakers = [[row[column] for row in rows] for column in ("spk_id", "spk_id_test")]
        functions = {name: function for name, (function, *_) in self.measures.items()}
        return [row["score"] for row in rows], targets, speakers, functions

    def intervals(self, rows):
        """The metrics of results.json from rows of trials, with intervals over the speakers of both sides"""
        of_metric = verification.intervals(*self.trial_columns(rows), seed=self.hparams.seed)
        entries = {}
        for name, (_, unit, better) in self.measures.items():
            entries |= results.metric_entry(name, of_metric[name].value, unit, of_metric[name], better)
        return entries


def unit(vectors):
    """(U, E) -> the same directions, length 1"""
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def cosines(vectors, enrolled, tested):
    """vectors (U, E) of length 1; enrolled, tested (n,) rows -> (n,) float64"""
    scores = np.empty(len(enrolled))
    for start in range(0, len(enrolled), BLOCK):
        part = slice(start, start + BLOCK)
        scores[part] = np.einsum("ij,ij->i", vectors[enrolled[part]], vectors[tested[part]])
    return scores


def only(trials, ids):
    """The Trials of which both sides are in `ids`"""
    whole = {key for key, names in trials.models.items() if ids.keys() >= set(names)}
    here = whole | ids.keys()
    positions = [k for k in range(len(trials)) if trials.enrol[k] in here and trials.test[k] in ids]
    enrol, test = ([side[k] for k in positions] for side in (trials.enrol, trials.test))
    return Trials(enrol, test, trials.targets[positions], {key: trials.models[key] for key in whole})


def trial_rows(utterances, trials, scores):
    """One row of `utterances.csv` per trial; `spk_id` and `gender` are the enrolment side's, `duration` the
    test side's. utterances: {ID: row}. A trial listed again is numbered."""
    rows, seen = [], defaultdict(int)
    for enrol, test, target, score in zip(trials.enrol, trials.test, trials.targets, scores, strict=True):
        name, a, b = f"{enrol} {test}", utterances[enrol], utterances[test]
        seen[name] += 1
        rows.append({
            "ID": name if seen[name] == 1 else f"{name} {seen[name]}", "spk_id": a["spk_id"],
            "gender": a["gender"], "duration": b["duration"], "score": float(score),
            "spk_id_test": b["spk_id"], "reference": "target" if target else "non-target",
        })  # fmt: skip
    return rows


class ChunkPlan(EpochPlan):
    """One chunk of every utterance per pass, shuffled; never a batch of one, where batch normalisation
    fails."""

    def __init__(self, count, chunk, max_batch_seconds, seed):
        super().__init__(np.full(count, chunk), max_batch_seconds, seed)

    def one_pass(self, number):
        batches = super().one_pass(number)
        lone = [batch for batch in batches if len(batch) == 1]
        batches = [batch for batch in batches if len(batch) > 1]
        for batch in lone:
            batches[-1] = [*batches[-1], *batch]
        return batches


class FewPlan:
    """--debug: one batch with the utterances of the first target and the first non-target trial"""

    def __init__(self, dataset, trials):
        first = int(np.flatnonzero(trials.targets)[0]), int(np.flatnonzero(~trials.targets)[0])
        names = {trials.test[k] for k in first}
        names = names.union(*(trials.models.get(trials.enrol[k], [trials.enrol[k]]) for k in first))
        self.places = [i for i, name in enumerate(dataset.data_ids) if name in names]

    def batches(self, epoch):
        return [[(place, epoch) for place in self.places]]
