"""What a grid gives: the table of its cells, the choices made on valid, what failed and why."""

from pathlib import Path

from lebench_sb.core import escape
from lebench_sb.core.errors import DataError
from lebench_sb.core.files import write_atomically
from lebench_sb.core.guard import read_json
from lebench_sb.core.lines import json_text
from lebench_sb.evaluation import comparison, results, tables
from lebench_sb.grid.choice import NothingToChoose, choose, declared_metric
from lebench_sb.grid.execute import CONSOLE, FAILED, NOT_RUN, REUSED, Outcome, read_inputs
from lebench_sb.grid.plan import point_name
from lebench_sb.grid.schema import BASELINE
from lebench_sb.training.fingerprint import fingerprint
from lebench_sb.training.inputs import agrees

CELL = {"task", "encoder", "mode", "runs"}  # keys of each in cells.json
TRIVIAL = {"value", "unit", "difference", "ci95", "beats"}  # of each in trivial_baseline.json


def write_report(grid, plan, outcomes):
    """Writes `cells.json`, `table.md`, `table.csv` and returns the text for the screen.

    table.md depends only on the results, so that a grid that was killed and one that was not have the same.
    """
    cells = [describe(cell, plan, outcomes) for cell in plan.cells]
    output = Path(grid.output)
    record = {"grid": grid.path, "cells": cells, "steps": steps(plan, outcomes)}
    write_atomically(output / "cells.json", json_text(record, indent=1, ensure_ascii=False))
    parts = [summary(cells), table(cells, output), choices(cells)]
    parts += [against_filterbank(cells), against_trivial_baseline(cells)]
    write_atomically(output / "table.md", "\n\n".join(filter(None, parts)).encode() + b"\n")
    return "\n\n".join(filter(None, [*parts, failures(plan, outcomes)]))


def steps(plan, outcomes):
    return [
        {
            "name": name, "folder": step.folder, "command": step.command, "status": outcomes[name].status,
            "seconds": round(outcomes[name].seconds, 1), "code": outcomes[name].code,
            "reason": outcomes[name].reason,
        }
        for name, step in plan.steps.items()
    ]  # fmt: skip


def describe(cell, plan, outcomes):
    """Cell -> what cells.json says of it: its runs, and what was chosen among which values on valid"""
    runs = {str(seed): name for seed, name in cell.steps.items()}
    described = {"task": cell.task, "encoder": cell.encoder, "mode": cell.mode}
    if len(cell.tries) > 1:
        try:
            choice = choose(cell, plan.steps, outcomes)
        except NothingToChoose:
            return {**described, "chosen": None, "runs": []}
        step = cell.tries[choice.name][1]
        runs = {str(seed_of(step)): step, **runs}
        described |= {
            "chosen": choice.point, "chosen_by": f"valid {choice.metric} of seed {seed_of(step)}",
            "better": choice.better, "valid": choice.valid,
        }  # fmt: skip
    done = [
        {"seed": seed, "folder": plan.steps[name].folder, "command": plan.steps[name].command}
        for seed, name in runs.items()
        if outcomes[name].done
    ]
    return {**described, "runs": done}


def seed_of(step_name):
    """The seed in the name of a run, as ASR/ours/frozen/seed1/head_lr=0.003"""
    return next(part for part in step_name.split("/")[3:] if part.startswith("seed")).removeprefix("seed")


def table(cells, output):
    """Markdown table of the cells that have results, one row each; `table.csv` has every run"""
    extra = {
        Path(run["folder"]) / results.RESULTS: {
            "encoder": cell["encoder"],
            "chosen on valid": point_name(cell.get("chosen") or {}),
        }
        for cell in cells
        for run in cell["runs"]
    }
    if not extra:
        return "No cell has a result."
    write_atomically(output / "table.csv", tables.table(list(extra), "csv").encode())
    return tables.seeds_table(list(extra), "md", extra).rstrip()


