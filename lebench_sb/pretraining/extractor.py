"""The convolutional feature extractor of wav2vec 2.0 without padding, in less time and memory than nn.Conv1d.

One utterance at a time, channels last: B utterances, T samples, F frames of the layer at hand, C channels, N
frames of all utterances together. So a batch gives exactly what its utterances give alone, whatever the
normalisation.

- A convolution over (F, C) with stride s is one matrix product per s taps, read in place: the frames under
  taps [j s, j s + s) are the rows of a plain (F / s, s C) matrix.
- "group" extractors normalise each channel of the first layer over the utterance. Mean and variance of w . p
  over the patches p follow from the mean and covariance of p (10 x 10), so the normalisation is folded into
  the first layer's weights and no (F, C) tensor is normalised.
- Only the outputs of the convolutions after the first are kept for the backward pass; normalisation and GELU,
  which are cheap, are computed again.
"""

from typing import NamedTuple

import torch
from torch.autograd.function import once_differentiable

gelu = torch.ops.aten.gelu
gelu_backward = torch.ops.aten.gelu_backward
layer_norm = torch.ops.aten.native_layer_norm
layer_norm_backward = torch.ops.aten.native_layer_norm_backward


class Layer(NamedTuple):
    """One convolution and what follows it. The first layer's weight and bias have a leading B."""

    weight: torch.Tensor  # (kernel, C_in, C_out)
    bias: torch.Tensor  # (C_out,), or None
    gamma: torch.Tensor  # (C_out,) of the layer norm, or None without one
    beta: torch.Tensor
    stride: int
    eps: float


def output_length(num_samples, kernels, strides):
    """Frames of an utterance of `num_samples` samples, an int or an integer tensor; 0 if too short for one
    frame."""
    for kernel, stride in zip(kernels, strides, strict=True):
        num_samples = (num_samples - kernel) // stride + 1
        num_samples = num_samples * (num_samples > 0)
    return num_samples


def extract(conv_layers, wavs, sample_lens, dtype):
    """HF `feature_extractor.conv_layers` on wavs (B, T) of sample_lens (B ints) -> valid frames (N, C) of
    dtype, in order.

    Every utterance must be long enough for one frame.
    """
    first = conv_layers[0]
    if isinstance(getattr(first, "layer_norm", None), torch.nn.GroupNorm):
        weight, bias = fold_group_norm(first.conv, first.layer_norm, wavs, sample_lens)
    else:
        weight = first.conv.weight.expand(len(wavs), -1, -1, -1)
        bias = None if first.conv.bias is None else first.conv.bias.expand(len(wavs), -1)
    weights = [weight.permute(0, 3, 2, 1)] + [layer.conv.weight.permute(2, 1, 0) for layer in conv_layers[1:]]
    biases = [bias] + [layer.conv.bias for layer in conv_layers[1:]]
    norms = [getattr(layer, "layer_norm", None) for layer in conv_layers]
    norms = [norm if isinstance(norm, torch.nn.LayerNorm) else None for norm in norms]
    parameters = []
    for weight, bias, norm in zip(weights, biases, norms, strict=True):
        parameters += [weight, bias] + ([None, None] if norm is None else [norm.weight, norm.bias])
    strides = [layer.conv.stride[0] for layer in conv_layers]
    epsilons = [0.0 if norm is None else norm.eps for norm in norms]
    return ConvStack.apply(wavs, sample_lens, strides, epsilons, dtype, *parameters)


def fold_group_norm(conv, norm, wavs, sample_lens):
    """Convolution then normalisation over time as one convolution per utterance -> weight (B, C, 1, K), bias
    (B, C)

    With mu and S the mean and covariance of the patches of K samples, channel w . p + b has mean w . mu + b
    and variance w S w. In float64: the variance of a faint channel is a small difference of large products.
    """
    kernel, stride = conv.kernel_size[0], conv.stride[0]
    taps, mean, variance = conv.weight.squeeze(1), [], []
    for wav, num_samples in zip(wavs, sample_lens, strict=True):
        patches = wav[:num_samples].double().unfold(0, kernel, stride)
        mu = patches.mean(dim=0)
        covariance = (patches - mu).t() @ (patches - mu) / len(patches)
        mean.append(taps.double() @ mu)
        variance.append(((taps.double() @ covariance) * taps).sum(dim=1))
    scale = norm.weight * torch.rsqrt(torch.stack(variance).clamp(min=0) + norm.eps).float()  # (B, C)
    shift = norm.bias - scale * torch.stack(mean).float()
    if conv.bias is not None:
        # the norm takes the bias away again; kept so that it has its (zero) gradient
        shift = shift + scale * (conv.bias - conv.bias)
    return scale[:, :, None, None] * conv.weight, shift


def tap_blocks(x, kernel, stride):
    """x (F_in, C) contiguous -> [(first tap, last tap + 1, view (F_out, taps * C))], at most `stride` taps
    each"""
    channels, frames, blocks = x.shape[1], (x.shape[0] - kernel) // stride + 1, []
    for first in range(0, kernel, stride):
        last = min(first + stride, kernel)
        size, steps = (frames, (last - first) * channels), (stride * channels, 1)
        blocks.append((first, last, x.as_strided(size, steps, x.storage_offset() + first * channels)))
    return blocks


def convolve(x, layer):
    """x (F_in, C_in) contiguous -> (F_out, C_out), without normalisation"""
    out = None
    for first, last, view in tap_blocks(x, layer.weight.shape[0], layer.stride):
        taps = layer.weight[first:last].flatten(0, 1)
        if out is not None:
            out.addmm_(view, taps)
        else:
            out = view @ taps if layer.bias is None else torch.addmm(layer.bias, view, taps)
    return out


