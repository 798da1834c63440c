"""A micro-batch of pre-training: one object from the host, where its masks are drawn, to the loss.

Letters: B utterances, T samples, F frames.
"""

from dataclasses import dataclass, replace

import torch

from lebench_sb.audio.waveforms import SAMPLE_RATE
from lebench_sb.pretraining.masking import chance_hits, draw_masks
from lebench_sb.pretraining.model import Layout


@dataclass(frozen=True)
class PretrainingBatch:
    id: list  # of the B utterances
    rows: list  # of each what its row of `utterances.csv` begins with
    wavs: torch.Tensor  # (B, T)
    sample_lens: torch.Tensor  # (B,) int64, on the CPU
    layout: Layout  # where its frames, masks and negatives lie
    masked: list  # masked frames of each utterance
    frames: int
    seconds: float  # of audio
    chance_hits: float  # masked frames that a random choice among the negatives gets right

    def to(self, device, non_blocking=False):
        return replace(self, wavs=self.wavs.to(device, non_blocking=non_blocking))


def draw_batch(batch, rows, sample_lens, model, seed, update, masks):
    """PaddedBatch of waveforms (B, T) on the CPU -> PretrainingBatch with the masks and negatives of (seed,
    update, utterance): those of update 0, of validations, are the same in every run with this seed.

    masks: {prob, length, min_masks, num_negatives} of `draw_masks`.
    """
    frame_lens = model.frame_lengths(sample_lens)
    mask, negatives = draw_masks(frame_lens, batch.id, seed, update, **masks)
    masked = mask.sum(dim=1).tolist()
    return PretrainingBatch(
        id=list(batch.id), rows=rows, wavs=batch.sig.data, sample_lens=sample_lens,
        layout=model.layout(sample_lens, mask, negatives), masked=masked,
        frames=int(frame_lens.sum()), seconds=float(sample_lens.sum()) / SAMPLE_RATE,
        chance_hits=float(chance_hits(masked, masks["num_negatives"])),
    )  # fmt: skip
