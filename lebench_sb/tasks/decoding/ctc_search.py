"""Prefix beam search over CTC with word n-grams (Hannun et al., 2014).

SpeechBrain's CTCBeamSearcher (1.1.2) cuts its lengths off (`int(0.29 * 100)` is 28 frames) and never asks the
language model how a sentence ends, so the search is our own; without a model both agree. Letters: F frames,
V symbols, number 0 the blank.
"""

import math
from dataclasses import dataclass

import numpy as np

SPACE = " "
IMPOSSIBLE = -math.inf


@dataclass(frozen=True)
class Weights:
    """Of the language model's ln probability, and the bonus of a word"""

    model: float = 0.0
    word: float = 0.0


@dataclass(slots=True)
class Prefix:
    """What is known of a prefix beside its score: the model's state and ln probability after its last whole
    word, the number of whole words, and the word begun."""

    state: object
    told: float
    words: int
    begun: str


def search(log_probs, symbols, model=None, weights=None, beam=50, floor=-7.0, margin=15.0):
    """log_probs (F, V) of an utterance alone, natural logarithms -> its best text, words with single spaces.

    symbols: the characters 1 to V - 1; model: a LanguageModel or None; beam: prefixes kept at each frame;
    floor: symbols less likely at a frame are passed over, its best apart; margin: so much below the best,
    prefixes are given up. Scores of paths with the same text are added.
    """
    weights = Weights() if weights is None else weights
    prefixes = {"": Prefix(model.begin() if model else None, 0.0, 0, "")}
    scores = {"": (0.0, IMPOSSIBLE)}  # of paths that end in a blank, and in the prefix's last symbol
    bonus, places = {"": 0.0}, {symbol: n for n, symbol in enumerate(symbols, 1)}
    for frame in np.asarray(log_probs, dtype=np.float64):
        scores = step(scores, frame, likely(frame, floor), symbols, places)
        for prefix in scores:
            if prefix not in prefixes:
                prefixes[prefix] = extended(prefixes[prefix[:-1]], prefix[-1], model)
                bonus[prefix] = weights.model * prefixes[prefix].told + weights.word * prefixes[prefix].words
        ranked = sorted(((both(*pair) + bonus[p], p) for p, pair in scores.items()), key=order)[:beam]
        kept = [prefix for value, prefix in ranked if value >= ranked[0][0] - margin]
        scores = {prefix: scores[prefix] for prefix in kept}
        prefixes, bonus = {p: prefixes[p] for p in kept}, {p: bonus[p] for p in kept}
    return best_text(scores, prefixes, model, weights)


def order(ranked):
    """Best first; of equals the first in the alphabet"""
    return -ranked[0], ranked[1]


def likely(frame, floor):
    """Numbers of the symbols worth following, the blank always and the best at least"""
    return sorted({0, int(frame.argmax()), *np.flatnonzero(frame > floor).tolist()})


def step(scores, frame, numbers, symbols, places):
    """Scores of the prefixes after one more frame (V,); places: {symbol: its number}"""
    grown = {}
    chosen = [(symbols[n - 1], float(frame[n])) for n in numbers if n > 0]
    blank = float(frame[0])
    for prefix, (in_blank, in_symbol) in scores.items():
        total, last = both(in_blank, in_symbol), prefix[-1:]
        add(grown, prefix, total + blank, IMPOSSIBLE)
        if last:  # the same symbol goes on
            add(grown, prefix, IMPOSSIBLE, in_symbol + float(frame[places[last]]))
        for symbol, value in chosen:
            add(grown, prefix + symbol, IMPOSSIBLE, (in_blank if symbol == last else total) + value)
    return {prefix: pair for prefix, pair in grown.items() if max(pair) > IMPOSSIBLE}


def add(scores, prefix, in_blank, in_symbol):
    """Adds probabilities to those of a prefix"""
    old = scores.get(prefix, (IMPOSSIBLE, IMPOSSIBLE))
    scores[prefix] = (both(old[0], in_blank), both(old[1], in_symbol))


def both(a, b):
    """ln(e^a + e^b)"""
    high, low = (a, b) if a >= b else (b, a)
    return high if low == IMPOSSIBLE else high + math.log1p(math.exp(low - high))


def extended(prefix, symbol, model):
    """The Prefix with one more symbol: a space ends the word begun"""
    if symbol != SPACE:
        return Prefix(prefix.state, prefix.told, prefix.words, prefix.begun + symbol)
    if not prefix.begun:
        return prefix
    told, state = model.follow(prefix.state, prefix.begun) if model else (0.0, None)
    return Prefix(state, prefix.told + told, prefix.words + 1, "")


def best_text(scores, prefixes, model, weights):
    """The best text of the prefixes, with its last word and the sentence's end"""
    texts, bonus = {}, {}
    for prefix, pair in scores.items():
        text = SPACE.join(prefix.split())
        texts[text] = both(texts.get(text, IMPOSSIBLE), both(*pair))
        whole = extended(prefixes[prefix], SPACE, model)
        told = whole.told + (model.follow(whole.state, "</s>")[0] if model else 0.0)
        bonus[text] = weights.model * told + weights.word * whole.words
    return min(((value + bonus[text], text) for text, value in texts.items()), key=order)[1]
