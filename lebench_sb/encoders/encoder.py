"""Waveforms -> frames and their numbers: SSL encoders of the Hugging Face family, and a mel filterbank.

    encoder = load_encoder("LeBenchmark/wav2vec2-FR-7K-large", layer="weighted")
    frames, frame_lens = encoder(wavs, wav_lens)

The reference is the Hugging Face feature extractor and model on the utterance alone, in eval mode: in a
padded batch every utterance gets those frames. Axes: B utterances, T samples (16 kHz), F frames, D features.
"""

import copy
import logging

import torch
import torch.nn.functional as F
from torch import nn

from lebench_sb.audio.waveforms import SAMPLE_RATE, LogMel, front_end, standardise, true_lengths
from lebench_sb.core.masks import valid_mask
from lebench_sb.encoders import attention
from lebench_sb.encoders.folders.torch_files import first_five
from lebench_sb.encoders.model_folders import (
    MEL_FILTERBANK,
    load_strictly,
    locate,
    preprocessor_of,
    random_model,
    read_config,
    read_preprocessor,
    write_model,
)
from lebench_sb.encoders.padding import Batch, keep_padding_out

logger = logging.getLogger(__name__)

RANDOM = "random:"

# In these an attention mask, `GroupNormFirstConv` and `ZeroPadding` keep the padding out of every frame
# (tests/encoders compares with the utterance alone). Others run utterances of equal length together.
PADDED = (
    "wav2vec2",
    "hubert",
    "wavlm",
    "data2vec-audio",
    "wav2vec2-conformer",
    "unispeech",
    "unispeech-sat",
    "wav2vec2-bert",
)


def load_encoder(source, layer="last", freeze=True, freeze_extractor=False, frame_norm="none"):
    """An SSLEncoder, or the MelFilterbank.

    source: a Hugging Face folder; a Hub id (organisation/name); `mel_filterbank`; or `random:<folder or id>`,
        the untrained control: that source's architecture and input normalisation with random weights, the
        same in every run whatever the state of the random generators.
    layer: "last"; the index of a hidden state (0 is what the first transformer layer receives, the projected
        output of the extractor with its positions; k is what layer k gives); or "weighted": the
        softmax-weighted sum of all hidden states (SUPERB, arXiv:2105.01051, section 3), each layer-normalised
        without affine weights as in S3PRL's Featurizer. Its weights are trained in a frozen encoder too.
    freeze: no gradient, and eval mode for good.
    freeze_extractor: when fine-tuning, the convolutional extractor is not trained.
    frame_norm: "none"; "cmvn": each feature has mean 0 and variance 1 over the frames of its utterance, as
        the filterbank's always have (LeBenchmark's speech translation does this to SSL frames too);
        "utterance": all features of an utterance together (SpeechBrain's `output_norm`, without padding).
    Raises FileNotFoundError (no such folder, id or file) and ValueError (weights that do not fit the config,
    an unknown layer or frame_norm, a model that takes no waveforms).
    """
    if frame_norm not in FRAME_NORMS:
        raise ValueError(f"frame_norm {frame_norm!r}: {', '.join(FRAME_NORMS)}.")
    if str(source) == MEL_FILTERBANK:
        _check_layer(layer, 0)
        return MelFilterbank()
    return SSLEncoder(source, layer, freeze, freeze_extractor, frame_norm)


def geometry(source, layer="last"):
    """(fewest samples, frames per second) of the encoder of `source`, from its configuration alone: no weight
    is read. Raises as `load_encoder` for a source that is not there"""
    source = str(source)
    if source == MEL_FILTERBANK:
        return LogMel.WINDOW, MelFilterbank.frame_rate
    folder = locate(source.removeprefix(RANDOM), with_weights=False)
    config = read_config(folder)
    encoder = SSLEncoder.__new__(SSLEncoder)
    nn.Module.__init__(encoder)
    encoder._describe(source, config, read_preprocessor(folder, config), layer, freeze=True)
    return encoder.min_samples, encoder.frame_rate


