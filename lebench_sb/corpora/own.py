"""Your own recordings: one CSV or TSV with any header becomes train.csv, valid.csv and test.csv.

You say which of your columns is what (`ID`, `wav`, `wrd`, `spk_id`, ...), which rows to keep, and either
which column names the split or in which proportions to draw it. Everything wrong with the file is listed at
once, with its lines.
"""

import hashlib
import json
import os
import random
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

from lebench_sb.core.errors import DataError, Problems, UsageError
from lebench_sb.core.files import write_atomically
from lebench_sb.core.guard import read_json
from lebench_sb.core.paths import Finder
from lebench_sb.corpora._text import ADVICE, EMPTY, changed_characters
from lebench_sb.corpora._text import gender as gender_of
from lebench_sb.manifests.markers import Told, is_prepared, parameters_hash, refuse_foreign, remove_marked
from lebench_sb.manifests.utterance import (
    CLOSE,
    PATH_LABELS,
    SECONDS,
    TAG,
    Utterance,
    nearest,
    probe_durations,
    read_table,
    read_text,
    separator,
    tag_faults,
    write_manifest,
)
from lebench_sb.text.normaliser import UnreadableText
from lebench_sb.text.normaliser import none as compose
from lebench_sb.text.normaliser import normaliser as text_normaliser

SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("valid", "validation", "val", "dev", "development"), "valid"),
    **dict.fromkeys(("test", "testing"), "test"),
}
NAMES = ("train", "valid", "test")
FIXED = ("ID", "wav", "spk_id", "gender", "language", "duration", "start", "stop")
LABELS = ("wrd", "text", "semantics", "emotion", "intent", "trace", "tree", "channel")
CONDITION = re.compile(r"\s*(.+?)\s*(!=|!~|=|~)\s*(.*?)\s*")
REPORT = "own.done.json"
SAME_SPEAKER = "same speaker in train and test"
TOLERANCE = 0.05  # of the measured duration; more means another file, or another cut, than the one described


def prepare_own(
    csv,
    columns,
    data_root,
    output,
    where=(),
    split=None,
    ratios=(0.8, 0.1, 0.1),
    seed=0,
    normaliser="fr-1",
    language="fr",
):
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
    header, rows = _read(csv)
    _check_columns(csv, header, columns, where, split)
    notes = []
    rows = _filter(csv, rows, where, notes)
    reading = Reading(csv, data_root, normalise, language)
    utterances = reading.utterances(rows, columns)
    if split is None:
        splits = _draw([u for u in utterances if u.id not in reading.bad], ratios, seed, notes)
        splits["train"] += [u for u in utterances if u.id in reading.bad]
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
    if csv.resolve() in [(output / f"{name}.csv").resolve() for name in NAMES]:
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
    for name in NAMES:
        refuse_foreign(output / f"{name}.csv")
    report = output / REPORT
    if report.exists() and not {"splits", "parameters_sha256"} <= set(read_json(report, UsageError)):
        raise UsageError(f"{report} is no report of ours. Give another folder, or move or delete it.")


def _read(csv):
    """(header, [(line, {column: text})]). Quotation marks quote whole fields; inside a field they are text.

    First line by line, so that a lone quotation mark at the start of a field cannot swallow the rows below; a
    file whose quoted fields hold separators or line breaks does not fit its header that way and is read as
    standard CSV.
    """
    delimiter = separator(read_text(csv).split("\n", 1)[0])
    try:
        header, rows = read_table(csv, delimiter, quotes=False)
        header, rows = _unquoted(header), [(line, _unquoted(fields)) for line, fields in rows]
    except DataError:
        if delimiter == "\t":
            raise
        header, rows = read_table(csv, delimiter)
    return header, [(line, dict(zip(header, fields, strict=True))) for line, fields in rows]


def _unquoted(fields):
    """Fields without the quotation marks around the whole of them."""
    whole = re.compile(r'"((?:[^"]|"")*)"')
    return [match[1].replace('""', '"') if (match := whole.fullmatch(field)) else field for field in fields]


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
    conditions = [_condition(text)[0] for text in where]
    for name in [*columns.values(), *conditions, *([split] if split else [])]:
        if name not in header:
            raise UsageError(f"{csv} has no column {name!r}{nearest(name, header)}; it has {there}.")


def _condition(text):
    """`tasks~asr` -> ("tasks", "~", "asr")"""
    match = CONDITION.fullmatch(text)
    if not match:
        raise UsageError(f"where {text!r}: write column=value, column!=value, column~word or column!~word.")
    return match.groups()


