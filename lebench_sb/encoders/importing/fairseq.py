"""wav2vec 2.0 pre-training checkpoints of fairseq, as seven of the ten LeBenchmark models are published.

Besides weights and settings they hold what no Hugging Face folder does: the state of the optimiser, with
which continued pre-training goes on where the published run ended.
"""

import ast
import logging
import math
import re
from dataclasses import dataclass

import torch

from lebench_sb.core.errors import DataError
from lebench_sb.encoders.folders.torch_files import check_tensors, not_finite

FILE = "checkpoint_best.pt"
logger = logging.getLogger(__name__)

AVERAGES = ("exp_avg", "exp_avg_sq")
PARTS = ("model", "task", "criterion")
EXTRACTORS = ("default", "layer_norm")
ACTIVATIONS = ("gelu", "relu")
DEPTH = 20  # of settings in settings
TEXT, MANY = 1000, 100  # the longest text of convolutions, and the most of them
CONVOLUTIONS = "[(512, 10, 5)] + [(512, 3, 2)] * 4 + [(512,2,2)] + [(512,2,2)]"

# fairseq's name -> transformers'
NAMES = [
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"^mask_emb$", "wav2vec2.masked_spec_embed"),
        (r"^layer_norm\.", "wav2vec2.feature_projection.layer_norm."),
        (r"^post_extract_proj\.", "wav2vec2.feature_projection.projection."),
        (r"^final_proj\.", "project_hid."),
        (r"^quantizer\.vars$", "quantizer.codevectors"),
        (r"^(feature_extractor\.conv_layers\.\d+)\.0\.", r"wav2vec2.\1.conv."),
        (r"^(feature_extractor\.conv_layers\.\d+)\.2\.1\.", r"wav2vec2.\1.layer_norm."),  # in every layer
        (
            r"^(feature_extractor\.conv_layers\.0)\.2\.",
            r"wav2vec2.\1.layer_norm.",
        ),  # group norm, in the first
        (r"^encoder\.pos_conv\.0\.", "encoder.pos_conv_embed.conv."),
        (r"\.weight_g$", ".parametrizations.weight.original0"),
        (r"\.weight_v$", ".parametrizations.weight.original1"),
        (r"^(encoder\.layers\.\d+)\.self_attn\.", r"\1.attention."),
        (r"^(encoder\.layers\.\d+)\.self_attn_layer_norm\.", r"\1.layer_norm."),
        (r"^(encoder\.layers\.\d+)\.fc1\.", r"\1.feed_forward.intermediate_dense."),
        (r"^(encoder\.layers\.\d+)\.fc2\.", r"\1.feed_forward.output_dense."),
        (r"^encoder\.", "wav2vec2.encoder."),
    )
]


def transformers_name(name):
    """Of a weight of fairseq's Wav2Vec2Model; one without counterpart keeps its own"""
    for pattern, replacement in NAMES:
        name = pattern.sub(replacement, name)
    return name


def wrote(content):
    """Whether fairseq's Trainer wrote what `torch.load` gave"""
    return isinstance(content.get("model"), dict) and ("cfg" in content or "args" in content)


@dataclass
class Checkpoint:
    """weights: {transformers' name: float32 tensor}; config: keyword arguments of transformers'
    Wav2Vec2Config; do_normalize: whether waveforms were normalised; states: {"exp_avg" or "exp_avg_sq": as
    weights}, or None where the file has no optimiser; updates: how many the optimiser has made"""

    weights: dict
    config: dict
    do_normalize: bool
    states: dict | None
    updates: int


def read_checkpoint(content, path):
    """What `torch.load` gave -> Checkpoint.

    Raises DataError for a fine-tuned model and settings that transformers' Wav2Vec2ForPreTraining does not
    have. A state of the optimiser that does not fit the weights is left out with a warning.
    """
    tensors = check_tensors(content["model"], path)
    tuned = [name for name in tensors if name.startswith("w2v_encoder.")]
    if tuned:
        raise DataError(
            f"{path} is a fine-tuned model of fairseq ({tuned[0]}): give the pre-trained one it began from."
        )
    if "quantizer.vars" not in tensors:
        raise DataError(
            f"{path} is no wav2vec 2.0 pre-training checkpoint of fairseq: it has no quantizer.vars."
        )
    model, task, criterion = settings_of(content, path)
    weights = {transformers_name(name): tensor.float() for name, tensor in tensors.items()}
    config = config_of(model, criterion, path)
    projection = "wav2vec2.feature_projection.projection."
    if projection + "weight" not in weights:  # fairseq has none where the two widths are equal
        size = config["hidden_size"]
        weights |= {projection + "weight": torch.eye(size), projection + "bias": torch.zeros(size)}
    states, updates = read_optimizer_state(content.get("last_optimizer_state"), tensors, path)
    normalize = task.get("normalize", False)
    if not isinstance(normalize, bool):
        raise DataError(f"{path}: normalize: {normalize!r}, expected True or False.")
    return Checkpoint(weights, config, normalize, states, updates)


