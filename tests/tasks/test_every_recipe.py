"""What every recipe promises, whatever its task: what is trained and clipped, which rate, which checkpoint,
and that an utterance's score does not depend on its batch."""

import functools
import os
import re

import numpy as np
import pytest
import torch
from tiny import write_wav2vec2
from watched_runs import (
    MAX_NORM,
    MODES,
    NO_SSL,
    SMALL,
    has_data,
    lines,
    name_of,
    recipes,
    recognise,
    run,
    same,
    score_test,
    words,
    write_data,
)

from lebench_sb.encoders.encoder import SSLEncoder
from lebench_sb.evaluation import plots
from lebench_sb.tasks import emotion_continuous
from lebench_sb.training.brain import TEST

# merits of the three epochs on valid: the higher the better
IMPROVING, WORSENING, MIDDLE = (1.0, 2.0, 3.0), (3.0, 2.0, 1.0), (1.0, 3.0, 2.0)
RECIPES = [path for path in recipes() if has_data(path)]
# Biases that are taken away again, by batch normalisation or by the softmax of an attention over its keys:
# their gradient is 0 but for rounding, which need not reach them.
CANCELLED = re.compile(r"\.((blocks|dnns)\.\d+\.linear|k_proj|own\.key|source\.key)\.bias$")
SCALES = re.compile(r"encoder\.layers\.1\.final_layer_norm\.(weight|bias)$")  # of the last layer's features
every_recipe = pytest.mark.parametrize("path", RECIPES, ids=name_of)
every_mode = pytest.mark.parametrize(
    ("path", "mode"),
    [(path, mode) for path in RECIPES for mode in MODES if mode == "frozen" or path.stem not in NO_SSL],
    ids=lambda value: value if isinstance(value, str) else name_of(value),
)


@pytest.fixture(scope="module")
def encoder_folder(tmp_path_factory):
    """A group-norm wav2vec 2.0 with random weights"""
    # at the usual range of 0.02 attention is uniform: padding would hardly be seen
    return write_wav2vec2(tmp_path_factory.mktemp("encoder"), initializer_range=0.25)


@pytest.fixture(scope="module")
def data(corpus, tmp_path_factory):
    """Folder of recordings and of manifests with every label"""
    folder = tmp_path_factory.mktemp("labelled")
    write_data(corpus, folder)
    return folder


@pytest.fixture(scope="module")
def watched(data, encoder_folder, tmp_path_factory):
    """watched(path, mode, merits) -> the Watched run of a recipe, made once"""

    @functools.cache
    def made(path, mode, merits):
        if path.stem == "cascade":
            recognise(path, data, encoder_folder)
        output = tmp_path_factory.mktemp(path.stem)
        return run(path, words(path, mode, data, encoder_folder, output), merits)

    with pytest.MonkeyPatch.context() as patch:  # what takes its time and is tested elsewhere
        patch.setattr(os, "fsync", lambda _: None)
        patch.setattr(plots, "confusion_matrix", lambda *_: None)
        patch.setattr(plots, "det_curve", lambda *_: None)
        yield made


def test_every_recipe_is_tested_here():
    missing = [name_of(path) for path in recipes() if not has_data(path)]
    assert not missing, f"say in watched_runs.SMALL how to make these small, and with which labels: {missing}"
    assert set(SMALL) == {(path.parts[-4], path.stem) for path in RECIPES}


def first_run(watched, path, mode):
    return watched(path, mode, IMPROVING if mode == "frozen" else MIDDLE)


