"""Checkpoints that fairseq itself wrote, where FAIRSEQ=PYTHON:SOURCE names an interpreter that imports it."""

import os
import subprocess
from pathlib import Path

import pytest
import torch
import transformers

from lebench_sb.encoders.importing.command import import_checkpoint
from lebench_sb.encoders.importing.fairseq import AVERAGES, transformers_name
from lebench_sb.pretraining.optimizer_state import read_optimizer_state


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    if "FAIRSEQ" not in os.environ:
        pytest.skip("FAIRSEQ=PYTHON:SOURCE is not set (benchmarks/fairseq_peer.py says what they are)")
    python, _, source = os.environ["FAIRSEQ"].partition(":")
    folder = tmp_path_factory.mktemp("fairseq")
    script = Path(__file__).with_name("fairseq_run.py")
    done = subprocess.run([python, str(script), source, str(folder)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return folder


@pytest.mark.parametrize("optimizer", ["flat", "each"])
@pytest.mark.parametrize("kind", ["base", "large"])
def test_frames_and_optimizer_state_are_those_of_fairseq(written, tmp_path, kind, optimizer):
    _, folder = import_checkpoint(written / f"{kind}_{optimizer}.pt", None, tmp_path / "imported")
    expected = torch.load(written / f"{kind}.pt", weights_only=True)
    model = transformers.Wav2Vec2ForPreTraining.from_pretrained(folder).eval()
    with torch.no_grad():
        frames = model.wav2vec2(expected["wavs"]).last_hidden_state
    torch.testing.assert_close(frames, expected["frames"], rtol=1e-5, atol=1e-5)
    states = read_optimizer_state(folder, model)
    for name, theirs in expected["states"].items():
        ours = states[f"model.hf.{transformers_name(name)}"]
        assert float(ours["step"]) == 3
        for moment in AVERAGES:  # fairseq's Adam begins them with the first gradient
            assert torch.equal(ours[moment], theirs.get(moment, torch.zeros(())).expand_as(ours[moment])), (
                name
            )
