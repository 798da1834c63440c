"""CaFE as distributed: `CaFE_48k/<emotion>/<intensity>/AA-E-I-S.wav` at 48 kHz, neutral ones without the
folder of the intensity. Twelve actors (six below half of full scale), odd numbers men, say six fixed
sentences, ours, two of the six each (one below half of full scale), in all emotions and intensities.
"""

import random

import soundfile
import soxr

from lebench_sb.core.files import new_file, write_atomically
from lebench_sb.corpora.miniature.acoustics import RATE
from lebench_sb.corpora.miniature.patterns import PATTERNS
from lebench_sb.corpora.miniature.slots import Draw
from lebench_sb.corpora.miniature.speakers import speakers
from lebench_sb.corpora.miniature.texts import WORDS, Clip, Part, Turn, sentences

PARTS = {"train": Part(12, 12)}  # no official split: prepare_cafe deals the actors out
LEAST = 0.05  # of full scale: six actors, for three folds with women and men in each
STUDIO = 48000  # Hz
FOLDERS = {
    "C": "Colère", "D": "Dégoût", "J": "Joie", "N": "Neutre", "P": "Peur", "S": "Surprise", "T": "Tristesse",
}  # fmt: skip
INTENSITIES = {"1": "Faible", "2": "Fort"}
# factors on pitch, rate and range at intensity 2; WEAK as far from 1 at intensity 1
PROSODY = {
    "C": (0.85, 1.5, 1.8), "D": (0.55, 0.85, 1.4), "J": (1.45, 1.25, 2.0), "N": (1.0, 1.0, 1.0),
    "P": (1.5, 1.7, 0.3), "S": (1.5, 0.8, 2.0), "T": (0.7, 0.6, 0.2),
}  # fmt: skip
WEAK = 0.7


def clips(seed, scale):
    """The whole plan: actors, their sentences, the thirteen ways to say each"""
    source = sentences(Draw(random.Random(f"{seed}-cafe-text"), *WORDS), PATTERNS, [], set())
    fixed = [next(source) for _ in range(6)]
    every = 3 if scale >= 0.5 else 6
    counts, plan = {"F": 0, "M": 0}, []
    for speaker in speakers("cafe", "train", seed, max(scale, LEAST)):
        counts[speaker.gender] += 1
        actor = 2 * counts[speaker.gender] - (speaker.gender == "M")
        for number, sentence in enumerate(fixed, 1):
            if (counts[speaker.gender] + number) % every:
                continue
            for code in FOLDERS:
                for intensity in "1" if code == "N" else "12":
                    details = {"name": f"{actor:02d}-{code}-{intensity}-{number}"}
                    plan.append(Clip("cafe", "train", len(plan), speaker, (sentence,), details))
    return plan


def path(clip):
    """Path of a recording below the build's folder"""
    _, code, intensity, _ = clip.details["name"].split("-")
    folder = FOLDERS[code] if code == "N" else f"{FOLDERS[code]}/{INTENSITIES[intensity]}"
    return f"CaFE_48k/{folder}/{clip.details['name']}.wav"


def store(path, wave):
    """int16 (T,) at 16 kHz -> a file at 48 kHz; its length in samples at 16 kHz"""
    wide = soxr.resample(wave, RATE, STUDIO)
    with new_file(path) as temporary:
        soundfile.write(temporary, wide, STUDIO, format="WAV")
    return len(wave)


def turns(clip):
    """The sentence with the prosody of its emotion"""
    _, code, intensity, _ = clip.details["name"].split("-")
    pitch, rate, extent = (1 + (factor - 1) * (WEAK if intensity == "1" else 1) for factor in PROSODY[code])
    return [Turn(clip.text, pitch=pitch, rate=rate, range=extent)]


def write(folder, clips, recordings):
    """The distribution's note on names"""
    text = "AA-E-I-S.wav: actor (odd: man), emotion (C D J N P S T), intensity (1, 2), sentence (1 to 6)\n"
    write_atomically(folder / "CaFE_48k" / "Readme.txt", text)
