"""Two runs on one folder: the second is refused, and told who has it."""

import errno
import fcntl
import os
import signal
import subprocess
import sys

import pytest

from lebench_sb.core.errors import UsageError
from lebench_sb.training.run import lock

HOLD = "import sys, time; from lebench_sb.training.run import lock\n"
HOLD += "held = lock(__import__('pathlib').Path({!r}));"


def holder(folder, then):
    code = HOLD.format(str(folder)) + then + "print('held', flush=True); time.sleep(600)"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    return process


def test_a_second_run_is_refused_until_the_first_is_killed(tmp_path):
    # the first has forked a data-loading worker, which outlives it
    forks = "import os; pid = os.fork(); (time.sleep(30), os._exit(0)) if not pid else 0;"
    process = holder(tmp_path, f"{forks} open({str(tmp_path / 'worker')!r}, 'w').write(str(pid));")
    try:
        with pytest.raises(UsageError) as caught:
            lock(tmp_path)
        assert f"{tmp_path}: another run writes here (process {process.pid} on {os.uname().nodename})" in str(
            caught.value
        )
        process.kill()
        process.wait()
        lock(tmp_path)
    finally:
        process.kill()
        process.wait()
        os.kill(int((tmp_path / "worker").read_text()), signal.SIGKILL)


def test_a_file_system_without_locks_is_told(tmp_path, monkeypatch, caplog):
    def no_locks(*arguments):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    lock(tmp_path)
    assert f"{tmp_path}: this file system has no locks" in caplog.text
