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
"""

import csv
import hashlib
import logging
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from xml.parsers import expat

import soundfile

from lebench_sb.corpora._stamps import synthetic
from lebench_sb.manifest import (
    DataError,
    Problems,
    UsageError,
    Utterance,
    is_prepared,
    read_marker,
    read_text,
    write_manifest,
)
from lebench_sb.text import UnreadableText
from lebench_sb.text import normaliser as text_normaliser

DATA = "E0024/MEDIA1FR_00/MEDIA1FR/DATA"
SPLITS = {
    "train": [f"media_lot{number}.xml" for number in (1, 2, 3, 4)],
    "valid": ["media_testHC_a_blanc.xml"],
    "test": ["media_testHC.xml"],
}
TEST2 = "semantizer_files/*_HC.xml"
USER = "spk"  # `speaker` of a user's turn in the lots
CHANNELS = {"L": "1", "R": "2"}
CONCEPTS = ("full", "relax")
MARKS = re.compile(r"\([^()]*\)|[*<>]")
LATE = 0.1  # seconds a segment may end after its recording and is cut to it
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
    recording are left out, counted in the marker and logged. A second call with the same parameters and
    files returns at once. Raises FileNotFoundError, or DataError that lists what is wrong, with its line.
    """
    root = Path(data_folder)
    files = _files(root, channels_csv, concepts_csv, concepts, test2)
    hashes = {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for paths in files.values() for p in paths}
    parameters = {"corpus": "media", "concepts": concepts, "normaliser": normaliser, "sha256": hashes}
    splits = [*SPLITS, *(["test2"] if test2 else [])]
    manifests = {split: Path(manifest_folder) / f"{split}.csv" for split in splits}
    if all(is_prepared(path, parameters) for path in manifests.values()):
        return {split: read_marker(path) for split, path in manifests.items()}
    segments = read_segments(files, concepts)
    recordings = _recordings(root, files["channels"][0], segments)
    stamps, markers = synthetic(root), {}
    for split, path in manifests.items():
        dropped = Counter()
        found = list(utterances(segments[split], recordings, normaliser, dropped))
        if dropped:
            reasons = ", ".join(f"{reason} ({count})" for reason, count in sorted(dropped.items()))
            logger.warning("%s: left out: %s", path, reasons)
        markers[split] = write_manifest(path, found, data_folder, parameters, ("wrd",), dropped, stamps)
    return markers


def _files(root, channels_csv, concepts_csv, concepts, test2):
    """{what: [paths]} of every file read; FileNotFoundError naming the first that is missing"""
    if concepts not in CONCEPTS:
        raise UsageError(f"concepts is {concepts!r}. It must be full (with specifiers) or relax (without).")
    files = {
        "channels": [Path(channels_csv or root / "channels.csv")],
        **{split: [root / DATA / name for name in names] for split, names in SPLITS.items()},
    }
    if test2:
        files["test2"] = sorted((root / DATA).glob(TEST2))
        if not files["test2"]:
            raise FileNotFoundError(f"{root / DATA / TEST2}: no such file for test2. {LAYOUT}")
        if concepts == "relax":
            files["relax"] = [Path(concepts_csv or root / "concepts_full_relax.csv")]
    for path in [path for paths in files.values() for path in paths]:
        if not path.is_file():
            raise FileNotFoundError(f"{path} not found. {LAYOUT}")
    return files


# ---- XML with line numbers


@dataclass
class Node:
    """An element; `children` holds Nodes and texts in order."""

    tag: str
    attributes: dict
    line: int
    children: list = field(default_factory=list)

    def find(self, tag):
        """Every Node called `tag` below this one, in the order of the file"""
        for child in self.children:
            if isinstance(child, Node):
                if child.tag == tag:
                    yield child
                yield from child.find(tag)


def read_xml(path):
    """XML file -> its root Node; DataError naming the line of what is not well formed.

    The encoding is the declared one; bytes that are not UTF-8 are read as ISO-8859-1 whatever is declared.
    """
    data = Path(path).read_bytes()
    try:
        data.decode("utf-8")
        parser = expat.ParserCreate()
    except UnicodeDecodeError:
        parser = expat.ParserCreate("ISO-8859-1")
    top = Node("", {}, 0)
    stack = [top]

    def start(tag, attributes):
        node = Node(tag, attributes, parser.CurrentLineNumber)
        stack[-1].children.append(node)
        stack.append(node)

    parser.StartElementHandler = start
    parser.EndElementHandler = lambda tag: stack.pop()
    parser.CharacterDataHandler = lambda text: stack[-1].children.append(text)
    parser.buffer_text = True
    try:
        parser.Parse(data, True)
    except expat.ExpatError as error:
        reason = expat.ErrorString(error.code)
        raise DataError(f"{path}: line {error.lineno}: not well-formed XML ({reason}).") from None
    return top


