"""config.json and preprocessor_config.json of an encoder, checked before transformers sees them.

Of config.json the settings of the architecture are taken and nothing else: no attention or kernel that it
names, no quantisation, no code of its own, no dtype, no labels.
"""

import dataclasses
import json
import math
import reprlib
import types
import typing

import transformers
from huggingface_hub.errors import StrictDataclassError
from transformers.activations import ACT2FN

from lebench_sb.audio.waveforms import SAMPLE_RATE
from lebench_sb.core import guard
from lebench_sb.core.errors import DataError

ENCODERS = (
    "wav2vec2", "hubert", "wavlm", "data2vec-audio", "wav2vec2-conformer", "unispeech", "unispeech-sat",
    "wav2vec2-bert", "sew", "sew-d",
)  # fmt: skip
LOG_MEL = "wav2vec2-bert"  # its input is no waveform but SeamlessM4TFeatureExtractor's frames
OF_ALL = {
    field.name for field in dataclasses.fields(transformers.PreTrainedConfig)
}  # not of the architecture
LARGEST = 10**6  # of any number that is a size or a count
MOST = {"num_hidden_layers": 1000, "num_adapter_layers": 100}
LONGEST = 100  # of a list, such as one number for each convolution
# numbers that may be 0, or (ids of symbols) -1; all others are sizes, of at least 1
FROM_ZERO = (
    "mask_time_min_masks", "mask_feature_min_masks", "mask_time_length", "mask_feature_length",
    "num_negatives", "num_adapter_layers", "vocab_size", "left_max_position_embeddings",
    "right_max_position_embeddings", "position_buckets", "num_ctc_classes", "adapter_attn_dim",
)  # fmt: skip
IDS = ("pad_token_id", "bos_token_id", "eos_token_id")
CHOICES = {"feat_extract_norm": ("group", "layer"), "position_embeddings_type": ("relative", "rotary", None)}
DIVIDED_BY = ("num_attention_heads", "num_conv_pos_embedding_groups")
CONVOLUTIONS = ("conv_dim", "conv_kernel", "conv_stride")
NAMES = {bool: "true or false", int: "a whole number", float: "a number", str: "a text", type(None): "null"}


def read_object(path):
    """The object in a JSON file, in which no key comes twice and no number is NaN. Raises DataError."""
    text = guard.decode(guard.read_small(path), path)
    guard.parse_json(text, path)

    def once(pairs):
        keys = [key for key, _ in pairs]
        twice = (
            next((key for key in keys if keys.count(key) > 1), None) if len(set(keys)) < len(keys) else None
        )
        if twice is not None:
            raise DataError(f"{path}: {shown(twice)} comes twice.")
        return dict(pairs)

    def constant(name):
        raise DataError(f"{path}: {name} is no number of JSON.")

    return json.loads(text, object_pairs_hook=once, parse_constant=constant)


def shown(value):
    """A value as JSON or a YAML has it, its middle left out where it is long"""
    short = reprlib.Repr()
    short.maxstring = short.maxother = 100
    return {True: "true", False: "false", None: "null"}[value] if known(value) else short.repr(value)


def known(value):
    return value is None or isinstance(value, bool)


def make_config(values, where):
    """The object of a config.json -> transformers' config of the architecture. Raises DataError."""
    config = config_of(kind_of(values, where), values, where)
    names = values.get("architectures")
    if names is not None and not fits(names, list[str]):
        raise DataError(f"{where}: architectures: {shown(names)}, expected a list of names.")
    config.architectures = names
    return config


def kind_of(values, where):
    """The config class of `model_type`, if it is one of an encoder of speech. Raises DataError."""
    name = values.get("model_type")
    mapping = transformers.CONFIG_MAPPING
    if not isinstance(name, str) or name not in mapping:
        code = (
            " It comes with code of its own (auto_map), which is never run." if "auto_map" in values else ""
        )
        raise DataError(
            f"{where} is not the config of a Hugging Face model that transformers {transformers.__version__} "
            f"has: model_type: {shown(name)}, expected one of {', '.join(ENCODERS)}.{code}"
        )
    kind = mapping[name]
    fields = {field.name for field in dataclasses.fields(kind)}
    if name != LOG_MEL and (not {"conv_kernel", "conv_stride"} <= fields or kind().is_encoder_decoder):
        raise DataError(
            f"{where}: model_type: {shown(name)} is no encoder of waveforms, expected one of "
            f"{', '.join(ENCODERS)}."
        )
    return kind


