"""A grid's YAML: all mistakes at once and before anything runs; what --dry-run shows; what is left out."""

import shlex
from pathlib import Path

import pytest
import yaml
from python_process import run_python
from toy_recipe import lebench, runs

from lebench_sb.core.errors import UsageError
from lebench_sb.core.yaml_values import as_yaml
from lebench_sb.grid.cli_values import cli_value, slug
from lebench_sb.grid.grid import raw_grid, read_grid
from lebench_sb.grid.plan import continued_from, make_plan
from lebench_sb.grid.schema import canonical_mode

ROOT = Path(__file__).parents[2]
TASK = {"recipe": "recipes/TOY/Corpus", "hparams": "toy.yaml"}

WRONG = [
    (dict(output=None), "output is missing"),
    (dict(ouput="x"), r"ouput is no key \(did you mean output\?\)"),
    (dict(output=3), "output: the path of a folder is expected, not 3"),
    (dict(data_folder="dat"), "data_folder dat: no such folder"),
    (dict(encoders={"a": "encodr/x/y"}), "encoders.a: encodr/x/y is no folder"),
    (dict(encoders={"a": "mel_filterbanks"}), "did you mean mel_filterbank"),
    (dict(encoders={"a": "data"}), "encoders.a: data holds no config.json"),
    (dict(encoders={"a": {"source": None}}), "encoders.a.source: a folder, a Hub id .* expected, not None"),
    (dict(encoders={"a": None}), "encoders.a.None: a mapping is expected, with .*source"),
    (dict(encoders={"a": {"sorce": "encoder"}}), "encoders.a.sorce is no key .did you mean source"),
    (dict(encoders={"a b": "encoder", "a_b": "other"}), "a_b and a b would share a folder"),
    (
        dict(encoders={"a": {"source": "encoder", "overrides": {"x": 1}}}),
        "an encoder with a source is not trained",
    ),
    (
        dict(encoders={"a": {"recipe": "recipes/PRE/toy", "overrides": {"head_l": 1}}}),
        "head_l.*did you mean --head_lr",
    ),
    (
        dict(encoders={"a": {"source": "encoder", "run_overrides": {"layr": "last"}}}),
        "layr.*did you mean --layer",
    ),
    (dict(tasks={"T": {**TASK, "recipe": "recipes/ASR/CommonVoic"}}), "did you mean recipes/ASR/CommonVoice"),
    (dict(tasks={"T": {"hparams": "toy.yaml"}}), "tasks.T.recipe is missing"),
    (
        dict(tasks={"T": {**TASK, "hparams": "toys.yaml"}}),
        r"hparams toys.yaml: no YAML.*did you mean toy.yaml",
    ),
    (dict(tasks={"T": {**TASK, "overides": {}}}), "overides is no key .did you mean overrides"),
    (dict(tasks={"T": {**TASK, "overrides": {"secnds": 1}}}), "secnds.*did you mean --seconds"),
    (dict(tasks={"T": {**TASK, "overrides": {"seconds": "long"}}}), "seconds long: a number is expected"),
    (
        dict(tasks={"T": {**TASK, "overrides": {"nested": {"dept": 1}}}}),
        "dept: no such option or key; did you mean depth",
    ),
    (dict(tasks={"T": {**TASK, "overrides": {"seed": 3}}}), "overrides.seed: the grid sets it itself"),
    (dict(tasks={"T": {**TASK, "modes": {"frozn": {}}}}), "frozn is no mode .did you mean frozen"),
    (dict(tasks=["T"]), "tasks: a mapping of names is expected"),
    (dict(tasks={"T": "recipes"}), "tasks.T.'recipes': a mapping is expected"),
    (dict(modes=["end-to-endd"]), "end-to-endd is no mode .did you mean end-to-end"),
    (dict(modes={"frozen": {"taks": "T"}}), "modes.frozen.taks is no key"),
    (
        dict(modes={"continued SSL": {"recipe": "recipes/PRE/toy", "step_overrides": [1]}}),
        r"modes.continued SSL.step_overrides: keys of the recipe's YAML and values are expected, not \[1\]",
    ),
    (
        dict(modes={"continued SSL": {"recipe": "recipes/PRE/toy", "step_overrides": {"seed": 1}}}),
        "modes.continued SSL.step_overrides.seed: the grid sets it itself",
    ),
    (dict(modes=["ASR first"]), "there is not one ASR task"),
    (dict(modes={"ASR first": {"task": "TOI"}}), "TOI .did you mean TOY"),
    (dict(modes=[]), "modes: a list of modes is expected"),
    (dict(seeds=[1, 1]), "seeds: a list of different whole numbers"),
    (dict(seeds=[1.5]), "seeds: a list of different whole numbers"),
    (dict(seeds=[True]), "seeds: a list of different whole numbers"),
    (dict(seeds=3), "seeds: a list of different whole numbers"),
    (dict(grid={"head_lr": 3}), "lists of values are expected"),
    (dict(grid={"head_lr": [0.1, 0.10]}), "head_lr: a value stands there twice"),
    (dict(grid={"head_lrs": [0.1]}), "head_lrs.*did you mean --head_lr"),
    (dict(grid={"head_lr": ["fast"]}), "head_lr fast: a number is expected"),
    (dict(grid={"seed": [1]}), "grid.seed: the grid sets it itself"),
    (dict(exclude=[{"encoder": "our"}]), "our is no encoder of this grid .did you mean ours"),
    (dict(exclude=[{"encodr": "ours"}]), "encodr is no key"),
    (dict(exclude={"encoder": "ours"}), "exclude: a list is expected"),
    (dict(exclude=[{"task": "TOY"}]), "no cell is left"),
    (dict(options="--debug"), "options: a list of words"),
    (dict(options=["--debug"]), "add --debug_persistently"),
    (dict(options=["--debugg"]), "debugg.*did you mean --debug"),
    (dict(tasks={"T": {**TASK, "start_from": "T"}}), "T.start_from: T is no task before it"),
    (dict(beats_trivial_baseline="yes"), "beats_trivial_baseline: True or False is expected, not 'yes'"),
    (dict(parallel=True), "parallel: a whole number from 1 to 4096"),
    (dict(parallel=0), "parallel: a whole number from 1 to 4096"),
    (dict(overrides=[1]), "overrides: keys of the recipe's YAML and values"),
]