# ---- dialogues, turns, segments


@dataclass
class Segment:
    """pieces: [(concept or "", text)]; start, stop: seconds in the recording of `dialogue`"""

    dialogue: str
    speaker: str
    start: float
    stop: float
    pieces: list


def read_segments(files, concepts):
    """{what: [paths]} of `_files` -> {split: [Segment, ...]} of the user turns; DataError lists all faults"""
    found, used, faults = {split: [] for split in files if split in (*SPLITS, "test2")}, set(), []
    relax = _relax_rules(files["relax"][0]) if "relax" in files else []
    for split, kept in found.items():
        for path in files[split]:
            problems = Problems(path)
            if split != "test2":
                kept += _lot(path, concepts, problems)
            elif path.name.removesuffix("_HC.xml") not in used:
                kept += _flat(path, relax, problems)
            if problems:
                faults.append(str(problems))
        used |= {segment.dialogue for segment in kept}
    if faults:
        raise DataError("; ".join(faults))
    return found


def _lot(path, concepts, problems):
    """The Segments of one of the large files"""
    for dialogue in read_xml(path).find("dialogue"):
        name = _attribute(dialogue, "id", problems)
        speaker = dialogue.attributes.get("nameSpk", "").strip() or name
        for turn in dialogue.find("turn"):
            if turn.attributes.get("speaker") == USER:
                yield from _segments(name, speaker, turn, list(_events(turn, concepts, problems)), problems)


def _events(turn, concepts, problems):
    """The annotation of a turn, flat: ("open", concept), ("text", words), ("sync", seconds), ("close", "")"""
    for annotation in turn.find("semAnnotation"):
        if annotation.attributes.get("withContext") != "false":
            continue
        for sem in annotation.find("sem"):
            concept = _concept(sem, problems)
            specifier = sem.attributes.get("specif", "null")
            if concept and concepts == "full" and specifier not in ("null", ""):
                concept += "-" + specifier.lstrip("-")
            yield "open", concept
            for transcription in sem.find("transcription"):
                yield from _spoken(transcription.children, problems)
            yield "close", ""


def _spoken(nodes, problems):
    for node in nodes:
        if isinstance(node, str):
            if node.strip():
                yield "text", node
        elif node.tag == "Sync":
            yield "sync", _seconds(node, "time", problems)


def _concept(node, problems):
    """The concept a node names, "" for `null`"""
    name = _attribute(node, "concept", problems).strip()
    if re.search(r"[<>\s]", name):
        problems.add("concepts with spaces, < or > in their name", f"line {node.line} {name!r}")
    return "" if name == "null" else name


def _flat(path, relax, problems):
    """The Segments of a file of test2, its dialogue in its name; relax: rules of `_relax_rules`"""
    top, dialogue = read_xml(path), path.name.removesuffix("_HC.xml")
    users = [s for s in top.find("Speaker") if s.attributes.get("name", "").startswith("s")]
    if not users:
        problems.add("no Speaker whose name begins with s, as users' do", f"{path.name}")
        return
    user = users[0].attributes
    for turn in top.find("Turn"):
        if turn.attributes.get("speaker") == user.get("id"):
            events = list(_flat_events(turn, relax, problems))
            yield from _segments(dialogue, user["name"], turn, events, problems)


def _flat_events(turn, relax, problems):
    opened = 0
    for node in turn.children:
        if isinstance(node, Node) and node.tag == "SemDebut":
            if opened:
                problems.add("SemDebut inside a concept", f"line {node.line}")
            concept, opened = _concept(node, problems), node.line
            yield "open", _relaxed(concept, relax)
        elif isinstance(node, Node) and node.tag == "SemFin":
            if not opened:
                problems.add("SemFin without SemDebut", f"line {node.line}")
            opened = 0
            yield "close", ""
        else:
            yield from _spoken([node], problems)
    if opened:
        problems.add("SemDebut without SemFin", f"line {opened}")


