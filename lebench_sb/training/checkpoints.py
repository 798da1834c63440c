"""Checkpoints that survive a kill at any moment, a save included."""

import json
import logging
import math
import os
import shutil
import zlib
from functools import partial
from pathlib import Path

import torch
from speechbrain.utils.checkpoints import METAFNAME, Checkpointer, ckpt_recency
from speechbrain.utils.distributed import (
    MainProcessContext,
    ddp_barrier,
    ddp_broadcast,
    if_main_process,
)

from lebench_sb.core.errors import DataError, UsageError
from lebench_sb.core.guard import read_json, read_tree

logger = logging.getLogger(__name__)
FILES = "files.json"
UNFINISHED, DELETED = "unfinished-", "deleted-"
RECENT = 2  # newest checkpoints kept: the last one may be found damaged
AT_ONCE = RECENT + 2  # with the best one, and the one being written
PATIENCE = 3  # saves in a row that may fail before the run stops
WAY_OUT = "Make room on the disk and start the same command again: it goes on from the checkpoint before."


class SaveError(OSError):
    """A checkpoint could not be written; those before it are as they were."""


class SafeCheckpointer(Checkpointer):
    """SpeechBrain's Checkpointer, but a checkpoint exists entirely or not at all.

    It is written to a temporary folder, synced, described by `files.json` (size and CRC-32 of each file) and
    renamed. A folder without that description, or whose files differ from it, is passed over with a message;
    the newest valid one is used, and the one before it is kept in case. Nothing damaged is deleted. The main
    process alone looks at the disk and tells the others.

    `gather_hooks`: {name of a recoverable: function(object) -> its state_dict}, for what no process holds
    whole. Every process calls it before a save; the main one writes what it returns there.
    """

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.gather_hooks = {}
        self.reset_missing = False  # True: parts that a checkpoint lacks start anew, instead of an error
        self.failures = 0  # saves that failed since the last one that did not
        self._told = set()

    def save_checkpoint(self, meta={}, end_of_epoch=True, name=None, verbosity=logging.INFO):  # noqa: B006
        """As Checkpointer.save_checkpoint; `meta` must hold plain numbers and strings.

        Raises SaveError, on every process, where the disk does not take it; what was written of it is
        removed.
        """
        for key, value in meta.items():
            if not isinstance(value, (bool, int, float, str)):
                raise TypeError(f"meta[{key!r}] is a {type(value).__name__}: only scalars can be read back.")
        states = {key: gather(self.recoverables[key]) for key, gather in self.gather_hooks.items()}
        checkpoint, problem = None, ""
        if if_main_process():
            final = self._custom_checkpoint_dirpath(name) if name else self._new_checkpoint_dirpath()
            try:
                with MainProcessContext():  # hooks that would wait for the other processes do not
                    checkpoint = self._write(final, states, meta, end_of_epoch, verbosity)
            except (OSError, RuntimeError) as error:
                if not is_of_disk(error):
                    raise
                problem = f"{final} could not be saved ({' '.join(str(error).split())})"
                self.remove_leftovers()
        problem = ddp_broadcast(problem)
        if problem:
            raise SaveError(problem)
        return checkpoint

    def _write(self, final, states, meta, end_of_epoch, verbosity):
        self.remove_leftovers()
        hooks = self.custom_save_hooks
        gathered = {key: partial(write_state, state) for key, state in states.items()}
        self.custom_save_hooks = {**hooks, **gathered}
        try:
            checkpoint = super().save_checkpoint(meta, end_of_epoch, UNFINISHED + final.name, verbosity)
        finally:
            self.custom_save_hooks = hooks
        describe(checkpoint.path)
        os.rename(checkpoint.path, final)
        sync(final.parent)
        paramfiles = {key: final / file.name for key, file in checkpoint.paramfiles.items()}
        return checkpoint._replace(path=final, paramfiles=paramfiles)

    def save_and_keep_only(
        self, meta=None, end_of_epoch=True, name=None, num_to_keep=1, keep_recent=True, importance_keys=(),
        max_keys=(), min_keys=(), ckpt_predicate=None, verbosity=logging.INFO,
    ):  # fmt: skip
        """As Checkpointer.save_and_keep_only, but `keep_recent` keeps the RECENT newest of all.

        A save that fails costs a warning, and deletes nothing: the next one may find room again. PATIENCE
        failures in a row raise SaveError.
        """
        try:
            self.save_checkpoint(meta or {}, end_of_epoch, name, verbosity)
        except SaveError as error:
            self.failures += 1
            if self.failures >= PATIENCE:
                raise SaveError(f"{error}, {self.failures} times in a row. {WAY_OUT}") from error
            logger.warning("%s. The run goes on; the checkpoints before it are untouched.", error)
            return
        self.failures = 0
        keys = [*importance_keys, *([ckpt_recency] if keep_recent else [])]
        self.delete_checkpoints(
            num_to_keep=num_to_keep, max_keys=max_keys, min_keys=min_keys, importance_keys=keys,
            ckpt_predicate=ckpt_predicate, verbosity=verbosity, recent=RECENT if keep_recent else 0,
        )  # fmt: skip

    def delete_checkpoints(
        self, *, num_to_keep=1, min_keys=(), max_keys=(), importance_keys=(ckpt_recency,),
        ckpt_predicate=None, verbosity=logging.INFO, recent=0,
    ):  # fmt: skip
        """As Checkpointer.delete_checkpoints, but the `recent` newest of all stay, and a kill leaves no half
        of one."""
        if if_main_process():
            orders = [{"min_key": key} for key in min_keys] + [{"max_key": key} for key in max_keys]
            orders += [{"importance_key": key} for key in importance_keys]
            candidates, to_keep = set(), set(self.find_checkpoints(max_num_checkpoints=recent))
            for order in orders:
                ranked = self.find_checkpoints(**order, ckpt_predicate=ckpt_predicate)
                candidates, to_keep = candidates.union(ranked), to_keep.union(ranked[:num_to_keep])
            for path in sorted(checkpoint.path for checkpoint in candidates - to_keep):
                path.rename(path.with_name(DELETED + path.name))
                logger.log(verbosity, "Deleted checkpoint in %s", path)
            self.remove_leftovers()
        ddp_barrier()

    def remove_leftovers(self):
        """Removes what a kill or a full disk left of saves and deletions"""
        for path in sorted(self.checkpoints_dir.iterdir()):
            if path.name.startswith((UNFINISHED, DELETED)):
                shutil.rmtree(path, ignore_errors=True)

    def require_saved(self):
        """Raises SaveError if the last save failed: the weights of this moment are nowhere on the disk"""
        if self.failures:
            raise SaveError(f"{self.checkpoints_dir}: the last checkpoint could not be saved. {WAY_OUT}")

    def _custom_checkpoint_dirpath(self, name):
        if name.startswith(UNFINISHED):
            return self.checkpoints_dir / name
        return super()._custom_checkpoint_dirpath(name)

    def _list_checkpoint_dirs(self):
        return [path for path in super()._list_checkpoint_dirs() if self._is_valid(path)]

    def _is_valid(self, path, content=False):
        problem = fault(path, content)
        if problem and problem not in self._told:
            self._told.add(problem)
            logger.warning("Checkpoint passed over: %s", problem)
        return not problem

    def find_checkpoints(self, importance_key=None, max_key=None, min_key=None, ckpt_predicate=None, **limit):
        """As Checkpointer's, but one whose `max_key` or `min_key` is not finite has no place in that order"""

        def ranked(found):
            figures = [found.meta.get(key, math.nan) for key in (max_key, min_key) if key]
            return all(map(math.isfinite, figures)) and (ckpt_predicate is None or ckpt_predicate(found))

        return super().find_checkpoints(importance_key, max_key, min_key, ranked, **limit)

    def find_intact(self, **order):
        """As find_checkpoint, but reads the files: the first in order whose content is what was saved"""
        ranked = self.find_checkpoints(**order)
        return next(
            (checkpoint for checkpoint in ranked if self._is_valid(checkpoint.path, content=True)), None
        )

    def recover_if_possible(self, **order):
        """Loads the first checkpoint in `order` (see find_checkpoints) with the content it was saved with.

        -> it, or None where there is none. Others are passed over with a message.
        """
        chosen = None
        if if_main_process():
            for path in self.checkpoints_dir.glob(UNFINISHED + "*"):
                logger.warning("Checkpoint passed over: %s, whose save did not finish", path)
            chosen = self.find_intact(**order)
        chosen = ddp_broadcast(chosen)
        if chosen is None:
            logger.info("%s: no checkpoint to go on from", self.checkpoints_dir)
        else:
            self.load_checkpoint(chosen)
        return chosen

    def load_checkpoint(self, checkpoint):
        """As Checkpointer.load_checkpoint. Raises UsageError naming a part that the checkpoint lacks, unless
        `reset_missing`, and one whose weights have other names or shapes."""
        missing = sorted(set(self.recoverables) - set(checkpoint.paramfiles))
        if missing and not self.reset_missing:
            raise UsageError(
                f"{checkpoint.path} lacks {', '.join(missing)}: the model has parts that it had not when "
                "this folder began. --reset_missing True lets them start anew; or give another "
                "--output_folder."
            )
        if missing:
            logger.warning("%s lacks %s: they start anew.", checkpoint.path, ", ".join(missing))
        self.allow_partial_load = self.reset_missing
        try:
            super().load_checkpoint(checkpoint)
        except (RuntimeError, ValueError) as error:
            if not is_misfit(error):
                raise
            raise UsageError(
                f"{checkpoint.path} is of another model: {first_misfit(error)}. Give another "
                "--output_folder, or the settings that this one began with."
            ) from error

    def check_space(self, size):
        """Raises UsageError unless the disk has room for the checkpoints of `size` bytes still to come.

        At most AT_ONCE exist at once: the best, the RECENT newest and the one being written. Disk quotas that
        the system does not report as free space are not seen.
        """
        problem = ""
        if if_main_process():
            self.remove_leftovers()
            coming = max(AT_ONCE - len(self._list_checkpoint_dirs()), 1)
            free = shutil.disk_usage(self.checkpoints_dir).free
            if free < coming * size:
                problem = (
                    f"{self.checkpoints_dir}: {megabytes(coming * size)} needed for {coming} checkpoints of "
                    f"{megabytes(size)}, {megabytes(free)} free. Make room, or give another --output_folder."
                )
        problem = ddp_broadcast(problem)
        if problem:
            raise UsageError(problem)


