"""Which sentences each speaker says: all of it decided from the seed, before anything is spoken.

Test sentences come first, and no later sentence (labelled or not) may be one of theirs with one word
substituted, inserted or deleted; the same holds for valid sentences. Words are taken both as an error rate
counts them and as they are written. No sentence is said twice.
"""

import random
from dataclasses import dataclass

from lebench_sb.corpora.miniature.grammar import realise
from lebench_sb.corpora.miniature.patterns import PATTERNS
from lebench_sb.corpora.miniature.slots import Draw, phrase
from lebench_sb.corpora.miniature.speakers import Speaker, speakers

# minutes of speech (scale 1), estimated before anything is spoken; the measured total is within a tenth
MINUTES = {
    ("commonvoice", "test"): 7,
    ("commonvoice", "dev"): 4,
    ("mls", "test"): 3,
    ("mls", "dev"): 3,
    ("commonvoice", "train"): 30,
    ("mls", "train"): 82,
}
# exponent of Zipf's law, share of words drawn evenly from the whole list
WORDS = {"commonvoice": (4.0, 0.2), "mls": (0.7, 0.0)}
SAID = {"commonvoice": PATTERNS[::4], "mls": PATTERNS}
PAUSE = 0.45  # seconds between two sentences of one utterance
LONGEST = 12.5  # seconds, estimated: some voices are a sixth slower than their rate says
LONG_FORM = (5.5, 11.5)  # seconds after which an utterance of the read books ends
DISTINCT = {"NOUN", "PROPN", "VERB"}  # words of these kinds occur once in a sentence


@dataclass(frozen=True)
class Clip:
    """One utterance: what `speaker` says, `number` counts through the corpus's split."""

    corpus: str
    split: str
    number: int
    speaker: Speaker
    sentences: tuple

    @property
    def text(self):
        return " ".join(sentence.text for sentence in self.sentences)


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


def _utterance(source, speaker, corpus, rng):
    """One sentence, or for read books sentences until the utterance is long enough."""
    group = [next(source)]
    if corpus != "mls":
        return tuple(group)
    enough = rng.uniform(*LONG_FORM)
    while estimated_seconds(speaker, group) < enough:
        sentence = next(source)
        if estimated_seconds(speaker, [*group, sentence]) > LONGEST:
            break
        group.append(sentence)
    return tuple(group)


def clips(seed=0, scale=1.0):
    """Every Clip of the miniature; `scale` multiplies the minutes of each part, at least one clip per
    speaker."""
    held_out, said, plan = [], set(), []
    for (corpus, split), minutes in MINUTES.items():
        rng = random.Random(f"{seed}-{corpus}-{split}-text")
        own = Neighbourhood()
        source = sentences(Draw(rng, *WORDS[corpus]), SAID[corpus], held_out, said)
        people = speakers(corpus, split, seed, scale)
        number = 0
        for speaker in people:
            seconds, target = 0.0, 60 * minutes * scale / len(people)
            while seconds < target:
                group = _utterance(source, speaker, corpus, rng)
                seconds += estimated_seconds(speaker, group)
                plan.append(Clip(corpus, split, number, speaker, group))
                number += 1
                for sentence in group:
                    own.add(sentence)
        if split != "train":
            held_out.append(own)
    return plan
