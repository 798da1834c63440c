"""Who imports whom, how long files are, which names appear where: the rules of the architecture."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from lebench_sb.core.extends import whole

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "lebench_sb"
# each package may import these; all but core follow from the order in which data walk through them
ALLOWED = {
    "core": [],
    "audio": ["core"],
    "text": ["core"],
    "manifests": ["core", "audio", "text"],
    "corpora": ["core", "audio", "text", "manifests"],
    "encoders": ["core", "audio"],
    "evaluation": ["core", "manifests"],
    "training": ["core", "audio", "text", "manifests", "encoders", "evaluation"],
    "pretraining": ["core", "audio", "manifests", "encoders", "evaluation", "training"],
    "tasks": ["core", "audio", "text", "manifests", "encoders", "evaluation", "training"],
    "grid": ["core", "manifests", "evaluation", "training"],
}


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
    part = path.relative_to(PACKAGE).parts[0]
    if part in ("__init__.py", "cli.py"):
        return
    assert imports(path) <= {part, *ALLOWED[part]}, f"{path.name} may import only {ALLOWED[part]}"


def test_the_top_level_has_packages_and_the_command_alone():
    found = {path.name for path in PACKAGE.iterdir() if path.name != "__pycache__"}
    assert found == {"__init__.py", "cli.py", *ALLOWED}
    assert len(ALLOWED) <= 14 and all((PACKAGE / name / "__init__.py").is_file() for name in ALLOWED)


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
    text = whole(path)
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
