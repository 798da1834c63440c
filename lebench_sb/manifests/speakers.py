"""Speakers that splits share."""

import logging

from lebench_sb.core.errors import DataError, Problems
from lebench_sb.manifests.columns import Utterances

logger = logging.getLogger(__name__)
OVERLAP, UNKNOWN = "speaker overlap allowed", "speakers not known"  # the stamps


def names_of(utterances):
    """(set of known speakers, number of utterances without one)"""
    if isinstance(utterances, Utterances):
        values, codes = utterances.distinct("spk_id")
        unknown = sum(int((codes == code).sum()) for code, value in enumerate(values) if not value)
        return set(values) - {""}, unknown
    return {u.speaker for u in utterances if u.speaker}, sum(not u.speaker for u in utterances)


def check_speakers(utterances, hparams):
    """Raises DataError where two splits share a speaker, unless `allow_speaker_overlap`.

    Allowed, it is a stamp on the result; so are utterances without a speaker, which a warning counts.
    """
    found = {split: names_of(part) for split, part in utterances.items()}
    heard, problems = {split: names for split, (names, _) in found.items()}, Problems("splits")
    for first, second in (("train", "valid"), ("train", "test"), ("valid", "test")):
        for speaker in sorted(heard[first] & heard[second]):
            problems.add(f"speakers in {first} and {second}", speaker)
    unknown = sum(count for _, count in found.values())
    if unknown:
        logger.warning("%d utterances without speaker: nothing shows that the splits are apart.", unknown)
        _stamp(hparams, UNKNOWN)
    if problems and not hparams["allow_speaker_overlap"]:
        raise DataError(f"{problems}. Split by speaker, or --allow_speaker_overlap True, which is stamped.")
    if problems:
        _stamp(hparams, OVERLAP)


def _stamp(hparams, stamp):
    if stamp not in hparams["stamps"]:
        hparams["stamps"].append(stamp)
