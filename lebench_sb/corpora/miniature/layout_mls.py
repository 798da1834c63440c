"""MLS French as distributed: `mls_french/{train,dev,test}/` with audio/SPEAKER/BOOK/*.flac, transcripts.txt
and segments.txt, and `mls_french/metainfo.txt`. One book per speaker; its segments follow one another in one
imagined recording.
"""

import zlib

from lebench_sb.core.files import write_atomically
from lebench_sb.corpora.miniature.texts import LONGEST, Part, estimated_seconds

PARTS = {"train": Part(82, 22, 4), "dev": Part(3, 4), "test": Part(3, 4)}
WORDS = (0.7, 0.0)
SECONDS = (1.0, 15.0)
LONG_FORM = (5.5, 11.5)  # seconds after which an utterance ends
HEADER = "SPEAKER   | GENDER   | PARTITION  | MINUTES    |  BOOK ID   | TITLE               | CHAPTER"
TITLE = "Phrases du quotidien"


def utterance(source, speaker, rng):
    """Sentences until the utterance is long enough"""
    group = [next(source)]
    enough = rng.uniform(*LONG_FORM)
    while estimated_seconds(speaker, group) < enough:
        sentence = next(source)
        if estimated_seconds(speaker, [*group, sentence]) > LONGEST:
            break
        group.append(sentence)
    return tuple(group)


def identity(clip):
    """`SPEAKER_BOOK_nnnnnn`: numbers as in MLS, from the speaker's name."""
    number = zlib.crc32(clip.speaker.name.encode())
    return f"{100 + number % 12000}_{1000 + number // 12000 % 12000}_{clip.number:06d}"


def path(clip):
    """Path of a clip below the build's folder."""
    speaker, book, _ = identity(clip).split("_")
    return f"mls_french/{clip.split}/audio/{speaker}/{book}/{identity(clip)}.flac"


def transcript(clip):
    """Lower case without punctuation, as MLS writes it."""
    return " ".join(word for sentence in clip.sentences for word in sentence.written_words)


def write(folder, clips, recordings):
    """The text files of `clips`; `recordings[i]`, that of `clips[i]`, lasts a whole number of hundredths."""
    timed = [(clip, recording.seconds) for clip, recording in zip(clips, recordings, strict=True)]
    for split in ("train", "dev", "test"):
        part = [(clip, s) for clip, s in timed if clip.split == split]
        _write(
            folder / "mls_french" / split / "transcripts.txt",
            [f"{identity(c)}\t{transcript(c)}" for c, _ in part],
        )
        _write(folder / "mls_french" / split / "segments.txt", _segments(part))
    _write(folder / "mls_french" / "metainfo.txt", [HEADER, *_metainfo(timed)])


def _segments(part):
    ends, lines = {}, []
    for clip, seconds in part:
        speaker, book, _ = identity(clip).split("_")
        start = ends.get(speaker, 0.0)
        ends[speaker] = start + seconds
        lines.append(
            f"{identity(clip)}\thttps://example.org/{speaker}/{book}.mp3\t{start:.2f}\t{ends[speaker]:.2f}"
        )
    return lines


def _metainfo(timed):
    minutes = {}
    for clip, seconds in timed:
        speaker, book, _ = identity(clip).split("_")
        key = (speaker, clip.speaker.gender, clip.split, book)
        minutes[key] = minutes.get(key, 0.0) + seconds / 60
    for (speaker, gender, split, book), total in minutes.items():
        line = f" {speaker:<9}| {gender:<9}| {split:<11}| {total:<11.3f}| {book:<11}| {TITLE:<20}| Chapitre 1"
        yield line.ljust(len(HEADER))


def _write(file, lines):
    text = "".join(line + "\n" for line in lines)
    write_atomically(file, text)
