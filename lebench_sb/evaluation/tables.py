"""Tables of results: a row per run or per experiment over its seeds, as Markdown, LaTeX or CSV."""

import csv
import io
import json
import statistics
from collections import defaultdict
from pathlib import Path, PurePath

from tabulate import tabulate

from lebench_sb.core import escape
from lebench_sb.evaluation.metrics import verification
from lebench_sb.evaluation.metrics.bootstrap import OVER_SPEAKERS
from lebench_sb.evaluation.results import find_results, read_all

FRAME_NORM = "frame norm"
OVER_SEEDS = " over seeds"  # ends the title of a column
# They leave the experiment the same
RUN_KEYS = ("seed", "output_folder", "save_folder", "data_folder")
RUN_KEYS += ("energy_method", "device_watts", "pue", "co2_g_per_kwh")


def table(paths, format="md"):
    """Results below `paths` -> text: one table per task, corpus and split ("md", "latex"), or one for all
    ("csv").

    One row per results.json. Runs of one experiment with several seeds keep their rows and their intervals;
    the mean and the standard deviation (n - 1) over seeds stand in a column beside.
    """
    if format not in ("md", "csv", "latex"):
        raise ValueError(f"format is {format!r}. It must be 'md', 'csv' or 'latex'.")
    files = find_results(paths)
    records = read_all(files)
    cells = defaultdict(list)
    for record in records:
        cells[cell(record)].append(record)
    if format == "csv":
        return _csv_table(files, records, cells)
    groups = defaultdict(list)
    for record in records:
        groups[record["task"], record["corpus"], record["split"]].append(record)
    return "\n".join(_group_table(group, groups[group], cells, format) for group in sorted(groups))


def seeds_table(paths, format="md", extra=None):
    """As `table` ("md" or "latex"), one row per experiment: runs equal but for the seed share it.

    The value and its interval are those of the run with the smallest seed, named in the column `seeds`; mean
    and standard deviation (n - 1) over all seeds stand beside, never merged with the interval. No column
    depends on the clock. extra: {path of a results.json: {column: text}}, columns put first.
    """
    if format not in ("md", "latex"):
        raise ValueError(f"format is {format!r}. It must be 'md' or 'latex'.")
    files = find_results(paths)
    records = read_all(files)
    extra = {Path(path): columns_of_run for path, columns_of_run in (extra or {}).items()}
    names = dict.fromkeys(name for columns_of_run in extra.values() for name in columns_of_run)
    cells, groups, columns = defaultdict(list), defaultdict(list), {}
    for path, record in zip(files, records, strict=True):
        cells[cell(record)].append(record)
        columns[id(record)] = {name: extra.get(path, {}).get(name, "") for name in names}
    for runs in cells.values():
        first = min(runs, key=lambda run: run["seed"])
        groups[first["task"], first["corpus"], first["split"]].append(first)

    def row(record, metrics, cells):
        cells_of_row = {**columns[id(record)], **_row(record, metrics, cells), "training (s)": ""}
        cells_of_row["seeds"] = ", ".join(
            str(seed) for seed in sorted({run["seed"] for run in cells[cell(record)]})
        )
        return cells_of_row | {"seed": ""}

    tables = [_group_table(group, groups[group], cells, format, row) for group in sorted(groups)]
    return "\n".join(tables)


def cell(record):
    """What two records share if they are runs of one experiment that differ in their seed: a text."""
    overrides = {key: value for key, value in record["overrides"].items() if key not in RUN_KEYS}
    yamls = [word for word in record["command"].split() if word.endswith((".yaml", ".yml"))]
    keys = ("task", "corpus", "split", "system", "layer", "mode", "text_normaliser", "data")
    return json.dumps([[record[key] for key in keys], overrides, yamls], sort_keys=True, ensure_ascii=False)


def frame_norm(record):
    """How the frames of a record's encoder were normalised; "" where it does not say"""
    return record.get("details", {}).get("frame_norm", "")