@pytest.mark.parametrize("changes, message", WRONG, ids=[str(number) for number in range(len(WRONG))])
def test_mistakes_are_named_with_a_way_out_before_anything_runs(toy, changes, message):
    with pytest.raises(UsageError, match=message):
        toy.run(**changes)
    assert not runs(toy.folder) and not (toy.folder / "grid").exists()


@pytest.mark.parametrize("text, message", [
    ("a: [1", "grid.yaml"), ("- a", "not a mapping"), ("", "not a mapping"),
    ("output: a\noutput: b", "duplicate key"), (b"\xff\xfe", "grid.yaml"),
])  # fmt: skip
def test_what_is_no_grid(tmp_path, text, message):
    path = tmp_path / "grid.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UsageError, match=message):
        read_grid(path)


def test_a_grid_may_extend_another(toy):
    tasks = {"A": {**TASK, "overrides": {"seconds": 0, "head_lr": 0.1}}, "B": TASK}
    toy.write(tasks=tasks, seeds=[1]).rename(toy.folder / "base.yaml")
    own = "extends: base.yaml\noutput: small\nseeds: [3]\nmodes: [frozen]\n"
    path = toy.folder / "grid.yaml"
    path.write_text(own + "tasks: {A: {overrides: {head_lr: 0.2}}}\n")
    grid = read_grid(path)
    assert (grid.output, list(grid.tasks), list(grid.modes)) == ("small", ["A", "B"], ["frozen"])
    assert grid.seeds == (3,) and grid.tasks["A"].recipe.overrides == {"seconds": 0, "head_lr": 0.2}
    (toy.folder / "base.yaml").write_text("extends: grid.yaml")
    with pytest.raises(UsageError, match="round in a circle"):
        read_grid(path)
    (toy.folder / "base.yaml").unlink()
    with pytest.raises(UsageError, match="base.yaml: no such file"):
        read_grid(path)


