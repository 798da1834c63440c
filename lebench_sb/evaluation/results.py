"""results.json and utterances.csv of a run: written, read, put in tables, compared.

Every number the project shows comes from these two files. `results.json` holds scores, intervals and what
repeats the run; `utterances.csv` holds, per test utterance, the sums its scores are made of, so that two
runs can be compared.
"""

import csv
import io
import math
import re
from itertools import pairwise
from pathlib import Path, PurePath

from lebench_sb.core.errors import SHOWN, DataError, Problems, shorten
from lebench_sb.core.files import write_atomically
from lebench_sb.core.guard import read_json, regular
from lebench_sb.core.lines import json_text
from lebench_sb.evaluation.schema import check_record, is_finite

RESULTS, UTTERANCES = "results.json", "utterances.csv"
LEADING = ("ID", "spk_id", "gender", "duration")  # first columns of utterances.csv
TRIAL = ("score", "reference")  # where a row is a trial
TEXTS = ("spk_id_test", "reference", "hypothesis")  # its last columns; the first where a row is a trial


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
        bad = [key for key in ("duration", *sums) if not is_finite(row[key])]
        if bad:
            raise ValueError(f"utterance {row['ID']}: {bad[0]} is {row[bad[0]]!r}, expected a finite number.")
    return [*LEADING, *sums, *(key for key in TEXTS if key in expected)]


def find_results(paths):
    """One path or several, files or folders -> sorted list of the results.json files there and below.

    Below a folder, runs that `lebench benchmark` and the demo moved aside (`seed1.old1`) are left out.
    """
    files = set()
    for path in map(Path, [paths] if isinstance(paths, (str, PurePath)) else paths):
        if not path.exists():
            raise FileNotFoundError(f"{path} not found. Give a folder of results, or a results.json.")
        files.update([path] if path.is_file() else (p for p in path.rglob(RESULTS) if not _is_aside(p, path)))
    if not files:
        raise FileNotFoundError(f"No {RESULTS} below {paths}: a recipe writes it when its test has ended.")
    return sorted(files)


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
        raise DataError(f"{path}: rows of the same utterance: {first_five(twice)}.")
    return rows


def hypotheses(run, utterances, reference_of=None):
    """{ID: recognised text} that the recognition run in a folder has of these utterances.

    reference_of: utterance -> the words it must have been compared with; None: any. DataError lists
    utterances it did not score, or scored against others.
    """
    rows, problems = {row["ID"]: row for row in read_utterances(run)}, Problems(Path(run) / UTTERANCES)
    for u in utterances:
        row = rows.get(u.id)
        if row is None:
            problems.add("test utterances it did not score", u.id)
        elif "hypothesis" not in row:
            problems.add("utterances without a hypothesis (is it a recognition run?)", u.id)
        elif reference_of is not None and " ".join(row["reference"].split()) != reference_of(u):
            problems.add("references other than the words of this manifest (another normaliser?)", u.id)
    problems.raise_if_any()
    return {u.id: rows[u.id]["hypothesis"] for u in utterances}


def _file(path, name):
    path = Path(path)
    path = path / name if path.is_dir() else path
    if not path.exists():
        raise FileNotFoundError(f"{path} not found: a recipe writes {name} when its test has ended.")
    return path


def first_five(ids):
    return ", ".join(ids[:5]) + (" ..." if len(ids) > 5 else "")
