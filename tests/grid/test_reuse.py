"""A finished cell is reused while YAML, overrides, data, code and encoder are unchanged; kills lose
nothing."""

import ast
import gc
import json
import os
import random
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
from toy_recipe import lebench, make_toy, runs

from lebench_sb.grid.command import only_one
from lebench_sb.grid.schedule import Slots, run_plan
from lebench_sb.training.fingerprint import (
    PACKAGE,
    forget,
    listing,
    module_files,
    names_imported,
    reached,
)

ONE = dict(encoders={"ours": "encoder"}, modes=["frozen"], seeds=[1])
PLACE = "grid/TOY/ours/frozen"


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


CHANGES = {
    "YAML": lambda f: edit(f / "recipes/TOY/Corpus/hparams/toy.yaml", "depth: 1", "depth: 2"),
    "code": lambda f: edit(f / "recipes/TOY/Corpus/train.py", "a line of", "one line of"),
    "data": lambda f: (f / "data" / "more.tsv").write_text("c\n"),
    "encoder": lambda f: (f / "encoder" / "model.safetensors").write_text("retrained"),
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_changed_part_starts_a_new_run_and_keeps_the_old(toy, capsys, what):
    toy.run(**ONE)
    assert toy.run(**ONE) == 0 and len(runs(toy.folder)) == 1
    CHANGES[what](toy.folder)
    assert toy.run(**ONE) == 0 and len(runs(toy.folder)) == 2
    assert f"changed: {what}; the earlier run is now {PLACE}/seed1.old1" in capsys.readouterr().out
    for name in ("seed1", "seed1.old1"):
        assert (toy.folder / PLACE / name / "results.json").exists()
    assert toy.run(**ONE) == 0 and len(runs(toy.folder)) == 2
    assert toy.table().count("| ours ") == 1


def test_changed_overrides_are_named_as_the_command(toy, capsys):
    toy.run(**ONE)
    toy.run(**ONE, overrides={"head_lr": 0.004})
    assert "changed: command; the earlier run" in capsys.readouterr().out and len(runs(toy.folder)) == 2


def test_the_same_content_written_again_is_no_change(toy):
    toy.run(**ONE)
    for name in ("recipes/TOY/Corpus/train.py", "recipes/TOY/Corpus/hparams/toy.yaml", "encoder/config.json"):
        path = toy.folder / name
        text = path.read_text()
        path.unlink()
        path.write_text(text)
    toy.run(**ONE)
    assert len(runs(toy.folder)) == 1


def test_only_the_cells_of_what_changed_run_again(toy):
    encoders = {
        "filterbank": "mel_filterbank",
        "ours": "encoder",
        "other": "other",
        "random": "random:encoder",
    }
    changes = dict(encoders=encoders, modes=["frozen"], seeds=[1])
    toy.run(**changes)
    (toy.folder / "encoder" / "model.safetensors").write_text("retrained")
    toy.run(**changes)  # random weights are decided by the config, which is the same
    assert runs(toy.folder)[4:] == [f"{PLACE}/seed1"]
    (toy.folder / "encoder" / "config.json").write_text('{"hidden_size": 7}')
    toy.run(**changes)
    assert sorted(runs(toy.folder)[5:]) == [f"{PLACE}/seed1", "grid/TOY/random/frozen/seed1"]


def test_a_results_json_of_unknown_origin_is_not_taken_for_finished(toy):
    toy.run(**ONE)
    (toy.folder / PLACE / "seed1" / "inputs.json").unlink()
    toy.run(**ONE)
    assert len(runs(toy.folder)) == 2 and (toy.folder / PLACE / "seed1.old1/results.json").exists()
    (toy.folder / PLACE / "seed1" / "inputs.json").write_text('{"cut sho')
    toy.run(**ONE)
    assert len(runs(toy.folder)) == 3


def test_code_is_what_the_recipe_reaches():
    recipe = Path(__file__).parents[2] / "recipes/ASR/CommonVoice/train.py"
    found = {str(p.relative_to(PACKAGE)) for p in reached([recipe], []) if p.is_relative_to(PACKAGE)}
    assert {
        "tasks/asr.py",
        "training/brain.py",
        "evaluation/results.py",
        "evaluation/metrics/bootstrap.py",
        "evaluation/__init__.py",
    } <= found
    assert not found & {"cli.py", "grid/demo.py", "pretraining/brain.py", "corpora/mls.py", "grid/plan.py"}
    named = {str(p.relative_to(PACKAGE)) for p in reached([], ["lebench_sb.corpora.mls.prepare_mls"])}
    assert {"corpora/mls.py", "manifests/utterance.py"} <= named
    assert module_files("lebench_sb.evaluation.metrics") == [
        PACKAGE / "__init__.py",
        PACKAGE / "evaluation" / "__init__.py",
        PACKAGE / "evaluation" / "metrics" / "__init__.py",
    ]


def test_runs_side_by_side_read_the_code_at_once():
    """Python 3.11 raises a SystemError where a thread parses while another one's parse collects garbage; some
    of these threads parse as another library would"""
    path = PACKAGE / "encoders" / "encoder.py"

    def give_way(phase, info):
        time.sleep(0.0001)

    gc.callbacks.append(give_way)
    try:
        with ThreadPoolExecutor(8) as pool:
            for _ in range(8):
                pool.submit(ast.parse, path.read_text())  # whether these fail is Python's affair
            found = list(pool.map(lambda _: tuple(names_imported.__wrapped__(path, 0, 0)), range(64)))
    finally:
        gc.callbacks.remove(give_way)
    assert len(set(found)) == 1


def test_every_module_that_a_run_imports_is_in_its_code():
    """Python's own list of what importing a recipe loads."""
    recipe = Path(__file__).parents[2] / "recipes/ASR/CommonVoice/train.py"
    code = (
        f"import sys, runpy; runpy.run_path({str(recipe)!r}, run_name='x');"
        "print([m.__file__ for n, m in sys.modules.items() if n.split('.')[0] == 'lebench_sb'])"
    )
    done = subprocess.run(lebench()[:1] + ["-c", code], capture_output=True, text=True, check=True)
    loaded = set(map(Path, eval(done.stdout)))
    assert len(loaded) > 10 and loaded <= set(reached([recipe], []))


def test_relative_and_local_imports_are_followed(tmp_path, monkeypatch):
    package = tmp_path / "lebench_sb"
    (package / "part").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "part" / "__init__.py").write_text("from .one import x")
    (package / "part" / "one.py").write_text("def f():\n    from .. import two")
    (package / "two.py").write_text("import os, numpy.random")
    (tmp_path / "train.py").write_text("from lebench_sb import part")
    monkeypatch.setattr("lebench_sb.training.fingerprint.PACKAGE", package)
    names = {str(path.relative_to(tmp_path)) for path in reached([tmp_path / "train.py"], [])}
    assert names == {
        "train.py",
        *(f"lebench_sb/{n}.py" for n in ("__init__", "part/__init__", "part/one", "two")),
    }


