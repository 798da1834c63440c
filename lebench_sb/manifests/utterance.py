"""The manifest: one CSV per split, and the only way into it.

A corpus yields `Utterance`s; `write_manifest` checks all of them, sorts, writes a temporary file, renames it
and finishes the marker `<manifest>.done.json` last (`manifests.markers`), so that a preparation killed
half-way is never taken for a finished one. Everything is checked here, once; code that reads a manifest
trusts it.

The file is UTF-8 CSV with standard quoting and the header
`ID,duration,wav,start,stop,spk_id,gender,language`, then the label columns. `wav` begins with `$data_root/`.
Only `wav`, `trace` and `tree` are expanded: a transcript may say "5 $US".
"""

import csv
import difflib
import io
import math
import os
import re
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

from lebench_sb.audio.heads import MISSING, audio_fault, kind_of
from lebench_sb.audio.members import file_of
from lebench_sb.core.errors import SHOWN, DataError, Problems, UsageError  # noqa: F401  named from here too
from lebench_sb.core.files import write_atomically  # noqa: F401
from lebench_sb.manifests.formats import HEAD, format_of, refuse_other_formats
from lebench_sb.manifests.markers import (
    PATH_COLUMNS,
    READERS,
    ROOT,
    Told,
    file_states,
    files_in,
    parameters_hash,
    plain,
    state_digest,
    write_marked,
)
from lebench_sb.manifests.member_names import path_fault, without_key

COLUMNS = ("ID", "duration", "wav", "start", "stop", "spk_id", "gender", "language")
PATH_LABELS = PATH_COLUMNS[1:]  # labels that may hold a path; a `tree` that is a key is left alone
GENDERS = ("F", "M", "U")
CONTROL = re.compile("[\x00-\x1f\x7f]")
QUOTED = re.compile('[,"\r\n]|^ | $')  # fields written in quotation marks
QUOTES = ("", ", put quotation marks around a field that holds the separator")
NO_QUOTES = (
    ", a line break inside a field? put a space in its place, quotation marks do not quote here",
    ", the separator inside a field? put a space in its place, quotation marks do not quote here",
)
SECONDS = re.compile(r"\d+(\.\d+)?([eE][-+]?\d+)?")
TAG = re.compile(r"<[^<>\s]+>")  # opens a concept in `semantics`; CLOSE closes it
CLOSE = ">"
NO_ROWS = "0 utterances, only a header; was the preparation interrupted?"
MOST_COLUMNS = 10_000  # of a table


@dataclass(frozen=True)
class Utterance:
    """One piece of speech.

    wav: absolute path, of a file or of a member of a shard (`x.tar::a.flac`); duration: seconds of this
    utterance; start, stop: seconds inside `wav`, both None for the whole file; gender: F, M or U;
    labels: column -> text (`wrd`, `translation_en`, `semantics`, `trace`, ...). The label `channel` ("1",
    "2", ...) names the channel that holds the speech; without it all are averaged.
    """

    id: str
    wav: str
    duration: float
    start: float | None = None
    stop: float | None = None
    speaker: str = ""
    gender: str = "U"
    language: str = "fr"
    labels: dict = field(default_factory=dict, hash=False)


def tag_faults(text):
    """What is wrong with a tagged text `words <concept> words > words`, a list of faults in words.

    Tags stand between spaces, a concept is closed before the next opens, nothing else holds < or >.
    """
    faults, current = [], None
    for token in text.split():
        if TAG.fullmatch(token):
            if current:
                faults.append(f"{token} opens inside {current}")
            current = token
        elif token == CLOSE:
            if not current:
                faults.append("> closes no concept")
            current = None
        elif "<" in token or ">" in token:
            faults.append(f"{token!r} is neither a word nor a tag with spaces around it")
    return faults + ([f"{current} is not closed"] if current else [])


def pooled(function, items):
    """[function(item) for item in items], in order, with a few threads."""
    items = list(items)
    if len(items) < 2 * READERS:
        return [function(item) for item in items]
    with ThreadPoolExecutor(READERS) as pool:
        return list(pool.map(function, items, chunksize=1))


