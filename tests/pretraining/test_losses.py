"""Losses against references written the long way: every vector materialised, one-hot products, plain
loops."""

import math

import pytest
import torch
from torch.nn import functional as F

from lebench_sb.pretraining import losses

M, G, V, D, N = 24, 2, 5, 6, 15
COUNTS = [10, 0, 14]


def draw(seed=0):
    """-> contexts (M, D), codes (M, G), targets (M, D) that are a function of the codes, negatives (M, N)"""
    generator = torch.Generator().manual_seed(seed)
    contexts = torch.randn(M, D, generator=generator, requires_grad=True)
    codes = torch.randint(V, (M, G), generator=generator)
    table = torch.randn(V**G, D, generator=generator, requires_grad=True)
    targets = table[codes[:, 0] * V + codes[:, 1]]
    first = torch.tensor([0] * 10 + [10] * 14)
    size = torch.tensor([10] * 10 + [14] * 14)
    offsets = (torch.rand(M, N, generator=generator) * (size[:, None] - 1)).long() + 1
    own = torch.arange(M) - first
    return contexts, codes, targets, first[:, None] + (own[:, None] + offsets) % size[:, None], table


def reference_logits(contexts, targets, negatives, temperature):
    """The definition, frame by frame, equality by comparing vectors (fairseq, transformers)"""
    rows = []
    for context, target, negative in zip(contexts, targets, targets[negatives], strict=True):
        logits = F.cosine_similarity(context, torch.cat([target[None], negative])) / temperature
        same = (negative == target).all(dim=-1)
        rows.append(torch.cat([logits[:1], logits[1:].masked_fill(same, -math.inf)]))
    return torch.stack(rows)


def test_contrastive_loss_and_gradients_equal_the_definition():
    contexts, codes, targets, negatives, table = draw()
    logits = losses.contrastive_logits(contexts, targets, codes, negatives, COUNTS, 0.1)
    expected = reference_logits(contexts, targets, negatives, 0.1)
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5)
    assert logits.isinf().any() and not logits[:, 0].isinf().any()
    expected_loss = F.cross_entropy(expected, torch.zeros(M, dtype=torch.long), reduction="sum")
    loss = losses.contrastive_loss(logits).sum()
    torch.testing.assert_close(loss, expected_loss)
    gradients = torch.autograd.grad(loss, [contexts, table], retain_graph=True)
    for ours, reference in zip(gradients, torch.autograd.grad(expected_loss, [contexts, table]), strict=True):
        torch.testing.assert_close(ours, reference, rtol=1e-4, atol=1e-5)


def test_distractors_equal_to_the_target_do_not_count():
    contexts, codes, targets, negatives, _ = draw()
    codes, targets = torch.zeros_like(codes), targets[:1].expand(M, D)
    logits = losses.contrastive_logits(contexts, targets, codes, negatives, COUNTS, 0.1)
    assert losses.contrastive_loss(logits).sum().item() == pytest.approx(0, abs=1e-5)
    assert losses.is_correct(logits).all()


def test_correct_are_targets_above_all_distractors():
    logits = torch.tensor([[3.0, 2.0, 1.0], [1.0, 2.0, 0.0], [1.0, 1.0, 0.0], [0.0, -math.inf, -1.0]])
    assert losses.is_correct(logits).tolist() == [True, False, False, True]


def test_code_choice_and_its_gradients_equal_hard_gumbel_softmax():
    torch.manual_seed(0)
    logits = torch.randn(M, G, V, requires_grad=True)
    codebook = torch.randn(G, V, D // G, requires_grad=True)
    noise, weight = losses.gumbel_noise(logits), torch.randn(M, D)
    vectors, codes = losses.choose_codes(logits, codebook, 0.7, noise)

    soft = ((logits + noise) / 0.7).softmax(dim=-1)
    hard = F.one_hot(soft.argmax(dim=-1), V).float()
    straight_through = hard - soft.detach() + soft
    expected = torch.einsum("mgv,gvd->mgd", straight_through, codebook).flatten(1)

    assert (codes == soft.argmax(dim=-1)).all()
    torch.testing.assert_close(vectors, expected)
    gradients = torch.autograd.grad((vectors * weight).sum(), [logits, codebook])
    for ours, reference in zip(
        gradients, torch.autograd.grad((expected * weight).sum(), [logits, codebook]), strict=True
    ):
        torch.testing.assert_close(ours, reference, rtol=1e-5, atol=1e-6)
    # equal codes give bit-equal vectors: negatives are told from targets by their codes
    assert (vectors.detach() == losses.look_up(codebook, codes).flatten(1)).all()


def test_gumbel_noise_has_the_moments_of_the_gumbel_distribution():
    torch.manual_seed(0)
    noise = losses.gumbel_noise(torch.empty(200_000))
    assert noise.mean().item() == pytest.approx(0.5772, abs=0.01)
    assert noise.var().item() == pytest.approx(math.pi**2 / 6, abs=0.03)


def test_diversity_between_one_code_and_all():
    uniform = torch.full((G, V), 1 / V)
    one = F.one_hot(torch.zeros(G, dtype=torch.long), V).float()
    assert losses.diversity_loss(uniform).item() == pytest.approx(0, abs=1e-6)
    assert losses.diversity_loss(one).item() == pytest.approx((G * V - G) / (G * V))
    assert losses.perplexity(uniform).tolist() == pytest.approx([V, V])


def test_code_counts_count_each_group_apart():
    codes = torch.tensor([[0, 4], [0, 1], [2, 1]])
    assert losses.code_counts(codes, V).tolist() == [[2, 0, 1, 0, 0], [0, 2, 0, 0, 1]]
