"""Manifests of millions of utterances: columns mapped into memory, in place of one object per row.

The CSV stays what users see and write. When a large one is first opened, its rows are checked once and copied
to `<manifest>.arrow`, an Arrow file that names the CSV's sha256. Later openings compare the hash and map the
file: pages are read when a row is asked for, and processes on one machine share them.
"""

import fcntl
import io
import logging
import operator
import os
from array import array
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from lebench_sb.manifest import (
    COLUMNS,
    NO_ROWS,
    PATH_LABELS,
    ROOT,
    DataError,
    Problems,
    Utterance,
    add_double,
    expand,
    manifest_hash,
    manifest_rows,
    read_manifest,
    read_text,
    root_prefix,
)
from lebench_sb.storage.plain_csv import NotPlain, plain_tables

logger = logging.getLogger(__name__)
FORMAT = 1  # raised when the columns or the checks of rows change: files of another format are built anew
LARGE = 16 << 20  # bytes of CSV of a split (about 100,000 rows) from which on it is opened as columns
ROWS = 1 << 16  # rows of one record batch, and those turned into Utterances at once when all are visited
NUMBERS = ("duration", "start", "stop")


class Utterances(Sequence):
    """The utterances of one or several columnar files, in their order, made when they are asked for.

    files: paths of Arrow files written by `build`; data_root: folder above the audio files; positions:
    (n,) int64 rows of the files taken together, None for all. A slice is again Utterances. Copies sent to
    other processes open the files themselves.
    """

    def __init__(self, files, data_root, positions=None):
        self.files, self.data_root, self.positions = [str(file) for file in files], str(data_root), positions
        self.root = root_prefix(data_root)
        self.table = _one_table([_mapped(file) for file in self.files])
        self.labels = [name for name in self.table.column_names if name not in COLUMNS]
        batches = self.table.to_batches()
        self.batches = [batch.columns for batch in batches]
        self.starts = np.cumsum([0, *(batch.num_rows for batch in batches)]).tolist()

    def __reduce__(self):
        return Utterances, (self.files, self.data_root, self.positions)

    def __len__(self):
        return self.starts[-1] if self.positions is None else len(self.positions)

    def __getitem__(self, index):
        if isinstance(index, slice):
            return self.take(np.arange(len(self))[index])
        index = operator.index(index)
        if not -len(self) <= index < len(self):
            raise IndexError(f"utterance {index} of {len(self)}")
        row = index % len(self)
        row = row if self.positions is None else int(self.positions[row])
        number = bisect_right(self.starts, row) - 1
        return self.utterance(*(column[row - self.starts[number]].as_py() for column in self.batches[number]))

    def __iter__(self):
        for first in range(0, len(self), ROWS):
            table = self.rows(first, first + ROWS)
            yield from map(self.utterance, *(column.to_pylist() for column in table.columns))

    def rows(self, first, last):
        """The table of some neighbours"""
        if self.positions is None:
            return self.table.slice(first, last - first)
        return self.table.take(self.positions[first:last])

    def utterance(self, id, duration, wav, start, stop, speaker, gender, language, *labels):
        """The Utterance of one row; a label that its manifest has no column for is left out"""
        found = {name: text for name, text in zip(self.labels, labels, strict=True) if text is not None}
        for name in PATH_LABELS:
            if name in found:
                found[name] = expand(found[name], self.root)
        wav = expand(wav, self.root)
        return Utterance(id, wav, duration, start, stop, speaker, gender, language, found)

    def take(self, positions):
        """Utterances at positions (n,) of this sequence, in that order"""
        rows = positions if self.positions is None else self.positions[positions]
        return Utterances(self.files, self.data_root, np.asarray(rows, dtype=np.int64))

    def where(self, mask):
        """Those for which mask (n,) bool is true"""
        return self.take(np.flatnonzero(mask))

    def column(self, name):
        """A column of the manifest as an Arrow array (n,)"""
        column = self.table[name]
        return column if self.positions is None else column.take(self.positions)

    @property
    def durations(self):
        """seconds (n,) float64"""
        return self.column("duration").to_numpy()

    def distinct(self, name):
        """(values, codes (n,)) of a text column: values[codes[i]] is what row i holds"""
        column = self.column(name).fill_null("").dictionary_encode().combine_chunks()
        return column.dictionary.to_pylist(), column.indices.to_numpy()


