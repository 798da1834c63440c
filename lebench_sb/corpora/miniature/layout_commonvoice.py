"""Common Voice French as distributed: `fr/{train,dev,test}.tsv` without quoting, `fr/clips/*.mp3`,
`fr/clip_durations.tsv`.

The columns are those of cv-corpus 17 and later; `client_id`, `sentence_id` are hashes as there, age and
votes are drawn.
"""

import hashlib
import random

from lebench_sb.core.files import write_atomically
from lebench_sb.corpora.miniature.patterns import PATTERNS
from lebench_sb.corpora.miniature.texts import Part

PARTS = {"train": Part(30, 22, 4), "dev": Part(4, 6), "test": Part(7, 14)}
WORDS = (4.0, 0.2)
SAID = PATTERNS[::4]
SECONDS = (1.0, 15.0)
COLUMNS = (
    "client_id",
    "path",
    "sentence_id",
    "sentence",
    "sentence_domain",
    "up_votes",
    "down_votes",
    "age",
    "gender",
    "accents",
    "variant",
    "locale",
    "segment",
)
GENDERS = {"F": "female_feminine", "M": "male_masculine"}
AGES = ("", "twenties", "thirties", "fourties", "fifties", "sixties")  # their spelling
FIRST_NUMBER = {"train": 20000000, "dev": 30000000, "test": 40000000}


def path(clip):
    """Path of a clip below the build's folder."""
    return f"fr/clips/common_voice_fr_{FIRST_NUMBER[clip.split] + clip.number}.mp3"


def row(clip):
    """The TSV row of a clip, in the order of COLUMNS."""
    client = hashlib.sha512(clip.speaker.name.encode()).hexdigest()
    rng = random.Random(clip.speaker.name)
    name, sentence = path(clip).rpartition("/")[2], clip.text
    identity = hashlib.sha256(sentence.encode()).hexdigest()
    age = AGES[rng.randrange(len(AGES))]
    return (
        client,
        name,
        identity,
        sentence,
        "",
        str(2 + clip.number % 3),
        "0",
        age,
        GENDERS[clip.speaker.gender],
        "",
        "",
        "fr",
        "",
    )


def write(folder, clips, recordings):
    """The TSVs of `clips`; `recordings[i]` is that of `clips[i]`."""
    for split in ("train", "dev", "test"):
        rows = [row(clip) for clip in clips if clip.split == split]
        _write_tsv(folder / "fr" / f"{split}.tsv", [COLUMNS, *rows])
    durations = [
        (path(clip).rpartition("/")[2], str(round(1000 * recording.seconds)))
        for clip, recording in zip(clips, recordings, strict=True)
    ]
    _write_tsv(folder / "fr" / "clip_durations.tsv", [("clip", "duration[ms]"), *durations])


def _write_tsv(file, rows):
    text = "".join("\t".join(row) + "\n" for row in rows)
    write_atomically(file, text)
