"""Common Voice French: sentences read aloud at home by thousands of volunteers, checked by others' votes
(CC0).

Mozilla publishes a release as `cv-corpus-<version>/fr/`: `train.tsv`, `dev.tsv` and `test.tsv` (no speaker
in two of them), `clips/*.mp3`, and since release 12 or so `clip_durations.tsv`. LeBenchmark used 5.1 (604 h)
and 6.1. The columns grew (`accent` became `accents`, `variant` came, genders became `male_masculine`),
`client_id`, `path`, `sentence` and `gender` stayed. The TSV quotes nothing: a lone `"` is part of its
sentence. Some clips hold other words, or none; the votes are no proof.
https://commonvoice.mozilla.org/fr/datasets
"""

import hashlib
import logging
import os
from collections import Counter
from pathlib import Path

from lebench_sb.corpora._stamps import synthetic
from lebench_sb.manifest import (
    DataError,
    Utterance,
    is_prepared,
    measure_durations,
    nearest,
    read_marker,
    read_table,
    write_manifest,
)
from lebench_sb.text import UnreadableText
from lebench_sb.text import none as compose
from lebench_sb.text import normaliser as text_normaliser

SPLITS = {"train": "train", "valid": "dev", "test": "test"}  # ours: theirs
GENDERS = {"male": "M", "male_masculine": "M", "female": "F", "female_feminine": "F"}
NEEDED = ("client_id", "path", "sentence", "gender")
SHOWN = 5
logger = logging.getLogger(__name__)


def prepare_commonvoice(data_folder, manifest_folder, normaliser="fr-1", language="fr"):
    """Writes train.csv, valid.csv and test.csv into `manifest_folder` and returns {split: marker}.

    data_folder: a locale's folder (train.tsv, dev.tsv, test.tsv, clips/) or the release's, which holds it
    under the name of its `language`; normaliser: of the label `wrd`, the sentence; `text` is it with case
    and punctuation. Sentences of which nothing is left, or which hold characters the normaliser cannot
    read, are left out, counted in the marker and logged. A second call with the same parameters and unchanged
    TSVs returns at once. Raises FileNotFoundError, or DataError (clips that are missing or do not decode,
    columns, encoding).
    """
    locale = _locale_folder(data_folder, language)
    parameters = {
        "corpus": "commonvoice",
        "normaliser": normaliser,
        "language": language,
        "tsv_sha256": _hashes(locale),
        "labels": ["text", "wrd"],
    }
    parameters["locale"] = os.path.relpath(locale, data_folder)
    manifests = {split: Path(manifest_folder) / f"{split}.csv" for split in SPLITS}
    if all(is_prepared(path, parameters) for path in manifests.values()):
        return {split: read_marker(path) for split, path in manifests.items()}
    dropped = {split: Counter() for split in SPLITS}
    found = {
        split: list(utterances(data_folder, split, normaliser, language, dropped[split])) for split in SPLITS
    }
    stamps = _stamps(locale, found)
    return {
        split: write_manifest(path, found[split], data_folder, parameters, ("wrd",), dropped[split], stamps)
        for split, path in manifests.items()
    }


def utterances(data_folder, split, normaliser="fr-1", language="fr", dropped=None):
    """Yields the Utterances of `split` (train, valid, test) in the TSV's order; the clip's name is the id.

    dropped: a Counter that receives {reason: count} of the sentences left out. Durations (s) come from
    clip_durations.tsv, or by decoding the clips it does not list. Raises as prepare_commonvoice does.
    """
    if split not in SPLITS:
        raise ValueError(f"No split {split!r} in Common Voice: {', '.join(SPLITS)}.")
    locale = _locale_folder(data_folder, language)
    tsv = locale / f"{SPLITS[split]}.tsv"
    rows = _rows(tsv, NEEDED)
    clips = [os.path.abspath(locale / "clips" / row["path"]) for row in rows]
    _check_clips(tsv, clips)
    texts = _texts(
        tsv, [row["sentence"] for row in rows], normaliser, Counter() if dropped is None else dropped
    )
    kept = [(row, clip, text) for row, clip, text in zip(rows, clips, texts, strict=True) if text]
    seconds = _durations(locale, [clip for _, clip, _ in kept])
    for row, clip, text in kept:
        gender = GENDERS.get(row["gender"].strip().lower(), "U")
        name = Path(clip).stem
        labels = {"text": compose(row["sentence"]), "wrd": text}
        yield Utterance(name, clip, seconds[clip], None, None, row["client_id"], gender, language, labels)


