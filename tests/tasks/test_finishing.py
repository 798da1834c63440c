"""A run killed anywhere after its last checkpoint finishes with the same command, and says the same."""

import contextlib
import importlib
import json
import os
import signal
import subprocess
import sys

import pytest
from killing import KILL
from scripts import load
from tiny import SIZES, write_wav2vec2
from watched_runs import ROOT, has_data, name_of, recipes, recognise, words, write_data

# What a run does after its last checkpoint: module, owner, function and the call at which it is killed. They
# are met one after the other by the same command: a run that was killed later never trains again.
POINTS = {
    "after the last checkpoint": ("lebench_sb.training.checkpoints", ".SafeCheckpointer", "require_saved", 1),
    "inside the test": ("lebench_sb.training.processes", "", "gather", 1),
    "inside the export": ("transformers", ".PreTrainedModel", "save_pretrained", 1),
    "between utterances.csv and results.json": ("lebench_sb.evaluation.results", "", "write_atomically", 2),
    "before trivial_baseline.json": ("lebench_sb.training.run", "", "tell_trivial_baseline", 1),
    "inside the pictures": ("lebench_sb.evaluation.plots", "", "save_png", 1),
}
SOME = (
    "inside the export",
    "before trivial_baseline.json",
    "inside the pictures",
)  # that not every recipe has
ALWAYS = set(POINTS) - set(SOME)
PRETRAINING = ROOT / "recipes" / "pretraining"
MINI, DISTILLATION = (PRETRAINING / kind / "hparams" / "mini.yaml" for kind in ("wav2vec2", "distillation"))
RECIPES = [path for path in recipes() if has_data(path)]
KILLED = [MINI, next(path for path in RECIPES if path.parts[-4] == "AER" and path.stem == "mean_pool")]


# what other tests leave out to be quick
MORE = {
    ("AST", "mTEDx", "end_to_end"): {"--average_checkpoints": "2"},
    ("ASR", "CommonVoice", "ctc"): {"--lm": "train", "--lm_order": "2", "--lm_weights": "[0.5]",
                                    "--lm_word_bonuses": "[0.0]", "--lm_beam": "4"},
}  # fmt: skip


class Killed(BaseException):
    """In place of a signal, which would end the tests, too"""


@pytest.fixture(scope="module")
def words_of(corpus, tiny_pretraining, tmp_path_factory):
    """words_of(YAML, run folder) -> the words of a small run of its recipe"""
    folder = tmp_path_factory.mktemp("labelled")
    encoder = write_wav2vec2(tmp_path_factory.mktemp("encoder"), initializer_range=0.25)
    write_data(corpus, folder)
    common = [word for word in tiny_pretraining if not word.startswith(("--num_workers", "--valid_every"))]
    common += ["--num_workers=0", "--valid_every_updates=4", "--noprogressbar"]
    of_models = ("--config", "--targets", "--log_mel", "--feature_grad", "--mask")

    def made(path, output):
        if path == MINI:
            return [str(path), *common, "--output_folder", str(output)]
        if path == DISTILLATION:
            kept = [word for word in common if not word.startswith(of_models)]
            own = ["--teacher", str(encoder), "--teacher_layers=[1, 2]", "--init_layers=[0]"]
            return [str(path), *kept, *own, f"--config={student()}", "--output_folder", str(output)]
        mode = "frozen" if path.stem in ("cascade", "crdnn_filterbank") else "end-to-end"
        if path.stem == "cascade" and not (folder / "asr").exists():
            recognise(path, folder, encoder)
        argv = words(path, mode, folder, encoder, output)
        for option, value in MORE.get((*path.parts[-4:-2], path.stem), {}).items():
            place = argv.index(option) if option in argv else len(argv)
            argv[place : place + 2] = [option, value]
        return argv

    return made


def student():
    """The config of a student of one layer, of the teacher's sizes"""
    sizes = {**SIZES, "num_hidden_layers": 1, "conv_kernel": [10, 3, 3, 3, 3, 2, 2], "conv_bias": False,
             "conv_stride": [5, 2, 2, 2, 2, 2, 2], "do_stable_layer_norm": False}  # fmt: skip
    plain = {name: list(value) if isinstance(value, tuple) else value for name, value in sizes.items()}
    return "{" + ", ".join(f"{name}: {value}" for name, value in plain.items()) + "}"


@contextlib.contextmanager
def quick():
    """Without what takes its time and is tested elsewhere"""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        yield patch


def run_here(argv, point=None):
    """Runs a recipe in this process, up to a point -> whether it got there"""
    script = os.path.join(os.path.dirname(os.path.dirname(argv[0])), "train.py")
    with quick() as patch:
        patch.setattr(sys, "argv", [script, *argv])
        if point:
            kill_at(patch, *point)
        try:
            load(ROOT / script).main(argv)
        except Killed:
            return True
    return False


def kill_at(patch, module, owner, name, number):
    holder = importlib.import_module(module)
    for part in filter(None, owner.split(".")):
        holder = getattr(holder, part)
    real, calls = getattr(holder, name), []

    def killed(*arguments, **options):
        calls.append(name)
        if len(calls) == number:
            raise Killed
        return real(*arguments, **options)

    patch.setattr(holder, name, killed)


def run_apart(argv, point):
    """The same in a process that is killed -> whether it was"""
    script = os.path.join(os.path.dirname(os.path.dirname(argv[0])), "train.py")
    module, owner, name, number = point
    code = KILL.format(module=module, owner=owner, name=name, number=number, argv=[script, *argv])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode in (0, -signal.SIGKILL), done.stderr[-3000:]
    return done.returncode != 0


def result(folder):
    """What a run says, but for its time and energy"""
    record = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    left = {key: value for key, value in record.items() if key not in ("time", "energy")}
    baseline = folder / "trivial_baseline.json"
    return left, (folder / "utterances.csv").read_bytes(), baseline.read_bytes() if baseline.exists() else b""


def files(folder):
    """Names of the files in a run's folder, but for those of checkpoints"""
    found = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    return {name for name in found if "/CKPT" not in name}


def finishes(path, argv, folder, killed):
    """Runs a recipe whole and killed at all points; killed(argv, point) -> whether it was"""
    whole = folder.with_name("whole")
    assert not run_here(argv)
    folder.rename(whole)
    met = [name for name, point in POINTS.items() if killed(argv, point)]
    assert ALWAYS <= set(met), f"never killed {ALWAYS - set(met)}"
    assert not run_here(argv)
    assert result(folder) == result(whole)
    assert files(folder) == files(whole)
    return met


@pytest.mark.slow
@pytest.mark.parametrize("path", KILLED, ids=name_of)
def test_a_run_killed_after_its_last_checkpoint_finishes(path, words_of, tmp_path):
    met = finishes(path, words_of(path, tmp_path / "run"), tmp_path / "run", run_apart)
    assert "inside the export" in met and "inside the pictures" in met


@pytest.mark.full
@pytest.mark.parametrize("path", [MINI, DISTILLATION, *RECIPES], ids=name_of)
def test_every_recipe_finishes_and_may_be_repeated(path, words_of, tmp_path):
    folder = tmp_path / "run"
    argv = words_of(path, folder)
    finishes(path, argv, folder, run_here)
    once = json.loads((folder / "results.json").read_text())["time"]
    for more in ([], ["--test_only"]):
        assert not run_here([*argv, *more])
        assert result(folder)[1:] == result(folder.with_name("whole"))[1:]
        assert json.loads((folder / "results.json").read_text())["time"] == once