def architecture_of(kind):
    """{name: type} of the settings that a config class has beyond those of every transformers model"""
    return {field.name: field.type for field in dataclasses.fields(kind) if field.name not in OF_ALL}


def config_of(kind, values, where, error=DataError):
    """A config of class `kind` with those of `values` that are settings of its architecture.

    Raises `error` naming `where`, the key, its value and what is expected.
    """
    settings = architecture_of(kind)
    chosen = {key: value for key, value in values.items() if key in settings}
    for key, value in chosen.items():
        expected = fault(key, value, settings[key])
        if expected:
            raise error(f"{where}: {key}: {shown(value)}, expected {expected}.")
        if settings[key] is float:
            chosen[key] = float(value)
    check_convolutions(kind, chosen, where, error)
    try:
        config = kind(**chosen)
    except (ValueError, StrictDataclassError) as problem:
        raise error(f"{where}: {' '.join(str(problem).split())}") from None
    for name in DIVIDED_BY:
        number = getattr(config, name, 1)
        if config.hidden_size % number:
            raise error(
                f"{where}: {name}: {number}, expected a divisor of hidden_size, {config.hidden_size}."
            )
    buckets, farthest = getattr(config, "num_buckets", 4), getattr(config, "max_bucket_distance", 4)
    if buckets < 4 or farthest <= buckets // 4:  # WavLM's: a quarter for each direction's exact distances
        raise error(
            f"{where}: max_bucket_distance: {farthest}, expected more than a quarter of num_buckets, "
            f"{buckets}, which is at least 4."
        )
    return config


def check_convolutions(kind, chosen, where, error):
    """Raises `error` unless the lists of the convolutions, as given or by default, are equally long"""
    names = [name for name in CONVOLUTIONS if name in architecture_of(kind)]
    lists = {name: chosen.get(name, getattr(kind, name, ())) for name in names}
    lengths = {name: len(values) for name, values in lists.items()}
    if len(set(lengths.values())) > 1:
        found = ", ".join(f"{name} has {length}" for name, length in lengths.items())
        raise error(f"{where}: {found}: expected one number for each convolution.")


def fault(key, value, kind):
    """What is expected of a setting, in words, or "" where `value` is that. kind: its annotation"""
    if not isinstance(kind, str) and not fits(value, kind):
        return named(kind)
    if key in CHOICES or key.endswith(("_act", "_activation")):
        return fault_of_choice(key, value, kind)
    numbers = value if isinstance(value, (list, tuple)) else [value]
    if isinstance(value, (list, tuple)) and not 0 < len(value) <= LONGEST:
        return f"1 to {LONGEST} of them"
    return next(filter(None, (fault_of_number(key, number) for number in numbers)), "")


def fault_of_choice(key, value, kind):
    if key not in CHOICES:
        return "" if value in ACT2FN else f"one of {', '.join(ACT2FN)}"
    allowed = typing.get_args(kind) if typing.Literal in origins(kind) else CHOICES[key]
    allowed = [part for choice in allowed for part in typing.get_args(choice) or [choice]]
    allowed = [None if choice is type(None) else choice for choice in allowed]
    return "" if value in allowed else f"one of {', '.join(map(shown, allowed))}"


def origins(kind):
    return {typing.get_origin(part) for part in (kind, *typing.get_args(kind))}


