"""The optimiser's state of an imported checkpoint, in a file of its own beside the weights."""

from safetensors.torch import save_file

IMPORTED = "optimizer_state.safetensors"


def write_optimizer_state(folder, states, updates):
    """Writes the file. states: {"exp_avg" or "exp_avg_sq": {transformers' name: tensor}}; updates: made so
    far"""
    tensors = {f"{kind}.{name}": part for kind, named in states.items() for name, part in named.items()}
    save_file(tensors, folder / IMPORTED, {"step": str(updates)})
    return folder / IMPORTED
