"""Common Voice French: sentences read aloud at home by thousands of volunteers, checked by others' votes
(CC0).

Mozilla publishes a release as `cv-corpus-<version>/fr/`: `train.tsv`, `dev.tsv` and `test.tsv` (no speaker
in two of them), `clips/*.mp3`, and since release 12 or so `clip_durations.tsv`. LeBenchmark used 5.1 (604 h)
and 6.1. The columns grew (`accent` became `accents`, `variant` came, genders became `male_masculine`),
`client_id`, `path`, `sentence` and `gender` stayed. The TSV quotes nothing: a lone `"` is part of its
sentence. Some clips hold other words, or none; the votes are no proof. A path without its suffix, or of a
clip that was converted (.wav, .flac), names the clip of its stem.
https://commonvoice.mozilla.org/fr/datasets
"""

import os
from pathlib import Path

from lebench_sb.core.errors import DataError, Problems, nearest
from lebench_sb.core.paths import Finder, below
from lebench_sb.corpora._caveats import SAME_SPEAKER, synthetic
from lebench_sb.corpora._prepare import THEIRS, check_split, hashes, prepare
from lebench_sb.corpora._text import EMPTY, gender, readable
from lebench_sb.manifests.durations import probe_durations
from lebench_sb.manifests.markers import LeftOut
from lebench_sb.manifests.tables import read_table
from lebench_sb.manifests.utterance import Utterance
from lebench_sb.text.normaliser import none as compose

NEEDED = ("client_id", "path", "sentence", "gender")
SHOWN = 5


def prepare_commonvoice(data_folder, manifest_folder, normaliser="fr-1", language="fr"):
    """Writes train.csv, valid.csv and test.csv into `manifest_folder` and returns {split: marker}.

    data_folder: a locale's folder (train.tsv, dev.tsv, test.tsv, clips/) or the release's, which holds it
    under the name of its `language`; normaliser: of the label `wrd`, the sentence; `text` is it with case
    and punctuation. Sentences of which nothing is left, or which hold characters the normaliser cannot
    read, are left out, counted in the marker and logged (in train up to 1 % of the second, and of clips that
    do not decode). A second call with the same parameters and unchanged TSVs and clips returns at once.
    Raises FileNotFoundError, DataError (clips that are missing or do not decode, columns, encoding), and
    UsageError for files in `manifest_folder` that are not ours.
    """
    locale = _locale_folder(data_folder, language)
    parameters = {
        "corpus": "commonvoice",
        "normaliser": normaliser,
        "language": language,
        "tsv_sha256": hashes(_tables(locale)),
        "labels": ["text", "wrd"],
        "locale": os.path.relpath(locale, data_folder),
    }

    def read(left_out):
        splits = {
            s: list(utterances(data_folder, s, normaliser, language, each)) for s, each in left_out.items()
        }
        if {u.speaker for u in splits["train"]} & {u.speaker for u in splits["test"]}:
            for each in left_out.values():
                each.caveats.append(SAME_SPEAKER)
        return splits

    return prepare(data_folder, manifest_folder, parameters, read, ("wrd",), synthetic(locale))


def utterances(data_folder, split, normaliser="fr-1", language="fr", dropped=None):
    """Yields the Utterances of `split` (train, valid, test) in the TSV's order; the clip's name is the id.

    dropped: the split's LeftOut, which receives {reason: count} of the sentences left out. Durations (s) come
    from clip_durations.tsv, or by decoding the clips it does not list. Raises as prepare_commonvoice does.
    """
    check_split(split, "Common Voice")
    locale, left_out = _locale_folder(data_folder, language), LeftOut(split) if dropped is None else dropped
    tsv = below(locale, f"{THEIRS[split]}.tsv")
    problems, rows = Problems(tsv), _rows(tsv, NEEDED)
    clips = _clips(tsv, [row["path"] for _, row in rows])
    lines = [(f"line {line}", row["sentence"]) for line, row in rows]
    texts = readable(lines, normaliser, left_out, problems, counted=True)
    problems.raise_if_any()
    left_out.leave_out(
        tsv, [(EMPTY, repr(line)) for line, text in zip(lines, texts, strict=True) if text == ""]
    )
    readable_rows = [
        (row, clip, text) for (_, row), clip, text in zip(rows, clips, texts, strict=True) if text
    ]
    seconds = _durations(locale, [clip for _, clip, _ in readable_rows], left_out)
    for row, clip, text in readable_rows:
        if clip in seconds:
            labels = {"text": compose(row["sentence"]), "wrd": text}
            named = gender(row["gender"]) or "U"
            name, speaker = Path(clip).stem, row["client_id"]
            yield Utterance(name, clip, seconds[clip], None, None, speaker, named, language, labels)