def system_name(system):
    """`system` for a reader: an absolute path becomes relative to the working folder, or loses its head.

    So does the path in "random:<path>".
    """
    kind, colon, path = system.rpartition(":")
    path = PurePath(path)
    if not path.is_absolute():
        return system
    if path.is_relative_to(Path.cwd()):
        return f"{kind}{colon}{path.relative_to(Path.cwd())}"
    tail = path.parts[path.parts.index("results") :] if "results" in path.parts else path.parts[-3:]
    return f"{kind}{colon}{PurePath(*tail)}"


def show(entry, bounds=True):
    """A metric entry -> "23.4 [21.9, 25.0]": one decimal for %, BLEU, chrF2, four for costs, else three."""
    digits = digits_of(entry["unit"])
    text = f"{entry['value']:.{digits}f}"
    return text + brackets(entry["ci95"], digits) if bounds else text


def digits_of(unit):
    """Decimals that a figure of this unit is shown with"""
    if unit.startswith("Ptar"):  # a detection cost: of the order of a thousandth
        return 4
    return 1 if unit in ("%", "BLEU", "chrF2") else 3


def brackets(bounds, digits, sign=""):
    """Bounds -> " [21.9, 25.0]", "" for None. sign: "+" shows it also where it is positive."""
    return "" if bounds is None else f" [{bounds[0]:{sign}.{digits}f}, {bounds[1]:{sign}.{digits}f}]"


def _over_seeds(record, cells, metric):
    """(mean, standard deviation, number) of a metric over the seeds of the record's cell; None for one seed.

    A seed that was run twice counts once, with the mean of its runs.
    """
    runs = defaultdict(list)
    for run in cells[cell(record)]:
        if metric in run["metrics"]:
            runs[run["seed"]].append(run["metrics"][metric]["value"])
    values = [statistics.fmean(found) for found in runs.values()]
    return (statistics.fmean(values), statistics.stdev(values), len(values)) if len(values) > 1 else None


def _metric_names(records):
    """Names in the order of first appearance"""
    return list(dict.fromkeys(name for record in records for name in record["metrics"]))


def caveats_of(record, several_seeds):
    """Caveats of a record; a cell of several seeds is no longer "one seed"."""
    return [caveat for caveat in record["caveats"] if not (several_seeds and caveat == "one seed")]


def _has_seeds(record, cells):
    return len({run["seed"] for run in cells[cell(record)]}) > 1


def _group_table(group, records, cells, format, row=None):
    """Table of the records of one task, corpus and split, with its heading and what the intervals are"""
    rows = [(row or _row)(record, _metric_names(records), cells) for record in records]
    used = [column for column in rows[0] if any(row[column] for row in rows)]
    if len({row[FRAME_NORM] for row in rows}) == 1:
        used = [column for column in used if column != FRAME_NORM]
    body = [[escape.line(each[column]) for column in used] for each in rows]
    heading, notes = escape.line(", ".join(group)), escape.line(_notes(records), 5000)
    if any(column.endswith(OVER_SEEDS) for column in used):
        notes += " Over seeds: mean ± standard deviation (number of seeds)."
        notes += " Value and interval: of the smallest seed." if row else ""
    if format == "md":
        heading, notes = escape.markdown(heading), escape.markdown(notes, 5000)
        return f"### {heading}\n\n{markdown_table(body, used)}\n\n{notes}\n"
    # tabulate escapes what is LaTeX's
    text = tabulate(body, map(escape.line, used), tablefmt="latex_booktabs", disable_numparse=True)
    for sign, command in (("↓", r"$\downarrow$"), ("↑", r"$\uparrow$"), ("±", r"$\pm$")):
        text = text.replace(sign, command)
    return f"% {heading}\n% {notes}\n{text}\n"


def markdown_table(rows, header):
    """Rows of texts and their header -> a Markdown table in which no text is markup"""
    cells = [[escape.markdown(text) for text in row] for row in rows]
    return tabulate(cells, list(map(escape.markdown, header)), tablefmt="github", disable_numparse=True)


