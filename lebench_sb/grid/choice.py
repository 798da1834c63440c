"""Which of several learning rates a cell goes on with: the one best on valid. The test set is not looked
at."""

import math
from dataclasses import dataclass
from pathlib import Path

from lebench_sb.core.errors import DataError
from lebench_sb.core.guard import check_yaml, read_text, regular
from lebench_sb.core.lines import read_records
from lebench_sb.core.yaml_tree import compose_mapping, keys_of

KEYS = ("key_metric", "key_metric_is_better")


class NothingToChoose(Exception):
    """No try has finished, or a step that is needed has not"""


@dataclass(frozen=True)
class Choice:
    """point: {key: value} that was chosen; valid: {point name: best value of `metric` on valid, None for a
    try that failed}"""

    point: dict
    name: str
    metric: str
    better: str
    valid: dict


def choose(cell, steps, outcomes):
    """Cell, its steps and their outcomes -> Choice; of equal values the first written is chosen.

    A try that failed (a rate at which training diverged) is not chosen. Raises NothingToChoose.
    """
    valid, metric, better = {}, "", ""
    for name, (_, step) in cell.tries.items():
        outcome = outcomes.get(step)
        valid[name] = None
        if outcome and outcome.done:
            metric, better, valid[name] = best_on_valid(steps[step].folder)
    found = {name: value for name, value in valid.items() if value is not None}
    if not found:
        names = ", ".join(step for _, step in cell.tries.values())
        raise NothingToChoose(f"needs one of {names} with a valid score")
    name = (min if better == "lower" else max)(found, key=found.get)
    return Choice(cell.tries[name][0], name, metric, better, valid)


def declared_metric(folder):
    """Folder of a run -> (key_metric, "lower" or "higher"): what chose the checkpoint that was tested"""
    path = Path(folder) / "hyperparams.yaml"
    text = read_text(path)
    check_yaml(text, path, DataError)
    keys = keys_of(compose_mapping(text, path))
    if missing := [key for key in KEYS if key not in keys or not isinstance(keys[key].value, str)]:
        raise DataError(f"{path} has no {' and no '.join(missing)}.")
    return tuple(keys[key].value for key in KEYS)


def best_on_valid(folder):
    """Folder of a run -> (key_metric, "lower" or "higher", its best value over the validations in
    `steps.jsonl`, which is that of the checkpoint that was tested; None without one)"""
    metric, better = declared_metric(folder)
    steps, values = Path(folder) / "steps.jsonl", []
    for entry in read_records(regular(steps)) if steps.exists() else ():
        value = entry.get(metric)
        if entry.get("stage") == "valid" and isinstance(value, (int, float)) and math.isfinite(value):
            values.append(value)
    return metric, better, (min if better == "lower" else max)(values) if values else None
