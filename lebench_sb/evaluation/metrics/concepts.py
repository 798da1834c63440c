"""Errors of spoken language understanding: concepts, concepts with their values, characters of tagged texts.

A tagged text is `words <concept> words > words ...`: an opening tag, the words that carry the concept, `>`.
Three rates, all edit distances with unit costs, pooled over utterances (errors over reference tokens):

- COER, concept error rate: over the sequence of opening tags.
- CVER, concept-value error rate: over the sequence of `<concept> words`; a concept whose words differ in
  one letter is wrong. The values are the words as transcribed (the unnormalised CVER of Laperrière et al.,
  LREC 2022).
- ChER, character error rate: over the symbols of the tagged text, an opening tag being one symbol, `>` one,
  a space one.

As SpeechBrain's `ErrorRateStats(extract_concepts_values=True, tag_in="<", tag_out=">")`, which the tests
compare with: a concept that is not closed ends at the next opening tag or at the end and keeps its words;
words outside concepts are ignored. SpeechBrain writes a text without concept as one empty token, `[""]`, and
leaves that token out of the reference length (1.1.2): an empty hypothesis for it is correct, each concept
invented there is an error. An empty list says the same.

The scorer of LeBenchmark's frozen-feature system (NeurIPS 2021) differs: one concept per chunk between its
markers (the last token known as a concept in the reference; of several the one with the lowest score), and
`null` chunks dropped on both sides. Its deviation comes from 2N resampled turns, so is too small by the
square root of 2. Its numbers and these are not to be compared to the last digit.

Letters: n utterances.
"""

import re

from lebench_sb.evaluation.metrics.errors import count_edits

OPENS, CLOSES = "<", ">"
SYMBOL = re.compile(r"<[^<>\s]+>|.")
# metric: (columns of utterances.csv with its sums)
COLUMNS = {
    "COER": ("COER_errors", "COER_concepts"),
    "CVER": ("CVER_errors", "CVER_concepts"),
    "ChER": ("ChER_errors", "ChER_symbols"),
}


def symbols(text):
    """tagged text -> its symbols: opening tags, `>`, characters, one space between words"""
    return SYMBOL.findall(" ".join(text.split()))


def concepts(text, values=False):
    """tagged text -> its opening tags in order, with `values` each followed by its words"""
    tags, inside = [], False
    for token in text.split():
        if token.startswith(OPENS):
            tags.append([token])
            inside = True
        elif token.startswith(CLOSES):
            inside = False
        elif inside:
            tags[-1].append(token)
    return [" ".join(tokens) if values else tokens[0] for tokens in tags]


def count_concepts(references, hypotheses, values=False):
    """Lists of n tagged texts -> ErrorCounts of their concepts (COER), or with `values` of concepts and words
    (CVER). ValueError: lists of different length."""
    return count_edits([concepts(t, values) for t in references], [concepts(t, values) for t in hypotheses])


def count_symbols(references, hypotheses):
    """Lists of n tagged texts -> ErrorCounts of their symbols (ChER). ValueError: lists of different
    length."""
    return count_edits([symbols(t) for t in references], [symbols(t) for t in hypotheses])


def count_all(references, hypotheses):
    """Lists of n tagged texts -> {"COER": ErrorCounts, "CVER": ..., "ChER": ...}"""
    return {
        "COER": count_concepts(references, hypotheses),
        "CVER": count_concepts(references, hypotheses, values=True),
        "ChER": count_symbols(references, hypotheses),
    }
