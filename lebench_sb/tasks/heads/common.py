"""What sits on an encoder's frames. Letters: B utterances, F frames, D features, V outputs."""

import torch
from torch import nn

from lebench_sb.core.masks import valid_mask


class RecurrentHead(nn.Module):
    """Bidirectional LSTM over stacked frames -> log-probabilities of V symbols.

    input_size: D of the encoder; frame_rate: its frames per second. Frames are stacked so that the LSTM sees
    at most `max_rate` per second: a 100 Hz filterbank and a 50 Hz SSL encoder meet the same head.
    """

    def __init__(self, input_size, frame_rate, output_size, hidden=256, layers=2, dropout=0.2, max_rate=50.0):
        super().__init__()
        self.stack = max(1, round(frame_rate / max_rate))
        self.project = nn.Sequential(
            nn.LayerNorm(input_size * self.stack), nn.Linear(input_size * self.stack, hidden), nn.LeakyReLU()
        )
        sizes = [hidden] + [2 * hidden] * (layers - 1)
        self.lstms = nn.ModuleList(BidirectionalLSTM(size, hidden) for size in sizes)
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(2 * hidden, output_size)

    def lengths(self, frame_lens):
        """Steps of the head for so many frames (B,)"""
        return torch.div(frame_lens + self.stack - 1, self.stack, rounding_mode="floor")

    def forward(self, frames, frame_lens):
        """frames (B, F, D), frame_lens (B,) -> log-probabilities (B, F', V), their numbers (B,) int64"""
        states, lens = self.project(self.stacked(frames)), self.lengths(frame_lens)
        for lstm in self.lstms:
            states = lstm(self.dropout(states), lens)
        return self.output(self.dropout(states)).float().log_softmax(-1), lens

    def stacked(self, frames):
        missing = -frames.shape[1] % self.stack
        padded = nn.functional.pad(frames, (0, 0, 0, missing))
        return padded.unflatten(1, (-1, self.stack)).flatten(2)


class PerceptronHead(nn.Module):
    """The same few layers on every frame -> log-probabilities of V symbols.

    `blocks` times a linear layer of `hidden` and LeakyReLU, then a linear layer: SpeechBrain's `VanillaNN`.
    `stack` frames are put side by side first.
    """

    def __init__(self, input_size, output_size, hidden=512, blocks=3, stack=1):
        super().__init__()
        self.stack = stack
        sizes = [input_size * stack, *[hidden] * blocks]
        layers = [nn.Linear(a, b) for a, b in zip(sizes, sizes[1:], strict=False)]
        self.layers = nn.Sequential(*(part for layer in layers for part in (layer, nn.LeakyReLU())))
        self.output = nn.Linear(hidden, output_size)

    def lengths(self, frame_lens):
        """Steps of the head for so many frames (B,)"""
        return torch.div(frame_lens + self.stack - 1, self.stack, rounding_mode="floor")

    def forward(self, frames, frame_lens):
        """frames (B, F, D), frame_lens (B,) -> log-probabilities (B, F', V), their numbers (B,) int64"""
        states = self.layers(stacked(frames, frame_lens, self.stack))
        lens = self.lengths(frame_lens)
        return self.output(states).float().log_softmax(-1), lens


