"""Masks and negatives: never in padding, the reference rule, reproducible from (seed, step, id) alone."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.models.wav2vec2.modeling_wav2vec2 import _compute_mask_indices

from lebench_sb.pretraining.masking import draw_masks, draw_negatives, span_mask, utterance_rng

LENGTHS = [100, 749, 500, 320]  # frames of a ragged batch


def runs(mask):
    """bool (F,) -> first frames and lengths of the runs of True"""
    edges = np.flatnonzero(np.diff(np.r_[False, mask, False]))
    return edges[::2], edges[1::2] - edges[::2]


@settings(max_examples=150, deadline=None)
@given(
    frame_lens=st.lists(st.integers(0, 120), min_size=1, max_size=5),
    prob=st.floats(0.05, 1.0),
    length=st.integers(1, 12),
    seed=st.integers(0, 2**31),
)
def test_masks_stay_in_valid_frames_and_distractors_in_their_utterance(frame_lens, prob, length, seed):
    ids = [f"u{i}" for i in range(len(frame_lens))]
    mask, negatives = draw_masks(frame_lens, ids, seed, 3, prob, length, min_masks=2, num_negatives=7)
    assert mask.shape == (len(frame_lens), max(frame_lens))
    assert negatives.shape == (int(mask.sum()), 7) and negatives.dtype.is_signed
    owner = np.repeat(np.arange(len(ids)), mask.sum(dim=1).numpy())
    assert (owner[negatives.numpy()] == owner[:, None]).all()
    assert (negatives.numpy() != np.arange(len(owner))[:, None]).all()
    for row, frames in zip(mask.numpy(), frame_lens, strict=True):
        assert not row[frames:].any()
        if frames < length:
            assert not row.any()
        elif frames > length > 1:
            # two spans with different first frames: at least length + 1 frames, no run shorter than a span
            assert row.sum() > length and runs(row)[1].min() >= length


def test_an_utterance_too_short_for_a_span_is_not_masked():
    assert not span_mask(9, 0.65, 10, 2, np.random.default_rng(0)).any()
    assert span_mask(
        10, 0.65, 10, 2, np.random.default_rng(0)
    ).all()  # one place for a span, the whole utterance
    mask, negatives = draw_masks([9, 0], ["a", "b"], 0, 0, 0.65, 10, 2, 100)
    assert mask.shape == (2, 9) and not mask.any() and negatives.shape == (0, 100)


def test_one_masked_frame_has_no_distractor():
    with pytest.raises(ValueError, match="at least 2"):
        draw_negatives(1, 100, np.random.default_rng(0))


def histogram(masks, frames):
    """-> mean masked share, share of runs per length (runs of 10, 11, ... 40 frames or more)"""
    lengths = np.concatenate([runs(mask)[1] for mask in masks])
    shares = np.bincount(np.minimum(lengths, 40), minlength=41) / len(lengths)
    return np.mean([mask.sum() for mask in masks]) / frames, shares


@pytest.mark.parametrize("row", range(len(LENGTHS)))
def test_masked_share_and_span_lengths_follow_the_reference_at_mixed_lengths(row):
    repeats, frames = 2000, LENGTHS[row]
    ids = list("abcd")
    ours = [
        draw_masks(LENGTHS, ids, 1, step, 0.65, 10, 2, 1)[0][row, :frames].numpy() for step in range(repeats)
    ]
    np.random.seed(0)
    theirs = _compute_mask_indices_alone(frames, repeats)
    share, lengths = histogram(ours, frames)
    expected_share, expected_lengths = histogram(theirs, frames)
    assert share == pytest.approx(expected_share, abs=0.006)
    assert np.abs(lengths - expected_lengths).max() < 0.02
    assert 0.5 * np.abs(lengths - expected_lengths).sum() < 0.06  # total variation


def _compute_mask_indices_alone(frames, repeats):
    return [_compute_mask_indices((1, frames), 0.65, 10, min_masks=2)[0] for _ in range(repeats)]


def test_span_starts_are_uniform():
    counts = np.zeros(31)
    for step in range(20000):
        starts, _ = runs(span_mask(40, 0.01, 10, 1, utterance_rng(0, step, "u")))
        counts[starts] += 1
    assert counts.sum() == 20000
    # chi-square with 30 degrees of freedom: 67 is exceeded once in 10,000
    assert ((counts - 20000 / 31) ** 2 / (20000 / 31)).sum() < 67


def test_distractors_are_uniform_over_the_other_masked_frames():
    drawn = draw_negatives(6, 60000, np.random.default_rng(0))
    for frame in range(6):
        shares = np.bincount(drawn[frame], minlength=6) / 60000
        assert shares[frame] == 0
        assert np.delete(shares, frame) == pytest.approx(0.2, abs=0.01)


def test_an_utterance_has_the_same_mask_in_any_batch():
    alone, alone_negatives = draw_masks([320], ["d"], 7, 11, 0.65, 10, 2, 100)
    mask, negatives = draw_masks(LENGTHS, list("abcd"), 7, 11, 0.65, 10, 2, 100)
    first = int(mask[:3].sum())
    assert (mask[3, :320] == alone[0]).all()
    assert (negatives[first:] - first == alone_negatives).all()


def test_seed_step_and_id_each_change_the_mask():
    draws = [
        draw_masks([400], [name], seed, step, 0.65, 10, 2, 5)[0]
        for seed, step, name in [
            (0, 0, "a"),
            (1, 0, "a"),
            (0, 1, "a"),
            (0, 0, "b"),
            (0, 10, "a"),
            (1, 0, "0a"),
        ]
    ]
    for i, one in enumerate(draws):
        assert all((one != other).any() for other in draws[i + 1 :])


def test_masks_do_not_depend_on_the_process():
    code = (
        "from lebench_sb.pretraining.masking import draw_masks;"
        "m, n = draw_masks([300, 200], ['é', 'b'], 5, 6, 0.65, 10, 2, 9);"
        "print(m.nonzero().flatten().tolist(), n.flatten().tolist())"
    )
    outputs = [
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for seed in ("1", "2")
    ]
    mask, negatives = draw_masks([300, 200], ["é", "b"], 5, 6, 0.65, 10, 2, 9)
    here = f"{mask.nonzero().flatten().tolist()} {negatives.flatten().tolist()}\n"
    assert outputs == [here, here]
