"""The bytes of an audio file or of a member of a shard, with a head of ours where the file's own is wrong."""

import os
from contextlib import contextmanager

from lebench_sb.audio.members import inside, opened
from lebench_sb.audio.stream import Stream
from lebench_sb.core.guard import regular


class Source:
    """`size` bytes of an open file from byte `first` on, read at any place"""

    def __init__(self, number, first, size):
        self.number, self.first, self.size = number, first, size

    def read(self, offset, count):
        """Up to `count` bytes from `offset` on; fewer at the end. Raises OSError."""
        offset, left = max(offset, 0), b""
        count = max(0, min(count, self.size - offset))
        while len(left) < count:
            more = os.pread(self.number, count - len(left), self.first + offset + len(left))
            if not more:
                break
            left = left + more if left else more
        return left


@contextmanager
def open_source(path):
    """Yields the Source of a file or member. Raises OSError, FileNotFoundError, DataError for what is no
    regular file."""
    member = inside(path)
    if member:
        shard = opened(member[0])
        first, size, _ = shard.place(member[1], path)
        yield Source(shard.file.fileno(), first, size)
        return
    with open(regular(path), "rb", buffering=0) as file:
        yield Source(file.fileno(), 0, os.fstat(file.fileno()).st_size)


class Spliced(Stream):
    """`head`, then the bytes of a Source from byte `skip` on"""

    def __init__(self, source, head, skip):
        super().__init__(len(head) + max(0, source.size - skip))
        self.source, self.head, self.skip = source, head, skip

    def read_into(self, view):
        data = self.head[self.at : self.at + len(view)]
        if not data:
            data = self.source.read(self.at - len(self.head) + self.skip, len(view))
        view[: len(data)] = data
        return len(data)
