"""Hugging Face folders of encoders: found here or on the Hub, loaded strictly, written whole."""

import copy
import json
import logging
import os
import pickle
import re
import shutil
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import huggingface_hub
import torch
import transformers
from huggingface_hub import errors as hub_errors
from safetensors import SafetensorError

from lebench_sb.waveforms import SAMPLE_RATE

logger = logging.getLogger(__name__)

MEL_FILTERBANK = "mel_filterbank"  # what stands for the encoder that needs no folder
RANDOM_SEED = 0

# Heads that task models (CTC, classification, x-vector, pre-training) put on the encoder. They are left out.
HEADS = (
    "lm_head",
    "classifier",
    "projector",
    "tdnn",
    "objective",
    "layer_weights",
    "quantizer",
    "project_q",
    "project_hid",
    "final_proj",
    "ctc_proj",
    "speaker_proj",
    "label_embeddings_concat",
    "layer_norm_for_extract",
)
# an x-vector head also has a linear layer with the name of the encoder's extractor
HEAD_WEIGHTS = ("feature_extractor.weight", "feature_extractor.bias")
UNUSED = "masked_spec_embed"  # replaces masked frames when pre-training and in SpecAugment, which is off here
WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
UNREADABLE = (OSError, EOFError, RuntimeError, pickle.UnpicklingError, SafetensorError)
IMPORT_HINT = "`lebench import` makes an encoder of a SpeechBrain or fairseq checkpoint (.ckpt, .pt)."


def locate(source, with_weights):
    """The folder of a source: itself, or a Hub id's in the cache, filled first if need be."""
    path = Path(source).expanduser()
    if path.is_dir():
        return path
    if path.exists():
        raise ValueError(f"{source} is a file: give the Hugging Face folder. {IMPORT_HINT}")
    if is_hub_id(source):
        return _download(source, with_weights)
    raise FileNotFoundError(
        f"{source}: no such folder in {os.getcwd()}. Give a Hugging Face folder, a Hub id "
        f"(organisation/name) or {MEL_FILTERBANK}."
    )


def is_hub_id(source):
    """organisation/name, where there is no folder `organisation`"""
    return bool(re.fullmatch(r"\w[\w.-]*/[\w.-]+", source)) and not Path(source).parent.exists()


def _download(hub_id, with_weights):
    """The folder of a Hub id in the cache. Raises FileNotFoundError: not found, gated, or not reachable."""
    config = fetch(hub_id, "config.json")
    for name in ("preprocessor_config.json", "processor_config.json"):
        fetch(hub_id, name, required=False)
    for name in WEIGHTS if with_weights else ():
        path = fetch(hub_id, name, required=False)
        if path and name.endswith(".index.json"):
            for shard in set(read_json(path)["weight_map"].values()):
                fetch(hub_id, shard)
        if path:
            break
    return config.parent


def fetch(hub_id, name, required=True):
    """The path of a file of a Hub id in the cache, downloaded if it is not there; None if there is none"""
    try:
        return Path(huggingface_hub.hf_hub_download(hub_id, name))
    except hub_errors.GatedRepoError:
        terms = f"accept its terms at https://huggingface.co/{hub_id}, then `hf auth login`"
        raise FileNotFoundError(f"{hub_id} is gated (401): {terms}.") from None
    except hub_errors.RepositoryNotFoundError:
        raise FileNotFoundError(
            f"{hub_id} is neither a folder here nor a public model of the Hub: misspelt, or private "
            "(`hf auth login`)."
        ) from None
    except hub_errors.LocalEntryNotFoundError:
        if not required:
            return None
        why = "HF_HUB_OFFLINE=1" if huggingface_hub.constants.HF_HUB_OFFLINE else "the Hub cannot be reached"
        raise FileNotFoundError(
            f"{hub_id} is not a folder here, and as a Hub id its {name} is not in the cache while {why}: "
            f"`hf download {hub_id}` where there is a network."
        ) from None
    except hub_errors.EntryNotFoundError:
        if not required:
            return None
        raise FileNotFoundError(f"{hub_id} holds no {name}. {IMPORT_HINT}") from None


def read_json(path):
    """The object in a file, None if there is no such file"""
    if not path.exists():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not JSON: {error}.") from None


def read_config(folder):
    if not (folder / "config.json").exists():
        if any(folder.glob("*.ckpt")) or any(folder.glob("checkpoint*.pt")):
            raise ValueError(f"{folder} has no config.json but another toolkit's checkpoints. {IMPORT_HINT}")
        raise FileNotFoundError(f"{folder} holds no config.json: it is not a Hugging Face folder.")
    read_json(folder / "config.json")  # names the file if it is broken
    try:
        return transformers.AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except ValueError as error:
        raise ValueError(f"{folder}/config.json: {first_line(error)}") from None


def read_preprocessor(folder, config):
    """The feature extractor's settings, as a dict. Raises FileNotFoundError saying what to write."""
    values = read_json(folder / "preprocessor_config.json")
    if values is None:  # a processor saved by transformers 5 keeps them among its own
        values = (read_json(folder / "processor_config.json") or {}).get("feature_extractor")
    if values is None:
        example = {"feature_extractor_type": "Wav2Vec2FeatureExtractor", "sampling_rate": SAMPLE_RATE}
        if config.model_type == "wav2vec2-bert":
            example["feature_extractor_type"] = "SeamlessM4TFeatureExtractor"
        else:
            example["do_normalize"] = getattr(config, "feat_extract_norm", "layer") == "layer"
        raise FileNotFoundError(
            f"{folder} holds no preprocessor_config.json, so nothing says whether the waveforms were "
            f"normalised. Write there {json.dumps(example)} (do_normalize: true for layer-norm extractors, "
            "false for group-norm, unless the model was trained otherwise)."
        )
    if values.get("sampling_rate", SAMPLE_RATE) != SAMPLE_RATE:
        raise ValueError(
            f"{folder}/preprocessor_config.json: sampling_rate {values['sampling_rate']}, but encoders take "
            f"{SAMPLE_RATE} Hz."
        )
    return values


