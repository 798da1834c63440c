"""Quantiser and losses of wav2vec 2.0 (Baevski et al., 2020, section 3.2), on masked frames only.

M masked frames of B utterances, G groups of V codes, N negatives, D dimensions of the space where frames
are compared. Nothing here is computed for a frame that no loss looks at, and no (M, N, D) or one-hot (M, G,
V, D) tensor is built. Everything runs in float32: call it outside autocast.
"""

import torch
from torch.nn import functional as F

from lebench_sb.training.data import send


def gumbel_noise(like):
    """Standard Gumbel noise with the shape of `like`, drawn as torch.nn.functional.gumbel_softmax does."""
    # an exact zero, which exponential_ does not exclude on every device, would become infinite noise
    drawn = torch.empty_like(like).exponential_()
    return -drawn.clamp_(min=torch.finfo(drawn.dtype).tiny).log()


def choose_codes(logits, codebook, temperature, noise):
    """Gumbel straight-through choice: logits and noise (M, G, V), codebook (G, V, D/G) -> vectors (M, D),
    codes (M, G)

    The value is the codevector with the largest noisy logit, looked up by its index. The gradient is that of
    gumbel_softmax(hard=True): to the codebook through the chosen rows, to the logits through the soft choice.
    """
    soft = torch.softmax((logits + noise) / temperature, dim=-1)
    codes = soft.argmax(dim=-1)
    # equal to zero, but carries the gradient of the soft choice
    blend = torch.einsum("mgv,gvd->mgd", soft, codebook.detach())
    return (look_up(codebook, codes) + (blend - blend.detach())).flatten(1), codes


def look_up(codebook, codes):
    """codebook (G, V, D/G), codes (M, G) -> (M, G, D/G)"""
    groups, num_codes, _ = codebook.shape
    first = torch.arange(groups, device=codes.device) * num_codes
    return F.embedding(codes + first, codebook.flatten(0, 1))


def code_counts(codes, num_codes):
    """codes (M, G) -> (G, V) int64, how many masked frames chose each code"""
    groups = codes.shape[1]
    first = torch.arange(groups, device=codes.device) * num_codes
    places = (codes + first).flatten()
    # not bincount: on a GPU it waits for the largest code
    counts = torch.zeros(groups * num_codes, dtype=torch.int64, device=codes.device)
    return counts.scatter_add_(0, places, torch.ones_like(places)).view(groups, num_codes)


def perplexity(probs):
    """probs (G, V), each row a distribution -> (G,), between 1 (one code) and V (all equally)"""
    return torch.exp(-torch.special.xlogy(probs, probs).sum(dim=-1))


def diversity_loss(mean_probs):
    """mean_probs (G, V) -> scalar (GV - sum of the groups' perplexities) / GV

    As fairseq and transformers have it; the paper's equation 4 maximises the same distribution's entropy.
    """
    return (mean_probs.numel() - perplexity(mean_probs).sum()) / mean_probs.numel()


def contrastive_logits(contexts, targets, codes, negatives, counts, temperature):
    """Similarity (cosine / temperature) of contexts to their target, then negatives -> (M, 1 + N)

    contexts and targets (M, D); codes (M, G) of the targets; negatives (M, N) indices into the M frames;
    counts: masked frames of each utterance (B ints, sum M). A negative that chose the same codes as the
    target is the same vector and gets -inf (fairseq compares the vectors, which is the same test).

    One batched matrix product gives all pairs of frames of an utterance; the drawn pairs are gathered.
    """
    widest, counts = max(counts, default=0), torch.as_tensor(counts)
    device, total = contexts.device, len(contexts)
    rows = torch.repeat_interleave(torch.arange(len(counts)), counts, output_size=total)
    first = torch.repeat_interleave(counts.cumsum(0) - counts, counts, output_size=total)
    rows, first = send(rows, device), send(first, device)
    columns = torch.arange(total, device=device) - first  # (M,) place in one's utterance

    def padded(vectors):
        """(M, D) -> unit vectors (B, widest, D)"""
        empty = vectors.new_zeros(len(counts), widest, vectors.shape[1])
        return empty.index_put((rows, columns), F.normalize(vectors, dim=-1, eps=1e-8))

    similarities = (padded(contexts) @ padded(targets).transpose(1, 2))[rows, columns]  # (M, widest)
    pairs = torch.cat([columns[:, None], negatives - first[:, None]], dim=1)
    logits = similarities.gather(1, pairs) / temperature
    same = (codes[negatives] == codes[:, None]).all(dim=-1)
    return logits.masked_fill(F.pad(same, (1, 0)), float("-inf"))


def contrastive_loss(logits):
    """logits (M, 1 + N), the target first -> (M,) -log softmax(logits)[0] of each frame (equation 3)"""
    return torch.logsumexp(logits, dim=-1) - logits[:, 0]


def is_correct(logits):
    """logits (M, 1 + N) -> (M,) bool: the target beats every negative that is not the target itself"""
    return logits[:, 0] > logits[:, 1:].amax(dim=-1)
