"""Manifests of millions of utterances: columns mapped into memory, in place of one object per row.

The CSV stays what users see and write. Beside a large one lies `<manifest>.arrow`, an Arrow file that names
the CSV's sha256, with a digest of its own bytes behind it. A preparation writes both from the same checked
rows. The first opening of a manifest that somebody else wrote or changed checks its rows and makes the copy,
in about a minute for millions of them. Later openings compare both digests and map the file: rows are made
when they are asked for, and processes on one machine share its pages. A copy that is damaged, of another
manifest or of another format is built anew.
"""

import hashlib
import io
import logging
import mmap
import operator
import os
from array import array
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import lru_cache
from itertools import islice
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from lebench_sb.core.errors import DataError, Problems
from lebench_sb.core.files import new_file, remove_leftovers
from lebench_sb.core.locks import wait_for
from lebench_sb.manifests.digests import digest_of
from lebench_sb.manifests.formats import refuse_other_formats
from lebench_sb.manifests.markers import ROOT, manifest_hash
from lebench_sb.manifests.reading import (
    NO_ROWS,
    add_double,
    expand,
    manifest_rows,
    place_fault,
    read_manifest,
    root_prefix,
)
from lebench_sb.manifests.tables import read_text
from lebench_sb.manifests.utterance import COLUMNS, PATH_LABELS, Utterance

logger = logging.getLogger(__name__)
FORMAT = 2  # raised when the columns or the checks of rows change: files of another format are built anew
LARGE = 16 << 20  # bytes of CSV of a split (about 100,000 rows) from which on it is opened as columns
ROWS = 1 << 16  # rows of one record batch, and those turned into Utterances at once when all are visited
NUMBERS = ("duration", "start", "stop")
IDLE = 600.0  # seconds without a write, after which a half-made copy is taken for that of a killed process
DIGEST = 64  # bytes behind the Arrow file: the digest of all before them, in hex


class Utterances(Sequence):
    """The utterances of one or several columnar files, in their order, made when they are asked for.

    files: paths of Arrow files written by `build`; data_root: folder above the audio files; positions:
    (n,) int64 rows of the files taken together, None for all. A slice is again Utterances. Copies sent to
    other processes open the files themselves.
    """

    def __init__(self, files, data_root, positions=None, digests=None):
        self.files, self.data_root, self.positions = [str(file) for file in files], str(data_root), positions
        self.root, self.digests = root_prefix(data_root), [_written_digest(file) for file in self.files]
        if digests not in (None, self.digests):
            raise DataError(f"{', '.join(self.files)}: replaced while it was read; start again.")
        self.table = _one_table([_mapped(file) for file in self.files])
        self.labels = [name for name in self.table.column_names if name not in COLUMNS]
        batches = self.table.to_batches()
        self.batches = [batch.columns for batch in batches]
        self.starts = np.cumsum([0, *(batch.num_rows for batch in batches)]).tolist()

    def __reduce__(self):
        return Utterances, (self.files, self.data_root, self.positions, self.digests)

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
        values = {name: text for name, text in zip(self.labels, labels, strict=True) if text is not None}
        for name in PATH_LABELS:
            if name in values:
                values[name] = expand(values[name], self.root)
        wav = expand(wav, self.root)
        return Utterance(id, wav, duration, start, stop, speaker, gender, language, values)

    def take(self, positions):
        """Utterances at positions (n,) of this sequence, in that order"""
        rows = positions if self.positions is None else self.positions[positions]
        return Utterances(self.files, self.data_root, np.asarray(rows, dtype=np.int64), self.digests)

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
        _check_places(utterances, ", ".join(map(str, paths)))
        ids = utterances.column("ID") if len(paths) > 1 else []
        count = len(ids.unique()) if len(paths) > 1 else 0
    if count < len(ids):
        raise DataError(f"{_shared(paths, data_root)} Prefix the IDs of each corpus with its name.")
    return utterances


def _check_places(utterances, where):
    """Raises DataError for paths that `place_fault` refuses now that data_root is known"""
    import pyarrow.compute as pc

    problems = Problems(where)
    for name in [name for name in ("wav", *PATH_LABELS) if name in utterances.table.column_names]:
        column = utterances.column(name).fill_null("")
        odd = pc.or_(pc.match_substring(column, ".."), pc.match_substring(column, "\\"))
        if name != "wav":
            odd = pc.or_(odd, pc.starts_with(column, "/"))
        ids = utterances.column("ID").filter(odd).to_pylist()
        for found, value in zip(ids, column.filter(odd).to_pylist(), strict=True):
            if fault := place_fault(name, value, utterances.root):
                problems.add(f"{name} {fault}", f"{found} {value!r}")
    problems.raise_if_any()


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
    refuse_other_formats(path, "a manifest")
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
    """Waits until no other process holds the lock file `path`; goes on without where there can be none (of
    somebody else, no locks on this disk): copies are whole either way, at worst they are made twice"""
    try:
        lock = wait_for(path, "it may be made twice", lambda: logger.info("%s: another process has it", path))
    except OSError as error:
        logger.info("%s: no lock (%s)", path, error.strerror)
        lock = nullcontext()
    with lock:
        yield


