"""Time-continuous labels: one value of an emotional dimension per instant of a recording.

A trace is a file of its own, named by the manifest's column `trace`: ARFF (RECOLA), or a table with a header
separated by commas, semicolons or tabs (AlloSat; your own). One column holds the values; another, if there
is one, their times in seconds of the audio file. Without times the values are spread evenly over the
recording.

Letters: N values of a trace.
"""

import csv
import logging
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lebench_sb.core.errors import DataError, Problems, nearest
from lebench_sb.manifests.tables import read_table, read_text, separator

TIMES = {"frametime", "time", "times", "temps", "timestamp", "seconds", "secondes", "t"}  # names, lower case
UNIT = re.compile(r"([\s_]+|\s*[(\[])(s|sec|seconds|secondes)[)\]]?$")  # of "time (s)", "time_s"
NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")
ATTRIBUTE = re.compile(r"@attribute\s+('[^']*'|\"[^\"]*\"|\S+)\s+\S", re.IGNORECASE)
UNCOVERED = 0.05  # share of a recording (at least UNCOVERED_SECONDS) that a trace may leave without values
UNCOVERED_SECONDS = 1.0
STEPS = 10  # times the usual step between two values may pass where more than the above passes without one
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Trace:
    """times (N,) seconds, strictly increasing; values (N,), finite; both float64."""

    times: np.ndarray
    values: np.ndarray

    def at(self, times):
        """Seconds (F,) -> values (F,): linear between two, the first and last one held beyond the ends"""
        return np.interp(times, self.times, self.values)


def read_trace(path, column, seconds, whole=True):
    """The Trace in `path` (.arff, else a table), of a recording of `seconds`.

    column: its column of values, or "" for the only one that is neither time nor text; whole: False where
    the recording goes on after `seconds`. Raises FileNotFoundError, or DataError that names the lines:
    columns, numbers, times that do not increase, a trace that leaves over 5 % of the recording without
    values, at an end or between two values, or goes on as long after its end.
    """
    path = Path(path)
    header, rows = _read_arff(path) if path.suffix.lower() == ".arff" else _read_csv(path)
    if len(rows) < 2:
        raise DataError(f"{path}: {len(rows)} values, a trace has at least 2.")
    time = next((i for i, name in enumerate(header) if UNIT.sub("", name.lower()) in TIMES), None)
    value, problems = _value_column(path, header, rows, column, time), Problems(path)
    values = _numbers(rows, value, header[value], problems)
    if time is None and not whole:
        raise DataError(f"{path} has no column of times, which a piece of a recording needs (start, stop).")
    if time is None:
        times = (np.arange(len(rows)) + 0.5) * seconds / len(rows)
    else:
        times = _numbers(rows, time, header[time], problems)
        for k in np.flatnonzero(np.diff(times) <= 0) if not problems else ():
            after = f"line {rows[k + 1][0]}: {times[k + 1]:g} s after {times[k]:g} s"
            problems.add("times that do not increase", after)
    problems.raise_if_any()
    _check_coverage(path, times, seconds, whole)
    _check_holes(path, times, seconds, [line for line, _ in rows])
    return Trace(times, values)


def read_traces(utterances, column, limits=(-np.inf, np.inf)):
    """Utterances with the label `trace` -> {path: Trace}, each file read once.

    limits: lowest and highest value a trace may hold. Traces that never change, with which nothing agrees
    (CCC is 0 there), are told in a warning. Raises DataError that lists the faults of all files.
    """
    lasts, traces, problems = {}, {}, Problems("traces")
    for u in utterances:
        if path := u.labels.get("trace"):
            end, whole = lasts.get(path, (0.0, True))
            lasts[path] = max(end, u.duration if u.stop is None else u.stop), whole and u.stop is None
        else:
            problems.add("no trace (column trace)", u.id)
    for path, (seconds, whole) in sorted(lasts.items()):
        try:
            trace = traces[path] = read_trace(path, column, seconds, whole)
        except (DataError, FileNotFoundError) as error:
            problems.add("files that cannot be used", error)
            continue
        low, high = float(trace.values.min()), float(trace.values.max())
        if low < limits[0] or high > limits[1]:
            kind = f"values outside trace_range [{limits[0]:g}, {limits[1]:g}] (give another --trace_range)"
            problems.add(kind, f"{path} has {low:g} to {high:g}")
    problems.raise_if_any()
    constant = [path for path, trace in traces.items() if np.ptp(trace.values) == 0]
    if constant:
        shown = ", ".join(constant[:5])
        logger.warning("%d of %d traces never change: %s", len(constant), len(traces), shown)
    return traces