def summary(cells):
    """Markdown table: tasks x systems, the main metric of each with its interval (of the first seed)"""
    cells = sorted((cell for cell in cells if cell["runs"]), key=lambda cell: cell["mode"] != BASELINE)
    systems = dict.fromkeys(map(name_of, cells), "")
    rows, caveats = {}, {}
    for cell in cells:
        folder = Path(cell["runs"][0]["folder"])
        record = results.read_results(folder)
        metric = main_metric(folder, record["metrics"])
        entry = record["metrics"][metric]
        title = (cell["task"], tables.metric_title(metric, entry))
        rows.setdefault(title, dict(systems))[name_of(cell)] = tables.show(entry)
        told = tables.caveats_of(record, len(cell["runs"]) > 1)
        caveats.setdefault(title, {}).update(dict.fromkeys(told))
    lines = [[*title, *row.values(), "; ".join(caveats[title])] for title, row in rows.items()]
    header = ["task", "metric", *systems, "caveats"]
    return tables.markdown_table(lines, header) if lines else ""


def name_of(cell):
    """The encoder and how it was used; once where both have the same name, as the filterbank's"""
    return ", ".join(dict.fromkeys((cell["encoder"], cell["mode"])))


def choices(cells):
    """Markdown table of the values on valid among which rates were chosen"""
    rows = []
    for cell in cells:
        for name, value in cell.get("valid", {}).items():
            mark = "chosen" if name == point_name(cell["chosen"]) else ""
            shown = "failed" if value is None else f"{value:.4g}"
            rows.append([cell["task"], cell["encoder"], cell["mode"], name, cell["chosen_by"], shown, mark])
    return section("Chosen on valid", ["task", "encoder", "mode", "tried", "by", "best value", ""], rows)


def against_filterbank(cells):
    """Markdown table: the main metric of each cell minus that of filterbanks, paired over the test set; of
    several seeds, the first"""
    baselines = {cell["task"]: cell for cell in cells if cell["mode"] == BASELINE and cell["runs"]}
    rows = []
    for cell in cells:
        baseline = baselines.get(cell["task"])
        if not baseline or not cell["runs"] or cell["mode"] == BASELINE:
            continue
        folders = [Path(found["runs"][0]["folder"]) for found in (cell, baseline)]
        metric = main_metric(folders[0], results.read_results(folders[0])["metrics"])
        told = [cell["task"], cell["encoder"], cell["mode"], metric]
        try:
            entry = comparison.compare_records(*folders, metric)["metrics"][metric]
        except ValueError as error:  # other test sets, or a metric that is no function of sums
            rows.append([*told, "", "", f"not compared: {error}"])
            continue
        verdict = {"A": "better", "B": "worse", None: "no difference shown"}[entry["better"]]
        value = f"{entry['b']:.{tables.digits_of(entry['unit'])}f}"
        rows.append([*told, value, with_interval(entry), verdict])
    header = ["task", "encoder", "mode", "metric", "filterbank", "difference", ""]
    return section("Against filterbanks", header, rows)


def with_interval(entry):
    digits = tables.digits_of(entry["unit"])
    return f"{entry['difference']:+.{digits}f}{tables.brackets(entry['ci95'], digits, '+')}"


def against_trivial_baseline(cells):
    """Markdown table: the main metric of each cell beside that of the trivial baseline"""
    rows = []
    for cell in cells:
        for metric, entry in trivial_baseline(cell).items():
            value = f"{entry['value']:.{tables.digits_of(entry['unit'])}f}"
            verdict = {True: "better", False: "not better", None: "no interval"}[entry["beats"]]
            told = [cell["task"], cell["encoder"], cell["mode"], metric]
            rows.append([*told, value, with_interval(entry), verdict])
    header = ["task", "encoder", "mode", "metric", "trivial baseline", "difference", ""]
    return section("Against the trivial baseline", header, rows)


def section(title, header, rows):
    """A Markdown table under its title, "" without rows"""
    return f"### {title}\n\n{tables.markdown_table(rows, header)}" if rows else ""


def trivial_baseline(cell):
    """{main metric: what the first run of a cell found of the trivial baseline}, {} if it did not"""
    folder = Path(cell["runs"][0]["folder"]) if cell["runs"] else None
    if not folder or not (folder / "trivial_baseline.json").exists():
        return {}
    found = read_json(folder / "trivial_baseline.json")
    metric = main_metric(folder, found) if found else ""
    entry = found.get(metric)
    if not isinstance(entry, dict) or not TRIVIAL <= set(entry):
        lacks = f"{metric or 'no metric'} with {', '.join(sorted(TRIVIAL))}"
        raise DataError(f"{folder / 'trivial_baseline.json'} lacks {lacks}.")
    return {metric: entry}