def _filter(csv, rows, where, notes):
    """The rows for which every condition holds, noting how many each leaves. DataError when none is left."""
    for text in where:
        column, operator, value = _condition(text)
        kept = [(line, row) for line, row in rows if _holds(row[column].strip(), operator, value)]
        if not kept:
            common = Counter(row[column].strip() for _, row in rows).most_common(5)
            values = ", ".join(f"{name!r} ({count})" for name, count in common)
            raise DataError(f"{csv}: no row left by {text!r}; {column} has {values or 'no rows at all'}.")
        notes.append(f"where {text}: {len(kept)} of {len(rows)} rows")
        rows = kept
    if not rows:
        raise DataError(f"{csv}: 0 rows, only a header.")
    return rows


def _holds(text, operator, value):
    if operator.endswith("~"):
        found = re.search(rf"(?<!\w){re.escape(value)}(?!\w)", text) is not None
    else:
        found = text == value
    return found != operator.startswith("!")


class Reading:
    """Rows of the table -> Utterances.

    bad: {id: (kind, item, advice)} of those that cannot be used, which is for their split to judge; changed:
    {id: Counter of the characters of its transcript that the normaliser changed}.
    """

    def __init__(self, csv, data_root, normalise, language):
        self.csv, self.data_root, self.normalise, self.language = csv, data_root, normalise, language
        self.folders = (os.path.abspath(data_root), os.path.abspath(csv.parent))
        self.finders = [Finder(folder) for folder in self.folders]
        self.problems, self.bad, self.changed = Problems(csv), {}, {}

    def utterances(self, rows, columns):
        """One Utterance per row, in order, text normalised, duration measured (nan for bad ones). DataError
        lists all faults."""
        utterances, lines = [], {}
        for line, row in rows:
            given = {name: row[column].strip() for name, column in columns.items()}
            u = self._utterance(given, line)
            utterances.append(u)
            lines.setdefault(u.id, []).append(line)
        durations, faults = probe_durations(u.wav for u in utterances)
        for index, (line, _) in enumerate(rows):
            u = utterances[index]
            if u.wav not in faults:
                utterances[index] = _timed(u, durations[u.wav], line, self.problems)
            elif os.path.exists(u.wav):
                self.bad[u.id] = (faults[u.wav], f"line {line} {u.wav}", "")
            else:
                self.problems.add(faults[u.wav], f"line {line} {u.wav}")
        for name, where in lines.items():
            if len(where) > 1:
                self.problems.add("duplicate ID", f"{name} (lines {', '.join(map(str, where[:5]))})")
        if self.problems:  # all that is wrong at once
            for kind, item, advice in self.bad.values():
                self.problems.add(kind + advice, item)
        self.problems.raise_if_any()
        return utterances

    def _utterance(self, given, line):
        """One row ({manifest column: text}) as an Utterance whose duration is the row's, or nan."""
        wav = self._find(given["wav"], line)
        times = [_seconds(given, name, line, self.problems) for name in ("start", "stop", "duration")]
        start, stop, duration = times
        gender = gender_of(given.get("gender", ""))
        if gender is None:
            kind = "gender not understood (F, M, female, homme, ...)"
            self.problems.add(kind, f"line {line} {given['gender']!r}")
        made = os.path.splitext(os.path.relpath(wav, self.folders[0]))[0]
        made += "" if start is None else f"_{start}-{stop}"
        if "ID" in given and not given["ID"]:
            self.problems.add("empty ID", f"line {line}")
        name = given.get("ID", made)
        labels = {label: value for label, value in given.items() if label not in FIXED}
        for label in labels:
            labels[label] = self._label(label, labels[label], line, name)
        return Utterance(
            id=name,
            wav=wav,
            duration=float("nan") if duration is None else duration,
            start=start,
            stop=stop,
            speaker=given.get("spk_id", ""),
            gender=gender or "U",
            language=given.get("language") or self.language,
            labels=labels,
        )

    def _find(self, path, line):
        """The absolute path of a file given relative to data_root or to the table (`Finder.find`), as it is
        written where there is none."""
        choices = [os.path.abspath(os.path.join(folder, path)) for folder in self.folders]
        exact = next((choice for choice in choices if os.path.isfile(choice)), None)
        if exact or not path:
            return exact or choices[0]
        answers = [finder.find(path) for finder in self.finders]
        found = {choice for choice, _ in answers if choice}
        several = {fault for _, fault in answers if fault.startswith("several")}
        if len(found) == 1 and not several:
            return found.pop()
        if found or several:
            said = "; ".join([*sorted(found), *sorted(several)])
            self.problems.add("paths that may be several files", f"line {line} {path}: {said}")
        return choices[0]

    def _label(self, name, value, line, of):
        """A label as the manifest holds it: `wrd` normalised, paths absolute, other text composed (NFC). of:
        the ID"""
        if name in PATH_LABELS:
            path = self._find(value, line)
            return path if value and (name == "trace" or os.path.isfile(path)) else value
        if name == "channel" and value and not (value.isdecimal() and int(value) > 0):
            self.problems.add("channel is no number (1 is the left one)", f"line {line} {value!r}")
        if name not in ("wrd", "semantics"):
            return compose(value)
        if name == "semantics" and (faults := tag_faults(value)):
            for fault in faults:
                kind = "semantics not written as `<concept> words > words`"
                self.problems.add(kind, f"line {line}: {fault}")
            return value
        try:
            normal = self.normalise(value) if name == "wrd" else normalise_tagged(value, self.normalise)
        except UnreadableText as error:
            item = f"line {line} {' '.join(map(repr, error.characters))}"
            self.bad[of] = (f"characters {error.normaliser} cannot read", item, f" ({ADVICE})")
            return value
        if name == "wrd":
            self.changed[of] = changed_characters(value, normal)
        return normal


