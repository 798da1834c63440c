"""MEDIA: French telephone dialogues with a simulated hotel-booking machine, every user turn annotated with
concepts, under ELRA's licences. LeBenchmark counts 12,908 turns of users in train (41.5 h), 1,259 in valid
(3.5 h), 3,005 in test (11.3 h).

Three things must be brought together in `data_folder`:

- `S0272/` (https://catalogue.elra.info, ELRA-S0272): `**/<dialogue>.wav`, 8 kHz, two channels, one of them
  the user's.
- `E0024/` (ELRA-E0024): `MEDIA1FR_00/MEDIA1FR/DATA/media_lot1.xml` to `media_lot4.xml` (train),
  `media_testHC_a_blanc.xml` (valid), `media_testHC.xml` (test), and
  `semantizer_files/<dialogue>_HC.xml` for test2.
- `channels.csv` (`L,100`: the user of dialogue 100 is on the left) and `concepts_full_relax.csv`
  (`temps-date*,temps-date`), by G. Laperrière (LREC 2022). They come with neither corpus; SpeechBrain's
  recipes/MEDIA/README.md links to them.

XML of the lots: `dialogue` (id, nameSpk) > `turn` (speaker "spk" is the user, startTime, endTime) >
`semAnnotation` (withContext "false" is the one used, "HC") > `sem` (concept, mode, specif, value) >
`transcription`, whose text is cut by `Sync` (time). Files of test2 are flat: in a `Turn`, `SemDebut`
(concept, already with its specifier), text, `SemFin`.

A turn is cut at each `Sync` outside the words of a concept, as SpeechBrain does. SpeechBrain also cuts where
it stands inside a concept, after its end but at the time of the `Sync`, so that words are in one segment and
their sound in the next; here such a `Sync` cuts nothing. `(...)` and `*`, marks of unheard and broken words,
are dropped.

Every word of a user must stand where it is read, once: words elsewhere, a `sem` in a `sem`, two annotations
of one turn, an element with words that is not known there are errors with their lines.
"""

import logging
import re
from collections import Counter
from pathlib import Path

from lebench_sb.audio.heads import kind_of
from lebench_sb.audio.verdict import from_header
from lebench_sb.core.errors import Problems, UsageError
from lebench_sb.core.paths import below, files_below, listed
from lebench_sb.corpora._caveats import synthetic
from lebench_sb.corpora._prepare import SPLITS, demand, hashes, prepare
from lebench_sb.corpora.formats.media import FLAT, LATE, MARKS, read_channels, read_segments
from lebench_sb.manifests.markers import LeftOut
from lebench_sb.manifests.utterance import Utterance
from lebench_sb.text.normaliser import UnreadableText
from lebench_sb.text.normaliser import normaliser as text_normaliser

DATA = "E0024/MEDIA1FR_00/MEDIA1FR/DATA"
FILES = {
    "train": [f"media_lot{number}.xml" for number in (1, 2, 3, 4)],
    "valid": ["media_testHC_a_blanc.xml"],
    "test": ["media_testHC.xml"],
}
TEST2 = "semantizer_files"
CONCEPTS = ("full", "relax")
LAYOUT = (
    "data_folder must hold S0272/ (audio, ELRA-S0272), E0024/ (annotation, ELRA-E0024), channels.csv and "
    "concepts_full_relax.csv (both linked from SpeechBrain's recipes/MEDIA/README.md)."
)
logger = logging.getLogger(__name__)


def prepare_media(
    data_folder, manifest_folder, concepts="full", normaliser="fr-1", channels_csv=None, concepts_csv=None,
    test2=False,
):  # fmt: skip
    """Writes train.csv, valid.csv, test.csv, and test2.csv if wanted, and returns {split: marker}.

    concepts: "full" with specifiers (`temps-date-reservation`), or "relax" without; normaliser: of the words
    of the labels `wrd` and `semantics`; channels_csv, concepts_csv: where the two tables are (data_folder);
    the second is read for the concepts of test2 in "relax". Turns without words and segments outside their
    recording are left out of every split, counted in its marker and logged. A second call with the same
    parameters and files returns at once. Raises FileNotFoundError, or DataError that lists what is wrong,
    with its line.
    """
    root = Path(data_folder)
    files = _files(root, channels_csv, concepts_csv, concepts, test2)
    parameters = {"corpus": "media", "concepts": concepts, "normaliser": normaliser}
    parameters["sha256"] = hashes(path for paths in files.values() for path in paths)

    def read(left_out):
        segments = read_segments(files, concepts)
        heard, folder = _recordings(root, files["channels"][0], segments), Path(manifest_folder)
        return {
            split: list(utterances(segments[split], heard, normaliser, each, folder / f"{split}.csv"))
            for split, each in left_out.items()
        }

    splits = (*SPLITS, "test2") if test2 else SPLITS
    return prepare(data_folder, manifest_folder, parameters, read, ("wrd",), synthetic(root), splits)


