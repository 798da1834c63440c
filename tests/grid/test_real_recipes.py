"""The four modes as chains of the real recipes, from a tiny Hugging Face wav2vec 2.0."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import transformers
import yaml
from tiny import write_pretraining_model
from toy_recipe import lebench

from lebench_sb.evaluation.results import read_results
from lebench_sb.grid.command import benchmark

ROOT = Path(__file__).parents[2]


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with a tiny pre-trained model, `tiny`, that is the working folder"""
    write_pretraining_model(tmp_path / "tiny")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(place, corpus, **changes):
    manifests = {f"{split}_csv": str(corpus / f"{split}.csv") for split in ("train", "valid", "test")}
    asr = {"recipe": str(ROOT / "recipes/ASR/CommonVoice"), "hparams": "ctc.yaml", "data_folder": str(corpus)}
    asr["overrides"] = {**manifests, "num_workers": 0, "number_of_epochs": 2, "head": {"hidden": 8}}
    grid = {"output": "grid", "encoders": {"tiny": "tiny"}, "tasks": {"ASR": asr}, "seeds": [5], **changes}
    (place / "grid.yaml").write_text(yaml.safe_dump(grid, sort_keys=False))
    return place / "grid.yaml"


@pytest.mark.slow
def test_every_mode_is_a_chain_of_recipe_commands(place, corpus):
    small = {"num_workers": 0, "max_batch_seconds": 6, "grad_accumulation_factor": 1, "precision": "fp32"}
    path = write(
        place, corpus,
        encoders={"filterbank": "mel_filterbank", "tiny": "tiny", "random": "random:tiny"},
        modes={
            "frozen": None, "continued SSL": {"step_overrides": small}, "ASR first": None,
            "end to end": {"overrides": {"encoder_warmup_steps": 0}},
        },
        options=["--debug", "--debug_persistently"],
        exclude=[{"encoder": "random", "mode": ["ASR first", "end to end"]}],
    )  # fmt: skip
    assert benchmark(path) == 0, [p.read_text()[-2000:] for p in place.glob("grid/**/console.txt")]
    rows = {
        (encoder, mode): read_results(place / f"grid/ASR/{encoder}/{mode.replace(' ', '_')}/seed5")
        for encoder, mode in [
            ("filterbank", "filterbank"), ("tiny", "frozen"), ("tiny", "continued SSL"),
            ("tiny", "ASR first"), ("tiny", "end-to-end"), ("random", "frozen"),
        ]
    }  # fmt: skip
    for (encoder, mode), row in rows.items():
        assert row["mode"] == mode and row["layer"] == ("last" if encoder == "filterbank" else "weighted")
        assert row["seed"] == 5 and "WER" in row["metrics"] and row["details"]["frame_norm"] == "cmvn"
    systems = {key: row["system"] for key, row in rows.items()}
    assert (
        systems["filterbank", "filterbank"] == "mel_filterbank"
        and systems["random", "frozen"] == "random:tiny"
    )
    assert systems["tiny", "ASR first"] == "grid/ASR/tiny/end-to-end/seed5/encoder"
    continued = Path(systems["tiny", "continued SSL"]).parent
    assert read_results(continued)["mode"] == "continued SSL"
    assert read_results(continued)["overrides"]["init_from"] == "tiny"
    trained = {key: row["parameters"]["trained"] for key, row in rows.items()}
    assert trained["tiny", "end-to-end"] > trained["tiny", "frozen"] == trained["tiny", "continued SSL"]
    weights = [
        transformers.AutoModel.from_pretrained(folder).encoder.layers[0].attention.q_proj.weight
        for folder in ("tiny", systems["tiny", "ASR first"], systems["tiny", "continued SSL"])
    ]
    assert not weights[0].equal(weights[1]) and not weights[0].equal(weights[2])
    table = (place / "grid/table.md").read_text()
    assert table.count("\n| tiny") == 4 and "| last" in table and "| weighted" in table


@pytest.mark.slow
def test_a_killed_grid_of_the_real_recipe_has_the_table_of_an_uninterrupted_one(place, corpus):
    path = write(
        place, corpus, encoders={"filterbank": "mel_filterbank", "tiny": "tiny"}, parallel=1, threads=1
    )
    command = lebench("benchmark", path.name)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    first = place / "grid/ASR/filterbank/filterbank/seed5"
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
    while not (first / "results.json").exists():
        assert process.poll() is None
        time.sleep(0.2)
    second = place / "grid/ASR/tiny/frozen/seed5"
    while not (second / "steps.jsonl").exists():  # in the midst of its training
        assert process.poll() is None
        time.sleep(0.2)
    process.send_signal(signal.SIGKILL)
    process.wait()
    modified = (first / "results.json").stat().st_mtime_ns
    assert not (second / "results.json").exists()
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout[-3000:]
    assert done.stdout.count("finished before, reused") == 1
    assert (first / "results.json").stat().st_mtime_ns == modified
    killed = (place / "grid/table.md").read_text()
    (place / "grid").rename(place / "killed")
    assert subprocess.run(command, capture_output=True, env=environment).returncode == 0
    assert (place / "grid/table.md").read_text() == killed
    steps = [json.loads(line) for line in (second / "steps.jsonl").read_text().splitlines()]
    assert [s["step"] for s in steps if s["stage"] == "train"] == sorted({s["step"] for s in steps})


def test_the_working_folder_may_be_anywhere(place, corpus):
    """Recipes are named relative to the shell, or found in the repository."""
    path = write(place, corpus)
    grid = yaml.safe_load(path.read_text())
    grid["tasks"]["ASR"]["recipe"] = "recipes/ASR/CommonVoice"
    path.write_text(yaml.safe_dump(grid))
    done = subprocess.run(
        [sys.executable, "-m", "lebench_sb.cli", "benchmark", "grid.yaml", "--dry-run"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0 and str(ROOT / "recipes/ASR/CommonVoice/train.py") in done.stdout