def _seconds(given, name, line, problems):
    """The number in a column, None where there is no such column or it is empty."""
    text = given.get(name, "")
    if SECONDS.fullmatch(text):
        return float(text)
    if text:
        problems.add(f"{name} is not a number of seconds (decimal point, no unit)", f"line {line} {text!r}")
    return None


def normalise_tagged(text, normalise):
    """A tagged text with the words between its tags normalised, the tags as they are."""
    pieces = re.split(rf"(?<!\S)({TAG.pattern}|{CLOSE})(?!\S)", text)
    words = [compose(p) if number % 2 else normalise(p) for number, p in enumerate(pieces)]
    return " ".join(word for word in words if word)


def _timed(u, measured, line, problems):
    """`u` with its true duration; measured: seconds of its whole file."""
    if u.start is None and u.stop is None:
        length, stop = measured, None
    elif u.start is None or u.stop is None or not u.start < u.stop <= measured + 0.1:
        piece = f"line {line} [{u.start}, {u.stop}] of {measured:.3f} s"
        problems.add("start and stop are no piece of the file", piece)
        return u
    else:
        stop = min(u.stop, measured)  # segment times are often rounded up past the end
        length = stop - u.start
    if abs(u.duration - length) > max(TOLERANCE * length, 0.02):
        says = f"line {line} says {u.duration}, measured {length:.3f}"
        problems.add("duration over 5 % off the audio's", says)
    return replace(u, duration=length, stop=stop)


def _assign(csv, utterances, rows, column, notes):
    """{split: utterances} by the values of the table's column, which are noted."""
    problems, splits, seen = Problems(csv), {name: [] for name in NAMES}, Counter()
    for u, (line, row) in zip(utterances, rows, strict=True):
        value = row[column].strip()
        if value.lower() not in SPLITS:
            problems.add(f"{column} is no split (train, valid or dev, test)", f"line {line} {value!r}")
            continue
        splits[SPLITS[value.lower()]].append(u)
        seen[value] += 1
    problems.raise_if_any()
    read = ", ".join(f"{value} -> {SPLITS[value.lower()]} ({count})" for value, count in seen.items())
    notes.append(f"{column}: {read}")
    return splits


def _draw(utterances, ratios, seed, notes):
    """{split: utterances} drawn with `seed`: by speaker where there are enough, else by recording; noted."""
    wanted = sum(ratio > 0 for ratio in ratios)
    speakers = {u.speaker for u in utterances}
    if wanted == 1:
        notes.append("all rows go to train")
        return {"train": list(utterances), "valid": [], "test": []}
    if "" not in speakers and len(speakers) >= wanted:
        notes.append("splits drawn by speaker")
        return _draw_groups(utterances, ratios, seed, lambda u: u.speaker)
    reason = "speakers not known" if "" in speakers else f"{len(speakers)} speakers for {wanted} splits"
    notes.append(f"splits drawn by recording: {reason}")
    # pieces of one recording stay together: neighbours share words and background
    return _draw_groups(utterances, ratios, seed, lambda u: u.wav)


