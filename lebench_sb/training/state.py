"""The state of a run in its checkpoints: when it is saved, what is loaded of it.

A checkpoint holds weights and the state of the run: its clock and counters. A run goes on from both; what is
tested is weights alone: the clock stays that of the whole run.
"""

import logging
import time
from pathlib import Path

import torch
import yaml
from speechbrain.core import INTRA_EPOCH_CKPT_FLAG
from speechbrain.utils.distributed import if_main_process

from lebench_sb.core.errors import UsageError
from lebench_sb.training import energy, processes


def save(brain, path):
    """Writes the counters `brain.saved` and the seconds of all processes"""
    state = {name: getattr(brain, name) for name in brain.saved} | {"world": brain.world}
    state["device_seconds"] = brain.trained_device_seconds
    Path(path).write_text(yaml.safe_dump(state), encoding="utf-8")


def recover(brain, path):
    """Reads what `save` wrote, with another number of processes than today's maybe"""
    state = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    world, seconds = state.pop("world"), state["train_seconds"]
    state["step"] = state["step"] * world // brain.world  # of each of today's processes
    brain.elsewhere = state.pop("device_seconds", seconds * world) - seconds * brain.world
    for name in [name for name in brain.saved if name in state]:  # one of before may say less
        setattr(brain, name, state[name])


def load(brain, modules, **order):
    """Of the first checkpoint in `order` (the newest by default) loads the modules' weights alone, or the
    state of the run alone -> it, or None where there is none"""
    if brain.checkpointer is None:
        return None
    everything = brain.checkpointer.recoverables
    brain.checkpointer.recoverables = {
        name: part for name, part in everything.items() if isinstance(part, torch.nn.Module) == modules
    }
    try:
        return brain.checkpointer.recover_if_possible(**order)
    finally:
        brain.checkpointer.recoverables = everything


def load_best(brain):
    """Loads the weights of the checkpoint that is best by `key_metric` on valid and returns its metadata.

    Raises UsageError where no validation had a finite `key_metric`, FileNotFoundError for --test_only
    where nothing was trained.
    """
    if brain.checkpointer is None:
        return {}
    lower, key = brain.hparams.key_metric_is_better == "lower", brain.hparams.key_metric
    checkpoint = load(brain, modules=True, **{"min_key" if lower else "max_key": key})
    if checkpoint is not None:
        return checkpoint.meta
    if brain.optimizer_step:
        raise UsageError(
            f"{brain.checkpointer.checkpoints_dir}: no checkpoint has a finite {key} on valid, so none is "
            "the best. log.txt names the utterances; lower the learning rate, or leave them out."
        )
    if brain.test_only:
        raise FileNotFoundError(f"{brain.checkpointer.checkpoints_dir}: no checkpoint; train first.")
    return {}


def save_is_due(brain, last_save):
    """Whether a number of updates, or of minutes since `last_save`, asks for a checkpoint inside an epoch"""
    every = brain.ckpt_interval_steps or brain.hparams.checkpoint_every_updates
    due = every > 0 and brain.optimizer_step % every == 0
    if brain.ckpt_interval_minutes > 0:
        late = time.time() - last_save > 60 * brain.ckpt_interval_minutes
        # the main process decides for all
        due = bool(processes.total(float(if_main_process() and late), brain.device))
    return due and brain.checkpointer is not None and brain.step < brain.batches_in_epoch


def save_inside_epoch(brain):
    """Saves the weights and the state after the last update, in place of the last such checkpoint"""
    energy.note(brain)
    brain.checkpointer.save_and_keep_only(
        meta={INTRA_EPOCH_CKPT_FLAG: True}, end_of_epoch=False, num_to_keep=1, importance_keys=[],
        ckpt_predicate=lambda c: INTRA_EPOCH_CKPT_FLAG in c.meta, verbosity=logging.DEBUG,
    )  # fmt: skip