def _read_arff(path):
    """(names of the attributes, [(line number, fields), ...]) of an ARFF file with dense rows"""
    header, rows, problems = [], [], Problems(path)
    lines = read_text(path).splitlines()
    begin = next((n for n, line in enumerate(lines) if line.strip().lower() == "@data"), None)
    if begin is None:
        raise DataError(f"{path}: no line @data; is it an ARFF file?")
    for line in lines[:begin]:
        if match := ATTRIBUTE.match(line.strip()):
            header.append(match[1].strip("'\""))
    for number, line in enumerate(lines[begin + 1 :], begin + 2):
        if not line.strip() or line.lstrip().startswith("%"):
            continue
        fields = _arff_fields(line)
        if len(fields) == len(header):
            rows.append((number, fields))
        else:
            kind = f"rows that do not have the {len(header)} fields of the @attribute lines"
            problems.add(kind, f"line {number} has {len(fields)}")
    problems.raise_if_any()
    return header, rows


def _arff_fields(line):
    """The fields of a line of ARFF, which quotes with '; a line that cannot be cut is one field"""
    try:
        return [field.strip() for field in next(csv.reader([line], quotechar="'", skipinitialspace=True))]
    except csv.Error:  # a field of over 131,072 characters
        return [line]


def _read_csv(path):
    """(header, [(line number, fields), ...]) of a delimited file with a header"""
    header, rows = read_table(path, separator(read_text(path).split("\n", 1)[0]))
    header = [name.strip() for name in header]
    if any(NUMBER.fullmatch(name) for name in header):
        raise DataError(f"{path}: its first line is numbers; put names of columns there (time,value).")
    return header, [(line, [field.strip() for field in fields]) for line, fields in rows]


def _value_column(path, header, rows, column, time):
    """Number of the column of values; DataError naming the columns there are"""
    if column:
        if column not in header:
            hint, there = nearest(column, header), ", ".join(header)
            raise DataError(f"{path} has no column {column!r}{hint}; it has {there}. Give --trace_column.")
        return header.index(column)
    first = rows[0][1]
    columns = [i for i in range(len(header)) if i != time and NUMBER.fullmatch(first[i])]
    if len(columns) != 1:
        names = ", ".join(header[i] for i in columns) or "none"
        raise DataError(f"{path}: give the column of values with --trace_column; of numbers: {names}.")
    return columns[0]


def _numbers(rows, column, name, problems):
    """Column of the rows -> (N,) float64; anything but a finite number with a point is a problem and NaN"""
    values = np.full(len(rows), np.nan)
    for k, (line, fields) in enumerate(rows):
        if NUMBER.fullmatch(fields[column]) and np.isfinite(value := float(fields[column])):
            values[k] = value
        else:
            kind = f"{name} is not a finite number (decimal point, no unit)"
            problems.add(kind, f"line {line} {fields[column]!r}")
    return values


def _check_coverage(path, times, seconds, whole):
    """DataError where a trace cannot belong to a recording of that length"""
    allowed = max(UNCOVERED_SECONDS, UNCOVERED * seconds)
    longer = times[-1] > seconds + allowed and whole
    if times[0] < 0 or times[0] > allowed or times[-1] < seconds - allowed or longer:
        hint = " Are its times milliseconds?" if times[-1] > 100 * seconds else ""
        raise DataError(
            f"{path}: values from {times[0]:g} to {times[-1]:g} s for a recording of {seconds:.2f} s; "
            f"{allowed:.2f} s may differ.{hint}"
        )


def _check_holes(path, times, seconds, lines):
    """DataError where times are missing between two values: what lies there would be drawn as a line"""
    steps, allowed = np.diff(times), max(UNCOVERED_SECONDS, UNCOVERED * seconds)
    problems = Problems(path)
    for k in np.flatnonzero(steps > max(allowed, STEPS * float(np.median(steps)))):
        kind = f"values missing for over {allowed:.2f} s"
        problems.add(kind, f"line {lines[k + 1]}: {times[k + 1]:g} s after {times[k]:g} s")
    problems.raise_if_any()
