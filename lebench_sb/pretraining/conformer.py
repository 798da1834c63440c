"""The Conformer context network (Gulati et al., 2020) of a transformers `Wav2Vec2ConformerForPreTraining`.

N valid frames of all utterances one after the other, D features, H heads of d; letters as in model.py. Each
utterance attends to itself and meets zeros beyond its edges in the depthwise convolutions, so padding is seen
nowhere. In training batch normalisation takes mean and variance over the N frames of the micro-batch; in
evaluation, when it uses its running ones, a batch gives what its utterances give alone.

transformers never calls this encoder's convolutional position embedding: it is kept in the folders and not
trained.
"""

from functools import partial

import torch
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from lebench_sb.encoders.attention import attend
from lebench_sb.pretraining.kernels.linear import feed_forward, linear


def encode(encoder, hidden, batch, layers, checkpointing):
    """hidden (N, D), layers: those that LayerDrop keeps -> (M, D) at the masked frames of the batch

    checkpointing: all but the convolutions is computed again in the backward pass (their batch normalisation
    would count the batch twice)
    """
    run = partial(checkpoint, use_reentrant=False) if checkpointing else call
    hidden, lens = encoder.dropout(hidden), batch.frame_lens
    table = position_table(encoder, max(lens), hidden.device)
    for layer in layers[:-1]:
        hidden = conformer_layer(layer, hidden, lens, table, run)
    if not layers:
        return encoder.layer_norm(hidden[batch.masked])
    # nobody looks at the last layer's other frames
    return encoder.layer_norm(conformer_layer(layers[-1], hidden, lens, table, run, batch.masked))


def call(function, *arguments):
    return function(*arguments)


def position_table(encoder, longest, device):
    """Encodings of the relative positions, (1, 2F - 1, D), or of rotations, (2, F, 1, 1, d), in float32; None
    without positions. F: frames of the longest utterance."""
    if encoder.embed_positions is None:
        return None
    # of its argument the module reads length, type and device; it keeps what it made in that type
    return encoder.embed_positions(torch.empty(1, longest, 0, device=device))


def conformer_layer(layer, hidden, lens, table, run, rows=None):
    """hidden (N, D) -> (N, D), or (len(rows), D): half a feed-forward block, attention, convolution, half a
    feed-forward block, each added to its input, and a norm. run: calls a function on its arguments."""
    hidden = run(attend_layer, layer, hidden, lens, table)
    convolved = convolve(layer.conv_module, hidden, lens, rows)
    hidden = (hidden if rows is None else hidden[rows]) + convolved
    return run(finish_layer, layer, hidden)


def attend_layer(layer, hidden, lens, table):
    """hidden (N, D) -> (N, D): half a feed-forward block and attention"""
    hidden = hidden + 0.5 * feed_forward(layer.ffn1, layer.ffn1_layer_norm(hidden))
    attended = attend_by_utterance(layer.self_attn, layer.self_attn_layer_norm(hidden), lens, table)
    return hidden + layer.self_attn_dropout(attended)


def finish_layer(layer, hidden):
    """hidden (N, D) -> (N, D): half a feed-forward block and the layer's norm"""
    hidden = hidden + 0.5 * feed_forward(layer.ffn2, layer.ffn2_layer_norm(hidden))
    return layer.final_layer_norm(hidden)


def convolve(module, x, lens, rows=None):
    """Gated pointwise, depthwise and pointwise convolution: x (N, D) -> (N, D), or (len(rows), D)"""
    x = F.glu(F.linear(module.layer_norm(x), module.pointwise_conv1.weight.squeeze(2)), dim=1)
    x = module.batch_norm(apart(module.depthwise_conv, x, lens))
    x = module.activation(x if rows is None else x[rows])
    return module.dropout(F.linear(x, module.pointwise_conv2.weight.squeeze(2)))


def apart(conv, x, lens):
    """A convolution over each utterance of x (N, D) -> (N, D): all in one row, kept apart by the zeros that
    half its kernel reaches over"""
    gap = x.new_zeros(conv.kernel_size[0] // 2, x.shape[1])
    row = torch.cat([part for utterance in x.split(lens) for part in (utterance, gap)])
    both = [n for frames in lens for n in (frames, len(gap))]
    return torch.cat(conv(row.t()[None])[0].t().split(both)[::2])


def attend_by_utterance(attention, x, lens, table):
    """Self-attention within each utterance: x (N, D) -> (N, D)

    Utterances of one length go together, others one by one. Relative positions (Dai et al., 2019, section
    3.3) add to the scores the product of query and encoded distance; rotary ones turn what queries and keys
    are made of.
    """
    kind, heads = attention.position_embeddings_type, attention.num_heads
    turned = rotate(x, lens, table, heads) if kind == "rotary" else x
    shape = (len(lens), lens[0]) if len(set(lens)) == 1 else (1, len(x))
    parts = []
    for projection, inputs in (
        (attention.linear_q, turned),
        (attention.linear_k, turned),
        (attention.linear_v, x),
    ):
        projected = linear(projection, inputs).view(*shape, heads, attention.head_size).transpose(1, 2)
        parts.append([projected] if shape[0] > 1 else projected.split(lens, dim=2))
    distances = encoded_distances(attention, table) if kind == "relative" else None
    dropout = attention.dropout.p if attention.training else 0.0
    attended = [attend_one(attention, *one, distances, dropout) for one in zip(*parts, strict=True)]
    attended = torch.cat([one.transpose(1, 2).flatten(2).flatten(0, 1) for one in attended])
    return linear(attention.linear_out, attended)


def attend_one(attention, queries, keys, values, distances, dropout):
    """queries, keys, values (B, H, F, d) without padding, distances (H, d, 2 Fmax - 1) or None ->
    (B, H, F, d)"""
    bias = None
    if distances is not None:
        bias = relative_scores(queries + attention.pos_bias_v[:, None], distances) * attention.scaling
        queries = (queries + attention.pos_bias_u[:, None]).to(keys.dtype)
        bias = bias.to(keys.dtype)
    return attend(queries, keys, values, dropout, attention.scaling, bias)


def encoded_distances(attention, table):
    """table (1, 2 Fmax - 1, D) -> (H, d, 2 Fmax - 1), from the largest distance to the left to that to the
    right"""
    projected = linear(attention.linear_pos, table[0])
    return projected.view(len(projected), attention.num_heads, attention.head_size).permute(1, 2, 0)


def relative_scores(queries, distances):
    """queries (B, H, F, d), distances (H, d, 2 Fmax - 1) -> (B, H, F, F): query i times distance i - j

    Row i of the product with all distances holds those of j = 0 ... F - 1 from column F - 1 - i on. With one
    column more and read in rows of one column less, they lie one below the other.
    """
    frames, middle = queries.shape[2], distances.shape[2] // 2
    scores = queries @ distances[..., middle - frames + 1 : middle + frames]  # (B, H, F, 2F - 1)
    width = 2 * frames - 1
    shifted = F.pad(scores, (0, 1)).flatten(2)[..., frames - 1 : frames - 1 + frames * width]
    return shifted.unflatten(2, (frames, width))[..., :frames]


def rotate(x, lens, table, heads):
    """Rotary positions (Su et al., 2021): x (N, D) -> (N, D), each head's halves turned by frame number"""
    cos, sin = (torch.cat([one[:n, 0] for n in lens]).to(x.dtype) for one in table)  # (N, 1, d)
    x = x.unflatten(1, (heads, -1))
    low, high = x.chunk(2, dim=2)
    return (x * cos + torch.cat([-high, low], dim=2) * sin).flatten(1)
