"""A grid from elsewhere runs nothing that its values name, and what a plan takes for granted is there."""

import ast
import os
import sys

import pytest

from lebench_sb.core.errors import UsageError
from lebench_sb.grid import command
from lebench_sb.grid.checks import ROOT
from lebench_sb.grid.command import benchmark
from lebench_sb.grid.execute import FAILED, Outcome
from lebench_sb.grid.grid import raw_grid, read_grid
from lebench_sb.grid.plan import CONTINUED_KINDS, cannot_continue, continued_from, make_plan

TASK = {"recipe": "recipes/TOY/Corpus", "hparams": "toy.yaml"}
VALUES = {
    "a function": "!apply:os.system ['touch ran']",
    "a function by attributes": "!apply:lebench_sb.training.run.os.system ['touch ran']",
    "a class": "!new:evil.Model {a: 1}",
    "a tuple": "(!!python/object/apply:os.system ['touch ran'])",
    "of Python": "!!python/object/apply:os.system ['touch ran']",
    "a file": "!include:evil.yaml",
}


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
@pytest.mark.parametrize(
    "place",
    [
        lambda v: {"overrides": {"head_lr": v}},
        lambda v: {"overrides": {"nested": {"depth": v}}},
        lambda v: {"overrides": {"nested": {v: 1}}},
        lambda v: {"grid": {"head_lr": [0.1, v]}},
        lambda v: {"tasks": {"T": {**TASK, "overrides": {"layer": [v]}}}},
        lambda v: {"options": [f"--layer={v}"]},
        lambda v: {"output": v},
        lambda v: {"encoders": {"a": v}},
        lambda v: {"encoders": {"a": {"source": "encoder", "run_overrides": {"layer": v}}}},
    ],
)
def test_no_value_of_a_grid_runs_or_imports_anything(toy, place, value):
    (toy.folder / "evil.py").write_text("open('ran', 'w')")
    (toy.folder / "evil.yaml").write_text("a: !apply:os.system ['touch ran']")
    for dry_run in (True, False):
        with pytest.raises(UsageError, match=r"grid\.yaml.*line \d+: !.* is not run from a grid"):
            benchmark(toy.write(**place(value)), dry_run)
    assert not (toy.folder / "ran").exists() and not (toy.folder / "grid").exists()
    assert "evil" not in sys.modules


def test_pieces_that_make_a_tag_together_are_refused_too(toy):
    """A key that would close the mapping it stands in, and a tag after it"""
    key = "depth: 1}, !apply:os.system [id]"
    with pytest.raises(UsageError):
        toy.run(overrides={"nested": {key: 1}})
    assert not (toy.folder / "ran").exists()


def test_what_an_extended_grid_would_run_is_refused(toy):
    toy.write(overrides={"layer": VALUES["a function"]}).rename(toy.folder / "base.yaml")
    (toy.folder / "grid.yaml").write_text("extends: base.yaml\noutput: x\n")
    with pytest.raises(UsageError, match=r"base\.yaml.*line \d+"):
        read_grid(toy.folder / "grid.yaml")


def test_a_dry_run_imports_no_module_that_a_recipe_names(toy, capsys):
    (toy.folder / "evil.py").write_text("open('ran', 'w')\nclass Model: pass")
    yaml = toy.folder / "recipes/TOY/Corpus/hparams/toy.yaml"
    yaml.write_text(yaml.read_text() + "model: !new:evil.Model\n    a: 1\n")
    sys.path.insert(0, str(toy.folder))
    try:
        assert toy.run(overrides={"model": {"b": 2}}, call={"dry_run": True}) == 0
    finally:
        sys.path.remove(str(toy.folder))
    assert "evil" not in sys.modules and not (toy.folder / "ran").exists()


def test_tags_of_the_repositorys_yamls_may_stand_in_a_grid(toy):
    grid = read_grid(toy.write(overrides={"layer": "!ref <seed>", "beats": "!name:torch.optim.AdamW"}))
    assert grid.overrides["beats"] == "!name:torch.optim.AdamW"


@pytest.mark.parametrize(
    "text", ["a: " + "[" * 50_000, "a: &a [*a]", "a: 2024-13-45", 'output: "x\\0y"', "- a"]
)
def test_a_grid_that_would_crash_its_reader_is_one_line(tmp_path, text):
    (tmp_path / "grid.yaml").write_text(text)
    with pytest.raises(UsageError, match="grid.yaml"):
        raw_grid(tmp_path / "grid.yaml")


def test_a_pipe_is_no_grid(tmp_path):
    os.mkfifo(tmp_path / "grid.yaml")
    with pytest.raises(UsageError, match="a pipe"):
        raw_grid(tmp_path / "grid.yaml")


@pytest.mark.parametrize("changes, message", [
    (dict(seeds=[-1]), "from 0 on"), (dict(seeds=[2**32]), "from 0 on"), (dict(parallel=10**9), "to 4096"),
    (dict(threads=10**9), "to 4096"), (dict(tasks={"T": {"recipe": ["a"]}}), "no folder with a train.py"),
])  # fmt: skip
def test_numbers_and_kinds_out_of_range(toy, changes, message):
    with pytest.raises(UsageError, match=message):
        toy.run(**changes)


