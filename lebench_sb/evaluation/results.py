"""results.json and utterances.csv of a run: written, read, put in tables, compared.

Every number the project shows comes from these two files. `results.json` holds scores, intervals and what
repeats the run; `utterances.csv` holds, per test utterance, the sums its scores are made of, so that two
runs can be compared.
"""

import csv
import difflib
import io
import json
import math
import platform
import re
import shlex
import statistics
import subprocess
import sys
from collections import defaultdict
from importlib import metadata
from itertools import pairwise
from pathlib import Path, PurePath

import numpy as np
from tabulate import tabulate

from lebench_sb import __version__
from lebench_sb.core import escape
from lebench_sb.core.errors import SHOWN, DataError, UsageError, shorten
from lebench_sb.core.files import write_atomically
from lebench_sb.core.guard import read_json, regular
from lebench_sb.core.lines import json_text
from lebench_sb.evaluation.metrics import classification, concordance, translation, verification
from lebench_sb.evaluation.metrics.bootstrap import OVER_SPEAKERS, paired_interval
from lebench_sb.evaluation.metrics.errors import mean, rate

RESULTS, UTTERANCES = "results.json", "utterances.csv"
LEADING = ("ID", "spk_id", "gender", "duration")  # first columns of utterances.csv
TRIAL = ("score", "reference")  # where a row is a trial
TEXTS = ("spk_id_test", "reference", "hypothesis")  # its last columns; the first where a row is a trial
STAMPS = (
    "synthetic speech",
    "same speaker in train and test",
    "test audio seen in pre-training",
    "one seed",
    "speaker overlap allowed",
    "audio shared between splits",
    "speakers not known",
    "emotion by prosody presets: plumbing check",
    "labels of another scheme",
    "settings changed after the start",
)
CLASSIFICATION = {  # functions of the confusion matrix
    "accuracy": classification.accuracy,
    "UAR": classification.unweighted_recall,
    "F1": classification.macro_f1,
}
CONCORDANCE = {"CCC": concordance.ccc, "RMSE": concordance.rmse}  # both of the same six sums
CONCORDANCE_COLUMNS = tuple(f"CCC_{name}" for name in concordance.COLUMNS)
FRAME_NORM = "frame norm"
OVER_SEEDS = " over seeds"  # ends the title of a column
NUMBER = (int, float)
NONE = type(None)
SCHEMA = {
    "task": str, "corpus": str, "split": str, "system": str, "layer": (str, int), "mode": str,
    "metrics": dict, "command": str, "overrides": dict, "seed": int, "commit": str, "dirty": (bool, NONE),
    "versions": dict, "data": dict, "text_normaliser": str, "parameters": dict, "stamps": list, "time": dict,
    "energy": dict,
}  # fmt: skip
METRIC = {
    "value": NUMBER, "unit": str, "ci95": (list, NONE), "method": str, "resamples": int, "n": int,
    "n_units": int, "better": str,
}  # fmt: skip
# What a record and a metric may hold besides: facts of a task (which weights were tested, ...); the signature
# and the own interval of the program that counted, "sacrebleu": {"plus_minus": 0.53, ...}
SCHEMA_OPTIONAL = {"details": dict}
METRIC_OPTIONAL = {"signature": str, "sacrebleu": dict}
SPLIT = {"sha256": str, "utterances": int, "hours": NUMBER}
SECTIONS = {
    "parameters": {"encoder": int, "trained": int},
    "time": {"train_s": NUMBER, "device_h": NUMBER},
    "energy": {"kwh": (*NUMBER, NONE), "co2_kg": (*NUMBER, NONE), "method": str},
}
# Of the parts of a run that counted their energy (lebench_sb/training/energy.py)
SECTIONS_OPTIONAL = {"energy": {"wall_s": NUMBER, "device_h": NUMBER, "parts": int}}
# They leave the experiment the same
RUN_KEYS = ("seed", "output_folder", "save_folder", "data_folder")
RUN_KEYS += ("energy_method", "device_watts", "pue", "co2_g_per_kwh")