def test_all_mistakes_are_told_at_once_with_exit_code_2(toy):
    path = toy.write(ouput="x", seeds=[1, 1], tasks={"T": {**TASK, "overrides": {"secnds": 1, "head_l": 2}}})
    done = run_python(lebench("benchmark", str(path))[1:], cwd=toy.folder)
    assert done.returncode == 2 and len(done.stderr.strip().splitlines()) == 1
    for message in ("4 problems", "did you mean output", "seeds:", "--seconds", "--head_lr"):
        assert message in done.stderr
    gone = run_python(lebench("benchmark", "gone.yaml")[1:], cwd=toy.folder)
    assert gone.returncode == 2 and "gone.yaml" in gone.stderr


@pytest.mark.parametrize(
    "changes",
    [
        dict(encoders={"a": {"source": None}}),
        dict(encoders={"a": {}}),
        dict(tasks={"T": {**TASK, "recipe": ["a"]}}, exclude=[{"task": "T", "mode": "frozen"}]),
        dict(tasks={"T": {**TASK, "hparams": 3}}),
        dict(tasks={"T": {**TASK, None: 3}}),
        dict(modes={"continued SSL": {"recipe": 3, "hparams": "toy.yaml"}}),
        dict(exclude=[{"encoder": None}]),
    ],
)
def test_one_mistake_is_one_problem(toy, changes):
    with pytest.raises(UsageError, match="grid.yaml: "):  # else: grid.yaml (2 problems)
        read_grid(toy.write(**changes))


def test_values_survive_the_command_line():
    values = [5e-5, 1e-12, 0.003, 3, True, None, "a: b", [1, 2.5e-7], ["synthetic speech", "a, b", "yes"]]
    values += [
        {"time_prob": 1e-5, "name": "x: y", "deep": {"flag": False}},
        "",
        "$data_root/é",
        [[1], {"a": "#b"}],
    ]
    for value in values:
        assert yaml.safe_load(as_yaml({"key": cli_value(value)}))["key"] == value or value in (None, "")


def test_names_become_folders():
    assert slug("ASR first") == "ASR_first" and slug("../../etc") == "etc" and slug("a/b:c") == "a_b_c"
    assert slug("..") == "_" and slug("é-1.5") == "é-1.5"
    for written in ("end to end", "End-to-End", "end_to_end"):
        assert canonical_mode(written) == "end-to-end"
    assert canonical_mode("continued ssl") == "continued SSL" and canonical_mode("frozen!") is None


def test_dry_run_shows_cells_and_commands_and_runs_nothing(toy, capsys):
    changes = dict(grid={"head_lr": [0.003, 0.001]}, exclude=[{"encoder": "random", "mode": "end to end"}])
    assert toy.run(**changes, call={"dry_run": True}) == 0
    said = capsys.readouterr().out
    assert not runs(toy.folder) and not (toy.folder / "grid").exists()
    assert (
        "left out: TOY random end-to-end: excluded" in said and "4 cells, 12 steps; nothing was run" in said
    )
    assert said.count("[to do]") == 12 and said.count("with what is chosen on valid") == 4
    toy.run(**changes)
    capsys.readouterr()
    toy.run(**changes, call={"dry_run": True})
    said = capsys.readouterr().out
    assert said.count("[finished]") == 12
    (toy.folder / "encoder" / "model.safetensors").write_text("retrained")
    toy.run(**changes, call={"dry_run": True})
    said = capsys.readouterr().out
    assert said.count("[finished]") == 6
    assert said.count("[changed]") == 4 and said.count("[to do]") == 2  # whose choice is open again
    commands = [line.split(": ", 1)[1] for line in said.splitlines() if line.startswith("[finished]")]
    assert all(shlex.split(command)[0] == "python" for command in commands)


