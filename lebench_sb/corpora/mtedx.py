"""Multilingual TEDx, from French: talks of TEDx conferences, segmented, transcribed and translated by
volunteers (CC BY-NC-ND 4.0); 50 h to English, 38 h to Spanish, 25 h to Portuguese.

Each pair is a folder `fr-XX/data/{train,valid,test}/` with `wav/*.flac` (whole talks) and `txt/`:
`SPLIT.yaml`, a list of segments `{duration, offset, speaker_id, wav}` in seconds, `SPLIT.fr` and `SPLIT.XX`,
one line per segment. A talk has one speaker, named after its video, whose gender is not told; some releases
write `x.wav` in the YAML for the file `x.flac`. Texts keep their case and punctuation. The published slides
print the pairs the wrong way round: French is the source.
https://www.openslr.org/100/ (Salesky et al., Interspeech 2021)
"""

import logging
import math
import os
import re
from collections import Counter
from functools import cache
from pathlib import Path

import yaml

from lebench_sb.core.errors import DataError, Problems, UsageError
from lebench_sb.core.paths import Finder, below
from lebench_sb.corpora._caveats import synthetic
from lebench_sb.corpora._prepare import SPLITS, by_split, check_split, demand, hashes, prepare
from lebench_sb.manifests.durations import measure_durations
from lebench_sb.manifests.tables import read_text
from lebench_sb.manifests.utterance import SECONDS, Utterance
from lebench_sb.text.normaliser import UnreadableText
from lebench_sb.text.normaliser import normaliser as text_normaliser

KEYS = ("duration", "offset", "speaker_id", "wav")
LAYOUT = "data_folder must hold fr-XX/data/{train,valid,test}/, each with wav/ and txt/SPLIT.{yaml,fr,XX}."
# Texts, not numbers or truth values: a video's name may be 1e5 or no. The C parser is ten times as fast.
LOADER = getattr(yaml, "CBaseLoader", yaml.BaseLoader)
DEEPEST = 10  # levels of the YAML
OVERHANG = 0.1  # seconds a segment may reach beyond the end of its talk; it is cut there
BAD_SHARE = 0.01  # of the training segments may be unusable; more means another corpus than described
UNUSABLE, NO_TARGET, NO_TRANSCRIPT = "segment outside its talk", "empty translation", "empty transcript"
logger = logging.getLogger(__name__)


def prepare_mtedx(data_folder, manifest_folder, target_language="en", normaliser="fr-1"):
    """Writes train.csv, valid.csv and test.csv of one pair into `manifest_folder`; returns {split: marker}.

    data_folder: the folder that holds fr-en/, fr-es/ or fr-pt/, or one of these; target_language: en, es, pt.
    Labels: `translation_<target_language>` as the corpus writes it and `wrd`, the French transcript passed
    through `normaliser`, empty where it cannot read it. Training segments without translation or outside
    their talk are left out and counted in the marker; valid and test lose none. A second call with the same
    parameters and unchanged text files returns at once. Raises FileNotFoundError, UsageError, DataError.
    """
    root = _root(data_folder, target_language)
    parameters = {
        "corpus": "mtedx",
        "target_language": target_language,
        "normaliser": normaliser,
        "root": os.path.relpath(root, data_folder),
        "sha256": hashes(_texts(root, target_language), root),
    }
    read = by_split(
        lambda split, left_out: utterances(data_folder, split, target_language, normaliser, left_out)
    )
    caveats = synthetic(root.parent, above=2)
    return prepare(data_folder, manifest_folder, parameters, read, caveats=caveats)


def utterances(data_folder, split, target_language, normaliser="fr-1", dropped=None):
    """Yields the Utterances of `split` (train, valid, test), talk after talk, `TALK_nnnn` counting its
    segments in time.

    dropped: a Counter that receives {reason: count} of the segments left out. Raises as prepare_mtedx does.
    """
    check_split(split, "mTEDx")
    folder = _root(data_folder, target_language) / split
    dropped = Counter() if dropped is None else dropped
    segments = _segments(folder, split, target_language)
    segments_left = _inside_talks(folder, split, segments, dropped)
    if split == "train":
        empty = [segment for segment in segments_left if not segment["target"]]
        dropped.update({NO_TARGET: len(empty)} if empty else {})
        segments_left = [segment for segment in segments_left if segment["target"]]
    sentences, changed = (
        [segment["source"] for segment in segments_left],
        getattr(dropped, "changed", Counter()),
    )
    transcripts = _transcripts(folder, sentences, normaliser, changed)
    for segment, transcript in zip(segments_left, transcripts, strict=True):
        labels = {"wrd": transcript, f"translation_{target_language}": segment["target"]}
        start, stop = segment["start"], segment["stop"]
        yield Utterance(
            segment["id"], segment["path"], round(stop - start, 6), start, stop, segment["speaker_id"],
            "U", "fr", labels,
        )  # fmt: skip


def _root(data_folder, target_language):
    """The folder `fr-XX/data` of the pair"""
    if not re.fullmatch("[a-z]{2,3}", target_language):
        raise UsageError(f"target_language is {target_language!r}: a code such as en, es or pt is expected.")
    data_folder, pair = Path(data_folder), f"fr-{target_language}"
    inside = data_folder.name == pair and (data_folder / "data").is_dir()
    root = (data_folder if inside else data_folder / pair) / "data"
    if not root.is_dir():
        pairs = sorted(path.parent.name for path in data_folder.glob("fr-*/data"))
        there = f"data_folder holds {', '.join(pairs)}." if pairs else LAYOUT
        raise FileNotFoundError(f"{root} not found. {there}")
    demand(_texts(root, target_language), LAYOUT)
    return root


