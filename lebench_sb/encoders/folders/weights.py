"""The weights of a Hugging Face folder: the files they are in, read and looked at; or what is there instead.

Only names inside the folder are read, in the order in which transformers would look for them.
"""

import logging
import os
import re

from lebench_sb.core.errors import DataError
from lebench_sb.encoders.folders.settings import read_object, shown
from lebench_sb.encoders.folders.torch_files import check_tensors, first_five, read_safetensors, read_torch

logger = logging.getLogger(__name__)

WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
INDEX = ".index.json"
IMPORT_HINT = "`lebench import` makes an encoder of a SpeechBrain or fairseq checkpoint (.ckpt, .pt)."
OTHER_FRAMEWORKS = {
    "tf_model.h5": "TensorFlow", "tf_model.h5.index.json": "TensorFlow", "model.ckpt.index": "TensorFlow",
    "flax_model.msgpack": "Flax", "flax_model.msgpack.index.json": "Flax",
}  # fmt: skip
ADAPTERS = ("adapter_config.json", "adapter_model.safetensors", "adapter_model.bin")
SHARD = re.compile(r"(model|pytorch_model)-\d+-of-\d+\.(safetensors|bin)")


def read_weights(folder):
    """{name: tensor} of all weights of a folder, as they are stored.

    Raises FileNotFoundError (none, or a missing part: what is there and what to do) and DataError (a file
    that is no file of tensors, or holds other than dense floating-point ones).
    """
    weights = {}
    for path in weight_files(folder):
        read = read_safetensors if path.suffix == ".safetensors" else read_torch
        found = check_tensors(read(path), path)
        twice = sorted(found.keys() & weights.keys())
        if twice:
            raise DataError(f"{path}: weights that another part of the model holds too: {first_five(twice)}.")
        weights |= found
    return weights


def weight_files(folder):
    """The files that hold the weights of a folder"""
    there = [name for name in WEIGHTS if os.path.lexists(folder / name)]
    if not there:
        raise FileNotFoundError(f"{folder} holds no weights: {instead(folder)}")
    if len(there) > 1:
        logger.warning(
            "%s: the weights are those of %s; not read: %s", folder, there[0], ", ".join(there[1:])
        )
    chosen = folder / there[0]
    if not chosen.exists():
        raise FileNotFoundError(f"{chosen} is a link to {os.readlink(chosen)}, where nothing is.")
    if not chosen.name.endswith(INDEX):
        return [chosen]
    names = shards(chosen)
    missing = [name for name in names if not (folder / name).exists()]
    if missing:
        raise FileNotFoundError(
            f"{folder} lacks {len(missing)} of the {len(names)} files that {chosen.name} names: "
            f"{first_five(missing)}. Fetch the model again."
        )
    return [folder / name for name in names]


def shards(path):
    """The names of the files that an index lists. Raises DataError for one that is no plain name."""
    places = read_object(path).get("weight_map")
    if not isinstance(places, dict) or not places:
        raise DataError(f"{path}: weight_map: {shown(places)}, expected the file of each weight.")
    suffix = path.name.removesuffix(INDEX).rpartition(".")[2]
    for weight, name in places.items():
        if not isinstance(name, str) or not re.fullmatch(rf"[\w-][\w.-]*\.{suffix}", name):
            raise DataError(
                f"{path}: weight_map: {weight[:100]}: {shown(name)}, expected the name of a .{suffix} file "
                "in this folder."
            )
    return sorted(set(places.values()))


def instead(folder):
    """What a folder without weights holds, and what to do about it"""
    names = sorted(path.name for path in folder.iterdir())
    parts = [name for name in names if SHARD.fullmatch(name)]
    if parts:
        return f"it has {first_five(parts)}, but not their index ({WEIGHTS[1]}). Fetch the model again."
    checkpoints = trainer_checkpoints(folder)
    if checkpoints:
        return (
            f"it is the folder of a Trainer: give one of its checkpoints, {checkpoints[-1]} is the last of "
            f"{len(checkpoints)}."
        )
    for name in ("encoder", "pretraining"):
        if (folder / name / "config.json").is_file():
            return f"give {folder / name}."
    other = next((name for name in names if name in OTHER_FRAMEWORKS), None)
    if other:
        kind = OTHER_FRAMEWORKS[other]
        option = "from_tf" if kind == "TensorFlow" else "from_flax"
        return (
            f"{other} is of {kind}. Convert it with transformers 4: `AutoModel.from_pretrained("
            f"{str(folder)!r}, {option}=True).save_pretrained(...)`."
        )
    if any(name in ADAPTERS for name in names):
        return "it is an adapter alone (PEFT). Merge it into its model (`merge_and_unload`) and save that."
    files = [name for name in names if name.endswith((".safetensors", ".bin", ".gguf", ".onnx", ".h5"))]
    if files:
        return f"it has {first_five(files)}, expected {WEIGHTS[0]} or {WEIGHTS[2]}."
    return f"no {', '.join(WEIGHTS)}. {IMPORT_HINT}"


def trainer_checkpoints(folder):
    """Paths of `checkpoint-N/` in a folder, by N"""
    folders = [path for path in folder.glob("checkpoint-*") if re.fullmatch(r"checkpoint-\d+", path.name)]
    folders = [path for path in folders if (path / "config.json").is_file()]
    return sorted(folders, key=lambda path: int(path.name.partition("-")[2]))
