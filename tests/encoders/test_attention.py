"""`attend` equals torch's own attention, and transformers models use it unless there is padding to mask"""

import pytest
import torch
from torch.nn import functional as F

from lebench_sb import attention
from lebench_sb.encoders import load_encoder


def qkv(queries, keys, dtype, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shapes = [(2, 3, queries, 16), (2, 3, keys, 16), (2, 3, keys, 16)]
    return [torch.randn(shape, generator=generator).to(dtype).requires_grad_() for shape in shapes]


@pytest.mark.parametrize("scale", [None, 0.1])
@pytest.mark.parametrize("queries, keys", [(7, 7), (3, 40), (1, 1), (2, attention.LONGEST + 1)])
@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-6), (torch.bfloat16, 0.05)])
def test_equals_float32_attention(dtype, tolerance, queries, keys, scale):
    ours = qkv(queries, keys, dtype)
    reference = [x.detach().float().requires_grad_() for x in ours]
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        found = attention.attend(*ours, scale=scale)
    expected = F.scaled_dot_product_attention(*reference, scale=scale)
    assert found.dtype == dtype
    torch.testing.assert_close(found.float(), expected, rtol=tolerance, atol=tolerance)
    found.float().square().sum().backward()
    expected.square().sum().backward()
    for one, other in zip(ours, reference, strict=True):
        torch.testing.assert_close(one.grad.float(), other.grad, rtol=2 * tolerance, atol=2 * tolerance)


def test_written_out_only_in_bfloat16(monkeypatch):
    fused = []
    real = F.scaled_dot_product_attention
    monkeypatch.setattr(F, "scaled_dot_product_attention", lambda *a, **k: fused.append(a) or real(*a, **k))
    attention.attend(*qkv(5, 5, torch.bfloat16))
    assert not fused
    attention.attend(*qkv(5, 5, torch.float32))
    attention.attend(*qkv(5, 5, torch.bfloat16), dropout=0.5)
    attention.attend(*qkv(5, attention.LONGEST + 1, torch.bfloat16))
    assert len(fused) == 3


def test_transformers_use_it(checkpoints, monkeypatch):
    asked = []
    real = attention.attend
    monkeypatch.setattr(attention, "attend", lambda *a: asked.append(a) or real(*a))
    encoder = load_encoder(checkpoints("wav2vec2-layer"))
    encoder(torch.randn(1, 8000), torch.ones(1))
    assert len(asked) == encoder.num_layers