def write_results(folder, record, utterances):
    """Writes `utterances.csv`, then `results.json`, each whole or not at all; a symbolic link is replaced.

    record: as in `check_record`. utterances: one dict per test utterance with ID, spk_id, gender, duration,
    then the sums of each metric (`WER_errors`, `WER_words` ...), and `reference` and `hypothesis` if the
    task has texts; the rows are sorted by ID. No utterances (pre-training): a file with its header. Raises
    ValueError for a wrong record or row, before anything is written.
    """
    check_record(record)
    rows = sorted(utterances, key=lambda row: row["ID"])
    columns = _columns(rows)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    # Removed first, so that a results.json always belongs to the utterances.csv beside it
    (folder / RESULTS).unlink(missing_ok=True)
    table = io.StringIO()
    writer = csv.DictWriter(table, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(folder / UTTERANCES, table.getvalue())
    write_atomically(folder / RESULTS, json_text(record, indent=1, ensure_ascii=False) + "\n")


def metric_entry(name, value, unit, interval, better):
    """One entry of "metrics": {name: {...}}. `interval` is a metrics.bootstrap.Interval of this value.

    unit: "%", "BLEU" or "" ...; better: "lower" or "higher".
    """
    if not math.isclose(value, interval.value, rel_tol=1e-6, abs_tol=1e-9):
        raise ValueError(f"{name} is {value}, but its interval belongs to the value {interval.value}.")
    bounds = None if interval.low is None else [float(interval.low), float(interval.high)]
    entry = {"value": float(value), "unit": unit, "ci95": bounds, "method": interval.method}
    counts = {"resamples": interval.resamples, "n": interval.n, "n_units": interval.n_units}
    return {name: {**entry, **counts, "better": better}}


def provenance(seed, overrides, command=None, root=None):
    """What repeats the run: command, overrides, seed, commit, dirty, versions, and energy as not measured.

    command: this process's own by default. root: the repository (default: where this package lies). Outside
    a repository commit is "unknown" and dirty null. `dirty`: files of the code differ from the commit or
    are new.
    """
    root = Path(root or Path(__file__).parents[2])
    packages = ("torch", "speechbrain", "transformers")
    versions = {name: _version(name) for name in packages}
    commit, dirty = _commit(root)
    return {
        "command": command or shlex.join(["python", *sys.argv]),
        "overrides": dict(overrides),
        "seed": seed,
        "commit": commit,
        "dirty": dirty,
        "versions": {**versions, "python": platform.python_version(), "lebench_sb": __version__},
        "energy": {"kwh": None, "co2_kg": None, "method": "not measured"},
    }


def code_version(root=None):
    """{commit, dirty, lebench_sb}: which code runs, as in `provenance`"""
    commit, dirty = _commit(Path(root or Path(__file__).parents[2]))
    return {"commit": commit, "dirty": dirty, "lebench_sb": __version__}


def environment():
    """Text for `env.log`: this interpreter, its packages, the code, the machine.

    SpeechBrain's description asks the first `pip` and `git` of the shell, which may belong to another Python
    and another repository.
    """
    versions = code_version()
    packages = sorted({f"{d.metadata['Name']}=={d.version}" for d in metadata.distributions()}, key=str.lower)
    lines = [
        f"Python: {sys.version}", f"interpreter: {sys.executable}", f"platform: {platform.platform()}",
        f"lebench_sb: {versions['lebench_sb']}, commit {versions['commit']}, changed: {versions['dirty']}",
        "", "Packages:", *packages,
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def _version(package):
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _commit(root):
    """Commit of the repository whose top is `root`, and whether its code differs; else ("unknown", None)."""
    top = _git(root, "rev-parse", "--show-toplevel")
    commit = _git(root, "rev-parse", "--verify", "HEAD")
    # An installed copy may lie inside somebody's own repository, whose commit says nothing of this code
    if not top or not commit or Path(top).resolve() != root.resolve():
        return "unknown", None
    code = [name for name in ("lebench_sb", "recipes", "hparams", "setup.py") if (root / name).exists()]
    return commit, bool(_git(root, "status", "--porcelain", "--", *code))


def _git(root, *arguments):
    """What git prints, "" when it fails or is not installed"""
    command = ["git", "-C", str(root), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _columns(rows):
    """Columns of utterances.csv; ValueError for a double ID, a missing or odd key, a sum not finite"""
    if not rows:
        return list(LEADING)
    expected = set(rows[0])
    sums = [key for key in rows[0] if key not in LEADING + TEXTS]
    seen = set()
    for row in rows:
        if set(row) != expected or not expected.issuperset(LEADING):
            odd = sorted((set(row) ^ expected) | (set(LEADING) - set(row)))
            raise ValueError(f"utterance {row['ID']}: keys missing or not in every row: {', '.join(odd)}")
        if row["ID"] in seen:
            raise ValueError(f"utterance {row['ID']} is scored twice.")
        seen.add(row["ID"])
        bad = [key for key in ("duration", *sums) if not _is_finite(row[key])]
        if bad:
            raise ValueError(f"utterance {row['ID']}: {bad[0]} is {row[bad[0]]!r}, expected a finite number.")
    return [*LEADING, *sums, *(key for key in TEXTS if key in expected)]


def _is_finite(value):
    """Whether a plain or numpy number is finite"""
    number = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
    return number and bool(np.isfinite(value))


def check_begin(values):
    """What results.json will refuse of a run's settings, told before the training and not after it.

    values: the loaded YAML of a run, {key: value}; of its keys `task`, `corpus`, `mode`, `normaliser`,
    `layer`, `stamps` and `seed`, those that are there. Raises UsageError naming each key and its value.
    """
    problems = [
        f"--{key} {values[key]!r}: {what}"
        for key, (fits, what) in BEGIN.items()
        if key in values and not fits(values[key])
    ]
    stamps = values.get("stamps")
    for stamp in stamps if isinstance(stamps, (list, tuple)) else ():
        if stamp not in STAMPS:
            problems.append(f"--{_unknown(stamp, STAMPS, 'stamps: ')}")
    if problems:
        raise UsageError("; ".join(problems))


def _is_name(value):
    return isinstance(value, str) and value.isprintable() and bool(value.strip())


def _is_whole(value):
    return isinstance(value, int) and not isinstance(value, bool)


BEGIN = {  # key of a YAML: what its value must be, and that in words
    **dict.fromkeys(("task", "corpus", "mode", "normaliser"), (_is_name, "a text of one line is expected")),
    "layer": (lambda v: _is_name(v) or _is_whole(v), "a number or a text is expected"),
    "seed": (lambda v: _is_whole(v) and 0 <= v < 2**32, "a whole number from 0 to 4294967295 is expected"),
    "stamps": (lambda v: isinstance(v, (list, tuple)), "a list is expected, as in [synthetic speech]"),
}


def check_record(record):
    """Raises ValueError naming missing, unknown and wrong keys of a record (SCHEMA and the tables below it).

    Also refuses numbers that are not finite, values JSON cannot hold, unknown stamps and bounds out of order.
    """
    if not isinstance(record, dict):
        raise ValueError(f"results: the record is a {type(record).__name__}, expected a dict")
    problems = _key_problems(record, SCHEMA, "", SCHEMA_OPTIONAL)
    for section, schema in SECTIONS.items():
        if section in record:
            optional = SECTIONS_OPTIONAL.get(section)
            problems += _key_problems(record[section], schema, f"{section}.", optional)
    for name, entry in _items(record, "metrics"):
        where = f"metrics.{name}."
        problems += _key_problems(entry, METRIC, where, METRIC_OPTIONAL) or _metric_problems(entry, where)
    for split in ("train", "valid", "test"):
        if split not in dict(_items(record, "data")):
            problems.append(f"data.{split} is missing ({{}} if there is none)")
    for split, entry in _items(record, "data"):
        problems += _key_problems(entry, SPLIT, f"data.{split}.") if entry != {} else []
    stamps = record.get("stamps") if isinstance(record.get("stamps"), list) else []
    problems += [_unknown(stamp, STAMPS, "stamps: ") for stamp in stamps if stamp not in STAMPS]
    norm = dict(_items(record, "details")).get("frame_norm", "")
    problems += [] if isinstance(norm, str) else [f"details.frame_norm is {norm!r}, expected str"]
    problems += _value_problems(record, "")
    if problems:
        more = f" ({len(problems)} problems, the first five)" if len(problems) > 5 else ""
        raise ValueError("results: " + "; ".join(problems[:5]) + more)


def _items(record, section):
    """Items of a section that is a dict; none of one that is not (reported already)"""
    found = record.get(section)
    return list(found.items()) if isinstance(found, dict) else []


def _key_problems(found, schema, where, optional=None):
    if not isinstance(found, dict):
        return [f"{where[:-1]} is {found!r}, expected a dict"]
    problems = [f"{where}{key} is missing" for key in schema if key not in found]
    schema = {**schema, **(optional or {})}
    problems += [_unknown(key, schema, where) for key in found if key not in schema]
    for key, kinds in schema.items():
        if key in found and not _is_a(found[key], kinds):
            names = " or ".join(kind.__name__ for kind in (kinds if isinstance(kinds, tuple) else (kinds,)))
            problems.append(f"{where}{key} is {found[key]!r}, expected {names}")
    return problems


def _is_a(value, kinds):
    """isinstance, with True and False no numbers"""
    kinds = kinds if isinstance(kinds, tuple) else (kinds,)
    return isinstance(value, kinds) and (bool in kinds or not isinstance(value, bool))


def _unknown(name, known, where):
    near = difflib.get_close_matches(str(name), list(known), n=1)
    hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}"
    return f"{where}{name} is unknown ({hint})"


def _metric_problems(entry, where):
    better, bounds = entry["better"], entry["ci95"]
    problems = []
    if better not in ("lower", "higher"):
        problems.append(f"{where}better is {better!r}, expected 'lower' or 'higher'")
    pair = bounds is None or (len(bounds) == 2 and all(map(_is_finite, bounds)))
    if not pair or (bounds and bounds[0] > bounds[1]):
        problems.append(f"{where}ci95 is {bounds!r}, expected [low, high] or null")
    return problems


def _value_problems(value, where):
    """What JSON cannot hold: NaN, infinities, other types, keys that are not texts"""
    if isinstance(value, dict):
        wrong = [f"{where}{key!r} is a key but no text" for key in value if not isinstance(key, str)]
        return wrong + [p for key, item in value.items() for p in _value_problems(item, f"{where}{key}.")]
    if isinstance(value, (list, tuple)):
        return [p for i, item in enumerate(value) for p in _value_problems(item, f"{where}{i}.")]
    if isinstance(value, (str, float, NONE)):
        finite = not isinstance(value, float) or math.isfinite(value)
        return [] if finite else [f"{where[:-1]} is {value}, expected a finite number"]
    if isinstance(value, int):
        return [] if abs(value) < 2**63 else [f"{where[:-1]} has over 18 digits"]
    return [f"{where[:-1]} is a {type(value).__name__}, expected text, number, list or dict"]


def find_results(paths):
    """One path or several, files or folders -> sorted list of the results.json files there and below.

    Below a folder, runs that `lebench benchmark` and the demo moved aside (`seed1.old1`) are left out.
    """
    found = set()
    for path in map(Path, [paths] if isinstance(paths, (str, PurePath)) else paths):
        if not path.exists():
            raise FileNotFoundError(f"{path} not found. Give a folder of results, or a results.json.")
        found.update([path] if path.is_file() else (p for p in path.rglob(RESULTS) if not _is_aside(p, path)))
    if not found:
        raise FileNotFoundError(f"No {RESULTS} below {paths}: a recipe writes it when its test has ended.")
    return sorted(found)


def _is_aside(path, above):
    return any(re.search(r"\.old\d+$", part) for part in path.relative_to(above).parts)


def read_results(path):
    """Folder of a run or its results.json -> checked record. FileNotFoundError, DataError name the file."""
    path = _file(path, RESULTS)
    record = read_json(path)
    try:
        check_record(record)
    except ValueError as error:
        raise DataError(f"{path}: {error}") from error
    return record


def read_all(files):
    """Files -> their records. Raises DataError naming every file that holds none, and the way out."""
    records, problems = [], []
    for path in files:
        try:
            records.append(read_results(path))
        except DataError as error:
            problems.append(str(error))
    if problems and len(files) > 1:
        more = f" and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        hint = f"{len(problems)} of {len(files)} files hold no results; name the others alone to see them."
        raise DataError(f"{'; '.join(map(shorten, problems[:SHOWN]))}{more}. {hint}")
    if problems:
        raise DataError(problems[0])
    return records


def read_utterances(path):
    """Folder of a run, or a file in it -> rows of utterances.csv, dicts of texts, sorted by ID. DataError
    names the file."""
    path = Path(path)
    path = _file(path if path.is_dir() else path.parent, UTTERANCES)
    try:
        with open(regular(path), encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            rows, header = list(reader), reader.fieldnames or ()
    except (csv.Error, UnicodeDecodeError) as error:
        raise DataError(f"{path}: {error}.") from error
    if missing := [name for name in LEADING if name not in header]:
        there = ", ".join(map(str, header)) or "none"
        raise DataError(f"{path}: no column {', '.join(missing)}; it has {there}.")
    if "spk_id_test" in header and (missing := [name for name in TRIAL if name not in header]):
        raise DataError(f"{path}: its rows are trials, and there is no column {', '.join(missing)}.")
    broken = next((row for row in rows if None in row or None in row.values()), None)
    if broken:
        raise DataError(f"{path}: the row of {broken.get('ID')!r} has more or fewer cells than the header.")
    rows.sort(key=lambda row: row["ID"])
    twice = [a["ID"] for a, b in pairwise(rows) if a["ID"] == b["ID"]]
    if twice:
        raise DataError(f"{path}: rows of the same utterance: {_first(twice)}.")
    return rows


def _file(path, name):
    path = Path(path)
    path = path / name if path.is_dir() else path
    if not path.exists():
        raise FileNotFoundError(f"{path} not found: a recipe writes {name} when its test has ended.")
    return path


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
    extra = {Path(path): found for path, found in (extra or {}).items()}
    names = dict.fromkeys(name for found in extra.values() for name in found)
    cells, groups, columns = defaultdict(list), defaultdict(list), {}
    for path, record in zip(files, records, strict=True):
        cells[cell(record)].append(record)
        columns[id(record)] = {name: extra.get(path, {}).get(name, "") for name in names}
    for runs in cells.values():
        first = min(runs, key=lambda run: run["seed"])
        groups[first["task"], first["corpus"], first["split"]].append(first)

    def row(record, metrics, cells):
        made = {**columns[id(record)], **_row(record, metrics, cells), "training (s)": ""}
        made["seeds"] = ", ".join(str(seed) for seed in sorted({run["seed"] for run in cells[cell(record)]}))
        return made | {"seed": ""}

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


def stamps_of(record, several_seeds):
    """Stamps of a record; a cell of several seeds is no longer "one seed"."""
    return [stamp for stamp in record["stamps"] if not (several_seeds and stamp == "one seed")]


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
    row["stamps"] = "; ".join(stamps_of(record, _has_seeds(record, cells)))
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
            kinds[_how(entry)][name] = True
    sentences = [
        "95 % intervals in brackets",
        *(f"{', '.join(names)}: {how}" for how, names in kinds.items()),
    ]
    tests = {record["data"].get(record["split"], {}).get("sha256") for record in records}
    if len(tests) > 1:
        sentences.append(f"These rows have {len(tests)} different test sets: do not rank them")
    return ". ".join(sentences) + "."


def _how(entry):
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
    row["stamps"] = "; ".join(stamps_of(record, _has_seeds(record, cells)))
    row["results"] = str(path)
    return row


def compare(a, b, metric=None):
    """Two folders of runs (or their results.json) -> text: differences and their 95 % intervals."""
    found = compare_records(a, b, metric)
    told = [found["test"], f"A: {found['a']}", f"B: {found['b']}"]
    lines = [*(escape.line(text, 5000) for text in told), ""]
    for name, entry in found["metrics"].items():
        digits = digits_of(entry["unit"])
        name, entry = escape.line(name), {**entry, **{k: escape.line(entry[k]) for k in ("unit", "method")}}
        difference = f"{entry['difference']:+.{digits}f}{brackets(entry['ci95'], digits, '+')}"
        lines += [
            f"{name} ({entry['unit']}): A {entry['a']:.{digits}f}, B {entry['b']:.{digits}f}",
            f"  A - B = {difference} (95 %, {_how(entry)})",
            f"  {_verdict(entry)}",
        ]
    return "\n".join([*lines, "", *(escape.line(note, 5000) for note in found["notes"])]) + "\n"


def compare_records(a, b, metric=None):
    """Paired bootstrap of two runs on one test set -> {"test", "a", "b", "metrics": {name: {...}}, "notes"}.

    Per metric: a, b, difference (a - b), ci95, probability (two-sided), excludes_zero, better ("A", "B" or
    None), unit, method, resamples, n, n_units: see metrics.bootstrap. ValueError: the test sets differ in ids
    or references, or no metric (or not `metric`) is shared and a function of sums in utterances.csv.
    """
    records = read_results(a), read_results(b)
    rows = read_utterances(a), read_utterances(b)
    _check_same_test_set(rows, (a, b))
    shared = [name for name in records[0]["metrics"] if name in records[1]["metrics"]]
    if all(found and "spk_id_test" in found[0] for found in rows):
        differ, comparable = _trial_difference, shared
    else:
        differ = _difference
        comparable = [name for name in shared if all(_is_summed(name, found) for found in rows)]
    names = comparable if metric is None else [metric]
    if not comparable or not set(names) <= set(comparable):
        known = ", ".join(comparable) or "none"
        wanted = metric or "no metric that both have"
        raise ValueError(f"{a} and {b}: {UTTERANCES} lacks the sums of {wanted}; it has those of: {known}.")
    return {
        "test": ", ".join(records[0][key] for key in ("task", "corpus", "split")),
        "a": _describe(a, records[0]),
        "b": _describe(b, records[1]),
        "metrics": {name: differ(name, records, rows, (a, b)) for name in names},
        "notes": _comparison_notes(records, [name for name in shared if name not in comparable]),
    }


def _sums(rows, metric):
    """The columns a metric is made of"""
    return [column for column in (rows[0] if rows else ()) if column.startswith(f"{metric}_")]


def _is_summed(metric, rows):
    """Whether the rows hold what the metric is a function of"""
    if metric in CLASSIFICATION:
        return bool(rows) and {"reference", "hypothesis"} <= set(rows[0])
    if metric in CONCORDANCE:
        return bool(rows) and set(CONCORDANCE_COLUMNS) <= set(rows[0])
    columns = _sums(rows, metric)
    return len(columns) == 2 or tuple(columns) == translation.COLUMNS.get(metric)


def _statistics(metric, unit, rows):
    """Rows of both runs -> (their statistics, each (n, k), and the score of their sums)"""
    if metric in CLASSIFICATION:
        classes = sorted({row[key] for found in rows for row in found for key in ("reference", "hypothesis")})
        pairs = [[[row[key] for row in found] for key in ("reference", "hypothesis")] for found in rows]
        return [classification.statistics(*pair, classes) for pair in pairs], CLASSIFICATION[metric]
    columns = CONCORDANCE_COLUMNS if metric in CONCORDANCE else _sums(rows[0], metric)
    score = CONCORDANCE.get(metric) or translation.SCORES.get(metric, rate if unit == "%" else mean)
    return [np.array([[_number(row, c) for c in columns] for row in found]) for found in rows], score


def _number(row, column):
    """A finite number of a row of utterances.csv; DataError naming the utterance"""
    try:
        value = float(row[column])
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        what = f"{column} is {row[column]!r}, expected a number"
        raise DataError(f"{UTTERANCES}, utterance {row['ID']}: {what}.")
    return value


def _check_same_test_set(rows, paths):
    """Raises ValueError naming the first five utterances that only one run has or whose references differ"""
    a, b = ({row["ID"]: row.get("reference") for row in found} for found in rows)
    alone = [sorted(a.keys() - b.keys()), sorted(b.keys() - a.keys())]
    for path, extra in zip(paths, alone, strict=True):
        if extra:
            raise ValueError(f"Different test sets: {len(extra)} utterances only in {path}: {_first(extra)}.")
    changed = [i for i in a if a[i] != b[i]]
    if changed:
        raise ValueError(
            f"Different references of {len(changed)} utterances in {paths[0]} and {paths[1]}: "
            f"{_first(changed)}. First: {a[changed[0]]!r} and {b[changed[0]]!r}. "
            "Compare runs with one text_normaliser."
        )


def _first(ids):
    return ", ".join(ids[:5]) + (" ..." if len(ids) > 5 else "")


def _difference(name, records, rows, paths):
    """Paired interval of one metric, and the check that the sums give the scores of results.json"""
    entry = records[0]["metrics"][name]
    sums, score = _statistics(name, entry["unit"], rows)
    for record, own, path in zip(records, sums, paths, strict=True):
        again, value = float(score(own.sum(axis=0))), record["metrics"][name]["value"]
        if not math.isclose(again, value, abs_tol=0.01):
            raise ValueError(f"{path}: {name} is {again:.3f} by {UTTERANCES} but {value:.3f} in {RESULTS}.")
    found = paired_interval(*sums, score, [row["spk_id"] for row in rows[0]], resamples=10_000)
    return _described_difference(found, entry, records[1]["metrics"][name])


def _trial_difference(name, records, rows, paths):
    """As `_difference`, of a metric of verification whose rows are trials with a score each"""
    entries = [record["metrics"][name] for record in records]
    if entries[0]["unit"] != entries[1]["unit"]:
        units = " and ".join(entry["unit"] for entry in entries)
        raise ValueError(f"{paths[0]} and {paths[1]}: {name} has other parameters ({units}).")
    function = verification.measure(name, entries[0]["unit"])
    targets = np.array([row["reference"] == "target" for row in rows[0]])
    speakers = [[row[column] for row in rows[0]] for column in ("spk_id", "spk_id_test")]
    scores = [np.array([_number(row, "score") for row in found]) for found in rows]
    for found, entry, path in zip(scores, entries, paths, strict=True):
        again = float(function(*verification.Ranking(found, targets).counts()))
        if not math.isclose(again, entry["value"], abs_tol=1e-6):
            raise ValueError(f"{path}: {name} is {again} by {UTTERANCES} but {entry['value']} in {RESULTS}.")
    resamples = 10_000 if len(targets) <= 100_000 else 1000  # minutes otherwise
    found = verification.differences(*scores, targets, speakers, {name: function}, resamples)[name]
    return _described_difference(found, *entries)


def _described_difference(found, entry, other):
    """A Difference of the metric entries of A and B as `compare_records` gives it"""
    excludes = found.low is not None and (found.low > 0 or found.high < 0)
    better = "A" if (found.value < 0) == (entry["better"] == "lower") else "B"
    return {
        "a": entry["value"], "b": other["value"], "difference": found.value,
        "ci95": None if found.low is None else [found.low, found.high], "probability": found.probability,
        "excludes_zero": excludes, "better": better if excludes else None, "unit": entry["unit"],
        "method": found.method, "resamples": found.resamples, "n": found.n, "n_units": found.n_units,
    }  # fmt: skip


def _describe(path, record):
    system = f"{system_name(record['system'])}, {record['mode']}, layer {record['layer']}"
    if norm := frame_norm(record):
        system += f", frame norm {norm}"
    return f"{path} ({system}, seed {record['seed']})"


def _verdict(entry):
    if entry["ci95"] is None:
        return "There is no interval: nothing can be said about the difference."
    p = f"p = {entry['probability']:.3f}" if entry["probability"] >= 0.001 else "p < 0.001"
    if entry["excludes_zero"]:
        return f"The interval excludes 0 ({p}): {entry['better']} is better."
    return f"The interval contains 0 ({p}): no difference is shown."


def _comparison_notes(records, skipped):
    notes = ["One training run each: the interval tells of other test utterances, not of other seeds."]
    if skipped:
        notes.append(f"Not compared (no sums in {UTTERANCES}): {', '.join(skipped)}.")
    for key in ("text_normaliser", "split"):
        if records[0][key] != records[1][key]:
            notes.append(f"The runs differ in {key}: {records[0][key]} and {records[1][key]}.")
    return notes
