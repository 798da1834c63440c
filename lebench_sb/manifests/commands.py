"""Behind `lebench stats` and `lebench validate`: what manifests hold, and whether their audio agrees."""

import hashlib
import os
import re
from collections import defaultdict
from pathlib import Path

from tabulate import tabulate

from lebench_sb.core.errors import DataError
from lebench_sb.manifests.audio_checks import MAX_BAD_FRACTION, survey_audio
from lebench_sb.manifests.reading import read_manifest
from lebench_sb.manifests.utterance import GENDERS

ORDER = ("M", "F", "U")  # LeBenchmark's order
SHORTEST = 0.025  # seconds: one window of a filterbank, one frame of wav2vec 2.0
LONGEST = 60.0  # seconds: longer ones are open microphones or uncut recordings
HEADER = (
    "manifest",
    "utterances",
    "M / F / U",
    "duration",
    "M / F / U",
    "speakers (M/F/U)",
    "mean s (M/F/U)",
    "s",
)


def statistics(manifests):
    """{name: utterances} -> a Markdown table with LeBenchmark's columns, and a last line for all.

    Utterances, hours:minutes, speakers, mean length, each also by gender (M, F, U); shortest and longest.
    """
    rows = [_row(name, utterances) for name, utterances in manifests.items()]
    if len(rows) > 1:
        rows.append(_row("all", [u for utterances in manifests.values() for u in utterances]))
    return tabulate(rows, HEADER, tablefmt="github", stralign="right")


def _row(name, utterances):
    groups = {gender: [u for u in utterances if u.gender == gender] for gender in ORDER}
    parts = list(groups.values())
    lengths = [u.duration for u in utterances]
    means = "/".join(_mean(part) for part in parts)
    speakers = [len({u.speaker for u in part if u.speaker}) for part in parts]
    known = len({u.speaker for u in utterances if u.speaker})
    return [
        name,
        f"{len(utterances):,}",
        " / ".join(f"{len(part):,}" if part else "-" for part in parts),
        _clock(utterances),
        " / ".join(_clock(part) for part in parts),
        f"{known} ({'/'.join(str(n) if n else '-' for n in speakers)})" if known else "unknown",
        f"{_mean(utterances)} ({means})",
        f"{min(lengths):.1f}-{max(lengths):.1f}",
    ]


def _mean(utterances):
    return f"{sum(u.duration for u in utterances) / len(utterances):.1f}" if utterances else "-"


def _clock(utterances):
    """Hours:minutes, rounded; "-" for none."""
    minutes = round(sum(u.duration for u in utterances) / 60)
    return f"{minutes // 60:,}:{minutes % 60:02d}" if utterances else "-"


def validate(paths, data_root, decode=False):
    """`survey` -> (errors, warnings), each Problems; what training would leave out is among the warnings"""
    report = survey(paths, data_root, decode)
    report.warned.found |= report.quarantined.found
    return report.errors, report.warned


def survey(paths, data_root, decode=False, cache_folder=None, shows_progress=False):
    """Manifests of one experiment -> AudioReport. FileNotFoundError: no such manifest.

    Every audio file is opened: it must be whole, its length must fit the manifest within 5 %, segments must
    lie inside. Samples are looked at in up to two hours of audio per manifest, decode=True in all: broken
    streams, NaN, digital silence, clipping, offset, and files of other names with the same samples. Between
    manifests no ID and no piece of audio may be shared; shared speakers are a warning. What training would
    leave out of a manifest called train is no error.
    """
    manifests, unreadable = {}, []
    for path in map(str, paths):
        try:
            manifests[path] = read_manifest(path, data_root)
        except DataError as error:
            unreadable.append(error)
    lenient = [path for path in manifests if Path(path).stem.split("_")[0] == "train"]
    sample = "all" if decode else None
    report = survey_audio(manifests, cache_folder, sample, MAX_BAD_FRACTION, shows_progress, lenient)
    for error in unreadable:
        report.errors.add("unreadable manifest", error)
    _check_speakers(manifests, report.warned)
    for utterances in manifests.values():
        for u in utterances:
            _check_utterance(u, report.warned)
    return report


def cache_folder(manifest):
    """Where verdicts on the audio of a manifest are kept: beside it, or in the user's cache folder where
    nobody may write beside it"""
    folder = Path(manifest).absolute().parent
    if os.access(folder, os.W_OK):
        return folder
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "lebench_sb" / hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]


def _check_speakers(manifests, warnings):
    """Adds speakers that two manifests share"""
    speakers = defaultdict(list)
    for path, utterances in manifests.items():
        for speaker in sorted({u.speaker for u in utterances if u.speaker}):
            speakers[speaker].append(path)
    for speaker, shared in sorted(speakers.items()):
        if len(shared) > 1:
            warnings.add(f"same speaker in {' and '.join(shared)}", speaker)


def _check_utterance(u, warnings):
    """Adds what is odd with one utterance"""
    if not u.duration >= SHORTEST:
        warnings.add("shorter than 25 ms", f"{u.id} {u.duration:.3f} s")
    if u.duration > LONGEST:
        warnings.add("longer than a minute", f"{u.id} {u.duration:.0f} s")
    if not u.labels.get("wrd", "-").strip():
        warnings.add("empty wrd", u.id)
    if re.search(r"\d", u.labels.get("wrd", "")):
        warnings.add("digits in wrd", u.id)
    if u.speaker and u.gender not in GENDERS[:2]:
        warnings.add("gender not known", u.id)