@pytest.mark.parametrize("name", ["table.md", "table.csv", "cells.json", "grid.yaml"])
def test_no_file_is_replaced_that_is_not_a_grids(toy, name):
    (toy.folder / "grid").mkdir()
    (toy.folder / "grid" / name).write_text("mine")
    with pytest.raises(UsageError, match=f"holds {name}, which no `lebench benchmark` wrote"):
        toy.run()
    assert (toy.folder / "grid" / name).read_text() == "mine"


def test_a_link_in_the_output_is_replaced_and_not_written_through(toy, monkeypatch):
    failed = Outcome(FAILED, reason="no run")
    monkeypatch.setattr(command, "run_plan", lambda plan, pool, poll: dict.fromkeys(plan.steps, failed))
    precious, output = toy.folder / "precious", toy.folder / "grid"
    precious.write_text("mine")
    output.mkdir()
    (output / ".lock").write_text("")
    for name in command.WRITTEN:
        (output / name).symlink_to(precious)
    assert toy.run() == 1
    assert precious.read_text() == "mine" and "No cell has a result" in toy.table()


# ---- what a plan takes for granted


def planned(toy, yaml_text=None, **changes):
    place = toy.folder / "recipes/PRE/toy/hparams/toy.yaml"
    if yaml_text:
        place.write_text(yaml_text(place.read_text()))
    modes = {"continued SSL": {"recipe": "recipes/PRE/toy", "data_folder": "data"}}
    made = {"made": {"recipe": "recipes/PRE/toy"}}
    return make_plan(read_grid(toy.write(**{"modes": modes, "encoders": made, "seeds": [1], **changes})))


def init_from(plan):
    arguments = plan.steps["encoders/continued_SSL/made"].arguments
    return arguments[arguments.index("--init_from") + 1]


def test_continued_ssl_of_a_pretraining_begins_with_its_quantiser(toy):
    assert init_from(planned(toy)) == "grid/encoders/pretraining/made/pretraining"


def test_continued_ssl_of_a_distilled_encoder_begins_with_the_encoder(toy):
    """Distillation writes encoder/ alone: its YAML has a teacher and no init_from"""
    other = toy.folder / "recipes/PRE/distil"
    (other / "hparams").mkdir(parents=True)
    (other / "train.py").write_text("")
    text = (toy.folder / "recipes/PRE/toy/hparams/toy.yaml").read_text()
    (other / "hparams" / "toy.yaml").write_text(text.replace('init_from: ""', "teacher: x"))
    plan = planned(toy, encoders={"made": {"recipe": "recipes/PRE/distil"}})
    assert init_from(plan) == "grid/encoders/pretraining/made/encoder"


def test_a_folder_named_like_ours_has_a_quantiser_only_where_it_lies(tmp_path):
    folder = tmp_path / "encoders/pretraining/x/encoder"
    folder.mkdir(parents=True)
    assert continued_from(str(folder)) == str(folder)


def test_an_encoder_that_its_recipe_leaves_frozen_is_refused(toy):
    with pytest.raises(UsageError, match=r"encoders\.made: .*toy\.yaml leaves its encoder frozen"):
        planned(toy, lambda text: text + 'ssl_hub: ""\n')


class Recipe:
    train, yaml, overrides = "recipes/pretraining/wav2vec2/train.py", "", {}


@pytest.mark.parametrize("config, wrong", [
    ('{"model_type": "hubert"}', "of the kind hubert"), ('{"model_type": "data2vec-audio"}', "data2vec"),
    ("{}", "kind unknown"), ('{"model_type": "wav2vec2"}', ""),
    ('{"model_type": "wav2vec2-conformer"}', ""), ("[1]", None), ("[" * 50_000, None),
])  # fmt: skip
def test_kinds_that_the_pretraining_cannot_continue_are_told_when_planning(tmp_path, config, wrong):
    (tmp_path / "config.json").write_text(config)
    recipe = Recipe()
    recipe.train, place = ROOT / Recipe.train, ROOT / "recipes/pretraining/wav2vec2/hparams"
    recipe.yaml = place / "continued.yaml"
    if wrong is None:
        with pytest.raises(UsageError, match="config.json"):
            cannot_continue(str(tmp_path), recipe)
        return
    told = cannot_continue(str(tmp_path), recipe)
    assert wrong in told and bool(wrong) == bool(told)
    if not wrong:
        recipe.overrides = {"do_normalize": True}
        (tmp_path / "preprocessor_config.json").write_text('{"do_normalize": false}')
        assert "trained with do_normalize False" in cannot_continue(str(tmp_path), recipe)


def test_the_kinds_are_those_of_the_pretraining():
    tree = ast.parse((ROOT / "lebench_sb/pretraining/build.py").read_text(encoding="utf-8"))
    models = next(
        node.value for node in tree.body if isinstance(node, ast.Assign) and node.targets[0].id == "MODELS"
    )
    assert {key.value for key in models.keys} == set(CONTINUED_KINDS)
