"""A FABIOLE-like test set in the layout of `lebench_sb/corpora/fabiole.py`, and a training set of other
voices as any prepared corpus leaves one: audio and a manifest.

`fabiole/wav/SPEAKER/SHOW-EXCERPT.wav`, `fabiole/trials.txt`, `fabiole/speakers.csv`;
`fabiole_training/wav/SPEAKER/SHOW-EXCERPT.wav`, `fabiole_training/train.csv`. A voice is heard in several of
ten shows, each with its own band, noise and level of it, and never speaks quite alike: else the recording
session alone would tell the speakers apart.
"""

import random

import numpy as np

from lebench_sb.core.files import write_atomically
from lebench_sb.corpora.miniature.acoustics import RATE, noise
from lebench_sb.corpora.miniature.patterns import PATTERNS
from lebench_sb.corpora.miniature.slots import Draw
from lebench_sb.corpora.miniature.speakers import speakers
from lebench_sb.corpora.miniature.texts import (
    LONGEST,
    WORDS,
    Clip,
    Neighbourhood,
    Part,
    Turn,
    estimated_seconds,
    sentences,
)
from lebench_sb.corpora.miniature.voices import write_clip
from lebench_sb.manifests.trials import make_trials
from lebench_sb.manifests.utterance import Utterance
from lebench_sb.manifests.writing import write_manifest

PARTS = {"train": Part(10, 30, 4), "test": Part(10, 32)}
LONG_FORM = (3.5, 7.0)  # seconds after which an utterance ends
# shows: lowest and highest frequency (Hz), kind of noise, its distance (dB)
SHOWS = (
    (60, 7600, "pink", 18), (300, 3400, "white", 15), (80, 6500, "babble", 10), (120, 5500, "hum", 14),
    (60, 7900, "white", 20), (200, 4500, "babble", 12), (250, 3600, "pink", 10), (60, 7000, "babble", 8),
    (150, 6000, "white", 12), (100, 5000, "pink", 14),
)  # fmt: skip
LEAST = 3  # excerpts of a speaker
MOST = 5000  # trials


def clips(seed, scale):
    """The plan, as every corpus's but with LEAST excerpts of each speaker at least, for the trials"""
    held_out, said, plan = [], set(), []
    for split in ("test", "train"):
        rng = random.Random(f"{seed}-fabiole-{split}-text")
        source = sentences(Draw(rng, *WORDS), PATTERNS, held_out, said)
        own, people, first = Neighbourhood(), speakers("fabiole", split, seed, scale), len(plan)
        for speaker in people:
            seconds, count = 0.0, 0
            while count < LEAST or seconds < 60 * PARTS[split].minutes * scale / len(people):
                group = utterance(source, speaker, rng)
                seconds, count = seconds + estimated_seconds(speaker, group), count + 1
                plan.append(Clip("fabiole", split, len(plan) - first, speaker, group))
                for sentence in group:
                    own.add(sentence)
        held_out.append(own)
    return plan


def utterance(source, speaker, rng):
    """Sentences until the utterance is long enough"""
    group, enough = [next(source)], rng.uniform(*LONG_FORM)
    while estimated_seconds(speaker, group) < enough:
        sentence = next(source)
        if estimated_seconds(speaker, [*group, sentence]) > LONGEST:
            break
        group.append(sentence)
    return tuple(group)


def name(clip):
    """`SPEAKER/SHOW-EXCERPT`, excerpts numbered through the split"""
    show = random.Random(f"{clip.speaker.name}-{clip.number}-show").randrange(len(SHOWS))
    return f"{clip.speaker.name.rpartition('-')[2].rjust(3, '0')}/show{show}-{clip.number:05d}"


def path(clip):
    """Path of a clip below the build's folder."""
    if clip.split == "test":
        return f"fabiole/wav/F{name(clip)}.wav"
    return f"fabiole_training/wav/T{name(clip)}.wav"


def turns(clip):
    """The voice as it is that day: pitch, melody and rate vary from one excerpt to the next"""
    rng = random.Random(f"{clip.speaker.name}-{clip.number}-voice")
    return [Turn(clip.text, rng.uniform(0.85, 1.2), rng.uniform(0.9, 1.12), rng.uniform(0.6, 1.4))]


def store(path, wave):
    """int16 (T,) as the show in its name broadcasts it -> samples written"""
    low, high, kind, distance = SHOWS[int(path.name.split("-")[0].removeprefix("show"))]
    rng = np.random.default_rng([ord(letter) for letter in f"{path.parent.name}/{path.name}"])
    clean = wave / 32768
    background = noise(kind, len(clean), rng)
    background *= np.sqrt(np.mean(clean**2) / np.mean(background**2)) * 10 ** (-distance / 20)
    spectrum = np.fft.rfft(clean + background)
    frequencies = np.fft.rfftfreq(len(clean), 1 / RATE)
    slopes = 1 + (low / np.maximum(frequencies, 1)) ** 4 + (frequencies / high) ** 8
    heard = np.fft.irfft(spectrum / slopes, len(clean))
    return write_clip(path, np.round(np.clip(heard, -1, 1) * 32767).astype(np.int16))


def write(folder, clips, recordings):
    """The trial list, the genders, and the manifest of the training voices."""
    made = {"train": [], "test": []}
    for clip, recording in zip(clips, recordings, strict=True):
        wav = folder / path(clip)
        text = " ".join(word for sentence in clip.sentences for word in sentence.words)
        speaker = wav.parent.name
        made[clip.split].append(
            Utterance(
                f"{speaker}/{wav.name}", str(wav), recording.seconds, speaker=speaker,
                gender=clip.speaker.gender, labels={"wrd": text},
            )
        )  # fmt: skip
    write_manifest(
        folder / "fabiole_training" / "train.csv", made["train"], folder, {}, caveats=["synthetic speech"]
    )
    trials = make_trials(made["test"], 0, MOST)
    lines = [f"{int(t)} {a} {b}" for a, b, t in zip(trials.enrol, trials.test, trials.targets, strict=True)]
    _write(folder / "fabiole" / "trials.txt", lines)
    genders = {u.speaker: u.gender for u in made["test"]}
    _write(folder / "fabiole" / "speakers.csv", ["speaker,gender", *map(",".join, sorted(genders.items()))])


def _write(file, lines):
    text = "".join(line + "\n" for line in lines)
    write_atomically(file, text)
