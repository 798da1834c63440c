"""Emotion of the miniature: values that decide the prosody of a turn, and the trace that follows them.

It is a plumbing check. A listener hears pitch, rate and level change; nobody feels anything, and a real
system could be perfect here and useless on people.
"""

import random

import numpy as np
from scipy.interpolate import PchipInterpolator

from lebench_sb.corpora.miniature.texts import Turn, estimated_seconds


def sentences_for(seconds, source, speaker):
    """Sentences from `source` until they take `seconds`, by estimate"""
    group = [next(source)]
    while estimated_seconds(speaker, group) < seconds:
        group.append(next(source))
    return tuple(group)


def generator(clip):
    """The random numbers of a clip's emotion: the same whenever it is asked for"""
    return random.Random(f"{clip.corpus}-{clip.split}-{clip.number}-{clip.speaker.name}-emotion")


def turn(text, arousal, valence, rng):
    """A Turn that sounds like arousal and valence, each in [-1, 1]: arousal is higher, faster and louder,
    valence moves more in pitch"""
    return Turn(
        text,
        pitch=1 + 0.3 * arousal + 0.05 * valence,
        rate=1 + 0.2 * arousal,
        range=1 + 0.7 * valence,
        gain_db=5 * arousal,
        pause=rng.uniform(0.2, 0.8),
    )


def trace(turns, values, seconds, step):
    """(start, stop) of each turn, its value, seconds of the recording, step -> times (N,), values (N,)

    A smooth curve through the values at the middles of the turns, constant before the first and after the
    last, never beyond its neighbours (PCHIP).
    """
    times = np.arange(0, seconds + step / 2, step)
    middles = np.array([(start + stop) / 2 for start, stop in turns])
    if len(middles) < 2:
        return times, np.full(len(times), float(values[0]))
    return times, PchipInterpolator(middles, values)(np.clip(times, middles[0], middles[-1]))
