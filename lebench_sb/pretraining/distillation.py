"""Distillation: a small student learns to predict hidden layers of a frozen teacher.

DistilHuBERT (Chang, Yang and Lee, 2022, arXiv:2110.01900): one prediction head per chosen layer on the frames
of the student. The heads are thrown away after training.

Letters: B utterances, T samples, F frames, N valid frames of the batch, K layers, D the teacher's size.
"""

import logging
import time
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from speechbrain.utils.distributed import ddp_barrier, if_main_process
from torch import nn
from transformers import Wav2Vec2Model

from lebench_sb.core.errors import UsageError
from lebench_sb.core.masks import valid_mask
from lebench_sb.encoders.encoder import SSLEncoder, load_encoder
from lebench_sb.encoders.model_folders import check_size
from lebench_sb.evaluation import results
from lebench_sb.evaluation.metrics.errors import mean
from lebench_sb.evaluation.plots import attempt, learning_curves
from lebench_sb.pretraining.brain import PretrainingBrain
from lebench_sb.pretraining.build import check_same_scale
from lebench_sb.pretraining.export import story_of
from lebench_sb.pretraining.stream import datasets
from lebench_sb.training.brain import TRAIN, VALID, SSLBrain
from lebench_sb.training.data import send
from lebench_sb.training.record import record_of

logger = logging.getLogger(__name__)
# What two models must share for the layers of one to compute the same in the other
SHARED = (
    "hidden_size", "intermediate_size", "num_attention_heads", "hidden_act", "do_stable_layer_norm",
    "layer_norm_eps", "conv_dim", "conv_kernel", "conv_stride", "conv_bias", "feat_extract_norm",
    "feat_extract_activation", "num_conv_pos_embeddings", "num_conv_pos_embedding_groups",
)  # fmt: skip


def load_teacher(source, layers, init_layers):
    """The frozen SSLEncoder of `source` (see `load_encoder`), without the layers above those it is asked for.

    layers: hidden states to predict (0: what the first layer receives; k: the output of layer k);
    init_layers: layers to copy, the first is 0. Raises UsageError for a layer that the teacher lacks.
    """
    check_layers("teacher_layers", layers)
    check_layers("init_layers", init_layers)
    if not layers or len(set(layers)) < len(layers):
        raise UsageError(f"teacher_layers {layers}: name one layer or more, and each once, as in [4, 8].")
    return load_encoder(source, layer=max([*layers, *(index + 1 for index in init_layers)]))


def check_layers(name, layers):
    """Raises UsageError unless `layers` is a list of whole numbers from 0"""
    listed = isinstance(layers, (list, tuple))
    if not listed or not all(type(layer) is int and layer >= 0 for layer in layers):
        raise UsageError(f"{name} {layers}: a list of layers is expected, as in [4, 8].")


def build_model(config, teacher, layers, init_layers, do_normalize, seed):
    """-> DistillationModel: a student of `config` (Wav2Vec2Config) with random weights, or, if `init_layers`
    names layers of the teacher (counted from 0), its extractor, projection, positions and these layers.

    do_normalize: whether the student hears waveforms of mean 0 and variance 1.
    Raises ValueError if student and teacher differ in what is copied, or in their frames per second.
    """
    check_size(Wav2Vec2Model, config, UsageError, "config")
    torch.manual_seed(seed)
    student = Wav2Vec2Model(config)
    if init_layers:
        check_same_scale(teacher.source, getattr(teacher.front, "normalize", True), do_normalize)
        copy_layers(student, teacher, init_layers)
    student = SSLEncoder.around(student, do_normalize)
    if student.frame_rate != teacher.frame_rate:
        raise ValueError(
            f"the student makes {student.frame_rate:g} frames per second, {teacher.source} "
            f"{teacher.frame_rate:g}: give config a conv_stride with the teacher's product."
        )
    return DistillationModel(student, len(layers), teacher.output_size)


def copy_layers(student, teacher, init_layers):
    """Overwrites extractor, projection, positions and the first transformer layers of `student` with the
    teacher's, student layer k with layer init_layers[k]. In a post-norm model also the norm before them: so
    with [0, ..., n - 1] the student begins as the teacher's first n layers."""
    check_same_shape(student.config, teacher, init_layers)
    parts = ["feature_extractor", "feature_projection", "encoder.pos_conv_embed"]
    parts += [] if student.config.do_stable_layer_norm else ["encoder.layer_norm"]
    pairs = [(part, part) for part in parts]
    pairs += [
        (f"encoder.layers.{place}", f"encoder.layers.{index}") for place, index in enumerate(init_layers)
    ]
    for place, theirs in pairs:
        try:
            weights = teacher.model.get_submodule(theirs).state_dict()
            student.get_submodule(place).load_state_dict(weights)
        except (AttributeError, RuntimeError) as error:
            kind = teacher.model.config.model_type
            raise ValueError(
                f"init_layers {init_layers}: {theirs} of {teacher.source} ({kind}) does not fit a wav2vec2 "
                f"student ({error}). Begin with random weights: --init_layers '[]'."
            ) from error


