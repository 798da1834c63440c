"""Checkpoints of SpeechBrain or fairseq -> Hugging Face folders, checked tensor by tensor.

source -> torch.load, tensors only -> weights by transformers' names -> model -> encoder/, pretraining/
"""

import hashlib
import json
import logging
import os.path
from pathlib import Path

import torch
import transformers

from lebench_sb.core import guard
from lebench_sb.core.errors import DataError
from lebench_sb.core.files import new_folder
from lebench_sb.encoders.folders.settings import (
    check_preprocessor,
    config_of,
    find_preprocessor,
    make_config,
    read_object,
)
from lebench_sb.encoders.folders.torch_files import check_finite, first_five, read_torch
from lebench_sb.encoders.importing import fairseq, speechbrain
from lebench_sb.encoders.importing.optimizer_state import write_optimizer_state
from lebench_sb.encoders.model_folders import (
    base_class,
    check_size,
    fetch,
    is_hub_id,
    quiet_transformers,
    save_encoder,
)

logger = logging.getLogger(__name__)


def import_checkpoint(source, config, output):
    """Write `output`/encoder, and `output`/pretraining if the checkpoint still has its quantiser. Returns
    the folders.

    source: a file, a folder with `wav2vec2.ckpt` (SpeechBrain) or `checkpoint_best.pt` (fairseq), or a Hub
    id. config: config.json of the architecture, or a folder or Hub id that holds it; None: fairseq's own
    settings, or for SpeechBrain the file beside the checkpoint. fairseq's file says whether its input is
    normalised; SpeechBrain's is if preprocessor_config.json beside the checkpoint or the config says so and,
    without that file, by default: its pre-training normalises whatever the architecture. The
    optimizer state of a fairseq checkpoint goes to pretraining/optimizer_state.safetensors, for
    `--init_optimizer True`.
    Raises FileNotFoundError, FileExistsError (output exists) and DataError (weights and config do not fit,
    or weights are not finite; all are counted and five named).
    """
    output = Path(output)
    if os.path.lexists(output):
        raise FileExistsError(f"{output} exists: give a new folder, nothing is overwritten.")
    path = _find_checkpoint(source)
    model, do_normalize, states, updates = _read_checkpoint(path, config)
    origin = {"checkpoint": path.name, "sha256": _sha256(path), "source": str(source)}
    if updates:
        origin["optimizer_updates"] = updates
    extra = {"import.json": json.dumps(origin, indent=2) + "\n"}
    parts = {"encoder": model.base_model}
    if model is not model.base_model:
        parts["pretraining"] = model
    with new_folder(output, replace=False) as new:
        for name, part in parts.items():
            save_encoder(part, new / name, do_normalize, extra)
            _compare(new / name, part)
        if states:
            file = write_optimizer_state(new / "pretraining", states, updates)
            logger.info("pretraining/%s: the optimiser's state after %d updates", file.name, updates)
    return [output / name for name in parts]


def _read_checkpoint(path, config):
    """-> the filled model, whether it takes normalised waveforms, the states of the optimizer, its updates"""
    content, states, updates = _load(path), None, 0
    if fairseq.wrote(content):
        checkpoint = fairseq.read_checkpoint(content, path)
        weights, do_normalize = checkpoint.weights, checkpoint.do_normalize
        states, updates = checkpoint.states, checkpoint.updates
        where = _find(config, "config.json") if config else path
        if config:
            model_config = _read_config(where)
        else:
            model_config = config_of(transformers.Wav2Vec2Config, checkpoint.config, path)
    else:
        weights = speechbrain.read_weights(content, path)
        where = _find(config or path.parent, "config.json")
        model_config = _read_config(where)
        do_normalize = _do_normalize(model_config, path.parent, where.parent)
    model = _fill(model_config, weights, f"{path} and {where}" if where != path else str(path))
    return model, do_normalize, states, updates


