"""A run asked to stop by a signal: all its processes hear of it after an update, and leave a checkpoint."""

import logging
import signal

import torch

from lebench_sb.core import signals
from lebench_sb.training import state

logger = logging.getLogger(__name__)


class Stopped(Exception):
    """A validation given up after a signal, of this number"""

    def __init__(self, number):
        super().__init__(number)
        self.number = number


def cpu_group(world):
    """The processes' group for tensors on CPUs; None where the usual one is that"""
    gpus = world > 1 and torch.distributed.get_backend() != "gloo"
    return torch.distributed.new_group(backend="gloo") if gpus else None


def stop_asked(brain):
    """The signal that asks some process to stop, 0 for none; every process says the same. Called after
    each update: the processes' CPUs wait for each other there, their GPUs do not."""
    if brain.world == 1:
        return brain.stop.number
    asked = torch.tensor([brain.stop.number])
    torch.distributed.all_reduce(asked, torch.distributed.ReduceOp.MAX, group=brain.cpu_group)
    return int(asked)


def leave(brain, number, save=True):
    """Ends the process after signal `number`, with a checkpoint of the last update unless it has one.

    Raises KeyboardInterrupt after Ctrl-C, else SystemExit with signals.TRY_AGAIN.
    """
    brain.updates.flush()
    if save and brain.checkpointer is not None:
        state.save_inside_epoch(brain)
    logger.warning("Stopped by signal %d after update %d.", number, brain.optimizer_step)
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    raise SystemExit(signals.TRY_AGAIN)