def is_misfit(error):
    """Whether an error is torch's for a state that does not fit a module or an optimiser"""
    text = str(error)
    return "loading state_dict" in text or "loaded state dict" in text


def first_misfit(error):
    """Of torch's list of what does not fit, the first line that names a weight"""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return next((line for line in lines[1:]), lines[0])[:300].rstrip(".")


def is_of_disk(error):
    """Whether an error of saving is the disk's: full, over a quota or limit, gone. torch.save says so with a
    RuntimeError of its own writer."""
    return isinstance(error, OSError) or "inline_container" in str(error)


def write_state(state, module, path):
    """Save hook of a Checkpointer for the `state` that was gathered from the processes"""
    torch.save(state, path)


def state_bytes(checkpointer, optimizer):
    """Bytes of a checkpoint: the weights that `checkpointer` saves, and what `optimizer` (a function of
    parameter groups) keeps of those it changes"""
    total, states = 0, states_per_weight(optimizer)
    for name, module in checkpointer.recoverables.items():
        if isinstance(module, torch.nn.Module):
            whole = name not in checkpointer.custom_save_hooks
            saved = module.state_dict() if whole else trained_state(module)
            total += sum(value.numel() * value.element_size() for value in saved.values())
            trained = [p for p in module.parameters() if p.requires_grad]
            total += sum(int(p.numel() * p.element_size() * states) for p in trained)
    return total


