"""MEDIA's annotation: the XML of its lots and the flat files of test2, cut into segments of the user's turns.

`corpora/media.py` says what the files hold and where turns are cut.
"""

import csv
import math
import re
from dataclasses import dataclass

from lebench_sb.core.errors import DataError, Problems
from lebench_sb.corpora.formats.xml import Node, read_xml
from lebench_sb.manifests.tables import read_text
from lebench_sb.manifests.utterance import SECONDS

SPLITS = ("train", "valid", "test", "test2")
FLAT = "_HC.xml"
USER = "spk"  # `speaker` of a user's turn in the lots
MARKS = re.compile(r"\([^()]*\)|[*<>]")
CHANNELS = {"L": "1", "R": "2"}
CSV_LINE = 1000  # characters of a line of the two tables at most; the parser refuses fields of 131,072
OUTSIDE = 1.0  # seconds a Sync may lie outside its turn
LATE = 0.1  # seconds a segment may end after its recording and is cut to it


@dataclass
class Segment:
    """pieces: [(concept or "", text)]; start, stop: seconds in the recording of `dialogue`"""

    dialogue: str
    speaker: str
    start: float
    stop: float
    pieces: list


def read_segments(files, concepts):
    """{what: [paths]} of files -> {split: [Segment, ...]} of the user turns; DataError lists all faults"""
    segments_of, used, faults = {split: [] for split in files if split in SPLITS}, {}, []
    relax = _relax_rules(files["relax"][0]) if "relax" in files else []
    for split, of_split in segments_of.items():
        for path in files[split]:
            problems = Problems(path)
            if split != "test2":
                segments = list(_lot(path, concepts, problems))
                for name in sorted({segment.dialogue for segment in segments}):
                    if name in used:
                        problems.add("dialogues that another file holds too", f"{name} in {used[name].name}")
                used |= {segment.dialogue: path for segment in segments}
                of_split += segments
            elif path.name[: -len(FLAT)] not in used:
                of_split += _flat(path, relax, problems)
            if problems:
                faults.append(str(problems))
    if faults:
        raise DataError("; ".join(faults))
    return segments_of


def _lot(path, concepts, problems):
    """The Segments of one of the large files"""
    for dialogue in read_xml(path).find("dialogue"):
        name = _attribute(dialogue, "id", problems)
        speaker = dialogue.attributes.get("nameSpk", "").strip() or name
        _stray(dialogue, problems)
        for inner in dialogue.find("dialogue"):
            problems.add("dialogue in a dialogue", f"line {inner.line}")
        ended = -math.inf
        for turn in dialogue.find("turn"):
            for inner in turn.find("turn"):
                problems.add("turn in a turn", f"line {inner.line}")
            if turn.attributes.get("speaker") == USER:
                events = list(_events(turn, concepts, problems))
                ended = _after(turn, events, ended, problems)
                yield from _segments(name, speaker, turn, events, problems)


def _after(turn, events, ended, problems):
    """The end (s) of a user's turn, which must not begin before the one before it has ended; `ended`, that
    end, for a turn without words"""
    said = any(kind == "text" and MARKS.sub("", value).strip() for kind, value in events)
    times = [turn.attributes.get(name, "") for name in ("startTime", "endTime")]
    if not said or not all(SECONDS.fullmatch(time) for time in times):
        return ended
    start, stop = map(float, times)
    if start < ended - LATE:
        where = f"line {turn.line} {start:g} s, before {ended:g} s"
        problems.add("turns of the user that begin before the one before has ended", where)
    return max(stop, ended)


def _stray(node, problems, allowed=()):
    """Adds words that stand right in `node`, or in one of its elements that is not of the kinds `allowed`
    (empty: any), and so would be lost"""
    if node.words:
        kind = f"words right in <{node.tag}>, where none are read"
        problems.add(kind, f"line {node.line} {node.words[:40]!r}")
    for child in node.nodes:
        if allowed and child.tag not in allowed and child.all_words:
            kind = f"words in <{child.tag}> in <{node.tag}>, where none are read"
            problems.add(kind, f"line {child.line} {child.all_words[:40]!r}")


def _events(turn, concepts, problems):
    """The annotation of a turn, flat: ("open", concept), ("text", words), ("sync", seconds), ("close", "")"""
    _stray(turn, problems, ("semAnnotation",))
    annotations = [node for node in turn.find("semAnnotation") if _is_read(node, problems)]
    for second in annotations[1:]:
        problems.add('two semAnnotation withContext="false" in a turn', f"line {second.line}")
    if not annotations and turn.all_words:
        problems.add('turns with words, but no semAnnotation withContext="false"', f"line {turn.line}")
    for annotation in annotations:
        _stray(annotation, problems, ("sem",))
        for sem in annotation.find("sem"):
            for inner in sem.find("sem"):
                problems.add("sem in a sem", f"line {inner.line}")
            yield "open", _full_concept(sem, concepts, problems)
            _stray(sem, problems, ("transcription", "sem"))
            for transcription in sem.find("transcription"):
                yield from _spoken(transcription, problems)
            yield "close", ""


def _is_read(annotation, problems):
    """Whether an annotation is the one without context"""
    written = annotation.attributes.get("withContext", "")
    if written not in ("true", "false"):
        kind = "semAnnotation whose withContext is neither true nor false"
        problems.add(kind, f"line {annotation.line} {written!r}")
    return written == "false"