def test_a_listing_sees_sizes_times_names_and_links(tmp_path):
    data, elsewhere = tmp_path / "data", tmp_path / "elsewhere"
    data.mkdir(), elsewhere.mkdir()
    (data / "a.wav").write_bytes(b"1234")
    (elsewhere / "b.wav").write_bytes(b"1")
    (data / "link").symlink_to(elsewhere)
    (data / "loop").symlink_to(data)
    seen = []

    def look(skip=()):
        forget()
        seen.append(listing(data, skip))
        return seen[-1]

    first = look()
    assert look() == first
    (data / ".cache").mkdir()
    (data / ".cache" / "x").write_text("hidden")
    (data / "results").mkdir()
    assert look([data / "results"]) == first
    (data / "results" / "r").write_text("")
    assert look([data / "results"]) == first != look()
    os.utime(data / "a.wav", ns=(1, 1))
    assert look([data / "results"]) != first
    (elsewhere / "b.wav").write_bytes(b"12")
    (data / "dangling.wav").symlink_to("nowhere")
    look([data / "results"])
    (elsewhere / "b.wav").rename(elsewhere / "c.wav")
    look([data / "results"])
    assert len(set(seen)) == 5


def test_manifests_on_the_command_line_are_the_data(toy):
    """With data_folder "." the grid's own results lie below the data folder."""
    (toy.folder / "m.csv").write_text("ID,wav\n1,$data_root/data/train.tsv\n")
    own = dict(data_folder=".", overrides={"train_csv": "m.csv", "valid_csv": "[m.csv, m.csv]"})
    toy.run(**ONE, **own)
    (toy.folder / "unrelated.wav").write_text("x")
    toy.run(**ONE, **own)
    assert len(runs(toy.folder)) == 1
    (toy.folder / "data" / "train.tsv").write_text("another length")
    toy.run(**ONE, **own)
    assert len(runs(toy.folder)) == 2
    (toy.folder / "m.csv").write_text("ID,wav\n2,$data_root/data/train.tsv\n")
    toy.run(**ONE, **own)
    assert len(runs(toy.folder)) == 3


def test_a_missing_manifest_is_a_failed_cell_not_a_crash(toy, capsys):
    assert toy.run(**ONE, overrides={"train_csv": "gone.csv"}) == 1
    assert "FAILED TOY/ours/frozen/seed1" in (said := capsys.readouterr().out) and "gone.csv" in said


KILLED = dict(
    encoders={"ours": "encoder", "made": {"recipe": "recipes/PRE/toy"}}, modes=["frozen", "end to end"],
    seeds=[1, 2, 3], tasks={"TOY": {"recipe": "recipes/TOY/Corpus", "overrides": {"seconds": 0.7}}},
    grid={"head_lr": [0.003, 0.01]},
)  # fmt: skip


def prepare_kill(toy):
    path = toy.write(**KILLED)
    edit(toy.folder / "recipes/PRE/toy/train.py", 'if options["freeze"] == "False" or', "if True or")
    return path


def alive(folder):
    """Processes whose working folder is `folder`"""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            if (place / "cwd").readlink() == folder and "Z" not in (place / "stat").read_text().split()[2]:
                found.append(int(place.name))
        except OSError:
            continue
    return [pid for pid in found if pid != os.getpid()]


