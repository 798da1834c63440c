"""A killed run goes on as if nothing had happened."""

import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from importlib.metadata import version

import pytest
from killing import KILL
from made_once import made_once
from scripts import wait_for

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
    def train(folder):
        done = run(command(root, tiny_pretraining, folder))
        assert done.returncode == 0, done.stderr[-2000:]

    return made_once(tmp_path_factory, "uninterrupted", train)


def test_a_run_leaves_its_files(uninterrupted):
    assert [line["step"] for line in steps(uninterrupted) if line["stage"] == "train"] == list(range(1, 13))
    for name in ("hyperparams.yaml", "train.py", "env.log", "log.txt", "train_log.txt", "results.json",
                 "utterances.csv", "health.html", "health.png", "learning_curves.png", "codebook_usage.png",
                 "encoder/config.json", "pretraining/model.safetensors"):  # fmt: skip
        assert (uninterrupted / name).exists(), name
    described = (uninterrupted / "env.log").read_text(encoding="utf-8")
    assert f"interpreter: {sys.executable}\n" in described and f"\ntorch=={version('torch')}\n" in described
    assert "findfont" not in (uninterrupted / "log.txt").read_text(encoding="utf-8")  # it drew pictures


def test_the_exported_folders_load_whole(uninterrupted):
    import transformers

    for kind, name in (
        (transformers.AutoModel, "encoder"),
        (transformers.Wav2Vec2ForPreTraining, "pretraining"),
    ):
        _, report = kind.from_pretrained(uninterrupted / name, output_loading_info=True)
        assert not report["missing_keys"] and not report["unexpected_keys"]


def times():
    """A random number generator, whose seed is printed so that a failure can be repeated"""
    seed = int(os.environ.get("LEBENCH_KILL_SEED", time.time_ns() % 10**6))
    print(f"LEBENCH_KILL_SEED={seed}")
    return random.Random(seed)


def long(words):
    """A run of 60 updates, with a checkpoint after each five"""
    options = {"number_of_updates": 60, "valid_every_updates": 20, "checkpoint_every_updates": 5}
    kept = [word for word in words if word.split("=")[0].removeprefix("--") not in options]
    return kept + [f"--{key}={value}" for key, value in options.items()]


@pytest.fixture(scope="module")
def long_run(root, tiny_pretraining, tmp_path_factory):
    def train(folder):
        done = run(command(root, long(tiny_pretraining), folder))
        assert done.returncode == 0, done.stderr[-2000:]

    return steps(made_once(tmp_path_factory, "long_run", train))


def begun(argv, folder, **options):
    """Starts the recipe and waits for its first new update -> the process"""
    path = folder / "steps.jsonl"
    before = path.stat().st_mtime_ns if path.exists() else 0
    process = subprocess.Popen(
        [sys.executable, *argv], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, **options
    )
    # resuming rewrites the lines of before, and the first new one comes after that
    wait_for(lambda: path.exists() and path.stat().st_mtime_ns > before, process)
    return process


def kill(process):
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL, "it ended before it was killed"


def newest(folder):
    found = [path for path in (folder / "save").iterdir() if path.name.startswith("CKPT")]
    return max(found, key=lambda path: path.name)


def killed_at(argv, module, owner, name, number):
    """Runs the recipe in a process that kills itself at call `number` of a function"""
    code = KILL.format(module=module, owner=owner, name=name, number=number, argv=argv)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr[-2000:]


INSIDE_A_SAVE = [
    ("torch", "", "save", 2),  # between the files of a checkpoint
    ("lebench_sb.training.checkpoints", "", "describe", 2),  # all of them written, not synced
    ("os", "", "rename", 1),  # synced and described, without its name yet
]


