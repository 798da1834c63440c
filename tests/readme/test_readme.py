"""What a user may copy: every command of the READMEs parses; those of the front page run, shrunk."""

import csv
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from python_process import run_python

from lebench_sb.core.command_line import parse
from lebench_sb.grid.execute import make_room

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "recipes").rglob("README.md"))]
SMALL = {
    "pretraining": [
        "--number_of_updates=3",
        "--log_mel_updates=3",
        "--valid_every_updates=3",
        "--max_batch_seconds=20",
        "--num_workers=0",
    ],
    "ASR": ["--number_of_epochs=1", "--head={hidden: 8}", "--num_workers=0"],
}


def commands(page):
    """The lines of a page's bash blocks, continuation lines joined, comments left out"""
    blocks = re.findall(r"```bash\n(.*?)```", page.read_text(encoding="utf-8"), re.S)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def one_process(words):
    """`torchrun --nproc-per-node N script ...` -> `python script ...`"""
    return ["python", *words[3:]] if words[0] == "torchrun" else words


FOUND = [one_process(words) for page in PAGES for words in commands(page)]
RECIPES = [words for words in FOUND if words[0] == "python"]


@pytest.mark.parametrize("words", RECIPES, ids=lambda words: " ".join(words)[-60:])
def test_a_recipe_command_names_files_and_keys_that_exist(words, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert Path(words[1]).is_file()
    parse(words[2:])


def test_make_targets_exist():
    targets = (ROOT / "Makefile").read_text()
    used = {words[1] for page in PAGES for words in commands(page) if words[0] == "make"}
    assert used == {"demo", "test"} and all(f"\n{target}:" in targets for target in used)


def execute(words, folder):
    if words[0] == "python":
        task = words[1].split("/")[1]
        words = [str(ROOT / w) if w.startswith("recipes/") else w for w in words[1:]]
        words += [*SMALL[task], "--noprogressbar"]
    else:
        words = ["-m", "lebench_sb.cli", *words[1:]]
    if "miniature" in words:
        words += ["--scale", "0.004"]
    done = run_python(words, cwd=folder)
    assert done.returncode == 0, f"{shlex.join(words)}\n{done.stdout[-1500:]}\n{done.stderr[-1500:]}"
    return done.stdout


def own_table(folder, corpus):
    """The user's table: semicolons, a comma in a text, paths relative to the table"""
    with open(folder / "your.csv", "w", encoding="utf-8-sig", newline="") as out:
        writer = csv.writer(out, delimiter=";")
        writer.writerow(["id", "path", "text", "speaker", "language"])
        for number, wav in enumerate(sorted(corpus.glob("train*.wav"))):
            (folder / wav.name).write_bytes(wav.read_bytes())
            writer.writerow([f"u{number}", wav.name, "Bonjour, le « monde »", f"s{number % 6}", "fr"])
        writer.writerow(["other", "missing.wav", "hello", "x", "en"])


@pytest.mark.slow
def test_the_commands_of_the_front_page_run(tmp_path, corpus):
    pytest.importorskip("espeakng_loader")
    own_table(tmp_path, corpus)
    for words in commands(ROOT / "README.md"):
        if words[0] in ("python", "lebench"):
            said = execute(words, tmp_path)
        if words[:2] == ["lebench", "table"]:
            assert "mel_filterbank" in said and "WER" in said
        if words[:2] == ["lebench", "compare"]:
            assert "95 %" in said


SMALL_DEMO = """
extends: {root}/recipes/grids/demo.yaml
output: {demo}
data_folder: {demo}/data
encoders:
  ours:
    overrides:
      {{number_of_updates: 3, valid_every_updates: 3, log_mel_updates: 3, config: {{hidden_size: 64}}}}
tasks:
  ASR: {{overrides: {{number_of_epochs: 1}}}}
  SLU: {{overrides: {{number_of_epochs: 1}}}}
  AST: {{overrides: {{number_of_epochs: 1, average_checkpoints: 1}}}}
  AER: {{overrides: {{number_of_epochs: 1}}}}
  ASV: {{overrides: {{number_of_epochs: 1}}}}
  SA:
    data_folder: {demo}/data/orfeo
    overrides:
      number_of_epochs: 1
      recogniser: {{hidden: 32, layers: 1, context: 16}}
      parser: {{word_hidden: 16, word_layers: 1, hidden: 16, layers: 1, mlp: 16}}
modes: {{frozen: {{overrides: {{feature_cache: {demo}/frames}}}}}}
"""


@pytest.mark.slow
def test_a_small_demo_leaves_its_files_and_reuses_them(tmp_path):
    pytest.importorskip("espeakng_loader")
    demo, grid, readme = tmp_path / "demo", tmp_path / "grid.yaml", tmp_path / "README.md"
    grid.write_text(SMALL_DEMO.format(root=ROOT, demo=demo))
    readme.write_text("above\n<!-- leaderboard: begin -->\nold\n<!-- leaderboard: end -->\nbelow\n")
    (tmp_path / "docs").mkdir()
    words = [
        sys.executable,
        "-m",
        "lebench_sb.grid.demo",
        str(grid),
        "--scale",
        "0.02",
        "--readme",
        str(readme),
    ]
    first = subprocess.run(words, capture_output=True, text=True, cwd=ROOT)
    said = first.stdout + first.stderr
    assert first.returncode == 1, "one epoch does not beat the trivial baseline:\n" + said[-3000:]
    assert "FAILED SA: nothing beats the trivial baseline" in said
    assert not [line for line in said.splitlines() if line.startswith("FAILED") and "beats" not in line]
    assert "old" in readme.read_text(), "a demo that failed is not shown"
    tasks = ["ASR", "SLU", "AST", "AER", "ASV", "SA"]
    names = ["leaderboard.md", "leaderboard.csv", "leaderboard.png"]
    names += [f"learning_curves_{task}.png" for task in tasks]
    exported = "encoders/pretraining/ours"
    names += [f"{exported}/{n}" for n in ("learning_curves.png", "codebook_usage.png", "encoder/config.json")]
    assert [name for name in names if not (demo / name).exists()] == []
    assert all(f"### {task}, " in (demo / "leaderboard.md").read_text() for task in tasks)
    assert not (demo / "frames").exists()
    grid.write_text(grid.read_text() + "beats_trivial_baseline: False\n")
    second = subprocess.run(words, capture_output=True, text=True, cwd=ROOT)
    assert second.returncode == 0 and second.stdout.count("finished before, reused") == 14
    shown = readme.read_text()
    assert "| filterbank " in shown and "### Against filterbanks" in shown and "old" not in shown
    assert (tmp_path / "docs/leaderboard.png").exists()
    assert shown.startswith("above\n") and shown.endswith("below\n")


def test_a_changed_encoder_does_not_resume_the_old_run(tmp_path):
    folder = tmp_path / "asr"
    make_room(folder, {"sha256": "a"})
    (folder / "results.json").write_text("{}")
    make_room(folder, {"sha256": "a"})
    assert (folder / "results.json").exists()
    make_room(folder, {"sha256": "b"})
    assert not (folder / "results.json").exists() and (tmp_path / "asr.old1/results.json").exists()
