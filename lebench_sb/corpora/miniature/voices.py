"""Speaks one chunk of clips; `main` runs in a fresh process for each chunk.

eSpeak NG keeps state from one sentence to the next, and initialising it again does not clear it: a clip is
only reproducible as the n-th sentence of its process. A NanoTTS object remembers too, so each clip gets its
own. The chunk comes as JSON on standard input: {"marker", "key", "seed", "corpus", "speaker",
"clips": [[path, [turn, ...]], ...]}; the clips are written first, the marker (what was measured, in samples)
last, each under a temporary name and then renamed.
"""

import ctypes
import itertools
import json
import sys
import zlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import soundfile
import soxr

from lebench_sb.core.files import new_file, write_atomically
from lebench_sb.corpora.miniature.acoustics import RATE, loud, recorded
from lebench_sb.corpora.miniature.layouts import layout
from lebench_sb.corpora.miniature.speakers import Speaker
from lebench_sb.corpora.miniature.texts import Turn

INSTALL = (
    "The miniature's voices are missing: pip install 'lebench_sb[demo]'  (espeakng-loader and py-nanotts)"
)
ESPEAK_RATE = 22050
SYNCHRONOUS, UTF8, SPEED, PITCH, RANGE = 2, 1, 1, 3, 4  # of speak_lib.h
PHONEME_EVENTS, WORD, PHONEME = 1, 1, 7  # of speak_lib.h
NORMAL_RANGE = 50


class Event(ctypes.Structure):
    """espeak_EVENT of speak_lib.h; its list ends with type 0"""

    _fields_ = [
        ("type", ctypes.c_int), ("unique_identifier", ctypes.c_uint), ("text_position", ctypes.c_int),
        ("length", ctypes.c_int), ("audio_position", ctypes.c_int), ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p), ("string", ctypes.c_char * 8),
    ]  # fmt: skip


@dataclass
class Spoken:
    """wave (T,) float at 16 kHz; words [(character, sample)], phonemes [(sample, name)]"""

    wave: np.ndarray
    words: list = field(default_factory=list)
    phonemes: list = field(default_factory=list)


class ESpeak:
    """eSpeak NG by ctypes, one voice; `speak(turn)` -> Spoken."""

    def __init__(self, speaker):
        import espeakng_loader

        self.library = ctypes.cdll.LoadLibrary(espeakng_loader.get_library_path())
        data = espeakng_loader.get_data_path().encode()
        self.library.espeak_Initialize(SYNCHRONOUS, 0, data, PHONEME_EVENTS)
        self.library.espeak_ng_SetRandSeed(ctypes.c_long(1))  # else breathy variants draw from the clock
        self.pieces, self.events, self.speaker, self.settings = [], [], speaker, {}
        wave, events = ctypes.POINTER(ctypes.c_short), ctypes.POINTER(Event)
        kind = ctypes.CFUNCTYPE(ctypes.c_int, wave, ctypes.c_int, events)
        self.callback = kind(self._receive)  # kept: the library does not own it
        self.library.espeak_SetSynthCallback(self.callback)
        # the library takes any name for a variant and speaks without it
        known = Path(espeakng_loader.get_data_path(), "voices", "!v", speaker.variant).is_file()
        if not known or self.library.espeak_SetVoiceByName(f"fr+{speaker.variant}".encode()):
            raise ValueError(f"eSpeak NG has no voice fr+{speaker.variant}.")
        self.settings[RANGE] = NORMAL_RANGE
        self._set(Turn(""))

    def _set(self, turn):
        """Tells the library what differs from the turn before"""
        wanted = {
            SPEED: int(self.speaker.rate * turn.rate), PITCH: int(self.speaker.pitch * turn.pitch),
            RANGE: int(NORMAL_RANGE * turn.range),
        }  # fmt: skip
        for parameter, value in wanted.items():
            if self.settings.get(parameter) != value:
                self.library.espeak_SetParameter(parameter, value, 0)
        self.settings = wanted

    def _receive(self, samples, count, events):
        if samples and count:
            self.pieces.append(np.ctypeslib.as_array(samples, (count,)).copy())
        for number in itertools.count():
            event = events[number]
            if event.type == 0:
                return 0
            if event.type in (WORD, PHONEME):
                at = event.audio_position * RATE // 1000
                self.events.append((event.type, event.text_position - 1, at, event.string.decode()))

    def speak(self, turn):
        self._set(turn)
        self.pieces.clear()
        self.events.clear()
        data = turn.text.encode()
        self.library.espeak_Synth(data, len(data) + 1, 0, 0, 0, UTF8, None, None)
        self.library.espeak_Synchronize()
        wave = soxr.resample(np.concatenate(self.pieces) / 32768, ESPEAK_RATE, RATE)
        words = [(character, at) for kind, character, at, _ in self.events if kind == WORD]
        return Spoken(wave, words, [(at, name) for kind, _, at, name in self.events if kind == PHONEME])