def _draw_groups(utterances, ratios, seed, key):
    """{split: utterances}; no group (`key` of an utterance) is in two splits, none stays empty if it can."""
    groups = {}
    for u in sorted(utterances, key=lambda u: u.id):
        groups.setdefault(key(u), []).append(u)
    seconds = {name: sum(u.duration for u in group) for name, group in groups.items()}
    order = sorted(groups)
    random.Random(seed).shuffle(order)
    splits, total = {}, sum(seconds.values())
    for name, ratio in (("test", ratios[2]), ("valid", ratios[1])):
        # train, and valid while test is drawn, get a group each
        spare = len(order) - 1 - (name == "test" and ratios[1] > 0)
        taken = _take(order, seconds, ratio * total, spare) if ratio and spare > 0 else []
        order = [group for group in order if group not in taken]
        splits[name] = [u for group in taken for u in groups[group]]
    return {"train": [u for group in order for u in groups[group]], **splits}


def _take(order, seconds, target, most):
    """One to `most` groups, in order, that each bring the sum of seconds nearer to the target."""
    taken, total = [], 0.0
    for group in order:
        if len(taken) < most and abs(total + seconds[group] - target) < abs(total - target):
            taken.append(group)
            total += seconds[group]
    return taken or [min(order, key=lambda group: seconds[group])]


def _write(output, splits, reading, parameters, notes, with_text):
    """Writes the manifests, then own.done.json with the report it returns; our own left-overs are removed."""
    _check_apart(splits)
    stamps, problems = _stamps(splits), Problems(reading.csv)
    markers, notes, told = {}, [*notes, *stamps], {name: Told(name) for name in NAMES}
    for name in NAMES:
        splits[name] = _usable(splits[name], reading, told[name], problems, notes)
    problems.raise_if_any()
    if with_text:
        splits = {name: _with_text(name, each, told[name], notes) for name, each in splits.items()}
    if not any(splits.values()):
        raise DataError(f"{output}: no utterance is left, every transcript is empty.")
    (output / REPORT).unlink(missing_ok=True)
    for name in NAMES:
        path = output / f"{name}.csv"
        if splits[name]:
            root = reading.data_root
            markers[name] = write_manifest(path, splits[name], root, parameters, (), told[name], stamps)
            continue
        notes.append(f"no {name}.csv: no row is in this split")
        remove_marked(path)
    report = {"splits": markers, "notes": notes}
    content = report | {"parameters_sha256": parameters_hash(parameters)}
    write_atomically(output / REPORT, json.dumps(content, indent=1, ensure_ascii=False).encode())
    return report


def _usable(utterances, reading, told, problems, notes):
    """The utterances of a split without the bad ones, where these may be left out (Told.spare)"""
    bad = [reading.bad[u.id] for u in utterances if u.id in reading.bad]
    if not told.spare([(kind, item) for kind, item, _ in bad], len(utterances), Problems(reading.csv)):
        for kind, item, advice in bad:
            problems.add(kind + advice, item)
    kept = [u for u in utterances if u.id not in reading.bad]
    for u in kept:
        told.changed.update(reading.changed.get(u.id, {}))
    notes += [f"{told.split}: {count} utterances dropped: {reason}" for reason, count in told.items()]
    return kept


def _with_text(name, utterances, told, notes):
    """`utterances` without empty transcripts, counted in `told`; valid and test keep them all.

    Training on an empty transcript teaches blanks; leaving one out of a test would hide the words inserted
    there.
    """
    kept = [u for u in utterances if u.labels["wrd"]]
    empty = len(utterances) - len(kept)
    if empty and name == "train":
        told[EMPTY] += empty
        notes.append(f"train: {empty} utterances with an empty transcript dropped")
    elif empty:
        notes.append(f"{name}: {empty} empty transcripts kept; every word recognised there is an insertion")
    return kept if name == "train" else utterances


def _check_apart(splits):
    """Raises DataError when a piece of audio is in two splits."""
    problems, where = Problems("splits"), {}
    for name, utterances in splits.items():
        for u in utterances:
            first = where.setdefault((u.wav, u.start), name)
            if first != name:
                problems.add(f"same audio in {first} and {name}", u.id)
    problems.raise_if_any()


def _stamps(splits):
    """What weakens a score on these splits: speakers shared by train and test, or unknown."""
    train, test = ({u.speaker for u in splits[name]} for name in ("train", "test"))
    shared = train & test
    if not shared:
        return []
    return ["speakers not known"] if shared == {""} else [SAME_SPEAKER]
