"""Padding kept out of every frame of a batch: what the modules of a padded model are changed to do.

B utterances, T samples, C channels, K taps of the first convolution, N of its frames.
"""

import torch
from torch import nn

from lebench_sb.core.masks import valid_mask


def channel_statistics(taps, mean, covariance):
    """Mean and variance over time of a convolution's output, from those of its input's windows.

    taps (C, K); mean (K,) and covariance (K, K), float64, of the K-sample windows of an utterance -> mean w m
    and variance w C w' of each channel (C,), float64, the bias left out. In float64: neighbouring samples are
    alike, and a channel that subtracts them keeps little of C. (Autocast leaves float64 alone.)
    """
    return taps.double() @ mean, ((taps.double() @ covariance) * taps).sum(dim=1)


class Batch:
    """The running batch, for the modules below: samples (B,); valid (B, F), or None without padding"""

    samples = None
    valid = None


class GroupNormFirstConv(nn.Module):
    """The first layer of a group-norm extractor, with the statistics of each utterance's own samples.

    Group norm has one channel per group: it needs the mean and variance of each channel over time, which
    `channel_statistics` gives without another pass over the (B, C, N) output. Takes over the weights of the
    layer it replaces, under the same names.
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
        valid = valid_mask(counts, windows.shape[1])[:, :, None]
        counts = counts[:, None]
        mean = windows.masked_fill(~valid, 0.0).sum(1) / counts  # (B, K)
        centred = (windows - mean[:, None]).masked_fill(~valid, 0.0)
        covariance = centred.transpose(1, 2) @ centred / counts[:, :, None]  # (B, K, K)
        pairs = zip(mean, covariance, strict=True)
        statistics = [channel_statistics(self.conv.weight[:, 0], *one) for one in pairs]
        mean, variance = (torch.stack(both) for both in zip(*statistics, strict=True))  # (B, C)
        scale = self.layer_norm.weight * (variance.clamp_min(0.0) + self.layer_norm.eps).rsqrt()
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


def keep_padding_out(model):
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
