"""A run that starts from the head of another: the steps of a curriculum as a chain of ordinary runs.

Letters: V symbols of an output layer.
"""

import json
import logging
from pathlib import Path

import torch

from lebench_sb.checkpoints import best_checkpoint, read_settings
from lebench_sb.manifest import UsageError

logger = logging.getLogger(__name__)
NONE = "none"
OUTPUT = "output"  # how the tensors begin that have a row for each symbol


def start_from_run(folder, encoder, head, characters, source):
    """Copies into `head`, and into the learned sum of layers of `encoder`, what the run in `folder` learned.

    Tensors of the same name and shape are copied whole; of the output layer, the rows of the symbols that
    both runs have (and of the CTC blank). What is copied and what starts fresh is logged and returned as two
    lists of names. The encoder's own weights come through `source` (ssl_hub) alone: UsageError where the run
    heard another encoder, or trained it and `source` is not what it exported, or where nothing fits.
    """
    if str(folder) == NONE:
        return [], []
    folder = Path(folder)
    checkpoint, settings = best_checkpoint(folder), read_settings(folder)
    check_source(folder, settings, source)
    old = json.loads((folder / "characters.json").read_text(encoding="utf-8"))
    rows = [(0, 0)] + [(characters.number[s], i) for i, s in enumerate(old, 1) if s in characters.number]
    saved = torch.load(checkpoint / "head.ckpt", map_location="cpu", weights_only=True)
    copied, fresh = copy_head(saved, head, rows)
    if not copied:
        raise UsageError(f"{folder}: no tensor of its head fits this one; is it a run of another kind?")
    mixed = torch.load(checkpoint / "encoder.ckpt", map_location="cpu", weights_only=True)
    copied += copy_mix(mixed, encoder)
    shared = f"{len(rows) - 1} of {len(characters.symbols)} symbols and the blank"
    logger.info("Started from %s: %s copied; of %s the rows of %s", checkpoint, copied, OUTPUT, shared)
    logger.info("Starting fresh: %s", fresh or "nothing")
    return copied, fresh


def check_source(folder, settings, source):
    """Raises UsageError unless the head in `folder` reads the frames that `source` gives"""
    trained = (folder / "encoder").is_dir()
    heard = str(folder / "encoder") if trained else str(settings["ssl_hub"])
    same = heard == str(source) or Path(heard).resolve() == Path(str(source)).resolve()
    if not same:
        what = "trained its encoder" if trained else "has another encoder"
        raise UsageError(f"{folder} {what}: its head needs --ssl_hub {heard}, not {source}.")


def copy_head(saved, head, rows):
    """{name: tensor} -> (names copied, names fresh) of the state of `head`; rows: [(new, old) symbol]"""
    copied, fresh = [], []
    with torch.no_grad():
        for name, tensor in head.state_dict().items():
            found = saved.get(name)
            if found is None or found.shape[1:] != tensor.shape[1:]:
                fresh.append(name)
            elif name.startswith(OUTPUT):
                new, old = (list(numbers) for numbers in zip(*rows, strict=True))
                tensor[new] = found[old].to(tensor)
                copied.append(name)
            elif found.shape == tensor.shape:
                tensor.copy_(found)
                copied.append(name)
            else:
                fresh.append(name)
    return copied, fresh


def copy_mix(saved, encoder):
    """Copies what an encoder learned beside its pretrained weights (the sum of layers) -> names copied"""
    pretrained = {id(parameter) for parameter in encoder.pretrained_parameters()}
    copied = []
    with torch.no_grad():
        for name, parameter in encoder.named_parameters():
            found = saved.get(name)
            if id(parameter) not in pretrained and found is not None and found.shape == parameter.shape:
                parameter.copy_(found)
                copied.append(f"encoder.{name}")
    return copied
