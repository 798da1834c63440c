"""Your own recordings: one CSV or TSV with any header becomes train.csv, valid.csv and test.csv.

You say which of your columns is what (`ID`, `wav`, `wrd`, `spk_id`, ...), which rows to keep, and either
which column names the split or in which proportions to draw it. Everything wrong with the file is listed at
once, with its lines.
"""

import hashlib
import json
import os
import re
from collections import Counter
from pathlib import Path

from lebench_sb.core.errors import DataError, Problems, UsageError, nearest
from lebench_sb.core.files import write_atomically
from lebench_sb.core.guard import read_json
from lebench_sb.corpora._caveats import SAME_SPEAKER
from lebench_sb.corpora._prepare import SPLITS
from lebench_sb.corpora._rows import FIXED, Reading
from lebench_sb.corpora._splits import draw_groups
from lebench_sb.corpora._text import EMPTY
from lebench_sb.corpora.formats.tables import condition, filtered, read_any
from lebench_sb.manifests.markers import LeftOut, is_prepared, parameters_hash, refuse_foreign, remove_marked
from lebench_sb.manifests.writing import write_manifest
from lebench_sb.text.normaliser import normaliser as text_normaliser

MEANT = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("valid", "validation", "val", "dev", "development"), "valid"),
    **dict.fromkeys(("test", "testing"), "test"),
}
LABELS = ("wrd", "text", "semantics", "emotion", "intent", "trace", "tree", "channel")
REPORT = "own.done.json"


def prepare_own(
    csv, columns, data_root, output, where=(), split=None, ratios=(0.8, 0.1, 0.1), seed=0, normaliser="fr-1",
    language="fr",
):  # fmt: skip
    """Writes the manifests of the splits that have rows into the folder `output`.

    csv: file with a header, separated by commas, semicolons or tabs; columns: {manifest column: its column},
    at least `wav` (absolute, or relative to data_root or to the file); where: conditions that all hold,
    `language=fr`, `split!=test`, `tasks~asr` (holds the word), `tasks!~asr`; split: its column of train,
    valid (dev) and test, or None to draw the splits by `ratios` (train, valid, test; parts of the total
    duration when drawn by speaker) with `seed`, speakers apart where there are enough; normaliser: of `wrd`;
    language: of rows without one.

    Without a `wrd` column no transcript is needed. Durations are measured, and checked where a column gives
    them. Rows whose audio does not decode or whose text the normaliser cannot read are left out of train,
    counted, up to 1 %; drawn splits have them in train. More, or any in valid and test, is an error.

    Returns {"splits": {name: marker}, "notes": [what a reader should know], "reused": bool}; a second call
    with the same parameters, an unchanged file and unchanged audio writes nothing. Raises UsageError (also
    for files in `output` that are not ours), FileNotFoundError, DataError.
    """
    csv, output, where = Path(csv), Path(output), [where] if isinstance(where, str) else list(where)
    _check_arguments(csv, data_root, output, ratios)
    normalise = _normalise(normaliser)
    parameters = _parameters(csv, columns, data_root, where, split, ratios, seed, normaliser, language)
    if done := _finished(output, parameters):
        return done | {"reused": True}
    _refuse_foreign(output)
    header, rows = read_any(csv)
    _check_columns(csv, header, columns, where, split)
    notes, reading = [], Reading(csv, data_root, normalise, language)
    rows = filtered(csv, rows, where, notes)
    utterances = reading.utterances(rows, columns)
    if split is None:
        splits = _draw(utterances, reading.bad, ratios, seed, notes)
    else:
        splits = _assign(csv, utterances, rows, split, notes)
    return _write(output, splits, reading, parameters, notes, "wrd" in columns) | {"reused": False}


def _parameters(csv, columns, data_root, where, split, ratios, seed, normaliser, language):
    """Everything the manifests depend on, for their markers."""
    return {
        "corpus": "own",
        "csv_sha256": hashlib.sha256(csv.read_bytes()).hexdigest(),
        "data_root": os.path.abspath(data_root),
        **{"columns": dict(columns), "where": where, "split": split, "ratios": list(ratios), "seed": seed},
        **{"normaliser": normaliser, "language": language},
    }