def build(path, target, sha256):
    """Checks every row of the manifest `path` and writes them to the Arrow file `target`, atomically.

    Shows progress. Raises what `read_manifest` raises.
    """
    logger.info("%s: first opening; its rows are checked and copied to %s", path, target)
    remove_leftovers(target, IDLE)
    problems = Problems(path)
    with new_file(target) as temporary:
        try:
            _fill(path, temporary, sha256, problems)
        except UnicodeDecodeError:
            read_text(path)  # raises DataError naming the line
            raise
        problems.raise_if_any()
        if manifest_hash(path) != sha256:
            raise DataError(f"{path}: changed while it was read; start again when it is finished.")


def _fill(path, temporary, sha256, problems):
    """Writes the rows of the manifest `path`, checked one by one"""
    lines = array("q")
    shown = {"total": os.path.getsize(path), "unit": "B", "unit_scale": True, "desc": Path(path).name}
    with open(path, "rb") as raw, tqdm(**shown) as bar:
        text = io.TextIOWrapper(raw, encoding="utf-8-sig", newline="")
        rows = manifest_rows(path, text, ROOT, problems)
        _write(_batches(rows, lines), temporary, sha256, lambda: bar.update(raw.tell() - bar.n))
        if not lines:
            raise DataError(f"{path}: {NO_ROWS}")
        _add_doubles(problems, _mapped(temporary)["ID"], lines)


def write_copy(path, content, utterances):
    """Writes the columnar copy of the manifest just written to `path`, if it is large: its first opening then
    finds it.

    content: its bytes; utterances: what they say, paths beginning with `$data_root/`, each with all labels.
    """
    if len(content) < LARGE:
        return
    sha256 = hashlib.sha256(content).hexdigest()
    with new_file(copy_path(path, sha256)) as temporary:
        _write(_batches(enumerate(utterances, 2), array("q")), temporary, sha256, lambda: None)


def _write(tables, temporary, sha256, after_each):
    """Writes tables below each other; calls `after_each`"""
    import pyarrow as pa  # here: small manifests do without

    writer = None
    with open(temporary, "w+b") as sink:
        for table in tables:
            written_of = {"format": str(FORMAT), "sha256": sha256}
            writer = writer or pa.ipc.new_file(sink, table.schema.with_metadata(written_of))
            writer.write_table(table, max_chunksize=ROWS)
            after_each()
        if writer is not None:
            writer.close()
            sink.flush()
            with mmap.mmap(sink.fileno(), 0, access=mmap.ACCESS_READ) as written:
                sink.write(digest_of(written).encode())


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
    """True for a whole columnar file of the CSV with this hash, whose bytes are those that were written."""
    import pyarrow as pa

    if not path.is_file():
        return False
    try:
        if not _is_intact(path):
            logger.warning("%s: not what was written, or of another version: built anew", path)
            return False
        table = _mapped(path)
        table.validate(full=True)
    except (pa.ArrowException, OSError, ValueError) as error:
        logger.warning("%s: not readable (%s), built anew", path, error)
        return False
    of_this = {b"format": str(FORMAT).encode(), b"sha256": sha256.encode()}
    return table.schema.metadata == of_this and _has_columns(table)


def _has_columns(table):
    """Whether a table has the columns of manifests, and nothing is missing but times"""
    import pyarrow as pa

    names = table.column_names
    types = [pa.float64() if name in NUMBERS else pa.string() for name in names]
    whole = all(column.null_count == 0 for name, column in zip(names, table.columns, strict=True)
                if name not in ("start", "stop"))  # fmt: skip
    return tuple(names[: len(COLUMNS)]) == COLUMNS and table.schema.types == types and whole


@lru_cache(None)
def _checked(path, *state):
    """Whether the digest behind a file is that of its bytes; state: what tells that it is the same file"""
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        with memoryview(data) as view:
            return digest_of(view[:-DIGEST]) == bytes(view[-DIGEST:]).decode("ascii", "replace")


def _is_intact(path):
    """Whether a file is what `_write` wrote: read whole, once per process"""
    state = os.stat(path)
    if state.st_size <= DIGEST:
        return False
    times = state.st_mtime_ns, state.st_ctime_ns
    return _checked(str(path), state.st_dev, state.st_ino, state.st_size, *times)


def _written_digest(path):
    """The digest behind a columnar file"""
    with open(path, "rb") as file:
        file.seek(-DIGEST, os.SEEK_END)
        return file.read().decode("ascii", "replace")


def _mapped(path):
    """The table of an Arrow file, mapped into memory"""
    import pyarrow as pa

    source = pa.memory_map(str(path))
    return pa.ipc.open_file(source.read_buffer(source.size() - DIGEST)).read_all()


def _one_table(tables):
    """Tables below each other; a label that one of them lacks is null there."""
    import pyarrow as pa

    tables = [table.replace_schema_metadata(None) for table in tables]
    return tables[0] if len(tables) == 1 else pa.concat_tables(tables, promote_options="default")
