"""The optimiser's state of a pre-training run, for the run that goes on from its `pretraining/`.

It is in the run's checkpoint or, of an imported run or one of transformers' Trainer, beside the weights.
"""

import logging
from pathlib import Path

import torch
from safetensors import safe_open

from lebench_sb.core.errors import UsageError
from lebench_sb.encoders.folders.torch_files import check_finite, check_tensors, first_five, read_safetensors
from lebench_sb.encoders.importing.moments import IMPORTED
from lebench_sb.pretraining.trainer_moments import KINDS, LEAVE, TRAINER, trainer_moments
from lebench_sb.training.checkpoints import best_checkpoint
from lebench_sb.training.sharding import optimizer_parts

logger = logging.getLogger(__name__)


def name_parameters(optimizer, modules):
    """Gives each group of the optimiser the names of its parameters, which its saved state then holds"""
    names = {id(parameter): name for name, parameter in modules.named_parameters()}
    for group in optimizer.param_groups:
        group["param_names"] = [names[id(parameter)] for parameter in group["params"]]


def read_moments(init_from, model):
    """`pretraining/` of a run -> {name of a parameter: its state, for Adam exp_avg, exp_avg_sq and step}

    From the checkpoint that `pretraining/` was exported from, the run's best on valid; from what `lebench
    import` wrote; or from the `optimizer.pt` of a Trainer's `checkpoint-N/`. model: with the weights of
    init_from. Raises UsageError if there is no such checkpoint, or its weights are others.
    """
    if (Path(init_from) / IMPORTED).is_file():
        return fitting(imported_moments(Path(init_from) / IMPORTED), Path(init_from) / IMPORTED, model)
    if (Path(init_from) / TRAINER).is_file():
        return of_the_trainer(init_from, model)
    run = Path(init_from).absolute().parent
    try:
        checkpoint = best_checkpoint(run)
    except FileNotFoundError as error:
        raise UsageError(
            f"init_optimizer: {init_from} has no optimiser state: no {IMPORTED}, no {TRAINER}, and is "
            f"not `pretraining/` of a run with its checkpoints ({error}). {LEAVE}"
        ) from error
    check_weights(checkpoint, init_from, model)
    state = torch.load(checkpoint / "optimizer.ckpt", map_location="cpu", weights_only=True)
    moments = {}
    for group in state["param_groups"]:
        if "param_names" not in group:
            raise UsageError(f"init_optimizer: {checkpoint} does not name its parameters. {LEAVE}")
        for index, name in zip(group["params"], group["param_names"], strict=True):
            if index in state["state"]:
                moments[name] = state["state"][index]
    tensors = {f"{kind} of {name}": v for name, kept in moments.items() for kind, v in kept.items()}
    found = {name: value for name, value in tensors.items() if torch.is_tensor(value)}
    check_finite(found, f"init_optimizer: {checkpoint}", UsageError, LEAVE)
    return moments


def imported_moments(path):
    """What `write_moments` wrote -> as `read_moments`. Raises UsageError for another content."""
    where = f"init_optimizer: {path}"
    found = check_tensors(read_safetensors(path, UsageError), where, UsageError)
    check_finite(found, where, UsageError, LEAVE)
    with safe_open(path, "pt") as file:
        step = (file.metadata() or {}).get("step", "")
    if not step.isdigit() or not all(key.startswith(tuple(f"{kind}." for kind in KINDS)) for key in found):
        raise UsageError(f"{where} is not what `lebench import` writes. {LEAVE}")
    moments = {}
    for key, tensor in found.items():
        kind, _, name = key.partition(".")
        moments.setdefault(f"model.hf.{name}", {"step": torch.tensor(float(step))})[kind] = tensor
    return moments


def fitting(moments, path, model):
    """The same moments. Raises UsageError if one is of no weight of `model`, or of another size."""
    shapes = {name: parameter.shape for name, parameter in model.named_parameters()}

    def fits(name, state):
        shape = shapes.get(name.removeprefix("model."))
        return all(kind in state and state[kind].shape == shape for kind in KINDS)

    strange = [name.removeprefix("model.hf.") for name, state in moments.items() if not fits(name, state)]
    if strange:
        raise UsageError(
            f"init_optimizer: {path} is not of these weights: {len(strange)} differ in size or are not "
            f"there: {first_five(strange)}. {LEAVE}"
        )
    return moments


def of_the_trainer(folder, model):
    """The states of `trainer_moments` of those weights that `model` has too"""
    shapes = {name: parameter.shape for name, parameter in model.hf.named_parameters()}
    moments = {}
    for name, state in trainer_moments(folder).items():
        own = name if name in shapes else f"{model.hf.base_model_prefix}.{name}"
        if shapes.get(own) == state["exp_avg"].shape:
            moments[f"model.hf.{own}"] = state
    return moments


def check_weights(checkpoint, init_from, model):
    """Raises UsageError unless the checkpoint's weights are those that init_from gave `model`."""
    saved = torch.load(checkpoint / "model.ckpt", map_location="cpu", weights_only=True, mmap=True)
    own = model.state_dict()
    if saved.keys() != own.keys() or not all(torch.equal(saved[name], own[name]) for name in own):
        raise UsageError(
            f"init_optimizer: {checkpoint} has other weights than {init_from}: that run has gone on since. "
            f"Let it end, which exports its best checkpoint again. {LEAVE}"
        )


def put_moments(optimizer, moments):
    """Gives a fresh optimiser the state of the parameters it trains, by their names"""
    state = optimizer.state_dict()
    names = {
        index: name
        for group in state["param_groups"]
        for index, name in zip(group["params"], group["param_names"], strict=True)
    }
    state["state"] = {index: moments[name] for index, name in names.items() if name in moments}
    optimizer.load_state_dict(optimizer_parts(optimizer, state))
    logger.info("init_optimizer: the state of %d of %d trained weights", len(state["state"]), len(names))
