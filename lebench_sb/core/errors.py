"""What went wrong, in one line with its exit code: the one place that turns errors into words.

Exit codes: 0 done; 1 the run failed; 2 usage (option, key, YAML, missing path); 3 content of the data.
"""

import difflib
import errno
import io
import os
import re
import sys
from concurrent.futures import BrokenExecutor

SHOWN = 5
# What the system says of a path that the user named: another path or another right mends it
OF_PATHS = (
    errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENOTEMPTY, errno.EACCES, errno.EPERM,
    errno.EROFS, errno.ENAMETOOLONG, errno.ELOOP, errno.ENXIO, errno.EINVAL, errno.ENODEV, errno.EXDEV,
)  # fmt: skip
OF_PATH_KINDS = (FileNotFoundError, NotADirectoryError, FileExistsError, IsADirectoryError, PermissionError)
OF_US = (errno.EBADF, errno.ECHILD, errno.ESRCH)  # nothing that a user did: with a traceback
# How a number of the system stands in the text of an error: of Python, of Rust's libraries
NUMBER = re.compile(r"\[Errno (\d+)\]|\(os error (\d+)\)|\bcode: (\d+), kind:")
# Torch's file writer tells of a full disk in words of its own
OF_WRITERS = re.compile(r"inline_container|PytorchStreamWriter|iostream error|unexpected pos \d+ vs")
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
    if isinstance(error, (DataError, UsageError)):
        return 3 if isinstance(error, DataError) else 2
    if isinstance(error, (MemoryError, BrokenExecutor)):
        return 1
    if isinstance(error, ValueError):  # a path with NUL, or with bytes that are no text
        return 2 if re.search("embedded null|surrogates not allowed", str(error)) else None
    if (number := system_number(error)) is not None:
        return None if number in OF_US else 2 if number in OF_PATHS else 1
    if isinstance(error, OF_PATH_KINDS):
        return 2
    beneath = beneath_of(error)
    if beneath is not None and exit_code(beneath) is not None:
        return exit_code(beneath)
    if isinstance(error, RuntimeError) and "home directory" in str(error):  # a path such as ~nobody/x
        return 2
    return 1 if isinstance(error, RuntimeError) and OF_WRITERS.search(str(error)) else None


def system_number(error):
    """The errno of what the system refused, also where a library or a worker process has told it in words;
    None of anything else"""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    wraps = isinstance(error, (OSError, RuntimeError)) or type(error).__name__ == "SafetensorError"
    match = NUMBER.search(str(error)) if wraps else None
    return int(next(filter(None, match.groups()))) if match else None


def beneath_of(error):
    """What a library's RuntimeError was raised from, or while handling; a fault of ours hides nothing"""
    if type(error).__name__ not in ("RuntimeError", "SafetensorError"):
        return None
    return error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def one_line(error):
    """The message of an error; of the system's, with the file and the way out; of one raised in a
    data-loading worker, its last line"""
    if isinstance(error, OSError) and error.strerror:
        return shorten(f"{named(error)}{told(error.errno, error.strerror)}")
    if isinstance(error, MemoryError):
        return shorten(f"not enough memory: {error}" if str(error) else "not enough memory")
    beneath = beneath_of(error)
    if beneath is not None and exit_code(beneath) is not None:
        return one_line(beneath)
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    text = " ".join(lines)
    if lines[0].startswith("Caught "):  # in a worker: the message is that of its last exception
        last = max(
            k for k, line in enumerate(lines) if k == 0 or re.match(r"[\w.]+(Error|Exception)\b", line)
        )
        text = re.sub(r"^[\w.]+: ", "", " ".join(lines[last:]))
    number = system_number(error)
    if number is None and isinstance(error, RuntimeError) and OF_WRITERS.search(text):
        text = f"a file could not be written whole ({ADVICE[errno.ENOSPC]}): {text}"
    return shorten(f"{text} ({ADVICE[number]})" if number in ADVICE else text)


def named(error):
    """The files that an error of the system is about, with a colon"""
    names = [os.fsdecode(n) if isinstance(n, bytes) else str(n) for n in (error.filename, error.filename2)
             if n is not None]  # fmt: skip
    return f"{' -> '.join(names)}: " if names else ""


def told(number, message):
    return message + (f" ({ADVICE[number]})" if number in ADVICE else "")


def nearest(name, names, template=" (did you mean {}?)"):
    """`template` filled with the one of `names` closest to `name`, or "" when none is close."""
    lower = {known.lower(): known for known in names}
    close = difflib.get_close_matches(name.lower(), lower, n=1, cutoff=0.5)
    return template.format(lower[close[0]]) if close else ""


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
