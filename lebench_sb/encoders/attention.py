"""Scaled dot-product attention, by whichever kernel is fastest where it runs."""

from contextlib import nullcontext

import torch
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "lebench_sb"  # among the attention functions of transformers
# not cuDNN's kernel, which makes a plan for each new pair of lengths: most of a second per ragged step
ON_GPUS = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
LONGEST = 600  # keys; with more, the fused kernel's smaller temporaries win
TOGETHER = 2**20  # scores that AttentionWithDropout computes together: they stay in the processor's cache


def attend(queries, keys, values, dropout=0.0, scale=None, bias=None):
    """(B, heads, Q, d), twice (B, heads, K, d) -> (B, heads, Q, d).

    scale: of the scores; d ** -0.5 by default. bias (B, heads, Q, K), or None: added to the scaled scores.
    It is torch's fused kernel, but not with dropout on a CPU, which that kernel does not have (see
    AttentionWithDropout), nor in bfloat16 there, where it leaves the matrix units idle: two matrix products
    with a softmax between them take half its time at 500 keys, a third at 140 (forward and backward). Scores
    are then rounded to bfloat16, as those of transformers' eager attention under autocast. On a GPU it is
    flash attention where that can be.
    """
    on_cpu = queries.device.type == "cpu"
    if on_cpu and 0.0 < dropout < 1.0 and bias is None:
        return AttentionWithDropout.apply(queries, keys, values, dropout, scale or queries.shape[-1] ** -0.5)
    half = on_cpu and queries.dtype == torch.bfloat16
    if not half or dropout > 0.0 or keys.shape[2] > LONGEST:
        with kernels_for(queries):
            return F.scaled_dot_product_attention(queries, keys, values, bias, dropout, scale=scale)
    with torch.autocast("cpu", enabled=False):  # it would make the softmax one of float32
        scores = (queries * (scale or queries.shape[-1] ** -0.5)) @ keys.transpose(2, 3)
        scores = scores if bias is None else scores + bias
        return scores.softmax(dim=-1) @ values


class AttentionWithDropout(torch.autograd.Function):
    """queries (B, heads, Q, d), keys and values (B, heads, K, d), dropout, scale -> (B, heads, Q, d), on CPU

    A few heads at a time, so that no (B, heads, Q, K) tensor is written to memory, and with the softmax
    computed again in the backward pass (as FlashAttention, Dao et al., 2022). torch's own has tensors of that
    size for scores, softmax, mask and product, and keeps three for the backward pass. A weight is dropped
    with probability round(2^16 dropout) / 2^16: one random number of 64 bits serves four.
    """

    @staticmethod
    def forward(ctx, queries, keys, values, dropout, scale):
        ctx.dropout, ctx.scale = min(round(dropout * 2**16), 2**16 - 1) / 2**16, scale
        ctx.random_state = torch.get_rng_state()
        attended = empty_by_frame(queries)
        with torch.autocast("cpu", enabled=False):
            for part in groups_of_heads(queries, keys):
                weights = softmax(queries[part] * scale, keys[part])
                weights *= kept(weights, ctx.dropout)
                attended[part] = weights @ values[part] / (1 - ctx.dropout)
        ctx.save_for_backward(queries, keys, values)
        return attended

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        inputs = ctx.saved_tensors
        grads = [empty_by_frame(x) for x in inputs]
        generator = torch.Generator()
        generator.set_state(ctx.random_state)
        grad = grad / (1 - ctx.dropout)
        for part in groups_of_heads(*inputs[:2]):
            queries, keys, values = (x[part] for x in inputs)
            queries = queries * ctx.scale
            weights = softmax(queries, keys)
            keep = kept(weights, ctx.dropout, generator)
            grad_scores = (grad[part] @ values.mT).mul_(keep)
            grad_scores = torch._softmax_backward_data(grad_scores, weights, -1, weights.dtype)
            grads[0][part] = (grad_scores @ keys).mul_(ctx.scale)
            grads[1][part] = grad_scores.mT @ queries
            grads[2][part] = weights.mul_(keep).mT @ grad[part]
        return (*grads, None, None)


def empty_by_frame(x):
    """(B, heads, F, d) -> an empty tensor of its shape, with the heads of a frame side by side in memory"""
    return x.new_empty(x.shape[0], x.shape[2], x.shape[1], x.shape[3]).transpose(1, 2)


def groups_of_heads(queries, keys):
    """-> [(utterance, slice of its heads)] of about TOGETHER scores each"""
    step = max(TOGETHER // max(queries.shape[2] * keys.shape[2], 1), 1)
    return [(i, slice(h, h + step)) for i in range(len(queries)) for h in range(0, queries.shape[1], step)]


def softmax(queries, keys):
    """(heads, Q, d), (heads, K, d) -> (heads, Q, K)"""
    return (queries @ keys.mT).softmax(dim=-1)


def kept(weights, dropout, generator=None):
    """-> 1 where a weight is kept, 0 where it is dropped, in their shape and dtype"""
    bits = torch.empty(-(-weights.numel() // 4), dtype=torch.int64)
    bits = bits.random_(-(2**63), None, generator=generator).view(torch.int16)
    bits = bits[: weights.numel()].view(weights.shape)
    return torch.ge(bits, round(dropout * 2**16) - 2**15, out=torch.empty_like(weights))


def kernels_for(tensor):
    """Context in which attention on a GPU has the kernels of ON_GPUS to choose from"""
    return sdpa_kernel(ON_GPUS) if tensor.is_cuda else nullcontext()


def attend_in_transformers(module, queries, keys, values, attention_mask, dropout=0.0, scaling=None, **rest):
    """`attend` as transformers calls it: -> (B, Q, heads, d), None. With a mask or position bias, its own."""
    if attention_mask is not None or any(isinstance(value, torch.Tensor) for value in rest.values()):
        with kernels_for(queries):
            return sdpa_attention_forward(
                module, queries, keys, values, attention_mask, dropout, scaling, **rest
            )
    return attend(queries, keys, values, dropout, scaling).transpose(1, 2), None


AttentionInterface.register(NAME, attend_in_transformers)
AttentionMaskInterface.register(NAME, sdpa_mask)


def use_in(model):
    """Lets a transformers model with sdpa attention use `attend`"""
    if model.config._attn_implementation == "sdpa":
        model.set_attn_implementation(NAME)
