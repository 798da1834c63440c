"""A file of bytes that lie elsewhere, with a position of its own, as soundfile reads one."""

import io
import os


class Stream(io.RawIOBase):
    """`size` bytes; a subclass says how they are read: `read_into(view)` fills the start of `view` with those
    from `self.at` on -> how many.

    `fault`: the OSError of a read, which soundfile cannot pass.
    """

    def __init__(self, size):
        self.size, self.at, self.fault = size, 0, None

    def readable(self):
        return True

    def seekable(self):
        return True

    def tell(self):
        return self.at

    def seek(self, offset, whence=os.SEEK_SET):
        self.at = max(0, offset + {os.SEEK_SET: 0, os.SEEK_CUR: self.at, os.SEEK_END: self.size}[whence])
        return self.at

    def readinto(self, buffer):
        try:
            count = self.read_into(memoryview(buffer))
        except OSError as error:
            self.fault, count = error, 0
        self.at += count
        return count