def _files(root, channels_csv, concepts_csv, concepts, test2):
    """{what: [paths]} of every file read; FileNotFoundError naming the first that is missing"""
    if concepts not in CONCEPTS:
        raise UsageError(f"concepts is {concepts!r}. It must be full (with specifiers) or relax (without).")
    data = below(root, *DATA.split("/"))
    files = {
        "channels": [Path(channels_csv or below(root, "channels.csv"))],
        **{split: [below(data, name) for name in names] for split, names in FILES.items()},
    }
    if test2:
        folder = below(data, TEST2)
        files["test2"] = [folder / n for n in listed(folder) if n.upper().endswith(FLAT.upper())]
        if not files["test2"]:
            raise FileNotFoundError(f"{root / DATA / TEST2}/*{FLAT}: no such file for test2. {LAYOUT}")
        if concepts == "relax":
            files["relax"] = [Path(concepts_csv or below(root, "concepts_full_relax.csv"))]
    demand((path for paths in files.values() for path in paths), LAYOUT)
    return files


def _recordings(root, channels_csv, segments):
    """{dialogue: (path, seconds, channel)}; DataError listing dialogues without recording or side"""
    channels, problems, recordings = read_channels(channels_csv), Problems(root), {}
    paths = {}
    for path in files_below(below(root, "S0272"), (".wav",)):
        if (first := paths.setdefault(path.stem, path)) != path:
            problems.add("two recordings of one dialogue", f"{first} and {path}")
    for name in sorted({segment.dialogue for part in segments.values() for segment in part}):
        if name not in paths:
            problems.add("dialogues without S0272/**/<dialogue>.wav", name)
            continue
        header = from_header(str(paths[name]))
        if header.fault:
            problems.add(*kind_of(header.fault, paths[name]))
            continue
        if header.channels > 1 and name not in channels:
            problems.add(f"dialogues that {channels_csv} does not list", name)
        channel = channels.get(name, "") if header.channels > 1 else ""
        recordings[name] = (str(paths[name].absolute()), header.seconds, channel)
    problems.raise_if_any()
    return recordings


def utterances(segments, recordings, normaliser="fr-1", left_out=None, where="MEDIA"):
    """Segments and {dialogue: (path, seconds, channel)} -> yields Utterances with `wrd`, `semantics`,
    `channel`; left_out: a LeftOut that receives what is left out and changed, which is logged for `where`"""
    left_out = LeftOut("train") if left_out is None else left_out
    normalise, unread, lost = text_normaliser(normaliser), Counter(), []
    for segment in segments:
        path, seconds, channel = recordings[segment.dialogue]
        pieces = [(concept, _words(text, normalise, unread)) for concept, text in segment.pieces]
        words = " ".join(text for _, text in pieces if text)
        stop = min(segment.stop, seconds) if segment.stop <= seconds + LATE else segment.stop
        reason = _reason(words, segment.start, stop, seconds)
        if reason:
            lost.append((reason, f"{segment.dialogue} [{segment.start:g}, {segment.stop:g}]"))
            continue
        name = f"{segment.dialogue}_{segment.start:08.3f}_{segment.stop:08.3f}"
        labels = {"wrd": words, "semantics": tagged(pieces), "channel": channel}
        yield Utterance(
            name, path, round(stop - segment.start, 3), segment.start, stop, segment.speaker, labels=labels
        )
    left_out.leave_out(where, lost)
    left_out.changed.update(unread)
    if unread:
        shown = ", ".join(f"{c!r} ({n})" for c, n in unread.most_common(5))
        logger.warning("Characters %s cannot read, removed: %s", normaliser, shown)


def _reason(words, start, stop, seconds):
    """Why a segment is left out, or "" """
    if not words:
        return "no words"
    if stop <= start:
        return "no duration"
    return "ends after its recording" if stop > seconds else ""


def _words(text, normalise, unread):
    """Text of the XML -> normalised words; characters without reading are removed and counted"""
    text = MARKS.sub(" ", text)
    try:
        return normalise(text)
    except UnreadableText as error:
        unread.update(c for c in text if c in error.characters)
        return normalise(re.sub(f"[{re.escape(''.join(error.characters))}]", " ", text))


def tagged(pieces):
    """[(concept or "", words)] -> `words <concept> words > words`"""
    parts = [f"<{concept}> {words} >" if concept else words for concept, words in pieces]
    return " ".join(" ".join(parts).split())