def durations_of(utterances):
    """seconds (n,) of a list of Utterance or of columnar Utterances"""
    if isinstance(utterances, Utterances):
        return utterances.durations
    return np.array([u.duration for u in utterances], dtype=np.float64)


class RowsById(Mapping):
    """{utterance id: row(utterance)}; the ids are gathered when one is first asked for."""

    def __init__(self, utterances, row):
        self.utterances, self.row, self.places = utterances, row, None

    def __reduce__(self):
        return RowsById, (self.utterances, self.row)

    def __getitem__(self, name):
        if self.places is None:
            self.places = {name: k for k, name in enumerate(self)}
        return self.row(self.utterances[self.places[name]])

    def __iter__(self):
        return iter(self.utterances.column("ID").to_pylist())

    def __len__(self):
        return len(self.utterances)


def open_utterances(paths, data_root):
    """The utterances of the manifests `paths` in file order: a list, or Utterances when the files are large.

    Raises what `read_manifest` raises, and DataError for an ID that two of the manifests share.
    """
    if sum(os.path.getsize(path) for path in paths if os.path.isfile(path)) < LARGE:
        utterances = [u for path in paths for u in read_manifest(path, data_root)]
        ids = [u.id for u in utterances] if len(paths) > 1 else []
        count = len(set(ids))
    else:
        root_prefix(data_root)
        utterances = Utterances([columnar(path) for path in paths], data_root)
        ids = utterances.column("ID") if len(paths) > 1 else []
        count = len(ids.unique()) if len(paths) > 1 else 0
    if count < len(ids):
        raise DataError(f"{_shared(paths, data_root)} Prefix the IDs of each corpus with its name.")
    return utterances


def _shared(paths, data_root):
    """A sentence that names the first IDs that two manifests share"""
    seen, problems = {}, Problems("manifests of one split")
    for path in map(str, paths):
        for u in open_utterances([path], data_root):
            if seen.setdefault(u.id, path) != path:
                problems.add(f"same ID in {seen[u.id]} and {path}", u.id)
    return f"{problems}." if problems else f"{paths[0]} is named twice."


def columnar(path):
    """The columnar copy of the manifest `path`, built first when there is none of these bytes."""
    if not os.path.isfile(path):
        read_text(path)  # raises FileNotFoundError in the words of every manifest
    sha256 = manifest_hash(path)
    target = copy_path(path, sha256)
    if not _is_copy(target, sha256):
        target.parent.mkdir(parents=True, exist_ok=True)
        with _alone(f"{target}.lock"):
            if not _is_copy(target, sha256):  # another process may have built it meanwhile
                build(path, target, sha256)
    return target


def copy_path(path, sha256):
    """Beside the manifest, or in the user's cache folder where nobody may write beside it"""
    if os.access(Path(path).absolute().parent, os.W_OK):
        return Path(f"{path}.arrow")
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "lebench_sb" / "manifests" / f"{sha256}.arrow"


@contextmanager
def _alone(path):
    """Waits until no other process holds the lock file `path`"""
    with open(path, "a", encoding="utf-8") as handle:
        fcntl.lockf(handle, fcntl.LOCK_EX)
        yield


