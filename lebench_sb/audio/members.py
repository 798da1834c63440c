"""Audio inside tar shards: `folder/shard-00000.tar::clips/a.flac` is the member clips/a.flac of a shard.

Members are read at their place by pread, in any order, by any number of processes; a stretch of a long
recording is read by seeking inside the member. Where they lie says the shard's index, `<shard>.index`, mapped
into memory; for a tar without one (made by `tar` or webdataset) it is gathered from the tar's headers, once
per process. Any other path is a file of its own, and everything here works on it too.

An index holds MAGIC, bytes of the tar, number of members, then a column each of hashes of names (ascending),
first bytes, sizes (64 bits) and CRC-32s (32 bits), in the byte order of the machine: little-endian.
"""

import errno
import hashlib
import io
import mmap
import os
import struct
import weakref
import zlib
from array import array
from bisect import bisect_left
from contextlib import contextmanager
from functools import lru_cache

from lebench_sb.audio.stream import Stream
from lebench_sb.audio.tar_headers import BLOCK, damaged, tar_members
from lebench_sb.core.guard import regular

MARK = ".tar::"
MAGIC = b"lebench1"
HEADER = struct.Struct("=8sQQ")
CODES, WIDTHS = "QQQI", (8, 8, 8, 4)  # types and bytes of the columns
BUFFER = 1 << 14  # bytes: decoders ask for a few thousand at a time
PIECE = 1 << 20  # bytes read at once to compare a CRC-32
OPEN = 256  # shards that a process keeps open
UNKNOWN = 0  # CRC-32 of members of a tar without index


def inside(path):
    """(path of the shard, name of the member), or None for a file of its own"""
    shard, mark, member = str(path).partition(MARK)
    return (shard + ".tar", member) if mark else None


def file_of(path):
    """The file on disk that holds the audio: the shard, or `path` itself"""
    member = inside(path)
    return member[0] if member else str(path)


@contextmanager
def open_audio(path, whole=False):
    """What soundfile opens: `path`, or a binary file that is the member.

    whole: reads the member at once and compares its CRC-32; else it is compared where decoding fails. Raises
    FileNotFoundError for a shard or member that does not exist, OSError for a shard that is cut short or
    holds something else there, DataError for what is no regular file.
    """
    place = inside(path)
    if not place:
        path = regular(path)
        if os.path.lexists(path.with_name(f"._{path.name}")):
            # libsndfile takes what macOS leaves beside an MP3 for the head of another format
            with open(path, "rb") as file:
                yield file
        else:
            yield str(path)
        return
    shard = opened(place[0])
    first, size, crc = shard.place(place[1], path)
    if whole:
        yield io.BytesIO(shard.whole(first, size, crc, path))
        return
    member = Member(shard, first, size)
    try:
        yield io.BufferedReader(member, BUFFER)
    except Exception:  # of whatever decodes it: that bytes were damaged is the better reason
        shard.check(first, size, crc, path)
        raise
    finally:
        if member.fault:
            raise member.fault


def first_bytes(path, count):
    """The first bytes of a file or member; raises OSError, DataError for what is no regular file."""
    member = inside(path)
    if not member:
        with open(regular(path), "rb") as file:
            return file.read(count)
    shard = opened(member[0])
    first, size, _ = shard.place(member[1], path)
    return os.pread(shard.file.fileno(), min(count, size), first)


class Member(Stream):
    """`size` bytes of a Shard from byte `first` on; processes and threads share the open shard"""

    def __init__(self, shard, first, size):
        super().__init__(size)
        self.shard, self.first = shard, first

    def read_into(self, view):
        view = view[: max(0, min(len(view), self.size - self.at))]
        return os.preadv(self.shard.file.fileno(), [view], self.first + self.at) if len(view) else 0


class Shard:
    """An open tar and its index. Raises OSError for one that cannot be used."""

    def __init__(self, path):
        self.file = open(regular(path), "rb", buffering=0)
        weakref.finalize(self, self.file.close)
        index = f"{path}.index"
        self.index = read_index(index) if os.path.exists(index) else scanned(self.file, path)

    def place(self, name, path):
        """(first byte, bytes, CRC-32) of a member. path: what errors name."""
        size, indexed = os.fstat(self.file.fileno()).st_size, self.index.tar_size
        if size != indexed:
            raise damaged(f"shard has {size} bytes, by its index {indexed}: cut short or another file", path)
        entry = self.index.find(name)
        if entry is None:
            kind, note = self.index.others.get(name), self.index.others.get("")
            words = f"it is {kind} in the shard, not a file" if kind else "no such member in the shard"
            raise FileNotFoundError(errno.ENOENT, f"{words} ({note})" if note else words, str(path))
        first, size, crc = entry
        if not BLOCK <= first <= indexed - size:
            raise damaged(f"index of the shard points outside it (byte {first}, {size} bytes)", path)
        if self.index.on_disk and not _names(os.pread(self.file.fileno(), BLOCK, first - BLOCK), name, size):
            raise damaged("shard holds something else where its index says the member is", path)
        return entry

    def whole(self, first, size, crc, path):
        """The bytes of a member, their CRC-32 compared where it is known"""
        data = bytearray(size)
        view, at = memoryview(data), 0
        while at < size and (count := os.preadv(self.file.fileno(), [view[at:]], first + at)):
            at += count
        compare(zlib.crc32(view[:at]), crc, path)
        return data

    def check(self, first, size, crc, path):
        """Raises OSError where the bytes of a member are not those that were packed; reads all of them"""
        found = 0
        if crc == UNKNOWN:
            return
        for at in range(first, first + size, PIECE):
            found = zlib.crc32(os.pread(self.file.fileno(), min(PIECE, first + size - at), at), found)
        compare(found, crc, path)


