"""Who imports whom, how long files are, which names appear where: the rules of the architecture."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "lebench_sb"
ALLOWED = {
    "core": [],  # and every part may import it
    "storage/members": ["storage"],  # files in tar shards, which every reader of audio must open
    "storage": ["manifest"],
    "audio": ["storage"],
    "manifests/markers": ["storage"],  # markers, which may stand for shards
    "manifest": ["audio", "manifests", "storage"], "text": [], "metrics": [], "attention": [],
    "waveforms": [], "folders": ["waveforms"], "model_folders": ["folders", "waveforms"],
    "encoders": ["attention", "folders", "model_folders", "waveforms"],
    "schedules": [], "augment": [], "checkpoints": ["manifest"], "signals": [], "sharding": [], "updates": [],
    "selection": ["manifest", "storage"],
    "manifests": ["audio", "manifest", "storage", "text"],
    "manifests/targets": ["manifests", "storage", "waveforms"],
    # what a task asks of its labels is called by name, from the task's module
    "manifests/before_training": [
        "audio", "data", "encoders", "manifest", "manifests", "storage", "training",
    ],
    "data": ["audio", "manifest", "selection", "signals", "storage"],
    "energy": ["manifest"],
    "features": ["data", "manifest", "storage"],  # frames kept on disk between epochs, runs and heads
    "annotations": ["manifest", "text"],
    "decoding": ["manifest"],
    "heads": ["decoding"],
    "command_line": ["manifest", "signals"],
    "results": ["metrics"],
    "plots": ["metrics", "results"],
    "brain": [
        "checkpoints", "data", "energy", "manifest", "metrics", "results", "sharding", "signals", "updates",
    ],
    "run": [
        "brain", "command_line", "data", "features", "manifest", "manifests", "results", "text", "training",
    ],
    "corpora": ["annotations", "audio", "manifest", "manifests", "text"],
    # a task draws its own pictures; a chain of runs reads the checkpoint of the run before
    "tasks": [
        "annotations", "brain", "checkpoints", "data", "decoding", "folders", "heads", "manifest",
        "manifests", "metrics", "plots", "results", "text",
    ],
    # a finished recognition run, then a parser of text: scored as the task of speech parsing
    "cascade": [
        "annotations", "command_line", "data", "manifest", "manifests", "metrics", "results", "tasks",
    ],
    "pretraining": [
        "attention", "brain", "checkpoints", "data", "encoders", "folders", "manifest", "manifests",
        "metrics", "model_folders", "plots", "results", "schedules", "sharding", "storage", "waveforms",
    ],
    "importing": ["folders", "model_folders", "pretraining"],
    "training": ["command_line", "data", "manifest", "storage"],
    "benchmark": ["command_line", "data", "manifest", "results", "training"],
    "demo": ["results", "plots", "benchmark", "manifest"],
}  # fmt: skip


def imports(path):
    """First names below lebench_sb that a file imports"""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "lebench_sb":
            parts = node.module.split(".")[1:]
            found |= {parts[0]} if parts else {name.name for name in node.names}
        elif isinstance(node, ast.Import):
            names = [name.name.split(".") for name in node.names]
            found |= {name[1] for name in names if name[0] == "lebench_sb" and len(name) > 1}
    return found - {"__version__"}


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_follow_the_architecture(path):
    name = path.relative_to(PACKAGE).with_suffix("").as_posix()
    part = name.split("/")[0]
    if part in ("__init__", "cli", "cli_data"):
        return
    allowed = ALLOWED[name] if name in ALLOWED else [part, *ALLOWED[part]]
    assert imports(path) <= {*allowed, "core"}, f"{path.name} may import only {allowed}"


def test_importing_the_package_is_free():
    code = "import sys, lebench_sb; assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize("path", sorted((ROOT / "recipes").rglob("train.py")), ids=str)
def test_a_recipe_is_a_folder_with_readme_train_and_hparams(path):
    assert len(path.read_text().splitlines()) <= 100
    assert (path.parent / "README.md").exists() and list((path.parent / "hparams").glob("*.yaml"))
    last = ast.parse(path.read_text()).body[-1]
    assert isinstance(last, ast.If), "everything runs in main(argv)"


@pytest.mark.parametrize("path", sorted((ROOT / "recipes").rglob("hparams/*.yaml")), ids=str)
def test_a_yaml_names_what_a_run_needs(path):
    text = path.read_text(encoding="utf-8")
    for key in (
        "seed:",
        "data_folder: !PLACEHOLDER",
        "output_folder:",
        "prepare:",
        "checkpointer:",
        "key_metric:",
        "energy_method:",
    ):
        assert re.search(f"^{re.escape(key)}", text, re.M), f"{path.name} lacks {key}"
    recoverables = text.split("recoverables:")[1]
    assert "!ref <epoch_counter>" in recoverables and re.search(r"<(encoder|model)>", recoverables)


def test_no_symbolic_links_and_no_paths_of_one_machine():
    listed = subprocess.run(["git", "ls-files", "-s"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    assert not [line for line in listed.stdout.splitlines() if line.startswith("120000")]
