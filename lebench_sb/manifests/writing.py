"""The manifest, one CSV per split, as it is written.

A corpus yields `Utterance`s; `write_manifest` checks all of them, sorts, writes a temporary file, renames it
and finishes the marker `<manifest>.done.json` last (`manifests.markers`), so that a preparation killed
half-way is never taken for a finished one. Everything is checked here, once; code that reads a manifest
trusts it.

The file is UTF-8 CSV with standard quoting and the header
`ID,duration,wav,start,stop,spk_id,gender,language`, then the label columns. `wav` begins with `$data_root/`.
Only `wav`, `trace` and `tree` are expanded: a transcript may say "5 $US".
"""

import os
import re
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path

from lebench_sb.audio.heads import MISSING, audio_fault
from lebench_sb.core.errors import DataError, Problems
from lebench_sb.manifests.columns import write_copy
from lebench_sb.manifests.durations import pooled
from lebench_sb.manifests.markers import (
    ROOT,
    LeftOut,
    file_states,
    files_in,
    parameters_hash,
    plain,
    state_digest,
    write_marked,
)
from lebench_sb.manifests.member_names import without_key
from lebench_sb.manifests.utterance import (
    COLUMNS,
    GENDERS,
    PATH_LABELS,
    check_tags,
    is_number,
    is_path,
    segment_faults,
)

CONTROL = re.compile("[\x00-\x1f\x7f]")
QUOTED = re.compile('[,"\r\n]|^ | $')  # fields written in quotation marks


def write_manifest(path, utterances, data_root, parameters, required=(), dropped=None, caveats=()):
    """Checks `utterances`, writes them to `path` sorted by id, then the marker; returns the marker's content.

    data_root: folder above every audio file; parameters: everything the result depends on (JSON values,
    paths, functions); required: label columns that must not be empty; dropped: {reason: count} of utterances
    the caller left out, or LeftOut, which then also says what of train may be left out here. Raises DataError
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
    marker |= {"dropped": dict(dropped or {}), "changed": _counted(dropped), "caveats": list(caveats)}
    content = "".join(map(_csv_line, chain([[*COLUMNS, *labels]], rows))).encode()
    marker = write_marked(path, content, marker)
    write_copy(path, content, map(partial(_with_paths, labels), utterances, rows))
    return marker


def _with_paths(labels, u, row):
    """An Utterance as its CSV fields say it: paths beginning with `$data_root/`, every label"""
    return replace(u, wav=row[2], labels=dict(zip(labels, row[len(COLUMNS) :], strict=True)))


def _counted(dropped):
    """{character: count} of what the normaliser changed, the most frequent first"""
    changed = getattr(dropped, "changed", {})
    return dict(sorted(changed.items(), key=lambda item: (-item[1], item[0])))


def _check(utterances, path, data_root, required, dropped):
    """The utterances, without those of train that may be left out (LeftOut); DataError for what is wrong"""
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
    if not is_number(u.duration) or u.duration <= 0:
        problems.add("duration not a positive number of seconds", f"{u.id} lasts {u.duration}")
    for fault in segment_faults(u):
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
            check_tags(problems, value, u.id)
    paths = [u.wav, *(u.labels[name] for name in PATH_LABELS if is_path(u.labels.get(name, "")))]
    for outside in [path for path in paths if _relative(path, data_root) is None]:
        problems.add(f"not under data_root {data_root}", outside)
    if not _encodable([u.id, u.wav, u.speaker, u.language, *map(str, u.labels.values())]):
        problems.add("text that is not Unicode", repr(u.id))


def _usable(problems, utterances, dropped):
    """The utterances whose files are there and look sane. Each faulty file is a problem, once, for `wav` and
    for labels that are absolute paths; one that is no audio in train may be left out (LeftOut.spare)."""
    wavs = sorted({u.wav for u in utterances})
    faults = {path: fault for path, fault in zip(wavs, pooled(audio_fault, wavs), strict=True) if fault}
    paths = {u.labels[name] for u in utterances for name in PATH_LABELS if is_path(u.labels.get(name, ""))}
    for path in sorted(paths):
        file = without_key(path)
        if not os.path.isfile(file) or not os.path.getsize(file):
            problems.add("missing or empty file of a label", path)
    empty = {path for path, fault in faults.items() if fault != MISSING}
    lost = [(faults[u.wav], u.wav) for u in utterances if u.wav in empty]
    if isinstance(dropped, LeftOut) and dropped.spare(lost, len(utterances), Problems(problems.where)):
        faults = {path: fault for path, fault in faults.items() if path not in empty}
        utterances = [u for u in utterances if u.wav not in empty]
    for path, fault in faults.items():
        problems.add(fault, path)
    return utterances


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
        row.append(ROOT + _relative(value, data_root) if name in PATH_LABELS and is_path(value) else value)
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
