"""Whether the steps of a CTC output are enough for the texts they shall spell."""

import logging
import operator

import numpy as np
import torch

from lebench_sb.audio.waveforms import SAMPLE_RATE
from lebench_sb.core.errors import SHOWN, DataError
from lebench_sb.manifests.audio_checks import MAX_BAD_FRACTION
from lebench_sb.manifests.columns import durations_of
from lebench_sb.manifests.labels import ids_of, values_of

logger = logging.getLogger(__name__)


def check_targets(splits, column, encode, head, hparams):
    """Counts the texts of each split that need more steps than their audio has: no path says them, CTC gives
    them no loss.

    encode: text -> symbols (L,), of which a repeated one needs a step between; head: module whose `lengths`
    turns frames of hparams["encoder"] into steps. Raises DataError where they are more than the share
    `max_bad_fraction` of a split; fewer are logged, and told in results.json.
    """
    counts, allowed = {}, hparams.get("max_bad_fraction", MAX_BAD_FRACTION)
    for split, utterances in splits.items():
        too_long_ids = too_long(utterances, column, encode, steps_of(utterances, hparams["encoder"], head))
        if not too_long_ids:
            continue
        more = f" and {len(too_long_ids) - SHOWN} more" if len(too_long_ids) > SHOWN else ""
        share = f"{len(too_long_ids)} of {len(utterances)}"
        message = f"{split}: {share} texts of {column} need more steps than their audio has"
        message += f" ({', '.join(too_long_ids[:SHOWN])}{more})"
        if len(too_long_ids) > allowed * len(utterances):
            raise DataError(
                f"{message}, over max_bad_fraction {allowed:g}: correct them, or raise the head's max_rate."
            )
        logger.warning("%s; no path of CTC says them.", message)
        counts[split] = len(too_long_ids)
    if counts and "checked" in hparams:
        hparams["checked"].details["targets_too_long"] = counts


def steps_of(utterances, encoder, head):
    """Steps (n,) of the head for the audio of each utterance"""
    samples = np.round(durations_of(utterances) * SAMPLE_RATE).astype(np.int64)
    hop = round(SAMPLE_RATE / encoder.frame_rate)
    frames = np.maximum((samples - encoder.min_samples) // hop + 1, 0)
    return head.lengths(torch.from_numpy(frames)).numpy()


def too_long(utterances, column, encode, steps):
    """IDs of the utterances whose text needs more than its steps (n,)"""
    texts = values_of(utterances, column) or []
    # no symbols need more steps than the characters they are made of, and one for the mark of a first word
    most = np.array([steps_needed(text) + 1 for text in texts])
    unsure = np.flatnonzero(most > steps[: len(most)]).tolist()
    positions = [k for k in unsure if steps_needed(encode(texts[k])) > steps[k]]
    ids = ids_of(utterances) if positions else []
    return [ids[k] for k in positions]


def steps_needed(symbols):
    """Symbols, a text, list or tensor (L,) -> the fewest steps of a CTC path that says them"""
    symbols = symbols.tolist() if isinstance(symbols, torch.Tensor) else symbols
    return len(symbols) + sum(map(operator.eq, symbols, symbols[1:]))
