"""The line that says how much audio an update sees and how to see as much as the recipe"""

import re

import numpy as np
import pytest
from scripts import pretrain

from lebench_sb.pretraining.batch_hours import describe_hours, nearest_factor, seconds_per_batch
from lebench_sb.pretraining.languages import BalancedPlan
from lebench_sb.training.data import StreamPlan


def test_a_batch_is_counted_without_its_padding():
    durations = np.random.default_rng(0).uniform(1, 9, 200)
    plan = StreamPlan(durations, 30.0, 0, 10, 2, 100)
    batches = plan.batches(1)
    heard = np.mean([sum(durations[i] for i, _ in batch) for batch in batches])
    assert seconds_per_batch(plan) == pytest.approx(heard, rel=0.05)
    balanced = BalancedPlan(["a"] * 20 + ["b"] * 180, 0.3, durations, 30.0, 0, 10, 2, 100)
    heard = np.mean([sum(durations[i] for i, _ in batch) for batch in balanced.batches(1)])
    assert seconds_per_batch(balanced) == pytest.approx(heard, rel=0.05)


@pytest.mark.parametrize(("world", "factor"), [(64, 1), (16, 4), (1, 64), (100, 1), (3, 21)])
def test_the_recipe_of_64_gpus_is_reached_with_any_number(world, factor):
    """fairseq's rule for its base model: update_freq 64 / k on k GPUs, of 87.5 s each"""
    assert nearest_factor(87.5, world, 64 * 87.5 / 3600) == (
        factor,
        pytest.approx(world * factor * 87.5 / 3600),
    )


def test_the_line_names_hours_target_and_factor():
    line = describe_hours(87.5, 1, 1, 1.556)
    assert line == (
        "Audio per update: 0.02431 h (1 process x grad_accumulation_factor 1 x 87.5 s); "
        "the recipe's: 1.556 h, 1.56 % of it here; --grad_accumulation_factor 64 gives 1.556 h."
    )
    assert "2 processes x grad_accumulation_factor 32" in describe_hours(87.5, 2, 32, 1.556)
    assert "no other --grad_accumulation_factor comes nearer" in describe_hours(87.5, 2, 32, 1.556)
    assert describe_hours(36.0, 1, 10, 0).endswith(
        "(1 process x grad_accumulation_factor 10 x 36.0 s); the recipe names no other."
    )


@pytest.mark.parametrize("target", [1e-4, 0.3, 5.0])
def test_no_whole_factor_comes_nearer(target):
    factor, reached = nearest_factor(70.0, 2, target)
    errors = [abs(np.log(f * 140.0 / 3600 / target)) for f in range(1, 300)]
    assert factor == 1 + int(np.argmin(errors)) and reached == pytest.approx(factor * 140.0 / 3600)


def test_a_run_says_it(root, tiny_pretraining, tmp_path):
    short = {"num_workers": 0, "number_of_updates": 2, "hours_per_update": 0.02}
    log = (pretrain(root, "mini", tiny_pretraining, tmp_path / "run", **short) / "log.txt").read_text()
    (line,) = re.findall(r"Audio per update: .*", log)
    assert "1 process x grad_accumulation_factor 2" in line and "the recipe's: 0.02 h" in line
    factor = int(re.search(r"--grad_accumulation_factor (\d+) gives", line)[1])
    short["grad_accumulation_factor"] = factor
    log = (pretrain(root, "mini", tiny_pretraining, tmp_path / "again", **short) / "log.txt").read_text()
    assert "no other --grad_accumulation_factor comes nearer" in log
