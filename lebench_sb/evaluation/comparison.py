"""Two runs on one test set: the paired difference of each metric with its 95 % interval."""

import math

import numpy as np

from lebench_sb.core import escape
from lebench_sb.core.errors import DataError
from lebench_sb.evaluation.metrics import classification, concordance, translation, verification
from lebench_sb.evaluation.metrics.bootstrap import paired_interval
from lebench_sb.evaluation.metrics.errors import mean, rate
from lebench_sb.evaluation.results import RESULTS, UTTERANCES, first_five, read_results, read_utterances
from lebench_sb.evaluation.tables import brackets, digits_of, frame_norm, interval_method, system_name

CONCORDANCE_COLUMNS = tuple(f"CCC_{name}" for name in concordance.COLUMNS)


def compare(a, b, metric=None):
    """Two folders of runs (or their results.json) -> text: differences and their 95 % intervals."""
    comparison = compare_records(a, b, metric)
    told = [comparison["test"], f"A: {comparison['a']}", f"B: {comparison['b']}"]
    lines = [*(escape.line(text, 5000) for text in told), ""]
    for name, entry in comparison["metrics"].items():
        digits = digits_of(entry["unit"])
        name, entry = escape.line(name), {**entry, **{k: escape.line(entry[k]) for k in ("unit", "method")}}
        difference = f"{entry['difference']:+.{digits}f}{brackets(entry['ci95'], digits, '+')}"
        lines += [
            f"{name} ({entry['unit']}): A {entry['a']:.{digits}f}, B {entry['b']:.{digits}f}",
            f"  A - B = {difference} (95 %, {interval_method(entry)})",
            f"  {_verdict(entry)}",
        ]
    return "\n".join([*lines, "", *(escape.line(note, 5000) for note in comparison["notes"])]) + "\n"


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
    if all(of_run and "spk_id_test" in of_run[0] for of_run in rows):
        differ, comparable = _trial_difference, shared
    else:
        differ = _difference
        comparable = [name for name in shared if all(_is_summed(name, of_run) for of_run in rows)]
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
    if metric in classification.SCORES:
        return bool(rows) and {"reference", "hypothesis"} <= set(rows[0])
    if metric in concordance.SCORES:
        return bool(rows) and set(CONCORDANCE_COLUMNS) <= set(rows[0])
    columns = _sums(rows, metric)
    return len(columns) == 2 or tuple(columns) == translation.COLUMNS.get(metric)


def _statistics(metric, unit, rows):
    """Rows of both runs -> (their statistics, each (n, k), and the score of their sums)"""
    if metric in classification.SCORES:
        classes = sorted(
            {row[key] for of_run in rows for row in of_run for key in ("reference", "hypothesis")}
        )
        pairs = [[[row[key] for row in of_run] for key in ("reference", "hypothesis")] for of_run in rows]
        return [classification.statistics(*pair, classes) for pair in pairs], classification.SCORES[metric]
    columns = CONCORDANCE_COLUMNS if metric in concordance.SCORES else _sums(rows[0], metric)
    score = concordance.SCORES.get(metric) or translation.SCORES.get(metric, rate if unit == "%" else mean)
    return [np.array([[_number(row, c) for c in columns] for row in of_run]) for of_run in rows], score


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
            raise ValueError(
                f"Different test sets: {len(extra)} utterances only in {path}: {first_five(extra)}."
            )
    changed = [i for i in a if a[i] != b[i]]
    if changed:
        raise ValueError(
            f"Different references of {len(changed)} utterances in {paths[0]} and {paths[1]}: "
            f"{first_five(changed)}. First: {a[changed[0]]!r} and {b[changed[0]]!r}. "
            "Compare runs with one text_normaliser."
        )


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
    scores = [np.array([_number(row, "score") for row in of_run]) for of_run in rows]
    for of_run, entry, path in zip(scores, entries, paths, strict=True):
        again = float(function(*verification.Ranking(of_run, targets).counts()))
        if not math.isclose(again, entry["value"], abs_tol=1e-6):
            raise ValueError(f"{path}: {name} is {again} by {UTTERANCES} but {entry['value']} in {RESULTS}.")
    resamples = 10_000 if len(targets) <= 100_000 else 1000  # minutes otherwise
    of_run = verification.differences(*scores, targets, speakers, {name: function}, resamples)[name]
    return _described_difference(of_run, *entries)


def _described_difference(pair, entry, other):
    """A Difference of the metric entries of A and B as `compare_records` gives it"""
    excludes = pair.low is not None and (pair.low > 0 or pair.high < 0)
    better = "A" if (pair.value < 0) == (entry["better"] == "lower") else "B"
    return {
        "a": entry["value"], "b": other["value"], "difference": pair.value,
        "ci95": None if pair.low is None else [pair.low, pair.high], "probability": pair.probability,
        "excludes_zero": excludes, "better": better if excludes else None, "unit": entry["unit"],
        "method": pair.method, "resamples": pair.resamples, "n": pair.n, "n_units": pair.n_units,
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
