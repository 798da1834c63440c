"""A GPU never waits for the processor: nothing in a training step reads a tensor's value."""

import pytest
import torch
from no_waiting import Waited, no_reading, watch_steps
from scripts import load

from lebench_sb.pretraining import losses

YAML = "recipes/pretraining/wav2vec2/hparams/mini.yaml"


def train(root, words, folder):
    """Runs the recipe in this process"""
    recipe = load(root / "recipes/pretraining/wav2vec2/train.py")
    recipe.main([str(root / YAML), *words, "--output_folder", str(folder), "--noprogressbar"])


@pytest.fixture
def words(tiny_pretraining):
    return [word for word in tiny_pretraining if "num_workers" not in word] + ["--num_workers=0"]


def test_a_training_step_reads_no_value(root, words, tmp_path, monkeypatch):
    watched = watch_steps(monkeypatch, lambda: no_reading(monkeypatch))
    train(root, words, tmp_path / "run")
    assert len(watched) == 22  # eleven updates of two micro-batches


def test_a_step_that_reads_one_is_seen(root, words, tmp_path, monkeypatch):
    counts = losses.code_counts
    watch_steps(monkeypatch, lambda: no_reading(monkeypatch))
    monkeypatch.setattr(losses, "code_counts", lambda *a: counts(*a) if counts(*a).sum().item() else None)
    with pytest.raises(Waited, match="item"):
        train(root, words, tmp_path / "run")


def test_readers_raise_inside_only(monkeypatch):
    with no_reading(monkeypatch), pytest.raises(Waited, match="__bool__"):
        bool(torch.ones(()))
    assert torch.ones(()).item() == 1
