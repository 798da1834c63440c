"""continued.yaml goes on from any Hugging Face wav2vec 2.0, at the rate its schedule had reached."""

import json

import pytest
from python_process import run_python
from tiny import write_pretraining_model

from lebench_sb.core.command_line import parse
from lebench_sb.core.extends import whole
from lebench_sb.core.yaml_values import load_yaml
from lebench_sb.pretraining.build import build_model, make_config
from lebench_sb.training.schedules import linear_decay, linear_decay_from

YAML = "recipes/pretraining/wav2vec2/hparams/continued.yaml"


def test_the_tail_is_the_end_of_the_whole_schedule():
    whole = [linear_decay(update, 52, 8 / 52) for update in range(1, 53)]
    assert [linear_decay_from(u, 12, 40, 8) for u in range(1, 13)] == pytest.approx(whole[40:])
    assert [linear_decay_from(u, 52, 0, 8) for u in range(1, 53)] == pytest.approx(whole)
    # protocol.md E (b): 5e-5 x 20,000 / 488,000 at update 500,000
    assert 5e-5 * linear_decay_from(0, 20_000, 500_000, 32_000) == pytest.approx(2.05e-6, rel=1e-3)
    assert linear_decay_from(20_000, 20_000, 500_000, 32_000) == 0


def test_the_yaml_says_what_it_is(root, tmp_path):
    write_pretraining_model(tmp_path / "model")
    overrides = {"init_from": str(tmp_path / "model"), "data_folder": "D", "output_folder": str(tmp_path)}
    hparams = load_yaml(root / YAML, overrides)
    hours = hparams["max_batch_seconds"] * hparams["grad_accumulation_factor"] / 3600
    assert hours == pytest.approx(2.667, abs=1e-3) and hparams["do_normalize"] is True
    peak = hparams["encoder_lr"]
    rates = [peak * hparams["schedule"](u, hparams["number_of_updates"]) for u in (1, 10_000, 20_000)]
    assert rates == pytest.approx([2.049e-6, 1.0246e-6, 0], rel=1e-3)
    start, floor, decay = hparams["gumbel_temperature"]
    assert start == pytest.approx(2 * decay**500_000, rel=1e-3) and floor == 0.1
    statuses = whole(root / YAML)
    assert all(word in statuses for word in ("confirmed", "inferred", "unknown"))
    assert hparams["model"].hf.config.hidden_size == 16


@pytest.mark.parametrize(
    "heads", [True, pytest.param(False, marks=pytest.mark.slow)], ids=["with quantiser", "encoder alone"]
)
def test_debug_run_from_a_random_checkpoint(root, manifests, tmp_path, heads):
    write_pretraining_model(tmp_path / "model", heads=heads)
    words = [word for word in manifests if "test" not in word.rpartition("/")[2]]
    words += [
        "--init_from",
        str(tmp_path / "model"),
        "--output_folder",
        str(tmp_path / "run"),
        "--num_workers",
    ]
    words += [
        "0",
        "--max_batch_seconds",
        "6",
        "--grad_accumulation_factor",
        "1",
        "--precision",
        "fp32",
        "--debug",
    ]
    argv = [str(root / "recipes/pretraining/wav2vec2/train.py"), str(root / YAML), *words]
    done = run_python(argv, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    folder = tmp_path / "run" / "debug"
    log = (folder / "log.txt").read_text()
    assert ("start fresh: none" in log) == heads
    record = json.loads((folder / "results.json").read_text())
    assert record["mode"] == "continued SSL" and set(record["metrics"]) == {"accuracy", "contrastive"}
    for name in ("encoder", "pretraining"):
        assert json.loads((folder / name / "config.json").read_text())["hidden_size"] == 16
    steps = [json.loads(line) for line in (folder / "steps.jsonl").read_text().splitlines()]
    assert 0 < steps[0]["lr"] < 2.1e-6 and steps[0]["temperature"] == pytest.approx(0.1642, rel=1e-4)


def test_another_scale_of_the_waveform_is_refused(tmp_path):
    folder = write_pretraining_model(tmp_path / "model", do_normalize=False)
    with pytest.raises(ValueError, match="trained with do_normalize False: --do_normalize False"):
        build_model(make_config(), str(folder), 1.0, 0, do_normalize=True)
    build_model(make_config(), str(folder), 1.0, 0, do_normalize=False)
    (folder / "preprocessor_config.json").unlink()
    build_model(make_config(), str(folder), 1.0, 0, do_normalize=True)


def test_what_to_continue_must_be_named(root, monkeypatch):
    monkeypatch.chdir(root)
    with pytest.raises(ValueError, match="--init_from is missing"):
        parse([YAML, "--data_folder", "D"])
