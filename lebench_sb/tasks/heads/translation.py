"""Frames -> a text in another language: encoders of frames, a Transformer decoder, beam search.

Letters: B utterances, F frames, D features of the encoder, S states the decoder attends to, d the model's
size, H heads, L tokens of a text, V tokens there are, K hypotheses per utterance, N = B * K.
"""

import math

import torch
from torch import nn
from torch.nn import functional

from lebench_sb.core.masks import valid_mask
from lebench_sb.tasks.decoding.beam import beam_search


def positions(count, size, device, first=0):
    """Sinusoids (count, size) of places `first`, `first` + 1, ... (Vaswani et al., 2017, section 3.5)"""
    half = torch.arange(0, size, 2, device=device) / size
    angles = torch.arange(first, first + count, device=device)[:, None] * torch.exp(-math.log(1e4) * half)
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)[:, :size]


class LinearAdapter(nn.Module):
    """One linear layer with GELU: an end-to-end model's whole way from its encoder to the decoder."""

    def __init__(self, input_size, size=256, dropout=0.1):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(input_size, size), nn.GELU(), nn.Dropout(dropout))
        self.size = size

    def forward(self, frames, frame_lens):
        """frames (B, F, D), frame_lens (B,) -> states (B, F, d), their numbers (B,)"""
        return self.layers(frames), frame_lens


