"""Checkpoints: a damaged one is passed over, there is one before it, a full disk harms none."""

import errno
import json
import os
import shutil
import time
from collections import namedtuple

import pytest
import torch

from lebench_sb.core import lines
from lebench_sb.core.errors import UsageError
from lebench_sb.training import checkpoints, logs
from lebench_sb.training.checkpoints import (
    FILES,
    SafeCheckpointer,
    SaveError,
    fault,
    save_trained,
    state_bytes,
)


def module_of(value):
    module = torch.nn.Linear(2, 2)
    torch.nn.init.constant_(module.weight, value)
    return module


def saved(folder, *values):
    """A SafeCheckpointer that has saved a module with each of these weights, and the module"""
    module = module_of(0.0)
    checkpointer = SafeCheckpointer(folder, {"module": module})
    for value in values:
        save(checkpointer, module, value)
    return checkpointer, module


def save(checkpointer, module, value, **options):
    time.sleep(0.01)  # the newest is told by its time
    torch.nn.init.constant_(module.weight, value)
    checkpointer.save_and_keep_only(meta={"loss": float(value)}, **options)


def weights(checkpointer):
    """The values of the checkpoints on the disk, oldest first"""
    return [found.meta["loss"] for found in reversed(checkpointer.find_checkpoints())]


