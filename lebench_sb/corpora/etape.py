"""ETAPE (ELRA-E0046): French radio and television of 2010 and 2011, prepared and spontaneous speech, 36 h
transcribed by ESTER's conventions.

As ELDA ships it, recordings lie in `ETAPE/DATA/TRAIN/FLAC/`; a folder that holds `train/`, `dev/` and
`test/` will do, in any letter case, in `DATA/` or not. In each, at any depth, are recordings (`.wav`, `.flac`
or `.sph`) and their annotations, Transcriber XML of the same stem (`.trs`) or lines that name the stem, in
one or many `.stm`. Where a recording has both, the .trs is read. An utterance is a stretch between two
`<Sync>` of a turn, or a line of a .stm.

Transcriber: `<Speaker id name type="male|female"/>`, `<Turn speaker startTime endTime>`, `<Sync time/>`; the
XML declares its encoding, ISO-8859-1 as a rule. STM: `waveform channel speaker begin end <labels> text`,
comments after `;;`; nothing declares an encoding, so the caller does. Not used, and counted: turns of several
speakers at once, stretches without words or speaker, sections that are not transcribed and
`ignore_time_segment_in_scoring`. Of the text, `^^` (spelling unsure), `*` (mispronounced), `[...]` (remarks)
and parentheses within words (letters not pronounced) go, and of `{a / b}` the first reading stays.
Gravier et al., LREC 2012; Galliano et al., Interspeech 2009 (ESTER 2)
"""

import os
import re
from dataclasses import dataclass

from lebench_sb.core.errors import Problems
from lebench_sb.core.paths import below, files_below
from lebench_sb.corpora._caveats import synthetic
from lebench_sb.corpora._prepare import SPLITS, THEIRS, by_split, check_split, corpus_folder, hashes, prepare
from lebench_sb.corpora._text import readable
from lebench_sb.corpora.formats.stm import read_stm
from lebench_sb.corpora.formats.stretches import EMPTY
from lebench_sb.corpora.formats.transcriber import read_trs
from lebench_sb.manifests.durations import measure_durations
from lebench_sb.manifests.markers import LeftOut
from lebench_sb.manifests.utterance import Utterance
from lebench_sb.text.normaliser import none as compose

AUDIO = (".wav", ".flac", ".sph")
TOLERANCE = 0.1  # seconds an annotation may end after its recording
LAYOUT = (
    "data_folder must hold train/, dev/ and test/ (or ETAPE/DATA/TRAIN/ ...), each with recordings (.wav, "
    ".flac, .sph), and .trs of the same names or .stm that name them."
)
# Names that say nothing: "Speaker 3" of one recording is somebody else in another
NAMELESS = re.compile(r"(spk|speaker|locut\w*|intervenante?|inconnue?|unknown|homme|femme)?[\W_]*\d*", re.I)


def prepare_etape(data_folder, manifest_folder, normaliser="fr-1", stm_encoding="utf-8"):
    """Writes train.csv, valid.csv and test.csv into `manifest_folder` and returns {split: marker}.

    data_folder: ETAPE's, or one that holds it as etape/; normaliser: of the label `wrd`; `text` keeps case
    and punctuation. A second call with the same parameters and unchanged annotations returns at once. Raises
    FileNotFoundError, or DataError that lists faults; characters that the normaliser cannot read are one, but
    for up to 1 % of train, which is left out and counted.
    """
    files = {split: find(data_folder, split) for split in SPLITS}
    parameters = {
        "corpus": "etape",
        "root": os.path.relpath(_root(data_folder), data_folder),
        "normaliser": normaliser,
        "stm_encoding": stm_encoding,
        "sha256": _hashes(data_folder, files),
    }
    read = by_split(
        lambda split, left_out: utterances(data_folder, split, normaliser, stm_encoding, left_out)
    )
    return prepare(data_folder, manifest_folder, parameters, read, ("wrd",), synthetic(data_folder))


