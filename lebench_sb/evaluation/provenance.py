"""What repeats a run: command, seed, commit, versions; and the environment it ran in."""

import platform
import shlex
import subprocess
import sys
from importlib import metadata
from pathlib import Path

from lebench_sb import __version__


def describe_run(seed, overrides, command=None, root=None):
    """What repeats the run: command, overrides, seed, commit, dirty, versions, and energy as not measured.

    command: this process's own by default. root: the repository (default: where this package lies). Outside
    a repository commit is "unknown" and dirty null. `dirty`: files of the code differ from the commit or
    are new.
    """
    root = Path(root or Path(__file__).parents[2])
    packages = ("torch", "speechbrain", "transformers")
    versions = {name: _version(name) for name in packages}
    commit, dirty = _commit(root)
    return {
        "command": command or shlex.join(["python", *sys.argv]),
        "overrides": dict(overrides),
        "seed": seed,
        "commit": commit,
        "dirty": dirty,
        "versions": {**versions, "python": platform.python_version(), "lebench_sb": __version__},
        "energy": {"kwh": None, "co2_kg": None, "method": "not measured"},
    }


def code_version(root=None):
    """{commit, dirty, lebench_sb}: which code runs, as in `describe_run`"""
    commit, dirty = _commit(Path(root or Path(__file__).parents[2]))
    return {"commit": commit, "dirty": dirty, "lebench_sb": __version__}


def environment():
    """Text for `env.log`: this interpreter, its packages, the code, the machine.

    SpeechBrain's description asks the first `pip` and `git` of the shell, which may belong to another Python
    and another repository.
    """
    versions = code_version()
    packages = sorted({f"{d.metadata['Name']}=={d.version}" for d in metadata.distributions()}, key=str.lower)
    lines = [
        f"Python: {sys.version}", f"interpreter: {sys.executable}", f"platform: {platform.platform()}",
        f"lebench_sb: {versions['lebench_sb']}, commit {versions['commit']}, changed: {versions['dirty']}",
        "", "Packages:", *packages,
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def _version(package):
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _commit(root):
    """Commit of the repository whose top is `root`, and whether its code differs; else ("unknown", None)."""
    top = _git(root, "rev-parse", "--show-toplevel")
    commit = _git(root, "rev-parse", "--verify", "HEAD")
    # An installed copy may lie inside somebody's own repository, whose commit says nothing of this code
    if not top or not commit or Path(top).resolve() != root.resolve():
        return "unknown", None
    code = [name for name in ("lebench_sb", "recipes", "hparams", "setup.py") if (root / name).exists()]
    return commit, bool(_git(root, "status", "--porcelain", "--", *code))


def _git(root, *arguments):
    """What git prints, "" when it fails or is not installed"""
    command = ["git", "-C", str(root), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