def damage_newest(checkpointer, kind):
    folder = checkpointer.find_checkpoint().path
    target = folder / "module.ckpt"
    if kind == "truncated":
        os.truncate(target, 10)
    elif kind == "removed":
        target.unlink()
    elif kind == "half-written":
        (folder / FILES).unlink()
    else:
        data = bytearray(target.read_bytes())
        data[len(data) // 2] ^= 255
        target.write_bytes(data)
        assert "another content" in fault(folder, content=True)
    return folder


@pytest.mark.parametrize("kind", ["truncated", "removed", "half-written", "content"])
def test_a_damaged_newest_checkpoint_is_passed_over(tmp_path, kind, caplog):
    checkpointer, module = saved(tmp_path, 1.0, 2.0)
    folder = damage_newest(checkpointer, kind)
    torch.nn.init.constant_(module.weight, 0.0)
    checkpointer.recover_if_possible()
    assert float(module.weight.detach()[0, 0]) == 1.0
    assert "passed over" in caplog.text and str(folder) in caplog.text and folder.exists()


def test_a_save_cut_short_is_told_and_then_removed(tmp_path, caplog):
    checkpointer, module = saved(tmp_path, 1.0)
    folder = tmp_path / f"{checkpoints.UNFINISHED}CKPT+2030-01-01+00-00-00+00"
    shutil.copytree(checkpointer.find_checkpoint().path, folder)
    assert checkpointer.recover_if_possible().meta["loss"] == 1.0
    assert "passed over" in caplog.text and str(folder) in caplog.text
    save(checkpointer, module, 2.0)
    assert not folder.exists()


def test_the_one_before_the_newest_and_the_best_are_kept(tmp_path):
    checkpointer, module = saved(tmp_path)
    for value in (3.0, 1.0, 4.0, 5.0, 6.0):
        save(checkpointer, module, value, min_keys=["loss"])
    assert weights(checkpointer) == [1.0, 5.0, 6.0]
    assert len(list(tmp_path.iterdir())) == 3


def test_a_kill_inside_a_deletion_leaves_no_half_checkpoint(tmp_path, monkeypatch, caplog):
    checkpointer, module = saved(tmp_path, 1.0, 2.0)

    def killed(path, **options):
        next(path.iterdir()).unlink()
        raise KeyboardInterrupt

    monkeypatch.setattr(shutil, "rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        save(checkpointer, module, 3.0)
    monkeypatch.undo()
    assert weights(SafeCheckpointer(tmp_path, {})) == [2.0, 3.0]
    assert "passed over" not in caplog.text
    save(checkpointer, module, 4.0)
    assert len(list(tmp_path.iterdir())) == 2


def no_room(*arguments):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_costs_warnings_until_it_has_room_again(tmp_path, monkeypatch, caplog):
    checkpointer, module = saved(tmp_path, 1.0, 2.0)
    monkeypatch.setattr(checkpoints, "describe", no_room)
    for value in (3.0, 4.0):
        save(checkpointer, module, value)
        with pytest.raises(SaveError, match="Make room"):
            checkpointer.require_saved()
    assert weights(checkpointer) == [1.0, 2.0] and len(list(tmp_path.iterdir())) == 2
    assert caplog.text.count("No space left on device") == 2
    monkeypatch.undo()
    save(checkpointer, module, 5.0)
    checkpointer.require_saved()
    assert weights(checkpointer) == [2.0, 5.0]


def test_a_disk_that_stays_full_ends_the_run(tmp_path, monkeypatch):
    checkpointer, module = saved(tmp_path, 1.0)
    monkeypatch.setattr(checkpoints, "describe", no_room)
    with pytest.raises(SaveError, match="3 times in a row. Make room on the disk"):
        for value in range(4):
            save(checkpointer, module, value)
    assert weights(checkpointer) == [1.0]


def test_what_is_no_fault_of_the_disk_is_raised(tmp_path):
    class Broken:
        def state_dict(self):
            raise RuntimeError("a programming mistake")

    checkpointer = SafeCheckpointer(tmp_path, {"broken": Broken()})
    checkpointer.custom_save_hooks["broken"] = lambda holder, path: holder.state_dict()
    with pytest.raises(RuntimeError, match="a programming mistake"):
        checkpointer.save_and_keep_only()


def test_torch_says_of_a_full_disk_what_is_recognised(tmp_path):
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full")
    with pytest.raises((OSError, RuntimeError)) as caught:
        torch.save({"a": torch.zeros(100_000)}, "/dev/full")
    assert checkpoints.is_of_disk(caught.value)


@pytest.mark.parametrize("optimizer", [torch.optim.AdamW, torch.optim.SGD])
def test_the_size_of_a_checkpoint_is_foreseen(tmp_path, optimizer):
    module, frozen = torch.nn.Linear(300, 300), torch.nn.Linear(300, 300).requires_grad_(False)
    checkpointer = SafeCheckpointer(tmp_path, {"module": module, "frozen": frozen})
    checkpointer.custom_save_hooks["frozen"] = save_trained
    trained = optimizer(module.parameters())
    module(torch.ones(1, 300)).sum().backward()
    trained.step()
    checkpointer.add_recoverable("optimizer", trained)
    expected = state_bytes(checkpointer, optimizer)
    size = sum(path.stat().st_size for path in checkpointer.save_checkpoint().path.iterdir())
    assert expected == pytest.approx(size, rel=0.02)


def test_free_space_is_checked_at_the_start(tmp_path, monkeypatch):
    checkpointer, module = saved(tmp_path)
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(3_999_999))
    with pytest.raises(UsageError) as caught:
        checkpointer.check_space(1_000_000)
    message = "4.0 MB needed for 4 checkpoints of 1.0 MB, 4.0 MB free. Make room, or give another"
    assert str(tmp_path) in str(caught.value) and message in str(caught.value)
    save(checkpointer, module, 1.0)
    checkpointer.check_space(1_000_000)  # three more


def test_steps_wait_for_room(tmp_path, monkeypatch, caplog):
    path = tmp_path / "steps.jsonl"
    log = logs.StepLog(path)
    log.add({"step": 1})

    class Full:
        def __init__(self, *arguments, **options):
            self.file = open(*arguments, **options)

        def __enter__(self):
            return self

        def __exit__(self, *arguments):
            self.file.close()

        def write(self, text):
            self.file.write(text[:5])
            self.file.flush()
            no_room()

    monkeypatch.setattr(lines, "open", Full, raising=False)
    log.add({"step": 2})
    monkeypatch.undo()
    assert path.read_text() == '{"step": 1}\n' and "No space left" in caplog.text
    log.add({"step": 3})
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [1, 2, 3]


def test_tensors_are_no_metadata(tmp_path):
    with pytest.raises(TypeError, match="acc"):
        SafeCheckpointer(tmp_path, {}).save_checkpoint(meta={"acc": torch.tensor(1.0)})


def changed_model(case, checkpointer):
    """A checkpointer of the same folder whose model has changed since"""
    module = torch.nn.Linear(2, 2)
    if case == "shape":
        module = torch.nn.Linear(3, 2)
    elif case == "names":
        module = torch.nn.Sequential(module)
    recoverables = {"module": module} | ({"new_thing": torch.nn.Linear(1, 1)} if case == "part" else {})
    made = SafeCheckpointer(checkpointer.checkpoints_dir, recoverables)
    if case == "trained":
        made.custom_load_hooks["module"] = checkpoints.load_trained
        module.bias.requires_grad_(False)
    return made


MODELS = [("shape", "size mismatch for weight"), ("names", "Missing key"), ("part", "lacks new_thing"),
          ("trained", "train other weights, first bias")]  # fmt: skip


@pytest.mark.parametrize(("case", "told"), MODELS)
def test_a_checkpoint_of_another_model_is_one_line(tmp_path, case, told):
    checkpointer, _ = saved(tmp_path, 1.0)
    with pytest.raises(UsageError, match=told) as caught:
        changed_model(case, checkpointer).recover_if_possible()
    assert "CKPT+" in str(caught.value) and "--output_folder" in str(caught.value)


def test_a_new_part_may_start_anew(tmp_path, caplog):
    checkpointer, _ = saved(tmp_path, 1.0)
    changed = changed_model("part", checkpointer)
    before = changed.recoverables["new_thing"].weight.clone()
    changed.reset_missing = True
    changed.recover_if_possible()
    assert float(changed.recoverables["module"].weight.detach()[0, 0]) == 1.0
    assert torch.equal(changed.recoverables["new_thing"].weight, before)
    assert "new_thing: they start anew" in caplog.text


LISTS = [
    "[]", "3", "[" * 50_000, '{"CKPT.yaml": 3}', '{"CKPT.yaml": {}}', '{"../x": {"size": 1, "crc32": 1}}',
]  # fmt: skip


@pytest.mark.parametrize("content", LISTS, ids=lambda text: text[:20])
def test_a_list_of_files_that_is_none_is_a_damaged_checkpoint(tmp_path, content):
    checkpointer, _ = saved(tmp_path, 1.0, 2.0)
    (checkpointer.find_checkpoint().path / FILES).write_text(content)
    assert weights(SafeCheckpointer(tmp_path, {})) == [1.0]
