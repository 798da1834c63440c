"""mTEDx from French as distributed: `fr-{en,es,pt}/data/{train,valid,test}/` with `wav/*.flac`, whole talks,
and `txt/SPLIT.{yaml,fr,XX}`, one segment a line. As in the real corpus fewer training talks are translated
into Spanish and Portuguese than into English; valid and test are the same talks for all.
"""

import hashlib
import shutil
from pathlib import Path

from lebench_sb.core.files import new_file, write_atomically
from lebench_sb.corpora.miniature.grammar import LANGUAGES
from lebench_sb.corpora.miniature.patterns import PATTERNS
from lebench_sb.corpora.miniature.texts import Part, Turn, estimated_seconds

PARTS = {"train": Part(14, 16, 2), "dev": Part(2, 4), "test": Part(3, 10)}
WORDS = (4.0, 0.2)  # few words, often: little speech has to teach the translation
SAID = PATTERNS[::4]
SECONDS = (1.0, 120.0)
TALK = (12.0, 25.0)  # seconds after which a talk ends
PAUSE = 0.7  # seconds between two sentences of a talk
SPLITS = {"train": "train", "dev": "valid", "test": "test"}
MISSING = {"en": (), "es": (3,), "pt": (1, 3)}  # training talks without translation, by number modulo 4


def utterance(source, speaker, rng):
    """The sentences of one talk"""
    group, enough = [next(source)], rng.uniform(*TALK)
    while estimated_seconds(speaker, group) < enough:
        group.append(next(source))
    return tuple(group)


def turns(clip):
    return [Turn(sentence.text, pause=PAUSE) for sentence in clip.sentences]


def talk(clip):
    """A name of eleven letters, as videos have; a letter first, for the speaker's other talks follow it"""
    told = hashlib.sha256(f"{clip.speaker.name} {clip.number}".encode()).hexdigest()
    return f"T{told[:10]}"


def path(clip):
    """Path of a talk below the build's folder."""
    return f"fr-en/data/{SPLITS[clip.split]}/wav/{talk(clip)}.flac"


def write(folder, clips, recordings):
    """The text files of every pair; talks that another pair has too are copied there."""
    timed = list(zip(clips, recordings, strict=True))
    for language in LANGUAGES:
        for split, theirs in SPLITS.items():
            part = [
                (clip, recording)
                for clip, recording in timed
                if clip.split == split and not (split == "train" and clip.number % 4 in MISSING[language])
            ]
            _write_split(Path(folder) / f"fr-{language}" / "data" / theirs, theirs, language, part, folder)


def _write_split(data, split, language, part, folder):
    for name in ("wav", "txt"):
        (data / name).mkdir(parents=True, exist_ok=True)
    items, french, other = [], [], []
    for clip, recording in part:
        target = data / "wav" / f"{talk(clip)}.flac"
        if not target.exists():
            with new_file(target) as temporary:
                shutil.copyfile(Path(folder) / path(clip), temporary)
        for sentence, (start, stop) in zip(clip.sentences, recording.turns, strict=True):
            times = f"duration: {stop - start:.6f}, offset: {start:.6f}"
            items.append(f"- {{{times}, speaker_id: {clip.speaker.name}, wav: {talk(clip)}.wav}}")
            french.append(sentence.text)
            other.append(sentence.translations[language])
    for kind, lines in (("yaml", items), ("fr", french), (language, other)):
        text = "".join(line + "\n" for line in lines)
        write_atomically(data / "txt" / f"{split}.{kind}", text)