@pytest.mark.slow
@pytest.mark.parametrize("whole_group", [True, False], ids=["group", "runner alone"])
def test_sigkill_at_random_then_again(toy, tmp_path_factory, whole_group, monkeypatch):
    prepare_kill(toy)
    rng, finished = random.Random(time.time_ns() if whole_group else 1), set()
    for number in range(4):
        count = len(runs(toy.folder))
        process = subprocess.Popen(lebench("benchmark", "grid.yaml"), cwd=toy.folder, start_new_session=True,
                                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
        while len(runs(toy.folder)) == count and process.poll() is None:
            time.sleep(0.05)
        time.sleep(wait := rng.uniform(0, 2.5))
        (os.killpg if whole_group else os.kill)(process.pid, signal.SIGKILL)
        process.wait()
        time.sleep(0.5)
        if not whole_group:
            assert alive(toy.folder) == []  # no run goes on without its grid
        again = set(runs(toy.folder)[count:]) & finished
        assert not again, f"round {number}, {wait:.2f} s: finished and run again: {again}"
        finished |= {str(p.parent.relative_to(toy.folder)) for p in toy.folder.glob("grid/**/results.json")}
    count = len(runs(toy.folder))
    last = subprocess.run(lebench("benchmark", "grid.yaml"), cwd=toy.folder, capture_output=True, text=True)
    assert last.returncode == 0, last.stdout[-3000:] + last.stderr[-3000:]
    assert not set(runs(toy.folder)[count:]) & finished
    assert not list(toy.folder.glob("grid/**/*.old*"))
    whole = tmp_path_factory.mktemp("whole")
    monkeypatch.chdir(whole)
    other = type(toy).__new__(type(toy))
    other.folder = make_toy(whole)
    prepare_kill(other)
    assert subprocess.run(lebench("benchmark", "grid.yaml"), cwd=whole, capture_output=True).returncode == 0
    assert toy.table() == other.table() and toy.table().count("| ours ") == 2 + 4
    assert len(runs(whole)) == len(set(runs(whole))) == 17


def test_two_grids_do_not_share_a_folder(toy):
    path = toy.write(**ONE)
    (toy.folder / "grid").mkdir()
    with only_one(toy.folder / "grid"):
        command = lebench("benchmark", str(path))
        second = subprocess.run(command, cwd=toy.folder, capture_output=True, text=True)
    assert second.returncode == 2 and "another `lebench benchmark` runs this grid" in second.stderr
    assert not runs(toy.folder)
    assert toy.run(**ONE) == 0 and len(runs(toy.folder)) == 1


RUN_ONE = """
from lebench_sb.grid.execute import run_step
from lebench_sb.grid.grid import read_grid
from lebench_sb.grid.plan import make_plan
step, = make_plan(read_grid("grid.yaml")).steps.values()
print(run_step(step, ["grid"]).status)
"""


def test_two_jobs_of_one_step_run_it_once(toy):
    """As on a cluster: a grid was killed, its job goes on, the grid's second start submits the step again."""
    overrides = {"seconds": 3}
    toy.write(**{**ONE, "tasks": {"TOY": {"recipe": "recipes/TOY/Corpus", "overrides": overrides}}})
    options = dict(cwd=toy.folder, stdout=subprocess.PIPE, text=True)
    jobs = [subprocess.Popen([*lebench()[:1], "-c", RUN_ONE], **options) for _ in range(2)]
    said = [job.communicate()[0] for job in jobs]
    assert sorted(text.splitlines()[-1] for text in said) == ["finished", "reused"]
    assert len(runs(toy.folder)) == 1 and "another process runs here" in "".join(said)


def test_ctrl_c_stops_the_runs_and_the_same_command_goes_on(toy):
    path = toy.write(
        **{**ONE, "tasks": {"TOY": {"recipe": "recipes/TOY/Corpus", "overrides": {"seconds": 30}}}}
    )
    process = subprocess.Popen(
        lebench("benchmark", str(path)), cwd=toy.folder, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL,
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # a background job ignores it
    )  # fmt: skip
    while not runs(toy.folder):
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=20) == 1 and b"interrupted" in process.stderr.read()
    assert alive(toy.folder) == [] and json.loads((toy.folder / PLACE / "seed1/inputs.json").read_text())


def test_nothing_is_left_running_after_an_error_of_the_scheduler(toy, monkeypatch):
    from lebench_sb.grid.grid import read_grid
    from lebench_sb.grid.plan import make_plan

    overrides = {"seconds": 30}
    path = toy.write(**{**ONE, "tasks": {"TOY": {"recipe": "recipes/TOY/Corpus", "overrides": overrides}}})
    plan = make_plan(read_grid(path))
    monkeypatch.setattr("lebench_sb.grid.schedule.time.sleep", lambda s: 1 / 0 if runs(toy.folder) else None)
    with pytest.raises(ZeroDivisionError):
        run_plan(plan, Slots(1, 1))
    assert alive(toy.folder) == []
