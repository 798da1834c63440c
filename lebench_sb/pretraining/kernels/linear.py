"""Linear layers in float32 on AMD processors with AVX-512 through oneDNN, twice as fast as MKL there.

N rows, D inputs, O outputs. PyTorch sends float32 matrix products to MKL, which on these processors reaches
half of what they can do, and float32 convolutions to oneDNN. A linear layer is a convolution: each row is two
neighbouring frames of D / 2 channels, the kernel has two taps and the stride is two. No memory is moved for
it. (As a convolution of one tap it would be no faster than MKL.) On processors without AVX-512 MKL is as fast
in the forward pass, and up to twice as fast in the backward one.
"""

from functools import cache
from pathlib import Path

import torch
from torch.autograd.function import once_differentiable

convolution_backward = torch.ops.aten.convolution_backward


def linear(layer, x):
    """nn.Linear `layer` on x (N, D) -> (N, O)"""
    if convolutions_win() and in_float32_on_cpu(x) and layer.weight.shape[1] % 2 == 0 and len(x):
        return LinearByConvolution.apply(x, layer.weight, layer.bias)
    return layer(x)


def in_float32_on_cpu(x):
    """Whether a product with x is computed there in float32"""
    return x.device.type == "cpu" and x.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")


@cache
def convolutions_win(description="/proc/cpuinfo"):
    """Whether this is an AMD processor with AVX-512; no where the system has no such file"""
    path = Path(description)
    text = path.read_text() if path.exists() else ""
    return "AuthenticAMD" in text and "avx512f" in text


def feed_forward(block, x):
    """HF Wav2Vec2FeedForward, or that of its twin with Conformer layers: x (N, D) -> (N, D)"""
    if getattr(block, "is_compiled", False):
        return block(x)
    hidden = block.intermediate_dropout(block.intermediate_act_fn(linear(block.intermediate_dense, x)))
    return block.output_dropout(linear(block.output_dense, hidden))


def as_frames(x):
    """x (N, D) -> (1, D / 2, 1, 2 N), a view of the same memory, channels last"""
    return x.contiguous().view(2 * x.shape[0], x.shape[1] // 2).t()[None, :, None, :]


def as_taps(weight):
    """weight (O, D) -> (O, D / 2, 1, 2), likewise"""
    return weight.view(weight.shape[0], 2, -1).transpose(1, 2)[:, :, None]


class LinearByConvolution(torch.autograd.Function):
    """x (N, D), weight (O, D), bias (O,) or None -> (N, O)"""

    @staticmethod
    def forward(ctx, x, weight, bias):
        ctx.save_for_backward(x, weight)
        y = torch.conv2d(as_frames(x), as_taps(weight), bias, stride=(1, 2))
        return y[0, :, 0].t().contiguous()

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        x, weight = ctx.saved_tensors
        grad = grad.contiguous()
        grad_x = grad_weight = grad_bias = None
        if ctx.needs_input_grad[0]:
            images = grad.t()[None, :, None, :], as_frames(x), as_taps(weight)
            grad_x, _, _ = convolution_backward(
                *images, None, [1, 2], [0, 0], [1, 1], False, [0, 0], 1, [True, False, False]
            )
            grad_x = grad_x[0, :, 0].t().reshape(x.shape)
        if ctx.needs_input_grad[1]:
            grad_weight = grad.t() @ x
        if ctx.needs_input_grad[2]:
            grad_bias = grad.sum(dim=0)
        return grad_x, grad_weight, grad_bias
