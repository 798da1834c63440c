"""A killed run goes on as if nothing had happened."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from killing import KILL

from lebench_sb.checkpoints import FILES, SafeCheckpointer, fault

TRAIN = "recipes/pretraining/wav2vec2/train.py"
YAML = "recipes/pretraining/wav2vec2/hparams/mini.yaml"


def command(root, words, output):
    return [str(root / TRAIN), str(root / YAML), *words, "--output_folder", str(output), "--noprogressbar"]


def run(argv):
    return subprocess.run([sys.executable, *argv], capture_output=True, text=True)


def steps(folder):
    """Lines of steps.jsonl without what depends on the clock"""
    lines = [json.loads(line) for line in (folder / "steps.jsonl").read_text().splitlines()]
    clock = ("audio_per_s", "waiting_share")
    return [{k: v for k, v in line.items() if k not in clock} for line in lines]


@pytest.fixture(scope="module")
def uninterrupted(root, tiny_pretraining, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "run"
    done = run(command(root, tiny_pretraining, folder))
    assert done.returncode == 0, done.stderr[-2000:]
    return folder


def test_a_run_leaves_its_files(uninterrupted):
    assert [line["step"] for line in steps(uninterrupted) if line["stage"] == "train"] == list(range(1, 13))
    for name in ("hyperparams.yaml", "train.py", "env.log", "log.txt", "train_log.txt", "results.json",
                 "utterances.csv", "health.html", "health.png", "learning_curves.png", "codebook_usage.png",
                 "encoder/config.json", "pretraining/model.safetensors"):  # fmt: skip
        assert (uninterrupted / name).exists(), name


def test_the_exported_folders_load_whole(uninterrupted):
    import transformers

    for kind, name in (
        (transformers.AutoModel, "encoder"),
        (transformers.Wav2Vec2ForPreTraining, "pretraining"),
    ):
        _, report = kind.from_pretrained(uninterrupted / name, output_loading_info=True)
        assert not report["missing_keys"] and not report["unexpected_keys"]


def killed_at(argv, module, owner, name, number):
    """Runs the recipe in a process that kills itself at call `number` of a function"""
    code = KILL.format(module=module, owner=owner, name=name, number=number, argv=argv)
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == -signal.SIGKILL


@pytest.mark.slow
@pytest.mark.parametrize("number", [4, 10])
def test_sigkill_mid_epoch_then_the_same_losses(root, tiny_pretraining, uninterrupted, tmp_path, number):
    argv = command(root, tiny_pretraining, tmp_path / "run")
    killed_at(argv, "lebench_sb.brain", ".SSLBrain", "log_step", number)
    assert len(steps(tmp_path / "run")) == number - 1 < len(steps(uninterrupted))
    assert run(argv).returncode == 0
    assert steps(tmp_path / "run") == steps(uninterrupted)


@pytest.mark.slow
@pytest.mark.parametrize("number", [1, 3])
def test_sigkill_during_a_save(root, tiny_pretraining, uninterrupted, tmp_path, number):
    argv = command(root, tiny_pretraining, tmp_path / "run")
    killed_at(argv, "lebench_sb.checkpoints", "", "describe", number)
    assert list((tmp_path / "run" / "save").glob("unfinished-*"))
    assert run(argv).returncode == 0
    assert steps(tmp_path / "run") == steps(uninterrupted)


def saved(tmp_path, value):
    import torch

    module = torch.nn.Linear(2, 2)
    torch.nn.init.constant_(module.weight, value)
    checkpointer = SafeCheckpointer(tmp_path, {"module": module})
    checkpointer.save_checkpoint(meta={"loss": value})
    time.sleep(0.01)
    return checkpointer, module


@pytest.mark.parametrize("damage", ["truncate", "remove", "marker", "content"])
def test_an_invalid_newest_checkpoint_is_passed_over(tmp_path, damage, caplog):
    saved(tmp_path, 1.0)
    checkpointer, module = saved(tmp_path, 2.0)
    newest = max(checkpointer.list_checkpoints(), key=lambda c: c.meta["unixtime"]).path
    target = newest / "module.ckpt"
    if damage == "truncate":
        os.truncate(target, 10)
    elif damage == "remove":
        target.unlink()
    elif damage == "marker":
        (newest / FILES).unlink()
    else:
        data = bytearray(target.read_bytes())
        data[-1] ^= 255
        target.write_bytes(data)
        assert "another content" in fault(newest, content=True)
        with pytest.raises(OSError, match="Remove this folder"):
            checkpointer.recover_if_possible()
        return
    checkpointer.recover_if_possible()
    assert float(module.weight.detach()[0, 0]) == 1.0
    assert "passed over" in caplog.text and newest.exists()


def test_tensors_are_no_metadata(tmp_path):
    import torch

    with pytest.raises(TypeError, match="acc"):
        SafeCheckpointer(tmp_path, {}).save_checkpoint(meta={"acc": torch.tensor(1.0)})
