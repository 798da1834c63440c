"""A SpeechBrain wav2vec 2.0 checkpoint -> Hugging Face folders, for `lebench import`.

Two classes of speechbrain.integrations.huggingface.wav2vec2 write such checkpoints: `Wav2Vec2Pretrain`
(`model.wav2vec2.*`, `model.quantizer.*`, `model.project_hid.*`, `model.project_q.*`: three of the ten
LeBenchmark models are published so) and `Wav2Vec2`, its fine-tuned encoder (`model.feature_extractor.*`,
`model.encoder.*` ...).
"""

import hashlib
import json
import logging
import shutil
from pathlib import Path

import torch
import transformers

from lebench_sb.encoders import (
    UNREADABLE,
    fetch,
    first_five,
    is_hub_id,
    quiet_transformers,
    read_json,
    save_encoder,
)

logger = logging.getLogger(__name__)

CHECKPOINT = "wav2vec2.ckpt"
PREFIX = "model."
# weight norm before and since torch 2.1
WEIGHT_NORM = {
    "weight_g": "parametrizations.weight.original0",
    "weight_v": "parametrizations.weight.original1",
}


def import_speechbrain(source, config, output):
    """Write `output`/encoder, and `output`/pretraining if the checkpoint still has its quantiser. Returns
    the folders.

    source: a .ckpt file, a folder with `wav2vec2.ckpt`, or a Hub id.
    config: config.json of the architecture, or a folder or Hub id that holds it; None: beside the checkpoint.
    The input is normalised if preprocessor_config.json beside the checkpoint or the config says so and,
    without that file, by default: SpeechBrain's pre-training normalises whatever the architecture.
    Raises FileNotFoundError, FileExistsError (output exists) and ValueError (weights and config do not fit;
    all are counted and five named).
    """
    output = Path(output)
    if output.exists():
        raise FileExistsError(f"{output} exists: give a new folder, nothing is overwritten.")
    checkpoint = _find(source, CHECKPOINT)
    config_path = _find(config or checkpoint.parent, "config.json")
    config = _read_config(config_path)
    weights = _read_weights(checkpoint)
    model = _fill(config, weights, f"{checkpoint} and {config_path}")
    do_normalize = _do_normalize(checkpoint.parent, config_path.parent)
    origin = {"checkpoint": checkpoint.name, "sha256": _sha256(checkpoint), "source": str(source)}
    extra = {"import.json": json.dumps(origin, indent=2) + "\n"}

    parts = {"encoder": model.base_model}
    if model is not model.base_model:
        parts["pretraining"] = model
    new = output.with_name(output.name + ".tmp")
    shutil.rmtree(new, ignore_errors=True)
    for name, part in parts.items():
        save_encoder(part, new / name, do_normalize, extra)
        _compare(new / name, part)
    new.rename(output)
    return [output / name for name in parts]


def _find(source, name):
    """The path of a file: itself, in a folder, or in a Hub id's cache"""
    path = Path(source)
    if path.is_file():
        return path
    if (path / name).is_file():
        return path / name
    if path.is_dir():
        others = sorted(file.name for file in path.glob("*" + Path(name).suffix))
        hint = f" It has {', '.join(others)}: give one of them." if others else ""
        if name == "config.json":
            hint = " Give --config: the config.json, or a folder or Hub id of the same architecture."
        raise FileNotFoundError(f"{path} holds no {name}.{hint}")
    if is_hub_id(str(source)):
        fetch(str(source), "preprocessor_config.json", required=False)
        if name == CHECKPOINT:
            fetch(str(source), "config.json", required=False)
        return fetch(str(source), name)
    raise FileNotFoundError(f"{source}: no such file or folder.")


def _read_config(path):
    values = read_json(path)
    try:
        return transformers.AutoConfig.for_model(**values)
    except (TypeError, ValueError, KeyError):
        raise ValueError(
            f"{path} is not the config of a Hugging Face model (model_type: {values.get('model_type')}). "
            "Give --config: that of the architecture."
        ) from None


def _read_weights(path):
    """The tensors of a checkpoint, by the names transformers gives them"""
    try:
        weights = torch.load(path, map_location="cpu", weights_only=True)
    except UNREADABLE:
        raise ValueError(f"{path} is no file of tensors, or is damaged.") from None
    others = [name for name in weights if not name.startswith(PREFIX)]
    if others:
        raise ValueError(
            f"{path} is not a checkpoint of SpeechBrain's Wav2Vec2Pretrain or Wav2Vec2, whose weights all "
            f"begin with "
            f"{PREFIX!r}: {len(others)} others: {first_five(others)}."
        )
    renamed = {}
    for name, weight in weights.items():
        stem, _, last = name.removeprefix(PREFIX).rpartition(".")
        renamed[f"{stem}.{WEIGHT_NORM.get(last, last)}"[0 if stem else 1 :]] = weight.float()
    return renamed


def _fill(config, weights, where):
    """A pre-training model, or the base model, with exactly these weights"""
    pretraining = any(name.startswith("quantizer.") for name in weights)
    auto_class = transformers.AutoModelForPreTraining if pretraining else transformers.AutoModel
    with torch.random.fork_rng(devices=[]):
        model = auto_class.from_config(config, dtype=torch.float32)
    expected = model.state_dict()
    problems = {
        "missing": expected.keys() - weights.keys(),
        "unexpected": weights.keys() - expected.keys(),
        "of another size": [
            name for name in expected.keys() & weights.keys() if expected[name].shape != weights[name].shape
        ],
    }
    found = [f"{len(names)} {kind}: {first_five(names)}" for kind, names in problems.items() if names]
    if found:
        raise ValueError(f"{where} do not fit. Weights {'; '.join(found)}.")
    model.load_state_dict(weights)
    return model


def _do_normalize(*folders):
    for folder in folders:
        values = read_json(folder / "preprocessor_config.json")
        if values is not None:
            return values.get("do_normalize", True)
    logger.warning("no preprocessor_config.json: waveforms are normalised, as in SpeechBrain's pre-training")
    return True


def _compare(folder, model):
    """Load what was written as its users will. Raises ValueError unless it is the model, tensor by tensor."""
    with quiet_transformers():
        written, report = type(model).from_pretrained(folder, output_loading_info=True)
    wrong = set(report["missing_keys"]) | set(report["unexpected_keys"])
    loaded = written.state_dict()
    wrong |= {name for name, weight in model.state_dict().items() if not torch.equal(weight, loaded[name])}
    if wrong:
        raise ValueError(f"{folder}: {len(wrong)} weights do not come back as written: {first_five(wrong)}.")


def _sha256(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
