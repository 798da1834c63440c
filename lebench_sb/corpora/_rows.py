"""Rows of a user's table -> Utterances: files found, texts normalised, durations measured, faults listed."""

import os
import re
from dataclasses import replace

from lebench_sb.core.errors import Problems
from lebench_sb.core.paths import Finder
from lebench_sb.corpora._text import ADVICE, changed_characters
from lebench_sb.corpora._text import gender as gender_of
from lebench_sb.manifests.durations import probe_durations
from lebench_sb.manifests.utterance import CLOSE, PATH_LABELS, SECONDS, TAG, Utterance, tag_faults
from lebench_sb.text.normaliser import UnreadableText
from lebench_sb.text.normaliser import none as compose

FIXED = ("ID", "wav", "spk_id", "gender", "language", "duration", "start", "stop")
TOLERANCE = 0.05  # of the measured duration; more means another file, or another cut, than the one described


class Reading:
    """Rows of the table -> Utterances.

    bad: {id: (kind, item, advice)} of those that cannot be used, which is for their split to judge; changed:
    {id: Counter of the characters of its transcript that the normaliser changed}.
    """

    def __init__(self, csv, data_root, normalise, language):
        self.csv, self.data_root, self.normalise, self.language = csv, data_root, normalise, language
        self.folders = (os.path.abspath(data_root), os.path.abspath(csv.parent))
        self.finders = [Finder(folder) for folder in self.folders]
        self.problems, self.bad, self.changed = Problems(csv), {}, {}

    def utterances(self, rows, columns):
        """One Utterance per row, in order, text normalised, duration measured (nan for bad ones). DataError
        lists all faults."""
        utterances, lines = [], {}
        for line, row in rows:
            given = {name: row[column].strip() for name, column in columns.items()}
            u = self._utterance(given, line)
            utterances.append(u)
            lines.setdefault(u.id, []).append(line)
        durations, faults = probe_durations(u.wav for u in utterances)
        for index, (line, _) in enumerate(rows):
            u = utterances[index]
            if u.wav not in faults:
                utterances[index] = _timed(u, durations[u.wav], line, self.problems)
            elif os.path.exists(u.wav):
                self.bad[u.id] = (faults[u.wav], f"line {line} {u.wav}", "")
            else:
                self.problems.add(faults[u.wav], f"line {line} {u.wav}")
        for name, where in lines.items():
            if len(where) > 1:
                self.problems.add("duplicate ID", f"{name} (lines {', '.join(map(str, where[:5]))})")
        if self.problems:  # all that is wrong at once
            for kind, item, advice in self.bad.values():
                self.problems.add(kind + advice, item)
        self.problems.raise_if_any()
        return utterances

    def _utterance(self, given, line):
        """One row ({manifest column: text}) as an Utterance whose duration is the row's, or nan."""
        wav = self._find(given["wav"], line)
        times = [_seconds(given, name, line, self.problems) for name in ("start", "stop", "duration")]
        start, stop, duration = times
        gender = gender_of(given.get("gender", ""))
        if gender is None:
            kind = "gender not understood (F, M, female, homme, ...)"
            self.problems.add(kind, f"line {line} {given['gender']!r}")
        made = os.path.splitext(os.path.relpath(wav, self.folders[0]))[0]
        made += "" if start is None else f"_{start}-{stop}"
        if "ID" in given and not given["ID"]:
            self.problems.add("empty ID", f"line {line}")
        name = given.get("ID", made)
        labels = {label: value for label, value in given.items() if label not in FIXED}
        for label in labels:
            labels[label] = self._label(label, labels[label], line, name)
        return Utterance(
            id=name,
            wav=wav,
            duration=float("nan") if duration is None else duration,
            start=start,
            stop=stop,
            speaker=given.get("spk_id", ""),
            gender=gender or "U",
            language=given.get("language") or self.language,
            labels=labels,
        )

    def _find(self, path, line):
        """The absolute path of a file given relative to data_root or to the table (`Finder.find`), as it is
        written where there is none."""
        choices = [os.path.abspath(os.path.join(folder, path)) for folder in self.folders]
        exact = next((choice for choice in choices if os.path.isfile(choice)), None)
        if exact or not path:
            return exact or choices[0]
        answers = [finder.find(path) for finder in self.finders]
        paths = {choice for choice, _ in answers if choice}
        several = {fault for _, fault in answers if fault.startswith("several")}
        if len(paths) == 1 and not several:
            return paths.pop()
        if paths or several:
            said = "; ".join([*sorted(paths), *sorted(several)])
            self.problems.add("paths that may be several files", f"line {line} {path}: {said}")
        return choices[0]

    def _label(self, name, value, line, of):
        """A label as the manifest holds it: `wrd` normalised, paths absolute, other text composed (NFC). of:
        the ID"""
        if name in PATH_LABELS:
            path = self._find(value, line)
            return path if value and (name == "trace" or os.path.isfile(path)) else value
        if name == "channel" and value and not (value.isdecimal() and int(value) > 0):
            self.problems.add("channel is no number (1 is the left one)", f"line {line} {value!r}")
        if name not in ("wrd", "semantics"):
            return compose(value)
        if name == "semantics" and (faults := tag_faults(value)):
            for fault in faults:
                kind = "semantics not written as `<concept> words > words`"
                self.problems.add(kind, f"line {line}: {fault}")
            return value
        try:
            normal = self.normalise(value) if name == "wrd" else normalise_tagged(value, self.normalise)
        except UnreadableText as error:
            item = f"line {line} {' '.join(map(repr, error.characters))}"
            self.bad[of] = (f"characters {error.normaliser} cannot read", item, f" ({ADVICE})")
            return value
        if name == "wrd":
            self.changed[of] = changed_characters(value, normal)
        return normal


def _seconds(given, name, line, problems):
    """The number in a column, None where there is no such column or it is empty."""
    text = given.get(name, "")
    if SECONDS.fullmatch(text):
        return float(text)
    if text:
        problems.add(f"{name} is not a number of seconds (decimal point, no unit)", f"line {line} {text!r}")
    return None


def normalise_tagged(text, normalise):
    """A tagged text with the words between its tags normalised, the tags as they are."""
    pieces = re.split(rf"(?<!\S)({TAG.pattern}|{CLOSE})(?!\S)", text)
    words = [compose(p) if number % 2 else normalise(p) for number, p in enumerate(pieces)]
    return " ".join(word for word in words if word)


def _timed(u, measured, line, problems):
    """`u` with its true duration; measured: seconds of its whole file."""
    if u.start is None and u.stop is None:
        length, stop = measured, None
    elif u.start is None or u.stop is None or not u.start < u.stop <= measured + 0.1:
        piece = f"line {line} [{u.start}, {u.stop}] of {measured:.3f} s"
        problems.add("start and stop are no piece of the file", piece)
        return u
    else:
        stop = min(u.stop, measured)  # segment times are often rounded up past the end
        length = stop - u.start
    if abs(u.duration - length) > max(TOLERANCE * length, 0.02):
        says = f"line {line} says {u.duration}, measured {length:.3f}"
        problems.add("duration over 5 % off the audio's", says)
    return replace(u, duration=length, stop=stop)
