"""`attend` equals torch's own attention, with dropout its definition, and transformers models use it unless
there is padding to mask"""

import pytest
import torch
from torch.nn import functional as F

from lebench_sb.encoders import attention
from lebench_sb.encoders.encoder import load_encoder


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
    attention.attend(*qkv(5, attention.LONGEST + 1, torch.bfloat16))
    assert len(fused) == 2


def drop_and_attend(queries, keys, values, dropout, scale):
    """What attention with dropout is: all weights at once, with the masks that `attend` draws next"""
    state = torch.get_rng_state()
    weights = (scale * queries @ keys.transpose(2, 3)).softmax(dim=-1)
    masks = torch.full_like(weights, torch.nan)
    for part in attention.groups_of_heads(queries, keys):
        masks[part] = attention.kept(weights[part], dropout)
    torch.set_rng_state(state)
    return (weights * masks / (1 - dropout)) @ values


@pytest.mark.parametrize("together", [1, 100, 2**20])
@pytest.mark.parametrize("queries, keys", [(7, 7), (3, 40), (1, 1), (0, 5)])
@pytest.mark.parametrize(
    "dtype, tolerance", [(torch.float64, 1e-9), (torch.float32, 1e-5), (torch.bfloat16, 0.1)]
)
def test_dropout_and_its_gradients(dtype, tolerance, queries, keys, together, monkeypatch):
    monkeypatch.setattr(attention, "TOGETHER", together)
    ours = qkv(queries, keys, dtype)
    reference = [x.detach().double().requires_grad_() for x in ours]
    direction = torch.randn(2, 3, queries, 16, dtype=torch.float64)
    expected = drop_and_attend(*reference, 0.25, 0.3)
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        found = attention.attend(*ours, dropout=0.25, scale=0.3)
    assert found.dtype == dtype
    torch.testing.assert_close(found.double(), expected, rtol=tolerance, atol=tolerance)
    torch.rand(3)  # the backward pass draws the same mask again, whatever was drawn since
    found.backward(direction.to(dtype))
    expected.backward(direction)
    for one, other in zip(ours, reference, strict=True):
        torch.testing.assert_close(one.grad.double(), other.grad, rtol=2 * tolerance, atol=2 * tolerance)


@pytest.mark.parametrize("dropout", [0.1, 0.5, 0.999, 2**-16])
def test_as_many_weights_are_dropped_as_asked_for(dropout):
    torch.manual_seed(0)
    weights = torch.empty(4, 1000, 1001)
    dropped = int((attention.kept(weights, dropout) == 0).sum())
    expected = dropout * weights.numel()
    assert abs(dropped - expected) < 4 * expected**0.5


@pytest.mark.parametrize("dropout", [1e-9, 0.5, 1 - 1e-9, 1.0])
def test_any_dropout_is_finite_and_reaches_every_input(dropout):
    inputs = qkv(7, 9, torch.float32)
    attended = attention.attend(*inputs, dropout=dropout)
    attended.sum().backward()
    assert attended.isfinite().all() and all(x.grad.isfinite().all() for x in inputs)
    if dropout < 1e-6:
        torch.testing.assert_close(attended, F.scaled_dot_product_attention(*inputs))
    if dropout == 1.0:
        assert (attended == 0).all()


def test_the_mean_over_draws_is_attention_without_dropout():
    torch.manual_seed(0)
    inputs = [x.detach().double() for x in qkv(5, 8, torch.float32)]
    draws = torch.stack([attention.attend(*inputs, dropout=0.3) for _ in range(4000)])
    error = (draws.mean(dim=0) - F.scaled_dot_product_attention(*inputs)).abs()
    assert (error < 5 * draws.std(dim=0) / 4000**0.5).all()
    assert draws.std(dim=0).min() > 0


def test_no_weights_are_kept_for_the_backward_pass():
    sizes = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: sizes.append(x.numel()) or x, lambda x: x):
        attention.attend(*qkv(200, 200, torch.float32), dropout=0.1)
    assert sum(sizes) == 3 * 2 * 3 * 200 * 16


def test_transformers_use_it(checkpoints, monkeypatch):
    asked = []
    real = attention.attend
    monkeypatch.setattr(attention, "attend", lambda *a: asked.append(a) or real(*a))
    encoder = load_encoder(checkpoints("wav2vec2-layer"))
    encoder(torch.randn(1, 8000), torch.ones(1))
    assert len(asked) == encoder.num_layers
