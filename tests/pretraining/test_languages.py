"""Language-balanced sampling: shares by the formula, each utterance in turn, the same in every process"""

from collections import Counter

import numpy as np
import pytest
from scripts import pretrain

from lebench_sb.core.errors import UsageError
from lebench_sb.manifests.reading import read_manifest
from lebench_sb.manifests.writing import write_manifest
from lebench_sb.pretraining.languages import BalancedPlan, check_exponent, shares
from lebench_sb.training.data import PlannedLoader

COUNTS = {"fr": 900, "de": 90, "br": 10}
LANGUAGES = [name for name, count in COUNTS.items() for _ in range(count)]
DURATIONS = np.random.default_rng(0).uniform(1.0, 9.0, len(LANGUAGES))


def plan(exponent, updates=200):
    return BalancedPlan(LANGUAGES, exponent, DURATIONS, 40.0, 7, 20, 2, updates)


def heard(batches):
    """-> {language: seconds}"""
    seconds = Counter()
    for batch in batches:
        for position, _ in batch:
            seconds[LANGUAGES[position]] += DURATIONS[position]
    return seconds


def formula(exponent):
    """p_l ~ (n_l / N) ** exponent, n_l seconds of language l"""
    n = {name: sum(d for d, own in zip(DURATIONS, LANGUAGES, strict=True) if own == name) for name in COUNTS}
    powers = {name: (seconds / sum(n.values())) ** exponent for name, seconds in n.items()}
    return {name: power / sum(powers.values()) for name, power in powers.items()}


@pytest.mark.parametrize("exponent", [0.0, 0.3, 0.5, 1.0])
def test_the_audio_of_a_pass_has_the_shares_of_the_formula(exponent):
    one = plan(exponent)
    for number in (1, 2, 5):
        seconds = heard(one.indexed(one.one_pass(number), number))
        total = sum(seconds.values())
        assert total == pytest.approx(DURATIONS.sum(), rel=0.01)
        for name, share in formula(exponent).items():
            assert seconds[name] == pytest.approx(share * total, abs=10.0), "no nearer than one utterance"


def test_the_updates_have_them_too():
    seconds = heard(batch for epoch in range(1, 11) for batch in plan(0.5).batches(epoch))
    for name, share in formula(0.5).items():
        assert seconds[name] / sum(seconds.values()) == pytest.approx(share, abs=0.03)


def test_shares_of_equal_languages_are_equal_whatever_the_exponent():
    assert shares(np.array([5.0, 5.0]), 0.5).tolist() == [0.5, 0.5]
    assert shares(np.array([9.0, 1.0]), 0.5).tolist() == pytest.approx([0.75, 0.25])


def test_no_utterance_is_heard_again_before_the_others_of_its_language():
    one, counts = plan(0.5), Counter()
    for number in range(1, 8):
        for batch in one.indexed(one.one_pass(number), number):
            counts.update(position for position, _ in batch)
    for name in COUNTS:
        own = [counts[i] for i, language in enumerate(LANGUAGES) if language == name]
        assert max(own) - min(own) <= 1, name


def test_an_utterance_that_comes_twice_in_a_pass_is_cropped_twice():
    one = plan(0.0)
    items = [item for batch in one.indexed(one.one_pass(1), 1) for item in batch]
    assert len(set(items)) == len(items) > len({position for position, _ in items if position >= 990}) * 3


def test_a_pass_depends_on_seed_and_number_alone():
    first, other = plan(0.5), plan(0.5)
    in_order = [first.batches(epoch) for epoch in range(1, 11)]
    assert [other.batches(epoch) for epoch in (9, 2, 5)] == [in_order[k - 1] for k in (9, 2, 5)]
    loaders = [PlannedLoader(None, plan(0.5), rank, 2) for rank in (0, 1)]
    assert [
        batch for pair in zip(*(one.share(3) for one in loaders), strict=True) for batch in pair
    ] == in_order[2]
    changed = BalancedPlan(LANGUAGES, 0.5, DURATIONS, 40.0, 8, 20, 2, 200)
    assert changed.batches(1) != in_order[0]


@pytest.mark.parametrize("wrong", [-0.1, 1.5, float("nan")])
def test_another_exponent_is_a_usage_mistake(wrong):
    with pytest.raises(UsageError, match="--language_exponent .* between 0"):
        check_exponent(wrong)


def test_a_run_balances_its_languages(root, corpus, tiny_pretraining, tmp_path):
    train = read_manifest(corpus / "train.csv", corpus)
    languages = {u.id: "br" if number < 2 else "fr" for number, u in enumerate(train)}
    mixed = [u.__class__(**{**vars(u), "language": languages[u.id]}) for u in train]
    write_manifest(tmp_path / "train.csv", mixed, corpus, {})
    words = [str(tmp_path / "train.csv") if w == str(corpus / "train.csv") else w for w in tiny_pretraining]
    logs = {}
    for exponent in (1.0, 0.0):
        options = {"num_workers": 0, "number_of_updates": 2, "language_exponent": exponent}
        folder = pretrain(root, "mini", words, tmp_path / str(exponent), **options)
        logs[exponent] = (folder / "log.txt").read_text()
        assert len((folder / "steps.jsonl").read_text().splitlines()) == 3
    assert "by language" not in logs[1.0] and "-> 50 %, fr" in logs[0.0] and "br" in logs[0.0]
