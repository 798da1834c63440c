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

import hashlib
import math
import os
import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path

from lebench_sb.core.errors import DataError, Problems
from lebench_sb.core.guard import read_small, regular
from lebench_sb.core.paths import below, files_below
from lebench_sb.corpora._stamps import synthetic
from lebench_sb.corpora._text import gender as read_gender
from lebench_sb.corpora._text import readable
from lebench_sb.corpora._xml import read_xml
from lebench_sb.manifests.markers import Told, prepared
from lebench_sb.manifests.utterance import SECONDS, Utterance, measure_durations, write_manifest
from lebench_sb.text.normaliser import none as compose

SPLITS = {"train": "train", "valid": "dev", "test": "test"}  # ours: theirs
AUDIO = (".wav", ".flac", ".sph")
GENDERS = {"male": "M", "female": "F"}
TOLERANCE = 0.1  # seconds an annotation may end after its recording
SEVERAL, EMPTY, NOBODY = "several speakers at once", "no words", "no speaker"
IGNORED, NOT_TRANSCRIBED = "ignored in scoring", "section not transcribed"
LAYOUT = (
    "data_folder must hold train/, dev/ and test/ (or ETAPE/DATA/TRAIN/ ...), each with recordings (.wav, "
    ".flac, .sph), and .trs of the same names or .stm that name them."
)
LABELS = re.compile(r"<[^<>\s]*>")
# Names that say nothing: "Speaker 3" of one recording is somebody else in another
NAMELESS = re.compile(r"(spk|speaker|locut\w*|intervenante?|inconnue?|unknown|homme|femme)?[\W_]*\d*", re.I)


@dataclass(frozen=True)
class Stretch:
    """What one speaker says between two times (s) of a recording; `why`: reason to leave it out, or ""."""

    start: float
    stop: float
    speaker: str = ""
    gender: str = "U"
    text: str = ""
    why: str = ""


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
    manifests = {split: Path(manifest_folder) / f"{split}.csv" for split in SPLITS}
    if done := prepared(manifests, parameters, data_folder):
        return done
    told = {split: Told(split) for split in SPLITS}
    found = {
        split: list(utterances(data_folder, split, normaliser, stm_encoding, told[split])) for split in SPLITS
    }
    stamps = synthetic(data_folder)
    return {
        split: write_manifest(path, found[split], data_folder, parameters, ("wrd",), told[split], stamps)
        for split, path in manifests.items()
    }


def utterances(data_folder, split, normaliser="fr-1", stm_encoding="utf-8", told=None):
    """Yields the Utterances of `split` (train, valid, test), recording by recording, as annotated.

    told: a Told that receives {reason: count} of the stretches left out. Raises as prepare_etape does.
    """
    told, files = Told(split) if told is None else told, find(data_folder, split)
    folder = _folder(data_folder, split)
    problems, found = Problems(folder), []
    annotated = annotations(files, stm_encoding, folder)
    seconds = measure_durations(files.wavs.values(), folder)
    for stem, wav in files.wavs.items():
        for stretch in annotated[stem]:
            if stretch.why:
                told[stretch.why] += 1
            elif (u := _utterance(wav, stretch, seconds[str(wav)], problems)) is not None:
                found.append(u)
    texts = readable([(u.id, u.labels["text"]) for u in found], normaliser, told, problems)
    problems.raise_if_any()
    for u, text in zip(found, texts, strict=True):
        if text:
            u.labels["wrd"] = text
            yield u
        elif text is not None:
            told[EMPTY] += 1


@dataclass(frozen=True)
class Files:
    """Of a split: {stem: recording}, {stem: .trs}, [.stm], absolute paths in the order of their names"""

    wavs: dict
    trs: dict
    stm: list


def _root(data_folder):
    """The folder that holds the splits: data_folder, etape/ in it, or DATA/ in these, in any letter case"""
    inner = below(data_folder, "etape")
    folder = inner if inner.is_dir() else Path(data_folder)
    data = below(folder, "data")
    return data if data.is_dir() and not below(folder, SPLITS["train"]).is_dir() else folder


def _folder(data_folder, split):
    return below(_root(data_folder).absolute(), SPLITS.get(split, split))


def find(data_folder, split):
    """The Files of a split. Raises FileNotFoundError, or DataError for two files of one name."""
    if split not in SPLITS:
        raise ValueError(f"No split {split!r} in ETAPE: {', '.join(SPLITS)}.")
    folder = _folder(data_folder, split)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} not found. {LAYOUT}")
    files, problems = Files({}, {}, []), Problems(folder)
    for path in files_below(folder, (".stm", ".trs", *AUDIO)):
        kind = path.suffix.lower()
        if kind == ".stm":
            files.stm.append(path)
            continue
        named = files.trs if kind == ".trs" else files.wavs
        if path.stem in named:
            problems.add("two files of one name", f"{named[path.stem]} and {path}")
        named[path.stem] = path
    problems.raise_if_any()
    if not files.wavs:
        raise FileNotFoundError(f"{folder} holds no recording. {LAYOUT}")
    return files


def annotations(files, stm_encoding, folder):
    """{stem: [Stretch]} of every recording. Raises DataError for those without, and for annotations of
    recordings that are not there."""
    problems, found = Problems(folder), {}
    for path in files.stm:
        for stem, stretches in read_stm(path, stm_encoding).items():
            if stem in found:
                problems.add("recordings in two .stm", f"{stem} in {path}")
            found[stem] = stretches
    found |= {stem: read_trs(path) for stem, path in files.trs.items()}
    for stem in sorted(set(files.wavs) - set(found)):
        problems.add("recordings without .trs and without lines in a .stm", files.wavs[stem].name)
    for stem in sorted(set(found) - set(files.wavs)):
        problems.add("annotations without a recording", stem)
    problems.raise_if_any()
    return found