def build(path, target, sha256):
    """Checks every row of the manifest `path` and writes them to the Arrow file `target`, atomically.

    Shows progress. Raises what `read_manifest` raises.
    """
    logger.info("%s: first opening; its rows are checked and copied to %s", path, target)
    temporary, problems, lines = Path(f"{target}.tmp"), Problems(path), array("q")
    shown = {"total": os.path.getsize(path), "unit": "B", "unit_scale": True, "desc": Path(path).name}
    try:
        with open(path, "rb") as raw, tqdm(**shown) as bar:
            if not _write_plain(raw, temporary, sha256, bar):
                raw.seek(0)
                bar.reset()
                text = io.TextIOWrapper(raw, encoding="utf-8-sig", newline="")
                rows = manifest_rows(path, text, ROOT, problems)
                _write(_batches(rows, lines), temporary, sha256, raw, bar)
                if not lines:
                    raise DataError(f"{path}: {NO_ROWS}")
                _add_doubles(problems, _mapped(temporary)["ID"], lines)
        problems.raise_if_any()
        if manifest_hash(path) != sha256:
            raise DataError(f"{path}: changed while it was read; start again when it is finished.")
        os.replace(temporary, target)
    except UnicodeDecodeError:
        read_text(path)  # raises DataError naming the line
        raise
    finally:
        temporary.unlink(missing_ok=True)


def _write_plain(raw, temporary, sha256, bar):
    """Writes a manifest in which nothing needs a second look; returns False for any other."""
    try:
        _write(plain_tables(raw), temporary, sha256, raw, bar)
        ids = _mapped(temporary)["ID"]
        return 0 < len(ids) == len(ids.unique())
    except NotPlain:
        return False


def _write(tables, temporary, sha256, raw, bar):
    """Writes tables below each other; moves the bar to the place in `raw`."""
    import pyarrow as pa  # here: small manifests do without

    writer = None
    with open(temporary, "wb") as sink:
        for table in tables:
            written_of = {"format": str(FORMAT), "sha256": sha256}
            writer = writer or pa.ipc.new_file(sink, table.schema.with_metadata(written_of))
            writer.write_table(table, max_chunksize=ROWS)
            bar.update(raw.tell() - bar.n)
        if writer is not None:
            writer.close()
        sink.flush()
        os.fsync(sink.fileno())


def _batches(rows, lines):
    """Tables of the rows (line, Utterance), ROWS at a time; fills `lines`."""
    import pyarrow as pa

    while batch := list(islice(rows, ROWS)):
        lines.extend(line for line, _ in batch)
        names = [*COLUMNS, *batch[0][1].labels]
        columns = zip(*(_fields(u) for _, u in batch), strict=True)
        types = [pa.float64() if name in NUMBERS else pa.string() for name in names]
        yield pa.table({n: pa.array(c, t) for n, c, t in zip(names, columns, types, strict=True)})


def _fields(u):
    """The columns of one row"""
    return (u.id, u.duration, u.wav, u.start, u.stop, u.speaker, u.gender, u.language, *u.labels.values())


def _add_doubles(problems, ids, lines):
    """Adds every ID that stands in several of the lines."""
    counts = ids.value_counts()
    if len(counts) == len(ids):
        return
    seen = {}
    for name, line in zip(ids.to_pylist(), lines, strict=True):
        seen.setdefault(name, []).append(line)
    for name, where in seen.items():
        if len(where) > 1:
            add_double(problems, name, where)


def _is_copy(path, sha256):
    """True for a whole columnar file of the CSV with this hash."""
    import pyarrow as pa

    if not path.is_file():
        return False
    try:
        found = _mapped(path).schema.metadata
    except (pa.ArrowInvalid, OSError) as error:
        logger.warning("%s: not readable (%s), built anew", path, error)
        return False
    return found == {b"format": str(FORMAT).encode(), b"sha256": sha256.encode()}


def _mapped(path):
    """The table of an Arrow file, mapped into memory"""
    import pyarrow as pa

    return pa.ipc.open_file(pa.memory_map(str(path))).read_all()


def _one_table(tables):
    """Tables below each other; a label that one of them lacks is null there."""
    import pyarrow as pa

    tables = [table.replace_schema_metadata(None) for table in tables]
    return tables[0] if len(tables) == 1 else pa.concat_tables(tables, promote_options="default")
