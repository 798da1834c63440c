"""What Transcriber and STM say alike: who says what from when to when, by ESTER's and ETAPE's conventions."""

import math
import re
import unicodedata
from dataclasses import dataclass

from lebench_sb.manifests.utterance import SECONDS

SEVERAL, EMPTY, NOBODY = "several speakers at once", "no words", "no speaker"


@dataclass(frozen=True)
class Stretch:
    """What one speaker says between two times (s) of a recording; `why`: reason to leave it out, or ""."""

    start: float
    stop: float
    speaker: str = ""
    gender: str = "U"
    text: str = ""
    why: str = ""


def is_time(text):
    """Whether a text is a number of seconds"""
    return bool(SECONDS.fullmatch(text or "")) and math.isfinite(float(text))


def why_not(speakers, text):
    """The reason to leave out what these speakers say, or "" """
    if not text:
        return EMPTY
    return "" if len(speakers) == 1 else SEVERAL if speakers else NOBODY


def speaker_name(name):
    """A speaker as both formats write it: composed, white space as underscores"""
    return "_".join(unicodedata.normalize("NFC", name).split())


def cleaned(text):
    """A transcript without the marks of the conventions; words, case and punctuation stay."""
    text = re.sub(r"\{([^{}/]*)(/[^{}]*)?\}", r"\1", text)  # {reading / other reading}
    text = re.sub(r"\[[^\[\]]*\]", " ", text)
    text = re.sub(r"\^\^|(?<!\w)\*(?=\w)", "", text)
    text = re.sub(r"(?<=\w)\((\w*)\)|\((\w+)\)(?=\w)", lambda m: m[1] or m[2] or "", text)
    return " ".join(text.split())
