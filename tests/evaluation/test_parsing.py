"""UPOS, UAS and LAS of recognised words: worked examples, brute force over alignments, udapi's CoNLL 2018."""

import random
from types import SimpleNamespace

import numpy as np
import pytest

from lebench_sb.evaluation.metrics.parsing import GAP, SUBSTITUTION, align, count_parses


def tree(text):
    """`word/UPOS/head/relation ...` -> a tree"""
    rows = [word.split("/") for word in text.split()]
    words, upos, heads, relations = zip(*rows, strict=True) if rows else ((), (), (), ())
    return SimpleNamespace(words=words, upos=upos, heads=tuple(map(int, heads)), relations=relations)


GOLD = tree("je/PRON/2/nsubj mange/VERB/0/root une/DET/4/det pomme/NOUN/2/obj")


def counts(system, gold=GOLD, **options):
    return count_parses([gold], [tree(system)], **options)[0].tolist()


def test_the_reference_itself_is_all_right_whatever_its_case_and_subtypes():
    assert counts("JE/pron/2/NSUBJ:x mange/VERB/0/root une/DET/4/det:y pomme/NOUN/2/obj") == [4, 4, 4, 4]


def test_a_wrong_tag_a_wrong_head_and_a_wrong_relation_count_once_each():
    assert counts("je/DET/2/nsubj mange/VERB/0/root une/DET/2/det pomme/NOUN/2/iobj") == [3, 3, 2, 4]


def test_a_substituted_word_can_score_and_be_a_head():
    assert counts("je/PRON/2/nsubj range/VERB/0/root une/DET/4/det pomme/NOUN/2/obj") == [4, 4, 4, 4]


def test_a_deleted_word_misses_and_so_does_what_hangs_on_it():
    """Without "pomme", "une" hangs on the verb, where the reference has it on the deleted word"""
    assert counts("je/PRON/2/nsubj mange/VERB/0/root une/DET/2/det") == [3, 2, 2, 4]


def test_an_inserted_word_counts_and_is_nobodys_head():
    system = "je/PRON/2/nsubj mange/VERB/0/root une/DET/5/det euh/INTJ/2/obj pomme/NOUN/4/obj"
    # pomme hangs on the inserted word: one head wrong; five pairs
    assert counts(system) == [4, 3, 3, 5]


def test_the_numbers_of_words_shift_with_insertions():
    system = "euh/INTJ/3/discourse je/PRON/3/nsubj mange/VERB/0/root une/DET/5/det pomme/NOUN/3/obj"
    assert counts(system) == [4, 4, 4, 5]


DELETED_ROOT = "je/PRON/0/root une/DET/3/det pomme/NOUN/1/obj"


def test_a_deleted_root_scores_only_with_the_quirk_and_never_for_las():
    """je: root in the system, not in the reference; une: right; pomme hangs on je, not on the root"""
    assert counts(DELETED_ROOT) == [3, 1, 1, 4]
    assert counts(DELETED_ROOT, root_quirk=True) == [3, 2, 1, 4]


def test_an_inserted_root_scores_only_with_the_quirk():
    system = "euh/INTJ/0/root je/PRON/3/nsubj mange/VERB/1/dep une/DET/5/det pomme/NOUN/3/obj"
    assert counts(system) == [4, 3, 3, 5]
    assert counts(system, root_quirk=True) == [4, 4, 3, 5]


def test_nothing_recognised_and_nothing_said():
    assert counts("") == [0, 0, 0, 4] and counts("", root_quirk=True) == [0, 1, 0, 4]
    assert counts("oui/INTJ/0/root", gold=tree("")) == [0, 0, 0, 1]
    assert count_parses([], []).shape == (0, 4)
    with pytest.raises(ValueError, match="2 references but 1 systems"):
        count_parses([GOLD, GOLD], [GOLD])


# ---- the alignment


def cheapest(ref, hyp):
    """Least cost over all alignments, by recursion without a table"""
    if not ref or not hyp:
        return GAP * (len(ref) + len(hyp))
    pair = (0 if ref[0] == hyp[0] else SUBSTITUTION) + cheapest(ref[1:], hyp[1:])
    return min(pair, GAP + cheapest(ref[1:], hyp), GAP + cheapest(ref, hyp[1:]))


