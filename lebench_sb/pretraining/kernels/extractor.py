"""The convolutional feature extractor of wav2vec 2.0 without padding, in less time and memory than nn.Conv1d.

One stretch of an utterance at a time, channels last: B utterances, T samples, F frames of the layer at hand,
C channels, N frames of all utterances together. So a batch gives exactly what its utterances give alone,
whatever the normalisation.

- A convolution and the gradient of its input are channels-last convolutions on (F, C) matrices as they lie in
  memory; the gradient of its weights is one matrix product per s taps (s: the stride), which oneDNN's own
  falls far behind.
- "group" extractors normalise each channel of the first layer over the utterance. Mean and variance of w . p
  over the patches p follow from the mean and covariance of p (10 x 10), so the normalisation is folded into
  the first layer's weights and no (F, C) tensor is normalised.
- What is left looks at a few samples around each frame, so an utterance can be cut into stretches that
  overlap by these samples. The first layers' outputs, the largest tensors of the whole model, then fit in the
  processor's cache.
- Only the outputs of the convolutions after the first are kept for the backward pass; normalisation and GELU,
  which are cheap, are computed again.
"""

from typing import NamedTuple

import torch
from torch.autograd.function import once_differentiable

from lebench_sb.encoders.padding import channel_statistics

gelu = torch.ops.aten.gelu
gelu_backward = torch.ops.aten.gelu_backward
layer_norm = torch.ops.aten.native_layer_norm
convolution_backward = torch.ops.aten.convolution_backward
layer_norm_backward = torch.ops.aten.native_layer_norm_backward


# Elements of the first layer's output that are computed together. On CPU 16 MB in float32: below that the
# allocator reuses memory, above it every tensor is new pages from the system. A GPU wants them long.
STRETCH = {"cpu": 2**22}


class Layer(NamedTuple):
    """One convolution and what follows it, or their gradients: there weight is (kernel, C_in, C_out).

    The first layer sees patches of samples: its weight is (B, C_out, kernel), its bias (B, C_out).
    """

    weight: torch.Tensor  # (C_out, C_in, kernel)
    bias: torch.Tensor  # (C_out,), or None
    gamma: torch.Tensor  # (C_out,) of the layer norm, or None without one
    beta: torch.Tensor
    stride: int
    eps: float


def output_length(num_samples, kernels, strides):
    """Frames of an utterance of `num_samples` samples (an int or an integer tensor); 0 if it is too short."""
    for kernel, stride in zip(kernels, strides, strict=True):
        num_samples = (num_samples - kernel) // stride + 1
        num_samples = num_samples * (num_samples > 0)
    return num_samples


def hop_and_field(kernels, strides):
    """-> samples from one frame to the next, samples that a frame depends on"""
    hop, field = 1, 1
    for kernel, stride in zip(kernels, strides, strict=True):
        hop, field = hop * stride, field + (kernel - 1) * hop
    return hop, field


def extract(conv_layers, wavs, sample_lens, dtype):
    """HF `feature_extractor.conv_layers` on wavs (B, T) of sample_lens (B ints)
    -> valid frames (N, C) of dtype, in order.

    Every utterance must be long enough for one frame.
    """
    first = conv_layers[0]
    if isinstance(getattr(first, "layer_norm", None), torch.nn.GroupNorm):
        weight, bias = fold_group_norm(first.conv, first.layer_norm, wavs, sample_lens)
    else:
        weight = first.conv.weight.squeeze(1).expand(len(wavs), -1, -1)
        bias = None if first.conv.bias is None else first.conv.bias.expand(len(wavs), -1)
    parameters = [weight, bias, *norm_parameters(first)]
    for layer in conv_layers[1:]:
        parameters += [layer.conv.weight, layer.conv.bias, *norm_parameters(layer)]
    strides = [layer.conv.stride[0] for layer in conv_layers]
    epsilons = [getattr(getattr(layer, "layer_norm", None), "eps", 0.0) for layer in conv_layers]
    kernels = [layer.conv.kernel_size[0] for layer in conv_layers]
    longest = STRETCH.get(wavs.device.type, 2**40) // len(first.conv.weight)
    stretches = cut(sample_lens, kernels, strides, longest)
    return ConvStack.apply(wavs, stretches, strides, epsilons, dtype, *parameters)