def settings_of(content, path):
    """-> settings of model, task and criterion, as mappings"""
    if content.get("cfg"):
        cfg = plain(content["cfg"], path)
        parts = [cfg.get(part) or {} for part in PARTS] if isinstance(cfg, dict) else [cfg] * 3
    else:
        parts = [plain(content.get("args") or {}, path)] * 3  # before 2021: all in one Namespace
    if not all(isinstance(part, dict) for part in parts) or "encoder_embed_dim" not in parts[0]:
        raise DataError(f"{path}: neither `cfg` nor `args` says what the model is.")
    return parts


def plain(value, path, depth=0):
    """Settings without the classes they came in (Namespace, omegaconf's nodes, enumerations). Raises
    DataError for settings in settings without end."""
    if depth > DEPTH:
        raise DataError(f"{path}: its settings are nested over {DEPTH} deep.")
    depth += 1
    if isinstance(value, dict):
        return {key: plain(part, path, depth) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(part, path, depth) for part in value]
    inside = getattr(value, "__dict__", None)
    if inside is None:
        return value
    for key in ("_content", "_val"):  # omegaconf's
        if key in inside:
            return plain(inside[key], path, depth)
    arguments = inside.get("arguments")
    if arguments:
        return plain(arguments[0], path, depth)
    return plain({k: v for k, v in inside.items() if k != "arguments"}, path, depth)


def config_of(model, criterion, path):
    """fairseq's settings, its defaults where they say nothing -> keyword arguments of Wav2Vec2Config"""
    check_supported(model, path)
    layers = layers_of(model, path)
    hidden = model.get("encoder_embed_dim", 768)
    final = model.get("final_dim", 0) if model.get("final_dim", 0) > 0 else hidden
    latent = model.get("latent_dim", 0) if model.get("latent_dim", 0) > 0 else final
    weights = criterion.get("loss_weights") or [0.1]
    return {
        "conv_dim": [layer[0] for layer in layers],
        "conv_kernel": [layer[1] for layer in layers],
        "conv_stride": [layer[2] for layer in layers],
        "conv_bias": model.get("conv_bias", False),
        "feat_extract_norm": "layer" if model.get("extractor_mode", "default") == "layer_norm" else "group",
        "do_stable_layer_norm": model.get("layer_norm_first", False),
        "hidden_size": hidden,
        "num_hidden_layers": model.get("encoder_layers", 12),
        "num_attention_heads": model.get("encoder_attention_heads", 12),
        "intermediate_size": model.get("encoder_ffn_embed_dim", 3072),
        "hidden_act": model.get("activation_fn", "gelu"),
        "num_conv_pos_embeddings": model.get("conv_pos", 128),
        "num_conv_pos_embedding_groups": model.get("conv_pos_groups", 16),
        "proj_codevector_dim": final,
        "codevector_dim": latent,
        "num_codevectors_per_group": model.get("latent_vars", 320),
        "num_codevector_groups": model.get("latent_groups", 2),
        "contrastive_logits_temperature": model.get("logit_temp", 0.1),
        "num_negatives": model.get("num_negatives", 100),
        "diversity_loss_weight": weights[0] if isinstance(weights, list) else weights,
        "mask_time_prob": model.get("mask_prob", 0.65),
        "mask_time_length": model.get("mask_length", 10),
        "hidden_dropout": model.get("dropout", 0.1),
        "attention_dropout": model.get("attention_dropout", 0.1),
        "activation_dropout": model.get("activation_dropout", 0.0),
        "layerdrop": model.get("encoder_layerdrop", 0.0),
        "feat_proj_dropout": model.get("dropout_input", 0.0),
        "feat_quantizer_dropout": model.get("dropout_features", 0.0),
    }


def layers_of(model, path):
    """The extractor's layers, (channels, kernel, stride) each. Raises DataError for sizes that are none"""
    for key in ("final_dim", "latent_dim"):
        if not isinstance(model.get(key, 0), int):
            raise DataError(f"{path}: {key}: {model[key]!r}, expected a whole number.")
    try:
        return convolutions(model.get("conv_feature_layers", CONVOLUTIONS))
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        raise DataError(
            f"{path}: conv_feature_layers is {str(model['conv_feature_layers'])[:TEXT]!r}, no list of layers."
        ) from None


