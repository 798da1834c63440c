"""Waveforms -> frames and their numbers: SSL encoders of the Hugging Face family, and a mel filterbank.

    encoder = load_encoder("LeBenchmark/wav2vec2-FR-7K-large", layer="weighted")
    frames, frame_lens = encoder(wavs, wav_lens)

The reference is the Hugging Face feature extractor and model on the utterance alone, in eval mode: in a
padded batch every utterance gets those frames. Axes: B utterances, T samples (16 kHz), F frames, D features,
M mel frames.
"""

import copy
import json
import logging
import math
import os
import pickle
import re
import shutil
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import huggingface_hub
import torch
import torch.nn.functional as F
import transformers
from huggingface_hub import errors as hub_errors
from safetensors import SafetensorError
from torch import nn
from transformers.audio_utils import mel_filter_bank

from lebench_sb import attention

logger = logging.getLogger(__name__)

SAMPLE_RATE = 16000
MEL_FILTERBANK = "mel_filterbank"
RANDOM = "random:"
RANDOM_SEED = 0

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
        folder = _locate(source.removeprefix(RANDOM), with_weights=not untrained)
        config = _config(folder)
        self._describe(source, config, _preprocessor(folder, config), layer, freeze)
        config = _without_augmentation(config)
        model = _random_model(config) if untrained else _load_strictly(folder, config)
        self._take(model, freeze_extractor)

    @classmethod
    def around(cls, model, do_normalize):
        """The SSLEncoder that trains a transformers model made in memory (whose config loses SpecAugment and
        LayerDrop).

        do_normalize: whether the model receives waveforms of mean 0 and variance 1.
        """
        encoder = cls.__new__(cls)
        nn.Module.__init__(encoder)
        preprocessor = _preprocessor_of(model, do_normalize).to_dict()
        encoder._describe(type(model).__name__, copy.deepcopy(model.config), preprocessor, "last", False)
        model.config.apply_spec_augment, model.config.layerdrop = False, 0.0
        encoder._take(model, freeze_extractor=False)
        return encoder

    def _describe(self, source, config, preprocessor, layer, freeze):
        """Sets what follows from config and preprocessor: all attributes but the model's"""
        self._config, self._preprocessor = config, preprocessor
        self.front = _front_end(config, preprocessor)
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
        self._batch = _keep_padding_out(self.model) if self._can_pad else Batch()
        self._layers_above = self._cut_layers_above()
        if self.layer == "weighted":
            self.layer_mix = nn.Parameter(torch.zeros(self.num_layers + 1))
        self._set_trained_weights(freeze_extractor)
        self.train()

    def forward(self, wavs, wav_lens):
        """wavs (B, T) at 16 kHz, wav_lens (B,) relative -> frames (B, F, D) float32, frame_lens (B,) int64

        Instead of waveforms it takes the states (B, F, K, D) and frame_lens that `states` gave for them.
        Frames beyond frame_lens are zeros. Raises ValueError for lengths outside (0, 1] or under min_samples.
        """
        if wavs.ndim == 4:
            frames, frame_lens = self.mix(wavs.float().unbind(2)), wav_lens
        else:
            frames, frame_lens = self._run(wavs, wav_lens, self._mixed)
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
        _write_model(folder, self.model, weights, self._config, self._preprocessor, extra or {})

    def _pads(self, device):
        """Whether a batch runs padded. Not on a CPU, where one utterance after the other takes half the time
        (benchmarks/encoders.py): no work on padding, smaller temporaries."""
        return self._can_pad and device.type != "cpu"

    def _run(self, wavs, wav_lens, read):
        """wavs (B, T), wav_lens (B,) -> what `read` makes of inputs, frame_lens (B,)"""
        lens = _true_lengths(wavs, wav_lens, self.min_samples)
        wavs = wavs[:, : int(lens.max())]
        run = self._run_padded if self._pads(wavs.device) else self._run_by_length
        frames, frame_lens = run(wavs, lens, read)
        return frames, frame_lens.to(wavs.device)

    def _run_padded(self, wavs, lens, read):
        """wavs (B, T), lens (B,) -> frames (B, F, ...), frame_lens (B,): one padded batch."""
        ragged = bool((lens != lens[0]).any())
        lens = lens.to(wavs.device)
        inputs, input_lens, frame_lens = self.front(wavs, lens)
        valid = _mask(frame_lens, int(frame_lens.max())) if ragged else None
        self._batch.samples, self._batch.valid = lens, valid
        return read(inputs, _mask(input_lens, inputs.shape[1]).long() if ragged else None), frame_lens

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
        lens = _true_lengths(wavs, wav_lens, self.min_samples)
        with torch.no_grad():
            return self.log_mel(wavs[:, : int(lens.max())], lens.to(wavs.device))

    def pretrained_parameters(self):
        """None: a filterbank is not trained"""
        return iter(())

    def layer_weights(self):
        raise ValueError(f"{MEL_FILTERBANK} has no layers, so no layer weights.")


