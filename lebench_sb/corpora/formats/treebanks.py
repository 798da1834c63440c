"""What spoken treebanks share: a sentence of CoNLL-U with times becomes a piece of a recording with its tree.

The manifest's label `tree` holds the tree as CoNLL-U over the spoken words (`trees.spoken_tree`), `wrd` those
words, so that a manifest needs no other file than the audio.

A sentence is cut from the begin of its first word to the end of its last. Punctuation is not heard, and what
Rhapsodie writes as its times is often 0 or the wrong way round: its times are not read. A word of over
APART seconds (a begin of 0 stands for an unknown one), or two words that are further apart than that, would
put the speech of others into the piece: such a sentence is a fault.
"""

import os
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote, urlsplit

from lebench_sb.core.errors import Problems
from lebench_sb.core.paths import files_below
from lebench_sb.corpora._text import gender as read_gender
from lebench_sb.manifests.durations import probe_durations
from lebench_sb.manifests.trees import PUNCTUATION, as_conllu, normalised, read_blocks
from lebench_sb.manifests.utterance import Utterance
from lebench_sb.text.normaliser import normaliser as text_normaliser

TREES = ("wrd", "tree")  # the labels
AUDIO = (".wav", ".flac", ".mp3", ".ogg")
LATE = 0.1  # seconds a sentence may end after its recording: times are rounded
APART = 5.0  # seconds a word may last, or that may pass between two words of a sentence
MILLISECONDS = re.compile("[0-9]{1,12}")
WAY_OUT = "mend these sentences, or leave them out, counted, with --drop_bad True"
EMPTY = "without a spoken word"


class Faults(Problems):
    """Problems that remember of which recording and sentence each is, to tell which split has lost it."""

    def __init__(self, where):
        super().__init__(where)
        self.place, self.lost = ("", ""), []

    def add(self, kind, item):
        super().add(kind, item)
        self.lost.append((*self.place, kind))


class Reader:
    """Turns Blocks into Utterances. What is wrong is collected; `left_out` lists what is no fault.

    audio: {name or stem of a file below the corpus: [paths]}.
    """

    def __init__(self, where, root, normaliser, multiword):
        self.problems = Faults(where)
        self.normalise, self.multiword = text_normaliser(normaliser), multiword
        self.audio, self.left_out = _audio_files(root), []

    def at(self, recording, sentence):
        """Of which recording and sentence the faults that follow are"""
        self.problems.place = recording, sentence

    def times(self, block, read):
        """[(begin, end) in seconds, ...] of the lines of a Block that have times, in order, punctuation left
        out; None, with a problem noted, where `read(line)` raises ValueError"""
        heard = [token for token in block.tokens if token["upos"] not in PUNCTUATION]
        try:
            return [pair for pair in map(read, heard) if pair is not None]
        except ValueError as error:
            self.problems.add("times that are no numbers", f"{block.place} {error}")
            return None

    def utterance(self, block, recording, times, speaker="", gender="U"):
        """One Block -> Utterance, or None. recording: possible names of its file, the best first; times: of
        `times`"""
        if times is None:
            return None
        if not block.name:
            self.problems.add("sentences without sent_id", block.place)
            return None
        tree = normalised(block, self.normalise, self.multiword, self.problems)
        if tree is None:
            return None
        if not tree:
            self.left_out.append((*self.problems.place, EMPTY))
            return None
        span, wav = self._span(block, times), self._recording(block, recording)
        if span is None or wav is None:
            return None
        labels = {"wrd": tree.text, "tree": as_conllu(tree)}
        speaker = speaker or Path(wav).stem
        start, stop = (round(t, 4) for t in span)
        return Utterance(block.name, wav, round(stop - start, 4), start, stop, speaker, gender, labels=labels)

    def _span(self, block, times):
        """(start, stop) of a sentence from the times of its words"""
        begins = [begin for begin, _ in times]
        if not times:
            self.problems.add("sentences without times", block.place)
        elif any(begin > end for begin, end in times) or begins != sorted(begins):
            self.problems.add("times that go backwards", block.place)
        elif begins[0] >= (stop := max(end for _, end in times)):
            self.problems.add("sentences that last 0 s", block.place)
        elif fault := _gap(times):
            self.problems.add(fault[0], f"{block.place}, {fault[1]}")
        else:
            return begins[0], stop
        return None

    def _recording(self, block, names):
        """The file of the first of `names` there is, uncompressed before compressed"""
        for name in names:
            paths = self.audio.get(name, [])
            best = min((_rank(path) for path in paths), default=0)
            paths = [path for path in paths if _rank(path) == best]
            if len(paths) == 1:
                return paths[0]
            if paths:
                self.problems.add("several recordings of one name", f"{name}: {', '.join(paths[:3])}")
                return None
        self.problems.add("no recording", f"{names[0]} ({block.place})")
        return None

    def within_recordings(self, utterances):
        """The utterances, their ends cut to the recordings'; one that ends later or is there twice is a
        problem"""
        durations, faults = probe_durations(u.wav for u in utterances)
        inside, seen = [], set()
        for u in utterances:
            self.at(Path(u.wav).stem, u.id)
            seconds = durations.get(u.wav)
            if u.id in seen:
                self.problems.add("sent_id there twice", u.id)
            elif seconds is None:
                self.problems.add(faults[u.wav], f"{u.wav} ({u.id})")
            elif u.stop > seconds + LATE:
                late = f"{u.id} [{u.start}, {u.stop}] of {seconds:.2f} s"
                self.problems.add("sentences that end after their recording", late)
            else:
                stop = min(u.stop, seconds)
                inside.append(replace(u, stop=stop, duration=round(stop - u.start, 4)))
            seen.add(u.id)
        return inside

    def finish(self, drop_bad):
        """Raises DataError for the problems, unless drop_bad: then [(recording, sent_id, why), ...] of all
        that is left out"""
        if not drop_bad and self.problems:
            self.problems.where = f"{self.problems.where} ({WAY_OUT})"
            self.problems.raise_if_any()
        return [*self.left_out, *self.problems.lost]