def states_per_weight(optimizer):
    """Numbers that an optimiser keeps per weight, 2 for Adam: seen in one step on 16 weights"""
    weight = torch.nn.Parameter(torch.zeros(4, 4))
    weight.grad = torch.ones_like(weight)
    tried = optimizer([{"params": [weight], "lr": 0.1}])
    tried.step()
    kept = [value for value in tried.state[weight].values() if torch.is_tensor(value) and value.ndim]
    return sum(value.numel() for value in kept) / weight.numel()


def megabytes(size):
    """Bytes -> "12.3 MB" """
    return f"{size / 1e6:.1f} MB"


def best_checkpoint(run_folder):
    """The folder of a run's checkpoint that is best on valid by the run's own key_metric.

    Raises FileNotFoundError for a folder that is no run, or has no checkpoint of a whole epoch.
    """
    run_folder = Path(run_folder)
    settings, saved = run_folder / "hyperparams.yaml", run_folder / "save"
    if not settings.is_file() or not saved.is_dir():
        raise FileNotFoundError(f"{run_folder} is not the folder of a run: no hyperparams.yaml and save/.")
    hparams = read_settings(run_folder)
    if not isinstance(hparams.get("key_metric"), str):
        raise UsageError(f"{settings} names no key_metric: it is not that of a run.")
    end = "min_key" if hparams.get("key_metric_is_better") == "lower" else "max_key"
    checkpoint = SafeCheckpointer(saved).find_intact(**{end: hparams["key_metric"]})
    if checkpoint is None:
        raise FileNotFoundError(f"{saved} holds no checkpoint of a whole epoch: train that run first.")
    return checkpoint.path