class PyramidHead(nn.Module):
    """Bidirectional LSTMs that halve the steps from level to level -> log-probabilities of V symbols.

    Between two levels each pair of states becomes its mean (Kheops, LeBenchmark 2021; Chan et al. 2016 join
    them); layer normalisation and dropout after each level; then a linear layer and a normalisation.
    Frames are stacked first so that at most `max_rate` per second enter.
    """

    def __init__(
        self, input_size, frame_rate, output_size, hidden=256, levels=2, dropout=0.4, max_rate=50.0
    ):  # fmt: skip
        super().__init__()
        self.stack = max(1, round(frame_rate / max_rate))
        sizes = [input_size * self.stack] + [2 * hidden] * (levels - 1)
        self.lstms = nn.ModuleList(BidirectionalLSTM(size, hidden) for size in sizes)
        self.norms = nn.ModuleList(nn.LayerNorm(2 * hidden) for _ in sizes)
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(2 * hidden, output_size)
        self.output_norm = nn.LayerNorm(output_size)

    def lengths(self, frame_lens):
        """Steps of the highest level for so many frames (B,)"""
        lens = torch.div(frame_lens + self.stack - 1, self.stack, rounding_mode="floor")
        for _ in self.lstms[1:]:
            lens = torch.div(lens + 1, 2, rounding_mode="floor")
        return lens

    def encode(self, frames, frame_lens):
        """frames (B, F, D), frame_lens (B,) -> states of the highest level (B, F', 2 * hidden), their
        numbers (B,) int64"""
        states = stacked(frames, frame_lens, self.stack)
        lens = torch.div(frame_lens + self.stack - 1, self.stack, rounding_mode="floor")
        for level, (lstm, norm) in enumerate(zip(self.lstms, self.norms, strict=True)):
            if level:
                states, lens = pool_pairs(states, lens)
            states = self.dropout(norm(lstm(states, lens)))
        return states, lens

    def forward(self, frames, frame_lens):
        """frames (B, F, D), frame_lens (B,) -> log-probabilities (B, F', V), their numbers (B,) int64"""
        states, lens = self.encode(frames, frame_lens)
        return self.output_norm(self.output(states)).float().log_softmax(-1), lens


class PyramidDecoderHead(PyramidHead):
    """A PyramidHead whose symbols are predicted one step after the other by an LSTM that sees more than its
    own step: all states of the pyramid by one attention, all its own predictions so far by another.

    At step t two LSTM layers read the pyramid's state, what the first attention finds with the last output
    as query, and what the second finds among the expected embeddings of the predictions before t. Trained by
    CTC like the simple head, so no reference is fed. Memory grows with the square of the steps.
    """

    def __init__(
        self, input_size, frame_rate, output_size, hidden=256, levels=2, dropout=0.4, max_rate=50.0,
        decoder_hidden=256, decoder_dropout=0.12,
    ):  # fmt: skip
        super().__init__(input_size, frame_rate, output_size, hidden, levels, dropout, max_rate)
        self.embeddings = nn.Linear(output_size, decoder_hidden, bias=False)
        self.keys = nn.Linear(2 * hidden, decoder_hidden, bias=False)
        self.past_keys = nn.Linear(decoder_hidden, decoder_hidden, bias=False)
        self.start = nn.Parameter(torch.zeros(decoder_hidden))
        self.first = nn.LSTMCell(4 * hidden + decoder_hidden, decoder_hidden)
        self.second = nn.LSTMCell(decoder_hidden, decoder_hidden)
        self.decoder_dropout = nn.Dropout(decoder_dropout)
        self.output = nn.Linear(decoder_hidden, output_size)

    def forward(self, frames, frame_lens):
        """frames (B, F, D), frame_lens (B,) -> log-probabilities (B, F', V), their numbers (B,) int64"""
        states, lens = self.encode(frames, frame_lens)
        hidden = ~valid_mask(lens, states.shape[1], states.device)
        keys = self.keys(states)
        query = states.new_zeros(len(states), self.start.shape[0])
        first, second = (query, query), (query, query)
        past, outputs = [self.start.expand(len(states), -1).to(states.dtype)], []
        past_keys = [self.past_keys(past[0])]
        for step in range(states.shape[1]):
            seen = weighted_mean(query, keys, states, hidden)
            said = weighted_mean(query, torch.stack(past_keys, dim=1), torch.stack(past, dim=1))
            first = self.first(torch.cat([states[:, step], seen, said], dim=-1), first)
            second = self.second(self.decoder_dropout(first[0]), second)
            query = second[0]
            outputs.append(self.output_norm(self.output(self.decoder_dropout(query))).float().log_softmax(-1))
            past.append(self.embeddings(outputs[-1].exp().to(states.dtype)))
            past_keys.append(self.past_keys(past[-1]))
        return torch.stack(outputs, dim=1), lens