def fault_of_number(key, value):
    if isinstance(value, (bool, str)) or value is None or not isinstance(value, (int, float)):
        return ""
    if not math.isfinite(value):
        return "a finite number"
    if "drop" in key or key.endswith("_prob"):
        return "" if 0 <= value <= 1 else "a share from 0 to 1"
    if isinstance(value, float) or key.endswith(("_eps", "_range", "_weight", "_temperature")):
        return "" if value > 0 or (value == 0 and not key.endswith("_eps")) else "a number above 0"
    least, most = (-1 if key in IDS else 0 if key in FROM_ZERO else 1), MOST.get(key, LARGEST)
    return "" if least <= value <= most else f"a whole number from {least} to {most}"


def fits(value, kind):
    """Whether a value of JSON or YAML is of an annotated kind; whole numbers are numbers, true is none"""
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return any(fits(value, part) for part in parts)
    if origin is typing.Literal:
        return value in parts
    if origin in (list, tuple):
        return isinstance(value, (list, tuple)) and all(fits(item, parts[0]) for item in value)
    if kind is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if kind in NAMES:
        return isinstance(value, kind) and (kind is bool or not isinstance(value, bool))
    return True  # a kind that JSON does not have: transformers checks it


def named(kind):
    """An annotated kind in words"""
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        parts = [part for part in parts if not (part is int and float in parts)]
        return " or ".join(dict.fromkeys(named(part) for part in parts))
    if origin is typing.Literal:
        return " or ".join(map(shown, parts))
    if origin in (list, tuple):
        return f"a list, each {named(parts[0])}"
    return NAMES.get(kind, str(kind))


# ---- preprocessor_config.json

PREPROCESSOR, PROCESSOR = "preprocessor_config.json", "processor_config.json"
KINDS = {
    "do_normalize": bool, "return_attention_mask": bool | None, "sampling_rate": int, "feature_size": int,
    "num_mel_bins": int, "stride": int, "padding_value": float, "feature_extractor_type": str,
}  # fmt: skip
MELS, STACKED = 80, 2  # SeamlessM4TFeatureExtractor's


def find_preprocessor(folder):
    """-> the settings of the feature extractor and the file they are in; (None, None) where there is none"""
    if (folder / PREPROCESSOR).exists():
        return read_object(folder / PREPROCESSOR), folder / PREPROCESSOR
    if not (folder / PROCESSOR).exists():
        return None, None
    inside = read_object(folder / PROCESSOR).get("feature_extractor")  # a processor of transformers 5
    if inside is not None and not isinstance(inside, dict):
        raise DataError(f"{folder / PROCESSOR}: feature_extractor: {shown(inside)}, expected an object.")
    return (None, None) if inside is None else (inside, folder / PROCESSOR)


def check_preprocessor(values, config, where):
    """Settings of a feature extractor -> the same without code. Raises DataError unless they are of the kinds
    expected and describe the input of a model of `config`."""
    for key, kind in KINDS.items():
        if key in values and not fits(values[key], kind):
            raise DataError(f"{where}: {key}: {shown(values[key])}, expected {named(kind)}.")
    rate = values.get("sampling_rate", SAMPLE_RATE)
    if rate != SAMPLE_RATE:
        raise DataError(f"{where}: sampling_rate {rate}, but encoders take {SAMPLE_RATE} Hz.")
    mels, stacked = values.get("num_mel_bins", MELS), values.get("stride", STACKED)
    if config.model_type != LOG_MEL:
        expected = {"feature_extractor_type": "Wav2Vec2FeatureExtractor", "feature_size": 1}
    else:
        expected = {"feature_extractor_type": "SeamlessM4TFeatureExtractor", "feature_size": mels}
        if mels < 1 or stacked < 1 or mels * stacked != config.feature_projection_input_dim:
            raise DataError(
                f"{where}: num_mel_bins {mels} and stride {stacked} make {mels * stacked} numbers per frame, "
                f"expected the {config.feature_projection_input_dim} of config.json's "
                "feature_projection_input_dim."
            )
    for key, value in expected.items():
        if values.get(key, value) != value:
            raise DataError(
                f"{where}: {key}: {shown(values[key])}, expected {shown(value)} for a {config.model_type}."
            )
    return {key: value for key, value in values.items() if key != "auto_map"}
