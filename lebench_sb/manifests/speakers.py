"""Speakers that splits share."""

import logging

from lebench_sb.core.errors import DataError, Problems
from lebench_sb.manifests.columns import Utterances

logger = logging.getLogger(__name__)
OVERLAP, UNKNOWN = "speaker overlap allowed", "speakers not known"  # the caveats


def names_of(utterances):
    """(set of known speakers, number of utterances without one)"""
    if isinstance(utterances, Utterances):
        values, codes = utterances.distinct("spk_id")
        unknown = sum(int((codes == code).sum()) for code, value in enumerate(values) if not value)
        return set(values) - {""}, unknown
    return {u.speaker for u in utterances if u.speaker}, sum(not u.speaker for u in utterances)


def check_speakers(utterances, allow_overlap):
    """{split: Utterances} -> caveats of the result: speakers shared by splits, where that is allowed;
    utterances without a speaker, which a warning counts. Raises DataError where it is not allowed."""
    found = {split: names_of(part) for split, part in utterances.items()}
    speakers, problems = {split: names for split, (names, _) in found.items()}, Problems("splits")
    for first, second in (("train", "valid"), ("train", "test"), ("valid", "test")):
        for speaker in sorted(speakers[first] & speakers[second]):
            problems.add(f"speakers in {first} and {second}", speaker)
    unknown = sum(count for _, count in found.values())
    if unknown:
        logger.warning("%d utterances without speaker: nothing shows that the splits are apart.", unknown)
    if problems and not allow_overlap:
        raise DataError(
            f"{problems}. Split by speaker, or --allow_speaker_overlap True: a caveat of the result."
        )
    return [*([UNKNOWN] if unknown else []), *([OVERLAP] if problems else [])]
