"""Beam search over any model that gives log-probabilities of the next token.

Letters: B utterances, K hypotheses per utterance, V tokens, L tokens of a hypothesis.
"""

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Hypothesis:
    """tokens: without start and end; score: log-probability over (tokens and end) ** length penalty"""

    tokens: list
    score: float


def beam_search(steps, start, end, beam=5, max_length=200, length_penalty=1.0):
    """-> B Hypotheses, the best of each utterance, which no batch mate changes.

    steps: an object with `batch` (B), `device`, `log_probs(last tokens (B, K)) -> (B, K, V)` of the tokens
    that follow, and `keep(utterances (B',), hypotheses (B' * K,))`, after which it goes on with those, the
    hypotheses numbered through all B * K before. start, end: token numbers. An utterance is done when `beam`
    of its hypotheses have ended, each while among its `beam` best, or at `max_length` tokens, the end
    included (fairseq's rule). None is empty. beam 1 is greedy.
    """
    if beam < 1 or max_length < 2:
        raise ValueError(f"beam is {beam} and max_length {max_length}: at least 1 and 2 are needed.")
    ended, running = [[] for _ in range(steps.batch)], torch.arange(steps.batch)
    tokens = torch.full((steps.batch, beam, 1), start, dtype=torch.int64, device=steps.device)
    scores = torch.full((steps.batch, beam), -torch.inf, device=steps.device)
    scores[:, 0] = 0.0  # all begin alike: one is enough
    for length in range(1, max_length + 1):
        log_probs = allowed(steps.log_probs(tokens[..., -1]), start, end, length, max_length)
        best, parents, following = candidates(scores, log_probs)
        ends = (following == end) & best.isfinite()
        collect(ended, running, tokens, best, parents, ends[:, :beam], length**length_penalty)
        best, chosen = best.masked_fill(following == end, -torch.inf).topk(beam, dim=1)
        parents, following = parents.gather(1, chosen), following.gather(1, chosen)
        full = torch.tensor([len(ended[i]) >= beam for i in running.tolist()], device=steps.device)
        going = (~full & best[:, 0].isfinite()).nonzero()[:, 0]
        if length == max_length or not len(going):
            break
        rows = (going[:, None] * beam + parents[going]).flatten()
        steps.keep(going, rows)
        before = tokens.flatten(0, 1)[rows].unflatten(0, (-1, beam))
        tokens = torch.cat([before, following[going, :, None]], dim=-1)
        scores, running = best[going], running[going.cpu()]
    return [max(found, key=lambda h: h.score, default=Hypothesis([], -torch.inf)) for found in ended]


def allowed(log_probs, start, end, length, max_length):
    """(B, K, V) without what may not follow: the start, an end at once, anything but the end at the last"""
    banned = torch.zeros(log_probs.shape[-1], dtype=torch.bool, device=log_probs.device)
    if length == max_length:
        banned[:] = True
    banned[start], banned[end] = True, length == 1
    return log_probs.masked_fill(banned, -torch.inf)


def candidates(scores, log_probs):
    """scores (B, K), log_probs (B, K, V) -> the 2 K best ways on, best first: their sums, the hypotheses they
    go on from, their tokens, each (B, 2 K). Of those at most K are ends."""
    count, vocabulary = log_probs.shape[1:]
    totals = (scores[..., None] + log_probs).flatten(1)
    best, index = totals.topk(min(2 * count, totals.shape[1]), dim=1)
    return best, torch.div(index, vocabulary, rounding_mode="floor"), index % vocabulary


def collect(ended, running, tokens, best, parents, ends, divisor):
    """Adds the hypotheses where `ends` (B, K) to the list of their utterance."""
    for row, rank in ends.nonzero().tolist():
        said = tokens[row, parents[row, rank], 1:].tolist()
        ended[int(running[row])].append(Hypothesis(said, float(best[row, rank]) / divisor))
