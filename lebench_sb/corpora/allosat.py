"""AlloSat: real calls to call centres in French, rated along the axis from frustration to satisfaction.

37 hours of telephone speech, one file per conversation: `audio/*.wav`,
`annotations/labels/*.csv` (separated by semicolons; a column `satisfaction`, a value every 250 ms) and
`train.txt`, `dev.txt`, `test.txt`, the names of the conversations, one a line. On request from LIUM:
https://lium.univ-lemans.fr/en/allosat/ (Macary et al., LREC 2020).
"""

import os
import re
from collections import Counter
from pathlib import Path

from lebench_sb.core.errors import Problems
from lebench_sb.core.paths import below, files_below
from lebench_sb.corpora._caveats import synthetic_emotion
from lebench_sb.corpora._prepare import (
    THEIRS,
    check_split,
    corpus_folder,
    demand,
    hashes,
    prepare,
    sizes,
    traced,
)
from lebench_sb.manifests.durations import measure_durations
from lebench_sb.manifests.tables import read_text
from lebench_sb.manifests.utterance import Utterance

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
    read = traced(lambda split, left_out: utterances(data_folder, split), COLUMN)
    return prepare(data_folder, manifest_folder, parameters, read, ("trace",), synthetic_emotion(root))


def utterances(data_folder, split):
    """Yields the Utterances of `split` (train, valid, test), one per conversation, in the list's order.

    Who speaks is not known. Raises as prepare_allosat does.
    """
    check_split(split, "AlloSat")
    root = _root(data_folder)
    lists = {name: _names(below(root, f"{theirs}.txt")) for name, theirs in THEIRS.items()}
    problems = Problems(root / f"{THEIRS[split]}.txt")
    recordings, ratings = _files(root, problems)
    elsewhere = {name: other for other in lists if other != split for name in lists[other]}
    times = Counter(lists[split])
    for name in lists[split]:
        if name in elsewhere:
            problems.add(f"conversations that {THEIRS[elsewhere[name]]}.txt names too", name)
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
    by_stem = ({}, {})
    for named, folder, suffix in zip(by_stem, (("audio",), LABELS), (".wav", ".csv"), strict=True):
        for path in files_below(below(root, *folder), (suffix,)):
            if (first := named.setdefault(path.stem, str(path))) != str(path):
                problems.add("two files of one name", f"{first} and {path}")
    return by_stem


def _root(data_folder):
    root = corpus_folder(data_folder, "AlloSat_corpus")
    demand((below(root, "audio"), below(root, *LABELS)), LAYOUT, Path.is_dir)
    demand(_lists(root), LAYOUT)
    return root


def _lists(root):
    return [below(root, f"{name}.txt") for name in THEIRS.values()]


def _names(path):
    """The conversations of a list, without the folder and the suffix that some copies write"""
    lines = [line.strip().replace("\\", "/").rpartition("/")[2] for line in read_text(path).splitlines()]
    return [re.sub(r"\.(wav|csv)$", "", line, flags=re.IGNORECASE) for line in lines if line]


def _hashes(root):
    """sha256 of the lists and of every file of ratings, and the names and sizes of the recordings"""
    recordings, ratings = _files(root, Problems(root))
    return hashes([*_lists(root), *ratings.values()]) | sizes(recordings.values())