@every_mode
def test_one_update_moves_what_is_trained_and_nothing_else(watched, path, mode):
    """Moved by a gradient, not by weight decay alone"""
    made = first_run(watched, path, mode)
    named = dict(made.brain.modules.named_parameters())
    encoder, cancelled = made.brain.modules.encoder, [CANCELLED]
    if encoder.frame_norm == "cmvn" and encoder.layer == "last":
        cancelled.append(SCALES)
    named = {n: p for n, p in named.items() if not (p.requires_grad and any(c.search(n) for c in cancelled))}
    trained = {name: p.requires_grad for name, p in named.items()}
    moved = {name: not torch.equal(made.after[name], made.before[name]) for name in named}
    felt = {name: name in made.gradients and bool(made.gradients[name].any()) for name in named}
    assert felt == trained
    assert moved == trained
    names = [name for name, is_trained in trained.items() if is_trained]
    assert any(name.startswith("encoder.model") for name in names) == (mode == "end-to-end")
    assert any(not name.startswith("encoder") for name in names)
    frozen = [name for name in trained if not trained[name]]
    assert same({name: made.before[name] for name in frozen}, made.states[TEST])


@every_mode
def test_the_gradients_of_all_groups_are_clipped_together(watched, path, mode):
    made = first_run(watched, path, mode)
    assert len(made.norms) == made.brain.total_updates
    assert max(made.norms) <= MAX_NORM * 1.0001
    assert min(line["grad_norm"] for line in lines(made, "train")) > MAX_NORM  # before clipping


@every_recipe
def test_scores_on_valid_change_no_learning_rate(watched, path):
    better, worse = (watched(path, "frozen", merits) for merits in (IMPROVING, WORSENING))
    key = better.brain.hparams.key_metric
    scores = [[line[key] for line in lines(made, "valid")] for made in (better, worse)]
    assert scores[0] == scores[1][::-1] and len(set(scores[0])) == 3
    rates = [[line["lr"] for line in lines(made, "train")] for made in (better, worse)]
    brain = better.brain
    peak = max(peak for peak, _ in brain.peaks)
    updates = range(1, brain.total_updates + 1)
    assert rates[0] == [peak * brain.hparams.schedule(u, brain.total_updates) for u in updates]
    assert rates[0] == rates[1]


@pytest.mark.parametrize(
    ("mode", "merits", "best"),
    [("frozen", IMPROVING, 3), ("frozen", WORSENING, 1), ("end-to-end", MIDDLE, 2)],
    ids=["the last", "the first", "the middle"],
)
@every_recipe
def test_the_epoch_best_on_valid_is_tested(watched, path, mode, merits, best):
    made = watched(path, "frozen" if path.stem in NO_SSL else mode, merits)
    assert set(made.states) == {1, 2, 3, TEST}
    assert [same(made.states[epoch], made.states[TEST]) for epoch in (1, 2, 3)] == [
        epoch == best for epoch in (1, 2, 3)
    ]


@every_recipe
def test_the_declared_direction_is_that_of_the_metric(watched, path):
    made = watched(path, "frozen", IMPROVING)
    brain, entries = made.brain, made.brain.intervals(made.rows)
    better = {name: entry["better"] for name, entry in entries.items()} | {"loss": "lower"}
    assert brain.hparams.key_metric_is_better == better[brain.hparams.key_metric]


@every_recipe
@pytest.mark.parametrize("way", ["by length", "padded"])
def test_a_padded_batch_scores_as_its_utterances_do(watched, path, way, monkeypatch):
    """Rows and mean loss. By length is how a CPU encodes, padded is how an accelerator does"""
    if way == "padded":
        monkeypatch.setattr(SSLEncoder, "_pads", lambda encoder, _: encoder._can_pad)
    made = watched(path, "frozen", IMPROVING)
    rows, loss, calls = score_test(made, 1000.0)
    monkeypatch.setattr(emotion_continuous, "AT_ONCE", 0.0)  # chunks of a recording, which is a batch there
    alone, loss_alone, more_calls = score_test(made, 0.1)
    assert calls < more_calls
    assert_alike(loss, loss_alone, "loss")
    for row, expected in zip(rows, alone, strict=True):
        assert row.keys() == expected.keys()
        for key, value in row.items():
            assert_alike(value, expected[key], key)


def assert_alike(value, expected, name):
    """Numbers and embeddings but for rounding, everything else equal"""
    if isinstance(value, (float, np.ndarray)):
        np.testing.assert_allclose(value, expected, rtol=1e-4, atol=1e-5, err_msg=name)
    else:
        assert value == expected, name