def test_alignments_cost_least_and_hold_every_word_once_in_order():
    rng = random.Random(0)
    for _ in range(300):
        ref, hyp = (tuple(rng.choices("abc", k=rng.randint(0, 5))) for _ in range(2))
        pairs = align(ref, hyp)
        assert [i for i, _ in pairs if i is not None] == list(range(len(ref)))
        assert [j for _, j in pairs if j is not None] == list(range(len(hyp)))
        cost = sum(GAP if None in (i, j) else SUBSTITUTION * (ref[i] != hyp[j]) for i, j in pairs)
        assert cost == cheapest(ref, hyp)


def test_the_weights_of_sclite_decide():
    """Two substitutions cost 8, a deletion and an insertion around a correct word 6"""
    assert align("ab", "bc") == [(0, None), (1, 0), (None, 1)]
    assert align(["l'", "Homme"], ["L'", "homme"]) == [(0, 0), (1, 1)]


def test_equals_are_decided_from_the_end():
    """One of two equal words is deleted: the last one stays"""
    assert align("aa", "a") == [(0, None), (1, 0)] and align("a", "aa") == [(None, 0), (0, 1)]


# ---- udapi


def random_tree(rng, n):
    heads, placed = [0] * n, []
    for word in rng.sample(range(1, n + 1), n):
        heads[word - 1] = rng.choice(placed) if placed else 0
        placed.append(word)
    tags, labels = ["NOUN", "VERB", "ADP"], ["nsubj", "obj", "obl:mod", "obl:arg", "det"]
    rows = [(rng.choice(tags), h, rng.choice(labels) if h else "root") for h in heads]
    return rows


def udapi_counts(gold, systems):
    """Correct UPOS, UAS, LAS by udapi's eval.Conll18, and the number of words"""
    udapi = pytest.importorskip("udapi")
    from udapi.block.eval.conll18 import Conll18
    from udapi.core.document import Document

    assert udapi
    document = Document()
    for trees in zip(gold, systems, strict=True):
        bundle = document.create_bundle()
        for zone, tree in zip(("gold", "pred"), trees, strict=True):
            root = bundle.create_tree(zone)
            columns = zip(tree.words, tree.upos, tree.relations, strict=True)
            nodes = [root.create_child(form=w, upos=u, deprel=r) for w, u, r in columns]
            for node, head in zip(nodes, tree.heads, strict=True):
                node.parent = nodes[head - 1] if head else root
    block = Conll18(print_results=False)
    for bundle in document.bundles:
        block.process_tree(bundle.get_tree("pred"))
    total = block.total_count
    return [total["UPOS"], total["UAS"], total["LAS"], total["gold"]]


def test_equal_to_conll_2018_where_the_words_agree():
    rng = random.Random(1)
    gold, systems = [], []
    for _ in range(150):
        n = rng.randint(1, 12)
        words = [rng.choice(["le", "chat", "dort", "ici", "la"]) for _ in range(n)]
        for trees in (gold, systems):
            rows = [f"{w}/{tag}/{h}/{label}" for w, (tag, h, label) in
                    zip(words, random_tree(rng, n), strict=True)]  # fmt: skip
            trees.append(tree(" ".join(rows)))
    ours = count_parses(gold, systems).sum(axis=0).tolist()
    assert ours == udapi_counts(gold, systems) and 0 < ours[2] < ours[1] < ours[3]
    assert count_parses(gold, gold).sum(axis=0).tolist() == [ours[3]] * 4
    quirk = count_parses(gold, systems, root_quirk=True)
    np.testing.assert_array_equal(quirk, count_parses(gold, systems))  # no deletion, no insertion: no quirk


def test_sums_of_utterances_are_what_the_bootstrap_resamples():
    parts = count_parses([GOLD, GOLD], [tree(DELETED_ROOT), GOLD])
    assert parts.tolist() == [[3, 1, 1, 4], [4, 4, 4, 4]]
