"""A run that starts from the head of another: the steps of a curriculum as a chain of ordinary runs.

Letters: V symbols of an output layer.
"""

import logging
from collections import Counter
from pathlib import Path

import torch

from lebench_sb.core import guard
from lebench_sb.core.errors import UsageError
from lebench_sb.encoders.folders.torch_files import check_finite
from lebench_sb.training.checkpoints import best_checkpoint, read_settings

logger = logging.getLogger(__name__)
NONE = "none"
OTHER = "Start from another run, or from none."
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
    if not (folder / "characters.json").is_file():
        raise UsageError(f"{folder} is not a run of characters: it has no characters.json.")
    checkpoint, settings = best_checkpoint(folder), read_settings(folder)
    check_source(folder, settings, source)
    old = read_symbols(folder / "characters.json")
    rows = [(0, 0)] + [(characters.number[s], i) for i, s in enumerate(old, 1) if s in characters.number]
    saved = torch.load(checkpoint / "head.ckpt", map_location="cpu", weights_only=True)
    check_finite(saved, checkpoint / "head.ckpt", UsageError, OTHER)
    copied, fresh = copy_head(saved, head, rows)
    if not copied:
        raise UsageError(f"{folder}: no tensor of its head fits this one; is it a run of another kind?")
    mixed = torch.load(checkpoint / "encoder.ckpt", map_location="cpu", weights_only=True)
    check_finite(mixed, checkpoint / "encoder.ckpt", UsageError, OTHER)
    copied += copy_mix(mixed, encoder)
    shared = f"{len(rows) - 1} of {len(characters.symbols)} symbols and the blank"
    logger.info("Started from %s: %s copied", checkpoint, parts(copied))
    if any(name.startswith(OUTPUT) for name in copied):
        logger.info("Of the output layer, the rows of %s were copied", shared)
    logger.info("Starting fresh: %s", parts(fresh) or "nothing")
    return copied, fresh


def read_symbols(path):
    """The symbols of a run, in the order of its output layer. Raises UsageError for another content."""
    symbols = guard.read_json(path, UsageError, list)
    if not all(isinstance(symbol, str) for symbol in symbols):
        raise UsageError(f"{path}: expected a list of texts.")
    return symbols


def parts(names):
    """Names of tensors -> their parts and how many tensors each has, in words"""
    counts = Counter(name.rsplit(".", 1)[0] for name in names)
    return ", ".join(f"{part} ({count})" for part, count in counts.items())


def check_source(folder, settings, source):
    """Raises UsageError unless the head in `folder` reads the frames that `source` gives"""
    trained = (folder / "encoder").is_dir()
    encoder = str(folder / "encoder") if trained else str(settings["ssl_hub"])
    same = encoder == str(source) or Path(encoder).resolve() == Path(str(source)).resolve()
    if not same:
        what = "trained its encoder" if trained else "has another encoder"
        raise UsageError(f"{folder} {what}: its head needs --ssl_hub {encoder}, not {source}.")


def copy_head(saved, head, rows):
    """{name: tensor} -> (names copied, names fresh) of the state of `head`; rows: [(new, old) symbol].

    The output layer starts fresh as a whole where its input has another size.
    """
    state = head.state_dict()
    outputs = {name for name in state if name.startswith(OUTPUT)}
    fitting = {n for n, t in state.items() if n in saved and saved[n].shape[1:] == t.shape[1:]}
    fitting -= set() if outputs <= fitting else outputs
    copied = []
    new, old = (list(numbers) for numbers in zip(*rows, strict=True))
    for name in [name for name in state if name in fitting]:
        if name in outputs:
            state[name][new] = saved[name][old].to(state[name])
        elif saved[name].shape == state[name].shape:
            state[name].copy_(saved[name])
        else:
            continue
        copied.append(name)
    return copied, [name for name in state if name not in copied]


def copy_mix(saved, encoder):
    """Copies what an encoder learned beside its pretrained weights (the sum of layers) -> names copied"""
    pretrained = {id(parameter) for parameter in encoder.pretrained_parameters()}
    copied = []
    with torch.no_grad():
        for name, parameter in encoder.named_parameters():
            tensor = saved.get(name)
            if id(parameter) not in pretrained and tensor is not None and tensor.shape == parameter.shape:
                parameter.copy_(tensor)
                copied.append(f"encoder.{name}")
    return copied
