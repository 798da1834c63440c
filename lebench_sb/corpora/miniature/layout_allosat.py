"""AlloSat as distributed: `AlloSat_corpus/audio/*.wav` (telephone speech at 8 kHz),
`AlloSat_corpus/annotations/labels/*.csv` (semicolons; time and satisfaction every 250 ms) and
`AlloSat_corpus/{train,dev,test}.txt`. A call lasts half a minute to a minute instead of seven minutes.
"""

import soundfile
import soxr

from lebench_sb.core.files import new_file, write_atomically
from lebench_sb.corpora.miniature.acoustics import RATE
from lebench_sb.corpora.miniature.prosody import generator, sentences_for, trace, turn
from lebench_sb.corpora.miniature.texts import Part

PARTS = {"train": Part(6, 9), "dev": Part(4, 6), "test": Part(6, 10)}
LENGTH = 36.0  # seconds of a call, at least
STEP = 0.25  # seconds between two ratings
TELEPHONE = 8000  # Hz
ROOT = "AlloSat_corpus"


def utterance(source, speaker, rng):
    """The sentences of one call"""
    return sentences_for(LENGTH * rng.uniform(1.1, 1.4), source, speaker)


def name(clip):
    """`call_0001`: numbers go through train, dev and test"""
    first = {"train": 0, "dev": 4000, "test": 6000}[clip.split]
    return f"call_{first + clip.number + 1:04d}"


def path(clip):
    """Path of a call below the build's folder"""
    return f"{ROOT}/audio/{name(clip)}.wav"


def store(path, wave):
    """int16 (T,) at 16 kHz -> a file at 8 kHz; its length in samples at 16 kHz"""
    narrow = soxr.resample(wave, RATE, TELEPHONE)
    with new_file(path) as temporary:
        soundfile.write(temporary, narrow, TELEPHONE, format="WAV")
    return len(narrow) * RATE // TELEPHONE


def satisfaction(clip):
    """A value in [-1, 1] per sentence: callers waver, and end more frustrated than they began"""
    rng, count = generator(clip), len(clip.sentences)
    return [0.2 - 0.4 * k / count + rng.uniform(-0.75, 0.75) for k in range(count)]


def turns(clip):
    """One per sentence: frustration sounds aroused"""
    rng = generator(clip)
    values = zip(clip.sentences, satisfaction(clip), strict=True)
    return [turn(sentence.text, -value, value, rng) for sentence, value in values]


def write(folder, clips, recordings):
    """The files of ratings and the three lists"""
    labels = folder / ROOT / "annotations" / "labels"
    labels.mkdir(parents=True, exist_ok=True)
    for clip, recording in zip(clips, recordings, strict=True):
        times, curve = trace(recording.turns, satisfaction(clip), recording.seconds, STEP)
        rows = "".join(f"{time:.2f};{value:.6f}\n" for time, value in zip(times, curve, strict=True))
        _write(labels / f"{name(clip)}.csv", "time;satisfaction\n" + rows)
    for split in PARTS:
        names = "".join(f"{name(clip)}\n" for clip in clips if clip.split == split)
        _write(folder / ROOT / f"{split}.txt", names)


def _write(file, text):
    write_atomically(file, text)