def check_same_shape(config, teacher, init_layers):
    """Raises ValueError that lists all settings in which copied layers would not be the teacher's."""
    if not 0 < len(init_layers) <= config.num_hidden_layers or min(init_layers) < 0:
        raise ValueError(
            f"init_layers {init_layers}: name 1 to {config.num_hidden_layers} layers, the student's "
            "num_hidden_layers, counted from 0."
        )
    theirs = teacher.model.config
    pairs = {name: (getattr(config, name), getattr(theirs, name, None)) for name in SHARED}
    differing = [f"{name} {own} (the teacher's: {other})" for name, (own, other) in pairs.items()
                 if plain(own) != plain(other)]  # fmt: skip
    if differing:
        raise ValueError(
            f"init_layers {init_layers} copies layers of {teacher.source}, but the student has "
            f"{', '.join(differing)}. Set them in `config`, or begin with random weights: --init_layers '[]'."
        )


def plain(value):
    """Configs hold lists and tuples alike"""
    return list(value) if isinstance(value, (list, tuple)) else value


class DistillationModel(nn.Module):
    """student: an SSLEncoder that is trained; a linear head for each of `num_layers` layers of size `size`"""

    def __init__(self, student, num_layers, size):
        super().__init__()
        self.student = student
        self.heads = nn.ModuleList(nn.Linear(student.output_size, size) for _ in range(num_layers))

    def forward(self, wavs, wav_lens):
        """wavs (B, T), wav_lens (B,) relative -> predictions (B, F, K, D), frame_lens (B,)"""
        frames, frame_lens = self.student(wavs, wav_lens)
        return torch.stack([head(frames) for head in self.heads], dim=2), frame_lens


@dataclass
class StepOutput:
    """Of the N valid frames of a batch, one utterance after the other"""

    losses: torch.Tensor  # (N,) summed over layers
    l1: torch.Tensor  # (N, K) mean absolute difference
    cosine: torch.Tensor  # (N, K)
    counts: list  # B ints, of sum N


def frame_losses(predictions, targets, cosine_weight):
    """predictions, targets (N, K, D) -> losses (N,), l1 (N, K), cosine (N, K), all float32

    The loss of a frame is the sum over layers of ||prediction - target||_1 / D - w log sigmoid(cos) (Chang et
    al., 2022, equation 2, w their lambda).
    """
    predictions, targets = predictions.float(), targets.float()
    l1 = (predictions - targets).abs().mean(dim=-1)
    cosine = F.cosine_similarity(predictions, targets, dim=-1)
    return (l1 - cosine_weight * F.logsigmoid(cosine)).sum(dim=-1), l1, cosine


def valid_pairs(predictions, lens, targets, target_lens):
    """predictions (B, F, K, D), targets (B, F', K, D), their lengths (B,) -> both as (N, K, D), counts (B,)

    Extractors of one stride and different kernels may differ by a frame at the end: frames that both have.
    """
    lens = torch.minimum(lens, target_lens)
    frames = min(predictions.shape[1], targets.shape[1])
    valid = valid_mask(lens, frames)
    return predictions[:, :frames][valid], targets[:, :frames][valid], lens


SUMS = ("waited", "frames", "seconds", "loss", "l1", "cosine")  # over the valid frames of an update


def distillation_brain(hparams, run_opts, utterances):
    """A loaded YAML -> (DistillationBrain, datasets of crops as recorded: each model scales them itself)"""
    brain = DistillationBrain(hparams["modules"], hparams, run_opts, hparams["checkpointer"])
    return brain, datasets(utterances, {**hparams, "do_normalize": False})


