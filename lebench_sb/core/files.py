"""Files and folders that appear whole or not at all, under names that can be nobody else's."""

import os
import re
import secrets
import shutil
import time
from contextlib import contextmanager
from pathlib import Path

from lebench_sb.core.errors import UsageError


def temporary_name(path):
    """A path beside `path` that nobody else has: `.name.<16 hex digits>.tmp`"""
    path = Path(path)
    return path.with_name(f".{path.name[:200]}.{secrets.token_hex(8)}.tmp")


def remove_leftovers(path, idle=0.0):
    """Removes what killed writers of `path` left beside it: files with names of `temporary_name`, not written
    to for `idle` seconds. The caller holds the lock under which `path` is written."""
    path = Path(path)
    names = re.compile(re.escape(f".{path.name[:200]}.") + r"[0-9a-f]{16}\.tmp")
    for found in path.parent.iterdir():
        if names.fullmatch(found.name) and not found.is_dir() and time.time() - _changed(found) >= idle:
            found.unlink(missing_ok=True)


def _changed(path):
    """Seconds since 1970 of a file's last change; now, where it has gone meanwhile"""
    try:
        return path.lstat().st_mtime
    except FileNotFoundError:
        return time.time()


def write_atomically(path, content):
    """Writes `content` (bytes, or text as UTF-8) beside `path`, flushes it to the disk, renames: `path` is
    the old file or the whole new one. A symbolic link at `path` is replaced, never written through."""
    temporary = temporary_name(path)
    try:
        with open(temporary, "xb") as file:
            file.write(content if isinstance(content, bytes) else content.encode())
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def new_folder(path):
    """Yields an empty folder that becomes `path` when the block ends without an error, in place of a folder
    that is there (the caller has made sure that we made it). Everybody may read it that `umask` lets."""
    path = Path(path)
    new, old = temporary_name(path), temporary_name(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    new.mkdir()
    try:
        yield new
        open_up(new)
        if path.exists():
            path.rename(old)
        new.rename(path)
    finally:
        for folder in (new, old):
            shutil.rmtree(folder, ignore_errors=True)


def open_up(folder):
    """Gives the files below `folder` the rights of any new file: some libraries write them for their owner
    alone"""
    mask = os.umask(0)
    os.umask(mask)
    for path in Path(folder).rglob("*"):
        if path.is_file() and not path.is_symlink():
            path.chmod(0o666 & ~mask)


def refuse_links(folder, names):
    """Raises UsageError where one of `names` in `folder` is a symbolic link, through which a run would
    write"""
    for name in names:
        path = Path(folder) / name
        if path.is_symlink():
            raise UsageError(
                f"{path} is a symbolic link to {os.readlink(path)}: remove it, or give another folder."
            )