def _texts(root, target_language):
    return [
        below(root, split, "txt", f"{split}.{kind}")
        for split in SPLITS
        for kind in ("yaml", "fr", target_language)
    ]


def _segments(folder, split, target_language):
    """The YAML's items with `source`, `target`, `start`, `seconds`, `path`, `id`, in order of talk and time.
    DataError for lists of different length and items that are no segments."""
    stem = folder / "txt" / split
    items = _items(below(folder, "txt", f"{split}.yaml"))
    source = _lines(below(folder, "txt", f"{split}.fr"))
    target = _lines(below(folder, "txt", f"{split}.{target_language}"))
    if not len(items) == len(source) == len(target):
        raise DataError(
            f"{stem}.yaml has {len(items)} segments, {split}.fr {len(source)} lines, {split}."
            f"{target_language} {len(target)}: they must be as many. Unpack the archive again."
        )
    problems, recordings = Problems(f"{stem}.yaml"), _recordings(folder / "wav")
    segments = []
    for number, (item, french, other) in enumerate(zip(items, source, target, strict=True), 1):
        segment = _segment(item, number, recordings, problems)
        if segment:
            segments.append({**segment, "source": french, "target": other})
    problems.raise_if_any()
    counts = Counter()
    segments.sort(key=lambda segment: (segment["path"], segment["start"]))
    for segment in segments:
        talk = Path(segment["path"]).stem
        segment["id"] = f"{talk}_{counts[talk]:04d}"
        counts[talk] += 1
    return segments


def _items(path):
    text = read_text(path)
    try:
        _check_events(yaml.parse(text, Loader=LOADER), path)
        items = yaml.load(text, Loader=LOADER)  # noqa: S506  BaseLoader makes texts only
    except (yaml.YAMLError, TypeError) as error:  # keys that are lists: TypeError
        raise DataError(f"{path}: not YAML ({' '.join(str(error).split())}).") from None
    if not isinstance(items, list):
        raise DataError(f"{path}: a list of segments is expected, `- {{duration: ..., offset: ...}}` a line.")
    return items


def _check_events(events, path):
    """Raises DataError for aliases, of which ten lines can stand for billions of values, and for depth"""
    depth = 0
    for event in events:
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        line = event.start_mark.line + 1
        if isinstance(event, yaml.AliasEvent):
            raise DataError(f"{path}: line {line}: an alias (*{event.anchor}), which no segment needs.")
        if depth > DEEPEST:
            raise DataError(f"{path}: line {line}: nested over {DEEPEST} deep; a segment has two levels.")


def _lines(path):
    """Lines without spaces around them. Only a line feed ends one: texts may hold other separators."""
    lines = read_text(path).split("\n")
    return [line.strip() for line in (lines[:-1] if lines[-1] == "" else lines)]


def _recordings(folder):
    """-> function name -> (absolute path, "") of a talk; (None, what is wrong). The YAML may say .wav for the
    file .flac, or another letter case."""
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} not found. {LAYOUT}")
    return cache(Finder(folder).find)


def _segment(item, number, recordings, problems):
    """One item -> {start, seconds, path, speaker_id}; None, with a problem noted, for what is no segment."""
    if not isinstance(item, dict) or not all(isinstance(item.get(key), str) for key in KEYS):
        problems.add(f"segments without {', '.join(KEYS)}", f"number {number} {item!r:.80}")
        return None
    times = item["offset"], item["duration"]
    if not all(SECONDS.fullmatch(value) and math.isfinite(float(value)) for value in times):
        problems.add("offset or duration no number of seconds", f"number {number} {times}")
        return None
    path, fault = recordings(item["wav"])
    if fault:
        problems.add("talks not in wav/" if "missing" in fault else f"talks with {fault}", item["wav"])
        return None
    start, seconds = map(float, times)
    return {
        "start": start,
        "seconds": seconds,
        "path": path,
        "speaker_id": item["speaker_id"],
    }


def _inside_talks(folder, split, segments, dropped):
    """The segments, with `stop`, that lie inside their talks. Those of train that do not are counted, up to
    BAD_SHARE of them; one of valid or test, or more, is a DataError."""
    lengths = measure_durations({segment["path"] for segment in segments}, folder)
    inside, problems = [], Problems(folder / "txt" / f"{split}.yaml")
    for segment in segments:
        length, stop = lengths[segment["path"]], round(segment["start"] + segment["seconds"], 6)
        segment["stop"] = min(stop, length)
        if segment["start"] < segment["stop"] and stop <= length + OVERHANG:
            inside.append(segment)
        else:
            where = f"{segment['id']} [{segment['start']:g}, {stop:g}] of {length:g} s"
            problems.add("segments of no length or beyond the end of their talk", where)
    bad = len(segments) - len(inside)
    if split != "train" or bad > BAD_SHARE * len(segments):
        problems.raise_if_any()
    if bad:
        dropped[UNUSABLE] += bad
        logger.warning("Left out: %s", problems)
    return inside


def _transcripts(folder, sentences, normaliser, changed):
    """French texts through the normaliser; "" where it cannot read one, which is logged, its characters
    counted in `changed`"""
    normalise, transcripts, unread = text_normaliser(normaliser), [], []
    for sentence in sentences:
        try:
            transcripts.append(normalise(sentence))
        except UnreadableText as error:
            transcripts.append("")
            unread.append(sentence)
            changed.update(error.characters)
    if unread:
        first = ", ".join(map(repr, unread[:5]))
        logger.warning("%s: %s cannot read %d transcripts: %s", folder, normaliser, len(unread), first)
    return transcripts