class SSLEncoder(nn.Module):
    """A wav2vec2-like Hugging Face model behind the encoder contract. Arguments: see `load_encoder`.

    When it is fine-tuned, dropout is as the checkpoint's config says, but: SpecAugment is off (augmentation
    belongs to the recipes); LayerDrop is off (a dropped layer leaves weights without a gradient, which stops
    a run on several devices); batch normalisation keeps its stored statistics (padding and batch mates would
    enter them); weights that cannot reach the frames have requires_grad False.
    Attributes: output_size (D), frame_rate (per second), layer, num_layers, frozen, source, min_samples.
    """

    frame_norm = "none"

    def __init__(self, source, layer="last", freeze=True, freeze_extractor=False, frame_norm="none"):
        super().__init__()
        self.frame_norm = frame_norm
        source = str(source)
        untrained = source.startswith(RANDOM)
        folder = locate(source.removeprefix(RANDOM), with_weights=not untrained)
        config = read_config(folder)
        self._describe(source, config, read_preprocessor(folder, config), layer, freeze)
        config = _without_augmentation(config)
        model = random_model(config) if untrained else load_strictly(folder, config)
        self._take(model, freeze_extractor)

    @classmethod
    def around(cls, model, do_normalize):
        """The SSLEncoder that trains a transformers model made in memory (whose config loses SpecAugment and
        LayerDrop).

        do_normalize: whether the model receives waveforms of mean 0 and variance 1.
        """
        encoder = cls.__new__(cls)
        nn.Module.__init__(encoder)
        preprocessor = preprocessor_of(model, do_normalize).to_dict()
        encoder._describe(type(model).__name__, copy.deepcopy(model.config), preprocessor, "last", False)
        model.config.apply_spec_augment, model.config.layerdrop = False, 0.0
        encoder._take(model, freeze_extractor=False)
        return encoder

    def _describe(self, source, config, preprocessor, layer, freeze):
        """Sets what follows from config and preprocessor: all attributes but the model's"""
        self._config, self._preprocessor = config, preprocessor
        self.front = front_end(config, preprocessor)
        self.min_samples = self.front.min_samples
        _check_layer(layer, config.num_hidden_layers)
        self.source, self.layer, self.frozen = source, layer, freeze
        self.num_layers = config.num_hidden_layers
        # an adapter (strided convolutions after the transformer) belongs to the last layer only
        adapted = layer == "last" and getattr(config, "add_adapter", False)
        steps = config.adapter_stride**config.num_adapter_layers if adapted else 1
        self.frame_rate = SAMPLE_RATE / (self.front.samples_per_frame * steps)  # frames per second
        self.output_size = config.output_hidden_size if adapted else config.hidden_size
        self._can_pad = config.model_type in PADDED and not adapted

    def _take(self, model, freeze_extractor):
        self.model = model
        if self._can_pad:
            attention.use_in(self.model)
        self._batch = keep_padding_out(self.model) if self._can_pad else Batch()
        self._layers_above = self._cut_layers_above()
        if self.layer == "weighted":
            self.layer_mix = nn.Parameter(torch.zeros(self.num_layers + 1))
        self._set_trained_weights(freeze_extractor)
        self.train()

    def forward(self, wavs=None, wav_lens=None, states=None, frame_lens=None):
        """wavs (B, T) at 16 kHz, wav_lens (B,) relative -> frames (B, F, D) float32, frame_lens (B,) int64

        Instead of waveforms it takes the states (B, F, K, D) and frame_lens (B,) that `states` gave for them.
        Frames beyond frame_lens are zeros. Raises ValueError for lengths outside (0, 1] or under min_samples.
        """
        if states is None:
            frames, frame_lens = self._run(wavs, wav_lens, self._mixed)
        else:
            frames = self.mix(states.float().unbind(2))
        return FRAME_NORMS[self.frame_norm](frames.float(), frame_lens), frame_lens

    def states(self, wavs, wav_lens):
        """As `forward`, but what `mix` takes: states (B, F, K, D), frame_lens (B,). K is 1, or for layer
        "weighted" num_layers + 1. They depend on no trained weight of a frozen encoder: one may keep them."""
        return self._run(wavs, wav_lens, self._stacked)

    def hidden_states(self, wavs, wav_lens, layers):
        """As `forward`, but the hidden states of `layers` (K indices), as the model gives them, not
        normalised: states (B, F, K, D) float32, frame_lens (B,). Frames beyond frame_lens mean nothing.

        An encoder of `layer` k has those up to k. Raises ValueError for another.
        """
        for layer in layers:
            _check_layer(layer, self.num_layers - len(self._layers_above))

        def read(inputs, attention_mask):
            with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
                output = self.model(inputs, attention_mask=attention_mask, output_hidden_states=True)
            return torch.stack([output.hidden_states[layer].float() for layer in layers], dim=2)

        return self._run(wavs, wav_lens, read)

    def mix(self, states):
        """K tensors (B, F, D) -> frames (B, F, D): the only one, or their learned sum"""
        if self.layer != "weighted":
            return states[0]
        frames = 0.0
        for weight, state in zip(self.layer_mix.float().softmax(0), states, strict=True):
            frames = frames + weight * state
        return frames

    def train(self, mode=True):
        """As nn.Module's, but a frozen model stays in eval mode and batch norms keep their statistics."""
        super().train(mode)
        if self.frozen:
            self.model.eval()
        for module in self.model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
        return self

    def description(self):
        """What the states depend on besides the weights, as JSON values"""
        layer = self.layer if self.layer == "last" or isinstance(self.layer, int) else "all"
        return {"config": self._config.to_dict(), "preprocessor": self._preprocessor, "layer": layer}

    def pretrained_parameters(self):
        """The model's own parameters: all but the learned mix of layers"""
        return self.model.parameters()

    def layer_weights(self):
        """Softmax weights (num_layers + 1,) of the hidden states. Raises ValueError if layer is another."""
        if self.layer != "weighted":
            raise ValueError(f"layer is {self.layer!r}: only layer 'weighted' has layer weights.")
        return self.layer_mix.detach().float().softmax(0)

    def export(self, folder, extra=None):
        """Write the model as a Hugging Face folder, with the config and input normalisation of its source.

        extra: {file name: text}, written with it. `AutoModel.from_pretrained` finds no missing or unexpected
        weight.
        """
        weights = self.model.state_dict()
        first = self.num_layers - len(self._layers_above)
        for i, layer in enumerate(self._layers_above, first):
            weights.update({f"encoder.layers.{i}.{name}": w for name, w in layer.state_dict().items()})
        write_model(folder, self.model, weights, self._config, self._preprocessor, extra or {})

    def _pads(self, device):
        """Whether a batch runs padded. Not on a CPU, where one utterance after the other takes half the time
        (benchmarks/encoders.py): no work on padding, smaller temporaries."""
        return self._can_pad and device.type != "cpu"

    def _run(self, wavs, wav_lens, read):
        """wavs (B, T), wav_lens (B,) -> what `read` makes of inputs, frame_lens (B,)"""
        lens = true_lengths(wavs, wav_lens, self.min_samples)
        wavs = wavs[:, : int(lens.max())]
        run = self._run_padded if self._pads(wavs.device) else self._run_by_length
        frames, frame_lens = run(wavs, lens, read)
        return frames, frame_lens.to(wavs.device)

    def _run_padded(self, wavs, lens, read):
        """wavs (B, T), lens (B,) -> frames (B, F, ...), frame_lens (B,): one padded batch."""
        ragged = bool((lens != lens[0]).any())
        lens = lens.to(wavs.device)
        inputs, input_lens, frame_lens = self.front(wavs, lens)
        valid = valid_mask(frame_lens, int(frame_lens.max())) if ragged else None
        self._batch.samples, self._batch.valid = lens, valid
        return read(inputs, valid_mask(input_lens, inputs.shape[1]).long() if ragged else None), frame_lens

    def _run_by_length(self, wavs, lens, read):
        """wavs (B, T), lens (B,) -> frames (B, F, ...), frame_lens (B,): equal lengths together, unpadded"""
        frames = [None] * len(lens)
        for length in lens.unique().tolist():
            rows = (lens == length).nonzero()[:, 0].tolist()
            equal = lens[rows].to(wavs.device)
            self._batch.samples, self._batch.valid = equal, None
            inputs, _, _ = self.front(wavs[rows, :length], equal)
            for row, utterance in zip(rows, read(inputs, None), strict=True):
                frames[row] = utterance
        frame_lens = torch.tensor([len(utterance) for utterance in frames])
        return nn.utils.rnn.pad_sequence(frames, batch_first=True), frame_lens

    def _mixed(self, inputs, attention_mask):
        return self.mix(self._states(inputs, attention_mask))

    def _stacked(self, inputs, attention_mask):
        return torch.stack([state.float() for state in self._states(inputs, attention_mask)], dim=2)

    def _states(self, inputs, attention_mask):
        """inputs (B, T) or (B, F, mel) -> K tensors (B, F, D): of the chosen layer, or normalised of all"""
        hidden = self.layer != "last"
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            output = self.model(inputs, attention_mask=attention_mask, output_hidden_states=hidden)
        if self.layer == "last":
            return [output.last_hidden_state]
        if self.layer != "weighted":
            return [output.hidden_states[self.layer]]
        # one at a time: a copy of every layer would double the memory
        return (F.layer_norm(state.float(), state.shape[-1:]) for state in output.hidden_states)

    def _cut_layers_above(self):
        """Take the layers that come after the chosen one off the model. They are kept, for `export`."""
        if not self._can_pad or not isinstance(self.layer, int):
            return []
        layers, keep = self.model.encoder.layers, max(1, self.layer)  # hidden state 0 is seen by layer 1
        self.model.encoder.layers = layers[:keep]
        return list(layers[keep:])

    def _set_trained_weights(self, freeze_extractor):
        if self.frozen:
            self.model.requires_grad_(False)
            return
        extractor = getattr(self.model, "feature_extractor", None)  # wav2vec2-BERT has none
        if extractor is not None:
            # or it asks for the gradient of the waveform, which costs as much as that of a convolution
            extractor._requires_grad = False
            extractor.requires_grad_(not freeze_extractor)
        unused = _freeze_unreached(self)
        if unused:
            listed = first_five(unused)
            logger.info("%s: not trained, as they do not reach the frames: %s", self.source, listed)


