"""The optimiser's state that transformers' Trainer leaves in a `checkpoint-N/`.

`optimizer.pt` numbers the parameters by their place in the optimiser's groups and names none. The Trainer
puts those with weight decay first, then those without (`Trainer.create_optimizer`); which these are has
changed with the versions. So each order that a Trainer may have used is tried, and the one taken whose groups
have as many parameters as the file, of the same shapes.
"""

from pathlib import Path

import torch
import transformers
from torch import nn

from lebench_sb.core.errors import UsageError
from lebench_sb.encoders.folders.torch_files import check_finite, check_tensors, read_torch
from lebench_sb.encoders.model_folders import read_config

TRAINER = "optimizer.pt"
KINDS = ("exp_avg", "exp_avg_sq")  # of Adam and AdamW
LEAVE = "Leave it out: --init_optimizer False."


def trainer_moments(folder):
    """`checkpoint-N/` -> {name of a parameter of the model that was trained: its Adam state, with `step`}

    Raises UsageError if the file cannot be read, holds the state of another optimiser, or fits no order of
    the parameters of the architecture that config.json names.
    """
    path = Path(folder) / TRAINER
    groups, state = read_state(path)
    check_moments(state, path)
    model = architecture(folder)
    for names in orders(model):
        if fits(names, groups, state, model):
            return {name: state[k] for k, name in pairs(groups, names) if k in state}
    raise UsageError(
        f"init_optimizer: {path} has groups of {', '.join(str(len(group)) for group in groups)} parameters, "
        f"which are in no order of a Trainer those of {type(model).__name__}. {LEAVE}"
    )


def read_state(path):
    """-> [indices of the parameters] of each group, {index: state}. Raises UsageError for another content."""
    try:
        saved = read_torch(path, UsageError)
    except UsageError as error:
        raise UsageError(
            f"init_optimizer: {error} It is no optimiser's state saved by torch. {LEAVE}"
        ) from None
    groups = saved.get("param_groups") if isinstance(saved, dict) else None
    state = saved.get("state") if isinstance(saved, dict) else None
    listed = isinstance(groups, list) and all(
        isinstance(group, dict) and isinstance(group.get("params"), list) for group in groups
    )
    if not listed or not isinstance(state, dict) or not all(isinstance(v, dict) for v in state.values()):
        raise UsageError(f"init_optimizer: {path} is no optimiser's state saved by torch. {LEAVE}")
    return [group["params"] for group in groups], state


def check_moments(state, path):
    """Raises UsageError unless each state has the moments of Adam, as finite numbers"""
    strange = [index for index, entry in state.items() if not {*KINDS, "step"} <= entry.keys()]
    if strange or not state:
        kinds = ", ".join(sorted(map(str, state[strange[0]]))) if strange else "nothing"
        raise UsageError(f"init_optimizer: {path} holds {kinds}, not the moments of Adam or AdamW. {LEAVE}")
    named = {f"{kind} of parameter {k}": entry[kind] for k, entry in state.items() for kind in KINDS}
    where = f"init_optimizer: {path}"
    check_finite(check_tensors(named, where, UsageError), where, UsageError, LEAVE)


def architecture(folder):
    """The model of config.json, without memory for its weights"""
    config = read_config(Path(folder))
    name = (config.architectures or ["none"])[0]
    kind = getattr(transformers, name, None)
    if not (isinstance(kind, type) and issubclass(kind, transformers.PreTrainedModel)):
        raise UsageError(f"init_optimizer: {folder}: transformers has no architecture {name}. {LEAVE}")
    with torch.device("meta"):
        return kind(config)


def orders(model):
    """Names in groups, in each order in which a Trainer may have given the parameters to its optimiser"""
    parameters = [name for name, _ in model.named_parameters()]
    modules = model.named_modules()
    norms = {f"{name}.weight" for name, module in modules if isinstance(module, nn.LayerNorm)}
    without_decay = norms | {name for name in parameters if "bias" in name}  # of older versions
    by_name = without_decay | {name for name in parameters if "norm." in name}  # and GroupNorm, of newer ones
    extractors = ("feature_extractor.", f"{model.base_model_prefix}.feature_extractor.")
    for trained in (parameters, [name for name in parameters if not name.startswith(extractors)]):
        for spared in (by_name, without_decay):
            yield [[n for n in trained if n not in spared], [n for n in trained if n in spared]]
        yield [trained]  # an optimiser of one's own


def pairs(groups, names):
    """(index, name) of each parameter"""
    for indices, group in zip(groups, names, strict=True):
        yield from zip(indices, group, strict=True)


def fits(names, groups, state, model):
    """Whether the groups have the sizes of `names` and the moments the shapes of the parameters"""
    if [len(group) for group in groups] != [len(group) for group in names]:
        return False
    shapes = {name: parameter.shape for name, parameter in model.named_parameters()}
    return all(
        state[index][kind].shape == shapes[name]
        for index, name in pairs(groups, names) if index in state for kind in KINDS
    )  # fmt: skip
