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
    for file in path.parent.iterdir():
        if names.fullmatch(file.name) and not file.is_dir() and time.time() - _changed(file) >= idle:
            file.unlink(missing_ok=True)


def remove_unfinished(folder):
    """Removes the files and folders with names of `temporary_name` that a killed run left in its folder. The
    caller holds the folder's lock."""
    for path in Path(folder).iterdir():
        if not re.fullmatch(r"\..+\.[0-9a-f]{16}\.tmp", path.name):
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _changed(path):
    """Seconds since 1970 of a file's last change; now, where it has gone meanwhile"""
    try:
        return path.lstat().st_mtime
    except FileNotFoundError:
        return time.time()


@contextmanager
def new_file(path):
    """Yields a path beside `path` to write to, which is flushed to the disk and renamed when the block ends
    without an error: `path` is the old file or the whole new one. A symbolic link at `path` is replaced,
    never written through."""
    temporary = temporary_name(path)
    try:
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_atomically(path, content):
    """Writes `content` (bytes, or text as UTF-8) as `new_file` does"""
    with new_file(path) as temporary, open(temporary, "xb") as file:
        file.write(content if isinstance(content, bytes) else content.encode())


@contextmanager
def new_folder(path, replace=True):
    """Yields an empty folder that becomes `path` when the block ends without an error. Everybody may read it
    that `umask` lets.

    replace: in place of a folder that is there (the caller has made sure that we made it); where it cannot
    be, that one stays. False: raises FileExistsError for whatever is there. A symbolic link at `path` is
    never followed: UsageError.
    """
    path = Path(path)
    check_free(path, replace)
    new, old = temporary_name(path), temporary_name(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    new.mkdir()
    try:
        yield new
        open_up(new)
        check_free(path, replace)
        if path.exists():
            path.rename(old)
        try:
            new.rename(path)
        except OSError:
            if old.exists():
                old.rename(path)
            raise
    finally:
        for folder in (new, old):
            shutil.rmtree(folder, ignore_errors=True)


def check_free(path, replace):
    """Raises UsageError for a symbolic link at `path`, FileExistsError for anything unless `replace`"""
    if path.is_symlink():
        raise UsageError(
            f"{path} is a symbolic link to {os.readlink(path)}: remove it, or give another folder."
        )
    if path.exists() and not replace:
        raise FileExistsError(f"{path} exists: give a new folder, nothing is overwritten.")


def open_up(folder):
    """Gives the files below `folder` the rights of any new file: some libraries write them for their owner
    alone"""
    rights = 0o666 & ~umask()
    for path in Path(folder).rglob("*"):
        if path.is_file() and not path.is_symlink():
            path.chmod(rights)


AT_START = os.umask(0o077)  # the only way to read it without /proc, and not one for threads: once, on import
os.umask(AT_START)


def umask():
    """The rights that this process takes from new files"""
    try:
        with open("/proc/self/status", encoding="ascii", errors="replace") as file:
            mask = next((line.split()[1] for line in file if line.startswith("Umask:")), None)
    except OSError:
        mask = None
    return AT_START if mask is None else int(mask, 8)


def refuse_links(folder, names):
    """Raises UsageError where one of `names` in `folder` is a symbolic link, through which a run would
    write"""
    for name in names:
        path = Path(folder) / name
        if path.is_symlink():
            raise UsageError(
                f"{path} is a symbolic link to {os.readlink(path)}: remove it, or give another folder."
            )
