"""From frames to words and their dependency tree: the modules of wav2tree (Pupier et al., Interspeech 2022).

Characters by CTC give words and the frames of each; an LSTM turns the frames of a word into one vector; a
biaffine parser (Dozat & Manning, ICLR 2017) scores heads, relations and parts of speech; the best tree with
one root is found exactly.

Letters: B utterances, F frames, D features, V characters (0 is the CTC blank), W words, S frames of the
longest word, R relations, P parts of speech. Head 0 is the root, head j word number j.
"""

import numpy as np
import torch
from torch import nn
from torchaudio.functional import forced_align

from lebench_sb.tasks.heads.common import BidirectionalLSTM

BLANK = 0


class Recogniser(nn.Module):
    """Frames -> states (B, F', hidden) and log-probabilities of V characters.

    Frames are stacked so that there are at most `max_rate` a second; `context_layers` bidirectional LSTM
    layers (none in wav2tree, whose encoder is trained with it), then `layers` of `hidden` units.
    """

    def __init__(
        self, input_size, frame_rate, output_size, hidden=1024, layers=3, dropout=0.15, context_layers=0,
        context=256, max_rate=50.0,
    ):  # fmt: skip
        super().__init__()
        self.stack = max(1, round(frame_rate / max_rate))
        size = input_size * self.stack
        self.norm, self.dropout = nn.LayerNorm(size), nn.Dropout(dropout)
        sizes = [size] + [2 * context] * context_layers
        self.lstms = nn.ModuleList(BidirectionalLSTM(s, context) for s in sizes[:-1])
        sizes = [sizes[-1]] + [hidden] * layers
        self.dense = nn.ModuleList(nn.Linear(a, b) for a, b in zip(sizes, sizes[1:], strict=False))
        self.output, self.output_size = nn.Linear(sizes[-1], output_size), sizes[-1]

    def lengths(self, frame_lens):
        """Steps of the head for so many frames (B,)"""
        return torch.div(frame_lens + self.stack - 1, self.stack, rounding_mode="floor")

    def forward(self, frames, frame_lens):
        """frames (B, F, D), frame_lens (B,) -> states (B, F', hidden), log-probabilities (B, F', V), (B,)"""
        missing = -frames.shape[1] % self.stack
        states = nn.functional.pad(frames, (0, 0, 0, missing)).unflatten(1, (-1, self.stack)).flatten(2)
        lens = self.lengths(frame_lens)
        states = self.norm(states)
        for lstm in self.lstms:
            states = self.dropout(lstm(states, lens))
        for linear in self.dense:
            states = self.dropout(nn.functional.leaky_relu(linear(states)))
        return states, self.output(states).float().log_softmax(-1), lens


# ---- which frames belong to which word


def reference_path(log_probs, target):
    """log_probs (F, V) float32, target (L,) int64, both on the CPU -> the likeliest CTC path that says
    `target`, F symbols.

    The target must fit: F at least L plus its repeats.
    """
    if not len(target):
        return [BLANK] * len(log_probs)
    return forced_align(log_probs[None], target[None], blank=BLANK)[0][0].tolist()


def words_of_path(path, space, margin):
    """A CTC path (F symbols) -> [(symbols of the word, first frame, frame after its last), ...]

    The frames of the symbol `space` cut the path. A word has all frames between two cuts, but at most
    `margin` before its first symbol and after its last, so that silence stays out. A stretch without symbols
    is no word.
    """
    words, symbols, begin, first, last = [], [], 0, 0, 0
    for frame, symbol in enumerate([*path, space]):
        if symbol == space:
            if symbols:
                words.append((symbols, max(begin, first - margin), min(frame, last + 1 + margin)))
            symbols, begin = [], frame + 1
        elif symbol != BLANK:
            first = first if symbols else frame
            if frame == begin or path[frame - 1] != symbol:
                symbols.append(symbol)
            last = frame
    return words


# ---- from words to scores


