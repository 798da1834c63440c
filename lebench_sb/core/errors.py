"""What went wrong, in one line with its exit code: the one place that turns errors into words.

Exit codes: 0 done; 1 the run failed; 2 usage (option, key, YAML, missing path); 3 content of the data.
"""

import errno
import io
import sys

SHOWN = 5
# What the system says of a path that the user named: another path or another right mends it
OF_PATHS = (
    errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.EACCES, errno.EPERM, errno.EROFS,
    errno.ENAMETOOLONG, errno.ELOOP, errno.ENXIO, errno.EINVAL,
)  # fmt: skip
OF_DISKS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.ESTALE, errno.EMFILE, errno.ENFILE)
ADVICE = {
    errno.EROFS: "the file system is read-only: give another folder",
    errno.EACCES: "no permission: give another folder, or ask for the right to it",
    errno.EPERM: "no permission: give another folder, or ask for the right to it",
    errno.ENOSPC: "the disk is full: make room, or give another folder",
    errno.EDQUOT: "your quota of the disk is used up: make room, or give another folder",
    errno.ENAMETOOLONG: "the path is too long for this file system",
    errno.EMFILE: "too many open files: raise `ulimit -n`",
}


class DataError(ValueError):
    """The content of the data is wrong (exit code 3 on the command line)."""


class UsageError(ValueError):
    """An option names what is not there or contradicts another (exit code 2 on the command line)."""


class Problems:
    """Everything wrong with one source, by kind, so that a user mends a corpus once and not once per line."""

    def __init__(self, where):
        self.where = where
        self.found = {}

    def add(self, kind, item):
        """kind: what is wrong, in words; item: the id, line or path it is wrong with."""
        self.found.setdefault(kind, []).append(str(item))

    def __bool__(self):
        return bool(self.found)

    def __str__(self):
        parts = []
        for kind, items in self.found.items():
            more = f" and {len(items) - SHOWN} more" if len(items) > SHOWN else ""
            parts.append(f"{kind} ({len(items)}): {', '.join(items[:SHOWN])}{more}")
        return f"{self.where}: " + "; ".join(parts)

    def raise_if_any(self):
        """Raises DataError with the first five items of each kind and their number."""
        if self.found:
            raise DataError(str(self))


def exit_code(error):
    """2 or 3 for a user's mistake, 1 for what the machine did not let us do, None for a fault of ours, which
    keeps its traceback"""
    if isinstance(error, DataError):
        return 3
    if isinstance(error, UsageError):
        return 2
    if isinstance(error, OSError):
        if error.errno in OF_DISKS:
            return 1
        known = (FileNotFoundError, NotADirectoryError, FileExistsError, IsADirectoryError, PermissionError)
        return 2 if error.errno in OF_PATHS or isinstance(error, known) else None
    if isinstance(error, ValueError) and "null byte" in str(error):  # a path with NUL
        return 2
    return None


def one_line(error):
    """The message of an error; of the system's, with the file and the way out; of one raised in a
    data-loading worker, its last line"""
    if isinstance(error, OSError) and error.strerror:
        advice = ADVICE.get(error.errno)
        said = f"{error.strerror}" + (f" ({advice})" if advice else "")
        return shorten(f"{error.filename}: {said}" if error.filename else said)
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    text = lines[-1].split("DataError: ")[-1] if lines[0].startswith("Caught ") else " ".join(lines)
    return shorten(text)


def shorten(text, limit=2000):
    """A text without what a terminal would obey, its middle left out where it is longer than `limit`"""
    text = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
    half = limit // 2
    return text if len(text) <= limit else f"{text[:half]} [...] {text[-half:]}"


def printable_output():
    """Standard output and error take any text, also where the encoding is ASCII: as escapes"""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
