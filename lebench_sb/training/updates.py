"""Updates of the weights: gradients of one batch normalised and clipped together, then the optimizer's step.

What is known of an update (loss, norm of the gradient, figures of a task) stays on the device until it is
logged: while a GPU works on one update, the next is sent to it.
"""

import logging
import math
from dataclasses import dataclass
from functools import cached_property

import torch
from speechbrain import Stage

from lebench_sb.training import processes, sharding
from lebench_sb.training.data import send

logger = logging.getLogger(__name__)
HALVINGS = 16  # from GradScaler's first scale, 2 ** 16, to 1
MOST_NAMED = 20  # utterances that a warning names


class DeferredStatistics:
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
    statistics: DeferredStatistics  # units, summed loss, `step_sums` of all processes; losses here; norm


class Updates:
    """The updates of a Brain: `add` each micro-batch, `step` after the last one, `flush` to log what is done.

    An update is the mean over the units of the whole accumulated, distributed batch. One whose gradient is
    not finite changes nothing; too many of them stop the run.
    """

    def __init__(self, brain):
        self.brain = brain
        self.micro_batches, self.units = (
            [],
            0.0,
        )  # of the update at hand: (ids, loss, units) each; summed units
        self.pending = []  # Updates that are not in `steps.jsonl` yet

    def add(self, ids, loss, units):
        """Notes a micro-batch whose gradients have been added; loss: scalar on the device"""
        self.micro_batches.append((ids, loss.detach().double(), units))
        self.units += units

    def step(self):
        """Normalises, clips over all parameters together, steps; a gradient not finite changes nothing."""
        brain = self.brain
        rates = self.set_rates()
        brain.scaler.unscale_(brain.optimizer)
        groups = brain.optimizer.param_groups
        parameters = [p for group in groups for p in group["params"] if p.grad is not None]
        units = send(torch.tensor([self.units], dtype=torch.float64), brain.device)
        losses = torch.stack([loss for _, loss, _ in self.micro_batches])
        weights = torch.tensor([units for *_, units in self.micro_batches], dtype=torch.float64)
        loss = (losses * send(weights, brain.device)).sum()
        sums = torch.cat([units, loss[None], brain.step_sums()])
        if brain.world > 1:
            torch.distributed.all_reduce(sums)
        # DDP has averaged the gradients over processes: x world gives their sum, / units the mean per unit.
        scale = (brain.world / sums[0].clamp(min=1.0)).float()
        gradients = [sharding.own_part(p.grad) for p in parameters]
        torch._foreach_mul_(gradients, scale)
        norm = sharding.clip(gradients, brain.max_grad_norm, brain.is_sharded)
        self.step_if_finite(norm)
        brain.optimizer.zero_grad(set_to_none=True)
        brain.optimizer_step += 1
        ids = [names for names, *_ in self.micro_batches]
        statistics = DeferredStatistics(sums, losses, norm.double()[None])
        self.pending.append(Update(brain.optimizer_step, brain.step, max(rates), ids, statistics))
        self.micro_batches, self.units = [], 0.0

    def set_rates(self):
        """Sets each group's learning rate for the coming update and returns them"""
        brain, update = self.brain, self.brain.optimizer_step + 1
        factor = brain.hparams.schedule(update, brain.total_updates)
        for group, (peak, first) in zip(brain.optimizer.param_groups, brain.peaks, strict=True):
            group["lr"] = peak * factor if update > first else 0.0
            for p in group["params"] if update <= first else []:
                p.grad = None  # not updated at all: no change of the optimizer state, no weight decay
        return [group["lr"] for group in brain.optimizer.param_groups]

    def step_if_finite(self, norm):
        """Lets the optimizer step, unless the norm of the gradient is not finite; fused optimizers and fp16's
        scaler see to that on the device"""
        scaler, optimizer = self.brain.scaler, self.brain.optimizer
        if scaler.is_enabled():
            scaler.step(optimizer)
            scaler.update()
        elif getattr(optimizer, "_step_supports_amp_scaling", False) and not self.brain.is_sharded:
            optimizer.found_inf = (~norm.isfinite()).float()
            optimizer.step()
            del optimizer.found_inf
        elif math.isfinite(norm):
            optimizer.step()

    def flush(self, leave=0):
        """Logs the pending updates but the last `leave`; the steps of a GPU are still running then"""
        brain = self.brain
        while len(self.pending) > leave:
            update = self.pending.pop(0)
            (units, loss, *_), norm = update.statistics.sums, float(update.statistics.norm)
            loss = float(loss / max(units, 1.0))
            refused = {} if math.isfinite(norm) else {"refused": self.refuse(update)}
            if math.isfinite(loss):
                count = math.ceil(update.step / brain.grad_accumulation_factor) - brain.left_out
                brain.avg_train_loss += (loss - brain.avg_train_loss) / count
            else:
                brain.left_out += 1
            figures = {"loss": loss, "lr": update.lr, "grad_norm": norm}
            more = brain.step_statistics(update.statistics.sums[2:], update.number - 1)
            brain.log_step(Stage.TRAIN, step=update.number, **figures, **more, **refused)

    def refuse(self, update):
        """A loss or gradient that is not finite: the update was left out, and too many stop the run. Returns
        the ids of its utterances; none for those that fp16's scale, too high at first, is allowed."""
        brain = self.brain
        brain.nonfinite_count += 1
        allowed = HALVINGS if brain.scaler.is_enabled() else 0
        names = suspects(update)
        listed = some_of(names)
        logger.warning(
            "Update %d left out: its gradient is not finite. Its utterances: %s", update.number, listed
        )
        if brain.nonfinite_count > brain.nonfinite_patience + allowed:
            raise ValueError(
                f"{brain.nonfinite_count} updates of this epoch had no finite gradient (--nonfinite_patience "
                f"{brain.nonfinite_patience}), the last with the utterances {listed}. Lower head_lr or "
                "encoder_lr, use --precision fp32, or leave these utterances out."
            )
        return names if brain.nonfinite_count > allowed else []


