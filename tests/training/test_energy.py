"""Energy of a run: parts add up, factors are named, counters are read, the published figures stay data."""

import csv
import json
import logging
import subprocess
import sys
import types
from pathlib import Path

import pytest
import torch
from killing import KILL

from lebench_sb import cli
from lebench_sb.core.errors import UsageError
from lebench_sb.evaluation.schema import check_record
from lebench_sb.training import energy

PRETRAIN = ["recipes/pretraining/wav2vec2/train.py", "recipes/pretraining/wav2vec2/hparams/mini.yaml"]


class Clock:
    """time.time() that tests set"""

    def __init__(self, monkeypatch):
        self.now = 1000.0
        monkeypatch.setattr(energy.time, "time", lambda: self.now)


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


def meter(folder, method="estimate", watts=100.0, pue=1.5, intensity=50.0, device="cpu", rank=0, world=1):
    return energy.Meter(folder, device, rank, world, method, watts, pue, intensity)


def test_an_estimate_is_device_hours_times_power_times_pue(tmp_path, clock):
    made = meter(tmp_path, world=4)
    made.start()
    clock.now += 1800
    made.write(lambda own: 4 * own)
    found = energy.of_run(tmp_path)
    assert found["wall_s"] == 1800 and found["device_h"] == pytest.approx(2.0)
    assert found["kwh"] == pytest.approx(2.0 * 0.1 * 1.5) and found["co2_kg"] == pytest.approx(0.015)
    for factor in ("estimated", "device hours x 100 W", "PUE 1.5", "50 g CO2/kWh"):
        assert factor in found["method"]


def test_the_default_power_names_its_source(tmp_path, clock):
    made = meter(tmp_path, watts=0.0)
    made.start()
    threads = torch.get_num_threads()
    assert f"x {4 * threads} W ({threads} threads x 4 W, codecarbon's default)" in made.told()


def test_the_power_of_a_gpu_is_that_of_its_kind(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "Tesla V100-SXM2-32GB")
    assert energy.usual_watts("cuda:0") == (300.0, "thermal design power of an SXM V100")
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "Other")
    assert "no figure for Other: give --device_watts" in energy.usual_watts("cuda:0")[1]


def test_parts_of_a_resumed_run_add_up_and_a_killed_one_counts_to_its_last_line(tmp_path, clock):
    for seconds, pue in ((3600, 1.0), (7200, 2.0)):
        made = meter(tmp_path, pue=pue)
        made.start()
        for _ in range(2):
            clock.now += seconds / 2
            made.write(lambda own: own)
        with open(tmp_path / energy.FILE, "a") as file:
            file.write('{"part": "cut sh')  # what a kill leaves
    found = energy.of_run(tmp_path)
    assert found["wall_s"] == 10800 and found["parts"] == 2
    assert found["kwh"] == pytest.approx(0.1 * 1 * 1.0 + 0.1 * 2 * 2.0)
    assert "PUE 1;" in found["method"] and "; then " in found["method"] and "PUE 2;" in found["method"]


def test_other_processes_add_their_share_and_write_nothing(tmp_path, clock):
    made = meter(tmp_path, rank=1, world=2)
    made.start()
    clock.now += 3600
    shares = []
    made.write(lambda own: shares.append(own) or own)
    assert shares == [pytest.approx(0.1)] and not (tmp_path / energy.FILE).exists()


def test_a_run_that_never_counted_says_so(tmp_path):
    meter(tmp_path).write(lambda own: own)
    assert energy.of_run(tmp_path) == {"kwh": None, "co2_kg": None, "method": "not measured"}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"method": "codecarbn"}, "did you mean codecarbon"),
        ({"pue": 0.9}, "pue 0.9 at least 1"),
        ({"watts": -1.0}, "device_watts -1.0"),
        ({"intensity": -1.0}, "co2_g_per_kwh -1.0"),
    ],
)
def test_impossible_factors_are_refused(tmp_path, wrong, message):
    with pytest.raises(UsageError, match=message):
        meter(tmp_path, **wrong)


def test_what_is_asked_for_by_name_must_be_there(tmp_path, monkeypatch):
    with pytest.raises(UsageError, match="cpu is no NVIDIA GPU"):
        meter(tmp_path, "nvml").start()
    monkeypatch.setitem(sys.modules, "codecarbon", None)
    with pytest.raises(UsageError, match=r"codecarbon is not installed. pip install 'lebench_sb\[energy\]'"):
        meter(tmp_path, "codecarbon").start()


def test_without_the_optional_library_the_log_says_how_to_measure(tmp_path, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "codecarbon", None)
    caplog.set_level(logging.INFO)
    made = meter(tmp_path, "auto")
    made.start()
    assert isinstance(made.source, energy.Estimate)
    assert "pip install 'lebench_sb[energy]'" in caplog.text and "device hours x 100 W" in caplog.text


class FakeNvml(types.ModuleType):
    """NVML's counter of energy, in mJ, of GPUs by their UUID"""

    class NVMLError(Exception):
        pass

    def __init__(self, counters):
        super().__init__("pynvml")
        self.counters = counters

    def nvmlInit(self):
        pass

    def nvmlDeviceGetHandleByUUID(self, uuid):
        return uuid.decode()

    def nvmlDeviceGetTotalEnergyConsumption(self, handle):
        if handle not in self.counters:
            raise self.NVMLError("Not Supported")
        return self.counters[handle]


