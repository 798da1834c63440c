"""The position embedding by Fourier transform equals the convolution, for any lengths, taps and groups"""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import Wav2Vec2Config
from transformers.models.wav2vec2.modeling_wav2vec2 import Wav2Vec2PositionalConvEmbedding

from lebench_sb.pretraining.kernels import positions as module
from lebench_sb.pretraining.kernels.positions import ConvolutionByFFT, positions


@settings(max_examples=60, deadline=None)
@given(
    frames=st.integers(1, 80),
    taps=st.integers(1, 20),
    groups=st.integers(1, 4),
    channels=st.integers(1, 5),
    seed=st.integers(0, 99),
)
def test_the_transform_equals_the_convolution(frames, taps, groups, channels, seed):
    generator = torch.Generator().manual_seed(seed)
    width = groups * channels
    shapes = [(frames, width), (width, channels, taps), (frames, width)]
    x, weight, direction = (torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes)
    x.requires_grad_()
    weight.requires_grad_()
    ours = ConvolutionByFFT.apply(x, weight, groups)
    theirs = torch.conv1d(x.t()[None], weight, None, 1, taps // 2, 1, groups)[0, :, :frames].t()
    torch.testing.assert_close(ours, theirs)
    gradients = torch.autograd.grad(ours, (x, weight), direction)
    for one, other in zip(gradients, torch.autograd.grad(theirs, (x, weight), direction), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.skipif(not torch.backends.mkl.is_available(), reason="PyTorch without MKL: convolution is used")
@pytest.mark.parametrize("taps", [128, 5])
def test_each_utterance_has_the_positions_that_transformers_gives_it_alone(taps, monkeypatch):
    torch.manual_seed(0)
    shape = dict(hidden_size=32, num_conv_pos_embeddings=taps, num_conv_pos_embedding_groups=4)
    embed, lens = Wav2Vec2PositionalConvEmbedding(Wav2Vec2Config(**shape)), [300, 1, 64, 129]
    hidden = torch.randn(sum(lens), 32, requires_grad=True)
    used = []
    real = ConvolutionByFFT.apply
    monkeypatch.setattr(module.ConvolutionByFFT, "apply", lambda *a: used.append(a) or real(*a))
    ours = positions(embed, hidden, lens)
    theirs = torch.cat([embed(part[None])[0] for part in hidden.split(lens)])
    assert len(used) == 1
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    variables, direction = [hidden, *embed.parameters()], torch.randn_like(ours)
    gradients = torch.autograd.grad(ours, variables, direction)
    for one, other in zip(gradients, torch.autograd.grad(theirs, variables, direction), strict=True):
        assert (one - other).norm() <= 1e-5 * other.norm() + 1e-6
