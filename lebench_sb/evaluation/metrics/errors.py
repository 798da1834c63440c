"""Word, character and token errors of every utterance, and the rate pooled over utterances.

Letters: n utterances; N tokens in a reference, M in a hypothesis; B utterances aligned at once.
"""

from dataclasses import dataclass

import numpy as np

DENOMINATORS = {"word": "words", "char": "chars"}  # names of the reference length in utterances.csv
_EDIT = 1 << 20  # cost of a deletion or insertion; a substitution costs one more (see `_alignment_costs`)
_CELLS = 1 << 16  # cells of one row of the alignment table over a batch: half a megabyte, stays in the cache


@dataclass(frozen=True)
class ErrorCounts:
    """Integer arrays (n,), one entry per utterance."""

    substitutions: np.ndarray
    deletions: np.ndarray
    insertions: np.ndarray
    reference_length: np.ndarray

    @property
    def errors(self):
        """Edit distance of each utterance, (n,)."""
        return self.substitutions + self.deletions + self.insertions

    @property
    def statistics(self):
        """(n, 2): errors and reference length, what `rate` and `bootstrap.interval` sum."""
        return np.stack([self.errors, self.reference_length], axis=1)


def count_errors(references, hypotheses, unit="word"):
    """Lists of n texts -> ErrorCounts.

    `unit` "word" splits at white space. "char" compares the characters of the words joined by one space, so
    each space counts as one character, as in SpeechBrain's `split_tokens`
    (`speechbrain.dataio.dataio.split_word`). A character is a Unicode code point: normalise the texts
    first. An empty reference has length 0 and its hypothesis' tokens are insertions. TypeError: not a list
    of texts. ValueError: lists of different length, unknown unit.
    """
    if unit not in DENOMINATORS:
        raise ValueError(f"unit is {unit!r}. It must be one of {', '.join(map(repr, DENOMINATORS))}.")
    _check_lists(references, hypotheses)
    for name, texts in (("references", references), ("hypotheses", hypotheses)):
        wrong = next((i for i, text in enumerate(texts) if not isinstance(text, str)), None)
        if wrong is not None:
            raise TypeError(f"{name}[{wrong}] is {texts[wrong]!r}. Each entry must be an utterance's text.")
    split = str.split if unit == "word" else _characters
    return count_edits([split(text) for text in references], [split(text) for text in hypotheses])


def count_edits(references, hypotheses):
    """Lists of n sequences of tokens (hashable values; of a text, its characters) -> ErrorCounts.

    Unit costs (Levenshtein 1966). Several alignments may have the fewest edits; the split into
    substitutions, deletions and insertions is that of the alignment with the most correct tokens among
    them, whatever the order of a search.
    """
    _check_lists(references, hypotheses)
    vocabulary = {}
    refs = [[vocabulary.setdefault(token, len(vocabulary)) for token in tokens] for tokens in references]
    hyps = [[vocabulary.setdefault(token, len(vocabulary)) for token in tokens] for tokens in hypotheses]
    ref_lens = np.array([len(tokens) for tokens in refs], dtype=np.int64)
    hyp_lens = np.array([len(tokens) for tokens in hyps], dtype=np.int64)
    costs = np.zeros(len(refs), dtype=np.int64)
    for batch in _batches(ref_lens, hyp_lens):
        costs[batch] = _alignment_costs([refs[i] for i in batch], [hyps[i] for i in batch])
    errors, substitutions = costs // _EDIT, costs % _EDIT
    # deletions + insertions = errors - substitutions, and deletions - insertions = N - M
    deletions = (errors - substitutions + ref_lens - hyp_lens) // 2
    return ErrorCounts(substitutions, deletions, errors - substitutions - deletions, ref_lens)


def mean(sums):
    """Sums (..., 2) of values and counts -> mean (...,), NaN where the count is 0."""
    values, counts = np.moveaxis(np.asarray(sums, dtype=float), -1, 0)
    return np.divide(values, counts, out=np.full(values.shape, np.nan), where=counts > 0)


def rate(sums):
    """Sums (..., 2) of errors and reference tokens -> error rate in % (...,), NaN without reference token."""
    return 100 * mean(sums)


def error_rate(references, hypotheses, unit="word"):
    """WER ("word") or CER ("char") in %, pooled: all errors of the list over all its reference tokens.

    ValueError when no reference holds a token: the rate is then undefined, however many insertions there are.
    """
    counts = count_errors(references, hypotheses, unit)
    if counts.reference_length.sum() == 0:
        raise ValueError(
            f"All {len(references)} references are empty: an error rate needs at least one reference {unit}. "
            "Check the transcript column of the test manifest."
        )
    return float(rate(counts.statistics.sum(axis=0)))


def _characters(text):
    return " ".join(text.split())


def _check_lists(references, hypotheses):
    for name, values in (("references", references), ("hypotheses", hypotheses)):
        if not isinstance(values, (list, tuple)):
            raise TypeError(f"{name} is a {type(values).__name__}, it must be a list of utterances.")
    if len(references) != len(hypotheses):
        raise ValueError(
            f"{len(references)} references but {len(hypotheses)} hypotheses: "
            "give one of each per utterance, in the same order."
        )


def _batches(ref_lens, hyp_lens):
    """Index arrays that cover all utterances once, those of similar lengths together."""
    order = np.lexsort((hyp_lens, ref_lens))
    start = 0
    while start < len(order):
        width = np.maximum.accumulate(hyp_lens[order[start : start + _CELLS]]) + 1
        size = max(1, int(np.count_nonzero(width * np.arange(1, len(width) + 1) <= _CELLS)))
        yield order[start : start + size]
        start += size


def _padded(sequences, padding):
    """B lists of token numbers -> (B, longest), padded on the right."""
    table = np.full((len(sequences), max(map(len, sequences))), padding, dtype=np.int32)
    for row, tokens in zip(table, sequences, strict=True):
        row[: len(tokens)] = tokens
    return table


def _alignment_costs(refs, hyps):
    """B pairs of lists of token numbers -> (B,) least cost: edits x _EDIT + substitutions.

    Wagner & Fischer (1974), one row of the table at a time for all B pairs. Row i holds cost[i, j] - j x
    _EDIT, so that the insertions of a row, which depend on their left neighbour, become a running minimum.
    """
    ref_ids, hyp_ids = _padded(refs, -1), _padded(hyps, -2)
    ref_lens, hyp_lens = np.array([len(r) for r in refs]), np.array([len(h) for h in hyps])
    row = np.zeros((len(refs), hyp_ids.shape[1] + 1), dtype=np.int64)
    pairs = np.arange(len(refs))
    costs = row[pairs, hyp_lens]
    for i in range(ref_ids.shape[1]):
        match = ref_ids[:, i, None] == hyp_ids
        diagonal = row[:, :-1] + np.where(match, -_EDIT, 1)
        row += _EDIT
        np.minimum(row[:, 1:], diagonal, out=row[:, 1:])
        np.minimum.accumulate(row, axis=1, out=row)
        costs = np.where(ref_lens == i + 1, row[pairs, hyp_lens], costs)
    return costs + hyp_lens * _EDIT