def norm_parameters(layer):
    """-> gamma and beta of the layer norm, or None twice"""
    norm = getattr(layer, "layer_norm", None)
    return (norm.weight, norm.bias) if isinstance(norm, torch.nn.LayerNorm) else (None, None)


def cut(sample_lens, kernels, strides, longest):
    """-> [(utterance, slice of its samples)], which together give each frame of the stack once, in order

    None needs more than about `longest` frames of the first layer, but each gives at least one of the last.
    """
    hop, field = hop_and_field(kernels, strides)
    step, stretches = max(longest * strides[0] // hop, 1), []
    for utterance, num_samples in enumerate(sample_lens):
        frames = output_length(num_samples, kernels, strides)
        for first in range(0, frames, step):
            last = min(first + step, frames) - 1
            stretches.append((utterance, slice(first * hop, last * hop + field)))
    return stretches


def fold_group_norm(conv, norm, wavs, sample_lens):
    """Convolution then normalisation over time as one convolution per utterance
    -> weight (B, C, K), bias (B, C)

    With what `channel_statistics` makes of the mean and covariance of the patches of K samples.
    """
    kernel, stride = conv.kernel_size[0], conv.stride[0]
    taps, statistics = conv.weight.squeeze(1), []
    for wav, num_samples in zip(wavs, sample_lens, strict=True):
        patches = wav[:num_samples].double().unfold(0, kernel, stride)
        mean = patches.mean(dim=0)
        covariance = (patches - mean).t() @ (patches - mean) / len(patches)
        statistics.append(channel_statistics(taps, mean, covariance))
    mean, variance = (torch.stack(both) for both in zip(*statistics, strict=True))
    scale = norm.weight * torch.rsqrt(variance.clamp(min=0) + norm.eps).float()  # (B, C)
    shift = norm.bias - scale * mean.float()
    if conv.bias is not None:
        # the norm takes the bias away again; kept so that it has its (zero) gradient
        shift = shift + scale * (conv.bias - conv.bias)
    return scale[:, :, None] * taps, shift


def as_image(x):
    """(F, C) contiguous -> the same memory as a channels-last image (1, C, 1, F)"""
    return x.t()[None, :, None, :]


def convolve(x, layer):
    """x (F_in, C_in) -> (F_out, C_out), without normalisation"""
    y = torch.conv2d(as_image(x), layer.weight[:, :, None, :], layer.bias, stride=(1, layer.stride))
    return y[0, :, 0].t().contiguous()  # a copy only where one channel makes the layout ambiguous


def input_backward(x, layer, grad):
    """x (F_in, C_in), of which only the shape matters, grad (F_out, C_out) -> gradient of x"""
    weight, stride = layer.weight[:, :, None, :], [1, layer.stride]
    images = as_image(grad), as_image(x), weight
    grad_x, _, _ = convolution_backward(
        *images, None, stride, [0, 0], [1, 1], False, [0, 0], 1, [True, False, False]
    )
    return grad_x[0, :, 0].t().contiguous()


def weight_backward(x, layer, grad, grad_layer):
    """Adds to the weight and bias of grad_layer in place; x (F_in, C_in), grad (F_out, C_out)"""
    channels, kernel = layer.weight.shape[1:]
    for first in range(0, kernel, layer.stride):
        taps = min(layer.stride, kernel - first)
        # frames under these taps as rows, without a copy: row t begins at frame t * stride + first of x
        rows = x.as_strided((len(grad), taps * channels), (layer.stride * channels, 1), first * channels)
        grad_layer.weight[first : first + taps] += (rows.t() @ grad).view(taps, channels, -1)
    if layer.bias is not None:
        grad_layer.bias.add_(grad.sum(dim=0))


def first_layer(layer, utterance, samples):
    """The first layer as it is for one utterance; samples (T,) -> layer, patches (F, kernel)"""
    own = layer._replace(
        weight=layer.weight[utterance], bias=None if layer.bias is None else layer.bias[utterance]
    )
    return own, samples.unfold(0, layer.weight.shape[2], layer.stride).contiguous()


def multiply(patches, layer):
    """The first layer's convolution: patches (F, kernel) -> (F, C)"""
    weight = layer.weight.t()
    return patches @ weight if layer.bias is None else torch.addmm(layer.bias, patches, weight)


def multiply_backward(patches, layer, grad, grad_layer):
    """Adds to the weight and bias of grad_layer in place; patches (F, kernel), grad (F, C)"""
    grad_layer.weight.add_(grad.t() @ patches)
    if layer.bias is not None:
        grad_layer.bias.add_(grad.sum(dim=0))


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
    """Weights of more than one dimension become channels last: (C_out, kernel, C_in) in memory"""
    tensors = [None if p is None else p.to(dtype) for p in parameters]
    return tensors[:4] + [t.mT.contiguous().mT if t is not None and t.dim() == 3 else t for t in tensors[4:]]


def taps_first(grads):
    """Weights among them: (C_out, C_in, kernel) to (kernel, C_in, C_out), or back"""
    return [g.permute(2, 1, 0).contiguous() if g is not None and g.dim() == 3 else g for g in grads]


class ConvStack(torch.autograd.Function):
    """All convolutions, normalisations and GELUs, forward and backward, computed in `dtype`."""

    @staticmethod
    def forward(ctx, wavs, stretches, strides, epsilons, dtype, *parameters):
        """wavs (B, T), parameters: weight, bias, gamma, beta of each layer (None where absent) -> frames (N,
        C)"""
        with torch.autocast(wavs.device.type, enabled=False):
            layers = as_layers(strides, epsilons, cast(parameters, dtype))
            outputs, kept = [], []
            for utterance, samples in stretches:
                first, patches = first_layer(layers[0], utterance, wavs[utterance, samples].to(dtype))
                y = multiply(patches, first)  # the largest and cheapest one: not kept, computed again
                for below, layer in zip(layers, layers[1:], strict=False):
                    y = convolve(activate(y, below)[0], layer)
                    kept.append(y)
                outputs.append(activate(y, layers[-1])[0])
        ctx.save_for_backward(wavs, *parameters, *kept)
        ctx.constants = stretches, strides, epsilons, dtype
        return torch.cat(outputs)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_frames):
        stretches, strides, epsilons, dtype = ctx.constants
        wavs, *saved = ctx.saved_tensors
        parameters, kept = saved[: 4 * len(strides)], iter(saved[4 * len(strides) :])
        layers = as_layers(strides, epsilons, cast(parameters, dtype))
        grads = [None if p is None else torch.zeros_like(p) for p in parameters]
        grads[4:] = taps_first(grads[4:])
        grad_layers, start = as_layers(strides, epsilons, grads), 0
        for utterance, samples in stretches:
            first, patches = first_layer(layers[0], utterance, wavs[utterance, samples].to(dtype))
            grad_first, _ = first_layer(grad_layers[0], utterance, wavs[utterance, samples])
            ys = [multiply(patches, first)] + [next(kept) for _ in layers[1:]]
            grad = grad_frames[start : start + len(ys[-1])]
            start += len(ys[-1])
            grad = stack_backward(ys, [first, *layers[1:]], grad, [grad_first, *grad_layers[1:]])
            multiply_backward(patches, first, grad, grad_first)
        return (None,) * 5 + tuple(grads[:4] + taps_first(grads[4:]))


def stack_backward(ys, layers, grad, grad_layers):
    """Backward of one stretch, but for the first convolution: ys outputs of the convolutions, grad (F, C) of
    the last layer's output -> gradient of the first convolution's output"""
    _, saved = activate(ys[-1], layers[-1])
    while True:
        layer, grad_layer, y = layers.pop(), grad_layers.pop(), ys.pop()
        grad = activate_backward(y, layer, saved, grad, grad_layer)
        if not layers:
            return grad
        below, saved = activate(ys[-1], layers[-1])
        weight_backward(below, layer, grad, grad_layer)
        grad = input_backward(below, layer, grad)
