"""Hugging Face folders of encoders: found here or on the Hub, loaded strictly, written whole."""

import copy
import json
import logging
import os
import re
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import huggingface_hub
import torch
import transformers
from huggingface_hub import errors as hub_errors

from lebench_sb.audio.waveforms import SAMPLE_RATE
from lebench_sb.core.errors import DataError, UsageError
from lebench_sb.core.files import new_folder
from lebench_sb.encoders.folders import written
from lebench_sb.encoders.folders.settings import (
    LOG_MEL,
    PREPROCESSOR,
    PROCESSOR,
    check_preprocessor,
    find_preprocessor,
    make_config,
    read_object,
)
from lebench_sb.encoders.folders.torch_files import check_finite, first_five, first_line
from lebench_sb.encoders.folders.weights import IMPORT_HINT, INDEX, WEIGHTS, instead, read_weights, shards

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


def locate(source, with_weights):
    """The folder of a source: itself, or a Hub id's in the cache, filled first if need be."""
    path = Path(source).expanduser()
    if path.is_dir():
        return path
    if path.exists():
        raise UsageError(f"{source} is a file: give the Hugging Face folder. {IMPORT_HINT}")
    if is_hub_id(str(source)):
        return _download(str(source), with_weights)
    name, at, revision = str(source).partition("@")
    hint = f" `hf download {name} --revision {revision} --local-dir FOLDER` fetches a revision." if at else ""
    raise FileNotFoundError(
        f"{source}: no such folder in {os.getcwd()}. Give a Hugging Face folder, a Hub id "
        f"(organisation/name) or {MEL_FILTERBANK}.{hint}"
    )


def is_hub_id(source):
    """organisation/name, where there is no folder `organisation`"""
    return bool(re.fullmatch(r"\w[\w.-]*/[\w.-]+", source)) and not Path(source).parent.exists()


def _download(hub_id, with_weights):
    """The folder of a Hub id in the cache. Raises FileNotFoundError: not found, gated, or not reachable."""
    config = fetch(hub_id, "config.json")
    for name in (PREPROCESSOR, PROCESSOR):
        fetch(hub_id, name, required=False)
    for name in WEIGHTS if with_weights else ():
        path = fetch(hub_id, name, required=False)
        if path and name.endswith(INDEX):
            for shard in shards(path):
                fetch(hub_id, shard)
        if path:
            break
    return config.parent


def fetch(hub_id, name, required=True):
    """The path of a file of a Hub id in the cache, downloaded if it is not there; None if there is none"""
    try:
        return Path(huggingface_hub.hf_hub_download(hub_id, name))
    except hub_errors.HFValidationError as error:
        raise UsageError(f"{hub_id} is no Hub id: {first_line(error)}") from None
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


def read_config(folder):
    """The config of the encoder in a folder. Raises FileNotFoundError (no config.json: what is there) and
    DataError naming the key that is wrong."""
    path = folder / "config.json"
    if not path.exists():
        if any(folder.glob("*.ckpt")) or any(folder.glob("checkpoint*.pt")):
            raise DataError(f"{folder} has no config.json but another toolkit's checkpoints. {IMPORT_HINT}")
        raise FileNotFoundError(
            f"{folder} holds no config.json: it is not a Hugging Face folder, {instead(folder)}"
        )
    values = read_object(path)
    if values.get("quantization_config") is not None:
        raise DataError(
            f"{path}: quantization_config: quantised weights are not read. Give the folder of the model "
            "before it was quantised."
        )
    config = make_config(values, path)
    config.name_or_path = str(folder)
    return config


def read_preprocessor(folder, config):
    """The feature extractor's settings, as a dict. Raises FileNotFoundError saying what to write, DataError
    for values that are not of a model of `config`."""
    values, where = find_preprocessor(folder)
    if values is not None:
        return check_preprocessor(values, config, where)
    example = {"feature_extractor_type": "Wav2Vec2FeatureExtractor", "sampling_rate": SAMPLE_RATE}
    if config.model_type == LOG_MEL:
        example["feature_extractor_type"] = "SeamlessM4TFeatureExtractor"
    else:
        example["do_normalize"] = getattr(config, "feat_extract_norm", "layer") == "layer"
    raise FileNotFoundError(
        f"{folder} holds no {PREPROCESSOR}, so nothing says whether the waveforms were "
        f"normalised. Write there {json.dumps(example)} (do_normalize: true for layer-norm extractors, "
        "false for group-norm, unless the model was trained otherwise)."
    )


