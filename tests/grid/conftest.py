from pathlib import Path

import pytest
import quick_python
import yaml
from python_process import open_door
from toy_recipe import GRID, make_toy

from lebench_sb.grid import execute
from lebench_sb.grid.command import benchmark


class Toy:
    """A folder with a toy recipe; `run` runs a grid there, with changes to GRID"""

    def __init__(self, folder):
        self.folder = make_toy(folder)

    def write(self, text=GRID, **changes):
        grid = {**yaml.safe_load(text), **changes}
        grid = {key: value for key, value in grid.items() if value is not None}
        (self.folder / "grid.yaml").write_text(yaml.safe_dump(grid, sort_keys=False))
        return self.folder / "grid.yaml"

    def run(self, text=GRID, call=None, **changes):
        return benchmark(self.write(text, **changes), **(call or {}))

    def table(self):
        return (self.folder / "grid" / "table.md").read_text()


@pytest.fixture(scope="session")
def door(tmp_path_factory):
    """Path of a server that starts the toy recipe in no time"""
    modules = ["lebench_sb.evaluation.results", "lebench_sb.evaluation.provenance"]
    return open_door(tmp_path_factory.mktemp("door"), modules)


@pytest.fixture
def toy(real_toy, door, monkeypatch):
    """A toy whose runs are started by a server that has imported everything"""
    monkeypatch.setenv("LEBENCH_TEST_PYTHON", door)
    monkeypatch.setattr(execute, "DIE_WITH_PARENT", Path(quick_python.__file__))
    return real_toy


@pytest.fixture
def real_toy(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    return Toy(tmp_path)
