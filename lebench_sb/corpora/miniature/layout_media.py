"""MEDIA as ELRA distributes it: `S0272/**/<dialogue>.wav` (8 kHz, user on one channel, machine on the other),
`E0024/MEDIA1FR_00/MEDIA1FR/DATA/media_*.xml` in ISO-8859-1, flat files for test2, and the two tables that
SpeechBrain's recipe links to.

One recording is one dialogue of a user's sentences with a machine's turns between them. What stands on the
machine's channel is the user's voice backwards and softer: whoever reads the wrong channel, or both, hears
no word.
"""

import zlib
from xml.sax.saxutils import escape, quoteattr

import numpy as np
import soundfile
import soxr

from lebench_sb.core.files import new_file, write_atomically
from lebench_sb.corpora.miniature.grammar import spell
from lebench_sb.corpora.miniature.patterns import HOTEL
from lebench_sb.corpora.miniature.texts import Part, Turn

PARTS = {"train": Part(7, 10, 2), "dev": Part(2, 4), "test": Part(4, 10)}
WORDS = (4.0, 0.2)
SAID = HOTEL
RATE = 8000
ANSWER = 1.0  # seconds the machine speaks between two sentences
MARGIN = 0.15  # seconds of a turn before and after its words
DATA = "E0024/MEDIA1FR_00/MEDIA1FR/DATA"
FIRST = {"train": 32, "dev": 700, "test": 1000}  # numbers of dialogues
FILES = {"dev": "media_testHC_a_blanc.xml", "test": "media_testHC.xml"}
SPECIFIERS = {
    "localisation-ville": "-hotel", "localisation-lieuRelatif": "-hotel", "nombre-chambre": "-reservation",
    "sejour-nbNuit": "-reservation", "sejour-nbPersonne": "-reservation",
}  # fmt: skip
HEADER = '<?xml version="1.0" encoding="ISO-8859-1"?>\n'


def utterance(source, speaker, rng):
    """What the user says in one dialogue: three to five sentences"""
    return tuple(next(source) for _ in range(rng.randint(3, 5)))


def turns(clip):
    """A sentence is one turn; the pause between two is the machine's"""
    return [Turn(sentence.text, pause=ANSWER) for sentence in clip.sentences]


def dialogue(clip):
    """The number of a dialogue, as in the names of its files"""
    return str(FIRST[clip.split] + clip.number)


def side(number):
    """L or R: the channel of the user"""
    return "LR"[zlib.crc32(number.encode()) % 2]


def path(clip):
    """Path of a dialogue below the build's folder"""
    return f"S0272/MEDIA1FR_{clip.split}/{dialogue(clip)}.wav"


def store(path, wave):
    """int16 (T,) at 16 kHz -> stereo at 8 kHz in `path`; returns T"""
    voice = soxr.resample(wave, 2 * RATE, RATE)
    machine = (voice[::-1] * 0.5).astype(voice.dtype)
    channels = [voice, machine] if side(path.stem) == "L" else [machine, voice]
    samples = np.stack(channels, axis=1)
    with new_file(path) as temporary:
        soundfile.write(temporary, samples, RATE, format="WAV")
    return len(wave)


def is_test2(clip):
    """Whether a test dialogue is left to test2: one in four"""
    return clip.split == "test" and clip.number % 4 == 3


def write(folder, clips, recordings):
    """The XML of `clips` and the two tables; `recordings[i].turns` are the times of the sentences."""
    data, lots = folder / DATA, {}
    (data / "semantizer_files").mkdir(parents=True, exist_ok=True)
    for number in (1, 2, 3, 4):
        lots[f"media_lot{number}.xml"] = []
    for clip, recording in zip(clips, recordings, strict=True):
        times = spans(recording)
        if is_test2(clip):
            _write(data / "semantizer_files" / f"{dialogue(clip)}_HC.xml", flat(clip, times))
        else:
            file = FILES.get(clip.split, f"media_lot{clip.number % 4 + 1}.xml")
            lots.setdefault(file, []).append(nested(clip, times))
    for file, dialogues in lots.items():
        _write(data / file, f"{HEADER}<media>\n{''.join(dialogues)}</media>\n")
    _write(folder / "channels.csv", "".join(f"{side(dialogue(c))},{dialogue(c)}\n" for c in clips))
    rules = [f"{name}-*,{name}\n" for name in sorted(SPECIFIERS)]
    _write(folder / "concepts_full_relax.csv", "".join([*rules, "temps-date*,temps-date\n"]))


