"""What the kernels compute, in PyTorch's own operations and one utterance at a time.

Slow, and right by reading: tests compare every kernel with these functions, which have the same arguments.
B utterances of T samples, N frames of all utterances together, D features.
"""

import torch


def extract(conv_layers, wavs, sample_lens, dtype):
    """HF `feature_extractor.conv_layers` on wavs (B, T) of sample_lens (B ints) -> frames (N, C) of dtype"""
    extracted = []
    for wav, samples in zip(wavs, sample_lens, strict=True):
        hidden = wav[None, None, :samples]
        for layer in conv_layers:
            hidden = layer(hidden)
        extracted.append(hidden[0].t())
    return torch.cat(extracted).to(dtype)


def positions(pos_conv_embed, hidden, frame_lens):
    """HF Wav2Vec2PositionalConvEmbedding on hidden (N, D) of utterances of frame_lens -> (N, D)"""
    return torch.cat([pos_conv_embed(one[None])[0] for one in hidden.split(frame_lens)])


def linear(layer, x):
    """nn.Linear `layer` on x (N, D) -> (N, O)"""
    return layer(x)


def attend(queries, keys, values, dropout=0.0, scale=None, bias=None):
    """(B, heads, Q, d), twice (B, heads, K, d) -> (B, heads, Q, d); bias (B, heads, Q, K) or None"""
    scores = queries @ keys.transpose(2, 3) * (scale or queries.shape[-1] ** -0.5)
    weights = (scores if bias is None else scores + bias).softmax(-1)
    return torch.nn.functional.dropout(weights, dropout) @ values
