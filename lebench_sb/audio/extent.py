"""How many samples a file really holds, from its bytes and not from its word.

A header may leave the length open (written to a pipe), be older than the samples (a recorder that crashed)
or promise more than there is (an interrupted copy). `extent` compares both, without decoding, and says with
which head libsndfile reads every sample that is there.
"""

import os
from dataclasses import dataclass
from functools import lru_cache

from lebench_sb.audio import flac, mpeg, ogg
from lebench_sb.audio.chunks import chunked, nist, voc
from lebench_sb.audio.members import file_of
from lebench_sb.audio.source import open_source


@dataclass(frozen=True)
class Extent:
    """What a file holds.

    stated: samples per channel by its header, None where it does not say; present: those that are there, None
    where only decoding tells; cut: whether the end is missing, `words` says of what; splice: (head, skip),
    the bytes that libsndfile reads in place of the file's first `skip`, None for the file as it is; is_mp3:
    whether libmpg123 will read it.
    """

    stated: int | None = None
    present: int | None = None
    cut: bool = False
    words: str = ""
    splice: tuple | None = None
    is_mp3: bool = False

    @property
    def fault(self):
        """The file's fault in words, "" for a file that is whole"""
        if not self.cut:
            return ""
        if self.words:
            return f"cut short: {self.words}"
        return f"cut short: {self.present} of {self.stated} samples"


def extent(path):
    """The Extent of an audio file or member of a shard. Raises OSError, DataError for what is no file."""
    state = os.stat(file_of(path))
    return _extent(str(path), state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=1 << 14)
def _extent(path, size, mtime_ns):
    with open_source(path) as source:
        return extent_of(source)


def extent_of(source):
    """The Extent of a Source; an empty one for formats that are not looked into"""
    head = source.read(0, 64)
    start = id3_size(source) if head[:3] == b"ID3" else 0
    magic = source.read(start, 16) if start else head[:16]
    if magic[:4] == b"fLaC":
        return Extent(**flac.extent(source, start))
    if magic[:4] == b"OggS":
        return Extent(**ogg.extent(source))
    if magic[:7] == b"NIST_1A":
        return Extent(**nist(source))
    if magic[:14] == b"Creative Voice":
        return Extent(**voc(source))
    size = chunked(source, magic)
    if size is not None:
        return Extent(**size)
    if start or mpeg.is_frame(magic[:4]):
        return Extent(**mpeg.extent(source, start), is_mp3=True)
    return Extent()


def id3_size(source):
    """Bytes of the ID3v2 tags at the beginning"""
    at = 0
    while (tag := source.read(at, 10))[:3] == b"ID3" and len(tag) == 10:
        length = 0
        for byte in tag[6:10]:
            length = length << 7 | byte & 0x7F
        at += 10 + length + (10 if tag[5] & 0x10 else 0)
    return at