def _usable(problems, utterances, dropped):
    """The utterances whose files are there and look sane. Each faulty file is a problem, once, for `wav` and
    for labels that are absolute paths; one that is no audio in train may be left out (Told.spare)."""
    wavs = sorted({u.wav for u in utterances})
    faults = {path: fault for path, fault in zip(wavs, pooled(audio_fault, wavs), strict=True) if fault}
    paths = {u.labels[name] for u in utterances for name in PATH_LABELS if _is_path(u.labels.get(name, ""))}
    for path in sorted(paths):
        file = without_key(path)
        if not os.path.isfile(file) or not os.path.getsize(file):
            problems.add("missing or empty file of a label", path)
    empty = {path for path, fault in faults.items() if fault != MISSING}
    lost = [(faults[u.wav], u.wav) for u in utterances if u.wav in empty]
    if isinstance(dropped, Told) and dropped.spare(lost, len(utterances), Problems(problems.where)):
        faults = {path: fault for path, fault in faults.items() if path not in empty}
        utterances = [u for u in utterances if u.wav not in empty]
    for path, fault in faults.items():
        problems.add(fault, path)
    return utterances


def audio_duration(path):
    """Seconds of audio in `path`, as `data.load_audio` reads it, whatever its header says.

    An MP3 is decoded to its end. Raises FileNotFoundError, or DataError naming the file when it is empty, no
    audio, cut short, or holds no samples.
    """
    from lebench_sb.audio.sound import decoded_samples  # here: manifests need no audio library

    try:
        samples, rate = decoded_samples(path)
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: missing audio file.") from None
    return samples / rate


def probe_durations(paths):
    """({path: seconds}, {path: fault in words}) of every distinct path, measured with a few threads."""

    def measure(path):
        try:
            return audio_duration(path)
        except (DataError, FileNotFoundError) as error:
            return str(error).removeprefix(f"{path}: ").rstrip(".")

    paths = sorted({str(path) for path in paths})
    results = dict(zip(paths, pooled(measure, paths), strict=True))
    faults = {path: result for path, result in results.items() if isinstance(result, str)}
    return {path: result for path, result in results.items() if path not in faults}, faults


def measure_durations(paths, where="audio"):
    """{path: seconds} of every distinct path.

    Raises DataError, naming `where`: of the files that cannot be measured, the first five of each kind and
    their number.
    """
    durations, faults = probe_durations(paths)
    problems = Problems(where)
    for path, fault in faults.items():
        problems.add(*kind_of(fault, path))
    problems.raise_if_any()
    return durations


def write_manifest(path, utterances, data_root, parameters, required=(), dropped=None, stamps=()):
    """Checks `utterances`, writes them to `path` sorted by id, then the marker; returns the marker's content.

    data_root: folder above every audio file; parameters: everything the result depends on (JSON values,
    paths, functions); required: label columns that must not be empty; dropped: {reason: count} of utterances
    the caller left out, or Told, which then also says what of train may be left out here. Raises DataError
    that lists, for each kind of problem, the first five and their number, and UsageError for a file at `path`
    that we did not make or that was changed since; nothing is written then.
    """
    path, utterances = Path(path), sorted(utterances, key=lambda u: u.id)
    data_root = os.path.abspath(data_root)
    if not utterances:
        raise DataError(f"{path}: 0 utterances; does the corpus under {data_root} hold this split?")
    utterances = _check(utterances, path, data_root, required, dropped)
    labels = sorted({name for u in utterances for name in u.labels})
    rows = [_row(u, labels, data_root) for u in utterances]
    places = [2, *(len(COLUMNS) + labels.index(name) for name in PATH_LABELS if name in labels)]
    files = file_states(files_in(row[place] for row in rows for place in places), data_root)
    marker = _marker(path, utterances, parameters, data_root, files)
    marker |= {"dropped": dict(dropped or {}), "changed": _counted(dropped), "stamps": list(stamps)}
    content = "".join(map(_csv_line, chain([[*COLUMNS, *labels]], rows))).encode()
    return write_marked(path, content, marker)


def _counted(dropped):
    """{character: count} of what the normaliser changed, the most frequent first"""
    changed = getattr(dropped, "changed", {})
    return dict(sorted(changed.items(), key=lambda item: (-item[1], item[0])))


def _check(utterances, path, data_root, required, dropped):
    """The utterances, without those of train that may be left out (Told); DataError for what is wrong"""
    problems, seen = Problems(path), {}
    for u in utterances:
        seen[u.id] = seen.get(u.id, 0) + 1
        _check_one(problems, u, data_root, required)
    for name, count in seen.items():
        if count > 1:
            problems.add("duplicate ID", f"{name} ({count} times)")
    utterances = _usable(problems, utterances, dropped)
    problems.raise_if_any()
    return utterances


