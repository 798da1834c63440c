"""RECOLA: French speakers who solve a task together over a video call, rated in arousal and valence.

The AVEC 2016 release holds `recordings_audio/{train,dev,test}_N.wav` (5 minutes each, another speaker in
each) and, per dimension, `ratings_gold_standard/{arousal,valence}/{train,dev,test}_N.arff`
with the attributes Instance_name, frameTime (s, a value every 40 ms) and GoldStandard. The challenge kept
the test ratings; `test_part: dev` serves copies without them. Free for academic use after signing an
agreement: https://diuf.unifr.ch/main/diva/recola/ (Ringeval et al., 2013).
"""

import hashlib
import logging
import os
import re
from pathlib import Path

from lebench_sb.annotations.traces import read_traces
from lebench_sb.corpora._stamps import synthetic_emotion
from lebench_sb.manifest import (
    DataError,
    Problems,
    UsageError,
    Utterance,
    is_prepared,
    measure_durations,
    nearest,
    read_marker,
    write_manifest,
)

SPLITS = ("train", "valid", "test")
DIMENSIONS = ("arousal", "valence")
COLUMN = "GoldStandard"
NAME = re.compile(r"(train|dev|test)_\w+")
LAYOUT = (
    "data_folder must hold recordings_audio/ (train_1.wav ...) and ratings_gold_standard/ with a folder of "
    "arff files per dimension (the AVEC 2016 release), or a folder RECOLA_2016/ that does."
)
EVERY = 3  # with test_part dev, every third training file becomes valid
logger = logging.getLogger(__name__)


def prepare_recola(data_folder, manifest_folder, dimension="arousal", test_part="test"):
    """Writes train.csv, valid.csv and test.csv into `manifest_folder` and returns {split: marker}.

    data_folder: the release, or the folder that holds it as RECOLA_2016/; dimension: arousal or valence,
    whose files become the label `trace`; test_part: "test", or "dev" for a copy without test ratings: dev is
    then tested and every third training file is valid. A second call with the same parameters and unchanged
    files returns at once. Raises UsageError, FileNotFoundError, or DataError that lists what is wrong.
    """
    root = _root(data_folder, dimension)
    parameters = {
        "corpus": "recola",
        "dimension": dimension,
        "test_part": test_part,
        "root": os.path.relpath(root, data_folder),
        "sha256": _hashes(root, dimension),
    }
    manifests = {split: Path(manifest_folder) / f"{split}.csv" for split in SPLITS}
    if all(is_prepared(path, parameters) for path in manifests.values()):
        return {split: read_marker(path) for split, path in manifests.items()}
    found = {split: list(utterances(data_folder, split, dimension, test_part)) for split in SPLITS}
    read_traces([u for each in found.values() for u in each], COLUMN)
    stamps = synthetic_emotion(root)
    return {
        split: write_manifest(path, found[split], data_folder, parameters, ("trace",), stamps=stamps)
        for split, path in manifests.items()
    }


def utterances(data_folder, split, dimension="arousal", test_part="test"):
    """Yields the Utterances of `split` (train, valid, test), one per recording, sorted by name.

    The speaker is the recording's name: each holds another one. Raises as prepare_recola does.
    """
    if split not in SPLITS:
        raise ValueError(f"No split {split!r} in RECOLA: {', '.join(SPLITS)}.")
    root = _root(data_folder, dimension)
    names = _names(root, dimension, split, test_part)
    wavs = [os.path.abspath(root / "recordings_audio" / f"{name}.wav") for name in names]
    seconds = measure_durations(wavs, root / "recordings_audio")
    for name, wav in zip(names, wavs, strict=True):
        trace = os.path.abspath(root / "ratings_gold_standard" / dimension / f"{name}.arff")
        yield Utterance(name, wav, seconds[wav], None, None, name, "U", "fr", {"trace": trace})


def _root(data_folder, dimension):
    """The release's folder; UsageError for an unknown dimension, FileNotFoundError for another layout"""
    if dimension not in DIMENSIONS:
        known = ", ".join(DIMENSIONS)
        raise UsageError(f"dimension {dimension!r}{nearest(str(dimension), DIMENSIONS)}: RECOLA has {known}.")
    data_folder = Path(data_folder)
    inner = data_folder / "RECOLA_2016"
    root = inner if inner.is_dir() else data_folder
    for folder in (root / "recordings_audio", root / "ratings_gold_standard" / dimension):
        if not folder.is_dir():
            raise FileNotFoundError(f"{folder} not found. {LAYOUT}")
    return root


def _names(root, dimension, split, test_part):
    """Names of the recordings of a split; DataError listing those without ratings"""
    if test_part not in ("test", "dev"):
        raise UsageError(f"test_part {test_part!r}: test, or dev for a copy without test ratings.")
    wavs = {path.stem for path in (root / "recordings_audio").glob("*.wav")}
    odd = sorted(name for name in wavs if not NAME.fullmatch(name))
    if odd:
        names = ", ".join(odd[:5])
        logger.warning("%s: %d wavs left out, not train_, dev_ or test_: %s", root, len(odd), names)
    parts = {part: sorted(n for n in wavs if n.startswith(f"{part}_")) for part in ("train", "dev", "test")}
    chosen = {"train": parts["train"], "valid": parts["dev"], "test": parts["test"]}
    if test_part == "dev":
        held_out = parts["train"][EVERY - 1 :: EVERY]
        chosen = {"train": sorted({*parts["train"]} - {*held_out}), "valid": held_out, "test": parts["dev"]}
    rated = {path.stem for path in (root / "ratings_gold_standard" / dimension).glob("*.arff")}
    _check_rated(root, dimension, split, chosen[split], rated)
    return chosen[split]


def _check_rated(root, dimension, split, names, rated):
    """DataError for recordings without ratings, with the way out where the whole test part has none"""
    if split == "test" and names and not rated & set(names) and names[0].startswith("test_"):
        raise DataError(
            f"{root}: no ratings of {dimension} for any test recording; AVEC 2016 kept them. Ask the "
            "authors, or --test_part dev: dev is then tested and every third training file is valid."
        )
    problems = Problems(root)
    for name in names:
        if name not in rated:
            problems.add(f"recordings without ratings_gold_standard/{dimension}/<name>.arff", name)
    problems.raise_if_any()


def _hashes(root, dimension):
    """sha256 of every file of ratings, and the names and sizes of the recordings"""
    ratings = sorted((root / "ratings_gold_standard" / dimension).glob("*.arff"))
    recordings = sorted((root / "recordings_audio").glob("*.wav"))
    hashes = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in ratings}
    return hashes | {path.name: path.stat().st_size for path in recordings}