class WordEncoder(nn.Module):
    """The last state of an LSTM over the frames of each word"""

    def __init__(self, input_size, hidden=500, layers=2, dropout=0.15):
        super().__init__()
        between = dropout if layers > 1 else 0.0  # layers; PyTorch warns of a dropout without place
        self.lstm = nn.LSTM(input_size, hidden, layers, batch_first=True, dropout=between)
        self.output_size = hidden

    def forward(self, states, spans):
        """states (B, F, H); spans: for each utterance [(first, stop), ...] -> (B, W, hidden), numbers (B,)

        W is the most words of an utterance, at least 1; what lies beyond an utterance's words is zero.
        """
        device = states.device
        lens = torch.tensor([len(of_utterance) for of_utterance in spans], device=device)
        words = torch.zeros(len(spans), max(1, int(lens.max())), self.output_size, device=device)
        flat = [(b, w, *span) for b, of_utterance in enumerate(spans) for w, span in enumerate(of_utterance)]
        if not flat:
            # Every parameter keeps a gradient, zero: processes wait for each other's.
            return words + 0.0 * self.lstm(states[:, :1])[0][:, :, None].float().sum(), lens
        owner, place, first, stop = torch.tensor(flat, device=device).unbind(1)
        sizes = stop - first
        steps = torch.arange(int(sizes.max()), device=device)
        frames = (first[:, None] + steps).minimum(stop[:, None] - 1)
        found = self.lstm(states[owner[:, None], frames])[0]
        last = found[torch.arange(len(flat), device=device), sizes - 1]
        return words.index_put((owner, place), last.to(words.dtype)), lens


class Biaffine(nn.Module):
    """x^T U y with ones appended to x and y: `outputs` scores of a pair of vectors (left,), (right,)"""

    def __init__(self, left, right, outputs):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(outputs, left + 1, right + 1))
        nn.init.xavier_uniform_(self.weight)

    def pairs(self, x, y):
        """x (B, W, left), y (B, Z, right) -> (B, outputs, W, Z)"""
        return torch.einsum("bwi,oij,bzj->bowz", with_one(x), self.weight, with_one(y))

    def aligned(self, x, y):
        """x (B, W, left), y (B, W, right) -> (B, W, outputs)"""
        return torch.einsum("bwi,oij,bwj->bwo", with_one(x), self.weight, with_one(y))


def with_one(x):
    return nn.functional.pad(x, (0, 1), value=1.0)


class Parser(nn.Module):
    """The words' frames -> scores of heads, relations and parts of speech.

    input_size: of the states; relations, upos: how many there are; word_hidden, word_layers: LSTM over the
    frames of a word; hidden, layers: bidirectional LSTM over the words; mlp: size of the vectors scored.
    """

    def __init__(
        self, input_size, relations, upos, word_hidden=500, word_layers=2, hidden=256, layers=3, mlp=256,
        dropout=0.15,
    ):  # fmt: skip
        super().__init__()
        self.words = WordEncoder(input_size, word_hidden, word_layers, dropout)
        sizes = [word_hidden] + [2 * hidden] * layers
        self.lstms = nn.ModuleList(BidirectionalLSTM(size, hidden) for size in sizes[:-1])
        self.dropout = nn.Dropout(dropout)
        self.root = nn.Parameter(0.1 * torch.randn(sizes[-1]))
        roles = ("arc_word", "arc_head", "label_word", "label_head", "upos")
        self.roles = nn.ModuleDict({role: nn.Linear(sizes[-1], mlp) for role in roles})
        self.arc, self.label = Biaffine(mlp, mlp, 1), Biaffine(mlp, mlp, relations)
        self.upos = nn.Linear(mlp, upos)

    def forward(self, states, spans, choose):
        """states (B, F, H), spans as in `WordEncoder` -> arcs (B, W, W + 1), heads (B, W), labels (B, W, R),
        upos (B, W, P), numbers of words (B,); all but heads are log-probabilities

        choose: function of (arcs, numbers of words) -> heads (B, W), whose labels are scored. Self loops and
        heads beyond an utterance's words have probability 0.
        """
        words, lens = self.words(states, spans)
        for lstm in self.lstms:
            words = lstm(self.dropout(words), lens)
        rooted = torch.cat([self.root.to(words.dtype).expand(len(words), 1, -1), words], dim=1)
        scores = self.arc.pairs(self.role("arc_word", words), self.role("arc_head", rooted))[:, 0]
        arcs = scores.float().masked_fill(impossible(lens, scores.shape[1]), -torch.inf).log_softmax(-1)
        heads = choose(arcs, lens)
        candidates = self.role("label_head", rooted)
        chosen = candidates.gather(1, heads[:, :, None].expand(-1, -1, candidates.shape[2]))
        labels = self.label.aligned(self.role("label_word", words), chosen).float().log_softmax(-1)
        upos = self.upos(self.role("upos", words)).float().log_softmax(-1)
        return arcs, heads, labels, upos, lens

    def role(self, name, words):
        """A vector of `mlp` numbers for what a word is in a pair"""
        return self.dropout(nn.functional.leaky_relu(self.roles[name](words)))


