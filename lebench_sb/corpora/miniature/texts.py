"""Which sentences each speaker says: all of it decided from the seed, before anything is spoken.

Test sentences come first, and no later sentence (labelled or not) may be one of theirs with one word
substituted, inserted or deleted; the same holds for valid sentences. Words are taken both as an error rate
counts them and as they are written. No sentence is said twice.
"""

import random
from dataclasses import dataclass, field

from lebench_sb.corpora.miniature.grammar import realise
from lebench_sb.corpora.miniature.layouts import layout
from lebench_sb.corpora.miniature.patterns import PATTERNS
from lebench_sb.corpora.miniature.slots import Draw, phrase
from lebench_sb.corpora.miniature.speakers import Speaker, speakers

# pre-training hears one and recognition is tested on the other: their sentences are kept apart too
TOGETHER = ("commonvoice", "mls")
WORDS = (1.0, 0.1)  # exponent of Zipf's law, share of words drawn evenly from the whole list
PAUSE = 0.45  # seconds between two sentences of one utterance
LONGEST = 12.5  # seconds, estimated: some voices are a sixth slower than their rate says
DISTINCT = {"NOUN", "PROPN", "VERB"}  # words of these kinds occur once in a sentence


@dataclass(frozen=True)
class Part:
    """One split of a corpus: minutes of speech at scale 1, estimated before anything is spoken (the measured
    total is within a tenth), and its speakers."""

    minutes: float
    espeak: int
    pico: int = 0


@dataclass(frozen=True)
class Turn:
    """A stretch spoken at once. `pitch`, `rate`, `range` are factors on the speaker's own (Pico has no
    range), `gain_db` a level; `pause` is the silence before it in seconds, unless it is the first."""

    text: str
    pitch: float = 1.0
    rate: float = 1.0
    range: float = 1.0
    gain_db: float = 0.0
    pause: float = PAUSE


@dataclass(frozen=True)
class Clip:
    """One recording: what `speaker` says, `number` counts through the corpus's split; `details` are the
    layout's."""

    corpus: str
    split: str
    number: int
    speaker: Speaker
    sentences: tuple
    details: dict = field(default_factory=dict, hash=False)

    @property
    def text(self):
        return " ".join(sentence.text for sentence in self.sentences)


@dataclass(frozen=True)
class Recording:
    """What was measured of a spoken clip, in seconds from its start.

    turns: (start, stop) of each; words, phonemes: for each turn, (character of its text, start) of the words
    and (start, name) of the phonemes as eSpeak NG reports them, elided words with the word they lean on;
    empty for Pico.
    """

    seconds: float
    turns: list
    words: list
    phonemes: list


def _views(sentence):
    return sentence.words, sentence.written_words


class Neighbourhood:
    """Sentences from which others must keep at least two word edits away."""

    def __init__(self):
        self.whole, self.without, self.substituted = set(), set(), set()

    def add(self, sentence):
        for words in _views(sentence):
            self._add(words)

    def near(self, sentence):
        """Whether some sentence is at word edit distance 0 or 1."""
        return any(self._near(words) for words in _views(sentence))

    def _add(self, words):
        self.whole.add(words)
        for position in range(len(words)):
            shorter = words[:position] + words[position + 1 :]
            self.without.add(shorter)
            self.substituted.add((position, shorter))

    def _near(self, words):
        if words in self.whole or words in self.without:
            return True
        shorter = [words[:position] + words[position + 1 :] for position in range(len(words))]
        return any(s in self.whole or (position, s) in self.substituted for position, s in enumerate(shorter))


def _repeats(sentence):
    content = [token.form for token in sentence.tokens if token.upos in DISTINCT]
    return len(content) > len(set(content))


def sentences(draw, patterns, held_out, said):
    """Endless sentences, every pattern once per round in a drawn order; updates `said` (tuples of words)."""
    while True:
        for pattern in draw.rng.sample(patterns, len(patterns)):
            for _ in range(200):  # a narrow pattern may have nothing left to say
                sentence = realise(pattern, draw, phrase)
                words = sentence.words
                if (
                    not _repeats(sentence)
                    and words not in said
                    and not any(near.near(sentence) for near in held_out)
                ):
                    said.add(words)
                    yield sentence
                    break


def estimated_seconds(speaker, group):
    """Seconds of speech of `group` (sentences) as one utterance of `speaker`, before it is spoken."""
    return sum(len(s.text) for s in group) * speaker.seconds_per_letter + PAUSE * (len(group) - 1) + 0.24


def turns(clip):
    """The Turns of a clip: its layout's, or its text at once"""
    own_turns = getattr(layout(clip.corpus), "turns", None)
    return own_turns(clip) if own_turns else [Turn(clip.text)]


def clips(seed=0, scale=1.0, corpora=TOGETHER):
    """Every Clip of the `corpora`; `scale` multiplies the minutes of each part, at least one clip per
    speaker. What a corpus says does not depend on the others asked for."""
    plan = together(TOGETHER, seed, scale) if set(corpora) & set(TOGETHER) else []
    plan = [clip for clip in plan if clip.corpus in corpora]
    for corpus in corpora:
        if corpus not in TOGETHER:
            own = getattr(layout(corpus), "clips", None)
            plan += own(seed, scale) if own else together([corpus], seed, scale)
    return plan


def together(corpora, seed, scale):
    """The Clips of corpora whose test and valid sentences none of them comes near in another part"""
    held_out, said, plan = [], set(), []
    parts = [(corpus, split) for corpus in corpora for split in ("test", "dev")]
    for corpus, split in [*parts, *((corpus, "train") for corpus in corpora)]:
        layout_of = layout(corpus)
        if split not in layout_of.PARTS:
            continue
        rng = random.Random(f"{seed}-{corpus}-{split}-text")
        own = Neighbourhood()
        draw = Draw(rng, *getattr(layout_of, "WORDS", WORDS))
        source = sentences(draw, getattr(layout_of, "SAID", PATTERNS), held_out, said)
        people = speakers(corpus, split, seed, scale)
        number = 0
        for speaker in people:
            seconds, target = 0.0, 60 * layout_of.PARTS[split].minutes * scale / len(people)
            while seconds < target:
                group = utterance(layout_of, source, speaker, rng)
                seconds += estimated_seconds(speaker, group)
                plan.append(Clip(corpus, split, number, speaker, group))
                number += 1
                for sentence in group:
                    own.add(sentence)
        if split != "train":
            held_out.append(own)
    return plan


def utterance(made, source, speaker, rng):
    """The sentences of one recording of the layout `made`: one, unless it says otherwise"""
    own = getattr(made, "utterance", None)
    return own(source, speaker, rng) if own else (next(source),)
