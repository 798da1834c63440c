"""Prefix beam search against the sum over all paths, with and without n-grams, and against SpeechBrain's."""

import itertools
import math

import numpy as np
import pytest
import torch

from lebench_sb.tasks.decoding.ctc_search import Weights, search
from lebench_sb.tasks.decoding.language_model import BEGIN, END, estimate

SYMBOLS = [" ", "a", "b"]


class Model:
    """The interface of LanguageModel on an estimate, without KenLM: a state is the words so far"""

    def __init__(self, texts):
        self.grams = estimate(texts, 2)

    def begin(self):
        return [BEGIN]

    def follow(self, state, word):
        return self.grams.score(state, word) * math.log(10), [*state, word]


def frames(seed, length=5, sharpness=1.0):
    logits = np.random.default_rng(seed).standard_normal((length, 4)) * sharpness
    return logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)


def all_texts(log_probs):
    """{text: probability of all the paths that say it}"""
    found = {}
    for path in itertools.product(range(4), repeat=len(log_probs)):
        symbols = [k for k, _ in itertools.groupby(path)]
        text = " ".join("".join(SYMBOLS[k - 1] for k in symbols if k).split())
        value = math.exp(sum(log_probs[t][k] for t, k in enumerate(path)))
        found[text] = found.get(text, 0.0) + value
    return found


@pytest.mark.parametrize("seed", range(12))
def test_without_a_model_the_likeliest_text_of_all_paths(seed):
    log_probs = frames(seed)
    texts = all_texts(log_probs)
    assert sum(texts.values()) == pytest.approx(1.0)
    best = max(texts, key=texts.get)
    assert search(log_probs, SYMBOLS, beam=10_000, floor=-math.inf, margin=math.inf) == best


@pytest.mark.parametrize("seed", range(12))
def test_with_a_model_the_best_sum_of_both(seed):
    model = Model(["a b", "ab a", "b", "a b a", "ba"])
    log_probs, weights = frames(seed), Weights(0.8, 0.5)
    totals = {}
    for text, value in all_texts(log_probs).items():
        state, told = model.begin(), 0.0
        for word in [*text.split(), END]:
            step, state = model.follow(state, word)
            told += step
        totals[text] = math.log(value) + 0.8 * told + 0.5 * len(text.split())
    best = max(totals, key=totals.get)
    assert search(log_probs, SYMBOLS, model, weights, beam=10_000, floor=-math.inf, margin=math.inf) == best


def test_a_model_chooses_between_texts_that_sound_alike():
    model = Model(["a b"] * 3 + ["b b", "ab"])
    log_probs = np.log(np.array([[0.1, 0.0, 0.44, 0.46], [0.1, 0.9, 0, 0], [0.1, 0, 0, 0.9]]) + 1e-9)
    assert search(log_probs, SYMBOLS) == "b b"
    assert search(log_probs, SYMBOLS, model, Weights(1.0)) == "a b"


@pytest.mark.parametrize("seed", range(8))
def test_speechbrain_finds_the_same_without_a_model(seed):
    from speechbrain.decoders.ctc import CTCBeamSearcher

    searcher = CTCBeamSearcher(
        0,
        ["<blank>", *SYMBOLS],
        beam_size=500,
        beam_prune_logp=-1e4,
        token_prune_min_logp=-1e4,
        prune_history=False,
    )
    log_probs = frames(seed, 8, 2.0)
    theirs = searcher(torch.tensor(log_probs)[None])[0][0].text
    assert search(log_probs, SYMBOLS, beam=500, floor=-1e4, margin=1e4) == theirs


def test_no_frames_and_certain_frames():
    assert search(np.zeros((0, 4)), SYMBOLS) == ""
    certain = np.full((7, 4), -math.inf)
    for t, k in enumerate([2, 2, 0, 2, 1, 3, 3]):
        certain[t, k] = 0.0
    assert search(certain, SYMBOLS) == "aa b"
