"""A FABIOLE-like test set in the layout of `lebench_sb/corpora/fabiole.py`, and a training set of other
voices as any prepared corpus leaves one: audio and a manifest.

`fabiole/wav/SPEAKER/EXCERPT.wav`, `fabiole/trials.txt`, `fabiole/speakers.csv`;
`fabiole_training/wav/SPEAKER/UTTERANCE.wav`, `fabiole_training/train.csv`.
"""

import random

from lebench_sb.corpora.miniature.patterns import PATTERNS
from lebench_sb.corpora.miniature.slots import Draw
from lebench_sb.corpora.miniature.speakers import speakers
from lebench_sb.corpora.miniature.texts import (
    LONGEST,
    WORDS,
    Clip,
    Neighbourhood,
    Part,
    estimated_seconds,
    sentences,
)
from lebench_sb.corpora.miniature.voices import write_atomically
from lebench_sb.manifest import Utterance, write_manifest
from lebench_sb.trials import make_trials

PARTS = {"train": Part(12, 30, 4), "test": Part(12, 32)}
LONG_FORM = (3.5, 7.0)  # seconds after which an utterance ends
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
    """`SPEAKER/EXCERPT`, numbered through the split"""
    return f"{clip.speaker.name.rpartition('-')[2].rjust(3, '0')}/{clip.number:05d}"


def path(clip):
    """Path of a clip below the build's folder."""
    if clip.split == "test":
        return f"fabiole/wav/F{name(clip)}.wav"
    return f"fabiole_training/wav/T{name(clip)}.wav"


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
        folder / "fabiole_training" / "train.csv", made["train"], folder, {}, stamps=["synthetic speech"]
    )
    trials = make_trials(made["test"], 0, MOST)
    lines = [f"{int(t)} {a} {b}" for a, b, t in zip(trials.enrol, trials.test, trials.targets, strict=True)]
    _write(folder / "fabiole" / "trials.txt", lines)
    genders = {u.speaker: u.gender for u in made["test"]}
    _write(folder / "fabiole" / "speakers.csv", ["speaker,gender", *map(",".join, sorted(genders.items()))])


def _write(file, lines):
    text = "".join(line + "\n" for line in lines)
    write_atomically(file, lambda temporary: temporary.write_text(text, encoding="utf-8"))