def weighted_mean(query, keys, values, hidden=None):
    """query (B, K), keys (B, F, K), values (B, F, D), hidden (B, F) bool -> mean of the values (B, D),
    weighted by how well their keys fit the query"""
    scores = (keys @ query[:, :, None]).squeeze(-1) / keys.shape[-1] ** 0.5
    if hidden is not None:
        scores = scores.masked_fill(hidden, -torch.inf)
    return (scores.softmax(-1)[:, None, :].to(values.dtype) @ values).squeeze(1)


def stacked(frames, frame_lens, count):
    """frames (B, F, D) -> (B, ceil(F / count), count * D), `count` frames side by side; zeros where an
    utterance has ended, so that what follows it means nothing"""
    frames = frames.masked_fill(~valid_mask(frame_lens, frames.shape[1], frames.device)[:, :, None], 0.0)
    return nn.functional.pad(frames, (0, 0, 0, -frames.shape[1] % count)).unflatten(1, (-1, count)).flatten(2)


def pool_pairs(states, lens):
    """states (B, F, D), lens (B,) -> the mean of each two steps (B, ceil(F / 2), D), their numbers; a last
    step without partner stays as it is"""
    valid = valid_mask(lens, states.shape[1], states.device).to(states.dtype)[:, :, None]
    missing = (0, 0, 0, states.shape[1] % 2)
    sums = nn.functional.pad(states * valid, missing).unflatten(1, (-1, 2)).sum(2)
    counts = nn.functional.pad(valid, missing).unflatten(1, (-1, 2)).sum(2)
    return sums / counts.clamp(min=1), torch.div(lens + 1, 2, rounding_mode="floor")


class WordTagger(nn.Module):
    """Words -> log-probabilities of V labels each, by two bidirectional LSTM layers.

    A word is its own embedding plus the mean of those of its letter trigrams (hashed; Bojanowski et al.,
    2017): a word that recognition has misspelt still resembles itself.
    """

    def __init__(self, words, output_size, buckets=4096, embedding=128, hidden=128, layers=2, dropout=0.3):
        super().__init__()
        self.words = nn.Embedding(words, embedding)
        self.grams = nn.EmbeddingBag(buckets, embedding, mode="mean")
        self.buckets = buckets
        sizes = [embedding] + [2 * hidden] * (layers - 1)
        self.lstms = nn.ModuleList(BidirectionalLSTM(size, hidden) for size in sizes)
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(2 * hidden, output_size)

    def forward(self, numbers, grams, offsets, lens):
        """numbers (B, W) of words, grams (G,) and offsets (B * W,) of their trigrams, lens (B,) words of each
        -> log-probabilities (B, W, V)"""
        spelling = self.grams(grams, offsets).unflatten(0, numbers.shape)
        states = self.words(numbers) + spelling
        for lstm in self.lstms:
            states = lstm(self.dropout(states), lens)
        return self.output(self.dropout(states)).float().log_softmax(-1)


class FeedForwardHead(nn.Module):
    """Blocks of Linear, BatchNorm, LeakyReLU and dropout on each frame alone -> log-probabilities of V.

    frame_rate: unused, there for the keys that all heads take. No dropout after the last block.
    """

    def __init__(self, input_size, frame_rate, output_size, hidden=1024, blocks=3, dropout=0.15):
        super().__init__()
        sizes = [input_size] + [hidden] * (blocks - 1)
        self.blocks = nn.ModuleList(FrameBlock(size, hidden) for size in sizes)
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(hidden, output_size)

    def lengths(self, frame_lens):
        """Steps of the head for so many frames (B,)"""
        return frame_lens

    def forward(self, frames, frame_lens):
        """frames (B, F, D), frame_lens (B,) -> log-probabilities (B, F, V), frame_lens"""
        for number, block in enumerate(self.blocks, 1):
            frames = block(frames, frame_lens)
            frames = self.dropout(frames) if number < len(self.blocks) else frames
        return self.output(frames).float().log_softmax(-1), frame_lens


