"""What is known of an update of the weights, read from the device only when it is asked for."""

from dataclasses import dataclass
from functools import cached_property

import torch


class Later:
    """Vectors on their way from the device; reading one waits for them"""

    def __init__(self, sums, losses, norm):
        self.sizes = [len(sums), len(losses), 1]
        self.values = torch.cat([sums, losses, norm]).to("cpu", non_blocking=True)
        self.arrived = torch.cuda.Event() if sums.is_cuda else None
        if self.arrived is not None:
            self.arrived.record()

    @cached_property
    def parts(self):
        if self.arrived is not None:
            self.arrived.synchronize()
        return self.values.split(self.sizes)

    sums = property(lambda self: self.parts[0])
    losses = property(lambda self: self.parts[1])
    norm = property(lambda self: self.parts[2])


@dataclass
class Update:
    number: int
    step: int  # micro-batches of the epoch so far
    lr: float
    ids: list  # of the utterances of each of its micro-batches
    figures: Later  # over all processes: units, summed loss, `step_sums`; losses here; norm of the gradient