class MelFilterbank(nn.Module):
    """80 log-mel energies, 25 ms windows every 10 ms, without trained parameters.

    Kaldi's filterbank (see `LogMel`); each bin has mean 0 and variance 1 over the frames of its utterance.
    Frames lie within the utterance (no padding at the edges), so frame_lens = (samples - 400) // 160 + 1.
    """

    source, layer, num_layers, frozen, output_size = MEL_FILTERBANK, "last", 0, True, 80
    frame_rate, frame_norm = 100.0, "cmvn"

    def __init__(self):
        super().__init__()
        self.log_mel = LogMel(self.output_size)
        self.min_samples = LogMel.WINDOW

    def forward(self, wavs, wav_lens):
        """wavs (B, T), wav_lens (B,) relative -> frames (B, F, 80), zeros beyond frame_lens (B,) int64"""
        lens = true_lengths(wavs, wav_lens, self.min_samples)
        with torch.no_grad():
            return self.log_mel(wavs[:, : int(lens.max())], lens.to(wavs.device))

    def pretrained_parameters(self):
        """None: a filterbank is not trained"""
        return iter(())

    def layer_weights(self):
        raise ValueError(f"{MEL_FILTERBANK} has no layers, so no layer weights.")


# Keeping the padding out of the frames


def _without_padding(frames, frame_lens):
    """frames (B, F, D), frame_lens (B,) -> zeros beyond frame_lens"""
    return frames.masked_fill(~valid_mask(frame_lens, frames.shape[1])[:, :, None], 0.0)


