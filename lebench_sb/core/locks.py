"""One process at a time where two would spoil each other's files.

A lock is a file that the system locks for the process that holds it (`filelock`): it is free as soon as that
process ends, however it ends, and the workers that it has forked do not hold it on. Where NFS hands locks to
its server it holds between machines. The file says who holds it, and stays when it is free. A process that
holds a lock may take it again. Where a file system has no locks that is told, and everything goes on.
"""

import errno
import logging
import os
import socket
from contextlib import ExitStack, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from lebench_sb.core.errors import UsageError

NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
PATIENCE = 1.0  # seconds between two looks at a lock that is waited for
logger = logging.getLogger(__name__)


class Taken(Exception):
    """Another process holds the lock; the text says which"""


def take(path, unlocked):
    """Holds the lock file `path`: a context manager that is left, closed, or forgotten, to release it.

    unlocked: what the warning advises where the file system has no locks. Raises Taken where another process
    holds it, OSError where there can be no such file.
    """
    return _acquired(path, unlocked, blocking=False)


def take_or_refuse(path, unlocked, refusal):
    """The same; raises UsageError where another process holds it. refusal: the holder -> the message"""
    try:
        return take(path, unlocked)
    except Taken as holder:
        raise UsageError(refusal(holder)) from None


def wait_for(path, unlocked, waiting):
    """The same, once no other process holds it; waiting: called without arguments where it has to wait"""
    try:
        return take(path, unlocked)
    except Taken:
        waiting()
        return _acquired(path, unlocked, poll_interval=PATIENCE)


def _acquired(path, unlocked, **how):
    ours = {"thread_local": False, "is_singleton": True, "preserve_lock_file": True, "on_acquired": _sign}
    lock = FileLock(path, **ours)
    if lock.is_locked and _holder(path) != _signature():  # its folder was moved away, or deleted, meanwhile
        lock.release(force=True)
    held = ExitStack()
    try:
        lock.acquire(**how)
        held.callback(lock.release)
    except Timeout:
        raise Taken(_holder(path) or "just started") from None
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        logger.warning("%s: this file system has no locks; %s.", Path(path).parent, unlocked)
    return held


def _sign(handle):
    """Writes into the file who holds it; on a full disk it is held unsigned"""
    with suppress(OSError):
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"{_signature()}\n".encode(), 0)


def _signature():
    return f"process {os.getpid()} on {socket.gethostname()}"


def _holder(path):
    """What a lock file says of its holder, "" where it says nothing"""
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
