"""Our step equals transformers' `Wav2Vec2ForPreTraining` on a ragged batch: loss, diversity and every
gradient.

Same weights, masks, negatives and Gumbel noise, training mode, dropouts 0. A "layer" extractor is compared
with transformers' own batch. A "group" one normalises over time, and transformers takes the padding into its
statistics; we hold that a batch equals its utterances alone, so there the reference runs its extractor on
each utterance alone.

The reference's gumbel_softmax is replaced to take the noise of each frame from a table. It returns exact
one-hot values: the reference recognises a negative equal to its target by comparing floats.
"""

import copy
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from scripts import load
from torch.nn import functional as F
from transformers import Wav2Vec2Config, Wav2Vec2ForPreTraining

from lebench_sb.pretraining.masking import draw_masks
from lebench_sb.pretraining.model import PretrainingModel
from lebench_sb.training.run import has_bf16_units

SAMPLES = torch.tensor([16000, 9000, 12345, 4000])
NO_DROPOUT = dict.fromkeys(
    [
        "hidden_dropout",
        "attention_dropout",
        "activation_dropout",
        "feat_proj_dropout",
        "feat_quantizer_dropout",
        "final_dropout",
        "layerdrop",
    ],
    0.0,
)


def make_hf(norm, stable, num_codes):
    config = Wav2Vec2Config(
        hidden_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=128,
        conv_dim=(32, 24, 32, 32, 40, 32, 32),
        feat_extract_norm=norm,
        conv_bias=norm == "layer",
        do_stable_layer_norm=stable,
        num_codevectors_per_group=num_codes,
        codevector_dim=32,
        proj_codevector_dim=24,
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=4,
        **NO_DROPOUT,
    )
    return Wav2Vec2ForPreTraining(config).train()


def make_batch(model):
    """-> wavs (B, T), mask (B, F), negatives (M, N)"""
    wavs = 0.1 * torch.randn(len(SAMPLES), int(SAMPLES.max())) + 0.02
    wavs *= torch.arange(wavs.shape[1]) < SAMPLES[:, None]
    frame_lens = model.frame_lengths(SAMPLES)
    return wavs, *draw_masks(frame_lens, list("abcd"), 0, 0, 0.65, 10, 2, 100)


def extract_each_alone(extractor):
    """Makes the HF extractor treat each row of SAMPLES apart -> None"""
    together = extractor.forward

    def forward(wavs):
        frames = [together(wav[None, :n])[0].t() for wav, n in zip(wavs, SAMPLES, strict=True)]
        return torch.nn.utils.rnn.pad_sequence(frames, batch_first=True).transpose(1, 2)

    extractor.forward = forward


def reference_step(hf, wavs, mask, negatives, noise, monkeypatch, sample_lens=SAMPLES):
    """noise (B, F, G, V) -> the HF output, after its backward"""

    def gumbel_softmax(logits, tau, hard):
        soft = ((logits + noise.view_as(logits)) / tau).softmax(dim=-1)
        one_hot = F.one_hot(soft.argmax(dim=-1), soft.shape[-1]).float()
        return one_hot + (soft - soft.detach())

    monkeypatch.setattr(torch.nn.functional, "gumbel_softmax", gumbel_softmax)
    places = mask.flatten().nonzero().flatten()
    all_negatives = torch.zeros(*mask.shape, negatives.shape[1], dtype=torch.long)
    all_negatives[mask] = places[negatives]
    output = hf(
        wavs,
        attention_mask=(torch.arange(wavs.shape[1]) < sample_lens[:, None]).long(),
        mask_time_indices=mask,
        sampled_negative_indices=all_negatives,
    )
    output.loss.backward()
    return output


def gradient(model):
    return torch.cat(
        [(p.grad if p.grad is not None else torch.zeros_like(p)).flatten() for p in model.parameters()]
    )


@pytest.mark.parametrize("num_codes", [320, 20])
@pytest.mark.parametrize(
    ("norm", "stable"), [("group", False), ("layer", True), ("group", True), ("layer", False)]
)
def test_loss_diversity_and_gradients_equal_transformers(norm, stable, num_codes, monkeypatch):
    torch.manual_seed(0)
    model = PretrainingModel(make_hf(norm, stable, num_codes)).train()
    reference = copy.deepcopy(model.hf)
    wavs, mask, negatives = make_batch(model)
    noise = -torch.empty(*mask.shape, 2, num_codes).exponential_().log()

    ours = model(wavs, model.layout(SAMPLES, mask, negatives), 2.0, noise[mask])
    loss = ours.contrastive + reference.config.diversity_loss_weight * ours.diversity * ours.num_masked
    loss.backward()
    if norm == "group":
        extract_each_alone(reference.wav2vec2.feature_extractor)
    theirs = reference_step(reference, wavs, mask, negatives, noise, monkeypatch)

    assert loss.item() == pytest.approx(theirs.loss.item(), rel=1e-5)
    assert ours.contrastive.item() == pytest.approx(theirs.contrastive_loss.item(), rel=1e-5)
    assert (ours.diversity * ours.num_masked).item() == pytest.approx(theirs.diversity_loss.item(), rel=1e-5)
    expected = gradient(reference)
    assert (gradient(model.hf) - expected).norm() <= 1e-5 * expected.norm()


@pytest.mark.parametrize(("norm", "stable"), [("group", False), ("layer", True)])
def test_evaluation_equals_transformers_on_one_utterance(norm, stable):
    """Without padding both normalise over the same samples: nothing needs to be replaced in the reference"""
    torch.manual_seed(1)
    model = PretrainingModel(make_hf(norm, stable, 20)).eval()
    wav, lens = 0.1 * torch.randn(1, 16000), torch.tensor([16000])
    mask, negatives = draw_masks(model.frame_lengths(lens), ["a"], 0, 0, 0.65, 10, 2, 100)
    all_negatives = torch.zeros(*mask.shape, 100, dtype=torch.long)
    all_negatives[mask] = mask.flatten().nonzero().flatten()[negatives]
    with torch.no_grad():
        ours = model(wav, model.layout(lens, mask, negatives), 2.0)
        theirs = model.hf(wav, mask_time_indices=mask, sampled_negative_indices=all_negatives)
    assert ours.contrastive.item() == pytest.approx(theirs.contrastive_loss.item(), rel=1e-5)
    assert (ours.diversity * ours.num_masked).item() == pytest.approx(theirs.diversity_loss.item(), rel=1e-5)


BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "pretraining_step.py"
SMALLEST = "--size mini --batch 2 --seconds 1.5 --rounds 1 --threads 1".split()


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        ["--norm", "group", "--ragged"],
        pytest.param(
            ["--precision", "bf16"],
            marks=pytest.mark.skipif(not has_bf16_units(), reason="this CPU emulates bf16: eight minutes"),
        ),
    ],
)
def test_benchmark_prints_every_system_once_the_losses_agree(options):
    run = subprocess.run([sys.executable, BENCHMARK, *SMALLEST, *options], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    for name in ("ours", "transformers", "speechbrain"):
        assert re.search(rf"^{name} .*\d\.\d\d$", run.stdout, re.MULTILINE), run.stdout


def test_benchmark_fails_when_the_losses_differ(monkeypatch, capsys):
    benchmark = load(BENCHMARK)
    original = benchmark.reference_losses
    monkeypatch.setattr(
        benchmark, "reference_losses", lambda *arguments: [1.001 * loss for loss in original(*arguments)]
    )
    threads = torch.get_num_threads()
    try:
        assert benchmark.main(SMALLEST) == 1
    finally:
        torch.set_num_threads(threads)
    assert "nothing timed" in capsys.readouterr().err
