"""NIST's STM: `waveform channel speaker begin end <labels> text`, a stretch a line, comments after `;;`."""

import re

from lebench_sb.core.errors import DataError, Problems
from lebench_sb.core.guard import read_small
from lebench_sb.corpora.formats.stretches import Stretch, cleaned, is_time, speaker_name, why_not

GENDERS = {"male": "M", "female": "F"}
IGNORED = "ignored in scoring"
LABELS = re.compile(r"<[^<>\s]*>")


def read_stm(path, encoding="utf-8"):
    """NIST STM -> {recording: [Stretch]}, one for each line. Raises DataError that lists bad lines."""
    stretches, problems = {}, Problems(path)
    for number, line in enumerate(_lines(path, encoding), 1):
        if not line.strip() or line.lstrip().startswith(";;"):
            continue
        fields = line.split(None, 5)
        if len(fields) < 5 or not (is_time(fields[3]) and is_time(fields[4])):
            problems.add(
                "lines that are not waveform channel speaker begin end [<labels>] text",
                f"line {number} {line.strip()[:60]!r}",
            )
            continue
        stretch = _stm_stretch(*fields[2:5], fields[5] if len(fields) > 5 else "")
        stretches.setdefault(fields[0], []).append(stretch)
    problems.raise_if_any()
    return stretches


def _stm_stretch(speaker, start, stop, rest):
    """The fields of a line of a .stm as a Stretch"""
    labels = LABELS.match(rest)
    named = labels[0].strip("<>").lower().split(",") if labels else []
    gender = next((GENDERS[label] for label in named if label in GENDERS), "U")
    text = cleaned(rest[labels.end() :] if labels else rest)
    silent = speaker.lower() in ("inter_segment_gap", "excluded_region")
    names = [] if silent else [speaker_name(name) for name in speaker.split("+")]
    why = IGNORED if "ignore_time_segment_in_scoring" in text.lower() else why_not(names, text)
    one = names[0] if len(names) == 1 else ""
    return Stretch(float(start), float(stop), one, gender, "" if why == IGNORED else text, why)


def _lines(path, encoding):
    data = read_small(path)
    if data.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in data:
        raise DataError(f"{path}: UTF-16 or no text; save it as UTF-8 (`iconv -f UTF-16 -t UTF-8 IN > OUT`).")
    try:
        return data.decode("utf-8-sig" if encoding.lower() in ("utf-8", "utf8") else encoding).splitlines()
    except (LookupError, AttributeError):
        raise DataError(f"stm_encoding {encoding!r} is no encoding; utf-8 or iso-8859-1, say.") from None
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        hint = "--stm_encoding names another, iso-8859-1 for example"
        raise DataError(f"{path}: line {line} is not {encoding}; {hint}.") from None
