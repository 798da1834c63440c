import pytest
import yaml
from toy_recipe import GRID, make_toy

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


@pytest.fixture
def toy(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    return Toy(tmp_path)
