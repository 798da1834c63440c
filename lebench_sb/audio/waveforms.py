"""From waveforms to what a model receives: the samples themselves, or log-mel frames.

Axes: B utterances, T samples (16 kHz), F frames, M mel frames.
"""

import math

import torch
from torch import nn
from transformers.audio_utils import mel_filter_bank

from lebench_sb.core.masks import valid_mask

SAMPLE_RATE = 16000


class Waveform(nn.Module):
    """The waveform itself, with mean 0 and variance 1 per utterance where the checkpoint says `do_normalize`.

    As Wav2Vec2FeatureExtractor.zero_mean_unit_var_norm (1e-7 is added to the variance), over the valid
    samples.
    """

    def __init__(self, config, normalize):
        super().__init__()
        self.normalize = normalize
        self.convs = list(zip(config.conv_kernel, config.conv_stride, strict=True))
        self.samples_per_frame = math.prod(config.conv_stride)
        self.min_samples = getattr(config, "squeeze_factor", 1)  # SEW pools that many frames
        for kernel, stride in reversed(self.convs):
            self.min_samples = (self.min_samples - 1) * stride + kernel

    def forward(self, wavs, lens):
        """wavs (B, T), lens (B,) -> inputs (B, T), lens, frame_lens (B,)"""
        valid = valid_mask(lens, wavs.shape[1])
        wavs = wavs.float().masked_fill(~valid, 0.0)
        if self.normalize:
            wavs = standardise(wavs[:, :, None], lens, correction=0)[:, :, 0]
        frame_lens = lens
        for kernel, stride in self.convs:
            frame_lens = (frame_lens - kernel) // stride + 1
        return wavs, lens, frame_lens


class StackedLogMel(nn.Module):
    """Log-mel frames stacked by two: the input of wav2vec2-BERT, as SeamlessM4TFeatureExtractor computes it.

    That extractor fills an odd last mel frame up with padding, then masks the pair: it is left out here.
    """

    def __init__(self, mels, stack):
        super().__init__()
        self.log_mel, self.stack = LogMel(mels), stack
        self.min_samples = LogMel.WINDOW + (stack - 1) * LogMel.HOP
        self.samples_per_frame = stack * LogMel.HOP

    def forward(self, wavs, lens):
        """wavs (B, T), lens (B,) -> inputs (B, F, stack * mels), frame_lens (B,), frame_lens"""
        mels, mel_lens = self.log_mel(wavs, lens)
        frame_lens = mel_lens // self.stack
        num_frames = mels.shape[1] // self.stack
        inputs = mels[:, : num_frames * self.stack].reshape(len(mels), num_frames, -1)
        return (
            inputs.masked_fill(~valid_mask(frame_lens, num_frames)[:, :, None], 0.0),
            frame_lens,
            frame_lens,
        )


class LogMel(nn.Module):
    """Kaldi's log-mel filterbank, each bin with mean 0 and variance 1 over the utterance.

    As kaldi/src/feat/feature-fbank.cc with snip-edges and without dither: samples at 16-bit scale,
    25 ms windows every 10 ms without their mean, pre-emphasis 0.97, Povey window, power of a 512-point FFT,
    triangular filters on Kaldi's mel scale from 20 Hz to 8 kHz, logarithm.
    Computed in float64: in float32 the rounding of a loud window reaches its silent bins.
    """

    WINDOW, HOP, FFT = 400, 160, 512  # samples at 16 kHz
    FLOOR = 1.192092955078125e-07  # float32's epsilon, as in Kaldi

    def __init__(self, mels=80):
        super().__init__()
        filters = mel_filter_bank(
            self.FFT // 2 + 1, mels, 20, SAMPLE_RATE // 2, SAMPLE_RATE, None, "kaldi", True
        )
        window = torch.hann_window(self.WINDOW, periodic=False, dtype=torch.float64) ** 0.85
        self.register_buffer("filters", torch.from_numpy(filters), persistent=False)  # (257, mels)
        self.register_buffer("window", window, persistent=False)

    def forward(self, wavs, lens):
        """wavs (B, T), lens (B,) samples -> log-mel (B, M, mels) float32, zeros beyond mel_lens (B,)"""
        windows = (wavs.double() * 2**15).unfold(-1, self.WINDOW, self.HOP)
        windows = windows - windows.mean(-1, keepdim=True)
        previous = torch.cat([windows[..., :1], windows[..., :-1]], -1)
        spectrum = torch.fft.rfft((windows - 0.97 * previous) * self.window.double(), self.FFT)
        power = spectrum.real.square() + spectrum.imag.square()
        mels = (power @ self.filters.double()).clamp_min(self.FLOOR).log()
        mel_lens = (lens - self.WINDOW) // self.HOP + 1
        return standardise(mels, mel_lens, correction=1).float(), mel_lens


def front_end(config, preprocessor):
    """The module that makes the model's inputs, their lengths and the numbers of frames of wavs and lens."""
    if hasattr(config, "conv_kernel") and hasattr(config, "conv_stride"):
        return Waveform(config, preprocessor.get("do_normalize", True))
    if preprocessor.get("feature_extractor_type") == "SeamlessM4TFeatureExtractor":
        return StackedLogMel(preprocessor.get("num_mel_bins", 80), preprocessor.get("stride", 2))
    raise ValueError(
        f"model type {config.model_type!r} is no encoder of waveforms: it has no convolutional extractor, "
        "nor the log-mel frames of SeamlessM4TFeatureExtractor."
    )


def true_lengths(wavs, wav_lens, min_samples):
    """wavs (B, T), wav_lens (B,) relative -> samples (B,) int64, on the CPU. Raises ValueError."""
    if wavs.dim() != 2 or wav_lens.shape != wavs.shape[:1]:
        raise ValueError(
            f"an encoder takes wavs (B, T) and wav_lens (B,), not {tuple(wavs.shape)} and "
            f"{tuple(wav_lens.shape)}."
        )
    relative = wav_lens.detach().cpu().double()
    if not bool(((relative > 0) & (relative <= 1 + 1e-6)).all()):
        raise ValueError(
            f"wav_lens are relative lengths in (0, 1], not {relative.tolist()[:5]}: divide the numbers of "
            f"samples by the longest, {wavs.shape[1]}."
        )
    lens = (relative * wavs.shape[1]).round().long()
    short = [i for i, length in enumerate(lens.tolist()) if length < min_samples]
    if short:
        raise ValueError(
            f"utterance {short[0]} of the batch has {int(lens[short[0]])} samples; the shortest with one "
            f"frame has {min_samples} ({1000 * min_samples / SAMPLE_RATE:.1f} ms). Raise min_duration, or "
            f"drop {len(short)} of these {len(lens)}."
        )
    return lens


def standardise(values, lens, correction):
    """values (B, N, D), lens (B,) -> mean 0, variance 1 over the first lens[b] of N, zeros beyond

    correction: 1 divides the sum of squares by n - 1 (by 1 if n is 1), 0 by n.
    """
    padding = ~valid_mask(lens, values.shape[1])[:, :, None]
    counts = lens[:, None, None]
    mean = values.masked_fill(padding, 0.0).sum(1, keepdim=True) / counts
    centred = (values - mean).masked_fill(padding, 0.0)
    variance = centred.square().sum(1, keepdim=True) / (counts - correction).clamp_min(1)
    return centred / (variance + 1e-7).sqrt()


def standardise_waveform(sig):
    """`standardise` of one waveform without padding: sig (T,) -> mean 0, variance 1"""
    return (sig - sig.mean()) / torch.sqrt(sig.var(unbiased=False) + 1e-7)
