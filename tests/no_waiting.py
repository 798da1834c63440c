"""Makes whatever reads a tensor's value on the processor raise, while a micro-batch is trained on."""

from contextlib import contextmanager

import torch

from lebench_sb.pretraining.brain import PretrainingBrain
from lebench_sb.training.brain import TRAIN

READERS = ("item", "tolist", "numpy", "nonzero", "__bool__", "__float__", "__int__", "__index__", "cpu")


class Waited(AssertionError):
    """A value was read back from the device in the middle of a step"""


@contextmanager
def no_reading(patch):
    """patch: a pytest MonkeyPatch. Every reader of torch.Tensor raises Waited inside."""

    def refuse(name):
        def raises(*_, **__):
            raise Waited(f"Tensor.{name} in a pre-training step")

        return raises

    with patch.context() as inside:
        for name in READERS:
            inside.setattr(torch.Tensor, name, refuse(name))
        yield


def watch_steps(patch, guard):
    """Lets PretrainingBrain train inside `guard()` from the second update on (the first one fits the codes),
    but for `on_host`, which looks at the batch before it is sent; returns the list of steps watched"""
    fit_batch, on_host, watched = PretrainingBrain.fit_batch, PretrainingBrain.on_host, []

    def guarded(self, batch):
        if self.optimizer_step < 1:
            return fit_batch(self, batch)
        drawn = on_host(self, batch, TRAIN)
        with patch.context() as inside, guard():
            inside.setattr(PretrainingBrain, "on_host", lambda *_: drawn)
            fit_batch(self, batch)
        watched.append(self.step)

    patch.setattr(PretrainingBrain, "fit_batch", guarded)
    return watched
