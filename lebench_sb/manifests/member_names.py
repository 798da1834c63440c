"""Which files a value names: manifests in a `*_csv` key, files inside a YAML, audio and labels in a manifest.

One rule for all who ask: the run that reads them, and the grid that asks whether they have changed.
"""

import csv
import os
import re
from pathlib import Path

import yaml

from lebench_sb.audio.members import file_of
from lebench_sb.core.errors import UsageError

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
ROOT = "$data_root/"
UP = re.compile(r"(?:^|/|\\|::)\.\.(?=/|\\|#|$)")  # `..` as a folder, also in a shard
PATHS = ("wav", "trace", "tree")  # columns of a manifest that may hold paths
COMMON_PIECES = 200  # commas in one value: more are no list of manifests


def manifest_paths(value):
    """One path, a comma-separated string or a list -> list of paths.

    The items of a list are taken as they are. In a string, a comma may also belong to a name: neighbours that
    together name a file stay together. Raises UsageError where several readings name files, or a path is
    empty.
    """
    if isinstance(value, (list, tuple)):
        return [Path(path) for path in value]
    pieces = str(value).split(",")
    if len(pieces) > COMMON_PIECES:
        raise UsageError(f"{str(value)[:80]}...: {len(pieces) - 1} commas; write a list: [a.csv, b.csv].")
    found = readings(pieces) if len(pieces) > 1 else []
    if len(found) > 1:
        shown = " or ".join(" and ".join(repr(path) for path in paths) for paths in found)
        raise UsageError(f"{value}: these are the files {shown}; write a YAML list, ['a,b.csv', c.csv].")
    paths = found[0] if found else [piece.strip() for piece in pieces]
    if "" in paths:
        raise UsageError(f"{str(value)!r}: an empty path; name manifests, with one comma between two.")
    return [Path(path) for path in paths]


def readings(pieces):
    """Pieces between commas -> at most two ways to join neighbours so that each path is a file"""
    ways = {len(pieces): [[]]}
    for first in range(len(pieces) - 1, -1, -1):
        ways[first] = []
        for last in range(first + 1, len(pieces) + 1):
            path = ",".join(pieces[first:last]).strip()
            if ways[last] and os.path.isfile(path):
                ways[first] += [[path, *rest] for rest in ways[last]]
        ways[first] = ways[first][:2]
    return ways[0]


def yaml_values(text):
    """The text of a YAML -> [(path of keys, node), ...] of all its scalars, anchors once"""
    root = yaml.compose(text, Loader=LOADER)
    waiting, seen, values = [((), root)] if root is not None else [], set(), []
    while waiting:
        keys, node = waiting.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, yaml.ScalarNode):
            values.append((keys, node.value))
        elif isinstance(node, yaml.SequenceNode):
            waiting += [((*keys, k), item) for k, item in enumerate(node.value)]
        else:
            waiting += [((*keys, str(key.value)), item) for key, item in node.value]
    return sorted(values, key=lambda item: str(item[0]))


def files_in(text):
    """The text of a YAML -> {key at the top: [existing files and folders its scalars name]}"""
    files = {}
    for keys, value in yaml_values(text):
        paths = [path for path in as_paths(value) if os.path.isfile(path) or os.path.isdir(path)]
        if paths and keys:
            files.setdefault(keys[0], []).extend(paths)
    return files


def as_paths(value):
    """What a scalar may mean as paths: itself, or the files of its comma-separated parts"""
    if "," not in value or os.path.exists(value):
        return [value]
    pieces = value.split(",")
    found = readings(pieces) if len(pieces) <= COMMON_PIECES else []
    return [path for paths in found for path in paths]


def named_in_manifest(path, root):
    """The files on disk that a manifest names, sorted: recordings, the shard and its index of those inside
    one, labels that are paths. None for a file that is no manifest or is not written as one.

    root: takes the place of `$data_root`.
    """
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            rows = csv.reader(file)
            header = next(rows, [])
            columns = [header.index(name) for name in PATHS if name in header]
            if "wav" not in header:
                return None
            values = {row[k] for row in rows for k in columns if k < len(row)}
    except (UnicodeDecodeError, csv.Error):  # not for us to say: who reads it says what is wrong with it
        return None
    return sorted({name for value in values for name in files_behind(value, root)})


def files_behind(value, root):
    """A field of a manifest that may be a path -> the files on disk that decide what it gives"""
    if not value or "\t" in value or "\n" in value:
        return []  # a sentence in CoNLL-U
    path = without_key(os.path.join(root, value.removeprefix(ROOT)))
    shard = file_of(path)
    return [path] if shard == path else [shard, f"{shard}.index"]


def without_key(path):
    """`trees.conllu#s1`, a file of trees and the key of a sentence in it -> the file"""
    return path.rpartition("#")[0] if "#" in path and not os.path.isfile(path) else path


def path_fault(value):
    """What is wrong with a path below data_root as it is written, "" for nothing"""
    if "\0" in value:
        return "holds a NUL byte"
    if ".." in value and UP.search(value):
        return "leaves data_root: `..` is not read"
    return ""
