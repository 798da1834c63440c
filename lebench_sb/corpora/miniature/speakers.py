"""The voices of the miniature.

A speaker is an engine, one of its voice variants, a pitch and a rate, plus a recording session (noise, its
level, a room, a microphone), all fixed. The gender of an eSpeak NG variant is the one its file states or its
name suggests; SVOX Pico has one French voice, a woman's, which we assume to pass for a man's below pitch
0.75. Genders are thus assumed, never perceived by a listener. Variants spoken in a test part are spoken
nowhere else.
"""

import math
import random
from dataclasses import asdict, dataclass

from lebench_sb.corpora.miniature.layouts import layout

VARIANTS = {
    "train": {
        "F": ("f1", "f2", "f3", "linda", "steph", "aunty"),
        "M": tuple("m1 m2 m3 travis Lee Andy Denis Henrique john pablo victor ed".split()),
    },
    "dev": {"F": ("f4", "steph2"), "M": ("m4", "sandro", "gustave")},
    "test": {
        "F": ("f5", "Annie", "belinda", "steph3", "grandma"),
        "M": ("m6", "m8", "michel", "m5", "robert", "paul", "m7"),
    },
}
NOISES = ("white", "pink", "babble", "hum")


@dataclass(frozen=True)
class Speaker:
    """`pitch` and `rate` in the engine's own units; `snr` in dB, `rt60` in s, `level` the rms in dB of full
    scale."""

    name: str
    gender: str
    engine: str
    variant: str
    pitch: float
    rate: float
    noise: str
    snr: float
    rt60: float
    tilt: float
    level: float

    @property
    def seconds_per_letter(self):
        """Measured on this text, without pauses; good to a tenth."""
        return 0.053 / self.rate if self.engine == "pico" else 8.5 / self.rate

    as_dict = asdict


def speakers(corpus, split, seed, scale=1.0):
    """The speakers of one split, women and men in turn; two speakers of one variant differ in pitch and rate.

    Below a tenth of full `scale` there are fewer of them: a build for tests is a matter of seconds.
    """
    part = layout(corpus).PARTS[split]
    espeak, pico = (math.ceil(count * min(1.0, 10 * scale)) for count in (part.espeak, part.pico))
    rng = random.Random(f"{seed}-{corpus}-{split}")
    names = iter(range(espeak + pico))
    first = rng.randrange(100)  # so that the parts of a corpus do not begin with the same variants
    drawn = []
    for index in range(espeak):
        gender = "FM"[index % 2]
        pool = VARIANTS[split][gender]
        variant = pool[(first + index // 2) % len(pool)]
        pitch, rate = rng.randint(35, 65), rng.randint(125, 165)
        drawn.append(
            _speaker(f"{corpus}-{split}-{next(names):02d}", gender, "espeak", variant, pitch, rate, rng)
        )
    for index in range(pico):
        gender = "FM"[index % 2]
        pitch = rng.uniform(0.85, 1.25) if gender == "F" else rng.uniform(0.6, 0.72)
        name = f"{corpus}-{split}-{next(names):02d}"
        drawn.append(
            _speaker(name, gender, "pico", "fr-FR", round(pitch, 2), round(rng.uniform(0.8, 1.0), 2), rng)
        )
    return drawn


def _speaker(name, gender, engine, variant, pitch, rate, rng):
    session = dict(
        noise=NOISES[rng.randrange(len(NOISES))],
        snr=round(rng.uniform(20, 35), 1),
        rt60=round(rng.uniform(0.05, 0.12), 2),
        tilt=round(rng.uniform(-0.4, 0.4), 2),
        level=round(rng.uniform(-30, -20), 1),
    )
    return Speaker(name, gender, engine, variant, pitch, rate, **session)
