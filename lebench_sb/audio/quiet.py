"""What C libraries print on standard error, kept apart: libmpg123 complains of every jump into an MP3.

After a jump the first frames lack the bits that frames before them hold; libmpg123 prints a line for each and
throws their samples away. Only the C library's `stderr` is turned aside, for the time of a block: what Python
prints is never touched, and what other C code prints meanwhile comes out at the block's end.
"""

import ctypes
import os
import sys
import tempfile
import threading
from contextlib import contextmanager

NAMES = ("stderr", "__stderrp")  # glibc and musl; macOS
OURS = (b"mpg123", b"MPEG-Header", b"Trying to resync", b"bytes in input", b"Xing stream size")
_lock = threading.Lock()
_aside = None  # of this process, opened once and never closed: another thread may be printing into it


class _Aside:
    """A C stream without buffer into a file of our own, and the pointer that `stderr` is"""

    def __init__(self):
        self.library, self.pointer = ctypes.CDLL(None), None
        for name in NAMES:
            try:
                self.pointer = ctypes.c_void_p.in_dll(self.library, name)
                break
            except ValueError:  # not called so here
                continue
        self.users, self.before, self.process = 0, None, os.getpid()
        if self.pointer is None:
            return
        number, name = tempfile.mkstemp()
        os.unlink(name)
        self.number = number
        self.library.fdopen.restype = ctypes.c_void_p
        self.stream = self.library.fdopen(os.dup(number), b"w")
        self.library.setvbuf(ctypes.c_void_p(self.stream), None, 2, 0)

    def begin(self):
        self.users += 1
        if self.users == 1:
            self.before = self.pointer.value
            self.pointer.value = self.stream

    def end(self):
        """Ends one use; the last returns the lines printed meanwhile"""
        self.users -= 1
        if self.users:
            return []
        self.pointer.value = self.before
        size = os.fstat(self.number).st_size
        if not size:
            return []
        printed = os.pread(self.number, size, 0)
        os.ftruncate(self.number, 0)
        os.lseek(self.number, 0, os.SEEK_SET)  # the C stream writes where this offset is: they share it
        return printed.splitlines()


def _after_fork():
    """A child of a process that is inside a block gets its `stderr` back; it opens a file of its own"""
    global _aside, _lock
    _lock = threading.Lock()
    if _aside is not None and _aside.pointer is not None and _aside.users:
        _aside.pointer.value = _aside.before
    _aside = None


os.register_at_fork(after_in_child=_after_fork)


@contextmanager
def libmpg123_quiet():
    """Yields a list that holds, after the block, what libmpg123 printed (text). Other lines go on to standard
    error. Does nothing where the C library has no such name."""
    global _aside
    messages = []
    with _lock:
        _aside = _aside or _Aside()
        mine = _aside
        if mine.pointer is not None:
            mine.begin()
    try:
        yield messages
    finally:
        with _lock:
            lines = mine.end() if mine.pointer is not None else []
        messages += [line.decode(errors="replace") for line in lines if any(word in line for word in OURS)]
        rest = [line for line in lines if not any(word in line for word in OURS)]
        if rest:
            sys.stderr.flush()
            os.write(2, b"\n".join(rest) + b"\n")
