"""Locks: of one process at a time, free when it dies, told where there can be none."""

import errno
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import threading

import pytest

from lebench_sb.core.locks import Taken, take, wait_for

HOLD = """
import os, sys, time
from lebench_sb.core.locks import take
held = take(sys.argv[1], "")
worker = os.fork()
if worker:
    print(worker, flush=True)
time.sleep(600)
"""


@pytest.fixture
def held(tmp_path):
    """(path, process that holds it and has forked)"""
    path = tmp_path / "x.lock"
    process = subprocess.Popen([sys.executable, "-c", HOLD, path], stdout=subprocess.PIPE, text=True)
    worker = int(process.stdout.readline())
    yield path, process
    process.kill()
    process.wait()
    os.kill(worker, signal.SIGKILL)


def test_a_lock_says_who_holds_it_and_is_free_when_its_process_is_killed(held):
    path, process = held
    with pytest.raises(Taken, match=f"^process {process.pid} on {os.uname().nodename}$"):
        take(path, "")
    process.kill()
    process.wait()
    with take(path, ""):
        assert path.read_text().startswith(f"process {os.getpid()} ")
    assert path.exists()


def test_one_waits_until_the_lock_is_free(held):
    path, process = held
    told = []
    threading.Timer(0.3, process.kill).start()
    with wait_for(path, "", lambda: told.append("waiting")):
        assert process.poll() is not None and told == ["waiting"]


def test_a_process_takes_its_own_lock_again_also_in_a_new_folder(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    first = take(folder / ".lock", "")
    with take(folder / ".lock", ""):
        pass
    shutil.move(folder, tmp_path / "aside")
    folder.mkdir()
    second = take(folder / ".lock", "")
    assert (folder / ".lock").read_text() and first is not second
    code = "import sys; from lebench_sb.core.locks import take; take(sys.argv[1], '')"
    other = subprocess.run([sys.executable, "-c", code, folder / ".lock"], capture_output=True, text=True)
    assert f"Taken: process {os.getpid()} on" in other.stderr


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_without_locks_on_the_disk_everything_goes_on_with_a_warning(number, tmp_path, monkeypatch, caplog):
    def no_locks(*arguments):
        raise OSError(number, "none")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with take(tmp_path / "x.lock", "look out"), wait_for(tmp_path / "y.lock", "look out", None):
        assert caplog.text.count(f"{tmp_path}: this file system has no locks; look out.") == 2


def test_a_link_is_not_written_through(tmp_path):
    (tmp_path / "mine").write_text("kept")
    (tmp_path / "x.lock").symlink_to(tmp_path / "mine")
    with pytest.raises(OSError):
        take(tmp_path / "x.lock", "")
    assert (tmp_path / "mine").read_text() == "kept"
