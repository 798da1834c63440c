"""Augmentation of training batches. Letters: B utterances, T samples, F frames, D features."""

import torch
from speechbrain.augment.time_domain import DropChunk, DropFreq, SpeedPerturb

from lebench_sb.core.masks import valid_mask


class Speeds:
    """Plays a batch at one of `percents` of its speed, drawn anew for each batch (Ko et al., 2015)."""

    def __init__(self, percents=(95, 100, 105)):
        self.perturb = SpeedPerturb(16000, list(percents))

    def __call__(self, wavs, wav_lens):
        """wavs (B, T), wav_lens (B,) relative -> the same utterances, longer or shorter"""
        return self.perturb(wavs), wav_lens


def no_augment(wavs, wav_lens):
    """(B, T), (B,) -> the waveforms as they are"""
    return wavs, wav_lens


class SpeedsAndDrops:
    """`Speeds`, then bands of frequencies removed and stretches of samples zeroed, with SpeechBrain's parts.

    bands, chunks: least and most of each in an utterance; chunk_samples: shortest and longest of a stretch.
    """

    def __init__(self, percents=(95, 100, 105), bands=(1, 3), chunks=(1, 5), chunk_samples=(1000, 2000)):
        self.speeds = Speeds(percents)
        self.drop_freq = DropFreq(drop_freq_count_low=bands[0], drop_freq_count_high=bands[1])
        self.drop_chunk = DropChunk(*chunk_samples, *chunks)

    def __call__(self, wavs, wav_lens):
        """wavs (B, T), wav_lens (B,) relative -> the same utterances, longer or shorter, with holes"""
        wavs, wav_lens = self.speeds(wavs, wav_lens)
        return self.drop_chunk(self.drop_freq(wavs), wav_lens), wav_lens


def mask_frames(frames, frame_lens, time_prob=0.065, time_length=10, channel_prob=0.1, channel_length=16):
    """Zeroes spans of frames and of features (SpecAugment, Park et al., 2019; as wav2vec 2.0 fine-tuning).

    frames (B, F, D), frame_lens (B,) -> a new tensor. time_prob: share of valid frames masked in expectation,
    in spans of `time_length` frames per utterance; channel_prob and channel_length: the same over the
    features.
    """
    device = frames.device
    times = spans(frame_lens.to(device), frames.shape[1], time_prob, time_length)
    features = torch.full((len(frames),), frames.shape[2], device=device)
    channels = spans(features, frames.shape[2], channel_prob, channel_length)
    return frames.masked_fill(times[:, :, None] | channels[:, None, :], 0.0)


def spans(lens, size, prob, length):
    """lens (B,) -> bool (B, size): True in spans of `length` that start with probability prob / length"""
    starts = torch.rand(len(lens), size, device=lens.device) < prob / length
    positions = torch.arange(size, device=lens.device)
    reach = torch.cummax(torch.where(starts, positions, -length), dim=1).values
    return (positions - reach < length) & valid_mask(lens, size)


def no_mask(frames, frame_lens):
    """(B, F, D), (B,) -> the frames as they are"""
    return frames