def _cmvn(frames, frame_lens):
    return standardise(frames, frame_lens, correction=0)


def _normalise_utterance(frames, frame_lens):
    values = frames.flatten(1)[:, :, None]
    return standardise(values, frame_lens * frames.shape[2], correction=0).view_as(frames)


FRAME_NORMS = {"none": _without_padding, "cmvn": _cmvn, "utterance": _normalise_utterance}


def _freeze_unreached(encoder):
    """Weights that the frames do not depend on get requires_grad False. Returns their names.

    A run on several devices stops at a weight that waits for a gradient in vain.
    """
    encoder.eval()
    wav = torch.sin(torch.arange(2 * encoder.min_samples) / 10)[None]
    with torch.enable_grad():
        frames, _ = encoder(wav, torch.ones(1))
    reached, seen, nodes = set(), set(), [frames.grad_fn]
    while nodes:
        node = nodes.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        reached.add(id(getattr(node, "variable", None)))
        nodes.extend(parent for parent, _ in node.next_functions)
    unused = [n for n, p in encoder.named_parameters() if p.requires_grad and id(p) not in reached]
    for name in unused:
        encoder.get_parameter(name).requires_grad_(False)
    return unused


def _check_layer(layer, num_layers):
    index = isinstance(layer, int) and not isinstance(layer, bool) and 0 <= layer <= num_layers
    if index and num_layers > 0 or layer == "last" or (layer == "weighted" and num_layers > 0):
        return
    if num_layers == 0:
        raise ValueError(f"layer {layer!r}: {MEL_FILTERBANK} has no layers, its layer is 'last'.")
    raise ValueError(
        f"layer {layer!r}: this encoder has {num_layers} layers: 'last', 'weighted' or 0 to {num_layers}."
    )


def _without_augmentation(config):
    config = copy.deepcopy(config)
    config.apply_spec_augment, config.layerdrop = False, 0.0
    return config