def _hashes(data_folder, files):
    """sha256 of every annotation, and the names of the recordings"""
    paths = [path for each in files.values() for path in (*each.trs.values(), *each.stm)]
    hashes = {
        os.path.relpath(p, data_folder): hashlib.sha256(regular(p).read_bytes()).hexdigest() for p in paths
    }
    return hashes | {"recordings": {split: list(each.wavs) for split, each in files.items()}}


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


# ---- annotations


def read_trs(path):
    """Transcriber XML -> [Stretch]: one for each `<Sync>` of each turn, to the next one or the turn's end.

    Raises DataError for XML that does not parse, or that lists, with their lines, turns without times or of
    unknown speakers, and words that stand where none are read.
    """
    root, problems, people, found = read_xml(path), Problems(path), {}, []
    if not any(root.find("Trans")):
        raise DataError(f"{path}: no <Trans>; is it the XML of Transcriber?")
    for speaker in root.find("Speaker"):
        name, number = speaker.attributes.get("name"), speaker.attributes.get("id", "")
        if number in people:
            problems.add("speakers declared twice", f"line {speaker.line} {number}")
        gender = read_gender(speaker.attributes.get("type", "")) or "U"
        people[number] = _name(name or number), gender
    for place in (*root.find("Trans"), *root.find("Episode"), *root.find("Section")):
        if place.words:
            problems.add("words outside turns", f"line {place.line}, in {place.tag}: {place.words[:40]!r}")
    sections = list(root.find("Section"))
    for section in sections:
        for turn in section.nodes:
            if turn.tag == "Turn":
                found += _turn(turn, section.attributes.get("type"), people, problems)
    read = {id(turn) for section in sections for turn in section.nodes}
    for turn in [turn for turn in root.find("Turn") if id(turn) not in read]:
        problems.add("turns that are not right in a Section", f"line {turn.line}")
    problems.raise_if_any()
    return found


def _turn(turn, kind, people, problems):
    """The Stretches of a `<Turn>`; kind: the type of its section"""
    ids = turn.attributes.get("speaker", "").split()
    for unknown in [name for name in ids if name not in people]:
        at = f"{unknown} at {turn.attributes.get('startTime')}, line {turn.line}"
        problems.add("turns of a speaker who is not declared", at)
        return []
    pieces = [[turn.attributes.get("startTime"), ""]]
    for child in turn.children:
        if isinstance(child, str):
            pieces[-1][1] += f" {child}"
            continue
        if child.all_words:
            lost = f"line {child.line} {child.all_words[:40]!r}"
            problems.add(f"words in <{child.tag}> in a turn, where none are read", lost)
        if child.tag == "Sync":
            pieces.append([child.attributes.get("time"), ""])
    times = [time for time, _ in pieces] + [turn.attributes.get("endTime")]
    if not all(is_time(time) for time in times):
        problems.add("turns with times that are not seconds", f"line {turn.line} {' '.join(map(str, times))}")
        return []
    speaker, gender = people[ids[0]] if len(ids) == 1 else ("", "U")
    found = []
    for (start, text), stop in zip(pieces, times[1:], strict=True):
        if start == stop and not text.strip():
            continue  # between the turn's start and a Sync at the same time
        text = cleaned(text)
        why = NOT_TRANSCRIBED if kind == "nontrans" else _why(ids, text)
        if float(stop) < float(start):
            at = f"line {turn.line} [{start}, {stop}]"
            problems.add("stretches that do not end after they start", at)
        found.append(Stretch(float(start), float(stop), speaker, gender, text, why))
    return found


def is_time(text):
    """Whether a text is a number of seconds"""
    return bool(SECONDS.fullmatch(text or "")) and math.isfinite(float(text))


def read_stm(path, encoding="utf-8"):
    """NIST STM -> {recording: [Stretch]}, one for each line. Raises DataError that lists bad lines."""
    found, problems = {}, Problems(path)
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
        found.setdefault(fields[0], []).append(stretch)
    problems.raise_if_any()
    return found


def _stm_stretch(speaker, start, stop, rest):
    """The fields of a line of a .stm as a Stretch"""
    labels = LABELS.match(rest)
    named = labels[0].strip("<>").lower().split(",") if labels else []
    gender = next((GENDERS[label] for label in named if label in GENDERS), "U")
    text = cleaned(rest[labels.end() :] if labels else rest)
    silent = speaker.lower() in ("inter_segment_gap", "excluded_region")
    names = [] if silent else [_name(name) for name in speaker.split("+")]
    why = IGNORED if "ignore_time_segment_in_scoring" in text.lower() else _why(names, text)
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


def _why(speakers, text):
    """The reason to leave out what these speakers say, or "" """
    if not text:
        return EMPTY
    return "" if len(speakers) == 1 else SEVERAL if speakers else NOBODY


def _name(name):
    """A speaker as both formats write it: composed, white space as underscores"""
    return "_".join(unicodedata.normalize("NFC", name).split())


def cleaned(text):
    """A transcript without the marks of the conventions; words, case and punctuation stay."""
    text = re.sub(r"\{([^{}/]*)(/[^{}]*)?\}", r"\1", text)  # {reading / other reading}
    text = re.sub(r"\[[^\[\]]*\]", " ", text)
    text = re.sub(r"\^\^|(?<!\w)\*(?=\w)", "", text)
    text = re.sub(r"(?<=\w)\((\w*)\)|\((\w+)\)(?=\w)", lambda m: m[1] or m[2] or "", text)
    return " ".join(text.split())