def spans(recording):
    """[(start, stop)] of the sentences with a margin, inside the recording"""
    return [(max(a - MARGIN, 0.0), min(b + MARGIN, recording.seconds)) for a, b in recording.turns]


def pieces(sentence):
    """[(concept or "null", specifier or "null", value, words)] of a sentence in the order of its words"""
    parts, at = [], 0
    reserves = any(c.value == "reservation" for c in sentence.concepts)
    for concept in sentence.concepts:
        parts.append(("null", "null", "", spell(sentence.tokens[at : concept.start])))
        specifier = SPECIFIERS.get(concept.name, "null")
        if concept.name == "temps-date" and reserves:
            specifier = "-reservation"
        words = spell(sentence.tokens[concept.start : concept.stop])
        parts.append((concept.name, specifier, concept.value, words))
        at = concept.stop
    parts.append(("null", "null", "", spell(sentence.tokens[at:])))
    return [piece for piece in parts if piece[3]]


def name(clip):
    """The user's name, that of a call"""
    return f"speaker_{1 + clip.number % 2}_08730_{dialogue(clip)}"


def grouped(clip, times):
    """[[(sentence, (start, stop))]]: one sentence a turn, the last two together in every second dialogue"""
    single = [[pair] for pair in zip(clip.sentences, times, strict=True)]
    return single if clip.number % 2 else [*single[:-2], single[-2] + single[-1]]


def nested(clip, times):
    """A dialogue of the large files"""
    lines = [f"<dialogue id={quoteattr(dialogue(clip))} nameSpk={quoteattr(name(clip))}>\n"]
    last = 0.0
    for group in grouped(clip, times):
        start, stop = group[0][1][0], group[-1][1][1]
        if start > last:
            machine = [(("null", "null", "", "Que puis-je faire pour vous ?"), last)]
            lines.append(_turn("compere", last, start, machine, "false"))
        said = [
            (piece, begin if number == 0 else None)
            for sentence, (begin, _) in group
            for number, piece in enumerate(pieces(sentence))
        ]
        lines.append(_turn("spk", start, stop, said, "false", "true"))
        last = stop
    return "".join([*lines, "</dialogue>\n"])


def _turn(speaker, start, stop, content, *contexts):
    """A turn with its annotation out of context and, of a user, again in context, which nobody reads"""
    lines = [f'<turn speaker="{speaker}" startTime="{start:.3f}" endTime="{stop:.3f}">\n']
    for context in contexts:
        lines.append(f'<semAnnotation withContext="{context}">\n')
        for (concept, specifier, value, words), sync in content:
            if context == "true" and concept == "temps-date":
                specifier = "-enContexte"
            time = "" if sync is None else f'<Sync time="{sync:.3f}"/>'
            attributes = f'concept="{concept}" mode="+" specif="{specifier}" value={quoteattr(value)}'
            lines.append(f"<sem {attributes}><transcription>{time}{escape(words)}</transcription></sem>\n")
        lines.append("</semAnnotation>\n")
    return "".join([*lines, "</turn>\n"])


def flat(clip, times):
    """A dialogue of test2"""
    user = quoteattr(name(clip))
    lines = [
        f'{HEADER}<!DOCTYPE Trans SYSTEM "trans-13.dtd">\n<Trans>\n<Speakers>\n',
        f'<Speaker id="spk1" name="compere"/>\n<Speaker id="spk2" name={user}/>\n</Speakers>\n',
        "<Episode>\n<Section>\n",
    ]
    for sentence, (start, stop) in zip(clip.sentences, times, strict=True):
        lines.append(f'<Turn speaker="spk2" startTime="{start:.3f}" endTime="{stop:.3f}">\n')
        lines.append(f'<Sync time="{start:.3f}"/>\n')
        for concept, specifier, _, words in pieces(sentence):
            full = concept if specifier == "null" else concept + specifier
            tags = ("", "") if concept == "null" else (f'<SemDebut concept="{full}"/>', "<SemFin/>")
            lines.append(f"{tags[0]}{escape(words)}{tags[1]}\n")
        lines.append("</Turn>\n")
    return "".join([*lines, "</Section>\n</Episode>\n</Trans>\n"])


def _write(file, text):
    data = text.encode("iso-8859-1", "xmlcharrefreplace")
    write_atomically(file, data)