def _find_checkpoint(source):
    """The path of a checkpoint: itself, or by either toolkit's name in a folder or of a Hub id"""
    names = (speechbrain.FILE, fairseq.FILE)
    folder = Path(source)
    if folder.is_dir():
        there = [name for name in names if (folder / name).is_file()]
        if there:
            return folder / there[0]
        others = sorted(file.name for file in folder.iterdir() if file.suffix in (".ckpt", ".pt"))
        hint = f" It has {', '.join(others)}: give one of them." if others else ""
        raise FileNotFoundError(f"{folder} holds no {' or '.join(names)}.{hint}")
    if not folder.is_file() and is_hub_id(str(source)):
        for name in ("preprocessor_config.json", "config.json"):
            fetch(str(source), name, required=False)
        for name in names[:-1]:
            fetched = fetch(str(source), name, required=False)
            if fetched is not None:
                return fetched
        return fetch(str(source), names[-1])
    return _find(source, names[0])


def _find(source, name):
    """The path of a file: itself, in a folder, or in a Hub id's cache"""
    path = Path(source)
    if path.exists() and not path.is_dir():
        return guard.regular(path)
    if (path / name).is_file():
        return path / name
    if path.is_dir():
        raise FileNotFoundError(
            f"{path} holds no {name}. Give --config: the config.json, or a folder or Hub id of the same "
            "architecture."
        )
    if is_hub_id(str(source)):
        return fetch(str(source), name)
    raise FileNotFoundError(f"{source}: no such file or folder.")


class _Unread:
    """Takes the place of any class that a checkpoint names; keeps what it is given, runs nothing"""

    def __new__(cls, *arguments):
        made = super().__new__(cls)
        made.arguments = arguments
        return made

    def __init__(self, *arguments):
        pass


def _load(path):
    """The mapping in a file of torch.save. No code of the file runs: other objects than tensors and plain
    values come as empty shells."""
    try:
        content = read_torch(path, shell=_Unread)
    except DataError as error:
        raise DataError(
            f"{error} If torch before 1.6 saved it, load and save it with a newer torch."
        ) from None
    if not isinstance(content, dict):
        raise DataError(f"{path} holds a {type(content).__name__}, not a checkpoint.")
    return content


def _read_config(path):
    try:
        return make_config(read_object(path), path)
    except DataError as error:
        raise DataError(f"{error} Give --config: that of the architecture.") from None


def _fill(config, weights, where):
    """A pre-training model, or the base model, with exactly these weights"""
    pretraining = any(name.startswith("quantizer.") for name in weights)
    auto_class = transformers.AutoModelForPreTraining if pretraining else transformers.AutoModel
    check_size(base_class(config), config, DataError, where)
    with torch.random.fork_rng(devices=[]):
        try:
            model = auto_class.from_config(config, dtype=torch.float32, trust_remote_code=False)
        except ValueError as error:  # a model type without a class for pre-training
            raise DataError(f"{where}: {' '.join(str(error).split())[:300]}") from None
    expected = model.state_dict()
    problems = {
        "missing": expected.keys() - weights.keys(),
        "unexpected": weights.keys() - expected.keys(),
        "of another size": [
            name for name in expected.keys() & weights.keys() if expected[name].shape != weights[name].shape
        ],
    }
    faults = [f"{len(names)} {kind}: {first_five(names)}" for kind, names in problems.items() if names]
    if faults:
        raise DataError(f"{where} do not fit. Weights {'; '.join(faults)}.")
    model.load_state_dict(weights)
    check_finite(model.state_dict(), where)
    return model


def _do_normalize(config, *folders):
    """Of the first folder that says it. Raises DataError for the settings of another model's input."""
    for folder in folders:
        values, where = find_preprocessor(folder)
        if values is not None:
            return check_preprocessor(values, config, where).get("do_normalize", True)
    logger.warning("no preprocessor_config.json: waveforms are normalised, as in SpeechBrain's pre-training")
    return True


def _compare(folder, model):
    """Load what was written as its users will. Raises ValueError unless it is the model, tensor by tensor."""
    with quiet_transformers():
        written, report = type(model).from_pretrained(
            folder, output_loading_info=True, trust_remote_code=False
        )
    wrong = set(report["missing_keys"]) | set(report["unexpected_keys"])
    loaded = written.state_dict()
    wrong |= {name for name, weight in model.state_dict().items() if not torch.equal(weight, loaded[name])}
    if wrong:
        raise ValueError(f"{folder}: {len(wrong)} weights do not come back as written: {first_five(wrong)}.")


def _sha256(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