class FrameBlock(nn.Module):
    """Linear, BatchNorm with the statistics of valid frames only, LeakyReLU"""

    def __init__(self, input_size, output_size):
        super().__init__()
        self.linear, self.norm = nn.Linear(input_size, output_size), FrameNorm(output_size)

    def forward(self, frames, frame_lens):
        """frames (B, F, D), frame_lens (B,) -> (B, F, output_size), zeros beyond the lengths"""
        valid = valid_mask(frame_lens, frames.shape[1], frames.device)
        frames = self.linear(frames)
        normed = nn.functional.leaky_relu(self.norm(frames[valid]))
        return torch.zeros_like(frames, dtype=normed.dtype).masked_scatter(valid[:, :, None], normed)


class FrameNorm(nn.Module):
    """nn.BatchNorm1d on (N, D), whose running statistics are those of all processes together.

    SpeechBrain turns torch's own into SyncBatchNorm, which has no CPU version; unsynchronised, each process
    would validate with other statistics. One frame alone has no variance: it leaves them as they are.
    """

    MOMENTUM, EPSILON = 0.1, 1e-5

    def __init__(self, size):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(size)), nn.Parameter(torch.zeros(size))
        self.register_buffer("running_mean", torch.zeros(size))
        self.register_buffer("running_var", torch.ones(size))

    def forward(self, frames):
        """frames (N, D) -> (N, D)"""
        learns = self.training and len(frames) > 1
        if self.training:
            self.update_running_stats(frames.detach())
        mean, var = (None, None) if learns else (self.running_mean, self.running_var)
        return nn.functional.batch_norm(frames, mean, var, self.weight, self.bias, learns, 0.0, self.EPSILON)

    def update_running_stats(self, frames):
        """Moves the running mean and (unbiased) variance towards those of the frames of all processes"""
        frames = frames.double()
        count = frames.new_full((1, frames.shape[1]), len(frames))
        sums = torch.cat([count, frames.sum(0, keepdim=True), frames.square().sum(0, keepdim=True)])
        if torch.distributed.is_initialized():
            torch.distributed.all_reduce(sums)
        count, mean, square = sums[0], sums[1] / sums[0], sums[2] / sums[0]
        if count[0] > 1:
            var = (square - mean.square()).clamp(min=0) * count / (count - 1)
            self.running_mean.lerp_(mean.to(self.running_mean.dtype), self.MOMENTUM)
            self.running_var.lerp_(var.to(self.running_var.dtype), self.MOMENTUM)


class BidirectionalLSTM(nn.Module):
    """One layer of LSTM or another cell, each direction over the valid frames only: an utterance in a batch
    gets what it gets alone.

    Two LSTMs on padded tensors, the second on utterances turned round; packed sequences say the same and took
    six times as long on a CPU, where only the padded path has a fused kernel.
    """

    def __init__(self, input_size, hidden, cell=nn.LSTM):
        super().__init__()
        self.forwards = cell(input_size, hidden, batch_first=True)
        self.backwards = cell(input_size, hidden, batch_first=True)

    def forward(self, states, lens):
        """states (B, F, D), lens (B,) -> (B, F, 2 * hidden); frames beyond lens mean nothing"""
        positions = torch.arange(states.shape[1], device=states.device)
        last = lens.to(states.device)[:, None] - 1
        backward_order = torch.where(positions <= last, last - positions, positions)
        backward = reverse(self.backwards(reverse(states, backward_order))[0], backward_order)
        return torch.cat([self.forwards(states)[0], backward], dim=-1)


def reverse(states, order):
    """states (B, F, D), order (B, F) -> states[b, order[b, f]]"""
    return states.gather(1, order[:, :, None].expand(-1, -1, states.shape[2]))