def main_metric(folder, names):
    """The one that chose the checkpoint of a run, or the first of the names, if that was a loss"""
    key, _ = declared_metric(folder)
    return key if key in names else next(iter(names))


def read_cells(output):
    """The cells in the `cells.json` of a grid's folder. Raises DataError for a file of another kind."""
    path = Path(output) / "cells.json"
    cells = read_json(path).get("cells")
    if not isinstance(cells, list) or not all(isinstance(c, dict) and CELL <= set(c) for c in cells):
        raise DataError(f"{path}: no list of cells, each with {', '.join(sorted(CELL))}.")
    return cells


def beaten_by_trivial_baseline(output):
    """Folder of a finished grid -> tasks in which no encoder (random ones do not count) beats the trivial
    baseline: [task]"""
    cells = read_cells(output)
    beats = {cell["task"]: False for cell in cells}
    for cell in cells:
        heard = cell["runs"] and "random:" not in cell["runs"][0]["command"]
        if heard:
            beats[cell["task"]] |= any(entry["beats"] is True for entry in trivial_baseline(cell).values())
    return [task for task, better in beats.items() if not better]


def failures(plan, outcomes):
    """What failed, with the last lines of its console, and what was not run for it"""
    failed = [name for name, outcome in outcomes.items() if outcome.status == FAILED]
    unrun = [name for name, outcome in outcomes.items() if outcome.status == NOT_RUN]
    lines = []
    for name in failed:
        outcome, folder = outcomes[name], Path(plan.steps[name].folder)
        lines.append(f"FAILED {name}: {escape.line(outcome.reason, 2000)}; {folder / CONSOLE}")
        lines += [f"    {escape.line(line, 2000)}" for line in outcome.tail.splitlines()]
    lines += [f"NOT RUN {name}: {outcomes[name].reason}" for name in unrun]
    return "\n".join(lines)


# ---- --dry-run


def preview(grid, plan):
    """What would be run: cells, steps with their commands, and which of them have finished"""
    seeds = ", ".join(map(str, grid.seeds))
    rows = [
        [c.task, c.encoder, c.mode, seeds, " ".join(c.tries) if len(c.tries) > 1 else "", len(c.names)]
        for c in plan.cells
    ]
    header = ["task", "encoder", "mode", "seeds", "tried on the first seed", "runs"]
    lines = [tables.markdown_table(rows, header), ""]
    lines += [f"left out: {task} {encoder} {mode}: {why}" for encoder, task, mode, why in plan.left_out]
    standings = {name: standing(grid, step) for name, step in plan.steps.items()}
    for name, step in plan.steps.items():
        later = " with what is chosen on valid" if step.choice else ""
        if step.choice:
            standings[name] = standing(grid, chosen_before(step, plan, standings))
        lines.append(f"[{standings[name]}] {name}: {step.command}{later}")
    return "\n".join([*lines, "", f"{len(plan.cells)} cells, {len(plan.steps)} steps; nothing was run."])


def chosen_before(step, plan, standings):
    """A step with the rates that its cell's tries decide, if all have finished; else as it is"""
    cell = next(cell for cell in plan.cells if cell.key == step.choice)
    names = [name for _, name in cell.tries.values()]
    if any(standings[name] != "finished" for name in names):
        return step
    try:
        return step.with_point(choose(cell, plan.steps, dict.fromkeys(names, Outcome(REUSED))).point)
    except NothingToChoose:
        return step


def standing(grid, step):
    """How far a step is ("to do", "begun", "changed", "finished"), as can be told before those it needs"""
    begun = read_inputs(Path(step.folder))
    if step.choice or begun is None:
        return "to do"
    try:
        same = agrees(begun, fingerprint(step.arguments, [grid.output]))
    except (OSError, ValueError):
        return "to do"
    if not same:
        return "changed"
    return "finished" if (Path(step.folder) / step.marker).exists() else "begun"
