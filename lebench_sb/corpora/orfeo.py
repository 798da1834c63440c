"""CEFC-Orféo: 150 h of spoken French with automatic dependency trees and the time of every word.

Each recording has a `NAME.orfeo`: CoNLL-U with at least twelve columns, of which the eleventh and twelfth
are the begin and end of the word in seconds, and a thirteenth, where there is one, its speaker. Tags and
relations are the corpus's own. One utterance is a sentence (`# sent_id`), cut out of `NAME.wav` (or .flac,
.mp3, .ogg) anywhere below data_folder. wav2tree and LeBenchmark 2.0 used 122.1 h / 11.57 h / 11.62 h with
158,778 / 15,000 / 15,000 trees; how they were drawn is not published: `prepare_orfeo` says what is done here.
https://repository.ortolang.fr/api/content/cefc-orfeo (Benzitoun, Debaisieux & Deulofeu 2016)
"""

import hashlib
import os
import random
from collections import Counter
from pathlib import Path

from lebench_sb.annotations.trees import read_blocks
from lebench_sb.corpora._treebanks import NAMES, Reader, write_splits
from lebench_sb.manifest import (
    SECONDS,
    DataError,
    Problems,
    corpus_folder,
    is_prepared,
    nearest,
    read_marker,
    read_text,
)

# names with a mark are read as text: what stands there need not follow Universal Dependencies
TIMED = (*"id form lemma upos xpos_ feats_ head deprel deps_ misc_".split(), "begin", "end")
SPEAKER = "speaker"
LAYOUT = (
    "data_folder must hold *.orfeo files (CoNLL-U with begin and end of each word) and their recordings; to "
    "choose the splits, also folders train/, dev/, test/ or lists train.txt, dev.txt, test.txt (a recording "
    "or a sent_id a line)."
)


def prepare_orfeo(
    data_folder, manifest_folder, normaliser="fr-1", ratios=(0.84, 0.08, 0.08), seed=1234, drop_bad=False,
    multiword="merge",
):  # fmt: skip
    """Writes train.csv, valid.csv and test.csv into `manifest_folder` and returns {split: marker}.

    data_folder: Orféo's, or one that holds it as orfeo/. The splits: lists `train.txt`, `dev.txt`, `test.txt`
    where they are; else folders `train/`, `dev/`, `test/`; else whole recordings are drawn with `seed` until
    each split has its share (`ratios` of train, valid, test) of the seconds. normaliser, multiword: as in
    trees.spoken_tree; drop_bad: leave faulty sentences out and count them in the markers, instead of
    stopping.

    A second call with the same parameters and unchanged text files returns at once. Raises FileNotFoundError,
    or DataError that lists what is wrong.
    """
    folder = corpus_folder(data_folder, "orfeo")
    files = _files(folder)
    parameters = {
        "corpus": "orfeo",
        "root": os.path.relpath(folder, data_folder),
        **{"normaliser": normaliser, "ratios": list(ratios), "seed": seed},
        **{"drop_bad": drop_bad, "multiword": multiword},
        "sha256": _hashes([*files, *_lists(folder).values()], folder),
    }
    manifests = {split: Path(manifest_folder) / f"{split}.csv" for split in NAMES}
    if all(is_prepared(path, parameters) for path in manifests.values()):
        return {split: read_marker(path) for split, path in manifests.items()}
    reader = Reader(folder, folder, normaliser, multiword)
    found = reader.within_recordings(list(_utterances(files, reader)))
    dropped = reader.finish(drop_bad)
    splits, unlisted = _split(folder, files, found, ratios, seed)
    # of which split a faulty sentence would have been is not always known: all are counted with train
    lost = {"train": dropped | ({"in no list of a split": unlisted} if unlisted else {})}
    return write_splits(manifests, splits, lost, data_folder, parameters)


def utterances(data_folder, normaliser="fr-1", multiword="merge"):
    """Yields the Utterances of all `*.orfeo`, file by file. Raises as prepare_orfeo does."""
    folder = corpus_folder(data_folder, "orfeo")
    reader = Reader(folder, folder, normaliser, multiword)
    found = reader.within_recordings(list(_utterances(_files(folder), reader)))
    reader.finish(drop_bad=False)
    yield from found


