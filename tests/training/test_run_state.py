"""What a run says of itself is of the whole run, whichever checkpoint is tested; NaN is no figure."""

import json
import logging
import math

import pytest
import torch
from toy_brain import UPDATES, ToyBrain, toy, toy_data, trained

from lebench_sb.core.errors import UsageError
from lebench_sb.core.files import temporary_name
from lebench_sb.core.lines import append_whole, json_text, read_records
from lebench_sb.evaluation import plots
from lebench_sb.evaluation.plots import learning_curves
from lebench_sb.pretraining.stream import virtual_epochs
from lebench_sb.training import energy
from lebench_sb.training import state as checkpointed
from lebench_sb.training.brain import TRAIN, VALID
from lebench_sb.training.data import EpochPlan, PlannedLoader, StreamPlan

WORSENING = {"merits": (1.0, 2.0, 3.0)}  # the first epoch is the best
STATE = ("train_seconds", "optimizer_step", "step", "avg_train_loss", "left_out", "device_seconds")


def kind(**changes):
    return type("Changed", (ToyBrain,), changes)


def state(brain):
    return {name: getattr(brain, name) for name in STATE} | {"epoch": brain.hparams.epoch_counter.current}


def steps(folder, stage="train"):
    def refuse(word):
        raise AssertionError(f"{word} is not JSON")

    text = (folder / "steps.jsonl").read_text()
    found = [json.loads(line, parse_constant=refuse) for line in text.splitlines()]
    return [line for line in found if line["stage"] == stage]


@pytest.fixture
def worsening(tmp_path):
    """(folder, state, weights of the best epoch) of a finished run that was best in its first epoch"""
    brain, data = trained(tmp_path, kind=kind(**WORSENING))
    brain.train_seconds += 1000.0  # of the last epoch
    brain.checkpointer.save_checkpoint(meta={"merit": 9.0})
    before = state(brain)
    brain.evaluate(data["test"])
    return tmp_path, before, brain


def test_the_best_checkpoint_gives_weights_and_leaves_the_run_as_it_is(worsening):
    _, before, brain = worsening
    assert state(brain) == before and before["optimizer_step"] == 3 * UPDATES
    assert brain.load_best()["epoch"] == 1
    saved = torch.load(brain.checkpointer.find_checkpoint(min_key="merit").paramfiles["head"])
    assert torch.equal(brain.modules.head.weight, saved["weight"])


@pytest.mark.parametrize("options", [{}, {"test_only": True}], ids=["repeated", "test only"])
def test_a_finished_run_repeated_knows_its_whole_time(worsening, options):
    folder, before, _ = worsening
    again, data = trained(folder, kind=kind(**WORSENING), **options)
    again.evaluate(data["test"])
    assert state(again) == before


def test_device_hours_count_the_processes_of_each_part(worsening):
    _, before, brain = worsening
    path = brain.folder / "saved.yaml"
    brain.world = 4
    brain._save(path)  # 1 x before, as `elsewhere` is not told of the new number
    brain.world = 2
    brain._recover(path, True)
    assert brain.device_seconds == pytest.approx(4 * before["train_seconds"])
    brain.train_seconds += 100.0
    assert brain.device_seconds == pytest.approx(4 * before["train_seconds"] + 200.0)


def test_seconds_of_the_cache_are_those_of_all_parts(tmp_path):
    for seconds, world in ((0.5, 1), (30.0, 1), (2.0, 2)):
        meter = energy.Meter(tmp_path, "cpu", 0, world, "estimate", 1.0, 1.0, 1.0)
        meter.start()
        meter.write(float, seconds / 2)
        meter.write(float, seconds)
    assert energy.cache_device_seconds(tmp_path) == 0.5 + 30.0 + 4.0
    assert toy(tmp_path).device_seconds == 34.5


@pytest.mark.parametrize("epochs", [0, -1])
def test_a_run_without_an_update_is_refused(tmp_path, epochs):
    with pytest.raises(UsageError, match="The run has no update"):
        trained(tmp_path, epochs=epochs)
    for wrong in ((0, 5), (5, 0)):
        with pytest.raises(UsageError, match="1 is the least"):
            virtual_epochs(*wrong)


# ---- figures that are not finite


def test_an_update_without_finite_loss_is_left_out_of_the_mean(tmp_path, caplog):
    whole, _ = trained(tmp_path / "whole", epochs=1)
    caplog.clear()
    brain, _ = trained(tmp_path / "broken", epochs=1, kind=kind(broken=("train0",)))
    lines = steps(tmp_path / "broken")
    lost = [line for line in lines if line["loss"] is None]
    assert len(lost) == 1 and lost[0]["grad_norm"] is None and "train0" in lost[0]["refused"]
    left = [line["loss"] for line in lines if line["loss"] is not None]
    assert brain.train_loss == pytest.approx(sum(left) / len(left)) and len(left) == UPDATES - 1
    assert f"1 of {UPDATES} updates had no finite loss" in caplog.text
    assert steps(tmp_path / "broken", "valid")[0]["train_loss"] == brain.train_loss
    assert "nan" not in (tmp_path / "broken" / "train_log.txt").read_text()
    assert math.isfinite(whole.train_loss)


@pytest.mark.parametrize("stopped_after", [1, 2])
def test_a_resumed_epoch_knows_which_updates_it_left_out(tmp_path, stopped_after, monkeypatch):
    broken = kind(broken=("train0",))
    whole, _ = trained(tmp_path / "whole", epochs=1, kind=broken)

    class Kill(BaseException):
        pass

    save_is_due = checkpointed.save_is_due

    def saves_and_dies(brain, last):
        if brain.optimizer_step == stopped_after:
            brain.updates.flush()
            checkpointed.save_inside_epoch(brain)
            raise Kill
        return save_is_due(brain, last)

    monkeypatch.setattr(checkpointed, "save_is_due", saves_and_dies)
    with pytest.raises(Kill):
        trained(tmp_path / "run", epochs=1, kind=broken)
    monkeypatch.undo()
    resumed, _ = trained(tmp_path / "run", epochs=1, kind=broken)
    assert resumed.train_loss == whole.train_loss
    assert steps(tmp_path / "run") == steps(tmp_path / "whole")


