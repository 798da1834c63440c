"""Crops of MP3 print nothing; what else goes to standard error comes through."""

import ctypes
import os
import subprocess
import sys

import numpy as np
import pytest
import soundfile

from lebench_sb.audio.quiet import libmpg123_quiet

PROGRAM = """
import ctypes, os, sys, threading
from concurrent.futures import ThreadPoolExecutor
from lebench_sb.audio.sound import open_sound
def load(path, first):
    with open_sound(path) as sound:
        return len(sound.read(first, 8000))
path = sys.argv[1]
def crop(k):
    if k == 20:
        os.write(2, b"from another thread\\n")
        print("from Python", file=sys.stderr)
    return load(path, 1600 + 640 * k)
with ThreadPoolExecutor(4) as pool:
    assert set(pool.map(crop, range(60))) == {8000}
if os.fork() == 0:
    assert load(path, 16000) == 8000
    os.write(2, b"from a child\\n")
    os._exit(0)
os.wait()
os.write(2, b"at the end\\n")
"""


@pytest.fixture(scope="module")
def mp3(tmp_path_factory):
    path = tmp_path_factory.mktemp("mp3") / "x.mp3"
    wave = 0.3 * np.sin(np.arange(64000) * 0.1) + np.random.default_rng(0).normal(0, 0.02, 64000)
    soundfile.write(path, wave, 16000)
    return path


def test_jumps_into_an_mp3_print_nothing_and_our_lines_come_through(mp3):
    loud = f"import soundfile; f = soundfile.SoundFile({str(mp3)!r})\nfor k in range(60):\n f.seek(1600 + 640 * k); f.read(8000)"  # noqa: E501
    done = subprocess.run([sys.executable, "-c", loud], capture_output=True, text=True)
    assert "libmpg123" in done.stderr
    done = subprocess.run([sys.executable, "-c", PROGRAM, str(mp3)], capture_output=True, text=True)
    assert done.returncode == 0
    lines = ["at the end", "from Python", "from a child", "from another thread"]
    assert sorted(done.stderr.splitlines()) == lines


def test_lines_of_other_c_code_come_out_at_the_end(capfd):
    library = ctypes.CDLL(None)

    def c_prints(text):
        library.fputs(text, ctypes.c_void_p.in_dll(library, "stderr"))

    with libmpg123_quiet() as said:
        c_prints(b"[src/libmpg123/layer3.c:x():1] error: bits\nthe disk fails\n")
        os.write(2, b"first\n")
        with libmpg123_quiet():
            c_prints(b"Note: Illegal Audio-MPEG-Header 0x0\n")
    assert len(said) == 2 and capfd.readouterr().err == "first\nthe disk fails\n"
    c_prints(b"after\n")
    assert capfd.readouterr().err == "after\n"
    with libmpg123_quiet() as said:
        c_prints(b"mpg123 once more\n")
    assert said == ["mpg123 once more"]