# From waveforms to what the model receives


class Waveform(nn.Module):
    """The waveform itself, with mean 0 and variance 1 per utterance where the checkpoint says `do_normalize`.

    As Wav2Vec2FeatureExtractor.zero_mean_unit_var_norm (1e-7 is added to the variance), over the valid
    samples.
    """

    def __init__(self, config, normalize):
        super().__init__()
        self.normalize = normalize
        self.convs = list(zip(config.conv_kernel, config.conv_stride, strict=True))
        self.samples_per_frame = math.prod(config.conv_stride)
        self.min_samples = getattr(config, "squeeze_factor", 1)  # SEW pools that many frames
        for kernel, stride in reversed(self.convs):
            self.min_samples = (self.min_samples - 1) * stride + kernel

    def forward(self, wavs, lens):
        """wavs (B, T), lens (B,) -> inputs (B, T), lens, frame_lens (B,)"""
        valid = _mask(lens, wavs.shape[1])
        wavs = wavs.float().masked_fill(~valid, 0.0)
        if self.normalize:
            wavs = _standardise(wavs[:, :, None], lens, correction=0)[:, :, 0]
        frame_lens = lens
        for kernel, stride in self.convs:
            frame_lens = (frame_lens - kernel) // stride + 1
        return wavs, lens, frame_lens


class StackedLogMel(nn.Module):
    """Log-mel frames stacked by two: the input of wav2vec2-BERT, as SeamlessM4TFeatureExtractor computes it.

    That extractor fills an odd last mel frame up with padding, then masks the pair: it is left out here.
    """

    def __init__(self, mels, stack):
        super().__init__()
        self.log_mel, self.stack = LogMel(mels), stack
        self.min_samples = LogMel.WINDOW + (stack - 1) * LogMel.HOP
        self.samples_per_frame = stack * LogMel.HOP

    def forward(self, wavs, lens):
        """wavs (B, T), lens (B,) -> inputs (B, F, stack * mels), frame_lens (B,), frame_lens"""
        mels, mel_lens = self.log_mel(wavs, lens)
        frame_lens = mel_lens // self.stack
        num_frames = mels.shape[1] // self.stack
        inputs = mels[:, : num_frames * self.stack].reshape(len(mels), num_frames, -1)
        return inputs.masked_fill(~_mask(frame_lens, num_frames)[:, :, None], 0.0), frame_lens, frame_lens


class LogMel(nn.Module):
    """Kaldi's log-mel filterbank, each bin with mean 0 and variance 1 over the utterance.

    As kaldi/src/feat/feature-fbank.cc with snip-edges and without dither: samples at 16-bit scale,
    25 ms windows every 10 ms without their mean, pre-emphasis 0.97, Povey window, power of a 512-point FFT,
    triangular filters on Kaldi's mel scale from 20 Hz to 8 kHz, logarithm.
    Computed in float64: in float32 the rounding of a loud window reaches its silent bins.
    """

    WINDOW, HOP, FFT = 400, 160, 512  # samples at 16 kHz
    FLOOR = 1.192092955078125e-07  # float32's epsilon, as in Kaldi

    def __init__(self, mels=80):
        super().__init__()
        filters = mel_filter_bank(
            self.FFT // 2 + 1, mels, 20, SAMPLE_RATE // 2, SAMPLE_RATE, None, "kaldi", True
        )
        window = torch.hann_window(self.WINDOW, periodic=False, dtype=torch.float64) ** 0.85
        self.register_buffer("filters", torch.from_numpy(filters), persistent=False)  # (257, mels)
        self.register_buffer("window", window, persistent=False)

    def forward(self, wavs, lens):
        """wavs (B, T), lens (B,) samples -> log-mel (B, M, mels) float32, zeros beyond mel_lens (B,)"""
        windows = (wavs.double() * 2**15).unfold(-1, self.WINDOW, self.HOP)
        windows = windows - windows.mean(-1, keepdim=True)
        previous = torch.cat([windows[..., :1], windows[..., :-1]], -1)
        spectrum = torch.fft.rfft((windows - 0.97 * previous) * self.window.double(), self.FFT)
        power = spectrum.real.square() + spectrum.imag.square()
        mels = (power @ self.filters.double()).clamp_min(self.FLOOR).log()
        mel_lens = (lens - self.WINDOW) // self.HOP + 1
        return _standardise(mels, mel_lens, correction=1).float(), mel_lens


