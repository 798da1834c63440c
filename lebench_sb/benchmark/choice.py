"""Which of several learning rates a cell goes on with: the one best on valid. The test set is not looked
at."""

import json
import math
from dataclasses import dataclass
from pathlib import Path

from lebench_sb.command_line import compose, keys_of


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
    keys = keys_of(compose(Path(folder) / "hyperparams.yaml"))
    return keys["key_metric"].value, keys["key_metric_is_better"].value


def best_on_valid(folder):
    """Folder of a run -> (key_metric, "lower" or "higher", its best value over the validations in
    `steps.jsonl`, which is that of the checkpoint that was tested; None without one)"""
    metric, better = declared_metric(folder)
    steps, values = Path(folder) / "steps.jsonl", []
    for line in steps.read_text(encoding="utf-8").splitlines() if steps.exists() else ():
        entry = json.loads(line)
        if entry.get("stage") == "valid" and math.isfinite(entry.get(metric, math.nan)):
            values.append(entry[metric])
    return metric, better, (min if better == "lower" else max)(values) if values else None
