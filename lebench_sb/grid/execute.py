"""One step: an ordinary command, run in its folder, gone on with after a kill, reused once it has finished.

The folder's `inputs.json` holds the fingerprint of what the step depends on. While it is the same, the step
goes on from its checkpoints, or is reused if its marker (`results.json`, which a recipe writes last) is
there. When it has changed, the earlier folder is moved aside: a run resumed from its checkpoints would score
a mixture.
"""

import codecs
import json
import os
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from lebench_sb.core.errors import UsageError
from lebench_sb.core.files import write_atomically
from lebench_sb.core.locks import wait_for
from lebench_sb.grid.plan import PREPARED
from lebench_sb.training import inputs
from lebench_sb.training.fingerprint import NO_BARS, changed, fingerprint
from lebench_sb.training.inputs import INPUTS

CONSOLE = "console.txt"
DIE_WITH_PARENT = Path(__file__).with_name("die_with_parent.py")
TAIL = 12  # last lines of the console that a report shows
FINISHED, REUSED, FAILED, NOT_RUN = "finished", "reused", "failed", "not run"


@dataclass(frozen=True)
class Outcome:
    """How a step ended. code: of the process; reason: one line; tail: last lines of its console."""

    status: str
    seconds: float = 0.0
    code: int | None = None
    reason: str = ""
    tail: str = ""

    @property
    def done(self):
        return self.status in (FINISHED, REUSED)


def run_step(step, skip=(), environment=None, show=False):
    """Runs a Step unless it has finished with the same fingerprint; never raises for a step that fails.

    skip: see `fingerprint`. environment: variables besides this process's. show: leave stderr, with its
    progress bars, on the screen. The console goes to `console.txt` in the step's folder.
    """
    folder = Path(step.folder)
    try:
        with alone_in(folder):
            record = fingerprint(step.arguments, skip)
            make_room(folder, record)
            if (folder / step.marker).exists():
                return Outcome(REUSED)
            return _run(step, folder, environment or {}, show)
    except (OSError, ValueError) as error:  # an encoder or manifest that is not there, a full disk
        return Outcome(FAILED, reason=" ".join(str(error).split()))


def _run(step, folder, environment, show):
    started, console = time.time(), folder / CONSOLE
    before = console.stat().st_size if console.exists() else 0
    variables = os.environ | environment | {"LEBENCH_PARENT": str(os.getpid()), "PYTHONUNBUFFERED": "1"}
    arguments = [each for each in step.arguments if not (show and each == NO_BARS)]
    if show:  # a bar behind a pipe cannot ask the terminal for its width
        variables["COLUMNS"] = str(shutil.get_terminal_size().columns)
    with open(console, "ab", buffering=0) as out:
        process = subprocess.Popen(
            [sys.executable, str(DIE_WITH_PARENT), *arguments], env=variables, stdin=subprocess.DEVNULL,
            stdout=out, stderr=subprocess.PIPE if show else out,
        )  # fmt: skip
        with process:
            RUNNING.add(process)
            if show:
                copy_to_screen(process.stderr, out)
            code = process.wait()
            RUNNING.discard(process)
    seconds = time.time() - started
    if code == 0 and step.marker == PREPARED:
        write_atomically(folder / PREPARED, json.dumps({"command": step.command}).encode())
    if code == 0 and (folder / step.marker).exists():
        return Outcome(FINISHED, seconds, code)
    reason = explain(code) if code else f"it ended without an error, but left no {step.marker}"
    return Outcome(FAILED, seconds, code, reason, last_lines(console, before))


def copy_to_screen(pipe, out):
    """Copies bytes to stderr and to a file, as they come, until the pipe's other end is closed"""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")  # a chunk may end within a character
    while chunk := os.read(pipe.fileno(), 1 << 16):
        out.write(chunk)
        sys.stderr.write(decoder.decode(chunk))
        sys.stderr.flush()


def say(text):
    """A line on the screen, above progress bars, and at once also where the screen is a file"""
    tqdm.write(text)
    sys.stdout.flush()


RUNNING = set()  # processes of this one's steps


def stop_running():
    """Asks the steps of this process to stop, as Ctrl-C does"""
    for process in list(RUNNING):
        process.terminate()


def explain(code):
    if code < 0:
        why = ", as the system does when memory is short" if code == -9 else ""
        return f"killed by signal {-code}{why}"
    meanings = {2: "usage: option, key, YAML or missing path", 3: "content of the data"}
    meanings[75] = "stopped by a signal, goes on where it was"
    return f"exit code {code}" + (f" ({meanings[code]})" if code in meanings else "")


def last_lines(path, start=0):
    """The last lines of a console from byte `start`, progress bars as they last stood"""
    with open(path, "rb") as file:
        file.seek(max(start, os.path.getsize(path) - 20_000))
        text = file.read().decode("utf-8", "replace")
    lines = [line.split("\r")[-1].rstrip() for line in text.split("\n")]
    return "\n".join([line for line in lines if line][-TAIL:])


def make_room(folder, record):
    """Makes the folder with its `inputs.json`; one that began from something else is first moved aside."""
    folder = Path(folder)
    old = read_inputs(folder)
    if old is not None and not inputs.agrees(old, record):
        aside = inputs.move_aside([folder])[0]
        known = {part: old[part] for part in record if part in old}
        what = ", ".join(changed(known, record)) if known else "what it was begun with is not known"
        say(f"{folder.name}: changed: {what}; the earlier run is now {aside}")
    inputs.write([folder], record)


def read_inputs(folder):
    """The record a folder was begun with; {} if there is none but something else is, None for an empty one"""
    try:
        record = inputs.read(folder)
    except UsageError:  # damaged: the folder is moved aside
        return {}
    there = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    return record or ({} if [name for name in there if not name.startswith(INPUTS)] else None)


@contextmanager
def alone_in(folder):
    """Waits until no other process runs this step (another machine of a cluster, or a run whose grid was
    killed), and keeps others out."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _alone(folder.with_name(f".{folder.name}.lock"), folder):
        if (folder / ".lock").exists():  # held by the recipe itself
            with _alone(folder / ".lock", folder):
                pass
        yield


def _alone(lock, folder):
    waiting = lambda: say(f"{folder}: another process runs here; waiting for it")  # noqa: E731
    return wait_for(lock, "see that no other process runs here", waiting)
