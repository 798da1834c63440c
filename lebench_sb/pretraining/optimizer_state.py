"""The optimiser's state of a pre-training run, for the run that goes on from its `pretraining/`.

It is in the run's checkpoint or, of an imported run, beside the weights.
"""

import logging
from pathlib import Path

import torch
from safetensors import safe_open

from lebench_sb.core.errors import UsageError
from lebench_sb.encoders.folders.torch_files import check_finite, check_tensors, first_five, read_safetensors
from lebench_sb.encoders.importing.optimizer_state import IMPORTED
from lebench_sb.training.checkpoints import best_checkpoint
from lebench_sb.training.sharding import optimizer_parts

logger = logging.getLogger(__name__)
KINDS = ("exp_avg", "exp_avg_sq")  # of Adam and AdamW
LEAVE = "Leave it out: --init_optimizer False."


def name_parameters(optimizer, modules):
    """Gives each group of the optimiser the names of its parameters, which its saved state then holds"""
    names = {id(parameter): name for name, parameter in modules.named_parameters()}
    for group in optimizer.param_groups:
        group["param_names"] = [names[id(parameter)] for parameter in group["params"]]


def read_optimizer_state(init_from, model):
    """`pretraining/` of a run -> {name of a parameter: its state, for Adam exp_avg, exp_avg_sq and step}

    From the checkpoint that `pretraining/` was exported from, the run's best on valid, or from what
    `lebench import` wrote. model: with the weights of init_from. Raises UsageError if there is no
    such checkpoint, or its weights are others.
    """
    if (Path(init_from) / IMPORTED).is_file():
        return fitting(imported_state(Path(init_from) / IMPORTED), Path(init_from) / IMPORTED, model)
    run = Path(init_from).absolute().parent
    try:
        checkpoint = best_checkpoint(run)
    except FileNotFoundError as error:
        raise UsageError(
            f"init_optimizer: {init_from} has no optimiser state: no {IMPORTED}, and is not "
            f"`pretraining/` of a run with its checkpoints ({error}). {LEAVE}"
        ) from error
    check_weights(checkpoint, init_from, model)
    state = torch.load(checkpoint / "optimizer.ckpt", map_location="cpu", weights_only=True)
    states = {}
    for group in state["param_groups"]:
        if "param_names" not in group:
            raise UsageError(f"init_optimizer: {checkpoint} does not name its parameters. {LEAVE}")
        for index, name in zip(group["params"], group["param_names"], strict=True):
            if index in state["state"]:
                states[name] = state["state"][index]
    tensors = {f"{kind} of {name}": v for name, kept in states.items() for kind, v in kept.items()}
    found = {name: value for name, value in tensors.items() if torch.is_tensor(value)}
    check_finite(found, f"init_optimizer: {checkpoint}", UsageError, LEAVE)
    return states


def imported_state(path):
    """What `lebench import` wrote -> as `read_optimizer_state`. Raises UsageError for another content."""
    where = f"init_optimizer: {path}"
    tensors = check_tensors(read_safetensors(path, UsageError), where, UsageError)
    check_finite(tensors, where, UsageError, LEAVE)
    with safe_open(path, "pt") as file:
        step = (file.metadata() or {}).get("step", "")
    if not step.isdigit() or not all(key.startswith(tuple(f"{kind}." for kind in KINDS)) for key in tensors):
        raise UsageError(f"{where} is not what `lebench import` writes. {LEAVE}")
    states = {}
    for key, tensor in tensors.items():
        kind, _, name = key.partition(".")
        states.setdefault(f"model.hf.{name}", {"step": torch.tensor(float(step))})[kind] = tensor
    return states


def fitting(states, path, model):
    """The same states. Raises UsageError if one is of no weight of `model`, or of another size."""
    shapes = {name: parameter.shape for name, parameter in model.named_parameters()}

    def fits(name, state):
        shape = shapes.get(name.removeprefix("model."))
        return all(kind in state and state[kind].shape == shape for kind in KINDS)

    strange = [name.removeprefix("model.hf.") for name, state in states.items() if not fits(name, state)]
    if strange:
        raise UsageError(
            f"init_optimizer: {path} is not of these weights: {len(strange)} differ in size or are not "
            f"there: {first_five(strange)}. {LEAVE}"
        )
    return states


def check_weights(checkpoint, init_from, model):
    """Raises UsageError unless the checkpoint's weights are those that init_from gave `model`."""
    saved = torch.load(checkpoint / "model.ckpt", map_location="cpu", weights_only=True, mmap=True)
    weights = model.state_dict()
    if saved.keys() != weights.keys() or not all(torch.equal(saved[name], weights[name]) for name in weights):
        raise UsageError(
            f"init_optimizer: {checkpoint} has other weights than {init_from}: that run has gone on since. "
            f"Let it end, which exports its best checkpoint again. {LEAVE}"
        )


def load_optimizer_state(optimizer, states):
    """Gives a fresh optimiser the state of the parameters it trains, by their names"""
    state = optimizer.state_dict()
    names = {
        index: name
        for group in state["param_groups"]
        for index, name in zip(group["params"], group["param_names"], strict=True)
    }
    state["state"] = {index: states[name] for index, name in names.items() if name in states}
    optimizer.load_state_dict(optimizer_parts(optimizer, state))
    logger.info("init_optimizer: the state of %d of %d trained weights", len(state["state"]), len(names))
