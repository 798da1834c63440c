"""A pre-training run from shards and columns is the run from files and a list."""

import json
import subprocess
import sys

import pytest

from lebench_sb.manifests.shards import make_shards

LARGE = """
import runpy, sys
from lebench_sb.training import data
from lebench_sb.manifests import columns
columns.LARGE = 0
made = []
real = data.ColumnDataset.__init__
def noted(self, *words):
    made.append(self)
    real(self, *words)
data.ColumnDataset.__init__ = noted
sys.argv = {argv!r}
runpy.run_path(sys.argv[0], run_name="__main__")
assert len(made) == 2
"""


def steps(folder):
    """Lines of steps.jsonl without what depends on the clock"""
    lines = [json.loads(line) for line in (folder / "steps.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in ("audio_per_s", "waiting_share")} for line in lines]


@pytest.mark.slow
def test_the_losses_from_shards_and_columns_are_those_from_files(root, corpus, tiny_pretraining, tmp_path):
    make_shards([corpus / "train.csv", corpus / "valid.csv"], corpus, tmp_path / "shards", "200KB")
    recipe = root / "recipes/pretraining/wav2vec2"
    shards = [word.replace(str(corpus), str(tmp_path / "shards")) for word in tiny_pretraining]
    folders = {}
    for name, words in (("files", tiny_pretraining), ("shards", shards)):
        folders[name] = tmp_path / name / "run"
        argv = [str(recipe / "train.py"), str(recipe / "hparams/mini.yaml"), *words, "--noprogressbar"]
        argv += ["--output_folder", str(folders[name])]
        program = argv if name == "files" else ["-c", LARGE.format(argv=argv)]
        done = subprocess.run([sys.executable, *program], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-2000:]
    assert steps(folders["files"]) == steps(folders["shards"]) != []
    told = [json.loads((folders[name] / "results.json").read_text()) for name in folders]
    assert told[0]["metrics"] == told[1]["metrics"]
    assert [told[k]["data"]["train"]["hours"] for k in (0, 1)] == [told[0]["data"]["train"]["hours"]] * 2
