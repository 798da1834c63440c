"""Speaks one chunk of clips; `main` runs in a fresh process for each chunk.

eSpeak NG keeps state from one sentence to the next, and initialising it again does not clear it: a clip is
only reproducible as the n-th sentence of its process. A NanoTTS object remembers too, so each clip gets its
own. The chunk comes as JSON on standard input: {"marker", "key", "seed", "speaker", "clips": [[path, text],
...]}; the clips are written first, the marker (durations in samples) last, each under a temporary name and
then renamed.
"""

import ctypes
import json
import os
import sys
import zlib
from pathlib import Path

import numpy as np
import soundfile
import soxr

from lebench_sb.corpora.miniature.acoustics import RATE, recorded
from lebench_sb.corpora.miniature.speakers import Speaker

INSTALL = (
    "The miniature's voices are missing: pip install 'lebench_sb[demo]'  (espeakng-loader and py-nanotts)"
)
ESPEAK_RATE = 22050
SYNCHRONOUS, UTF8, SPEED, PITCH = 2, 1, 1, 3  # of speak_lib.h


class ESpeak:
    """eSpeak NG by ctypes, one voice; `speak(text)` -> float (T,) at 16 kHz."""

    def __init__(self, speaker):
        import espeakng_loader

        self.library = ctypes.cdll.LoadLibrary(espeakng_loader.get_library_path())
        self.library.espeak_Initialize(SYNCHRONOUS, 0, espeakng_loader.get_data_path().encode(), 0)
        self.library.espeak_ng_SetRandSeed(ctypes.c_long(1))  # else breathy variants draw from the clock
        self.pieces = []
        kind = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)
        self.callback = kind(self._receive)  # kept: the library does not own it
        self.library.espeak_SetSynthCallback(self.callback)
        # the library takes any name for a variant and speaks without it
        known = Path(espeakng_loader.get_data_path(), "voices", "!v", speaker.variant).is_file()
        if not known or self.library.espeak_SetVoiceByName(f"fr+{speaker.variant}".encode()):
            raise ValueError(f"eSpeak NG has no voice fr+{speaker.variant}.")
        self.library.espeak_SetParameter(SPEED, int(speaker.rate), 0)
        self.library.espeak_SetParameter(PITCH, int(speaker.pitch), 0)

    def _receive(self, samples, count, _events):
        if samples and count:
            self.pieces.append(np.ctypeslib.as_array(samples, (count,)).copy())
        return 0

    def speak(self, text):
        self.pieces.clear()
        data = text.encode()
        self.library.espeak_Synth(data, len(data) + 1, 0, 0, 0, UTF8, None, None)
        self.library.espeak_Synchronize()
        return soxr.resample(np.concatenate(self.pieces) / 32768, ESPEAK_RATE, RATE)


class Pico:
    """SVOX Pico by NanoTTS; `speak(text)` -> float (T,) at 16 kHz."""

    def __init__(self, speaker):
        self.speaker = speaker

    def speak(self, text):
        from py_nanotts import NanoTTS

        pcm = NanoTTS().speak(text, voice="fr-FR", pitch=self.speaker.pitch, speed=self.speaker.rate)
        return np.frombuffer(pcm, np.int16) / 32768


def check_engines():
    """RuntimeError that says what to install, unless both engines can be imported."""
    try:
        import espeakng_loader  # noqa: F401
        import py_nanotts  # noqa: F401
    except ImportError as error:
        raise RuntimeError(INSTALL) from error


def write_atomically(path, write):
    """`write(temporary path)`, then rename, so that `path` is never half a file."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    write(temporary)
    os.replace(temporary, path)


def write_clip(path, wave):
    """int16 (T,) at 16 kHz as mp3 or flac, by suffix -> samples a decoder returns (mp3 adds some)."""
    container = path.suffix[1:].upper()
    write_atomically(path, lambda temporary: soundfile.write(temporary, wave, RATE, format=container))
    return len(soundfile.read(path)[0]) if container == "MP3" else len(wave)


def speak_chunk(chunk):
    """Writes a chunk's clips and then its marker."""
    speaker = Speaker(**chunk["speaker"])
    engine = Pico(speaker) if speaker.engine == "pico" else ESpeak(speaker)
    durations = []
    for path, text in chunk["clips"]:
        path = Path(path)
        rng = np.random.default_rng([chunk["seed"], zlib.crc32(path.name.encode())])
        wave = recorded(engine.speak(text), speaker, rng)
        wave = wave[: len(wave) // 160 * 160]  # whole hundredths of a second: segments.txt is exact
        durations.append(write_clip(path, wave))
    marker = json.dumps({"key": chunk["key"], "samples": durations})
    write_atomically(Path(chunk["marker"]), lambda temporary: temporary.write_text(marker))


def main():
    """Speaks the chunk on standard input."""
    speak_chunk(json.load(sys.stdin))