def _front_end(config, preprocessor):
    """The module that makes the model's inputs, their lengths and the numbers of frames of wavs and lens."""
    if hasattr(config, "conv_kernel") and hasattr(config, "conv_stride"):
        return Waveform(config, preprocessor.get("do_normalize", True))
    if preprocessor.get("feature_extractor_type") == "SeamlessM4TFeatureExtractor":
        return StackedLogMel(preprocessor.get("num_mel_bins", 80), preprocessor.get("stride", 2))
    raise ValueError(
        f"model type {config.model_type!r} is no encoder of waveforms: it has no convolutional extractor, "
        "nor the log-mel frames of SeamlessM4TFeatureExtractor."
    )


# Keeping the padding out of the frames


class Batch:
    """The running batch, for the modules below: samples (B,); valid (B, F), or None without padding"""

    samples = None
    valid = None


class GroupNormFirstConv(nn.Module):
    """The first layer of a group-norm extractor, with the statistics of each utterance's own samples.

    Group norm has one channel per group: it needs the mean and variance of each channel over time. Up to
    there the layer is linear, so both follow from the mean m (K,) and covariance C (K, K) of the K-sample
    windows of the waveform: mean = w m + b and variance = w C w', without another pass over the (B, C, N)
    output. In float64: neighbouring samples are alike, and a channel that subtracts them keeps little of C.
    (Autocast leaves float64 alone.) Takes over the weights of the layer it replaces, under the same names.
    """

    def __init__(self, layer, batch):
        super().__init__()
        self.conv, self.layer_norm, self.activation = layer.conv, layer.layer_norm, layer.activation
        self.batch = batch

    def forward(self, wavs):
        """wavs (B, 1, T) -> (B, C, N)"""
        scale, shift = self._scale_and_shift(wavs[:, 0].double())
        hidden = self.conv(wavs)
        hidden = torch.addcmul(shift[:, :, None].to(hidden), hidden, scale[:, :, None].to(hidden))
        return self.activation(hidden)

    def _scale_and_shift(self, wavs):
        """wavs (B, T) -> scale, shift (B, C): what group norm multiplies by and adds"""
        kernel, stride = self.conv.kernel_size[0], self.conv.stride[0]
        windows = wavs.unfold(-1, kernel, stride)  # (B, N, K)
        counts = (self.batch.samples - kernel) // stride + 1
        valid = _mask(counts, windows.shape[1])[:, :, None]
        counts = counts[:, None]
        mean = windows.masked_fill(~valid, 0.0).sum(1) / counts  # (B, K)
        centred = (windows - mean[:, None]).masked_fill(~valid, 0.0)
        covariance = centred.transpose(1, 2) @ centred / counts[:, :, None]  # (B, K, K)
        taps = self.conv.weight[:, 0].double()  # (C, K)
        variance = ((taps @ covariance) * taps).sum(-1).clamp_min(0.0)  # (B, C)
        scale = self.layer_norm.weight * (variance + self.layer_norm.eps).rsqrt()
        mean = mean @ taps.T
        if self.conv.bias is not None:
            mean = mean + self.conv.bias
        return scale, self.layer_norm.bias - scale * mean


class ZeroPadding:
    """Forward pre-hook of a convolution: zeros in the padding of its input (B, D, F), as it meets beyond the
    edges of an utterance alone"""

    def __init__(self, batch):
        self.batch = batch

    def __call__(self, module, inputs):
        if self.batch.valid is None:
            return None
        return (inputs[0].masked_fill(~self.batch.valid[:, None], 0.0),)


def _keep_padding_out(model):
    """Change `model` so that padding reaches no frame. Returns the Batch to fill in before each run."""
    batch = Batch()
    extractor = getattr(model, "feature_extractor", None)
    if extractor is not None and getattr(model.config, "feat_extract_norm", "layer") == "group":
        extractor.conv_layers[0] = GroupNormFirstConv(extractor.conv_layers[0], batch)
    for module in model.encoder.modules():
        # one that pads nothing itself is pointwise or causal: it never reads beyond the utterance
        if isinstance(module, nn.Conv1d) and module.padding != (0,):
            module.register_forward_pre_hook(ZeroPadding(batch))
    return batch