def _check_one(problems, u, data_root, required):
    """Adds what is wrong with one utterance, its files apart."""
    if not u.id or u.id != u.id.strip() or CONTROL.search(u.id):
        problems.add("ID empty, with spaces around it or with control characters", repr(u.id))
    if not _seconds(u.duration) or u.duration <= 0:
        problems.add("duration not a positive number of seconds", f"{u.id} lasts {u.duration}")
    for fault in _segment_faults(u):
        problems.add(fault, f"{u.id} [{u.start}, {u.stop}] duration {u.duration}")
    if u.gender not in GENDERS:
        problems.add("gender not F, M or U", f"{u.id} has {u.gender!r}")
    for name in required:
        if not u.labels.get(name, "").strip():
            problems.add(f"empty {name}", u.id)
    for name, value in u.labels.items():
        if name in COLUMNS or not name or not isinstance(value, str):
            problems.add("label that is no text or takes a fixed column's name", f"{u.id}: {name}={value!r}")
        elif name == "semantics":
            _check_tags(problems, value, u.id)
    paths = [u.wav, *(u.labels[name] for name in PATH_LABELS if _is_path(u.labels.get(name, "")))]
    for outside in [path for path in paths if _relative(path, data_root) is None]:
        problems.add(f"not under data_root {data_root}", outside)
    if not _encodable([u.id, u.wav, u.speaker, u.language, *map(str, u.labels.values())]):
        problems.add("text that is not Unicode", repr(u.id))


def _check_tags(problems, text, where):
    """Adds the faults of a tagged text."""
    for fault in tag_faults(text):
        problems.add("semantics not written as `<concept> words > words`", f"{where}: {fault}")


def _segment_faults(u):
    """The faults of start and stop, in words."""
    if u.start is None and u.stop is None:
        return []
    if u.start is None or u.stop is None or not _seconds(u.start) or not _seconds(u.stop):
        return ["start and stop must both be seconds, or both be None for the whole file"]
    if u.start < 0 or u.start >= u.stop:
        return ["start must be at least 0 and before stop"]
    if _seconds(u.duration) and not segments_agree(u.duration, u.start, u.stop):
        return ["duration differs from stop - start by over 5 %"]
    return []


def segments_agree(duration, start, stop):
    """Whether a duration is stop - start, to 5 % and 20 ms (times are often rounded); numbers or arrays"""
    return abs(stop - start - duration) <= 0.02 + 0.05 * duration


def _seconds(value):
    return isinstance(value, (int, float)) and math.isfinite(value)


def _is_path(value):
    return isinstance(value, str) and os.path.isabs(value)


def _encodable(texts):
    """False where a file name that is not UTF-8 came in as surrogates."""
    try:
        "".join(texts).encode()
    except UnicodeEncodeError:
        return False
    return True


def _relative(path, data_root):
    """`path` below `data_root` with forward slashes, or None when it lies elsewhere, links followed."""
    absolute = os.path.abspath(path)
    below = _below(absolute, data_root)
    if below is None:  # asking the file system for links is slow: only when the names do not show it
        below = _below(os.path.realpath(absolute), os.path.realpath(data_root))
    return below


def _below(path, folder):
    prefix = folder.rstrip(os.sep) + os.sep
    return path[len(prefix) :].replace(os.sep, "/") if path.startswith(prefix) else None


def _row(u, labels, data_root):
    """The CSV fields of one utterance."""
    row = [u.id, _number(u.duration), ROOT + _relative(u.wav, data_root), _number(u.start), _number(u.stop)]
    row += [u.speaker, u.gender, u.language]
    for name in labels:
        value = u.labels.get(name, "")
        row.append(ROOT + _relative(value, data_root) if name in PATH_LABELS and _is_path(value) else value)
    return row


def _number(value):
    """Seconds as the shortest text that reads back as the same float."""
    return "" if value is None else repr(float(value))


def _csv_line(fields):
    """One line of standard CSV; Python 3.11's csv.writer leaves a lone carriage return without quotes."""
    return ",".join('"' + f.replace('"', '""') + '"' if QUOTED.search(f) else f for f in fields) + "\n"


def _marker(path, utterances, parameters, data_root, files):
    """What the marker says of the utterances and where they come from; files: their {name: state}"""
    return {
        "manifest": path.name,
        "parameters": plain(parameters),
        "parameters_sha256": parameters_hash(parameters),
        "utterances": len(utterances),
        "speakers": len({u.speaker for u in utterances if u.speaker}),
        "hours": round(sum(u.duration for u in utterances) / 3600, 4),
        "data_root": data_root,
        "audio": {"files": len(files), "sha256": state_digest(files)},
    }


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
    rows = _table_rows(path, text, ",", csv.QUOTE_MINIMAL)
    header, shape = next(rows)[1], Problems(path)
    _check_names(path, header)
    _check_header(path, header)
    labels = [name for name in header if name not in COLUMNS]
    for line, fields in rows:
        if _fits(header, line, fields, shape):
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


