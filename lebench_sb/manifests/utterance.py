"""An utterance, and what is wrong with one.

Everything is checked once, where a manifest is written (`manifests.writing`) or read (`manifests.reading`).
"""

import math
import os
import re
from dataclasses import dataclass, field

from lebench_sb.manifests.markers import PATH_COLUMNS

COLUMNS = ("ID", "duration", "wav", "start", "stop", "spk_id", "gender", "language")
PATH_LABELS = PATH_COLUMNS[1:]  # labels that may hold a path; a `tree` that is a key is left alone
GENDERS = ("F", "M", "U")
SECONDS = re.compile(r"\d+(\.\d+)?([eE][-+]?\d+)?")
TAG = re.compile(r"<[^<>\s]+>")  # opens a concept in `semantics`; CLOSE closes it
CLOSE = ">"


@dataclass(frozen=True)
class Utterance:
    """One piece of speech.

    wav: absolute path, of a file or of a member of a shard (`x.tar::a.flac`); duration: seconds of this
    utterance; start, stop: seconds inside `wav`, both None for the whole file; gender: F, M or U;
    labels: column -> text (`wrd`, `translation_en`, `semantics`, `trace`, ...). The label `channel` ("1",
    "2", ...) names the channel that holds the speech; without it all are averaged.
    """

    id: str
    wav: str
    duration: float
    start: float | None = None
    stop: float | None = None
    speaker: str = ""
    gender: str = "U"
    language: str = "fr"
    labels: dict = field(default_factory=dict, hash=False)


def tag_faults(text):
    """What is wrong with a tagged text `words <concept> words > words`, a list of faults in words.

    Tags stand between spaces, a concept is closed before the next opens, nothing else holds < or >.
    """
    faults, current = [], None
    for token in text.split():
        if TAG.fullmatch(token):
            if current:
                faults.append(f"{token} opens inside {current}")
            current = token
        elif token == CLOSE:
            if not current:
                faults.append("> closes no concept")
            current = None
        elif "<" in token or ">" in token:
            faults.append(f"{token!r} is neither a word nor a tag with spaces around it")
    return faults + ([f"{current} is not closed"] if current else [])


def check_tags(problems, text, where):
    """Adds the faults of a tagged text."""
    for fault in tag_faults(text):
        problems.add("semantics not written as `<concept> words > words`", f"{where}: {fault}")


def segment_faults(u):
    """The faults of start and stop, in words."""
    if u.start is None and u.stop is None:
        return []
    if u.start is None or u.stop is None or not is_number(u.start) or not is_number(u.stop):
        return ["start and stop must both be seconds, or both be None for the whole file"]
    if u.start < 0 or u.start >= u.stop:
        return ["start must be at least 0 and before stop"]
    if is_number(u.duration) and not segments_agree(u.duration, u.start, u.stop):
        return ["duration differs from stop - start by over 5 %"]
    return []


def segments_agree(duration, start, stop):
    """Whether a duration is stop - start, to 5 % and 20 ms (times are often rounded); numbers or arrays"""
    return abs(stop - start - duration) <= 0.02 + 0.05 * duration


def is_number(value):
    return isinstance(value, (int, float)) and math.isfinite(value)


def is_path(value):
    return isinstance(value, str) and os.path.isabs(value)