def _segments(dialogue, speaker, turn, events, problems):
    """The Segments of a turn: its flat annotation cut at each sync that follows words, outside concepts"""
    start, end = (_seconds(turn, name, problems) for name in ("startTime", "endTime"))
    pieces, concept, started, cut = [], "", False, False
    for kind, value in events:
        if kind in ("open", "close"):
            concept, started = value, False
        elif kind == "text" and started:
            pieces[-1] = (concept, f"{pieces[-1][1]} {value}")
        elif kind == "text":
            pieces.append((concept, value))
            started = bool(concept)
        elif not pieces:
            start = value
        elif not started:
            yield Segment(dialogue, speaker, start, value, pieces)
            pieces, start, cut = [], value, True
    if pieces or not cut:
        yield Segment(dialogue, speaker, start, end, pieces)


def _attribute(node, name, problems):
    if not node.attributes.get(name, "").strip():
        problems.add(f"{node.tag} without {name}", f"line {node.line}")
    return node.attributes.get(name, "")


def _seconds(node, name, problems):
    value = node.attributes.get(name, "")
    try:
        return float(value)
    except ValueError:
        kind = f"{node.tag} whose {name} is not a number of seconds"
        problems.add(kind, f"line {node.line} {value!r}")
        return 0.0


# ---- the two tables, the recordings


def _table(path):
    """[(line, first field, second field)] of a table of two columns without header"""
    problems, rows = Problems(path), []
    for line, fields in enumerate(csv.reader(read_text(path).splitlines()), 1):
        if len(fields) == 2 and all(f.strip() for f in fields):
            rows.append((line, *(f.strip() for f in fields)))
        elif fields:
            problems.add("lines without two fields separated by a comma", f"line {line} {','.join(fields)!r}")
    problems.raise_if_any()
    return rows


def _relax_rules(path):
    """[(full name, or its beginning where `*` ends it; relaxed name)]"""
    return [(full, relaxed) for _, full, relaxed in _table(path)]


def _relaxed(concept, rules):
    """A full concept without its specifier, by the first rule that fits; itself if none does"""
    for full, relaxed in rules:
        if concept == full or (full.endswith("*") and concept.startswith(full[:-1])):
            return relaxed
    return concept


def _channels(path):
    """{dialogue: "1" or "2"} from channels.csv"""
    problems, found = Problems(path), {}
    for line, side, dialogue in _table(path):
        if side.upper() not in CHANNELS:
            problems.add("sides other than L and R", f"line {line} {side!r}")
        elif found.setdefault(dialogue, CHANNELS[side.upper()]) != CHANNELS[side.upper()]:
            problems.add("dialogues on both sides", f"line {line} {dialogue}")
    problems.raise_if_any()
    return found


def _recordings(root, channels_csv, segments):
    """{dialogue: (path, seconds, channel)}; DataError listing dialogues without recording or side"""
    channels, problems, found = _channels(channels_csv), Problems(root), {}
    paths = {}
    for path in sorted((root / "S0272").rglob("*")):
        if path.suffix.lower() == ".wav":
            paths.setdefault(path.stem, path)
    for name in sorted({segment.dialogue for part in segments.values() for segment in part}):
        if name not in paths:
            problems.add("dialogues without S0272/**/<dialogue>.wav", name)
            continue
        try:
            header = soundfile.info(str(paths[name]))
        except soundfile.SoundFileError:
            problems.add("recordings that cannot be read", paths[name])
            continue
        if header.channels > 1 and name not in channels:
            problems.add(f"dialogues that {channels_csv} does not list", name)
        channel = channels.get(name, "") if header.channels > 1 else ""
        found[name] = (str(paths[name].absolute()), header.frames / header.samplerate, channel)
    problems.raise_if_any()
    return found


# ---- utterances


def utterances(segments, recordings, normaliser="fr-1", dropped=None):
    """Segments and {dialogue: (path, seconds, channel)} -> yields Utterances with `wrd`, `semantics`,
    `channel`; dropped: a Counter that receives {reason: count}"""
    dropped = Counter() if dropped is None else dropped
    normalise, unread = text_normaliser(normaliser), Counter()
    for segment in segments:
        path, seconds, channel = recordings[segment.dialogue]
        pieces = [(concept, _words(text, normalise, unread)) for concept, text in segment.pieces]
        words = " ".join(text for _, text in pieces if text)
        stop = min(segment.stop, seconds) if segment.stop <= seconds + LATE else segment.stop
        reason = _reason(words, segment.start, stop, seconds)
        if reason:
            dropped[reason] += 1
            continue
        name = f"{segment.dialogue}_{segment.start:08.3f}_{segment.stop:08.3f}"
        labels = {"wrd": words, "semantics": tagged(pieces), "channel": channel}
        yield Utterance(
            name, path, round(stop - segment.start, 3), segment.start, stop, segment.speaker, labels=labels
        )
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
