"""AlloSat: real calls to call centres in French, rated along the axis from frustration to satisfaction.

37 hours of telephone speech, one file per conversation: `audio/*.wav`,
`annotations/labels/*.csv` (separated by semicolons; a column `satisfaction`, a value every 250 ms) and
`train.txt`, `dev.txt`, `test.txt`, the names of the conversations, one a line. On request from LIUM:
https://lium.univ-lemans.fr/en/allosat/ (Macary et al., LREC 2020).
"""

import hashlib
import os
from pathlib import Path

from lebench_sb.annotations.traces import read_traces
from lebench_sb.corpora._stamps import synthetic_emotion
from lebench_sb.manifest import (
    Problems,
    Utterance,
    is_prepared,
    measure_durations,
    read_marker,
    read_text,
    write_manifest,
)

SPLITS = {"train": "train", "valid": "dev", "test": "test"}  # ours: theirs
COLUMN = "satisfaction"
LABELS = Path("annotations", "labels")
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
    if all(is_prepared(path, parameters) for path in manifests.values()):
        return {split: read_marker(path) for split, path in manifests.items()}
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
    lists = {name: _names(root / f"{theirs}.txt") for name, theirs in SPLITS.items()}
    recordings = {path.stem: os.path.abspath(path) for path in sorted((root / "audio").rglob("*.wav"))}
    problems = Problems(root / f"{SPLITS[split]}.txt")
    for name in lists[split]:
        for other in lists:
            if other != split and name in lists[other]:
                problems.add(f"conversations that {SPLITS[other]}.txt names too", name)
        if name not in recordings:
            problems.add("conversations without a file in audio/", name)
        if not (root / LABELS / f"{name}.csv").is_file():
            problems.add(f"conversations without a file in {LABELS}/", name)
        if lists[split].count(name) > 1:
            problems.add("conversations named twice", name)
    problems.raise_if_any()
    seconds = measure_durations([recordings[name] for name in lists[split]], root / "audio")
    for name in lists[split]:
        trace = os.path.abspath(root / LABELS / f"{name}.csv")
        wav = recordings[name]
        yield Utterance(name, wav, seconds[wav], None, None, "", "U", "fr", {"trace": trace})


def _root(data_folder):
    data_folder = Path(data_folder)
    inner = data_folder / "AlloSat_corpus"
    root = inner if inner.is_dir() else data_folder
    for path in (root / "audio", root / LABELS):
        if not path.is_dir():
            raise FileNotFoundError(f"{path} not found. {LAYOUT}")
    for path in (root / f"{name}.txt" for name in SPLITS.values()):
        if not path.is_file():
            raise FileNotFoundError(f"{path} not found. {LAYOUT}")
    return root


def _names(path):
    """The conversations of a list, without the suffix that some copies write"""
    lines = [line.strip() for line in read_text(path).splitlines()]
    return [line.removesuffix(".wav").removesuffix(".csv") for line in lines if line]


def _hashes(root):
    """sha256 of the lists and of every file of ratings, and the names and sizes of the recordings"""
    texts = [*(root / f"{name}.txt" for name in SPLITS.values()), *sorted((root / LABELS).glob("*.csv"))]
    hashes = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in texts}
    sizes = {path.name: path.stat().st_size for path in sorted((root / "audio").rglob("*.wav"))}
    return hashes | sizes