def suspects(update):
    """Sorted ids of the utterances of the micro-batches of an update whose loss is not finite, or of all
    if every loss is; of all processes"""
    finite = update.statistics.losses.isfinite().tolist()
    micro_batches = processes.gather(list(zip(update.ids, finite, strict=True)))
    guilty = [ids for ids, fine in micro_batches if not fine] or [ids for ids, _ in micro_batches]
    return sorted(name for ids in guilty for name in ids)


def some_of(names):
    """The first names of a list as text, and how many more there are"""
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return ", ".join(names[:MOST_NAMED]) + more


def mean_loss(brain, epoch):
    """Mean training loss of the updates of the epoch that had one, NaN where none had; the log counts the
    others"""
    updates = math.ceil(brain.step / brain.grad_accumulation_factor)
    if brain.left_out:
        logger.warning(
            "Epoch %d: %d of %d updates had no finite loss; its mean training loss leaves them out.",
            epoch, brain.left_out, updates,
        )  # fmt: skip
    return brain.avg_train_loss if brain.left_out < max(updates, 1) else math.nan


def optimizer_groups(groups, vectors_decay=True):
    """[(parameters, peak learning rate, first update that changes them)] -> (groups for an optimizer, those
    trained alone; their [(peak, first update)]).

    vectors_decay: False puts vectors (biases, norms) in groups of their own, without weight decay.
    """
    trained, peaks = [], []
    for parameters, peak, first in groups:
        parameters = [p for p in parameters if p.requires_grad]
        vectors = [] if vectors_decay else [p for p in parameters if p.ndim <= 1]
        matrices = parameters if vectors_decay else [p for p in parameters if p.ndim > 1]
        for params, more in ((matrices, {}), (vectors, {"weight_decay": 0.0})):
            if params:
                trained.append({"params": params, "lr": peak, **more})
                peaks.append((peak, first))
    return trained, peaks
