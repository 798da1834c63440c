"""What sits on an encoder's frames. Letters: B utterances, F frames, D features, V outputs."""

import torch
from torch import nn


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
        valid = valid_frames(frames, frame_lens)
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
            self.follow(frames.detach())
        mean, var = (None, None) if learns else (self.running_mean, self.running_var)
        return nn.functional.batch_norm(frames, mean, var, self.weight, self.bias, learns, 0.0, self.EPSILON)

    def follow(self, frames):
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


def valid_frames(frames, frame_lens):
    """frames (B, F, ...), frame_lens (B,) -> bool (B, F)"""
    return torch.arange(frames.shape[1], device=frames.device) < frame_lens.to(frames.device)[:, None]


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
        turned = torch.where(positions <= last, last - positions, positions)
        backward = turn(self.backwards(turn(states, turned))[0], turned)
        return torch.cat([self.forwards(states)[0], backward], dim=-1)


def turn(states, order):
    """states (B, F, D), order (B, F) -> states[b, order[b, f]]"""
    return states.gather(1, order[:, :, None].expand(-1, -1, states.shape[2]))
