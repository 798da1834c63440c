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
        self.lstm = nn.LSTM(hidden, hidden, layers, batch_first=True, bidirectional=True, dropout=dropout)
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(2 * hidden, output_size)

    def lengths(self, frame_lens):
        """Steps of the head for so many frames (B,)"""
        return torch.div(frame_lens + self.stack - 1, self.stack, rounding_mode="floor")

    def forward(self, frames, frame_lens):
        """frames (B, F, D), frame_lens (B,) -> log-probabilities (B, F', V), their numbers (B,) int64"""
        frames, lens = self.stacked(frames), self.lengths(frame_lens)
        packed = nn.utils.rnn.pack_padded_sequence(
            self.dropout(self.project(frames)), lens.cpu(), batch_first=True, enforce_sorted=False
        )
        states, _ = nn.utils.rnn.pad_packed_sequence(self.lstm(packed)[0], batch_first=True)
        return self.output(self.dropout(states)).float().log_softmax(-1), lens

    def stacked(self, frames):
        missing = -frames.shape[1] % self.stack
        padded = nn.functional.pad(frames, (0, 0, 0, missing))
        return padded.unflatten(1, (-1, self.stack)).flatten(2)
