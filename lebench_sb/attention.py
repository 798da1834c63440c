"""Scaled dot-product attention, by whichever kernel is fastest where it runs."""

from contextlib import nullcontext

import torch
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "lebench_sb"  # among the attention functions of transformers
# not cuDNN's kernel, which makes a plan for each new pair of lengths: most of a second per ragged step
ON_GPUS = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
LONGEST = 600  # keys; with more, the fused kernel's smaller temporaries win


def attend(queries, keys, values, dropout=0.0, scale=None, bias=None):
    """(B, heads, Q, d), twice (B, heads, K, d) -> (B, heads, Q, d).

    scale: of the scores; d ** -0.5 by default. bias (B, heads, Q, K), or None: added to the scaled scores.
    It is torch's fused kernel, but not in bfloat16 on a CPU, where that leaves the matrix units idle: two
    matrix products with a softmax between them take half its time at 500 keys, a third at 140 (forward and
    backward). Scores are then rounded to bfloat16, as those of transformers' eager attention under autocast.
    On a GPU it is flash attention where that can be.
    """
    half = queries.dtype == torch.bfloat16 and queries.device.type == "cpu"
    if not half or dropout > 0.0 or keys.shape[2] > LONGEST:
        with kernels_for(queries):
            return F.scaled_dot_product_attention(queries, keys, values, bias, dropout, scale=scale)
    with torch.autocast("cpu", enabled=False):  # it would make the softmax one of float32
        scores = (queries * (scale or queries.shape[-1] ** -0.5)) @ keys.transpose(2, 3)
        scores = scores if bias is None else scores + bias
        return scores.softmax(dim=-1) @ values


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
