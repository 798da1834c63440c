"""Fully sharded data parallelism (torch.distributed.fsdp.fully_shard): each process keeps a part of the
weights, their gradients and the optimizer state, and holds all weights only while a step runs.

A checkpoint is the one that a single process would write.
"""

import torch
from speechbrain.utils.distributed import if_main_process
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.utils._pytree import tree_map

from lebench_sb.core.errors import UsageError


def shard(module, device):
    """Shards `module` in place over all processes.

    The module is one group: gathered before its forward, scattered after its backward. Groups of single
    layers would need less memory, but processes that drop different layers (LayerDrop) would wait for each
    other for ever.
    """
    mesh = torch.distributed.init_device_mesh(
        torch.device(device).type, (torch.distributed.get_world_size(),)
    )
    fully_shard(module, mesh=mesh, reshard_after_forward=False)


def is_sharded(module):
    return isinstance(module, FSDPModule)


def whole_state(holder):
    """state_dict of a sharded module, or of its optimizer, as a single process has it: on the main process,
    in CPU memory; None instead of tensors on the others. Every process takes part."""

    def whole(value):
        if isinstance(value, DTensor):
            value = value.full_tensor()
        if not torch.is_tensor(value):
            return value
        return value.detach().cpu() if if_main_process() else None

    return tree_map(whole, holder.state_dict())


def load_whole(holder, path, end_of_epoch):
    """Load hook of a Checkpointer for what `whole_state` gave: each process takes its part of the file"""
    state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    if isinstance(holder, torch.optim.Optimizer):
        state = optimizer_parts(holder, state)
    else:
        differing = sorted(set(state) ^ set(holder.state_dict()))
        if differing:
            names = ", ".join(differing[:5])
            raise UsageError(f"{path} is of another model, first {names}: give another --output_folder.")
        state = {name: part(state[name], value) for name, value in holder.state_dict().items()}
    holder.load_state_dict(state)


def optimizer_parts(optimizer, state):
    """The whole state_dict of an optimizer -> the one of this process, whose weights may be sharded"""
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    parts = {
        number: {name: part(value, weights[number]) for name, value in kept.items()}
        for number, kept in state["state"].items()
    }
    return {**state, "state": parts}


def part(value, weight):
    """A whole tensor -> this process's part, laid out as `weight`; one of another shape stays whole"""
    if not isinstance(weight, DTensor) or value.shape != weight.shape:
        return value
    value = value.to(weight.device_mesh.device_type)
    return distribute_tensor(value, weight.device_mesh, weight.placements, src_data_rank=None)


def saves_whole(checkpointer):
    """Makes `checkpointer` (a SafeCheckpointer) save and load sharded modules and their optimizer whole"""
    for name, holder in checkpointer.recoverables.items():
        if is_sharded(holder) or isinstance(holder, torch.optim.Optimizer):
            checkpointer.gather_hooks[name] = whole_state
            checkpointer.custom_load_hooks[name] = load_whole


def own_part(gradient):
    """The part of a gradient that this process holds: all of it unless it is sharded"""
    return gradient.to_local() if isinstance(gradient, DTensor) else gradient


def clip(gradients, max_norm, sharded):
    """Scales `gradients` in place so that their norm is at most `max_norm` -> the norm before, a scalar.

    As torch.nn.utils.clip_grad_norm_; `sharded`: each process holds a part, and the norm is that of all.
    """
    norm = torch.nn.utils.get_total_norm(gradients, foreach=True)
    if sharded:
        square = norm.square()
        torch.distributed.all_reduce(square)
        norm = square.sqrt()
    torch._foreach_mul_(gradients, (max_norm / (norm + 1e-6)).clamp(max=1.0))
    return norm
