"""Transcriber XML (`.trs`): `<Speaker id name type/>`, `<Turn speaker startTime endTime>`, `<Sync time/>`"""

from lebench_sb.core.errors import DataError, Problems
from lebench_sb.corpora._text import gender as read_gender
from lebench_sb.corpora.formats.stretches import Stretch, cleaned, is_time, speaker_name, why_not
from lebench_sb.corpora.formats.xml import read_xml

NOT_TRANSCRIBED = "section not transcribed"


def read_trs(path):
    """Transcriber XML -> [Stretch]: one for each `<Sync>` of each turn, to the next one or the turn's end.

    Raises DataError for XML that does not parse, or that lists, with their lines, turns without times or of
    unknown speakers, and words that stand where none are read.
    """
    root, problems, people, stretches = read_xml(path), Problems(path), {}, []
    if not any(root.find("Trans")):
        raise DataError(f"{path}: no <Trans>; is it the XML of Transcriber?")
    for speaker in root.find("Speaker"):
        name, number = speaker.attributes.get("name"), speaker.attributes.get("id", "")
        if number in people:
            problems.add("speakers declared twice", f"line {speaker.line} {number}")
        gender = read_gender(speaker.attributes.get("type", "")) or "U"
        people[number] = speaker_name(name or number), gender
    for place in (*root.find("Trans"), *root.find("Episode"), *root.find("Section")):
        if place.words:
            problems.add("words outside turns", f"line {place.line}, in {place.tag}: {place.words[:40]!r}")
    sections = list(root.find("Section"))
    for section in sections:
        for turn in section.nodes:
            if turn.tag == "Turn":
                stretches += _turn(turn, section.attributes.get("type"), people, problems)
    read = {id(turn) for section in sections for turn in section.nodes}
    for turn in [turn for turn in root.find("Turn") if id(turn) not in read]:
        problems.add("turns that are not right in a Section", f"line {turn.line}")
    problems.raise_if_any()
    return stretches


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
    stretches = []
    for (start, text), stop in zip(pieces, times[1:], strict=True):
        if start == stop and not text.strip():
            continue  # between the turn's start and a Sync at the same time
        text = cleaned(text)
        why = NOT_TRANSCRIBED if kind == "nontrans" else why_not(ids, text)
        if float(stop) < float(start):
            at = f"line {turn.line} [{start}, {stop}]"
            problems.add("stretches that do not end after they start", at)
        stretches.append(Stretch(float(start), float(stop), speaker, gender, text, why))
    return stretches