def random_model(config):
    """The architecture of `config`, from RANDOM_SEED; the random generators are left as they were."""
    check_size(base_class(config), config)
    with torch.random.fork_rng(devices=[]), quiet_transformers():
        torch.random.default_generator.manual_seed(RANDOM_SEED)
        return transformers.AutoModel.from_config(config, dtype=torch.float32, trust_remote_code=False)


def base_class(config):
    """The class that AutoModel takes: the model without a head"""
    return transformers.MODEL_MAPPING[type(config)]


def check_size(kind, config, error=DataError, where=None):
    """Raises `error` if no model can be made of `config`, or none that this machine's memory holds.

    kind: the class of the model. where: what the config is in; by default its folder's file.
    """
    where = where or f"{config.name_or_path}/config.json"
    try:
        with torch.random.fork_rng(devices=[]), quiet_transformers(), torch.device("meta"):
            model = kind(config)
    except (ValueError, RuntimeError, ZeroDivisionError, OverflowError) as fault:
        raise error(f"{where}: no model can be made of it: {' '.join(str(fault).split())}") from None
    needed = 4 * sum(weight.numel() for weight in model.state_dict().values())
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if needed > memory:
        raise error(
            f"{where}: its model has {needed / 1e9:.0f} GB of weights, this machine {memory / 1e9:.0f} GB of "
            f"memory (hidden_size: {config.hidden_size}, num_hidden_layers: {config.num_hidden_layers})."
        )


def load_strictly(folder, config):
    """The base model in float32 with the folder's weights. Raises what `load_model` does, and DataError for
    weights that are missing."""
    with torch.random.fork_rng(devices=[]):
        model, missing = load_model(base_class(config), folder, config, {UNUSED})
    if UNUSED in missing:
        logger.info("%s: no %s, which is not used: SpecAugment is off", folder, UNUSED)
    return model


def load_model(kind, folder, config, may_miss=None):
    """-> a model in float32 with the weights of a folder, in eval mode, and the names that the folder lacks,
    whose values are random.

    kind: the class of the model; may_miss: names that may be lacking, None: any.
    Raises FileNotFoundError (no weights) and DataError naming each weight that does not fit, except those of
    heads, which are logged, and each that is not finite.
    """
    weights = read_weights(folder)
    check_size(kind, config)
    with quiet_transformers():
        model, report = kind.from_pretrained(
            None,  # no other file of the folder is looked at
            config=config,
            state_dict=weights,
            dtype=torch.float32,  # else the file's: float16 weights would meet float32 audio
            trust_remote_code=False,
            ignore_mismatched_sizes=True,  # reported below, by name
            output_loading_info=True,
        )
    model.config.name_or_path = str(folder)
    missing = set(report["missing_keys"])
    _check_report(folder, report, set() if may_miss is None else missing - may_miss)
    check_finite(model.state_dict(), folder)
    return model, missing


def _check_report(folder, report, missing):
    unexpected = set(report["unexpected_keys"])
    heads = [n for n in unexpected if n.split(".")[0] in HEADS or n in HEAD_WEIGHTS]
    problems = {
        "missing": missing,
        "unexpected": unexpected - set(heads) - {UNUSED},
        "of another size": {mismatch[0] for mismatch in report["mismatched_keys"]},
    }
    faults = [f"{len(names)} {kind}: {first_five(names)}" for kind, names in problems.items() if names]
    if faults:
        raise DataError(f"{folder}: the weights do not fit config.json. {'; '.join(faults)}.")
    if heads:
        prefixes = Counter(name.split(".")[0] for name in heads)
        listed = ", ".join(f"{prefix} ({count})" for prefix, count in sorted(prefixes.items()))
        logger.warning("%s: left out the weights of heads: %s", folder, listed)


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
    The folder appears whole. One that we wrote before is replaced; where files were added to it or changed
    since, it stays as `NAME.kept-N`. Raises FileExistsError for another folder, UsageError for a symbolic
    link.
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
    """Everything goes into a temporary folder, which is then renamed; see `save_encoder`."""
    folder = Path(folder)
    written.check_replaceable(folder)
    config = copy.deepcopy(config)
    config.architectures, config.dtype = [type(model).__name__], torch.float32
    preprocessor = json.dumps(preprocessor, indent=2, sort_keys=True) + "\n"
    with new_folder(folder) as new:
        with quiet_transformers():
            model.save_pretrained(new, state_dict=weights)
        config.save_pretrained(new)
        for name, text in {PREPROCESSOR: preprocessor, **extra}.items():
            (new / name).write_text(text, encoding="utf-8")
        written.mark(new)
        written.move_aside(folder)