def _true_lengths(wavs, wav_lens, min_samples):
    """wavs (B, T), wav_lens (B,) relative -> samples (B,) int64, on the CPU. Raises ValueError."""
    if wavs.dim() != 2 or wav_lens.shape != wavs.shape[:1]:
        raise ValueError(
            f"an encoder takes wavs (B, T) and wav_lens (B,), not {tuple(wavs.shape)} and "
            f"{tuple(wav_lens.shape)}."
        )
    relative = wav_lens.detach().cpu().double()
    if not bool(((relative > 0) & (relative <= 1 + 1e-6)).all()):
        raise ValueError(
            f"wav_lens are relative lengths in (0, 1], not {relative.tolist()[:5]}: divide the numbers of "
            f"samples by the longest, {wavs.shape[1]}."
        )
    lens = (relative * wavs.shape[1]).round().long()
    short = [i for i, length in enumerate(lens.tolist()) if length < min_samples]
    if short:
        raise ValueError(
            f"utterance {short[0]} of the batch has {int(lens[short[0]])} samples; the shortest with one "
            f"frame has {min_samples} ({1000 * min_samples / SAMPLE_RATE:.1f} ms). Raise min_duration, or "
            f"drop {len(short)} of these {len(lens)}."
        )
    return lens


def _mask(lens, size):
    """lens (B,) -> (B, size) bool, True within the length"""
    return torch.arange(size, device=lens.device) < lens[:, None]


def _standardise(values, lens, correction):
    """values (B, N, D), lens (B,) -> mean 0, variance 1 over the first lens[b] of N, zeros beyond

    correction: 1 divides the sum of squares by n - 1 (by 1 if n is 1), 0 by n.
    """
    padding = ~_mask(lens, values.shape[1])[:, :, None]
    counts = lens[:, None, None]
    mean = values.masked_fill(padding, 0.0).sum(1, keepdim=True) / counts
    centred = (values - mean).masked_fill(padding, 0.0)
    variance = centred.square().sum(1, keepdim=True) / (counts - correction).clamp_min(1)
    return centred / (variance + 1e-7).sqrt()


def _without_padding(frames, frame_lens):
    """frames (B, F, D), frame_lens (B,) -> zeros beyond frame_lens"""
    return frames.masked_fill(~_mask(frame_lens, frames.shape[1])[:, :, None], 0.0)


def _cmvn(frames, frame_lens):
    return _standardise(frames, frame_lens, correction=0)


def _normalise_utterance(frames, frame_lens):
    values = frames.flatten(1)[:, :, None]
    return _standardise(values, frame_lens * frames.shape[2], correction=0).view_as(frames)


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


# Finding and loading a checkpoint


def _without_augmentation(config):
    config = copy.deepcopy(config)
    config.apply_spec_augment, config.layerdrop = False, 0.0
    return config


def _locate(source, with_weights):
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


def _config(folder):
    if not (folder / "config.json").exists():
        if any(folder.glob("*.ckpt")) or any(folder.glob("checkpoint*.pt")):
            raise ValueError(f"{folder} has no config.json but another toolkit's checkpoints. {IMPORT_HINT}")
        raise FileNotFoundError(f"{folder} holds no config.json: it is not a Hugging Face folder.")
    read_json(folder / "config.json")  # names the file if it is broken
    try:
        return transformers.AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except ValueError as error:
        raise ValueError(f"{folder}/config.json: {first_line(error)}") from None


def _preprocessor(folder, config):
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


def _random_model(config):
    """The architecture of `config`, from RANDOM_SEED; the random generators are left as they were."""
    with torch.random.fork_rng(devices=[]), quiet_transformers():
        torch.random.default_generator.manual_seed(RANDOM_SEED)
        return transformers.AutoModel.from_config(config, dtype=torch.float32)


def _load_strictly(folder, config):
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
    extractor = _preprocessor_of(model, do_normalize)
    _write_model(folder, model, model.state_dict(), model.config, extractor.to_dict(), extra or {})


def _preprocessor_of(model, do_normalize):
    return transformers.Wav2Vec2FeatureExtractor(
        sampling_rate=SAMPLE_RATE,
        do_normalize=do_normalize,
        return_attention_mask=getattr(model.config, "feat_extract_norm", "layer") == "layer",
    )


def _write_model(folder, model, weights, config, preprocessor, extra):
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
