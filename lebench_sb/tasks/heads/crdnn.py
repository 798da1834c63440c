"""Convolutions, recurrent layers and frame-wise layers, then a decoder with location-aware attention and CTC
beside it (the CRDNN of SpeechBrain; Watanabe et al., 2017). Only the frames inside an utterance count.

The decoder is SpeechBrain's; its CRDNN is not used: it pads convolutions with reflected frames, runs the
backward RNN and BatchNorm over padding, and so gives an utterance other states with other neighbours.
Letters: B utterances, F frames, D features, C channels, S states, L tokens, V tokens there are, K hypotheses
per utterance, N = B * K.
"""

import torch
from speechbrain.nnet.RNN import AttentionalRNNDecoder
from torch import nn
from torch.nn import functional

from lebench_sb.core.masks import valid_mask
from lebench_sb.tasks.heads.common import BidirectionalLSTM, FrameBlock

CELLS = {"lstm": nn.LSTM, "gru": nn.GRU}
BLOCKED = -1e4  # added to the ln probability of what the search should avoid but may need


class ConvolutionBlock(nn.Module):
    """Two convolutions 3 x 3, each with LayerNorm over features and channels of a frame; then the maximum of
    two neighbouring features."""

    def __init__(self, before, channels, features, dropout):
        super().__init__()
        self.convolutions = nn.ModuleList(nn.Conv2d(c, channels, 3, padding=1) for c in (before, channels))
        self.norms = nn.ModuleList(nn.LayerNorm([channels, features]) for _ in range(2))
        self.dropout = nn.Dropout2d(dropout)

    def forward(self, image, valid):
        """image (B, C, F, D), valid (B, F) -> (B, channels, F, D // 2)"""
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            image = convolution(image.masked_fill(~valid[:, None, :, None], 0.0))
            image = functional.leaky_relu(norm(image.transpose(1, 2)).transpose(1, 2))
        return self.dropout(functional.max_pool2d(image, (1, 2)))


class CRDNN(nn.Module):
    """Frames -> states for CTC and for a decoder of `output_size` tokens; number `output_size` is the blank.

    frame_rate: unused, there for the keys that all heads take. channels: of the convolution blocks, () for
    none. time_pooling: frames of which the maximum goes on. rnn: lstm or gru, both directions.
    attention_kernel: frames on each side that the location features see.
    """

    def __init__(
        self, input_size, frame_rate, output_size, channels=(), time_pooling=1, rnn="lstm",
        rnn_size=1024, rnn_layers=3, dnn_size=1024, dnn_blocks=1, dropout=0.15, decoder_size=1024,
        attention_size=1024, attention_channels=10, attention_kernel=100, embedding=128,
    ):  # fmt: skip
        super().__init__()
        self.blocks, before, features = nn.ModuleList(), 1, input_size
        for count in channels:
            self.blocks.append(ConvolutionBlock(before, count, features, dropout))
            before, features = count, features // 2
        self.time_pooling = time_pooling
        sizes = [before * features] + [2 * rnn_size] * (rnn_layers - 1)
        self.rnns = nn.ModuleList(BidirectionalLSTM(size, rnn_size, CELLS[rnn]) for size in sizes)
        sizes = [2 * rnn_size] + [dnn_size] * (dnn_blocks - 1)
        self.dnns = nn.ModuleList(FrameBlock(size, dnn_size) for size in sizes)
        self.dropout, self.ctc = nn.Dropout(dropout), nn.Linear(dnn_size, output_size + 1)
        self.embedding = nn.Embedding(output_size, embedding)
        self.decoder = AttentionalRNNDecoder(
            "gru", "location", decoder_size, attention_size, 1, dnn_size, embedding,
            channels=attention_channels, kernel_size=attention_kernel, dropout=dropout,
        )  # fmt: skip
        self.output = nn.Linear(decoder_size, output_size)

    def forward(self, frames, frame_lens, decoder_inputs):
        """frames (B, F, D), frame_lens (B,), decoder_inputs (B, L) -> states (B, S, d), their numbers
        (B,), CTC log-probabilities (B, S, V + 1), log-probabilities of the tokens that follow (B, L, V)"""
        states, lens = self.states(frames, frame_lens)
        ctc = self.ctc(states).float().log_softmax(-1)
        decoded, _ = self.decoder(self.embedding(decoder_inputs), states, lens.float() / states.shape[1])
        self.decoder.attn.reset()
        return states, lens, ctc, self.output(decoded).float().log_softmax(-1)

    def states(self, frames, frame_lens):
        """frames (B, F, D), frame_lens (B,) -> states (B, S, d), their numbers (B,)"""
        image, valid = frames[:, None], valid_mask(frame_lens, frames.shape[1], frames.device)
        for block in self.blocks:
            image = block(image, valid)
        states = image.transpose(1, 2).flatten(2)
        states, lens = self.pooled(states, frame_lens, valid)
        for rnn in self.rnns:
            states = self.dropout(rnn(states, lens))
        for dnn in self.dnns:
            states = self.dropout(dnn(states, lens))
        return states, lens

    def lengths(self, frame_lens):
        """States for so many frames (B,)"""
        return torch.div(frame_lens + self.time_pooling - 1, self.time_pooling, rounding_mode="floor")

    def pooled(self, states, lens, valid):
        """The maximum of each `time_pooling` frames inside the utterance"""
        if self.time_pooling == 1:
            return states, lens
        states = states.masked_fill(~valid[:, :, None], torch.finfo(states.dtype).min).transpose(1, 2)
        states = functional.max_pool1d(states, self.time_pooling, ceil_mode=True).transpose(1, 2)
        lens = self.lengths(lens)
        return states.masked_fill(~valid_mask(lens, states.shape[1], states.device)[:, :, None], 0.0), lens