def _locale_folder(data_folder, language):
    """The folder with the TSVs: data_folder, or its folder named `language`."""
    data_folder = Path(data_folder)
    folder = data_folder / language
    if (data_folder / "train.tsv").exists() or not folder.is_dir():
        folder = data_folder
    for name in SPLITS.values():
        if not (folder / f"{name}.tsv").is_file():
            raise FileNotFoundError(
                f"{folder / name}.tsv not found. data_folder must hold train.tsv, dev.tsv, test.tsv and "
                f"clips/, or a folder {language}/ that does (an unpacked Common Voice release)."
            )
    return folder


def _hashes(locale):
    """sha256 of each table: a manifest made from other tables is made again."""
    names = [*(f"{name}.tsv" for name in SPLITS.values()), "clip_durations.tsv"]
    return {
        name: hashlib.sha256((locale / name).read_bytes()).hexdigest()
        for name in names
        if (locale / name).is_file()
    }


def _rows(tsv, needed):
    """The rows as dicts; DataError that names the columns found when a needed one is missing."""
    header, rows = read_table(tsv, "\t", quotes=False)
    for name in needed:
        if name not in header:
            raise DataError(
                f"{tsv} has no column {name!r}{nearest(name, header)}; it has {', '.join(header)}."
            )
    return [dict(zip(header, fields, strict=True)) for _, fields in rows]


def _check_clips(tsv, clips):
    folder = tsv.parent / "clips"
    there = set(os.listdir(folder)) if folder.is_dir() else set()
    missing = [os.path.basename(clip) for clip in clips if os.path.basename(clip) not in there]
    if missing:
        more = " ..." if len(missing) > SHOWN else ""
        names = f"{', '.join(missing[:SHOWN])}{more}"
        raise DataError(
            f"{tsv}: {len(missing)} of {len(clips)} clips are not in {folder}: {names}. "
            "Unpack the whole release."
        )


def _texts(tsv, sentences, normaliser, dropped):
    """Normalised sentences, "" for those to leave out, which are counted in `dropped` and logged."""
    normalise, texts, left_out = text_normaliser(normaliser), [], []
    for sentence in sentences:
        try:
            text, reason = normalise(sentence), "empty transcript"
        except UnreadableText:
            text, reason = "", f"characters {normaliser} cannot read"
        texts.append(text)
        if not text:
            dropped[reason] += 1
            left_out.append(sentence)
    if left_out:
        shown = ", ".join(map(repr, left_out[:SHOWN]))
        logger.warning("%s: %d sentences left out, first: %s", tsv, len(left_out), shown)
    return texts


def _durations(locale, clips):
    """{clip: seconds}, listed or measured. An mp3's own header may lie, so measuring decodes."""
    table = locale / "clip_durations.tsv"
    listed = {}
    if table.is_file():
        rows = _rows(table, ("clip", "duration[ms]"))
        listed = {row["clip"]: row["duration[ms]"] for row in rows}
    milliseconds = {clip: listed.get(os.path.basename(clip), "") for clip in clips}
    seconds = {
        clip: int(value) / 1000 for clip, value in milliseconds.items() if value.isdecimal() and int(value)
    }
    return seconds | measure_durations([clip for clip in clips if clip not in seconds], locale)


def _stamps(locale, found):
    """What weakens a score on this data: speakers shared by train and test, speech that nobody spoke."""
    stamps = synthetic(locale)
    if {u.speaker for u in found["train"]} & {u.speaker for u in found["test"]}:
        stamps.append("same speaker in train and test")
    return stamps