def impossible(lens, width):
    """numbers of words (B,) -> bool (B, width, width + 1): True where head j is no candidate of word i"""
    heads = torch.arange(width + 1, device=lens.device)
    beyond = heads[None, None, :] > lens[:, None, None]
    return beyond | (heads[1:, None] == heads[None, :])[None]


# ---- the best tree


def best_heads(arcs, lens):
    """log-probabilities (B, W, W + 1), numbers of words (B,) -> heads (B, W) int64 of the best trees"""
    heads = torch.zeros(arcs.shape[:2], dtype=torch.int64)
    for b, (scores, n) in enumerate(zip(arcs.detach().double().cpu().numpy(), lens.tolist(), strict=True)):
        heads[b, :n] = torch.from_numpy(maximum_tree(scores[:n, : n + 1]))
    return heads.to(arcs.device)


def maximum_tree(scores):
    """scores (n, n + 1) of head j for word i -> heads (n,) of the tree with one root and the largest sum.

    Chu & Liu (1965), Edmonds (1967). A charge on the root's arcs above any difference between two trees
    makes the best tree one with a single arc from the root. Scores that are not finite rank below all others.
    """
    n = len(scores)
    if n == 0:
        return np.zeros(0, dtype=np.int64)
    weights = np.array(scores, dtype=np.float64)
    finite = weights[np.isfinite(weights)]
    low, high = (finite.min(), finite.max()) if finite.size else (0.0, 0.0)
    weights[~np.isfinite(weights)] = low - (high - low + 1) * (n + 1)
    weights[:, 0] -= (high - weights.min() + 1) * (n + 1)
    weights = np.vstack([np.zeros(n + 1), weights])
    np.fill_diagonal(weights, -np.inf)
    return _arborescence(weights)[1:]


def _arborescence(weights):
    """weights (m, m): of head j for node i, node 0 the root -> heads (m,), the best tree by contraction"""
    heads = weights.argmax(axis=1)
    heads[0] = 0
    cycle = _cycle(heads)
    if cycle is None:
        return heads
    inside = np.array(cycle)
    outside = np.array([node for node in range(len(weights)) if node not in cycle])
    k = len(outside)  # the cycle's number in the smaller graph
    smaller = np.full((k + 1, k + 1), -np.inf)
    smaller[:k, :k] = weights[np.ix_(outside, outside)]
    leaving = weights[np.ix_(outside, inside)]
    smaller[:k, k] = leaving.max(axis=1)
    entering = weights[np.ix_(inside, outside)] - weights[inside, heads[inside]][:, None]
    smaller[k, :k] = entering.max(axis=0)
    smaller[0, :] = 0.0
    smaller[0, 0] = -np.inf
    tree = _arborescence(smaller)
    for node in range(1, k):
        within = tree[node] == k
        heads[outside[node]] = inside[leaving[node].argmax()] if within else outside[tree[node]]
    broken = inside[entering[:, tree[k]].argmax()]
    heads[broken] = outside[tree[k]]
    return heads


def _cycle(heads):
    """The nodes of a cycle of heads (m,), node 0 apart, or None"""
    seen = np.zeros(len(heads), dtype=np.int64)
    for start in range(1, len(heads)):
        node = start
        while node and not seen[node]:
            seen[node] = start
            node = heads[node]
        if node and seen[node] == start:
            cycle = [int(node)]
            while heads[cycle[-1]] != node:
                cycle.append(int(heads[cycle[-1]]))
            return cycle
    return None