def read_settings(run_folder):
    """The resolved YAML of a run, nothing built"""
    return read_tree(Path(run_folder) / "hyperparams.yaml")


def trained_state(module):
    """The state of a module without its frozen parameters, which come back with its source"""
    frozen = {name for name, parameter in module.named_parameters() if not parameter.requires_grad}
    return {name: value for name, value in module.state_dict().items() if name not in frozen}


def save_trained(module, path):
    """Save hook of a Checkpointer: see `trained_state`"""
    if if_main_process():
        torch.save(trained_state(module), path)


def load_trained(module, path, end_of_epoch):
    """Load hook for `save_trained`; raises UsageError naming a trained weight the file lacks or does not
    know."""
    put_trained(module, torch.load(path, map_location="cpu", weights_only=True), path)


def put_trained(module, state, where):
    """Loads a `trained_state`; raises UsageError naming `where` and a trained weight it lacks or does not
    know."""
    differing = sorted(set(state) ^ set(trained_state(module)))
    if differing:
        raise UsageError(
            f"{where} and this model train other weights, first {', '.join(differing[:5])}: give another "
            "--output_folder."
        )
    module.load_state_dict(state, strict=False)


def describe(folder):
    """Syncs the files of `folder` and writes their sizes and CRC-32 to `files.json`, last."""
    described = {}
    for path in sorted(Path(folder).iterdir()):
        described[path.name] = {"size": path.stat().st_size, "crc32": crc32(path)}
        sync(path)
    with open(folder / FILES, "w", encoding="utf-8") as out:
        json.dump(described, out, indent=1)
        out.flush()
        os.fsync(out.fileno())
    sync(folder)


def fault(folder, content=False):
    """What is wrong with a checkpoint folder, or "". content=True also compares CRC-32."""
    if not (folder / FILES).is_file():
        return f"{folder} has no {FILES}: its save did not finish"
    try:
        described = read_json(folder / FILES, DataError)
        sizes = {name: (expected["size"], expected["crc32"]) for name, expected in described.items()}
    except (DataError, TypeError, KeyError):  # entries without a size or CRC-32
        return f"{folder}/{FILES} cannot be read"
    if METAFNAME not in described:
        return f"{folder}/{FILES} does not list {METAFNAME}"
    for name, (size, crc) in sizes.items():
        path = folder / name
        if not path.is_file() or path.stat().st_size != size:
            return f"{path} is missing or has another size than when it was saved"
        if content and crc32(path) != crc:
            return f"{path} has another content than when it was saved"
    return ""


def crc32(path):
    """CRC-32 of a file, read in pieces of 8 MiB"""
    value = 0
    with open(path, "rb") as file:
        while piece := file.read(1 << 23):
            value = zlib.crc32(piece, value)
    return value


def sync(path):
    """fsync of a file or a folder"""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
