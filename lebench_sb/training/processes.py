"""What one of several processes does for all, and what they add up or collect."""

import torch
from speechbrain.utils.distributed import MainProcessContext, if_main_process

from lebench_sb.core.errors import exit_code


def processes():
    """How many there are"""
    return torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1


def on_main(function, *arguments):
    """function(*arguments) on the main process -> its value, on every process.

    A user's mistake there (`core.errors.exit_code`) is raised on every process, so that none waits for ever.
    The value must be one that can be pickled.
    """
    if processes() == 1:
        return function(*arguments)
    outcome = [None, None]
    if if_main_process():
        with MainProcessContext():
            try:
                outcome[0] = function(*arguments)
            except Exception as error:
                if exit_code(error) is None:
                    raise
                outcome[1] = error
    torch.distributed.broadcast_object_list(outcome, src=0)
    if outcome[1] is not None:
        raise outcome[1]
    return outcome[0]


def total(value, device):
    """Sum of a number over the processes; device: where their collectives work"""
    if processes() == 1:
        return value
    tensor = torch.tensor([value], dtype=torch.float64, device=device)
    torch.distributed.all_reduce(tensor)
    return float(tensor)


def gather(items):
    """The lists of all processes, one after the other, on every process"""
    if processes() == 1:
        return items
    shares = [None] * processes()
    torch.distributed.all_gather_object(shares, items)
    return [item for share in shares for item in share]
