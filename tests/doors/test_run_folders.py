"""Files in the folder of a run that came from elsewhere, or that somebody edited: one line each."""

import json

import pytest

from lebench_sb.core.errors import DataError, UsageError
from lebench_sb.grid.choice import best_on_valid
from lebench_sb.grid.demo import finish
from lebench_sb.grid.execute import read_inputs
from lebench_sb.grid.report import read_cells, trivial_baseline
from lebench_sb.training.checkpoints import best_checkpoint, read_settings

DEEP = "[" * 50_000
SETTINGS = "key_metric: WER\nkey_metric_is_better: lower\n"


@pytest.mark.parametrize(
    "text", [DEEP, "{", "[]", "{}", '{"cells": {}}', '{"cells": [1]}', '{"cells": [{}]}']
)
def test_cells_json_of_another_kind(tmp_path, text):
    (tmp_path / "cells.json").write_text(text)
    for read in (read_cells, finish):
        with pytest.raises(DataError, match=r"cells\.json"):
            read(tmp_path)


@pytest.mark.parametrize("text", [DEEP, "{", "[]", '{"WER": 1}', '{"WER": {}}', "{}"])
def test_trivial_json_of_another_kind(tmp_path, text):
    (tmp_path / "hyperparams.yaml").write_text(SETTINGS)
    (tmp_path / "trivial_baseline.json").write_text(text)
    with pytest.raises(DataError, match=r"trivial_baseline\.json"):
        trivial_baseline({"runs": [{"folder": str(tmp_path)}]})


@pytest.mark.parametrize("text", [DEEP, "{", "[]", "1"])
def test_a_damaged_inputs_json_begins_anew(tmp_path, text):
    (tmp_path / "inputs.json").write_text(text)
    assert read_inputs(tmp_path) == {}


@pytest.mark.parametrize("text", [DEEP, "- a", "a: [}", "", "a: &a [*a]"])
def test_hyperparams_yaml_of_another_kind(tmp_path, text):
    (tmp_path / "hyperparams.yaml").write_text(text)
    (tmp_path / "save").mkdir()
    for read in (read_settings, best_checkpoint, best_on_valid):
        with pytest.raises((UsageError, DataError), match=r"hyperparams\.yaml"):
            read(tmp_path)


def test_settings_of_a_run_build_nothing_and_need_a_metric(tmp_path):
    (tmp_path / "hyperparams.yaml").write_text("a: !apply:os.mkdir [made]\n")
    (tmp_path / "save").mkdir()
    with pytest.raises(UsageError, match="names no key_metric"):
        best_checkpoint(tmp_path)
    assert not (tmp_path / "made").exists()


def test_steps_that_are_none_do_not_count(tmp_path):
    """Lines cut short, deep, of other kinds or with a text for a number stand between two good ones"""
    (tmp_path / "hyperparams.yaml").write_text(SETTINGS)
    good = [json.dumps({"stage": "valid", "WER": value}) for value in (30.0, 20.0)]
    bad = ['{"stage": "va', DEEP, "[]", '{"stage": "valid", "WER": "1"}', '{"stage": "valid", "WER": NaN}']
    (tmp_path / "steps.jsonl").write_text("\n".join([good[0], *bad, good[1]]))
    assert best_on_valid(tmp_path) == ("WER", "lower", 20.0)