def utterances(data_folder, split, normaliser="fr-1", stm_encoding="utf-8", left_out=None):
    """Yields the Utterances of `split` (train, valid, test), recording by recording, as annotated.

    left_out: a LeftOut that receives {reason: count} of the stretches left out. Raises as prepare_etape does.
    """
    left_out, files = LeftOut(split) if left_out is None else left_out, find(data_folder, split)
    folder = _folder(data_folder, split)
    problems, in_files = Problems(folder), []
    annotated = annotations(files, stm_encoding, folder)
    seconds = measure_durations(files.wavs.values(), folder)
    for stem, wav in files.wavs.items():
        for stretch in annotated[stem]:
            if stretch.why:
                left_out[stretch.why] += 1
            elif (u := _utterance(wav, stretch, seconds[str(wav)], problems)) is not None:
                in_files.append(u)
    texts = readable([(u.id, u.labels["text"]) for u in in_files], normaliser, left_out, problems)
    problems.raise_if_any()
    for u, text in zip(in_files, texts, strict=True):
        if text:
            u.labels["wrd"] = text
            yield u
        elif text is not None:
            left_out[EMPTY] += 1


@dataclass(frozen=True)
class Files:
    """Of a split: {stem: recording}, {stem: .trs}, [.stm], absolute paths in the order of their names"""

    wavs: dict
    trs: dict
    stm: list


def _root(data_folder):
    """The folder that holds the splits: data_folder, etape/ in it, or DATA/ in these, in any letter case"""
    folder = corpus_folder(data_folder, "etape")
    return folder if below(folder, THEIRS["train"]).is_dir() else corpus_folder(folder, "data")


def _folder(data_folder, split):
    return below(_root(data_folder).absolute(), THEIRS.get(split, split))


def find(data_folder, split):
    """The Files of a split. Raises FileNotFoundError, or DataError for two files of one name."""
    check_split(split, "ETAPE")
    folder = _folder(data_folder, split)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} not found. {LAYOUT}")
    files, problems = Files({}, {}, []), Problems(folder)
    for path in files_below(folder, (".stm", ".trs", *AUDIO)):
        kind = path.suffix.lower()
        if kind == ".stm":
            files.stm.append(path)
            continue
        by_stem = files.trs if kind == ".trs" else files.wavs
        if path.stem in by_stem:
            problems.add("two files of one name", f"{by_stem[path.stem]} and {path}")
        by_stem[path.stem] = path
    problems.raise_if_any()
    if not files.wavs:
        raise FileNotFoundError(f"{folder} holds no recording. {LAYOUT}")
    return files


def annotations(files, stm_encoding, folder):
    """{stem: [Stretch]} of every recording. Raises DataError for those without, and for annotations of
    recordings that are not there."""
    problems, of_recording = Problems(folder), {}
    for path in files.stm:
        for stem, stretches in read_stm(path, stm_encoding).items():
            if stem in of_recording:
                problems.add("recordings in two .stm", f"{stem} in {path}")
            of_recording[stem] = stretches
    of_recording |= {stem: read_trs(path) for stem, path in files.trs.items()}
    for stem in sorted(set(files.wavs) - set(of_recording)):
        problems.add("recordings without .trs and without lines in a .stm", files.wavs[stem].name)
    for stem in sorted(set(of_recording) - set(files.wavs)):
        problems.add("annotations without a recording", stem)
    problems.raise_if_any()
    return of_recording


def _hashes(data_folder, files):
    """sha256 of every annotation, and the names of the recordings"""
    paths = [path for each in files.values() for path in (*each.trs.values(), *each.stm)]
    return hashes(paths, data_folder) | {
        "recordings": {split: list(each.wavs) for split, each in files.items()}
    }


def _utterance(wav, stretch, duration, problems):
    """A Stretch as an Utterance with its text as it was written; None, with a problem, for bad times."""
    start, stop = stretch.start, stretch.stop
    where = f"{wav.stem} [{start}, {stop}]"
    if not start < stop:
        problems.add("stretches that do not end after they start", where)
        return None
    if stop > duration + TOLERANCE:
        problems.add("stretches that end after their recording", f"{where} of {duration:.2f} s")
        return None
    stop = min(stop, duration)
    speaker = stretch.speaker
    if NAMELESS.fullmatch(speaker):
        speaker = f"{wav.stem}:{speaker}"
    name = f"{wav.stem}_{start:.3f}-{stretch.stop:.3f}"
    labels = {"text": compose(stretch.text)}
    return Utterance(name, str(wav), stop - start, start, stop, speaker, stretch.gender, "fr", labels)
