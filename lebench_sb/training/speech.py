"""The speech of a run as hashes: its manifests, and the recordings and label files that they list.

Names below the data folder and times of change are not in them, so that a corpus may move to another disk
between two jobs. Small corpora are hashed whole; of large ones every size, and pieces of a sample.
"""

import hashlib
import os
import random
from concurrent.futures import ThreadPoolExecutor

from lebench_sb.audio.members import file_of
from lebench_sb.manifests.columns import Utterances, open_utterances
from lebench_sb.manifests.markers import manifest_hash
from lebench_sb.manifests.utterance import PATH_LABELS

WHOLE = 256 << 20  # bytes of files that are read entirely
SAMPLE = 2000  # of more, this many files are looked into
PIECE, PIECES = 1 << 14, 64  # bytes, and how many of them in a file, evenly spread
MOST = 200_000  # files whose size is asked for, of more a sample
READERS = 8  # threads: opening files waits on the disk or the network


def speech_of(splits, data_root):
    """{split: paths of manifests} -> {split: hash of the manifests and of the files they list}"""
    return {split: split_hash(paths, data_root) for split, paths in splits.items()}


def split_hash(paths, data_root):
    """Hash (hex) of the manifests of a split, and of the recordings and label files that they list"""
    told = [manifest_hash(path) for path in paths]
    files = listed(open_utterances(list(paths), data_root))
    return hashlib.sha256("".join([*told, content_of(files)]).encode()).hexdigest()


def listed(utterances):
    """Utterances, a list or columnar -> sorted paths of the files they name; of a member of a shard, the
    shard"""
    if isinstance(utterances, Utterances):
        columns = ["wav", *(name for name in PATH_LABELS if name in utterances.labels)]
        root = utterances.root
        values = {value for name in columns for value in utterances.distinct(name)[0]}
        names = {value.replace("$data_root/", root, 1) for value in values}
    else:
        names = {value for u in utterances for value in (u.wav, *(u.labels.get(k, "") for k in PATH_LABELS))}
    return sorted({file_of(name) for name in names if os.path.isabs(name)})


def content_of(paths):
    """Hash (hex) of the sizes and content of files, in their order: of all of it where they are small, else
    of pieces of a sample. A file that is missing is one without size."""
    chosen = sample(paths, MOST)
    with ThreadPoolExecutor(READERS) as pool:
        sizes = list(pool.map(size_of, chosen))
        few = sum(size or 0 for size in sizes) <= WHOLE
        read = chosen if few else sample(chosen, SAMPLE)
        contents = list(pool.map(whole_hash if few else pieces_hash, read))
    return hashlib.sha256(repr((len(paths), sizes, contents)).encode()).hexdigest()


def sample(items, count):
    """At most `count` of the items, always the same ones, in order"""
    if len(items) <= count:
        return list(items)
    return [items[i] for i in sorted(random.Random(0).sample(range(len(items)), count))]


def size_of(path):
    """Bytes of a regular file; None for anything else"""
    try:
        return os.stat(path).st_size if os.path.isfile(path) else None
    except (OSError, ValueError):  # the check of the data says what is wrong with it
        return None


def whole_hash(path):
    return read_hash(path, None)


def pieces_hash(path):
    return read_hash(path, PIECES)


def read_hash(path, pieces):
    """Hash (hex) of a file's content, or of so many pieces of it; "" where it cannot be read"""
    size = size_of(path)
    if size is None:
        return ""
    try:
        with open(path, "rb") as file:
            if pieces is None or size <= pieces * PIECE:
                return hashlib.file_digest(file, "blake2b").hexdigest()
            digest = hashlib.blake2b()
            for number in range(pieces):
                file.seek((size - PIECE) * number // (pieces - 1))
                digest.update(file.read(PIECE))
    except OSError:
        return ""
    return digest.hexdigest()