def test_settings_of_a_cell_win_in_order(toy):
    path = toy.write(
        overrides={"head_lr": 1, "seconds": 1, "layer": "last"},
        modes={
            "frozen": {"overrides": {"head_lr": 2, "seconds": 2}},
            "end to end": {"grid": {"head_lr": [8, 9]}},
        },
        tasks={"T": {**TASK, "overrides": {"head_lr": 3}, "modes": {"end-to-end": {"seconds": 7}}}},
        encoders={"a": "encoder", "b": {"source": "other", "run_overrides": {"layer": 4}}},
        seeds=[1],
    )
    plan = make_plan(read_grid(path))

    def values(name):
        arguments = plan.steps[name].arguments[2:]
        return dict(zip([key[2:] for key in arguments[:-3:2]], arguments[1:-3:2], strict=True))

    frozen = values("T/a/frozen/seed1")
    assert (frozen["head_lr"], frozen["seconds"], frozen["layer"]) == ("3", "2", "last")
    assert values("T/b/frozen/seed1")["layer"] == "4"
    whole = values("T/a/end-to-end/seed1/head_lr=9")
    assert (whole["head_lr"], whole["seconds"], whole["freeze"]) == ("9", "7", "False")


def test_a_mode_may_have_a_yaml_of_its_own(toy):
    place = toy.folder / "recipes/TOY/Corpus/hparams"
    (place / "whole.yaml").write_text((place / "toy.yaml").read_text() + "encoder_lr: 0.1\n")
    modes = {"end to end": {"hparams": "whole.yaml", "encoder_lr": 0.2}}
    plan = make_plan(read_grid(toy.write(tasks={"T": {**TASK, "modes": modes}}, seeds=[1])))
    yamls = {name: Path(step.arguments[1]).name for name, step in plan.steps.items()}
    assert yamls["T/ours/end-to-end/seed1"] == "whole.yaml"
    assert yamls["T/ours/frozen/seed1"] == yamls["T/filterbank/filterbank/seed1"] == "toy.yaml"
    for wrong, message in (
        ({"hparams": "whle.yaml"}, "did you mean whole.yaml"),
        ({"encoder_lr": 1}, "encoder_lr"),
    ):
        with pytest.raises(UsageError, match=message):
            toy.run(tasks={"T": {**TASK, "modes": {"end to end": wrong}}})


def test_continued_ssl_hears_the_audio_of_the_task(toy):
    """`lebench prepare` of the corpus that the task's YAML names, once for tasks of one corpus."""
    tasks = {"A": TASK, "B": TASK}
    modes = {"continued SSL": {"recipe": "recipes/PRE/toy"}}
    plan = make_plan(read_grid(toy.write(tasks=tasks, modes=modes, encoders={"ours": "encoder"}, seeds=[1])))
    prepared = [step for step in plan.steps.values() if step.name.startswith("encoders/data/")]
    assert len(prepared) == 1 and len(plan.steps) == 4
    folder = prepared[0].folder
    assert prepared[0].command == (
        f"lebench prepare commonvoice --data_folder data --normaliser fr-1 --output {folder}"
    )
    step = next(
        s for s in plan.steps.values() if s.name.startswith("encoders/continued_SSL/ours/commonvoice-")
    )
    assert step.after == (prepared[0].name,)
    command = " ".join(step.arguments)
    assert (
        f"--train_csv {folder}/train.csv --valid_csv {folder}/valid.csv" in command
        and "--init_from encoder" in command
    )


def test_the_quantiser_beside_an_encoder_is_found(tmp_path):
    for name in ("encoder", "pretraining"):
        (tmp_path / name).mkdir()
    assert continued_from(str(tmp_path / "encoder")) == str(tmp_path / "encoder")
    (tmp_path / "pretraining" / "config.json").write_text("{}")
    assert continued_from(str(tmp_path / "encoder")) == str(tmp_path / "pretraining")
    assert continued_from("org/model") == "org/model"


GRIDS = sorted((ROOT / "recipes" / "grids").glob("*.yaml"))


@pytest.mark.parametrize("path", GRIDS, ids=lambda path: path.name)
def test_the_grids_of_the_repository_are_sound(path, tmp_path, monkeypatch, capsys):
    from lebench_sb.grid.command import benchmark

    grid = raw_grid(path)
    folders = {grid.get("data_folder")} | {t.get("data_folder") for t in grid["tasks"].values()}
    for folder in filter(None, folders):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
    monkeypatch.chdir(tmp_path)
    assert benchmark(path, dry_run=True) == 0
    assert "nothing was run" in capsys.readouterr().out
    assert not list((tmp_path / grid["output"]).rglob("inputs.json"))