@pytest.mark.parametrize(
    "kinds",
    [
        pytest.param([INSIDE_A_SAVE[2], "training", "truncate"], marks=pytest.mark.slow, id="three"),
        pytest.param(
            [*INSIDE_A_SAVE, "start", *["training"] * 5, "truncate"], marks=pytest.mark.full, id="ten"
        ),
    ],
)
def test_after_kills_the_losses_are_those_of_a_run_left_alone(
    root, tiny_pretraining, long_run, tmp_path, kinds
):
    chance, folder = times(), tmp_path / "run"
    argv = command(root, long(tiny_pretraining), folder)
    chance.shuffle(kinds)
    for kind in kinds:
        if isinstance(kind, tuple):
            killed_at(argv, *kind)
            continue
        if kind == "start":
            process = subprocess.Popen([sys.executable, *argv], stderr=subprocess.PIPE, text=True)
            time.sleep(chance.uniform(0, 3))
        else:
            process = begun(argv, folder)
            time.sleep(chance.uniform(0, 0.3))
        kill(process)
        if kind == "truncate" and list((folder / "save").glob("CKPT*")):
            damaged = newest(folder)
            os.truncate(damaged / "optimizer.ckpt", (damaged / "optimizer.ckpt").stat().st_size // 2)
    assert run(argv).returncode == 0
    assert steps(folder) == long_run


@pytest.mark.slow
def test_a_truncated_newest_checkpoint_is_told_and_the_one_before_is_used(
    root, tiny_pretraining, long_run, tmp_path
):
    argv = command(root, long(tiny_pretraining), tmp_path / "run")
    killed_at(argv, "lebench_sb.training.checkpoints", "", "describe", 4)  # three are there
    damaged = newest(tmp_path / "run")
    os.truncate(damaged / "model.ckpt", 1000)
    done = run(argv)
    assert done.returncode == 0
    assert f"Checkpoint passed over: {damaged}" in (tmp_path / "run/log.txt").read_text()
    assert steps(tmp_path / "run") == long_run


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 6 MB"""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", disk], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"a small tmpfs cannot be mounted here: {mounted.stderr.decode().strip()}")
    yield disk
    subprocess.run(["umount", "-l", disk], check=True)


def fill(disk):
    with pytest.raises(OSError, match="No space left"), open(disk / "other", "wb", buffering=0) as other:
        while True:
            other.write(bytes(4096))


@pytest.mark.slow
def test_a_run_killed_on_a_full_disk_goes_on_from_what_was_good(
    root, tiny_pretraining, long_run, small_disk, tmp_path
):
    argv = command(root, long(tiny_pretraining), small_disk / "run")
    process = begun(argv, small_disk / "run")
    wait_for(lambda: len(list((small_disk / "run/save").glob("CKPT*"))) == 2, process)
    fill(small_disk)
    seen = len(steps(small_disk / "run"))
    time.sleep(times().uniform(0, 1))
    if process.poll() is None:  # else three saves in a row have failed
        kill(process)
    else:
        assert "times in a row. Make room on the disk" in process.stderr.read()
    assert run(argv).returncode != 0  # it says what it needs, and harms nothing
    (small_disk / "other").unlink()
    assert run(argv).returncode == 0
    assert seen < 60 and steps(small_disk / "run") == long_run


@pytest.mark.slow
def test_a_disk_that_stays_full_ends_the_run_and_the_same_command_goes_on(
    root, tiny_pretraining, long_run, tmp_path
):
    """A limit on the size of files stands for the full disk: the optimizer's is larger, and so would be the
    memory that workers share"""
    words = ["--num_workers=0" if "num_workers" in word else word for word in long(tiny_pretraining)]
    argv = command(root, words, tmp_path / "run")
    killed_at(argv, "lebench_sb.training.checkpoints", "", "describe", 3)
    before = sorted(path.name for path in (tmp_path / "run/save").glob("CKPT*"))
    limit = (newest(tmp_path / "run") / "optimizer.ckpt").stat().st_size // 2

    def limited():
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    done = subprocess.run([sys.executable, *argv], preexec_fn=limited, capture_output=True, text=True)
    assert done.returncode == 1 and "3 times in a row. Make room on the disk" in done.stderr
    assert sorted(path.name for path in (tmp_path / "run/save").iterdir()) == before
    assert run(argv).returncode == 0
    assert steps(tmp_path / "run") == long_run
