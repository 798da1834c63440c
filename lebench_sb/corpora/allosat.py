"""AlloSat: real calls to call centres in French, rated along the axis from frustration to satisfaction.

37 hours of telephone speech, one file per conversation: `audio/*.wav`,
`annotations/labels/*.csv` (separated by semicolons; a column `satisfaction`, a value every 250 ms) and
`train.txt`, `dev.txt`, `test.txt`, the names of the conversations, one a line. On request from LIUM:
https://lium.univ-lemans.fr/en/allosat/ (Macary et al., LREC 2020).
"""

import hashlib
import os
import re
from collections import Counter
from pathlib import Path

from lebench_sb.core.errors import Problems
from lebench_sb.core.guard import regular
from lebench_sb.core.paths import below, files_below
from lebench_sb.corpora._stamps import synthetic_emotion
from lebench_sb.manifests.markers import prepared
from lebench_sb.manifests.traces import read_traces
from lebench_sb.manifests.utterance import Utterance, measure_durations, read_text, write_manifest

SPLITS = {"train": "train", "valid": "dev", "test": "test"}  # ours: theirs
COLUMN = "satisfaction"
LABELS = ("annotations", "labels")
LAYOUT = (
    "data_folder must hold audio/, annotations/labels/ and train.txt, dev.txt, test.txt, or a folder "
    "AlloSat_corpus/ that does."
)


def prepare_allosat(data_folder, manifest_folder):
    """Writes train.csv, valid.csv and test.csv into `manifest_folder` and returns {split: marker}.

    data_folder: the corpus, or the folder that holds it as AlloSat_corpus/. The label `trace` is the file of
    the conversation's ratings. A second call with unchanged files returns at once. Raises FileNotFoundError,
    or DataError that lists what is wrong.
    """
    root = _root(data_folder)
    parameters = {"corpus": "allosat", "root": os.path.relpath(root, data_folder), "sha256": _hashes(root)}
    manifests = {split: Path(manifest_folder) / f"{split}.csv" for split in SPLITS}
    if done := prepared(manifests, parameters, data_folder):
        return done
    found = {split: list(utterances(data_folder, split)) for split in SPLITS}
    read_traces([u for each in found.values() for u in each], COLUMN)
    stamps = synthetic_emotion(root)
    return {
        split: write_manifest(path, found[split], data_folder, parameters, ("trace",), stamps=stamps)
        for split, path in manifests.items()
    }


def utterances(data_folder, split):
    """Yields the Utterances of `split` (train, valid, test), one per conversation, in the list's order.

    Who speaks is not known. Raises as prepare_allosat does.
    """
    if split not in SPLITS:
        raise ValueError(f"No split {split!r} in AlloSat: {', '.join(SPLITS)}.")
    root = _root(data_folder)
    lists = {name: _names(below(root, f"{theirs}.txt")) for name, theirs in SPLITS.items()}
    problems = Problems(root / f"{SPLITS[split]}.txt")
    recordings, ratings = _files(root, problems)
    elsewhere = {name: other for other in lists if other != split for name in lists[other]}
    times = Counter(lists[split])
    for name in lists[split]:
        if name in elsewhere:
            problems.add(f"conversations that {SPLITS[elsewhere[name]]}.txt names too", name)
        if name not in recordings:
            problems.add("conversations without a file in audio/", name)
        if name not in ratings:
            problems.add(f"conversations without a file in {'/'.join(LABELS)}/", name)
        if times[name] > 1:
            problems.add("conversations named twice", name)
    problems.raise_if_any()
    seconds = measure_durations([recordings[name] for name in lists[split]], root / "audio")
    for name in lists[split]:
        wav, trace = recordings[name], ratings[name]
        yield Utterance(name, wav, seconds[wav], None, None, "", "U", "fr", {"trace": trace})


def _files(root, problems):
    """({name: recording}, {name: file of ratings}), absolute paths; two of one name are a problem"""
    found = ({}, {})
    for named, folder, suffix in zip(found, (("audio",), LABELS), (".wav", ".csv"), strict=True):
        for path in files_below(below(root, *folder), (suffix,)):
            if (first := named.setdefault(path.stem, str(path))) != str(path):
                problems.add("two files of one name", f"{first} and {path}")
    return found


def _root(data_folder):
    inner = below(data_folder, "AlloSat_corpus")
    root = inner if inner.is_dir() else Path(data_folder)
    for path in (below(root, "audio"), below(root, *LABELS)):
        if not path.is_dir():
            raise FileNotFoundError(f"{path} not found. {LAYOUT}")
    for path in (below(root, f"{name}.txt") for name in SPLITS.values()):
        if not path.exists():
            raise FileNotFoundError(f"{path} not found. {LAYOUT}")
    return root


def _names(path):
    """The conversations of a list, without the folder and the suffix that some copies write"""
    lines = [line.strip().replace("\\", "/").rpartition("/")[2] for line in read_text(path).splitlines()]
    return [re.sub(r"\.(wav|csv)$", "", line, flags=re.IGNORECASE) for line in lines if line]


def _hashes(root):
    """sha256 of the lists and of every file of ratings, and the names and sizes of the recordings"""
    recordings, ratings = _files(root, Problems(root))
    texts = [below(root, f"{name}.txt") for name in SPLITS.values()] + [Path(p) for p in ratings.values()]
    hashes = {path.name: hashlib.sha256(regular(path).read_bytes()).hexdigest() for path in texts}
    return hashes | {os.path.basename(path): os.path.getsize(path) for path in recordings.values()}