def random_model(config):
    """The architecture of `config`, from RANDOM_SEED; the random generators are left as they were."""
    with torch.random.fork_rng(devices=[]), quiet_transformers():
        torch.random.default_generator.manual_seed(RANDOM_SEED)
        return transformers.AutoModel.from_config(config, dtype=torch.float32)


def load_strictly(folder, config):
    """The base model in float32 with the folder's weights. Raises ValueError naming each that does not fit,
    except those of heads, which are logged."""
    try:
        with torch.random.fork_rng(devices=[]), quiet_transformers():
            model, report = transformers.AutoModel.from_pretrained(
                folder,
                config=config,
                dtype=torch.float32,  # else the file's: float16 weights would meet float32 audio
                weights_only=True,
                trust_remote_code=False,
                ignore_mismatched_sizes=True,  # reported below, by name
                output_loading_info=True,
            )
    except UNREADABLE as error:
        if isinstance(error, OSError) and error.errno is None:  # transformers': no such file
            raise FileNotFoundError(f"{folder} holds no weights: {first_line(error)} {IMPORT_HINT}") from None
        raise ValueError(
            f"{folder}: its weights cannot be read ({type(error).__name__}: {first_line(error)}). The file "
            "is damaged, cut short or a Git LFS pointer, or a pickle of more than tensors, which is not read."
        ) from None
    _check_report(folder, report)
    return model


def _check_report(folder, report):
    heads = [n for n in report["unexpected_keys"] if n.split(".")[0] in HEADS or n in HEAD_WEIGHTS]
    problems = {
        "missing": set(report["missing_keys"]) - {UNUSED},
        "unexpected": set(report["unexpected_keys"]) - set(heads) - {UNUSED},
        "of another size": {mismatch[0] for mismatch in report["mismatched_keys"]},
    }
    found = [f"{len(names)} {kind}: {first_five(names)}" for kind, names in problems.items() if names]
    if found:
        raise ValueError(f"{folder}: the weights do not fit config.json. {'; '.join(found)}.")
    if heads:
        prefixes = Counter(name.split(".")[0] for name in heads)
        listed = ", ".join(f"{prefix} ({count})" for prefix, count in sorted(prefixes.items()))
        logger.warning("%s: left out the weights of heads: %s", folder, listed)
    if UNUSED in report["missing_keys"]:
        logger.info("%s: no %s, which is not used: SpecAugment is off", folder, UNUSED)


def first_line(error):
    return (str(error).splitlines() or [""])[0]


def first_five(names):
    names = sorted(names)
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


@contextmanager
def quiet_transformers():
    """Without progress bars and loading tables: `_check_report` says what matters."""
    level, bar = transformers.logging.get_verbosity(), transformers.logging.is_progress_bar_enabled()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers.logging.set_verbosity(level)
        if bar:
            transformers.logging.enable_progress_bar()


# Saving


def save_encoder(model, folder, do_normalize, extra=None):
    """Write a Hugging Face folder: config.json, model.safetensors, preprocessor_config.json, and the `extra`
    files.

    model: a transformers model that takes waveforms; `model.base_model` for one without its heads.
    do_normalize: whether it was trained on waveforms of mean 0 and variance 1.
    extra: {file name: text}.
    The folder appears whole; one that `save_encoder` wrote before is replaced. Raises FileExistsError for
    another.
    """
    extractor = preprocessor_of(model, do_normalize)
    write_model(folder, model, model.state_dict(), model.config, extractor.to_dict(), extra or {})


def preprocessor_of(model, do_normalize):
    return transformers.Wav2Vec2FeatureExtractor(
        sampling_rate=SAMPLE_RATE,
        do_normalize=do_normalize,
        return_attention_mask=getattr(model.config, "feat_extract_norm", "layer") == "layer",
    )


def write_model(folder, model, weights, config, preprocessor, extra):
    """Everything goes into `<folder>.tmp`, which is then renamed."""
    folder = Path(folder)
    if folder.exists() and any(folder.iterdir()) and not (folder / "config.json").exists():
        raise FileExistsError(f"{folder} exists and is not a Hugging Face folder: not replaced.")
    new, old = folder.with_name(folder.name + ".tmp"), folder.with_name(folder.name + ".old")
    shutil.rmtree(new, ignore_errors=True)
    with quiet_transformers():
        model.save_pretrained(new, state_dict=weights)
    config = copy.deepcopy(config)
    config.architectures, config.dtype = [type(model).__name__], torch.float32
    config.save_pretrained(new)
    preprocessor = json.dumps(preprocessor, indent=2, sort_keys=True) + "\n"
    for name, text in {"preprocessor_config.json": preprocessor, **extra}.items():
        (new / name).write_text(text, encoding="utf-8")
    if folder.exists():
        shutil.rmtree(old, ignore_errors=True)
        folder.rename(old)
    new.rename(folder)
    shutil.rmtree(old, ignore_errors=True)
