"""The manifest as it is read: rows checked, with their lines, and their paths expanded."""

import csv
import io
import math
import os

from lebench_sb.audio.members import file_of
from lebench_sb.core.errors import SHOWN, DataError, Problems, nearest
from lebench_sb.manifests.formats import refuse_other_formats
from lebench_sb.manifests.markers import ROOT
from lebench_sb.manifests.member_names import path_fault
from lebench_sb.manifests.tables import check_names, fits, read_text, separator, table_rows
from lebench_sb.manifests.utterance import (
    COLUMNS,
    GENDERS,
    PATH_LABELS,
    SECONDS,
    Utterance,
    check_tags,
    segment_faults,
)

NO_ROWS = "0 utterances, only a header; was the preparation interrupted?"


def read_manifest(path, data_root):
    """The utterances of the manifest `path`, in file order, with absolute paths below `data_root`.

    Every utterance has every label column, empty where the file is. Files named in the manifest are not
    opened. Raises FileNotFoundError, or DataError that names lines: encoding, separator, columns, short or
    long rows, numbers, duplicate IDs.
    """
    root = root_prefix(data_root)
    refuse_other_formats(path, "a manifest")
    problems, lines, utterances = Problems(path), {}, []
    text = io.StringIO(read_text(path), newline="")
    for line, u in manifest_rows(path, text, root, problems):
        lines.setdefault(u.id, []).append(line)
        utterances.append(u)
    for name, where in lines.items():
        if len(where) > 1:
            add_double(problems, name, where)
    problems.raise_if_any()
    if not utterances:
        raise DataError(f"{path}: {NO_ROWS}")
    return utterances


def root_prefix(data_root):
    """What takes the place of `$data_root/`. Raises FileNotFoundError unless `data_root` is a folder."""
    if not os.path.isdir(data_root):
        raise FileNotFoundError(f"data_root {data_root} is not a folder.")
    return os.path.abspath(data_root).rstrip(os.sep) + os.sep


def add_double(problems, name, lines):
    """Adds an ID that stands in several lines."""
    problems.add("duplicate ID", f"{name} (lines {', '.join(map(str, lines[:SHOWN]))})")


def manifest_rows(path, text, root, problems):
    """Yields (line, Utterance) of an open manifest, one row in memory at a time.

    text: the file, opened with newline=""; root: takes the place of `$data_root/`. What is wrong with single
    rows is added to `problems`, which the caller raises. Raises DataError for columns, broken quotation, and
    at the end for rows of another length than the header's.
    """
    rows = table_rows(path, text, ",", csv.QUOTE_MINIMAL)
    header, shape = next(rows)[1], Problems(path)
    check_names(path, header)
    _check_header(path, header)
    labels = [name for name in header if name not in COLUMNS]
    for line, fields in rows:
        if fits(header, line, fields, shape):
            yield line, _utterance(dict(zip(header, fields, strict=True)), labels, root, problems, line)
    shape.raise_if_any()


def _check_header(path, header):
    missing = [name for name in COLUMNS if name not in header]
    if not missing:
        return
    if len(header) == 1 and (used := separator(header[0])) != ",":
        hint = "`lebench prepare own` reads comma, semicolon and tab"
        raise DataError(f"{path}: columns are separated by {used!r}, a manifest needs commas; {hint}.")
    hints = [f"{name}{nearest(name, header)}" for name in missing]
    raise DataError(f"{path}: columns missing: {', '.join(hints)}. Found: {', '.join(header)}.")


def _utterance(row, labels, root, problems, line):
    """One row as an Utterance; what is wrong is added to `problems` with its line."""
    start = _read_seconds(row, "start", problems, line) if row["start"] else None
    stop = _read_seconds(row, "stop", problems, line) if row["stop"] else None
    duration = _read_seconds(row, "duration", problems, line)
    if not row["ID"]:
        problems.add("empty ID", f"line {line}")
    if "\0" in row["ID"]:
        problems.add("ID with a NUL byte", f"line {line} {row['ID']!r}")
    _check_places(row, root, problems, line)
    if row["gender"] not in GENDERS:
        problems.add("gender not F, M or U", f"line {line} {row['gender']!r}")
    values = {name: row[name] for name in labels}
    for name in PATH_LABELS:
        if name in values:
            values[name] = _expand(values[name], root)
    wav, speaker, gender, language = _expand(row["wav"], root), row["spk_id"], row["gender"], row["language"]
    u = Utterance(row["ID"], wav, duration, start, stop, speaker, gender, language, values)
    if duration <= 0:
        problems.add("duration not positive", f"line {line} {row['duration']!r}")
    for fault in segment_faults(u):
        problems.add(fault, f"line {line}")
    if "semantics" in values:
        check_tags(problems, values["semantics"], f"line {line}")
    return u


def _check_places(row, root, problems, line):
    """Adds what is wrong with the paths of a row. root: as of `manifest_rows`; a `$data_root/` in its place
    stands for a folder that is not known yet."""
    if not row["wav"].startswith(ROOT):
        problems.add(f"wav does not begin with {ROOT}", f"line {line} {row['wav']!r}")
    for name in ("wav", *PATH_LABELS):
        if fault := place_fault(name, row.get(name, ""), root):
            problems.add(f"{name} {fault}", f"line {line} {row[name]!r}")


def place_fault(name, value, root):
    """What is wrong with the value of a path column, "" for a path in data_root or no path. root: the folder,
    ending with /, or `$data_root/` where it is not known yet."""
    if not value or name == "tree" and ("\t" in value or "\n" in value):  # a sentence in CoNLL-U
        return ""
    if fault := path_fault(value):
        return fault
    root_is_known, path = root != ROOT, _expand(value, root)
    if name != "wav" and root_is_known and os.path.isabs(path) and not path.startswith(root):
        return f"is not in data_root {root}"
    if "\\" in value and root_is_known and name != "tree" and not os.path.exists(file_of(path)):
        return "is not found: folders are separated by /, not by a backslash"
    return ""


def expand(value, root):
    """`value` with `root` in place of a `$data_root/` at its beginning. Raises DataError for a path that
    leaves the folder."""
    if fault := path_fault(value) if value.startswith(ROOT) else "":
        raise DataError(f"{value!r} {fault}.")
    return _expand(value, root)


def _expand(value, root):
    return root + value[len(ROOT) :] if value.startswith(ROOT) else value


def _read_seconds(row, column, problems, line):
    """The number in a column; 1.0, and a problem, where it is anything but digits with a dot."""
    if SECONDS.fullmatch(row[column]) and math.isfinite(value := float(row[column])):
        return value
    kind = f"{column} is not a number of seconds (decimal point, no unit)"
    problems.add(kind, f"line {line} {row[column]!r}")
    return 1.0
