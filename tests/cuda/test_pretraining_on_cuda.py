"""The same pre-training step on a GPU: equal to the CPU's, waiting for nothing, in float32, bf16 and fp16."""

import copy
import json
from contextlib import contextmanager

import pytest
import torch
from no_waiting import watch_steps
from scripts import load
from transformers import Wav2Vec2Config, Wav2Vec2ForPreTraining

from lebench_sb.pretraining.masking import draw_masks
from lebench_sb.pretraining.model import PretrainingModel

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")

YAML = "recipes/pretraining/wav2vec2/hparams/mini.yaml"
SHAPE = dict(
    hidden_size=64, num_hidden_layers=3, num_attention_heads=4, intermediate_size=128, layerdrop=0.0,
    conv_dim=(32, 32, 32), conv_kernel=(10, 5, 3), conv_stride=(5, 8, 8), num_feat_extract_layers=3,
    num_codevectors_per_group=20, codevector_dim=32, proj_codevector_dim=16, num_conv_pos_embeddings=8,
    num_conv_pos_embedding_groups=4, hidden_dropout=0.0, attention_dropout=0.0, feat_proj_dropout=0.0,
    feat_quantizer_dropout=0.0, activation_dropout=0.0,
)  # fmt: skip
GROUP = dict(feat_extract_norm="group", do_stable_layer_norm=False, conv_bias=False)
LAYER = dict(feat_extract_norm="layer", do_stable_layer_norm=True, conv_bias=True)
LENS = {"ragged": [48000, 30000, 100, 21000], "equal": [32000, 32000]}


@pytest.fixture(autouse=True)
def whole_float32(monkeypatch):
    """No TensorFloat-32: float32 as the CPU has it"""
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", False)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


def step(model, lens, device, dtype=torch.float32):
    """-> contrastive loss per masked frame, gradient of all parameters (on the CPU)"""
    model = copy.deepcopy(model).to(device)
    torch.manual_seed(1)
    lens = torch.tensor(lens)
    wavs = 0.1 * torch.randn(len(lens), int(lens.max())) * (torch.arange(int(lens.max())) < lens[:, None])
    names = [str(k) for k in range(len(lens))]
    mask, negatives = draw_masks(model.frame_lengths(lens), names, 0, 0, 0.65, 10, 2, 20)
    noise = torch.randn(len(negatives), 2, 20)
    with torch.autocast(device, dtype, enabled=dtype != torch.float32):
        layout = model.layout(lens, mask, negatives)
        out = model(wavs.to(device), layout, 2.0, noise.to(device))
        loss = (out.contrastive / out.num_masked) + out.diversity + out.penalty
    loss.backward()
    return float(loss), torch.cat([p.grad.flatten().cpu() for p in model.parameters()])


@pytest.mark.parametrize("lens", LENS)
@pytest.mark.parametrize("norm", [GROUP, LAYER], ids=["group", "layer"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_a_step_on_the_gpu_is_that_of_the_cpu(norm, lens, dtype):
    torch.manual_seed(0)
    model = PretrainingModel(Wav2Vec2ForPreTraining(Wav2Vec2Config(**SHAPE, **norm)), 0.5).train()
    expected, gradient = step(model, LENS[lens], "cpu")
    loss, ours = step(model, LENS[lens], "cuda", dtype)
    near = 1e-4 if dtype == torch.float32 else 0.03
    assert loss == pytest.approx(expected, rel=near)
    assert torch.cosine_similarity(ours, gradient, dim=0) > (0.9999 if dtype == torch.float32 else 0.97)


def train(root, words, folder, *more):
    """Runs the recipe in this process -> lines of steps.jsonl"""
    recipe = load(root / "recipes/pretraining/wav2vec2/train.py")
    recipe.main([str(root / YAML), *words, "--output_folder", str(folder), "--noprogressbar", *more])
    return [json.loads(line) for line in (folder / "steps.jsonl").read_text().splitlines()]


@contextmanager
def errors_when_waiting():
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_run_waits_for_no_value(root, tiny_pretraining, tmp_path, monkeypatch, precision):
    words = [word for word in tiny_pretraining if "precision" not in word]
    watched = watch_steps(monkeypatch, errors_when_waiting)
    lines = train(root, words, tmp_path / "run", "--precision", precision, "--eval_precision", precision)
    updates = [line for line in lines if line["stage"] == "train"]
    assert len(watched) == 22 and [line["step"] for line in updates] == list(range(1, 13))
    assert all(0 < line["contrastive"] < 20 for line in updates)


def test_a_run_on_the_gpu_is_that_of_the_cpu(root, tiny_pretraining, tmp_path):
    """The first update: later ones drift apart with dropout's other random numbers"""
    here = train(root, tiny_pretraining, tmp_path / "cpu", "--device", "cpu")[0]
    there = train(root, tiny_pretraining, tmp_path / "cuda", "--device", "cuda:0")[0]
    for name in ("masked_share", "penalty", "temperature", "lr"):
        assert there[name] == pytest.approx(here[name], rel=1e-3), name