def _full_concept(sem, concepts, problems):
    """The concept of a `sem`, with its specifier where `concepts` is "full"; "" for `null`"""
    concept = _concept(sem, problems)
    specifier = sem.attributes.get("specif", "null").strip()
    if re.search(r"[<>\s]", specifier):
        kind = "specifiers with spaces, < or > in their name"
        problems.add(kind, f"line {sem.line} {specifier!r}")
    if concept and not sem.all_words:
        problems.add("concepts without words", f"line {sem.line} {concept}")
    if concept and concepts == "full" and specifier not in ("null", ""):
        concept += "-" + specifier.lstrip("-")
    return concept


def _spoken(node, problems):
    """The words and the times of Sync that stand right in `node`"""
    for child in node.children:
        if isinstance(child, str):
            if child.strip():
                yield "text", child
        elif child.all_words:
            kind = f"words in <{child.tag}> in <{node.tag}>, where none are read"
            problems.add(kind, f"line {child.line} {child.all_words[:40]!r}")
        elif child.tag == "Sync":
            yield "sync", _seconds(child, "time", problems)


def _concept(node, problems):
    """The concept a node names, "" for `null`"""
    name = _attribute(node, "concept", problems).strip()
    if re.search(r"[<>\s]", name):
        problems.add("concepts with spaces, < or > in their name", f"line {node.line} {name!r}")
    return "" if name == "null" else name


def _flat(path, relax, problems):
    """The Segments of a file of test2, its dialogue in its name; relax: rules of `_relax_rules`"""
    top, dialogue = read_xml(path), path.name[: -len(FLAT)]
    names = {s.attributes.get("id", ""): s.attributes.get("name", "") for s in top.find("Speaker")}
    users = [number for number, name in names.items() if name.startswith("s")]
    if len(users) != 1:
        many = "several Speakers" if users else "no Speaker"
        problems.add(f"{many} whose name begins with s, as users' do", f"{path.name}")
        return
    for place in [*top.find("Trans"), *top.find("Episode"), *top.find("Section")]:
        _stray(place, problems)
    for turn in top.find("Turn"):
        for inner in turn.find("Turn"):
            problems.add("Turn in a Turn", f"line {inner.line}")
        speakers = turn.attributes.get("speaker", "").split()
        for unknown in [name for name in speakers if name not in names]:
            problems.add("turns of a speaker who is not declared", f"line {turn.line} {unknown}")
        if users[0] in speakers and len(speakers) > 1:
            problems.add("turns of the user and others at once", f"line {turn.line}")
        if speakers == users:
            events = list(_flat_events(turn, relax, problems))
            yield from _segments(dialogue, names[users[0]], turn, events, problems)


def _flat_events(turn, relax, problems):
    opened, spoken = None, False
    for node in turn.children:
        tag = node.tag if isinstance(node, Node) else ""
        if tag == "SemDebut":
            if opened:
                problems.add("SemDebut inside a concept", f"line {node.line}")
            opened, spoken, concept = node, False, _concept(node, problems)
            yield "open", _relaxed(concept, relax)
        elif tag == "SemFin":
            if not opened:
                problems.add("SemFin without SemDebut", f"line {node.line}")
            elif not spoken and concept:
                problems.add("concepts without words", f"line {opened.line} {concept}")
            opened = None
            yield "close", ""
        if tag != "Turn":
            events = list(_spoken(Node(turn.tag, {}, turn.line, [node]), problems))
            spoken = spoken or any(kind == "text" for kind, _ in events)
            yield from events
    if opened:
        problems.add("SemDebut without SemFin", f"line {opened.line}")


def _segments(dialogue, speaker, turn, events, problems):
    """The Segments of a turn: its flat annotation cut at each sync that follows words, outside concepts"""
    start, end = (_seconds(turn, name, problems) for name in ("startTime", "endTime"))
    _check_syncs(turn, start, end, problems)
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


def _check_syncs(turn, start, end, problems):
    """Adds every Sync that lies outside its turn, from `start` to `end`: it would cut a piece of others"""
    for sync in turn.find("Sync"):
        time = sync.attributes.get("time", "").strip()
        if SECONDS.fullmatch(time) and not start - OUTSIDE <= float(time) <= end + OUTSIDE:
            problems.add("Sync outside its turn", f"line {sync.line} {time} s of [{start:g}, {end:g}]")


def _attribute(node, name, problems):
    if not node.attributes.get(name, "").strip():
        problems.add(f"{node.tag} without {name}", f"line {node.line}")
    return node.attributes.get(name, "")


def _seconds(node, name, problems):
    value = node.attributes.get(name, "").strip()
    if SECONDS.fullmatch(value) and math.isfinite(float(value)):
        return float(value)
    kind = f"{node.tag} whose {name} is not a number of seconds"
    problems.add(kind, f"line {node.line} {value!r}")
    return 0.0


# ---- the two tables


def _table(path):
    """[(line, first field, second field)] of a table of two columns without header"""
    problems, rows = Problems(path), []
    for line, text in enumerate(read_text(path).splitlines(), 1):
        fields = text.split(",") if '"' not in text else next(csv.reader([text[:CSV_LINE]]))
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


def read_channels(path):
    """{dialogue: "1" or "2"} from channels.csv"""
    problems, channels = Problems(path), {}
    for line, side, dialogue in _table(path):
        if side.upper() not in CHANNELS:
            problems.add("sides other than L and R", f"line {line} {side!r}")
        elif channels.setdefault(dialogue, CHANNELS[side.upper()]) != CHANNELS[side.upper()]:
            problems.add("dialogues on both sides", f"line {line} {dialogue}")
    problems.raise_if_any()
    return channels
