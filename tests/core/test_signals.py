"""SIGTERM, SIGUSR1 and Ctrl-C leave a checkpoint, from which the run goes on as if nothing had happened."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
from contextlib import nullcontext

import pytest
import torch
import yaml
from scripts import load

from lebench_sb.core import signals
from lebench_sb.training import brain as brains
from lebench_sb.training.checkpoints import SafeCheckpointer

RECIPE = "recipes/pretraining/wav2vec2"


@pytest.fixture(scope="module")
def recipe(root):
    """main(argv) of pre-training"""
    return load(root / RECIPE / "train.py").main


@pytest.fixture(scope="module")
def words(root, tiny_pretraining):
    """A run of 6 updates of two micro-batches each, validation after 3, no checkpoint but there"""
    short = {"number_of_updates": 6, "valid_every_updates": 3, "checkpoint_every_updates": 0}
    kept = [word for word in tiny_pretraining if word.split("=")[0].removeprefix("--") not in short]
    return [str(root / RECIPE / "hparams/mini.yaml"), *kept, *(f"--{k}={v}" for k, v in short.items())]


def run(recipe, words, folder):
    recipe([*words, "--output_folder", str(folder), "--noprogressbar"])


def lines(folder):
    """steps.jsonl without what depends on the clock"""
    found = map(json.loads, (folder / "steps.jsonl").read_text(encoding="utf-8").splitlines())
    return [{k: v for k, v in line.items() if k not in ("audio_per_s", "waiting_share")} for line in found]


@pytest.fixture(scope="module")
def whole(recipe, words, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    run(recipe, words, folder)
    return lines(folder)


def test_workers_outlast_a_signal_in_training_alone():
    """What ends a job sends SIGTERM to all its processes"""
    for training, ends in ((True, False), (False, True)):
        with signals.noted() if training else nullcontext():
            loader = torch.utils.data.DataLoader(
                range(8), num_workers=1, worker_init_fn=signals.shield, prefetch_factor=1
            )
            batches = iter(loader)
            assert next(batches) == 0
            worker = multiprocessing.active_children()[0]
            for number in (signal.SIGINT, signal.SIGUSR1, signal.SIGTERM):
                os.kill(worker.pid, number)
            worker.join(10 if ends else 0.5)
            assert (worker.exitcode == 0) == ends
            if not ends:
                assert [int(value) for value in batches] == list(range(1, 8))
        worker.terminate()
        worker.join(5)
        assert worker.exitcode is not None


def send_at(monkeypatch, name, call, numbers):
    """Sends signals to this process, and its workers, at the `call`-th call of a method of SSLBrain"""
    real, calls = getattr(brains.SSLBrain, name), []

    def sending(*arguments, **options):
        calls.append(name)
        for number in numbers if len(calls) == call else ():
            os.kill(os.getpid(), number)
        return real(*arguments, **options)

    monkeypatch.setattr(brains.SSLBrain, name, sending)


@pytest.mark.parametrize(
    "name, call, numbers, update",
    [
        ("fit_batch", 3, [signal.SIGUSR1], 2),  # the first micro-batch of an update
        ("run_stage", 1, [signal.SIGTERM], 3),  # in a validation
        pytest.param("log_epoch", 1, [signal.SIGTERM], 3, marks=pytest.mark.slow),  # after one
        pytest.param("fit_batch", 6, [signal.SIGUSR1], 3, marks=pytest.mark.slow),  # the last of an epoch
        pytest.param("fit_batch", 4, [signal.SIGTERM, signal.SIGTERM], 2, marks=pytest.mark.slow),
    ],
)
def test_a_signal_leaves_a_checkpoint_and_the_code_to_try_again(
    recipe, words, whole, tmp_path, monkeypatch, name, call, numbers, update
):
    with monkeypatch.context() as patched:
        send_at(patched, name, call, numbers)
        with pytest.raises(SystemExit) as ended:
            run(recipe, words, tmp_path)
    assert ended.value.code == signals.TRY_AGAIN == 75
    newest = SafeCheckpointer(tmp_path / "save").find_checkpoint()
    assert yaml.safe_load((newest.path / "brain.ckpt").read_text())["optimizer_step"] == update
    assert len([line for line in lines(tmp_path) if line["stage"] == "train"]) == update
    run(recipe, words, tmp_path)
    assert lines(tmp_path) == whole


def test_ctrl_c_leaves_a_checkpoint(recipe, words, tmp_path, monkeypatch, capfd):
    send_at(monkeypatch, "fit_batch", 2, [signal.SIGINT])
    with pytest.raises(KeyboardInterrupt):
        run(recipe, words, tmp_path)
    assert SafeCheckpointer(tmp_path / "save").find_checkpoint() is not None
    assert "SIGINT: stopping after this update; Ctrl-C again stops at once" in capfd.readouterr().err


def test_a_second_ctrl_c_stops_at_once(recipe, words, tmp_path, monkeypatch):
    send_at(monkeypatch, "fit_batch", 2, [signal.SIGINT, signal.SIGINT])
    with pytest.raises(KeyboardInterrupt):
        run(recipe, words, tmp_path)
    assert SafeCheckpointer(tmp_path / "save").find_checkpoint() is None


def test_handlers_are_as_before_after_training():
    before = signal.getsignal(signal.SIGTERM)
    with signals.noted() as stop:
        assert signal.getsignal(signal.SIGTERM) is stop
    assert signal.getsignal(signal.SIGTERM) == before


def test_outside_training_a_signal_ends_the_process_at_once():
    code = "import os, signal; from lebench_sb.core.command_line import launch;"
    code += "launch(lambda argv: (os.kill(os.getpid(), signal.SIGUSR1), print('went on')))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (75, ""), done.stderr