def test_an_epoch_without_any_finite_loss_has_no_mean(tmp_path):
    names = tuple(f"train{k}" for k in range(6))
    brain, _ = trained(tmp_path, epochs=1, kind=kind(broken=names))
    assert math.isnan(brain.train_loss) and steps(tmp_path, "valid")[0]["train_loss"] is None


NAN, INF = math.nan, math.inf


@pytest.mark.parametrize(
    ("merits", "best"),
    [((NAN, 2.0, 3.0), 2), ((2.0, NAN, 3.0), 1), ((3.0, 2.0, NAN), 2), ((-INF, 2.0, 1.0), 3)],
)
def test_a_figure_that_is_not_finite_is_never_the_best(tmp_path, merits, best, caplog):
    brain, data = trained(tmp_path, kind=kind(merits=merits))
    assert brain.load_best()["epoch"] == best
    assert "no finite merit on valid" in caplog.text
    brain.evaluate(data["test"])


def test_checkpoints_that_noted_nan_are_passed_over_too(tmp_path):
    brain, _ = trained(tmp_path, kind=kind(merits=(5.0, 4.0, 3.0)))
    brain.checkpointer.save_and_keep_only(meta={"merit": NAN}, min_keys=["merit"], importance_keys=[])
    assert brain.load_best()["merit"] == 3.0
    assert math.isnan(brain.checkpointer.find_checkpoint().meta["merit"])  # to go on from


def test_without_any_finite_figure_nothing_is_tested(tmp_path):
    brain, data = trained(tmp_path, kind=kind(merits=(NAN, NAN, NAN)))
    with pytest.raises(UsageError, match="no checkpoint has a finite merit on valid"):
        brain.evaluate(data["test"])


def test_a_validation_says_whose_loss_is_not_finite(tmp_path, caplog):
    broken = kind(broken=("valid1",), broken_in=(VALID,))
    brain, _ = trained(tmp_path, key="loss", kind=broken, epochs=1)
    said = next(r.getMessage() for r in caplog.records if "loss of these utterances" in r.getMessage())
    assert "valid1" in said and "valid, update 3" in said
    assert steps(tmp_path, "valid")[0]["loss"] is None
    with pytest.raises(UsageError, match="finite loss"):
        brain.load_best()


# ---- files


def test_json_has_null_for_what_is_not_finite(tmp_path):
    assert json_text({"a": [NAN, {"b": -INF}], "c": 1.5}) == '{"a": [null, {"b": null}], "c": 1.5}'
    path = tmp_path / "lines.jsonl"
    append_whole(path, '{"a": NaN}\n{"cut": ')  # as older runs wrote, and as a kill leaves it
    append_whole(path, '{"a": null}\n[1]\n')
    (first, second) = read_records(path)
    assert math.isnan(first["a"]) and second == {"a": None}
    assert read_records(tmp_path / "none") == []


def test_a_picture_that_cannot_be_drawn_costs_a_warning(tmp_path, caplog):
    plots.attempt(learning_curves, {"run": tmp_path / "absent.jsonl"}, tmp_path / "curves.png")
    assert "learning_curves: not drawn" in caplog.text and not list(tmp_path.iterdir())
    with pytest.raises(TypeError):  # a fault of ours stays one
        plots.attempt(learning_curves, 3)


def test_what_a_killed_run_left_half_written_is_removed(tmp_path):
    folder, name = temporary_name(tmp_path / "encoder"), temporary_name(tmp_path / "trivial_baseline.json")
    folder.mkdir()
    for path in (folder / "model.safetensors", name, tmp_path / ".mine.tmp", tmp_path / "notes.tmp"):
        path.write_text("x")
    trained(tmp_path, epochs=1)
    left = {path.name for path in tmp_path.iterdir()}
    assert not left & {folder.name, name.name} and {".mine.tmp", "notes.tmp"} <= left


# ---- plans


def counted(monkeypatch, owner, name):
    calls, real = [], getattr(owner, name)
    monkeypatch.setattr(owner, name, lambda self, number: calls.append(number) or real(self, number))
    return calls


def test_the_plan_of_an_epoch_is_made_once(tmp_path, monkeypatch):
    brain, data = toy(tmp_path), toy_data()
    loader = brain.loader(data["train"], TRAIN)
    calls = counted(monkeypatch, EpochPlan, "batches")
    shares = [loader.share(epoch) for epoch in (1, 1, 2)] + [list(loader.batches(2, 1).batch_sampler)]
    assert calls == [1, 2] and shares[0] == shares[1] and shares[3] == shares[2][1:]
    assert loader.everyones(2) == UPDATES


@pytest.mark.parametrize("world", [1, 2])
def test_a_pass_that_reaches_into_the_next_epoch_is_made_once(monkeypatch, world):
    calls = counted(monkeypatch, StreamPlan, "one_pass")
    plan = StreamPlan([1.0] * 20, 2.0, 0, 3, world, 40)
    loader = PlannedLoader(None, plan, 0, world)
    for epoch in range(1, 14):
        loader.share(epoch)
        loader.batches(epoch, 1)
    assert calls == list(range(1, len(calls) + 1))


def test_the_log_is_quiet_where_all_is_well(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        brain, data = trained(tmp_path, epochs=1)
        brain.evaluate(data["test"])
    assert "finite" not in caplog.text