class DistillationBrain(SSLBrain):
    """modules: {"model": DistillationModel}. One unit of the loss is one valid frame."""

    plan, count_updates = PretrainingBrain.plan, PretrainingBrain.count_updates
    tell_hours = PretrainingBrain.tell_hours
    model, step_sums = PretrainingBrain.model, PretrainingBrain.step_sums

    def __init__(self, modules, hparams, run_opts, checkpointer):
        super().__init__(modules, hparams, run_opts, checkpointer)
        # no module of the Brain: nothing trains it, and no checkpoint holds a copy
        self.teacher = hparams["teacher_encoder"].to(self.device)

    def parameter_groups(self):
        return [(list(self.modules.parameters()), self.hparams.encoder_lr, 0)]

    def on_stage_start(self, stage, epoch=None):
        self.sums = self.no_sums()
        self.clock, self.waited = time.time(), 0.0

    def compute_forward(self, batch, stage):
        """-> StepOutput"""
        wavs, wav_lens = batch.sig
        with torch.no_grad():
            targets = self.teacher.hidden_states(wavs, wav_lens, self.hparams.teacher_layers)
        predictions, targets, lens = valid_pairs(*self.modules.model(wavs, wav_lens), *targets)
        found = frame_losses(predictions, targets, self.hparams.cosine_weight)
        return StepOutput(*found, lens.tolist())

    def compute_objectives(self, out, batch, stage):
        """Mean over valid frames of the loss summed over layers"""
        wavs, wav_lens = batch.sig
        seconds = float((wav_lens * wavs.shape[1]).sum()) / 16000
        counts = torch.tensor([0.0, len(out.losses), seconds], dtype=torch.float64)
        found = [out.losses.sum(), out.l1.mean(dim=1).sum(), out.cosine.mean(dim=1).sum()]
        self.sums += torch.cat([send(counts, self.device), torch.stack(found).detach().double()])
        if stage != TRAIN:
            self.rows += self.score(batch, out)
        return out.losses.mean()

    def units(self, out, batch):
        return len(out.losses)

    def no_sums(self):
        """Zeros, so that a process without a batch adds up with the others"""
        return torch.zeros(len(SUMS), dtype=torch.float64, device=self.device)

    def score(self, batch, out):
        """One row per utterance: its frames, and over them the sums of loss, L1 and cosine (means over
        layers)"""
        sums = {"distillation": out.losses, "L1": out.l1.mean(dim=1), "cosine": out.cosine.mean(dim=1)}
        parts = {name: [float(part.sum()) for part in v.split(out.counts)] for name, v in sums.items()}
        rows = self.described(batch)
        for k, (row, frames) in enumerate(zip(rows, out.counts, strict=True)):
            for name, values in parts.items():
                row |= {f"{name}_sum": values[k], f"{name}_frames": frames}
        return rows

    def statistics(self, rows):
        """Held-out loss, L1 and cosine per frame, with what their intervals need"""
        better = {"distillation": "lower", "L1": "lower", "cosine": "higher"}
        return {
            name: ([(r[f"{name}_sum"], r[f"{name}_frames"]) for r in rows], mean, "", direction)
            for name, direction in better.items()
        }

    def step_statistics(self, sums, done):
        """Figures of an update from the sums over all its micro-batches and processes"""
        totals, now = dict(zip(SUMS, sums.tolist(), strict=True)), time.time()
        elapsed, self.clock = max(now - self.clock, 1e-9), now
        rate, share = totals["seconds"] / elapsed, totals["waited"] / (elapsed * self.world)
        return {
            **per_frame(totals), "audio_per_s": round(rate, 2), "waiting_share": round(100 * share, 1),
        }  # fmt: skip

    def scores(self, rows):
        """Figures of the validation just run"""
        if self.world > 1:
            torch.distributed.all_reduce(self.sums)
        return per_frame(dict(zip(SUMS, self.sums.tolist(), strict=True)))

    def details(self):
        source, layers = str(self.hparams.teacher), list(self.hparams.teacher_layers)
        return {"teacher": source, "teacher_layers": layers}


def per_frame(sums):
    """Sums over frames -> the figures of steps.jsonl"""
    frames = max(sums["frames"], 1.0)
    figures = {"distillation": "loss", "l1": "l1", "cosine": "cosine"}
    return {name: sums[key] / frames for name, key in figures.items()}


def distil_and_export(brain, utterances, datasets):
    """Trains; from the checkpoint with the lowest held-out loss writes `encoder/` (the student without
    heads), results.json and the learning curves."""
    brain.fit(datasets["train"], datasets["valid"])
    best = brain.load_best()
    brain.run_stage(brain.loader(datasets["valid"], VALID), VALID, None)
    if if_main_process():
        folder = brain.folder / "encoder"
        brain.model.student.export(folder, story_of(brain, best))
        record = record_of(brain, utterances, brain.rows, "valid", str(folder))
        results.write_results(brain.folder, record, brain.rows)
        keys = ["loss", "l1", "cosine", "lr"]
        curves = {"distillation": brain.folder / "steps.jsonl"}
        attempt(learning_curves, curves, brain.folder / "learning_curves.png", keys)
        logger.info("Student of update %s in %s", best["update"], folder)
    ddp_barrier()
