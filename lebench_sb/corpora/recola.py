"""RECOLA: French speakers who solve a task together over a video call, rated in arousal and valence.

The AVEC 2016 release holds `recordings_audio/{train,dev,test}_N.wav` (5 minutes each, another speaker in
each) and, per dimension, `ratings_gold_standard/{arousal,valence}/{train,dev,test}_N.arff`
with the attributes Instance_name, frameTime (s, a value every 40 ms) and GoldStandard. The challenge kept
the test ratings; `test_part: dev` serves copies without them. Free for academic use after signing an
agreement: https://diuf.unifr.ch/main/diva/recola/ (Ringeval et al., 2013).
"""

import logging
import os
import re
from pathlib import Path

from lebench_sb.core.errors import DataError, Problems, UsageError, nearest
from lebench_sb.core.paths import below, listed
from lebench_sb.corpora._caveats import synthetic_emotion
from lebench_sb.corpora._prepare import check_split, corpus_folder, demand, hashes, prepare, sizes, traced
from lebench_sb.manifests.durations import measure_durations
from lebench_sb.manifests.utterance import Utterance

DIMENSIONS = ("arousal", "valence")
COLUMN = "GoldStandard"
AUDIO, RATINGS = "recordings_audio", "ratings_gold_standard"
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
        "sha256": hashes(_ratings(root, dimension).values()) | sizes(_recordings(root).values()),
    }
    read = traced(lambda split, left_out: utterances(data_folder, split, dimension, test_part), COLUMN)
    return prepare(data_folder, manifest_folder, parameters, read, ("trace",), synthetic_emotion(root))


def utterances(data_folder, split, dimension="arousal", test_part="test"):
    """Yields the Utterances of `split` (train, valid, test), one per recording, sorted by name.

    The speaker is the recording's name: each holds another one. Raises as prepare_recola does.
    """
    check_split(split, "RECOLA")
    root = _root(data_folder, dimension)
    names = _names(root, dimension, split, test_part)
    recordings, ratings = _recordings(root), _ratings(root, dimension)
    seconds = measure_durations([recordings[name] for name in names], below(root, AUDIO))
    for name in names:
        wav, trace = recordings[name], ratings[name]
        yield Utterance(name, wav, seconds[wav], None, None, name, "U", "fr", {"trace": trace})


def _root(data_folder, dimension):
    """The release's folder; UsageError for an unknown dimension, FileNotFoundError for another layout"""
    if dimension not in DIMENSIONS:
        known = ", ".join(DIMENSIONS)
        raise UsageError(f"dimension {dimension!r}{nearest(str(dimension), DIMENSIONS)}: RECOLA has {known}.")
    root = corpus_folder(data_folder, "RECOLA_2016")
    demand((below(root, AUDIO), below(root, RATINGS, dimension)), LAYOUT, Path.is_dir)
    return root


def _recordings(root):
    """{name: absolute path} of the recordings"""
    return _by_stem(below(root, AUDIO), ".wav")


def _ratings(root, dimension):
    """{name: absolute path} of the files of ratings"""
    return _by_stem(below(root, RATINGS, dimension), ".arff")


def _by_stem(folder, suffix):
    """{stem: absolute path} of the files right in `folder` with that suffix, in any letter case. DataError
    for two of one stem."""
    paths, problems = {}, Problems(folder)
    for name in listed(folder):
        stem, ending = os.path.splitext(name)
        if ending.lower() == suffix and (first := paths.setdefault(stem, name)) != name:
            problems.add("two files of one name", f"{first} and {name}")
    problems.raise_if_any()
    return {stem: os.path.abspath(folder / name) for stem, name in paths.items()}


def _names(root, dimension, split, test_part):
    """Names of the recordings of a split; DataError listing those without ratings"""
    if test_part not in ("test", "dev"):
        raise UsageError(f"test_part {test_part!r}: test, or dev for a copy without test ratings.")
    wavs = set(_recordings(root))
    odd = sorted(name for name in wavs if not NAME.fullmatch(name))
    if odd:
        names = ", ".join(odd[:5])
        logger.warning("%s: %d wavs left out, not train_, dev_ or test_: %s", root, len(odd), names)
    parts = {part: sorted(n for n in wavs if n.startswith(f"{part}_")) for part in ("train", "dev", "test")}
    chosen = {"train": parts["train"], "valid": parts["dev"], "test": parts["test"]}
    if test_part == "dev":
        held_out = parts["train"][EVERY - 1 :: EVERY]
        chosen = {"train": sorted({*parts["train"]} - {*held_out}), "valid": held_out, "test": parts["dev"]}
    _check_rated(root, dimension, split, chosen[split], set(_ratings(root, dimension)))
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
