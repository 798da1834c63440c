"""Error counts against jiwer, SpeechBrain and a definition by recursion."""

from functools import cache

import jiwer
import numpy as np
import pytest
from speechbrain.dataio.dataio import split_word
from speechbrain.utils.edit_distance import wer_details_for_batch

from lebench_sb.evaluation.metrics.errors import count_edits, count_errors, error_rate, rate

# few letters, so that words often agree; accents, apostrophes, a ligature, a combining accent, an emoji
LETTERS = list("aé'’œz\u0301😀")


def random_text(rng):
    """0 to 9 words of 1 to 4 letters; one text in five is empty."""
    words = rng.integers(1, 10) if rng.random() > 0.2 else 0
    return " ".join("".join(rng.choice(LETTERS, rng.integers(1, 5))) for _ in range(words))


def random_lists(seed, n=400):
    """n references and n hypotheses; every second hypothesis repeats most words of its reference."""
    rng = np.random.default_rng(seed)
    references = [random_text(rng) for _ in range(n)]
    hypotheses = [random_text(rng) for _ in range(n)]
    for i in range(0, n, 2):
        kept = [word for word in references[i].split() if rng.random() > 0.2]
        hypotheses[i] = " ".join(kept + hypotheses[i].split()[:2])
    return references, hypotheses


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    "unit, process, pooled",
    [("word", jiwer.process_words, jiwer.wer), ("char", jiwer.process_characters, jiwer.cer)],
)
def test_errors_equal_jiwer(unit, process, pooled, seed):
    references, hypotheses = random_lists(seed)
    counts = count_errors(references, hypotheses, unit)
    outputs = [process([ref], [hyp]) for ref, hyp in zip(references, hypotheses, strict=True)]
    assert counts.errors.tolist() == [o.substitutions + o.deletions + o.insertions for o in outputs]
    assert counts.reference_length.tolist() == [o.hits + o.substitutions + o.deletions for o in outputs]
    shift = counts.insertions - counts.deletions
    assert shift.tolist() == [o.insertions - o.deletions for o in outputs]
    assert error_rate(references, hypotheses, unit) == pytest.approx(100 * pooled(references, hypotheses))


def test_characters_equal_speechbrain_split_tokens():
    def characters(texts):
        return split_word([text.split() for text in texts])

    references, hypotheses = random_lists(9)
    details = wer_details_for_batch(range(len(references)), characters(references), characters(hypotheses))
    counts = count_errors(references, hypotheses, "char")
    assert counts.reference_length.tolist() == [row["num_ref_tokens"] for row in details]
    expected = [row["insertions"] + row["deletions"] + row["substitutions"] for row in details]
    assert counts.errors.tolist() == expected


def fewest_edits(reference, hypothesis):
    """(edits, substitutions) of the best alignment, by trying all of them."""

    @cache
    def best(i, j):
        if i == 0 or j == 0:
            return (i + j, 0)
        edits, substitutions = best(i - 1, j - 1)
        change = int(reference[i - 1] != hypothesis[j - 1])
        ways = [(edits + change, substitutions + change)]
        ways += [(e + 1, s) for e, s in (best(i - 1, j), best(i, j - 1))]
        return min(ways)

    return best(len(reference), len(hypothesis))


def test_split_keeps_the_most_correct_tokens():
    rng = np.random.default_rng(1)
    references = ["".join(rng.choice(list("abc"), rng.integers(10))) for _ in range(500)]
    hypotheses = ["".join(rng.choice(list("abc"), rng.integers(10))) for _ in range(500)]
    pairs = list(zip(references, hypotheses, strict=True))
    counts = count_edits(references, hypotheses)
    found = list(zip(counts.errors.tolist(), counts.substitutions.tolist(), strict=True))
    assert found == [fewest_edits(ref, hyp) for ref, hyp in pairs]
    assert min(counts.deletions.min(), counts.insertions.min()) >= 0


def test_batches_change_nothing():
    """Utterances of 0 to 3,000 characters in one call give what each gives alone."""
    rng = np.random.default_rng(3)
    lengths = [0, 1, 3000, 40, 0, 700, 41, 2]
    references = ["".join(rng.choice(list("abcd "), size)) for size in lengths]
    hypotheses = ["".join(rng.choice(list("abcd "), size)) for size in reversed(lengths)]
    together = count_errors(references, hypotheses, "char")
    alone = [count_errors([r], [h], "char") for r, h in zip(references, hypotheses, strict=True)]
    assert together.statistics.tolist() == [counts.statistics[0].tolist() for counts in alone]
    order = rng.permutation(len(lengths))
    shuffled = count_errors([references[i] for i in order], [hypotheses[i] for i in order], "char")
    assert shuffled.statistics.tolist() == together.statistics[order].tolist()


def test_each_space_is_one_character():
    assert count_errors(["le chat"], ["lechat"], "char").statistics.tolist() == [[1, 7]]
    assert count_errors([" le   chat "], ["le chat"], "char").statistics.tolist() == [[0, 7]]


def test_empty_reference_counts_its_insertions():
    counts = count_errors(["", "oui"], ["euh bon", "oui"])
    assert counts.insertions.tolist() == [2, 0]
    assert counts.reference_length.tolist() == [0, 1]
    assert error_rate(["", "oui"], ["euh bon", "oui"]) == 200.0


def test_tokens_may_be_concepts():
    counts = count_edits([["<date>", "<lieu>"], [("nombre", "deux")]], [["<lieu>"], [("nombre", "trois")]])
    assert counts.statistics.tolist() == [[1, 2], [1, 1]]
    assert counts.deletions.tolist() == [1, 0]


@pytest.mark.parametrize("references, hypotheses", [([""], ["oui"]), (["", "  "], ["", ""]), ([], [])])
def test_no_reference_word_is_refused(references, hypotheses):
    with pytest.raises(ValueError, match=f"{len(references)} references are empty"):
        error_rate(references, hypotheses)


def test_lengths_are_named():
    with pytest.raises(ValueError, match="2 references but 1 hypotheses"):
        count_errors(["a", "b"], ["a"])


@pytest.mark.parametrize(
    "references, hypotheses", [("oui", ["oui"]), (["oui"], "oui"), ({"oui"}, ["oui"]), (None, [])]
)
def test_what_is_not_a_list_is_refused(references, hypotheses):
    with pytest.raises(TypeError, match="must be a list"):
        count_errors(references, hypotheses)


def test_what_is_not_a_text_is_refused():
    with pytest.raises(TypeError, match=r"hypotheses\[1\] is None"):
        count_errors(["a", "b"], ["a", None])
    with pytest.raises(TypeError, match=r"references\[0\] is \['a'\]"):
        count_errors([["a"]], ["a"])
    with pytest.raises(ValueError, match="'phone'"):
        count_errors(["a"], ["a"], "phone")


def test_rate_of_no_reference_is_not_a_number():
    assert rate([[3, 12], [0, 0]])[0] == 25.0
    assert np.isnan(rate([2, 0]))
