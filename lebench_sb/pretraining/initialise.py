"""A start for the convolutional extractor that already hears spectra, and for the quantiser.

With random filters the first frames of a small model depend on the phase of the waveform more than on the
sound, their codes jump from frame to frame, nothing predicts them, and the contrastive loss stays at chance
for hundreds of updates. Band-pass filters followed by smoothing make the first codes a random projection of a
spectrum, which context does predict (as the fixed random quantiser of BEST-RQ: Chiu et al., 2022, section
3.1).
"""

import math

import torch

from lebench_sb.audio.waveforms import SAMPLE_RATE


@torch.no_grad()
def filterbank_start(feature_extractor):
    """Overwrites the convolutions of an HF Wav2Vec2FeatureEncoder: the first with `band_pass_filters`, the
    later ones with random mixtures of channels under a smooth window in time. Biases become 0; norms are left
    alone."""
    for index, layer in enumerate(feature_extractor.conv_layers):
        weight = layer.conv.weight
        if index == 0:
            weight.copy_(band_pass_filters(*weight.shape[::2])[:, None])
        else:
            mixture = torch.randn(weight.shape[:2]) / math.sqrt(weight.shape[1])
            window = torch.hann_window(weight.shape[2] + 2, periodic=False)[1:-1]
            weight.copy_(mixture[:, :, None] * window / window.sum())
        if layer.conv.bias is not None:
            layer.conv.bias.zero_()


def band_pass_filters(channels, taps):
    """-> (channels, taps): windowed sines and cosines (a pair per band) at centres evenly spaced in mel from
    60 Hz to 7.6 kHz, each of norm 1; an odd last channel gets a cosine."""
    low, high = mel(60.0), mel(7600.0)
    bands = -(-channels // 2)
    centres = torch.linspace(low, high, bands)
    hertz = 700.0 * (10 ** (centres / 2595.0) - 1)
    time = (torch.arange(taps) - (taps - 1) / 2) / SAMPLE_RATE
    phase = 2 * math.pi * hertz[:, None] * time
    pairs = torch.stack([phase.cos(), phase.sin()], dim=1).flatten(0, 1)[:channels]
    filters = pairs * torch.hamming_window(taps, periodic=False)
    return filters / filters.norm(dim=1, keepdim=True).clamp_min(1e-6)


def mel(hertz):
    """O'Shaughnessy's mel scale"""
    return 2595.0 * math.log10(1 + hertz / 700.0)


@torch.no_grad()
def init_quantizer(model, wavs, sample_lens, whitening=0.35):
    """Fits the quantiser's projection and codevectors to the frames of a first batch.

    model: PretrainingModel; wavs (B, T), sample_lens (B,). Features f of covariance C and mean m become
    C^-whitening (f - m) (0.5 would be whitening proper, and give noise the weight of speech), so that no few
    codes win nearly all frames, which the diversity loss would have to undo against the contrastive loss.
    Codevectors lose their common part, with which all targets look alike to a cosine (transformers draws them
    from [0, 1]).
    All processes take the statistics of the first one, whose batch a run of one process would begin with.
    Frames that are not finite take no part. -> False, and nothing is changed, where no frame is finite.
    Weights that a folder gave (`model.is_fresh`) are never changed.
    """
    features = model.valid_features(wavs, sample_lens).double()
    finite = features.isfinite().all(dim=1, keepdim=True)
    extended = torch.cat([features.where(finite, 0.0), finite.double()], dim=1)
    moments = extended.T @ extended
    if torch.distributed.is_initialized():
        torch.distributed.broadcast(moments, 0)
    count = moments[-1, -1]
    if count == 0:
        return False
    mean = moments[-1, :-1] / count
    values, vectors = torch.linalg.eigh(moments[:-1, :-1] / count - mean[:, None] * mean)
    floor = 1e-3 * values.max()
    transform = (vectors * values.clamp_min(floor) ** -whitening) @ vectors.T
    projection = model.hf.quantizer.weight_proj
    weight = projection.weight.double() @ transform
    if all(model.is_fresh(f"quantizer.weight_proj.{name}") for name in ("weight", "bias")):
        projection.weight.copy_(weight)
        projection.bias.copy_(-weight @ mean)
    if model.is_fresh("quantizer.codevectors"):
        model.hf.quantizer.codevectors.sub_(0.5)
    return True
