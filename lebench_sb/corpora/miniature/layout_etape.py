"""ETAPE as `corpora/etape.py` reads it: `etape/{train,dev,test}/` with recordings of several turns, each with
its .trs in ISO-8859-1 and its .stm in UTF-8, which say the same. The miniature's speakers speak alone: one in
each recording, where a broadcast has many.
"""

from xml.sax.saxutils import escape, quoteattr

from lebench_sb.core.files import write_atomically
from lebench_sb.corpora.miniature.texts import Part, Turn

PARTS = {"train": Part(9, 10, 2), "dev": Part(2, 4), "test": Part(4, 10, 2)}
WORDS = (3.0, 0.2)
SECONDS = (1.0, 120.0)
GENDERS = {"F": "female", "M": "male"}
PAUSES = (0.6, 0.3, 0.9, 0.45)  # seconds between turns, one after the other


def utterance(source, speaker, rng):
    """Two to five sentences, each a turn"""
    return tuple(next(source) for _ in range(rng.randint(2, 5)))


def turns(clip):
    """A turn for each sentence"""
    return [Turn(s.text, pause=PAUSES[n % len(PAUSES)]) for n, s in enumerate(clip.sentences)]


def stem(clip):
    return f"MINI_Journal_{clip.split}_{clip.number:04d}"


def path(clip):
    """Path of a recording below the build's folder"""
    return f"etape/{clip.split}/{stem(clip)}.wav"


def write(folder, clips, recordings):
    """The .trs and the .stm of each of `clips`; `recordings[i]` holds the times of its turns."""
    for clip, recording in zip(clips, recordings, strict=True):
        place = folder / path(clip)
        timed = [(round(a, 3), round(b, 3)) for a, b in recording.turns]
        _write(place.with_suffix(".trs"), trs(clip, timed, round(recording.seconds, 3)), "iso-8859-1")
        _write(place.with_suffix(".stm"), stm(clip, timed, round(recording.seconds, 3)), "utf-8")


def gaps(timed, seconds):
    """[(start, stop, number of the turn or None for what lies between)], without holes, from 0 to the end"""
    silences, last = [], 0.0
    for number, (start, stop) in enumerate(timed):
        if start > last:
            silences.append((last, start, None))
        silences.append((start, stop, number))
        last = stop
    return silences + ([(last, seconds, None)] if seconds > last else [])


def trs(clip, timed, seconds):
    """The document of Transcriber"""
    speaker = clip.speaker
    lines = [
        '<?xml version="1.0" encoding="ISO-8859-1"?>',
        '<!DOCTYPE Trans SYSTEM "trans-14.dtd">',
        f'<Trans scribe="miniature" audio_filename="{stem(clip)}" version="1" version_date="260101">',
        "<Speakers>",
        f'<Speaker id="spk1" name={quoteattr(speaker.name)} check="no" type="{GENDERS[speaker.gender]}" '
        'dialect="native" accent="" scope="local"/>',
        "</Speakers>",
        "<Episode>",
        f'<Section type="report" startTime="0" endTime="{seconds}">',
    ]
    for start, stop, number in gaps(timed, seconds):
        who = "" if number is None else ' speaker="spk1" mode="planned" fidelity="high" channel="studio"'
        said = "" if number is None else escape(latin(clip.sentences[number].text))
        lines += [
            f'<Turn{who} startTime="{start}" endTime="{stop}">',
            f'<Sync time="{start}"/>',
            said,
            "</Turn>",
        ]
    return "\n".join([*lines, "</Section>", "</Episode>", "</Trans>", ""])


def stm(clip, timed, seconds):
    """The lines of NIST"""
    lines = [";; the miniature"]
    for start, stop, number in gaps(timed, seconds):
        labels = f"<o,f0,{GENDERS[clip.speaker.gender]}>"
        if number is None:
            lines.append(f"{stem(clip)} 1 inter_segment_gap {start} {stop} <o,,>")
        else:
            text = latin(clip.sentences[number].text)
            lines.append(f"{stem(clip)} 1 {clip.speaker.name} {start} {stop} {labels} {text}")
    return "\n".join([*lines, ""])


def latin(text):
    """What ISO-8859-1 can write of a text, in both files"""
    return text.translate({0x153: "oe", 0x152: "Oe", 0x2019: "'", 0x2026: "...", 0x178: "Y"})


def _write(file, text, encoding):
    write_atomically(file, text.encode(encoding))
