"""Part of speech and dependencies of recognised words: UPOS, UAS and LAS over aligned words.

The words of a recogniser are not those of the reference, so both are aligned first, and every word of either
side counts: N = correct + substituted + deleted + inserted, what wav2tree's variant of the CoNLL 2018 scorer
divides by (its precision, recall and F1 are one number). Where the words agree the scores are those of CoNLL
2018 (checked against `udapi` in the tests). Letters: n utterances, N aligned pairs of an utterance.

A tree is anything with `words`, `upos`, `heads` (numbers from 1, 0 for the root) and `relations`.
"""

import numpy as np

SUBSTITUTION, GAP = 4, 3  # the costs of sclite's alignment; a correct word costs nothing
SCORES = ("UPOS", "UAS", "LAS")


def align(reference, hypothesis):
    """Two sequences of words -> [(i, j), ...] in order; j is None for a deleted word, i for an inserted one.

    The alignment costs least where a substitution costs 4 and a deletion or insertion 3, as in sclite. Among
    equals, going from the last pair to the first, a pair of words comes before a deletion and a deletion
    before an insertion. Words match when they are equal in upper case.
    """
    ref, hyp = [word.upper() for word in reference], [word.upper() for word in hypothesis]
    costs = _costs(ref, hyp)
    i, j, pairs = len(ref), len(hyp), []
    while i or j:
        if i and j and costs[i][j] == costs[i - 1][j - 1] + SUBSTITUTION * (ref[i - 1] != hyp[j - 1]):
            i, j = i - 1, j - 1
            pairs.append((i, j))
        elif i and costs[i][j] == costs[i - 1][j] + GAP:
            i -= 1
            pairs.append((i, None))
        else:
            j -= 1
            pairs.append((None, j))
    return pairs[::-1]


def _costs(ref, hyp):
    """Least cost of aligning ref[:i] with hyp[:j], a list of len(ref) + 1 lists"""
    table = [[GAP * j for j in range(len(hyp) + 1)]]
    for i, word in enumerate(ref, 1):
        above, row = table[-1], [GAP * i]
        for j, said in enumerate(hyp, 1):
            diagonal = above[j - 1] + (0 if word == said else SUBSTITUTION)
            row.append(min(diagonal, above[j] + GAP, row[-1] + GAP))
        table.append(row)
    return table


def count_parses(references, systems, root_quirk=False):
    """Lists of n trees -> (n, 4) int64: UPOS, UAS and LAS hits, and N.

    A pair of aligned words is a hit of UPOS when both have the same one; of UAS when the head of the system's
    word is aligned with the head of the reference's, or both words are roots; of LAS when the relations agree
    too. Case is ignored, and a relation counts up to its colon. A substituted word can score; a deleted or
    inserted one cannot. root_quirk: as wav2tree's scorer, which counts a deleted or inserted root as a hit of
    UAS, because the padding it puts there has no head either.

    ValueError: lists of different length.
    """
    if len(references) != len(systems):
        raise ValueError(f"{len(references)} references but {len(systems)} systems: give one tree each.")
    counts = [_count(gold, system, root_quirk) for gold, system in zip(references, systems, strict=True)]
    return np.array(counts, dtype=np.int64).reshape(-1, len(SCORES) + 1)


def _count(gold, system, root_quirk):
    pairs = align(gold.words, system.words)
    partner = {j + 1: i + 1 for i, j in pairs if i is not None and j is not None} | {0: 0}
    upos = uas = las = 0
    for i, j in pairs:
        if i is None or j is None:
            head = system.heads[j] if i is None else gold.heads[i]
            uas += int(root_quirk and head == 0)
            continue
        upos += gold.upos[i].upper() == system.upos[j].upper()
        attached = partner.get(system.heads[j]) == gold.heads[i]  # None: the head is an inserted word
        uas += attached
        las += attached and kind(gold.relations[i]) == kind(system.relations[j])
    return upos, uas, las, len(pairs)


def kind(relation):
    """A relation without its subtype, in upper case: "obl:mod" -> "OBL" """
    return relation.split(":")[0].upper()
