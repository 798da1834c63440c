"""RECOLA as AVEC 2016 distributes it: `RECOLA_2016/recordings_audio/{train,dev,test}_N.wav` and
`RECOLA_2016/ratings_gold_standard/{arousal,valence}/{train,dev,test}_N.arff`, a value every 40 ms; another
speaker in each recording. The recordings last two thirds of a minute instead of five minutes.
"""

from lebench_sb.core.files import write_atomically
from lebench_sb.corpora.miniature.prosody import generator, sentences_for, trace, turn
from lebench_sb.corpora.miniature.texts import Part

PARTS = {"train": Part(6, 9), "dev": Part(4, 6), "test": Part(6, 9)}
LENGTH = 40.0  # seconds of a recording, at least
STEP = 0.04  # seconds between two ratings
ROOT = "RECOLA_2016"
HEADER = """\
@relation GOLDSTANDARD

@attribute Instance_name string
@attribute frameTime numeric
@attribute GoldStandard numeric

@data

"""


def utterance(source, speaker, rng):
    """The sentences of one recording"""
    return sentences_for(LENGTH, source, speaker)


def name(clip):
    """`train_1`"""
    return f"{clip.split}_{clip.number + 1}"


def path(clip):
    """Path of a recording below the build's folder"""
    return f"{ROOT}/recordings_audio/{name(clip)}.wav"


def ratings(clip):
    """{dimension: a value in [-1, 1] per sentence}"""
    rng = generator(clip)
    drawn = [(rng.uniform(-0.9, 0.9), rng.uniform(-0.9, 0.9)) for _ in clip.sentences]
    return dict(zip(("arousal", "valence"), zip(*drawn, strict=True), strict=True))


def turns(clip):
    """One per sentence, with the prosody of its ratings"""
    rated, rng = ratings(clip), generator(clip)
    values = zip(clip.sentences, rated["arousal"], rated["valence"], strict=True)
    return [turn(sentence.text, arousal, valence, rng) for sentence, arousal, valence in values]


def write(folder, clips, recordings):
    """The files of ratings"""
    for clip, recording in zip(clips, recordings, strict=True):
        for dimension, values in ratings(clip).items():
            times, curve = trace(recording.turns, values, recording.seconds, STEP)
            pairs = zip(times, curve, strict=True)
            rows = "".join(f"'{name(clip)}',{time:.2f},{value:.6f}\n" for time, value in pairs)
            file = folder / ROOT / "ratings_gold_standard" / dimension / f"{name(clip)}.arff"
            file.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(file, HEADER + rows)