def convolve_backward(x, layer, grad, grad_layer):
    """Adds to the weight and bias of grad_layer in place; grad (F_out, C_out) -> gradient of x"""
    grad_x = torch.zeros_like(x)
    blocks = tap_blocks(x, layer.weight.shape[0], layer.stride)
    grad_blocks = tap_blocks(grad_x, layer.weight.shape[0], layer.stride)
    for (first, last, view), (_, _, grad_view) in zip(blocks, grad_blocks, strict=True):
        grad_layer.weight[first:last] += (view.t() @ grad).view(last - first, *layer.weight.shape[1:])
        grad_view.addmm_(grad, layer.weight[first:last].flatten(0, 1).t())
    if layer.bias is not None:
        grad_layer.bias.add_(grad.sum(dim=0))
    return grad_x


def first_layer(layer, index, wav):
    """The first layer for one utterance, as a layer without overlap, and its input: wav (T,) -> layer,
    patches (F, K)"""
    kernel = layer.weight.shape[1]
    patches = wav.unfold(0, kernel, layer.stride).contiguous()
    own = layer._replace(
        weight=layer.weight[index].view(1, kernel, -1),
        bias=None if layer.bias is None else layer.bias[index],
        stride=1,
    )
    return own, patches


def activate(y, layer):
    """y (F, C) of a convolution -> output of its layer, and what its backward needs"""
    if layer.gamma is None:
        return gelu(y), (y, None, None)
    normal, mean, rstd = layer_norm(y, y.shape[1:], layer.gamma, layer.beta, layer.eps)
    return gelu(normal), (normal, mean, rstd)


def activate_backward(y, layer, saved, grad, grad_layer):
    """Gradient of the layer's output -> gradient of y; adds to the norm's gradients in place"""
    normal, mean, rstd = saved
    grad = gelu_backward(grad, normal)
    if layer.gamma is None:
        return grad
    grad, gamma, beta = layer_norm_backward(
        grad, y, y.shape[1:], mean, rstd, layer.gamma, layer.beta, [True, True, True]
    )
    grad_layer.gamma.add_(gamma)
    grad_layer.beta.add_(beta)
    return grad


def as_layers(strides, epsilons, parameters):
    """weight, bias, gamma, beta of each layer in turn -> list of Layer"""
    quadruples = zip(*[iter(parameters)] * 4, strict=True)
    return [Layer(*four, *constants) for four, *constants in zip(quadruples, strides, epsilons, strict=True)]


def cast(parameters, dtype):
    return [None if p is None else p.to(dtype).contiguous() for p in parameters]


class ConvStack(torch.autograd.Function):
    """All convolutions, normalisations and GELUs, forward and backward, in `dtype`; weight gradients in
    float32."""

    @staticmethod
    def forward(ctx, wavs, sample_lens, strides, epsilons, dtype, *parameters):
        """wavs (B, T), parameters: weight, bias, gamma, beta of each layer (None where absent) -> frames (N,
        C)"""
        with torch.autocast(wavs.device.type, enabled=False):
            layers = as_layers(strides, epsilons, cast(parameters, dtype))
            outputs, kept = [], []
            for index, num_samples in enumerate(sample_lens):
                first, x = first_layer(layers[0], index, wavs[index, :num_samples].to(dtype))
                for layer in [first, *layers[1:]]:
                    y = convolve(x, layer)
                    kept.append(y)
                    x, _ = activate(y, layer)
                outputs.append(x)
                del kept[-len(layers)]  # the first, largest and cheapest one is computed again
        ctx.save_for_backward(wavs, *parameters, *kept)
        ctx.constants = sample_lens, strides, epsilons, dtype
        return torch.cat(outputs)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_frames):
        sample_lens, strides, epsilons, dtype = ctx.constants
        wavs, *saved = ctx.saved_tensors
        parameters, kept = saved[: 4 * len(strides)], iter(saved[4 * len(strides) :])
        layers = as_layers(strides, epsilons, cast(parameters, dtype))
        grads = [None if p is None else torch.zeros(p.shape, device=p.device) for p in parameters]
        grad_layers, start = as_layers(strides, epsilons, grads), 0
        for index, num_samples in enumerate(sample_lens):
            first, x = first_layer(layers[0], index, wavs[index, :num_samples].to(dtype))
            grad_first = grad_layers[0]._replace(
                weight=grad_layers[0].weight[index].view_as(first.weight),
                bias=None if first.bias is None else grad_layers[0].bias[index],
            )
            ys = [convolve(x, first)] + [next(kept) for _ in layers[1:]]
            grad = grad_frames[start : start + len(ys[-1])]
            start += len(ys[-1])
            stack_backward(x, ys, [first, *layers[1:]], grad, [grad_first, *grad_layers[1:]])
        return (None,) * 5 + tuple(grads)


def stack_backward(x, ys, layers, grad, grad_layers):
    """Backward of one utterance: x (F, K) input and ys outputs of the convolutions, grad (F, C) of the last
    output."""
    _, saved = activate(ys[-1], layers[-1])
    for depth in range(len(layers) - 1, -1, -1):
        layer, grad_layer, y = layers[depth], grad_layers[depth], ys.pop()
        grad = activate_backward(y, layer, saved, grad, grad_layer)
        if depth == 0:
            convolve_backward(x, layer, grad, grad_layer)
            return
        below, saved = activate(ys[-1], layers[depth - 1])
        grad = convolve_backward(below, layer, grad, grad_layer)
