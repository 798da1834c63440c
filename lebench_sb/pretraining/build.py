"""Models to pre-train, from a configuration or a Hugging Face folder; what does not fit is refused."""

import difflib
import logging
from pathlib import Path

import torch
from transformers import (
    Wav2Vec2Config,
    Wav2Vec2ConformerConfig,
    Wav2Vec2ConformerForPreTraining,
    Wav2Vec2ForPreTraining,
)

from lebench_sb.core.errors import DataError, UsageError
from lebench_sb.encoders.folders.settings import (
    architecture_of,
    check_preprocessor,
    config_of,
    find_preprocessor,
)
from lebench_sb.encoders.model_folders import check_size, load_model, locate, read_config
from lebench_sb.pretraining.initialise import filterbank_start
from lebench_sb.pretraining.model import PretrainingModel
from lebench_sb.pretraining.optimizer_state import read_optimizer_state

logger = logging.getLogger(__name__)
STARTS = {"random": lambda extractor: None, "filterbank": filterbank_start}
MODELS = {"wav2vec2": Wav2Vec2ForPreTraining, "wav2vec2-conformer": Wav2Vec2ConformerForPreTraining}
FRESH = ("quantizer.", "project_hid.", "project_q.")


def make_config(**values):
    """Wav2Vec2Config that refuses names it does not know (transformers takes any)."""
    return checked_config(Wav2Vec2Config, values)


def make_conformer_config(**values):
    """The same of a Wav2Vec2ConformerConfig"""
    return checked_config(Wav2Vec2ConformerConfig, values)


def checked_config(kind, values):
    """Raises UsageError for a name that is no setting of the architecture, and a value out of its range"""
    settings = architecture_of(kind)
    for name in values:
        if name not in settings:
            near = difflib.get_close_matches(str(name), settings, n=1)
            raise UsageError(f"config: {name} is no setting of {kind.__name__}; did you mean {near}?")
    return config_of(kind, values, "config", UsageError)


def stored_config(init_from, mask_time_prob):
    """Config of a Hugging Face folder, with another mask; UsageError for a model of another kind"""
    stored = read_config(Path(init_from))
    if stored.model_type not in MODELS:
        raise UsageError(
            f"init_from {init_from} is a {stored.model_type}: this recipe continues {' and '.join(MODELS)}."
        )
    stored.mask_time_prob = mask_time_prob
    return stored


def build_model(
    config, init_from, feature_grad_mult, seed, start="random", do_normalize=None,
    activation_checkpointing=False, init_optimizer=False,
):  # fmt: skip
    """-> PretrainingModel with random weights (`init_from` empty) or those of a Hugging Face folder or id.

    A folder without quantiser, projections or mask embedding is accepted: the log says what starts fresh.
    Raises DataError for any other missing weight and one that does not fit or is not finite, UsageError when
    `do_normalize` is not what its preprocessor_config.json says. Of `config` a folder takes the mask alone:
    its shape and dropout are its own. init_optimizer: the optimiser's state beside `init_from` goes on as
    well (see `read_optimizer_state`; UsageError where there is none).
    """
    torch.manual_seed(seed)
    if init_optimizer and not init_from:
        raise UsageError("init_optimizer True needs --init_from, with an optimiser's state beside it.")
    if not init_from:
        check_size(MODELS[config.model_type], config, UsageError, "config")
        hf = MODELS[config.model_type](config)
        STARTS[start](hf.base_model.feature_extractor)
        return PretrainingModel(hf, feature_grad_mult, activation_checkpointing)
    folder = locate(init_from, with_weights=True)
    stored = stored_config(folder, config.mask_time_prob)
    check_normalisation(folder, do_normalize)
    hf, missing = load_model(MODELS[stored.model_type], folder, stored)
    missing = sorted(missing)
    fresh = (*FRESH, f"{hf.base_model_prefix}.masked_spec_embed")
    lost = [name for name in missing if not name.startswith(fresh)]
    if lost:
        raise DataError(f"init_from {init_from}: {len(lost)} encoder weights are missing, first {lost[:5]}.")
    logger.info("init_from %s: weights that start fresh: %s", init_from, ", ".join(missing) or "none")
    model = PretrainingModel(hf, feature_grad_mult, activation_checkpointing)
    model.fresh = frozenset(missing)
    if init_optimizer:
        model.optimizer_state = read_optimizer_state(init_from, model)
    return model


def check_normalisation(init_from, do_normalize):
    """Raises UsageError if the encoder in a folder was trained on waveforms of another scale; one that does
    not say passes"""
    values, where = find_preprocessor(Path(init_from))
    if values is None:
        return
    values = check_preprocessor(values, read_config(Path(init_from)), where)
    check_same_scale(init_from, values.get("do_normalize", True), do_normalize)


def check_same_scale(source, stored, do_normalize):
    if do_normalize is not None and do_normalize != stored:
        raise UsageError(f"{source} was trained with do_normalize {stored}: --do_normalize {stored}.")
