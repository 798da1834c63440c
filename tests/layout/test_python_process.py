"""What the tests start programs with says what a new interpreter would say."""

import signal

import pytest
from python_process import run_python


@pytest.mark.slow
def test_a_program_has_its_arguments_texts_code_and_nobody_elses_answer(tmp_path):
    code = "import os, sys; print(os.getcwd(), sys.argv, os.environ['X']); sys.exit('bye')"
    done = run_python(["-c", code, "a"], cwd=tmp_path, env={"X": "y"})
    assert (done.returncode, done.stderr) == (1, "bye\n")
    assert done.stdout == f"{tmp_path} ['-c', 'a'] y\n"
    assert run_python(["-c", "import os; os.kill(os.getpid(), 9)"]).returncode == -9
    assert "FileNotFoundError" in run_python(["-c", "pass"], cwd=tmp_path / "gone").stderr

    def too_late(number, frame):
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, too_late)
    signal.alarm(2)
    try:
        with pytest.raises(TimeoutError):
            run_python(["-c", "import time; time.sleep(60)"])
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    assert run_python(["-c", "print('next')"]).stdout == "next\n"