class Pico:
    """SVOX Pico by NanoTTS; `speak(turn)` -> Spoken, without times."""

    def __init__(self, speaker):
        self.speaker = speaker

    def speak(self, turn):
        from py_nanotts import NanoTTS

        pitch, rate = self.speaker.pitch * turn.pitch, self.speaker.rate * turn.rate
        pcm = NanoTTS().speak(turn.text, voice="fr-FR", pitch=pitch, speed=rate)
        return Spoken(np.frombuffer(pcm, np.int16) / 32768)


def check_engines():
    """RuntimeError that says what to install, unless both engines can be imported."""
    try:
        import espeakng_loader  # noqa: F401
        import py_nanotts  # noqa: F401
    except ImportError as error:
        raise RuntimeError(INSTALL) from error


def write_clip(path, wave):
    """int16 (T,) at 16 kHz as wav, mp3 or flac, by suffix -> samples a decoder returns (mp3 adds some)."""
    container = path.suffix[1:].upper()
    with new_file(path) as temporary:
        soundfile.write(temporary, wave, RATE, format=container)
    return len(soundfile.read(path)[0]) if container == "MP3" else len(wave)


def spoken_turns(engine, turns):
    """Turns -> wave (T,), and of each turn {"start", "stop", "words", "phonemes"} in samples of it"""
    if len(turns) == 1:
        speech = engine.speak(turns[0])
        whole = {"start": 0, "stop": len(speech.wave), "words": speech.words, "phonemes": speech.phonemes}
        return speech.wave * 10 ** (turns[0].gain_db / 20), [whole]
    pieces, times, length = [], [], 0
    for turn in turns:
        speech = engine.speak(turn)
        first, last = loud(speech.wave)
        pause = np.zeros(int(turn.pause * RATE) if times else 0)
        pieces += [pause, speech.wave[first:last] * 10 ** (turn.gain_db / 20)]
        start = length + len(pause)
        length = start + last - first
        words = [(character, start + at - first) for character, at in speech.words]
        phonemes = [(start + at - first, name) for at, name in speech.phonemes]
        times.append({"start": start, "stop": length, "words": words, "phonemes": phonemes})
    return np.concatenate(pieces), times


def shifted(turn, shift, length):
    """A turn's times, `shift` samples later and inside a recording of `length` samples"""

    def move(at):
        return min(max(at + shift, 0), length)

    return {
        "start": move(turn["start"]),
        "stop": move(turn["stop"]),
        "words": [(character, move(at)) for character, at in turn["words"]],
        "phonemes": [(move(at), name) for at, name in turn["phonemes"]],
    }


def speak_chunk(chunk):
    """Writes a chunk's clips and then its marker."""
    speaker = Speaker(**chunk["speaker"])
    engine = Pico(speaker) if speaker.engine == "pico" else ESpeak(speaker)
    store = getattr(layout(chunk["corpus"]), "store", write_clip)
    measured = []
    for path, turns in chunk["clips"]:
        path = Path(path)
        rng = np.random.default_rng([chunk["seed"], zlib.crc32(path.name.encode())])
        wave, times = spoken_turns(engine, [Turn(**turn) for turn in turns])
        wave, shift = recorded(wave, speaker, rng)
        wave = wave[: len(wave) // 160 * 160]  # whole hundredths of a second: segments.txt is exact
        times = [shifted(turn, shift, len(wave)) for turn in times]
        measured.append({"samples": store(path, wave), "turns": times})
    marker = json.dumps({"key": chunk["key"], "clips": measured})
    write_atomically(Path(chunk["marker"]), marker)


def main():
    """Speaks the chunk on standard input."""
    speak_chunk(json.load(sys.stdin))