def _check_arguments(csv, data_root, output, ratios):
    if not csv.is_file():
        raise FileNotFoundError(f"{csv} not found: it should be your table with one row per recording.")
    if not os.path.isdir(data_root):
        raise FileNotFoundError(f"data_root {data_root} is not a folder.")
    if len(ratios) != 3 or min(ratios) < 0 or ratios[0] == 0 or abs(sum(ratios) - 1) > 1e-6:
        raise UsageError(f"ratios {tuple(ratios)}: train, valid and test must sum to 1, train above 0.")
    if csv.resolve() in [(output / f"{name}.csv").resolve() for name in SPLITS]:
        raise UsageError(f"{csv} would be overwritten by its own manifest: give another output folder.")


def _normalise(name):
    """The normaliser called `name`; UsageError with the nearest name for another."""
    try:
        return text_normaliser(name)
    except ValueError as error:
        raise UsageError(str(error)) from None


def _finished(output, parameters):
    """The report of an earlier call with these parameters whose manifests are all in place, or None."""
    try:
        done = json.loads((output / REPORT).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    if done.pop("parameters_sha256", None) != parameters_hash(parameters):
        return None
    root = parameters["data_root"]
    whole = all(is_prepared(output / f"{name}.csv", parameters, root) for name in done["splits"])
    return done if whole else None


def _refuse_foreign(output):
    """Raises UsageError, before any work, for files in the places of ours that we did not make"""
    for name in SPLITS:
        refuse_foreign(output / f"{name}.csv")
    report = output / REPORT
    if report.exists() and not {"splits", "parameters_sha256"} <= set(read_json(report, UsageError)):
        raise UsageError(f"{report} is no report of ours. Give another folder, or move or delete it.")


def _check_columns(csv, header, columns, where, split):
    """Raises UsageError for a manifest column that does not exist or a column the file does not have."""
    for name in columns:
        if name not in (*FIXED, *LABELS) and not re.fullmatch("translation_[a-z]{2,3}", name):
            known = ", ".join((*FIXED, *LABELS, "translation_<language>"))
            hint = nearest(name, (*FIXED, *LABELS))
            raise UsageError(f"columns: {name} is no column of a manifest{hint}; there are {known}.")
    there = ", ".join(header)
    if "wav" not in columns:
        raise UsageError(f"columns: wav=<column of the audio path> is missing; {csv} has {there}.")
    if ("start" in columns) != ("stop" in columns):
        raise UsageError("columns: start and stop go together.")
    conditions = [condition(text)[0] for text in where]
    for name in [*columns.values(), *conditions, *([split] if split else [])]:
        if name not in header:
            raise UsageError(f"{csv} has no column {name!r}{nearest(name, header)}; it has {there}.")


def _assign(csv, utterances, rows, column, notes):
    """{split: utterances} by the values of the table's column, which are noted."""
    problems, splits, seen = Problems(csv), {name: [] for name in SPLITS}, Counter()
    for u, (line, row) in zip(utterances, rows, strict=True):
        value = row[column].strip()
        if value.lower() not in MEANT:
            problems.add(f"{column} is no split (train, valid or dev, test)", f"line {line} {value!r}")
            continue
        splits[MEANT[value.lower()]].append(u)
        seen[value] += 1
    problems.raise_if_any()
    read = ", ".join(f"{value} -> {MEANT[value.lower()]} ({count})" for value, count in seen.items())
    notes.append(f"{column}: {read}")
    return splits


def _draw(utterances, bad, ratios, seed, notes):
    """{split: utterances} drawn with `seed`; those that cannot be used (ids) are in train"""
    splits = _drawn([u for u in utterances if u.id not in bad], ratios, seed, notes)
    splits["train"] += [u for u in utterances if u.id in bad]
    return splits


def _drawn(utterances, ratios, seed, notes):
    """{split: utterances} drawn with `seed`: by speaker where there are enough, else by recording; noted."""
    wanted = sum(ratio > 0 for ratio in ratios)
    speakers = {u.speaker for u in utterances}
    if wanted == 1:
        notes.append("all rows go to train")
        return {"train": list(utterances), "valid": [], "test": []}
    if "" not in speakers and len(speakers) >= wanted:
        notes.append("splits drawn by speaker")
        return draw_groups(utterances, ratios, seed, lambda u: u.speaker)
    reason = "speakers not known" if "" in speakers else f"{len(speakers)} speakers for {wanted} splits"
    notes.append(f"splits drawn by recording: {reason}")
    # pieces of one recording stay together: neighbours share words and background
    return draw_groups(utterances, ratios, seed, lambda u: u.wav)


def _write(output, splits, reading, parameters, notes, with_text):
    """Writes the manifests, then own.done.json with the report it returns; our own left-overs are removed."""
    _check_apart(splits)
    caveats, problems = _caveats(splits), Problems(reading.csv)
    markers, notes, left_out = {}, [*notes, *caveats], {name: LeftOut(name) for name in SPLITS}
    for name in SPLITS:
        splits[name] = _usable(splits[name], reading, left_out[name], problems, notes)
    problems.raise_if_any()
    if with_text:
        splits = {name: _with_text(name, each, left_out[name], notes) for name, each in splits.items()}
    if not any(splits.values()):
        raise DataError(f"{output}: no utterance is left, every transcript is empty.")
    (output / REPORT).unlink(missing_ok=True)
    for name in SPLITS:
        path = output / f"{name}.csv"
        if splits[name]:
            root = reading.data_root
            markers[name] = write_manifest(path, splits[name], root, parameters, (), left_out[name], caveats)
            continue
        notes.append(f"no {name}.csv: no row is in this split")
        remove_marked(path)
    report = {"splits": markers, "notes": notes}
    content = report | {"parameters_sha256": parameters_hash(parameters)}
    write_atomically(output / REPORT, json.dumps(content, indent=1, ensure_ascii=False).encode())
    return report


def _usable(utterances, reading, left_out, problems, notes):
    """The utterances of a split without the bad ones, where these may be left out (LeftOut.spare)"""
    bad = [reading.bad[u.id] for u in utterances if u.id in reading.bad]
    if not left_out.spare([(kind, item) for kind, item, _ in bad], len(utterances), Problems(reading.csv)):
        for kind, item, advice in bad:
            problems.add(kind + advice, item)
    usable = [u for u in utterances if u.id not in reading.bad]
    for u in usable:
        left_out.changed.update(reading.changed.get(u.id, {}))
    notes += [f"{left_out.split}: {count} utterances dropped: {reason}" for reason, count in left_out.items()]
    return usable


def _with_text(name, utterances, left_out, notes):
    """`utterances` without empty transcripts, counted in `left_out`; valid and test keep them all.

    Training on an empty transcript teaches blanks; leaving one out of a test would hide the words inserted
    there.
    """
    with_text = [u for u in utterances if u.labels["wrd"]]
    empty = len(utterances) - len(with_text)
    if empty and name == "train":
        left_out[EMPTY] += empty
        notes.append(f"train: {empty} utterances with an empty transcript dropped")
    elif empty:
        notes.append(f"{name}: {empty} empty transcripts kept; every word recognised there is an insertion")
    return with_text if name == "train" else utterances


def _check_apart(splits):
    """Raises DataError when a piece of audio is in two splits."""
    problems, where = Problems("splits"), {}
    for name, utterances in splits.items():
        for u in utterances:
            first = where.setdefault((u.wav, u.start), name)
            if first != name:
                problems.add(f"same audio in {first} and {name}", u.id)
    problems.raise_if_any()


def _caveats(splits):
    """What weakens a score on these splits: speakers shared by train and test, or unknown."""
    train, test = ({u.speaker for u in splits[name]} for name in ("train", "test"))
    shared = train & test
    if not shared:
        return []
    return ["speakers not known"] if shared == {""} else [SAME_SPEAKER]
