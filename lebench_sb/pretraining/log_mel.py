"""A start for extractor and projection from which they already hear log-mel energies.

With little speech and a small model the contrastive loss does not teach the convolutions to hear: it is at
chance, or collapses. Before the first update they learn to reproduce what a filterbank computes, without
labels: the first outputs of the feature projection become the log-mel frames of `mel_filterbank` that lie
around each encoder frame. The transformer then reads a spectrum, and codes are chosen on frames that hold one
(as BEST-RQ's: Chiu et al., 2022, section 3.1).

Letters: B utterances, T samples, N frames of all utterances, K log-mel frames per encoder frame, M mel bands.
"""

import logging
import time
from contextlib import contextmanager

import torch
from torch.nn import functional as F
from tqdm.auto import tqdm

from lebench_sb.audio.waveforms import LogMel
from lebench_sb.pretraining.kernels.extractor import extract, hop_and_field, output_length
from lebench_sb.training.data import sample_lengths
from lebench_sb.training.schedules import linear_decay

logger = logging.getLogger(__name__)

PEAK_RATE, MAX_NORM = 0.002, 1.0  # of AdamW's steps, and of the gradient


def teach_log_mel(model, loader, updates, shows_progress=False):
    """Trains extractor and feature projection on the batches of the loader's first epoch, `updates` of them
    -> share of the variance of the log-mel energies that the last tenth of them explained, before each was
    learnt from. One whose gradient is not finite changes nothing.

    model: PretrainingModel; loader: a PlannedLoader, whose batches have `sig` as the model wants it. The
    run's other weights and random numbers are not touched. Of several processes the first one teaches.
    """
    device, parameters = next(model.parameters()).device, weights_of(model)
    shape, started, explained = Frames(model.hf.config, device), time.time(), []
    optimizer = torch.optim.AdamW(parameters, betas=(0.9, 0.98), weight_decay=0.0)
    with (
        trained_alone(parameters),
        tqdm(
            total=updates, desc="log-mel", unit="update", disable=not shows_progress, dynamic_ncols=True
        ) as bar,
    ):
        for update, batch in enumerate(loader.batches(1), 1):
            lens = sample_lengths(batch.sig).tolist()
            loss = shape.loss(model.hf.base_model, batch.sig.data.to(device), lens)
            # not `backward`, which would start the exchange of gradients between processes
            for parameter, gradient in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
                parameter.grad = gradient
            norm = torch.nn.utils.clip_grad_norm_(parameters, MAX_NORM)
            bar.update()
            if not norm.isfinite():
                logger.warning("A log-mel update left out, not finite: utterances %s", ", ".join(batch.id))
                continue
            for group in optimizer.param_groups:
                group["lr"] = PEAK_RATE * linear_decay(update, updates + 1, warmup=0.05)
            optimizer.step()
            explained.append(1 - float(loss.detach()))
            bar.set_postfix(explained=f"{explained[-1]:.2f}", refresh=False)
    last = explained[-max(len(explained) // 10, 1) :]
    share = sum(last) / max(len(last), 1)
    logger.info(
        "The extractor learnt log-mel energies for %d updates, %.0f s: %.0f %% of their variance explained",
        updates, time.time() - started, 100 * share,
    )  # fmt: skip
    return share


@contextmanager
def trained_alone(parameters):
    """Inside, the parameters have gradients; behind it, they have them as before, and none is left over"""
    required = [parameter.requires_grad for parameter in parameters]
    for parameter in parameters:
        parameter.requires_grad_(True)
    yield
    for parameter, before in zip(parameters, required, strict=True):
        parameter.grad = None
        parameter.requires_grad_(before)


def weights_of(model):
    """Parameters of the extractor and of the feature projection"""
    base = model.hf.base_model
    return [*base.feature_extractor.parameters(), *base.feature_projection.parameters()]


class Frames:
    """Which log-mel frames belong to which frame of an encoder.

    rows: how many outputs of the projection become log-mel energies: K M, where K is what fits between two
    encoder frames of 10 ms hops, and M is 80 or what fits into the model.
    """

    def __init__(self, config, device):
        self.kernels, self.strides = config.conv_kernel, config.conv_stride
        self.hop, self.field = hop_and_field(self.kernels, self.strides)
        self.per_frame = max(1, round(self.hop / LogMel.HOP))
        narrowest = min(config.hidden_size, config.conv_dim[-1])
        self.log_mel = LogMel(max(1, min(80, narrowest // self.per_frame))).to(device)
        self.rows = self.per_frame * self.log_mel.filters.shape[1]

    def loss(self, base, wavs, lens):
        """wavs (B, T), lens (B ints) -> mean squared error of the projection's first outputs; the mean of the
        targets has an error of about 1"""
        usable = [k for k, n in enumerate(lens) if output_length(n, self.kernels, self.strides) > 0]
        wavs, lens = wavs[usable], [lens[k] for k in usable]
        extracted = extract(base.feature_extractor.conv_layers, wavs, lens, torch.float32)
        features = base.feature_projection.layer_norm(extracted)
        project = base.feature_projection.projection
        predicted = F.linear(features, project.weight[: self.rows], project.bias[: self.rows])
        return (predicted - self.targets(wavs, lens)).square().mean()

    @torch.no_grad()
    def targets(self, wavs, lens):
        """wavs (B, T), lens (B ints) -> log-mel energies around each frame (N, K M)"""
        short = max(0, LogMel.WINDOW - wavs.shape[1])
        samples = torch.tensor(lens, device=wavs.device).clamp_min(LogMel.WINDOW)
        mels, mel_lens = self.log_mel(F.pad(wavs, (0, short)), samples)
        targets = []
        for row, length, count in zip(mels, lens, mel_lens.tolist(), strict=True):
            frames = torch.arange(output_length(length, self.kernels, self.strides), device=wavs.device)
            targets.append(row[self.nearest(frames).clamp(0, count - 1)].flatten(1))
        return torch.cat(targets)

    def nearest(self, frames):
        """frames (F,) -> the K log-mel frames (F, K) whose middles lie nearest around theirs"""
        middle = frames * self.hop + (self.field - 1) / 2
        first = middle - (LogMel.WINDOW - 1) / 2 - (self.per_frame - 1) / 2 * LogMel.HOP
        return (first / LogMel.HOP).round().long()[:, None] + torch.arange(
            self.per_frame, device=frames.device
        )
