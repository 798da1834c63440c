"""The marker `<manifest>.done.json`: what a manifest was made from, and whether that still holds.

It holds the parameters of the preparation, counts, what was left out (`dropped`) and changed (`changed`), the
sha256 of the manifest's bytes, and the state of the audio files (`audio`: a digest of their names, sizes and
times). Nothing is replaced or deleted that no marker says we made. While a manifest is replaced its marker
says so (`unfinished`): a preparation that was killed at any moment is taken neither for finished nor for
somebody else's.
"""

import csv
import hashlib
import json
import logging
import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from lebench_sb.audio.members import file_of
from lebench_sb.core.errors import SHOWN, DataError, Problems, UsageError
from lebench_sb.core.files import write_atomically
from lebench_sb.core.guard import read_json

FORMAT = 1  # in the parameters' hash: raised when the rules of writing change, to rebuild old manifests
READERS = 8  # threads: asking for a file waits on the disk or the network, not on the processor
ROOT = "$data_root/"
PATH_COLUMNS = ("wav", "trace", "tree")  # of a manifest: those that may name files
MAX_BAD = 0.01  # of the utterances of train may be left out because they cannot be used
logger = logging.getLogger(__name__)


class LeftOut(Counter):
    """What a preparation tells of one split: {reason: count} of the utterances it leaves out.

    split: train, valid or test; changed: {character: count} of what the normaliser did not keep as it was;
    caveats: what weakens a score on this split, in words.
    One rule for all corpora: what cannot be used is left out of train and counted, up to MAX_BAD of the
    utterances; more than that, or any in valid and test, stops the preparation.
    """

    def __init__(self, split):
        super().__init__()
        self.split, self.changed, self.caveats, self.spared = split, Counter(), [], 0

    def spare(self, faults, total, problems):
        """Whether these utterances may be left out; counts and logs them then, else adds them to `problems`.

        faults: [(kind in words, item)], one for each utterance; total: how many utterances the split has.
        """
        if not faults:
            return True
        if self.split != "train" or self.spared + len(faults) > MAX_BAD * total:
            for kind, item in faults:
                problems.add(kind, item)
            return False
        self.spared += len(faults)
        self.leave_out(problems.where, faults)
        return True

    def leave_out(self, where, faults):
        """Counts and logs utterances that are left out, whatever the split. faults: [(kind, item)]"""
        listed = Problems(where)
        for kind, item in faults:
            self[kind] += 1
            listed.add(kind, item)
        if listed:
            logger.warning("%s; left out of %s, and counted", listed, self.split)


def marker_path(path):
    """Where the marker of the manifest `path` is."""
    return Path(f"{path}.done.json")


def plain(value):
    """`value` as JSON knows it: paths become text, functions their full name."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, (set, frozenset)):
        return sorted(plain(item) for item in value)
    if callable(value):
        return f"{value.__module__}.{value.__qualname__}"
    return str(value) if isinstance(value, os.PathLike) else value


def parameters_hash(parameters):
    """sha256 (hex) of the parameters of a preparation, whatever their order."""
    content = {"format": FORMAT, "parameters": plain(parameters)}
    text = json.dumps(content, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def manifest_hash(path):
    """sha256 (hex) of the manifest's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_marker(path):
    """The content of the marker of the manifest `path`; {} when there is none, when it is no JSON object, and
    while the manifest is being replaced."""
    marker = _read(path)
    return {} if "unfinished" in marker else marker


def _read(path):
    try:
        return read_json(marker_path(path))
    except (FileNotFoundError, NotADirectoryError, DataError):
        return {}


# ---- is it still what the marker says?


def prepared(manifests, parameters, data_root=None):
    """{split: path} -> {split: marker} where all are prepared (`is_prepared`), else None: prepare them.

    Raises UsageError before any work where one of the paths holds a file that we did not make.
    """
    for path in manifests.values():
        refuse_foreign(path)
    if all(is_prepared(path, parameters, data_root) for path in manifests.values()):
        return {split: read_marker(path) for split, path in manifests.items()}
    return None


def is_prepared(path, parameters, data_root=None):
    """True when `path` was finished with these parameters, and neither its bytes nor the files it names have
    changed since; what changed of the files is logged.

    data_root: where the audio lies now; None: where it lay then.
    """
    marker = read_marker(path)
    if marker.get("parameters_sha256") != parameters_hash(parameters) or not Path(path).is_file():
        return False
    if marker.get("sha256") != manifest_hash(path):
        return False
    words = _difference(path, marker, data_root or marker.get("data_root", ""))
    if words:
        logger.warning("%s is prepared again: %s", path, words)
    return not words


