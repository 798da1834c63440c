"""A killed run goes on as if nothing had happened."""

import json
import signal
import subprocess
import sys

import pytest
from killing import KILL

TRAIN = "recipes/pretraining/wav2vec2/train.py"
YAML = "recipes/pretraining/wav2vec2/hparams/mini.yaml"


def command(root, words, output):
    return [str(root / TRAIN), str(root / YAML), *words, "--output_folder", str(output), "--noprogressbar"]


def run(argv):
    return subprocess.run([sys.executable, *argv], capture_output=True, text=True)


def steps(folder):
    """Lines of steps.jsonl without what depends on the clock"""
    lines = [json.loads(line) for line in (folder / "steps.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "audio_per_s"} for line in lines]


@pytest.fixture(scope="module")
def uninterrupted(root, tiny_pretraining, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "run"
    done = run(command(root, tiny_pretraining, folder))
    assert done.returncode == 0, done.stderr[-2000:]
    return folder


def test_a_run_leaves_its_files(uninterrupted):
    assert [line["step"] for line in steps(uninterrupted) if line["stage"] == "train"] == list(range(1, 13))
    for name in ("hyperparams.yaml", "train.py", "env.log", "log.txt", "train_log.txt", "results.json",
                 "utterances.csv", "learning_curves.png", "codebook_usage.png", "encoder/config.json",
                 "pretraining/model.safetensors"):  # fmt: skip
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