def nearest(name, names, template=" (did you mean {}?)"):
    """`template` filled with the one of `names` closest to `name`, or "" when none is close."""
    lower = {known.lower(): known for known in names}
    found = difflib.get_close_matches(name.lower(), lower, n=1, cutoff=0.5)
    return template.format(lower[found[0]]) if found else ""


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
    for fault in _segment_faults(u):
        problems.add(fault, f"line {line}")
    if "semantics" in values:
        _check_tags(problems, values["semantics"], f"line {line}")
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
    known, path = root != ROOT, _expand(value, root)
    if name != "wav" and known and os.path.isabs(path) and not path.startswith(root):
        return f"is not in data_root {root}"
    if "\\" in value and known and name != "tree" and not os.path.exists(file_of(path)):
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


def read_table(path, delimiter, quotes=True):
    """(header, [(line number, fields), ...]) of a delimited UTF-8 file; BOM and CRLF are fine.

    quotes=False takes quotation marks as ordinary characters: then no field can hold the delimiter or a line
    break. Raises DataError naming the line of an encoding
    fault, a broken quotation, or a row whose number of fields is not the header's
    (all such rows are counted).
    """
    refuse_other_formats(path, "a table")
    text = io.StringIO(read_text(path), newline="")
    rows = list(_table_rows(path, text, delimiter, csv.QUOTE_MINIMAL if quotes else csv.QUOTE_NONE))
    header, problems = rows.pop(0)[1], Problems(path)
    _check_names(path, header)
    for line, fields in rows:
        _fits(header, line, fields, problems, QUOTES if quotes else NO_QUOTES)
    problems.raise_if_any()
    return header, rows


def _table_rows(path, text, delimiter, quoting):
    """Yields (line number, fields) of the lines that are not empty, the header first."""
    line, found = 1, False
    reader = csv.reader(text, delimiter=delimiter, strict=True, quoting=quoting)
    try:
        for fields in reader:
            if fields:
                found = True
                yield line, fields
            line = reader.line_num + 1
    except csv.Error as error:
        hint = "is a quotation mark not closed or not doubled?"
        raise DataError(f"{path}: line {line}: {error}; {hint}") from None
    if not found:
        raise DataError(f"{path}: empty file, not even a header.")


def _check_names(path, header):
    if len(header) > MOST_COLUMNS:
        raise DataError(f"{path}: {len(header)} columns, at most {MOST_COLUMNS} are read; is it a table?")
    if any("\0" in name for name in header):
        raise DataError(f"{path}: NUL bytes in its first line; is it UTF-16? Save it as UTF-8.")
    doubled = sorted(name for name, count in Counter(header).items() if count > 1)
    if doubled:
        raise DataError(f"{path}: columns named twice: {', '.join(doubled)}.")


def _fits(header, line, fields, problems, hints=QUOTES):
    """True when a row has as many fields as the header; else it is added to `problems`."""
    width = len(header)
    if len(fields) < width:
        kind = f"rows shorter than the header's {width} fields{hints[0]}"
        problems.add(kind, f"line {line} has {len(fields)}")
    elif len(fields) > width:
        kind = f"rows longer than the header's {width} fields{hints[1]}"
        problems.add(kind, f"line {line} has {len(fields)}")
    return len(fields) == width


def read_text(path):
    """The text of a UTF-8 file without its BOM. Raises DataError naming the first line that is not UTF-8."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} not found." if not path.exists() else f"{path} is not a file.")
    data = path.read_bytes()
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise DataError(f"{path}: UTF-16; save it as UTF-8 (`iconv -f UTF-16 -t UTF-8 IN > OUT`).")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if kind := format_of(data[:HEAD]):
            raise DataError(f"{path} is {kind}, not text in UTF-8.") from None
        line = data[: error.start].count(b"\n") + 1
        hint = "it looks like Latin-1; `iconv -f ISO-8859-1 -t UTF-8 IN > OUT` converts it"
        raise DataError(f"{path}: line {line} is not UTF-8, {hint}.") from None


def separator(line):
    """The likeliest of comma, semicolon and tab in a header line."""
    return max(",;\t", key=line.count)