class DecoderSteps:
    """What `beam.beam_search` asks of the decoder: see there.

    states (B, S, d), lens (B,). limits (B,): most tokens, the end included. temperature: divides the logits.
    eos_threshold: a text may end only where the end's ln probability is above this times the best token's
    (Hannun et al., 2019); max_attn_shift: states by which the peak of the attention may move.
    """

    def __init__(self, head, states, lens, beam, end, limits, temperature, eos_threshold, max_attn_shift):
        self.head, self.batch, self.device, self.beam = head, len(states), states.device, beam
        self.states = states.repeat_interleave(beam, 0)
        self.lens = lens.to(self.device).repeat_interleave(beam)
        self.end, self.limits, self.temperature = end, limits.to(self.device), temperature
        self.eos_threshold, self.max_attn_shift = eos_threshold, max_attn_shift
        self.hidden, self.steps = None, 0
        self.context = torch.zeros(len(self.states), head.decoder.attn_dim, device=self.device)
        self.peaks = torch.zeros(len(self.states), dtype=torch.int64, device=self.device)
        head.decoder.attn.reset()

    def log_probs(self, last):
        """Last tokens (B, K) -> log-probabilities of the next (B, K, V)"""
        said, self.hidden, self.context, weights = self.head.decoder.forward_step(
            self.head.embedding(last.flatten()), self.hidden, self.context, self.states, self.lens
        )
        scores = (self.head.output(said).float() / self.temperature).log_softmax(-1)
        self.steps += 1
        peaks = weights.argmax(1)
        jumps = (peaks - self.peaks).abs() > self.max_attn_shift
        self.peaks = peaks
        early = scores[:, self.end] <= self.eos_threshold * scores.max(1).values
        scores[:, self.end] += BLOCKED * early
        scores = (scores + BLOCKED * jumps[:, None]).unflatten(0, (-1, self.beam))
        over = torch.arange(scores.shape[2], device=self.device) != self.end
        return scores.masked_fill((self.steps >= self.limits)[:, None, None] & over, -torch.inf)

    def keep(self, utterances, hypotheses):
        """Goes on with these hypotheses (B' * K,) of these utterances (B',)"""
        attention = self.head.decoder.attn
        self.hidden, self.context = self.hidden[:, hypotheses], self.context[hypotheses]
        self.peaks, attention.prev_attn = self.peaks[hypotheses], attention.prev_attn[hypotheses]
        if len(utterances) < self.batch:  # what all hypotheses of an utterance share stays where it is
            self.states, self.lens = self.states[hypotheses], self.lens[hypotheses]
            attention.precomputed_enc_h = attention.precomputed_enc_h[hypotheses]
            attention.mask = attention.mask[hypotheses]
            self.batch, self.limits = len(utterances), self.limits[utterances]