class SpeechTransformer(nn.Module):
    """Convolutions that keep every fourth step, then a pre-norm Transformer (fairseq's `s2t_transformer`).

    project: size of the linear layer with ReLU in front of the convolutions, where the frames are wider than
    that (SSL features of 768 or 1024; a filterbank of 80 goes in as it is). channels: of the first
    convolution, before the gated linear unit that halves them.
    """

    STRIDE = 2

    def __init__(
        self, input_size, project=80, channels=1024, kernels=(5, 5), size=256, layers=6, heads=4, hidden=1024,
        dropout=0.3,
    ):  # fmt: skip
        super().__init__()
        wide = input_size > project
        self.project = nn.Sequential(nn.Linear(input_size, project), nn.ReLU()) if wide else nn.Identity()
        sizes = [project if wide else input_size, *[channels // 2] * (len(kernels) - 1)]
        widths = [channels] * (len(kernels) - 1) + [2 * size]
        self.convolutions = nn.ModuleList(
            nn.Conv1d(before, after, kernel, self.STRIDE, kernel // 2)
            for before, after, kernel in zip(sizes, widths, kernels, strict=True)
        )
        # activation dropout too, as in fairseq
        layer = nn.TransformerEncoderLayer(size, heads, hidden, dropout, batch_first=True, norm_first=True)
        final = nn.LayerNorm(size)
        self.encoder = nn.TransformerEncoder(layer, layers, final, enable_nested_tensor=False)
        self.dropout, self.size = nn.Dropout(dropout), size
        for parameter in self.encoder.parameters():  # the copies of one layer begin alike otherwise
            if parameter.ndim > 1:
                nn.init.xavier_uniform_(parameter)

    def forward(self, frames, frame_lens):
        """frames (B, F, D), frame_lens (B,) -> states (B, S, d), their numbers (B,)"""
        states, lens = self.project(frames), frame_lens
        for convolution in self.convolutions:
            # zeros beyond the last frame, as the convolution itself puts them beyond a whole utterance
            states = states.masked_fill(~valid_mask(lens, states.shape[1])[:, :, None], 0.0)
            states = functional.glu(convolution(states.transpose(1, 2)), dim=1).transpose(1, 2)
            kernel, padding = convolution.kernel_size[0], convolution.padding[0]
            lens = torch.div(lens + 2 * padding - kernel, self.STRIDE, rounding_mode="floor") + 1
        states = math.sqrt(self.size) * states + positions(states.shape[1], self.size, states.device)
        padding = ~valid_mask(lens, states.shape[1])
        return self.encoder(self.dropout(states), src_key_padding_mask=padding), lens


class Attention(nn.Module):
    """Scaled dot-product attention of H heads whose keys and values can be kept."""

    def __init__(self, size, heads, dropout):
        super().__init__()
        if size % heads:
            raise ValueError(f"size {size} is no multiple of heads {heads}.")
        self.query, self.key, self.value, self.output = (nn.Linear(size, size) for _ in range(4))
        self.heads, self.dropout = heads, dropout
        for layer in (self.query, self.key, self.value):
            nn.init.xavier_uniform_(layer.weight, gain=2**-0.5)
        nn.init.xavier_uniform_(self.output.weight)
        for layer in (self.query, self.key, self.value, self.output):
            nn.init.zeros_(layer.bias)

    def split(self, states):
        """(B, L, d) -> (B, H, L, d / H)"""
        return states.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def memory(self, states):
        """What is attended to (B, S, d) -> keys, values (B, H, S, d / H)"""
        return self.split(self.key(states)), self.split(self.value(states))

    def forward(self, states, memory, mask=None, causal=False):
        """states (B, L, d), memory: keys and values, mask: bool (B, 1, 1, S), True where attended to"""
        dropout = self.dropout if self.training else 0.0
        found = functional.scaled_dot_product_attention(
            self.split(self.query(states)), *memory, attn_mask=mask, dropout_p=dropout, is_causal=causal
        )
        return self.output(found.transpose(1, 2).flatten(2))


class DecoderLayer(nn.Module):
    """Self-attention, attention to the source, feed-forward, each behind its layer norm (pre-norm)."""

    def __init__(self, size, heads, hidden, dropout):
        super().__init__()
        self.own, self.source = Attention(size, heads, dropout), Attention(size, heads, dropout)
        self.feed = nn.Sequential(
            nn.Linear(size, hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, size)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(size) for _ in range(3))
        self.dropout = nn.Dropout(dropout)

    def forward(self, states, source, mask):
        """states (B, L, d), source: keys and values of S states, mask (B, 1, 1, S) -> (B, L, d)"""
        normed = self.norms[0](states)
        states = states + self.dropout(self.own(normed, self.own.memory(normed), causal=True))
        return self._rest(states, source, mask)

    def step(self, states, source, mask, past):
        """One token of each hypothesis: states (B, K, d), past: its own keys and values (N, H, L, d / H), or
        None -> (B, K, d) and the past with this token"""
        normed = self.norms[0](states).flatten(0, 1)[:, None]
        now = self.own.memory(normed)
        past = now if past is None else tuple(torch.cat(pair, dim=2) for pair in zip(past, now, strict=True))
        own = self.own(normed, past)[:, 0].unflatten(0, states.shape[:2])
        return self._rest(states + own, source, mask), past

    def _rest(self, states, source, mask):
        states = states + self.dropout(self.source(self.norms[1](states), source, mask))
        return states + self.dropout(self.feed(self.norms[2](states)))


class Translator(nn.Module):
    """`source` (frames -> states) and a Transformer decoder whose output layer is its embedding.

    source: a module with `size`; output_size: V; layers, heads, hidden (of the feed-forward), dropout: of
    the decoder.
    """

    def __init__(self, source, output_size, layers=3, heads=4, hidden=1024, dropout=0.3):
        super().__init__()
        self.source, self.size = source, source.size
        self.embedding = nn.Embedding(output_size, self.size)
        nn.init.normal_(self.embedding.weight, std=self.size**-0.5)
        self.layers = nn.ModuleList(DecoderLayer(self.size, heads, hidden, dropout) for _ in range(layers))
        self.norm, self.dropout = nn.LayerNorm(self.size), nn.Dropout(dropout)

    def forward(self, frames, frame_lens, tokens):
        """frames (B, F, D), frame_lens (B,), tokens (B, L) -> logits (B, L, V) of the token after each,
        states (B, S, d), their numbers (B,)"""
        states, lens = self.source(frames, frame_lens)
        sources, mask = self.remember(states, lens)
        hidden = self.embed(tokens)
        for layer, source in zip(self.layers, sources, strict=True):
            hidden = layer(hidden, source, mask)
        return self.logits(hidden), states, lens

    def remember(self, states, lens):
        """states (B, S, d), lens (B,) -> keys and values of each layer, mask (B, 1, 1, S): no padding"""
        mask = valid_mask(lens, states.shape[1])[:, None, None]
        return [layer.source.memory(states) for layer in self.layers], mask

    def embed(self, tokens, first=0):
        """tokens (..., L), the first at place `first` -> (..., L, d)"""
        places = positions(tokens.shape[-1], self.size, tokens.device, first)
        return self.dropout(math.sqrt(self.size) * self.embedding(tokens) + places)

    def logits(self, hidden):
        return functional.linear(self.norm(hidden), self.embedding.weight).float()

    @torch.no_grad()
    def translate(self, states, lens, start, end, beam=5, max_length=200, length_penalty=1.0):
        """states (B, S, d), lens (B,) -> B Hypotheses: `beam_search` over this decoder"""
        return beam_search(Steps(self, states, lens), start, end, beam, max_length, length_penalty)


class Steps:
    """The decoder, one token of all running hypotheses at a time; what it has computed is kept."""

    def __init__(self, model, states, lens):
        self.model, self.length = model, 0
        self.sources, self.mask = model.remember(states, lens)
        self.pasts = [None] * len(self.sources)

    @property
    def batch(self):
        """Utterances that run"""
        return len(self.mask)

    @property
    def device(self):
        return self.mask.device

    def log_probs(self, tokens):
        """Last tokens (B, K) -> log-probabilities of the next (B, K, V)"""
        hidden = self.model.embed(tokens[..., None], self.length)[:, :, 0]
        for k, layer in enumerate(self.model.layers):
            hidden, self.pasts[k] = layer.step(hidden, self.sources[k], self.mask, self.pasts[k])
        self.length += 1
        return self.model.logits(hidden).log_softmax(-1)

    def keep(self, utterances, hypotheses):
        """Goes on with some utterances (B',) and, numbered through all N of before, hypotheses (B' * K,)"""
        if len(utterances) < self.batch:
            self.mask = self.mask[utterances]
            self.sources = [tuple(part[utterances] for part in source) for source in self.sources]
        self.pasts = [tuple(part[hypotheses] for part in past) for past in self.pasts]
