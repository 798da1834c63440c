"""ECAPA-TDNN on the frames of any encoder, and what is dropped of waveforms when the encoder is trained.

Letters: B utterances, T samples, F frames, D features, E embedding.
"""

import torch
from speechbrain.augment.time_domain import DropChunk, DropFreq
from speechbrain.lobes.models.ECAPA_TDNN import ECAPA_TDNN
from torch import nn


class SpeakerEmbedder(nn.Module):
    """ECAPA-TDNN (Desplanques et al., 2020; SpeechBrain's) on frames of any encoder.

    Its convolutions mirror the batch's edge, so SpeechBrain's embedding of an utterance depends on how much
    padding follows. Here utterances of equal length go through together, each without padding: a batch gives
    what its utterances give alone. Training chunks have one length and go through at once, because batch
    normalisation needs them together.
    """

    def __init__(
        self, input_size, lin_neurons=192, channels=(512, 512, 512, 512, 1536), kernel_sizes=(5, 3, 3, 3, 1),
        dilations=(1, 2, 3, 4, 1), attention_channels=128, res2net_scale=8, se_channels=128, dropout=0.0,
    ):  # fmt: skip
        super().__init__()
        self.network = ECAPA_TDNN(
            input_size, lin_neurons=lin_neurons, channels=list(channels), kernel_sizes=list(kernel_sizes),
            dilations=list(dilations), attention_channels=attention_channels, res2net_scale=res2net_scale,
            se_channels=se_channels, dropout=dropout,
        )  # fmt: skip
        shapes = [(c.kernel_size, c.dilation) for c in self.network.modules() if hasattr(c, "padding_mode")]
        # a mirrored edge must be shorter than what it mirrors
        self.least_frames = 1 + max(_first(d) * (_first(k) - 1) // 2 for k, d in shapes)

    def forward(self, frames, frame_lens):
        """frames (B, F, D), frame_lens (B,) -> embeddings (B, E), not normalised"""
        frames, lens = repeat_pad(frames, frame_lens.to(frames.device), self.least_frames)
        if self.training:
            # half a frame less, so that rounding never lets in a frame of padding
            return self.network(frames, (lens - 0.5) / frames.shape[1])[:, 0]
        by_place = {}
        for length in lens.unique().tolist():
            places = (lens == length).nonzero()[:, 0]
            embeddings = self.network(frames[places, :length])[:, 0]
            by_place |= dict(zip(places.tolist(), embeddings, strict=True))
        return torch.stack([by_place[place] for place in range(len(frames))])


def _first(size):
    return size[0] if isinstance(size, tuple) else size


def repeat_pad(frames, lens, least):
    """frames (B, F, D), lens (B,) -> the same with utterances below `least` frames repeated up to it"""
    if int(lens.min()) >= least:
        return frames, lens
    places = torch.arange(max(least, frames.shape[1]), device=frames.device).expand(len(frames), -1)
    places = torch.where(lens[:, None] < least, places % lens[:, None], places.clamp(max=frames.shape[1] - 1))
    return frames.gather(1, places[:, :, None].expand(-1, -1, frames.shape[2])), lens.clamp(min=least)


class Drops:
    """Removes frequency bands and stretches of a waveform, as SpeechBrain's VoxCeleb recipe (SpecAugment's
    idea on waveforms). The speed is not changed: it would change the voice."""

    def __init__(self):
        self.bands, self.stretches = DropFreq(), DropChunk()

    def __call__(self, wavs, wav_lens):
        """wavs (B, T), wav_lens (B,) relative -> the same utterances with holes"""
        return self.stretches(self.bands(wavs), wav_lens), wav_lens
