"""The skeleton of every preparation. A corpus is its story, its layout and its `utterances`:

    def prepare_x(data_folder, manifest_folder, normaliser="fr-1"):
        root = _root(data_folder)
        parameters = {"corpus": "x", "normaliser": normaliser, "sha256": hashes(_texts(root), root)}
        read = by_split(lambda split, left_out: utterances(data_folder, split, normaliser, left_out))
        return prepare(data_folder, manifest_folder, parameters, read, ("wrd",), synthetic(root))

A YAML names `prepare_x`; `lebench prepare x` reads its signature.
"""

import os
from pathlib import Path

from lebench_sb.core.guard import regular
from lebench_sb.core.paths import below
from lebench_sb.manifests.markers import LeftOut, manifest_hash, prepared
from lebench_sb.manifests.traces import read_traces
from lebench_sb.manifests.writing import write_manifest

SPLITS = ("train", "valid", "test")
THEIRS = {"train": "train", "valid": "dev", "test": "test"}  # ours: what most corpora call them


def prepare(data_folder, manifest_folder, parameters, read, required=(), caveats=(), splits=SPLITS):
    """Writes `<split>.csv` of the splits into `manifest_folder` and returns {split: marker}; at once where
    all are there, made with these parameters.

    parameters: everything the manifests depend on, with hashes of the files that are read; read:
    {split: LeftOut} -> {split: Utterances}, called before anything is written; required: labels that must not
    be empty; caveats: what weakens a score on any split, before what `read` adds to `LeftOut.caveats`.
    """
    manifests = {split: Path(manifest_folder) / f"{split}.csv" for split in splits}
    if done := prepared(manifests, parameters, data_folder):
        return done
    left_out = {split: LeftOut(split) for split in splits}
    splits_of = read(left_out)
    return {
        split: write_manifest(
            path,
            splits_of[split],
            data_folder,
            parameters,
            required,
            left_out[split],
            [*caveats, *left_out[split].caveats],
        )
        for split, path in manifests.items()
    }


def by_split(read):
    """`read(split, left_out)` -> Utterances of one split, as `prepare` calls it: for all splits"""
    return lambda left_out: {split: list(read(split, each)) for split, each in left_out.items()}


def traced(read, column):
    """The same of a corpus with the label `trace`: the files of all splits are checked, at once"""

    def read_all(left_out):
        splits = by_split(read)(left_out)
        read_traces([u for each in splits.values() for u in each], column)
        return splits

    return read_all


def check_split(split, corpus):
    """Raises ValueError for what is none of SPLITS"""
    if split not in SPLITS:
        raise ValueError(f"No split {split!r} in {corpus}: {', '.join(SPLITS)}.")


def corpus_folder(data_folder, *names):
    """The first of the folders `names` that is in `data_folder` (it holds several corpora), in any letter
    case, else `data_folder`"""
    inner = (below(data_folder, name) for name in names)
    return next((folder for folder in inner if folder.is_dir()), Path(data_folder))


def demand(paths, layout, kind=Path.exists):
    """Raises FileNotFoundError for the first of the paths that is not there; layout: a sentence that says
    what should be; kind: Path.is_dir or Path.is_file, where only that will do"""
    for path in paths:
        if not kind(path):
            raise FileNotFoundError(f"{path} not found. {layout}")


def hashes(paths, root=None):
    """{name: sha256} of files; their names below `root`, or alone"""
    return {_name(path, root): manifest_hash(regular(path)) for path in paths}


def sizes(paths, root=None):
    """{name: bytes} of files: of recordings, whose hashes would take hours"""
    return {_name(path, root): os.path.getsize(path) for path in paths}


def _name(path, root):
    return os.path.basename(path) if root is None else os.path.relpath(path, root)
