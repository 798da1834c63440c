"""Which frames are masked, and which masked frames serve as negatives.

B utterances of F frames (padded), M masked frames in the whole batch. Everything is drawn from (seed, step,
utterance id): neither the batch an utterance falls in, nor the process that draws, nor an interruption
changes its mask.
"""

import hashlib

import numpy as np
import torch


def utterance_rng(seed, step, utterance_id):
    """-> np.random.Generator that depends on the three values only.

    The id is hashed with BLAKE2 and not with hash(), which changes from process to process.
    """
    key = f"{int(seed)}/{int(step)}/{utterance_id}".encode()
    return np.random.default_rng(int.from_bytes(hashlib.blake2b(key, digest_size=16).digest(), "little"))


def span_mask(num_frames, prob, length, min_masks, rng):
    """Mask of one utterance -> bool array (num_frames,), True where masked.

    The rule of fairseq `compute_mask_indices` and transformers `_compute_mask_indices` (static spans, overlap
    allowed): int(prob * num_frames / length + u) spans of `length` frames, u uniform in [0, 1), at least
    `min_masks`, with different first frames among those that keep the span inside the utterance. With p =
    0.065 span starts per frame (prob 0.65, length 10) about 1 - (1 - p)^10 = 49 % of the frames are masked.

    An utterance shorter than one span gets no mask and so adds nothing to the loss; one with fewer possible
    first frames than `min_masks` gets one span on each of them.
    """
    mask = np.zeros(num_frames, dtype=bool)
    num_starts = num_frames - length + 1
    if num_starts < 1:
        return mask
    num_spans = max(int(prob * num_frames / length + rng.random()), min_masks)
    starts = rng.choice(num_starts, size=min(num_spans, num_starts), replace=False)
    mask[(starts[:, None] + np.arange(length)).ravel()] = True
    return mask


def draw_negatives(num_masked, count, rng):
    """Negatives of one utterance -> int64 array (num_masked, count), indices into its masked frames.

    Row i is uniform over the masked frames other than i, with replacement (wav2vec 2.0, section 3.2; fairseq
    `sample_negatives`).

    Raises ValueError when there is no other masked frame to draw from.
    """
    if num_masked < 2:
        raise ValueError(f"{num_masked} masked frame(s): negatives need at least 2 in the utterance.")
    drawn = rng.integers(0, num_masked - 1, size=(num_masked, count))
    return drawn + (drawn >= np.arange(num_masked)[:, None])


def chance_hits(masked_counts, count):
    """Masked frames found among their negatives by chance -> expected number over utterances.

    masked_counts: masked frames m of each utterance; count: negatives of each, drawn with replacement. Of
    n = m - 1 other frames n (1 - (1 - 1 / n)^count) are expected to be drawn at least once: in a short
    utterance chance is right more often than 1 / (1 + count).
    """
    hits = 0.0
    for masked in masked_counts:
        others = max(masked - 1, 1)
        hits += masked / (1 + others * (1 - (1 - 1 / others) ** count))
    return hits


def draw_masks(frame_lens, ids, seed, step, prob, length, min_masks, num_negatives):
    """Masks and negatives of a batch -> mask (B, F) bool, negatives (M, num_negatives) int64, both CPU
    tensors.

    frame_lens: B numbers of valid frames; F is the largest. `negatives` indexes the M masked frames of the
    batch taken in row-major order, each row within its own utterance. An utterance left with a single masked
    frame is not masked at all, for want of a negative (possible with spans of one frame only).
    """
    frame_lens = [int(n) for n in frame_lens]
    mask = np.zeros((len(frame_lens), max(frame_lens, default=0)), dtype=bool)
    negatives, first = [np.zeros((0, num_negatives), dtype=np.int64)], 0
    for row, num_frames, utterance_id in zip(mask, frame_lens, ids, strict=True):
        rng = utterance_rng(seed, step, utterance_id)
        spans = span_mask(num_frames, prob, length, min_masks, rng)
        num_masked = int(spans.sum())
        if num_masked < 2:
            continue
        row[:num_frames] = spans
        negatives.append(first + draw_negatives(num_masked, num_negatives, rng))
        first += num_masked
    return torch.from_numpy(mask), torch.from_numpy(np.concatenate(negatives))
