"""Modules as several processes train them, and as one of them scores: with and without their wrappers."""

from contextlib import contextmanager

from torch.nn.parallel import DistributedDataParallel

from lebench_sb.training import sharding


def wrap_on_cpus(modules, find_unused_parameters):
    """Wraps what is trained for CPUs, where each process keeps the statistics of batch normalisation its own:
    only GPUs can share them"""
    for name, module in modules.items():
        if any(p.requires_grad for p in module.parameters()):
            modules[name] = DistributedDataParallel(module, find_unused_parameters=find_unused_parameters)


@contextmanager
def unwrapped(modules):
    """Modules without DDP, and with all their weights: processes may score different numbers of batches,
    waiting for nobody."""
    wrapped = dict(modules.items())
    sharded = [module for module in wrapped.values() if sharding.is_sharded(module)]
    for module in sharded:
        module.unshard()
    for name, module in wrapped.items():
        modules[name] = without_ddp(module)
    try:
        yield
    finally:
        for name, module in wrapped.items():
            modules[name] = module
        for module in sharded:
            module.reshard()


def without_ddp(module):
    return module.module if isinstance(module, DistributedDataParallel) else module


def pretrained_parameters(encoder):
    """The parameters of an encoder that came with its checkpoint: all but the learned sum over layers"""
    return without_ddp(encoder).pretrained_parameters()