def _files(data_folder):
    files = sorted(Path(data_folder).rglob("*.orfeo"))
    if not files:
        raise FileNotFoundError(f"{data_folder}: no *.orfeo file. {LAYOUT}")
    doubled = sorted(stem for stem, n in Counter(path.stem for path in files).items() if n > 1)
    if doubled:
        raise DataError(f"{data_folder}: keep one of the files named {', '.join(doubled[:5])}.orfeo.")
    return files


def _hashes(paths, root):
    return {os.path.relpath(path, root): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def _utterances(files, reader):
    for path in files:
        for block in read_blocks(path, reader.problems, (*TIMED, SPEAKER), len(TIMED)):
            times = reader.times(block, _times)
            speaker = Counter(t.get(SPEAKER) or "_" for t in block.nodes).most_common(1)[0][0]
            name = path.stem if speaker == "_" else f"{path.stem}-{speaker}"
            u = reader.utterance(block, (path.stem,), times, name)
            if u is not None:
                yield u


def _times(token):
    """(begin, end) of a line, None where it has none; ValueError that says what stands there instead"""
    begin, end = token["begin"], token["end"]
    if begin == end == "_":
        return None
    if not (SECONDS.fullmatch(begin) and SECONDS.fullmatch(end)):
        raise ValueError(f"{begin!r} {end!r}")
    return float(begin), float(end)


# ---- splits


def _lists(data_folder):
    """{split: path} of the lists in data_folder; all or none"""
    paths = {split: Path(data_folder) / f"{name}.txt" for split, name in NAMES.items()}
    there = [split for split, path in paths.items() if path.is_file()]
    if there and len(there) < len(paths):
        missing = ", ".join(paths[split].name for split in paths if split not in there)
        raise DataError(f"{data_folder}: {missing} not found; lists of splits must be all three or none.")
    return paths if there else {}


def _split(data_folder, files, found, ratios, seed):
    """-> {split: utterances}, how many are in none"""
    if lists := _lists(data_folder):
        return _by_lists(lists, files, found)
    tops = {path.relative_to(data_folder).parts[0] for path in files}
    if tops == set(NAMES.values()):
        return _by_folders(data_folder, files, found), 0
    return _drawn(data_folder, found, ratios, seed), 0


def _by_lists(lists, files, found):
    split_of, problems = {}, Problems("lists of splits")
    known = {path.stem for path in files} | {u.id for u in found}
    for split, path in lists.items():
        for number, line in enumerate(read_text(path).splitlines(), 1):
            name = line.strip().removesuffix(".orfeo")
            if name and name not in known:
                hint = nearest(name, known) if len(known) < 10_000 else ""
                problems.add("names of no recording or sentence", f"{path.name}:{number} {name}{hint}")
            elif name and split_of.setdefault(name, split) != split:
                problems.add("names in two lists", f"{path.name}:{number} {name}")
    splits, unlisted = {split: [] for split in NAMES}, 0
    for u, stem in ((u, _stem(u)) for u in found):
        chosen = {split_of[name] for name in (u.id, stem) if name in split_of}
        if len(chosen) > 1:
            problems.add("sentences in one list, their recording in another", u.id)
        for split in sorted(chosen)[:1]:
            splits[split].append(u)
        unlisted += not chosen
    problems.raise_if_any()
    return splits, unlisted


def _stem(u):
    return Path(u.wav).stem


def _by_folders(data_folder, files, found):
    ours = {name: split for split, name in NAMES.items()}
    split_of = {path.stem: ours[path.relative_to(data_folder).parts[0]] for path in files}
    splits = {split: [] for split in NAMES}
    for u in found:
        splits[split_of[_stem(u)]].append(u)
    return splits


def _drawn(data_folder, found, ratios, seed):
    """Whole recordings to test, valid, train; each split gets at least one"""
    seconds = Counter()
    for u in found:
        seconds[_stem(u)] += u.duration
    if len(seconds) < len(NAMES):
        raise DataError(f"{data_folder}: {len(seconds)} recordings for three splits. {LAYOUT}")
    order = sorted(seconds)
    random.Random(seed).shuffle(order)
    total, split_of = sum(seconds.values()), {}
    for split, ratio, reserved in (("test", ratios[2], 2), ("valid", ratios[1], 1)):
        share = 0.0
        while len(order) > reserved and (share == 0 or share + seconds[order[-1]] / 2 < ratio * total):
            share += seconds[order[-1]]
            split_of[order.pop()] = split
    splits = {split: [] for split in NAMES}
    for u in found:
        splits[split_of.get(_stem(u), "train")].append(u)
    return splits
