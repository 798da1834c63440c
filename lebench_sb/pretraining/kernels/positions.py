"""Convolutional position embedding of wav2vec 2.0, on CPU by fast Fourier transform.

N valid frames of D features, groups of C = D / groups features, K taps. A grouped convolution of 128 taps
runs at a third of a processor's speed. Here blocks of 2 K frames, one every K + 1, are transformed and
multiplied by the transformed weights, frequency by frequency, and the K + 1 frames of each that depend on no
other block are kept (overlap-save): a thirtieth of the multiplications, equal to the convolution but for
rounding.
"""

import torch
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from lebench_sb.pretraining.kernels.linear import in_float32_on_cpu


def positions(pos_conv_embed, hidden, frame_lens):
    """HF Wav2Vec2PositionalConvEmbedding on hidden (N, D) of utterances of frame_lens -> (N, D)

    The utterances go through one convolution, kept apart by as many zeros as half its kernel.
    """
    gap = hidden.new_zeros(pos_conv_embed.conv.kernel_size[0] // 2, hidden.shape[1])
    row = torch.cat([part for utterance in hidden.split(frame_lens) for part in (utterance, gap)])
    lens = [n for frames in frame_lens for n in (frames, len(gap))]
    if row.is_cuda:  # in bfloat16 cuDNN's grouped convolution takes many times as long
        with torch.autocast("cuda", enabled=False):
            row = pos_conv_embed(row.float()[None])[0]
    elif in_float32_on_cpu(row) and torch.backends.mkl.is_available():  # complex products are slow without
        conv = pos_conv_embed.conv
        row = pos_conv_embed.activation(ConvolutionByFFT.apply(row, conv.weight, conv.groups) + conv.bias)
    else:
        row = pos_conv_embed(row[None])[0]
    return torch.cat(row.split(lens)[::2])


class ConvolutionByFFT(torch.autograd.Function):
    """x (T, D), weight (D, C, K), groups -> y (T, D)

    y[t] is the sum over k of weight[:, :, k] times its group of x[t + k - K // 2].
    """

    @staticmethod
    def forward(ctx, x, weight, groups):
        taps = weight.shape[2]
        weights = torch.fft.rfft(weight, n=2 * taps).unflatten(0, (groups, -1)).permute(3, 0, 1, 2)
        spectra = transform(x, groups, taps, before=taps // 2)
        ctx.save_for_backward(spectra, weights)
        ctx.shape = weight.shape
        return transform_back(spectra @ weights.mH, taps, first=0)[: len(x)]

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        spectra, weights = ctx.saved_tensors
        groups, taps = weights.shape[1], ctx.shape[2]
        grad_spectra = transform(grad, groups, taps, before=taps - 1 - taps // 2)
        grad_x = transform_back(grad_spectra @ weights, taps, first=taps - 1)[: len(grad)]
        grad_weights = transform(grad, groups, taps, before=0, length=taps + 1).mH @ spectra
        grad_weight = torch.fft.irfft(grad_weights.permute(1, 2, 3, 0), n=2 * taps)[..., :taps]
        return grad_x, grad_weight.reshape(ctx.shape), None


def transform(x, groups, taps, before, length=None):
    """x (T, D) -> spectra (K + 1, groups, blocks, C) of blocks of 2 K frames (the first `length` of them, the
    others zero), one every K + 1, the first of which begins `before` frames ahead of x"""
    blocks = -(-len(x) // (taps + 1))
    behind = blocks * (taps + 1) + taps - 1 - before - len(x)
    framed = F.pad(x, (0, 0, before, behind)).unfold(0, 2 * taps, taps + 1)[..., :length]
    return torch.fft.rfft(framed, n=2 * taps).unflatten(1, (groups, -1)).permute(3, 1, 0, 2)


def transform_back(spectra, taps, first):
    """spectra (K + 1, groups, blocks, C) -> (blocks (K + 1), D): K + 1 frames of each, from `first` on"""
    blocks = torch.fft.irfft(spectra.permute(2, 1, 3, 0).flatten(1, 2), n=2 * taps)
    return blocks[..., first : first + taps + 1].transpose(1, 2).flatten(0, 1)