@pytest.fixture
def nvml(monkeypatch):
    fake = FakeNvml({"GPU-ab-cd": 5_000_000})
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    monkeypatch.setitem(sys.modules, "codecarbon", None)
    properties = types.SimpleNamespace(uuid="ab-cd", name="Tesla V100")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: properties)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "Tesla V100")
    return fake


@pytest.mark.parametrize("method", ["auto", "nvml"])
def test_nvml_counts_the_joules_of_the_gpu(tmp_path, nvml, clock, method):
    made = meter(tmp_path, method, device="cuda:0")
    made.start()
    nvml.counters["GPU-ab-cd"] += 720_000_000  # mJ: 0.2 kWh
    made.write(lambda own: own)
    found = energy.of_run(tmp_path)
    assert found["kwh"] == pytest.approx(0.2 * 1.5)
    assert "measured: NVML" in found["method"] and "left out" in found["method"]


def test_a_gpu_without_counter_is_estimated(tmp_path, nvml, caplog):
    nvml.counters.clear()
    made = meter(tmp_path, "auto", watts=0.0, device="cuda:0")
    made.start()
    assert "300 W" in made.told() and "NVML cannot measure it (Not Supported)" in caplog.text


def test_codecarbon_measures_offline(tmp_path, monkeypatch):
    """The real one. Without counters here its figures are its own estimate, and the method says so."""
    pytest.importorskip("codecarbon")
    monkeypatch.setenv("LOCAL_RANK", "0")
    made = meter(tmp_path, "codecarbon")
    made.start()
    sum(range(3_000_000))
    made.write(lambda own: own)
    found = energy.of_run(tmp_path)
    raw = made.source.tracker._total_energy.kWh
    assert 0 < found["kwh"] == pytest.approx(1.5 * raw, rel=0.5)
    assert found["co2_kg"] == pytest.approx(found["kwh"] * 0.05)
    assert "codecarbon 3" in found["method"] and "CPU by " in found["method"]
    made.source.tracker.stop()
    monkeypatch.setenv("LOCAL_RANK", "1")  # the machine is counted once
    other = meter(tmp_path, "codecarbon", rank=1, world=2)
    other.start()
    assert other.source.kwh() == 0.0


def test_the_published_table_is_the_reference(shared_data):
    with open(shared_data.parent / "reference" / "models.csv", encoding="utf-8") as file:
        reference = {row["model"]: row for row in csv.DictReader(file)}
    rows = energy.published()
    assert [row["model"] for row in rows] == list(reference)
    for row in rows:
        theirs = reference[row["model"]]
        assert f"{row['devices']} {row['device']}" == theirs["energy_table_gpus"]
        assert (row["hours"], row["kwh"], row["co2_kg"]) == (
            theirs["energy_table_wall_hours"], theirs["energy_kwh"], theirs["co2_kg"],
        )  # fmt: skip


def test_the_command_prints_the_run_beside_the_published_table(tmp_path, clock, capsys):
    folder = tmp_path / "a" / "run"
    folder.mkdir(parents=True)
    made = meter(folder, world=2)
    made.start()
    clock.now += 3600
    made.write(lambda own: 2 * own)
    assert cli.run(["energy", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    mine = next(line for line in said.splitlines() if str(folder) in line)
    assert [cell.strip() for cell in mine.strip("|").split("|")][1:] == ["1", "2", "2", "150", "0.3", "0.015"]
    assert sum("(published)" in line for line in said.splitlines()) == 10
    assert "8371.2" in said and "none is derived" in said and "device hours x 100 W" in said
    assert cli.run(["energy", str(tmp_path / "nowhere")]) == 2
    (tmp_path / "empty").mkdir()
    assert cli.run(["energy", str(tmp_path / "empty")]) == 2
    assert "no energy.jsonl" in capsys.readouterr().err


@pytest.mark.slow
def test_a_killed_and_resumed_run_counts_both_parts(root, tiny_pretraining, tmp_path):
    argv = [str(root / PRETRAIN[0]), str(root / PRETRAIN[1]), *tiny_pretraining]
    argv += ["--output_folder", str(tmp_path), "--device_watts", "1000", "--pue", "1.1", "--noprogressbar"]
    code = KILL.format(
        module="lebench_sb.training.brain", owner=".SSLBrain", name="log_step", number=9, argv=argv
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode < 0
    first = energy.of_run(tmp_path)
    assert first["parts"] == 1 and first["kwh"] > 0
    done = subprocess.run([sys.executable, *argv], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    record = json.loads((Path(tmp_path) / "results.json").read_text())
    check_record(record)
    found = record["energy"]
    assert found["parts"] == 2 and found["kwh"] > first["kwh"]
    hours = found["device_h"]
    assert found["kwh"] == pytest.approx(hours * 1.0 * 1.1, rel=1e-3)
    assert found["co2_kg"] == pytest.approx(0.052 * found["kwh"])
    assert "device hours x 1000 W" in found["method"] and "PUE 1.1" in found["method"]
