"""Folders that take long to make: made by one of the test processes side by side, read by all of them."""

import os

from filelock import FileLock


def made_once(tmp_path_factory, name, make):
    """The folder `name`, filled by make(folder) in the first process that asks for it; the others wait.

    Nobody may write to it afterwards.
    """
    base = tmp_path_factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder, ready = base / name, base / f"{name}.ready"
    with FileLock(base / f"{name}.lock"):
        if not ready.exists():
            folder.mkdir()
            make(folder)
            ready.touch()
    return folder
