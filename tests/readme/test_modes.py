"""The table of tasks and ways to use an encoder on the front page: every cell runs as it is written there."""

import re
import shlex
from pathlib import Path

import pytest
from made_once import made_once
from python_process import run_python

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
CORPORA = {
    "ASR/CommonVoice": "commonvoice", "ASR/ETAPE": "etape", "SLU/MEDIA": "media", "AST/mTEDx": "mtedx",
    "AER/RECOLA": "recola", "AER/AlloSat": "allosat", "AER/CaFE": "cafe", "ASV/Fabiole": "fabiole",
    "SA/ORFEO": "orfeo",
}  # fmt: skip
SMALL = {  # besides what the table says: two batches of full size take minutes on a CPU
    "AER/CaFE": ["--folds=3"],  # a miniature as small as this one has six speakers
    "SA/ORFEO": [
        "--recogniser={hidden: 32, layers: 1, context: 16}",
        "--parser={word_hidden: 16, word_layers: 1, hidden: 16, layers: 1, mlp: 16}",
    ],
    "AST/mTEDx": ["--head={layers: 1, hidden: 32}"],
    "AST/mTEDx/transformer": ["--source={channels: 32, size: 32, layers: 1}"],
    "AST/mTEDx/end_to_end": ["--source={size: 32}"],
}
SECOND = ("ASR/ETAPE", "AER/AlloSat")  # corpora of a way of scoring that an earlier row has
SECTION = README.split("## Four ways to use an encoder")[1].split("\n## ")[0]
STEPS = dict(re.findall(r"^\| `([SA])` \| `(.+)` \|$", SECTION, re.M))
ROWS = [
    [re.findall("`([^`]+)`", cell) for cell in line.strip("| \n").split(" | ")[1:]]
    for line in SECTION.splitlines()
    if re.match(r"\| [A-Z]{2,3} \|", line)
]


def run(step, names, folder):
    """Runs a step of a cell with --debug and returns its folder. names: what its letters stand for."""
    recipe, yaml, *words = shlex.split(step)
    words = [re.sub(r"^([A-Z])(?=/|$)", lambda m: str(names[m[1]]), word) for word in words]
    script = [f"recipes/{recipe}/train.py", f"recipes/{recipe}/hparams/{yaml}.yaml"]
    words = [*script, "--data_folder", str(names["D"]), "--output_folder", str(folder), *words, "--debug"]
    words += SMALL.get(recipe, []) + SMALL.get(f"{recipe}/{yaml}", [])
    if "--max_batch_seconds" not in words and not recipe.startswith("AER"):
        words.append("--max_batch_seconds=12")
    done = run_python([*words, "--noprogressbar"], cwd=ROOT)
    assert done.returncode == 0, f"{shlex.join(words)}\n{done.stderr[-2500:]}"
    assert (folder / "debug" / "results.json").exists()
    return folder / "debug"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """The miniature of all the corpora"""
    pytest.importorskip("espeakng_loader")
    from lebench_sb.corpora.miniature.build import build_miniature

    corpora = sorted({*CORPORA.values(), "mls"})
    return made_once(
        tmp_path_factory, "modes_data", lambda to: build_miniature(to, scale=0.02, corpora=corpora)
    )


@pytest.fixture(scope="module")
def encoder(data, tiny_pretraining, tmp_path_factory):
    """A tiny pre-trained encoder with its quantiser"""

    def pretrain(folder):
        script = ["recipes/pretraining/wav2vec2/train.py", "recipes/pretraining/wav2vec2/hparams/mini.yaml"]
        words = [*script, *tiny_pretraining, "--output_folder", str(folder), "--noprogressbar"]
        assert run_python(words, cwd=ROOT).returncode == 0

    return made_once(tmp_path_factory, "modes_encoder", pretrain) / "pretraining"


@pytest.fixture(scope="module")
def recognised(data, encoder, tmp_path_factory):
    """What step A leaves"""
    names = {"E": encoder, "D": data}
    return made_once(tmp_path_factory, "modes_asr", lambda to: run(STEPS["A"], names, to)) / "debug"


def test_the_table_has_every_task_and_way():
    assert set(STEPS) == {"S", "A"}
    assert [len(cells) for cells in ROWS] == [4] * len(CORPORA)
    assert [cells[0][0].split()[0] for cells in ROWS] == list(CORPORA)


@pytest.mark.parametrize(
    "cells",
    [
        pytest.param(cells, id=corpus, marks=pytest.mark.full if corpus in SECOND else pytest.mark.slow)
        for corpus, cells in zip(CORPORA, ROWS, strict=True)
    ],
)
def test_every_cell_runs(cells, data, encoder, recognised, tmp_path):
    frozen, continued, first, end_to_end = cells
    names = {"E": encoder, "D": data, "A": recognised}
    (only,) = frozen
    names["M"] = run(only, names, tmp_path / "frozen") / "manifests"
    step, after = continued
    names["S"] = run(STEPS[step], names, tmp_path / "S")
    run(after, names, tmp_path / "continued")
    assert first[0] == "A"
    run(first[1], names, tmp_path / "first")
    (only,) = end_to_end
    assert (run(only, names, tmp_path / "end") / "encoder" / "config.json").exists()