def compare(state, expected, path):
    """Raises OSError where two CRC-32s differ, the expected one known"""
    if expected not in (UNKNOWN, state):
        sums = f"expected {expected:08x}, found {state:08x}"
        raise damaged(f"member is not what was packed, its CRC-32 differs ({sums})", path)


@lru_cache(maxsize=OPEN)
def opened(path):
    """The Shard at `path`, kept open"""
    return Shard(path)


def place_of(path):
    """(first byte, bytes, CRC-32) of a member of a shard, () for a file of its own; raises OSError"""
    member = inside(path)
    return opened(member[0]).place(member[1], path) if member else ()


def _names(header, name, size):
    """Whether a tar header of shards.py is that of a member: its fields hold the end of the name and the
    size"""
    written = header[:100].rstrip(b"\0")
    named = written and name.encode("utf-8", "surrogateescape").endswith(written)
    return bool(named) and header[124:136].split(b"\0")[0] == b"%011o" % size


class Index:
    """Where members lie: columns of hashes of names (n), ascending, first bytes, sizes and CRC-32s (n).

    on_disk: it was written when the shard was packed; others: {name: kind} of members that are no files,
    and "": what else is odd about the tar.
    """

    def __init__(self, tar_size, hashes, firsts, sizes, crcs, on_disk=False, others=None):
        self.on_disk, self.others = on_disk, others or {}
        self.tar_size, self.hashes, self.firsts, self.sizes, self.crcs = tar_size, hashes, firsts, sizes, crcs

    def find(self, name):
        """(first byte, bytes, CRC-32), None where there is no such member"""
        key = name_hash(name)
        k = bisect_left(self.hashes, key)
        if k == len(self.hashes) or self.hashes[k] != key:
            return None
        return self.firsts[k], self.sizes[k], self.crcs[k]

    def bytes(self):
        """As the file holds it"""
        columns = (self.hashes, self.firsts, self.sizes, self.crcs)
        header = HEADER.pack(MAGIC, self.tar_size, len(self.hashes))
        return header + b"".join(column.tobytes() for column in columns)


def name_hash(name):
    """BLAKE2b of 8 bytes, as a number"""
    digest = hashlib.blake2b(name.encode("utf-8", "surrogateescape"), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def make_index(tar_size, members):
    """Index of members [(name, first byte, bytes, CRC-32), ...]. Raises ValueError for two of one name."""
    rows = sorted((name_hash(name), *place) for name, *place in members)
    columns = [array(code, (row[k] for row in rows)) for k, code in enumerate(CODES)]
    if len(set(columns[0])) < len(rows):
        raise ValueError("two members of one name")
    return Index(tar_size, *columns)


def read_index(path):
    """The Index in a file, mapped into memory; OSError for one that is cut short or no index."""
    with open(regular(path), "rb") as file:
        if not os.fstat(file.fileno()).st_size:
            raise damaged("no index of a shard, or cut short", path)
        data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    header = data[: HEADER.size]
    magic, tar_size, count = HEADER.unpack(header) if len(header) == HEADER.size else (b"", 0, 0)
    if magic != MAGIC or len(data) != HEADER.size + count * sum(WIDTHS):
        raise damaged("no index of a shard, or cut short", path)
    columns, first = [], HEADER.size
    for code, width in zip(CODES, WIDTHS, strict=True):
        columns.append(data[first : first + width * count].cast(code))
        first += width * count
    return Index(tar_size, *columns, on_disk=True)


def scanned(file, path):
    """The Index of an open tar, from its headers; OSError for a file that is no uncompressed tar."""
    places, others = tar_members(file, path)
    rows = [(name, *place, UNKNOWN) for name, place in places.items()]
    index = make_index(os.fstat(file.fileno()).st_size, rows)
    index.others = others
    return index