def _gap(times):
    """(what is wrong, where) for a word or a silence of over APART seconds; times: (begin, end) in order of
    begin"""
    reached = times[0][0]
    for begin, end in times:
        if end - begin > APART:
            return f"words of over {APART:g} s (is one of their times missing?)", f"{begin:g} to {end:g} s"
        if begin - reached > APART:
            kind = f"words over {APART:g} s apart: not one piece of the recording"
            return kind, f"{reached:g} to {begin:g} s"
        reached = max(reached, end)
    return None


def _rank(path):
    return AUDIO.index(os.path.splitext(path)[1].lower())


def _audio_files(root):
    """{file name, and stem: [paths]} of the audio below `root`"""
    paths_of = {}
    for path in files_below(root, AUDIO):
        for name in (path.name, path.stem):
            paths_of.setdefault(name, []).append(str(path))
    return paths_of


# ---- CoNLL-U of Universal Dependencies with times


def read_aligned(path, root, normaliser="fr-1", multiword="merge", drop_bad=False, left_out=None):
    """The Utterances of a CoNLL-U file whose MISC gives the time of each word in milliseconds (`AlignBegin=`,
    `AlignEnd=`) and whose `# sound_url` names the recording, which is below `root`.

    left_out: a Counter that receives {reason: count} of the sentences left out.
    """
    reader, sentences = Reader(path, root, normaliser, multiword), []
    for block in read_blocks(path, reader.problems):
        times = reader.times(block, _milliseconds)
        speaker = next((block.metadata[k] for k in ("speaker_id", "speaker") if block.metadata.get(k)), "")
        gender = read_gender(block.metadata.get("speaker_sex", "")) or "U"
        sentences.append(reader.utterance(block, recording_names(block), times, speaker, gender))
    kept = reader.within_recordings([u for u in sentences if u is not None])
    lost = Counter(why for *_, why in reader.finish(drop_bad))
    if left_out is not None:
        left_out.update(lost)
    return kept


def recording_names(block):
    """Names the recording may have: that of the URL, without its suffix, and the sent_id's without the
    sentence's number"""
    url = os.path.basename(unquote(urlsplit(block.metadata.get("sound_url", "")).path))
    names = (url, os.path.splitext(url)[0], re.sub(r"[-_]\d+[a-z]?$", "", block.name))
    return tuple(name for name in names if name) or (block.name,)


def _milliseconds(token):
    """(begin, end) in seconds of a line, None where it has none; ValueError that says what stands there"""
    misc = token["misc"] or {}
    begin, end = misc.get("AlignBegin"), misc.get("AlignEnd")
    if begin is None and end is None:
        return None
    if not (MILLISECONDS.fullmatch(begin or "") and MILLISECONDS.fullmatch(end or "")):
        raise ValueError(f"AlignBegin={begin} AlignEnd={end}")
    return int(begin) / 1000, int(end) / 1000