def _locale_folder(data_folder, language):
    """The folder with the TSVs: data_folder, or its folder named `language`."""
    data_folder = Path(data_folder)
    folder = below(data_folder, language)
    if below(data_folder, "train.tsv").exists() or not folder.is_dir():
        folder = data_folder
    for name in THEIRS.values():
        if not below(folder, f"{name}.tsv").is_file():
            raise FileNotFoundError(
                f"{folder / name}.tsv not found. data_folder must hold train.tsv, dev.tsv, test.tsv and "
                f"clips/, or a folder {language}/ that does (an unpacked Common Voice release)."
            )
    return folder


def _tables(locale):
    """The tables there are: a manifest made from others is made again"""
    names = (f"{name}.tsv" for name in (*THEIRS.values(), "clip_durations"))
    return [path for name in names if (path := below(locale, name)).is_file()]


def _rows(tsv, needed):
    """[(line, row as a dict), ...]; DataError that names the columns found when a needed one is missing."""
    header, rows = read_table(tsv, "\t", quotes=False)
    for name in needed:
        if name not in header:
            raise DataError(
                f"{tsv} has no column {name!r}{nearest(name, header)}; it has {', '.join(header)}."
            )
    return [(line, dict(zip(header, fields, strict=True))) for line, fields in rows]


def _clips(tsv, paths):
    """The absolute paths of the clips that a table names, in order (`Finder.find`); DataError that counts
    those it does not find"""
    folder = below(tsv.parent, "clips")
    finder, beside, clips, faults = Finder(folder), Finder(tsv.parent), [], []
    for path in paths:
        clip, fault = finder.find(path)
        if clip is None:  # some copies write clips/ before the name
            clip, again = beside.find(path)
            fault = again if fault == "missing file" else fault
        clips.append(clip)
        if clip is None:
            faults.append(path if fault == "missing file" else f"{path}: {fault}")
    if faults:
        more = " ..." if len(faults) > SHOWN else ""
        raise DataError(
            f"{tsv}: {len(faults)} of {len(paths)} clips are not in {folder}: "
            f"{', '.join(faults[:SHOWN])}{more}. Unpack the whole release."
        )
    return clips


def _durations(locale, clips, left_out):
    """{clip: seconds}, listed or measured; in train without those that do not decode, if they are few
    (LeftOut.spare). An mp3's own header may lie, so measuring decodes."""
    table, listed = below(locale, "clip_durations.tsv"), {}
    if table.is_file():
        listed = {row["clip"]: row["duration[ms]"] for _, row in _rows(table, ("clip", "duration[ms]"))}
        listed = {Path(name).stem: value for name, value in listed.items()} | listed
    names = {clip: os.path.basename(clip) for clip in clips}
    milliseconds = {clip: listed.get(name, listed.get(Path(name).stem, "")) for clip, name in names.items()}
    seconds = {
        clip: int(value) / 1000 for clip, value in milliseconds.items() if value.isdecimal() and int(value)
    }
    measured, faults = probe_durations([clip for clip in clips if clip not in seconds])
    problems = Problems(locale)
    left_out.spare([(fault, clip) for clip, fault in faults.items()], len(clips), problems)
    problems.raise_if_any()
    return seconds | measured
