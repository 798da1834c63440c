"""What results.json may hold: its keys and their types; settings it will refuse, told before the training."""

import difflib
import math

import numpy as np

from lebench_sb.core.errors import UsageError

CAVEATS = (
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
NUMBER = (int, float)
NONE = type(None)
SCHEMA = {
    "task": str, "corpus": str, "split": str, "system": str, "layer": (str, int), "mode": str,
    "metrics": dict, "command": str, "overrides": dict, "seed": int, "commit": str, "dirty": (bool, NONE),
    "versions": dict, "data": dict, "text_normaliser": str, "parameters": dict, "caveats": list, "time": dict,
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


def is_finite(value):
    """Whether a plain or numpy number is finite"""
    number = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
    return number and bool(np.isfinite(value))


def check_begin(values):
    """What results.json will refuse of a run's settings, told before the training and not after it.

    values: the loaded YAML of a run, {key: value}; of its keys `task`, `corpus`, `mode`, `normaliser`,
    `layer`, `caveats` and `seed`, those that are there. Raises UsageError naming each key and its value.
    """
    problems = [
        f"--{key} {values[key]!r}: {what}"
        for key, (fits, what) in BEGIN.items()
        if key in values and not fits(values[key])
    ]
    caveats = values.get("caveats")
    for caveat in caveats if isinstance(caveats, (list, tuple)) else ():
        if caveat not in CAVEATS:
            problems.append(f"--{_unknown(caveat, CAVEATS, 'caveats: ')}")
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
    "caveats": (lambda v: isinstance(v, (list, tuple)), "a list is expected, as in [synthetic speech]"),
}


def check_record(record):
    """Raises ValueError naming missing, unknown and wrong keys of a record (SCHEMA and the tables below it).

    Also refuses numbers that are not finite, values JSON cannot hold, unknown caveats, bounds out of order.
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
    caveats = record.get("caveats") if isinstance(record.get("caveats"), list) else []
    problems += [_unknown(caveat, CAVEATS, "caveats: ") for caveat in caveats if caveat not in CAVEATS]
    norm = dict(_items(record, "details")).get("frame_norm", "")
    problems += [] if isinstance(norm, str) else [f"details.frame_norm is {norm!r}, expected str"]
    problems += _value_problems(record, "")
    if problems:
        more = f" ({len(problems)} problems, the first five)" if len(problems) > 5 else ""
        raise ValueError("results: " + "; ".join(problems[:5]) + more)


def _items(record, section):
    """Items of a section that is a dict; none of one that is not (reported already)"""
    entries = record.get(section)
    return list(entries.items()) if isinstance(entries, dict) else []


def _key_problems(section, schema, where, optional=None):
    if not isinstance(section, dict):
        return [f"{where[:-1]} is {section!r}, expected a dict"]
    problems = [f"{where}{key} is missing" for key in schema if key not in section]
    schema = {**schema, **(optional or {})}
    problems += [_unknown(key, schema, where) for key in section if key not in schema]
    for key, kinds in schema.items():
        if key in section and not _is_a(section[key], kinds):
            names = " or ".join(kind.__name__ for kind in (kinds if isinstance(kinds, tuple) else (kinds,)))
            problems.append(f"{where}{key} is {section[key]!r}, expected {names}")
    return problems


def _is_a(value, kinds):
    """isinstance, with True and False no numbers"""
    kinds = kinds if isinstance(kinds, tuple) else (kinds,)
    return isinstance(value, kinds) and (bool in kinds or not isinstance(value, bool))


def _unknown(name, names, where):
    near = difflib.get_close_matches(str(name), list(names), n=1)
    hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(names)}"
    return f"{where}{name} is unknown ({hint})"


def _metric_problems(entry, where):
    better, bounds = entry["better"], entry["ci95"]
    problems = []
    if better not in ("lower", "higher"):
        problems.append(f"{where}better is {better!r}, expected 'lower' or 'higher'")
    pair = bounds is None or (len(bounds) == 2 and all(map(is_finite, bounds)))
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