def _row(record, metrics, cells):
    """Record -> {column: text} of a Markdown or LaTeX table

    Columns empty in every row, and a frame norm that all rows share, are left out later.
    """
    row = {"system": system_name(record["system"]), "mode": record["mode"], "layer": str(record["layer"])}
    row[FRAME_NORM] = frame_norm(record)
    row["seed"] = str(record["seed"]) if _has_seeds(record, cells) else ""
    for name in metrics:
        entry = record["metrics"].get(name)
        row[name + _unit_and_arrow(name, cells)] = show(entry) if entry else ""
        row[name + OVER_SEEDS] = _show_seeds(entry, _over_seeds(record, cells, name))
    row["encoder parameters"] = _count(record["parameters"]["encoder"])
    row["trained parameters"] = _count(record["parameters"]["trained"])
    row["training (s)"] = f"{record['time']['train_s']:.0f}"
    row["caveats"] = "; ".join(caveats_of(record, _has_seeds(record, cells)))
    return row


def _show_seeds(entry, figures):
    if not entry or not figures:
        return ""
    mean, deviation, number = figures
    digits = digits_of(entry["unit"])
    return f"{mean:.{digits}f} ± {deviation:.{digits}f} ({number})"


def _unit_and_arrow(name, cells):
    entry = next(run["metrics"][name] for runs in cells.values() for run in runs if name in run["metrics"])
    return metric_title(name, entry).removeprefix(name)


def metric_title(name, entry):
    """The name and an entry of a metric -> "WER (%) ↓" """
    unit = f" ({entry['unit']})" if entry["unit"] not in ("", name) else ""
    return name + unit + (" ↓" if entry["better"] == "lower" else " ↑")


def _count(number):
    """94_371_712 -> "94.4 M" """
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.1f} {letter}"
    return str(number)


def _notes(records):
    """What the intervals are, on how many utterances; a warning when the rows have different test sets"""
    kinds = defaultdict(dict)
    for record in records:
        for name, entry in record["metrics"].items():
            kinds[interval_method(entry)][name] = True
    sentences = [
        "95 % intervals in brackets",
        *(f"{', '.join(names)}: {how}" for how, names in kinds.items()),
    ]
    tests = {record["data"].get(record["split"], {}).get("sha256") for record in records}
    if len(tests) > 1:
        sentences.append(f"These rows have {len(tests)} different test sets: do not rank them")
    return ". ".join(sentences) + "."


def interval_method(entry):
    """How an interval was made: "bootstrap over speakers, 512 utterances of 24 speakers, 1000 resamples" """
    counted = (OVER_SPEAKERS, verification.OVER_PAIRS)
    speakers = f" of {entry['n_units']} speakers" if entry["method"] in counted else ""
    things = "trials" if "trials" in entry["method"] else "utterances"
    resamples = f", {entry['resamples']} resamples" if entry["resamples"] else ""
    return f"{entry['method']}, {entry['n']} {things}{speakers}{resamples}"


def _csv_table(files, records, cells):
    """Flat table for programs: numbers unrounded, bounds and figures over seeds in columns of their own"""
    rows = [
        _csv_row(path, record, _metric_names(records), cells)
        for path, record in zip(files, records, strict=True)
    ]
    out = io.StringIO()
    columns = list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(map(escape.csv_cell, columns))
    writer.writerows([escape.csv_cell(row.get(name, "")) for name in columns] for row in rows)
    return out.getvalue()


def _csv_row(path, record, metrics, cells):
    row = {key: record[key] for key in ("task", "corpus", "split", "system", "mode", "layer", "seed")}
    row["system"] = system_name(record["system"])
    for name in metrics:
        entry = record["metrics"].get(name, {})
        row[name], row[f"{name}_unit"] = entry.get("value", ""), entry.get("unit", "")
        row[f"{name}_low"], row[f"{name}_high"] = entry.get("ci95") or ("", "")
        figures = _over_seeds(record, cells, name) if entry else None
        row[f"{name}_mean"], row[f"{name}_sd"], row[f"{name}_seeds"] = figures or ("", "", "")
    row["encoder_parameters"] = record["parameters"]["encoder"]
    row["trained_parameters"] = record["parameters"]["trained"]
    row["train_s"] = record["time"]["train_s"]
    row["frame_norm"] = frame_norm(record)
    row["caveats"] = "; ".join(caveats_of(record, _has_seeds(record, cells)))
    row["results"] = str(path)
    return row
