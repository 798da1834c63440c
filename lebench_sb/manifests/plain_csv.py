"""Manifests in which nothing needs a second look, checked a block at a time by Arrow.

Reading millions of rows one by one takes most of a minute. Here all checks of a row are made on columns, and
only answer whether a block is plainly good. What may be wrong, or what Python's csv module might read
differently, is `NotPlain`: `manifest_rows`, the reader of single rows, then decides and says what it is.
"""

import re

import numpy as np

from lebench_sb.manifests.markers import ROOT
from lebench_sb.manifests.tables import MOST_COLUMNS
from lebench_sb.manifests.utterance import COLUMNS, GENDERS, PATH_LABELS, segments_agree

BLOCK = 16 << 20  # bytes read at once
LONGEST = 100_000  # bytes of a field; csv refuses fields of more than 131,072 characters
SECONDS = r"^[0-9]+(\.[0-9]+)?([eE][-+]?[0-9]+)?$"
ENCLOSED = re.compile(rb'"(?<![^,\n]")[^"\r\n]*"(?=[,\n]|\r\n)')  # a whole field, no marks inside
BOM = b"\xef\xbb\xbf"


class NotPlain(Exception):
    """Read one at a time, these rows may turn out wrong, or different."""


def plain_tables(raw):
    """Yields the rows of an open manifest (binary, at its beginning) as Arrow tables.

    The columns are COLUMNS, then the labels in their order: float64 for seconds, text for the rest. IDs are
    not compared with each other. Raises NotPlain.
    """
    names = _names(raw.readline())
    rest, begin = b"", raw.tell()
    while block := raw.read(BLOCK):
        lines, end, rest = (rest + block).rpartition(b"\n")
        if end:
            yield _checked(lines + end, names)
    if rest:
        yield _checked(rest + b"\n", names)
    _demand(raw.tell() > begin)


def _names(line):
    """The header's columns"""
    line = line.removeprefix(BOM).rstrip(b"\r\n")
    _demand(line.isascii() and b'"' not in line)
    names = line.decode().split(",")
    _demand(len(names) <= MOST_COLUMNS and set(COLUMNS) <= set(names) and len(set(names)) == len(names))
    _demand("semantics" not in names)  # tags are read one after the other
    return names


def _demand(good):
    if not good:
        raise NotPlain


def _checked(block, names):
    """The table of whole lines"""
    import pyarrow as pa
    from pyarrow import csv

    _demand(b"\0" not in block)
    _demand(block.count(b'"') == 2 * len(ENCLOSED.findall(block)) and BOM not in block)
    try:
        table = csv.read_csv(
            pa.BufferReader(block),
            csv.ReadOptions(column_names=names),
            convert_options=csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string())),
        )
    except pa.ArrowInvalid as error:  # a row of another length, no UTF-8
        raise NotPlain from error
    table = table.select([*COLUMNS, *(name for name in names if name not in COLUMNS)])
    for name in ("duration", "start", "stop"):
        seconds = _seconds(table[name], empty=name != "duration")
        table = table.set_column(table.column_names.index(name), name, seconds)
    _check(table)
    return table


def _seconds(texts, empty):
    """Numbers as float64; an empty one is null where that is allowed"""
    import pyarrow as pa
    import pyarrow.compute as pc

    if empty:
        texts = pc.if_else(pc.equal(texts, ""), pa.scalar(None, pa.string()), texts)
    _demand(pc.all(pc.match_substring_regex(texts, SECONDS), min_count=0).as_py())
    numbers = pc.cast(texts, pa.float64())
    _demand(pc.all(pc.is_finite(numbers), min_count=0).as_py())
    return numbers


def _check(table):
    """What `manifest_rows` checks, of all rows at once"""
    import pyarrow as pa
    import pyarrow.compute as pc

    for column in table.columns:
        if column.type == pa.string():
            _demand((pc.max(pc.binary_length(column)).as_py() or 0) <= LONGEST)
    _demand(pc.all(pc.not_equal(table["ID"], ""), min_count=0).as_py())
    for name in {"wav", *PATH_LABELS} & set(table.column_names):
        _check_places(table[name], label=name != "wav")
    _demand(pc.all(pc.is_in(table["gender"], pa.array(GENDERS)), min_count=0).as_py())
    duration, start, stop = (table[name].to_numpy() for name in ("duration", "start", "stop"))
    whole = np.isnan(start)
    _demand((duration > 0).all() and (whole == np.isnan(stop)).all())
    duration, start, stop = duration[~whole], start[~whole], stop[~whole]
    _demand((start < stop).all() and segments_agree(duration, start, stop).all())


def _check_places(paths, label):
    """Paths (n,) below $data_root, of labels also other text: what might lead elsewhere is looked at again"""
    import pyarrow.compute as pc

    inside = pc.invert(pc.starts_with(paths, "/")) if label else pc.starts_with(paths, ROOT)
    _demand(pc.all(inside, min_count=0).as_py())
    for mark in ("..", "\\"):
        _demand(not pc.any(pc.match_substring(paths, mark), min_count=0).as_py())