def _difference(path, marker, data_root):
    """In words, what of the files that a manifest names differs from the time of its marker, or "" """
    if "audio" not in marker:
        return "its marker, of an older version, does not say the state of the audio files"
    names = _named_files(path)
    states = file_states(names, data_root)
    if state_digest(states) == marker["audio"]["sha256"]:
        return ""
    missing = [name for name, state in states.items() if state is None]
    if missing:
        return f"{len(missing)} of {len(names)} files are no longer there: {_first(missing)}"
    since = os.stat(marker_path(path)).st_mtime_ns
    changed = [name for name, state in states.items() if state[2] > since]
    which = f"{len(changed)} of {len(names)} ({_first(changed)})" if changed else "sizes or times"
    return f"files have changed since, {which}"


def _first(names):
    return ", ".join(names[:SHOWN]) + (" ..." if len(names) > SHOWN else "")


def _named_files(path):
    """The files that a manifest names, below `$data_root/`, each once, sorted; a shard for its members"""
    with open(path, encoding="utf-8", newline="") as file:
        rows = csv.reader(file)
        header = next(rows)
        places = [header.index(name) for name in PATH_COLUMNS if name in header]
        return files_in(row[place] for row in rows for place in places)


def files_in(values):
    """Fields of a manifest -> the files they name, below `$data_root/`, each once, sorted"""
    return sorted({file_of(value[len(ROOT) :]) for value in values if value.startswith(ROOT)})


def file_states(names, data_root):
    """{name below data_root: (bytes, time of the last change in ns, time of its entry in ns)}, None for a
    missing file; opens none"""

    def ask(some):
        return [_state(os.path.join(data_root, name)) for name in some]

    pieces = [names[first :: READERS * 4] for first in range(READERS * 4)]
    if len(names) < 100 * READERS:
        return dict(zip(names, ask(names), strict=True))
    with ThreadPoolExecutor(READERS) as pool:
        answers = list(pool.map(ask, pieces))
    found = {}
    for piece, states in zip(pieces, answers, strict=True):
        found.update(zip(piece, states, strict=True))
    return {name: found[name] for name in names}


def _state(path):
    try:
        state = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return state.st_size, state.st_mtime_ns, state.st_ctime_ns


def state_digest(states):
    """Digest of names, sizes and times of change. A copy of the data has other times of entry: left out."""
    digest = hashlib.sha256()
    for name, state in states.items():
        digest.update(json.dumps([name, state and state[:2]]).encode())
    return digest.hexdigest()


# ---- writing


def refuse_foreign(path, content=None):
    """Raises UsageError where something stands at `path`, or in the place of its marker, that we did not make
    or that was changed since; a file that holds `content` already is no loss."""
    path, there = Path(path), _read(path)
    ways = "Give another folder, or move or delete it: nothing is replaced that was not made here."
    if os.path.lexists(marker_path(path)) and not {"manifest", "sha256"} & set(there):
        raise UsageError(f"{marker_path(path)} is no marker of a manifest. {ways}")
    if not os.path.lexists(path):
        return
    if not path.is_file():
        raise UsageError(f"{path} is there, and is no file. {ways}")
    hash_now = manifest_hash(path)
    if content is not None and hash_now == hashlib.sha256(content).hexdigest():
        return
    if hash_now not in (there.get("sha256"), *there.get("unfinished", ())):
        reason = "has changed since it was prepared" if there else "was not made by a preparation"
        raise UsageError(f"{path} {reason} ({marker_path(path).name} does not know it). {ways}")


def write_marked(path, content, marker):
    """Writes the manifest `path` (bytes `content`) and its marker, which is finished last; returns the
    marker. Raises UsageError as refuse_foreign does."""
    path = Path(path)
    refuse_foreign(path, content)
    sha256 = hashlib.sha256(content).hexdigest()
    before = [manifest_hash(path)] if path.is_file() else []
    marker = marker | {"sha256": sha256}
    path.parent.mkdir(parents=True, exist_ok=True)
    _write(path, {"manifest": path.name, "unfinished": [*before, sha256]})
    write_atomically(path, content)
    _write(path, marker)
    return marker


def _write(path, marker):
    write_atomically(marker_path(path), (json.dumps(marker, indent=1, ensure_ascii=False) + "\n").encode())


def remove_marked(path):
    """Deletes a manifest of ours and its marker, where there is one. Raises UsageError as refuse_foreign."""
    if not _read(path):
        return
    refuse_foreign(path)
    Path(path).unlink(missing_ok=True)
    marker_path(path).unlink()