def check_supported(model, path):
    """Raises DataError naming what transformers' Wav2Vec2ForPreTraining has no counterpart for"""
    other = {
        key: model.get(key, usual)
        for key, usual in (
            ("layer_type", "transformer"), ("quantize_input", False), ("target_glu", False),
            ("quantizer_depth", 1), ("pos_conv_depth", 1),
        )
        if model.get(key, usual) != usual
    }  # fmt: skip
    if model.get("extractor_mode", EXTRACTORS[0]) not in EXTRACTORS:
        other["extractor_mode"] = model["extractor_mode"]
    if not model.get("quantize_targets", True):
        other["quantize_targets"] = False
    if model.get("activation_fn", "gelu") not in ACTIVATIONS:
        other["activation_fn"] = model["activation_fn"]
    if other:
        raise DataError(f"{path}: transformers' wav2vec 2.0 cannot be trained with {other}.")


def convolutions(text):
    """ "[(512, 10, 5)] + [(512, 3, 2)] * 4" -> [(channels, kernel, stride), ...], without running anything"""
    if len(text) > TEXT:
        raise ValueError(text)

    def short(layers):
        if not isinstance(layers, list) or len(layers) > MANY:
            raise ValueError(text)
        return layers

    def value(node):
        match node:
            case ast.Constant(value=int(number)):
                return number
            case ast.Tuple(elts=parts):
                return tuple(value(part) for part in parts)
            case ast.List(elts=parts):
                return [value(part) for part in parts]
            case ast.BinOp(left=left, op=ast.Add(), right=right):
                return short(short(value(left)) + short(value(right)))
            case ast.BinOp(left=left, op=ast.Mult(), right=ast.Constant(value=int(number))) if number < MANY:
                return short(short(value(left)) * number)
        raise ValueError(ast.dump(node))

    layers = value(ast.parse(text, mode="eval").body)
    if not isinstance(layers, list) or not all(
        isinstance(layer, tuple) and len(layer) == 3 for layer in layers
    ):
        raise ValueError(text)
    return layers


def has_adam_state(entry):
    """Whether the state of a parameter is Adam's, of finite numbers"""
    if not isinstance(entry, dict) or not all(isinstance(entry.get(kind), torch.Tensor) for kind in AVERAGES):
        return False
    step = entry.get("step")
    counted = isinstance(step, (int, float)) or (isinstance(step, torch.Tensor) and step.numel() == 1)
    return counted and math.isfinite(step) and not not_finite({kind: entry[kind] for kind in AVERAGES})


def read_optimizer_state(state, weights, path):
    """-> ({"exp_avg": {transformers' name: tensor}, "exp_avg_sq": ...}, updates); without a state (None, 0).

    fairseq's fp16 optimiser keeps one flat vector of all trained weights, the fp32 one a tensor for each;
    both in the order in which the model has its weights.
    """
    entries = state.get("state") if isinstance(state, dict) else None
    if not entries:
        return None, 0
    numbered = isinstance(entries, dict) and all(isinstance(index, int) for index in entries)
    if not numbered or not all(has_adam_state(entry) for entry in entries.values()):
        logger.warning("%s: the optimiser's state is left out, it is not Adam's, or not finite", path)
        return None, 0
    entries = [entries[index] for index in sorted(entries)]
    updates, states = int(entries[0]["step"]), {}
    for kind in AVERAGES:
        parts = [entry[kind].float() for entry in entries]
        if len(parts) == 1 and parts[0].dim() == 1:
            sizes = [tensor.numel() for tensor in weights.values()]
            parts = parts[0].split(sizes) if sum(sizes) == parts[0].numel() else parts
        if [part.numel() for part in parts] != [tensor.numel() for tensor in weights.values()]:
            logger.warning(
                "%s: the optimiser's state is left out, it is not of these weights: %s has %d tensors of %d "
                "numbers, the model %d of %d",
                path, kind, len(parts), sum(part.numel() for part in parts), len(weights),
                sum(tensor.numel() for tensor in weights.values()),
            )  # fmt: skip
            return None, 0
        named = zip(parts, weights.items(), strict=True)
        states[kind] = {
            transformers_name(name): part.reshape(tensor.shape).clone() for part, (name, tensor) in named
        }
    return states, updates
