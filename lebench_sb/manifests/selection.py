"""Which speakers and languages of the manifests a run hears: the YAML keys `gender` and `languages`.

`gender` cuts train and valid and leaves test whole: one trains on some speakers to see what that does to all
(`utterances.csv` has each one's gender). `languages` cuts every split: another language is another task.
"""

import logging
from itertools import compress

import numpy as np

from lebench_sb.core.errors import DataError, UsageError, nearest
from lebench_sb.manifests.columns import Utterances, durations_of
from lebench_sb.manifests.utterance import GENDERS

logger = logging.getLogger(__name__)


def select(splits, gender, languages):
    """{split: Utterances} -> the same with the utterances asked for; how many are left is logged.

    gender: F, M or U (unknown), languages: values of the manifests' column; each is one value, a list, a
    string with commas, or empty for all. Raises UsageError for a gender that is none of the three, and
    DataError, with what the manifests do hold, for a split that keeps no utterance.
    """
    gender, languages = as_list(gender), as_list(languages)
    for value in gender:
        if value not in GENDERS:
            hint = nearest(value, ("F", "M", "U"), ": did you mean {}?")
            raise UsageError(f"--gender {value}: F, M or U (unknown), several with commas{hint}")
    trained = {split: found for split, found in splits.items() if split != "test"}
    splits = {**splits, **keep(trained, "gender", gender)}
    return keep(splits, "language", languages)


def as_list(value):
    """A value, a list, a string with commas, "" or None -> list of strings"""
    if value is None:
        return []
    parts = value if isinstance(value, (list, tuple)) else str(value).split(",")
    return [str(part).strip() for part in parts if str(part).strip()]


def keep(splits, column, wanted):
    """{split: Utterances} whose `column` (gender or language) is one of `wanted`; all if that is empty"""
    if not wanted:
        return splits
    selected = {}
    for split, utterances in splits.items():
        values, codes = coded(utterances, column)
        mask = np.array([value in wanted for value in values])[codes]
        if not mask.any():
            counts = np.bincount(codes, minlength=len(values))
            held = sorted(zip(values, counts.tolist(), strict=True))
            there = ", ".join(f"{value or 'none'}: {count}" for value, count in held)
            raise DataError(f"{split}: no utterance of {column} {' or '.join(wanted)}; it has {there}.")
        columnar = isinstance(utterances, Utterances)
        chosen = utterances.where(mask) if columnar else list(compress(utterances, mask))
        logger.info(
            "%s: %d of %d utterances kept (%.2f of %.2f h), %s %s", split, len(chosen), len(utterances),
            hours(chosen), hours(utterances), column, ", ".join(wanted),
        )  # fmt: skip
        selected[split] = chosen
    return selected


def coded(utterances, column):
    """Utterances, a list or columnar -> (values, codes (n,)): values[codes[i]] is what utterance i has"""
    if isinstance(utterances, Utterances):
        return utterances.distinct(column)
    values, codes = np.unique([getattr(u, column) for u in utterances], return_inverse=True)
    return values.tolist(), codes


def hours(utterances):
    return float(durations_of(utterances).sum()) / 3600
