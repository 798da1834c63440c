"""Curves, page, probes and rank say what the run did, by independent reckonings."""

import base64
import json
import math
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import Ridge
from test_model import GROUP, LAYER, make_batch, make_model

from lebench_sb.core.errors import UsageError
from lebench_sb.manifests.utterance import Utterance
from lebench_sb.pretraining.masking import chance_hits, draw_negatives
from lebench_sb.pretraining.monitor.dashboard import write_dashboard
from lebench_sb.pretraining.monitor.health import Curve, Curves, Facts, Monitor, read_lines
from lebench_sb.pretraining.monitor.probes import (
    FOLDS,
    Probe,
    cross_validated,
    effective_rank,
    fold_numbers,
    ridge,
)
from lebench_sb.pretraining.monitor.watch import Watch

STAGES = ("train", "valid")
FACTS = Facts(num_groups=2, num_codes=320, num_negatives=100, number_of_updates=1000, hidden_size=16)


def line(step, stage="train", **figures):
    usual = {
        "accuracy": 20.0, "contrastive": 3.0, "perplexity_0": 150.0, "perplexity_1": 160.0, "audio_s": 36.0,
        "audio_per_s": 36.0, "waiting_share": 1.0, "grad_norm": 1.0,
    }  # fmt: skip
    return {"step": step, "stage": stage, **usual, **figures}


def monitored(lines, facts=FACTS):
    monitor = Monitor(facts)
    return monitor, [alarm for one in lines for alarm in monitor.add(one)]


# ---- curves


@settings(max_examples=30, deadline=None)
@given(count=st.integers(1, 3000), points=st.integers(1, 40))
def test_a_curve_is_short_and_keeps_the_mean(count, points):
    curve = Curve(points)
    for step in range(1, count + 1):
        curve.add(step, float(step % 7))
    assert len(curve.values) < 2 * points
    full = len(curve.values) * curve.width
    assert 0 <= count - full < curve.width
    expected = np.arange(1, full + 1).reshape(-1, curve.width) if full else np.zeros((0, 1))
    np.testing.assert_allclose(curve.steps, expected.mean(axis=1))
    np.testing.assert_allclose(curve.values, (expected % 7).mean(axis=1))


def test_curves_leave_out_what_is_no_finite_number():
    curves = Curves()
    curves.add(line(1, grad_norm=math.nan, refused=["a"]))
    assert "grad_norm" not in curves.stages["train"] and "refused" not in curves.stages["train"]
    assert [name for name, _ in curves.matching("train", "perplexity")] == ["perplexity_0", "perplexity_1"]


def test_a_thinned_file_is_drawn_as_the_whole_one(tmp_path):
    whole = [line(step, accuracy=float(step)) for step in range(1, 401)] + [line(400, "valid", rank=7.0)]
    (tmp_path / "steps.jsonl").write_text("".join(json.dumps(one) + "\n" for one in whole) + '{"step": 4')
    command = [sys.executable, "-m", "lebench_sb.pretraining.monitor.health", "steps.jsonl", "thin.jsonl"]
    assert subprocess.run(command, cwd=tmp_path).returncode == 0
    lines = read_lines(tmp_path / "thin.jsonl")
    assert len(lines) == 51 and lines[-1]["stage"] == "valid" and lines[-1]["rank"] == 7.0
    assert lines[0]["step"] == 4.5 and lines[0]["accuracy"] == 4.5 and "audio_per_s" not in lines[0]


# ---- alarms: when they are not raised, and how often


def test_each_alarm_is_said_once_and_its_end_is_known():
    lines = [line(step, perplexity_1=5.0 if step < 100 else 200.0) for step in range(1, 301)]
    monitor, said = monitored(lines)
    assert [(alarm.name, alarm.first) for alarm in said] == [("Codebook collapse", 50)]
    assert "group 2 are worth 5.0" in said[0].text and 100 < said[0].last < 150


def test_the_first_updates_and_a_lone_bad_one_ring_nothing():
    worst = {"accuracy": 0.5, "perplexity_0": 1.0, "waiting_share": 90.0}
    assert monitored([line(step, **worst) for step in range(1, 50)])[1] == []
    assert monitored([line(step, **(worst if step == 80 else {})) for step in range(1, 300)])[1] == []


def test_waiting_for_the_first_batch_after_a_validation_is_no_starvation():
    lines = []
    for step in range(1, 300):
        lines += [line(step, waiting_share=95.0 if step % 3 == 1 else 1.0)]
        lines += [line(step, "valid")] if step % 3 == 0 else []
    assert monitored(lines)[1] == []
    assert [a.name for a in monitored([one for one in lines if one["stage"] == "train"])[1]]


def test_chance_may_be_asked_for_later_in_a_long_run():
    lines = [line(step, accuracy=1.0) for step in range(1, 2100)]
    for updates, first in ((300, [200]), (1200, [300]), (20_000, [2000]), (400_000, [])):
        assert [alarm.first for alarm in monitored(lines, Facts(2, 320, 100, updates, 768))[1]] == first


@pytest.mark.parametrize(("masked", "count"), [(2, 100), (40, 100), (300, 100), (300, 10)])
def test_guessing_is_right_as_often_as_expected(masked, count):
    """A model whose similarities are random wins against the negatives that differ, 1 time in 1 + them"""
    rng = np.random.default_rng(0)
    right = []
    for _ in range(40_000 // masked):
        drawn = draw_negatives(masked, count, rng)
        scores = rng.random((masked, masked))
        own = scores.diagonal()
        right += list(own > np.take_along_axis(scores, drawn, axis=1).max(axis=1))
    assert np.mean(right) == pytest.approx(chance_hits([masked], count) / masked, rel=0.12)


# ---- what a resumed run says


def test_a_resumed_run_knows_its_alarms_and_says_none_again(tmp_path, caplog):
    lines = [line(step, perplexity_0=2.0) for step in range(1, 80)]
    first = Watch(tmp_path, FACTS, 0)
    for one in lines:
        first.add(one)
    assert caplog.text.count("Codebook collapse") == 1
    (tmp_path / "steps.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lines))
    resumed = Watch(tmp_path, FACTS, 60)
    resumed.add(line(61, perplexity_0=2.0))
    assert caplog.text.count("Codebook collapse") == 1
    assert resumed.monitor.alarms["Codebook collapse"].first == 50
    assert resumed.monitor.curves.stages["train"]["accuracy"].steps == list(range(1, 62))


def test_a_page_that_cannot_be_written_stops_nothing_and_is_told(tmp_path, caplog):
    (tmp_path / "health.html").mkdir()
    Watch(tmp_path, FACTS, 0).write("running")
    assert "health.html not written" in caplog.text and str(tmp_path / "health.html") in caplog.text


def test_a_reference_that_is_absent_is_named(tmp_path):
    with pytest.raises(UsageError, match="reference_curves other/steps.jsonl not found"):
        Watch(tmp_path, FACTS, 0, "other/steps.jsonl")


# ---- the page


@pytest.fixture
def page(tmp_path):
    lines = [line(step, refused=["<u>&1"]) if step == 7 else line(step) for step in range(1, 61)]
    lines += [line(60, "valid", rank=5.5, chance=1.2, probe_emotion=61.0, probe_emotion_chance=25.0)]
    monitor, _ = monitored(lines, FACTS)
    reference, codes = Curves(), np.random.default_rng(0).integers(0, 9, (2, 320))
    for one in lines:
        reference.add(one)
    write_dashboard(tmp_path, monitor, reference, codes)
    assert [path.name for path in tmp_path.iterdir()] == ["health.html"]
    return (tmp_path / "health.html").read_text()


def test_the_page_needs_no_other_file(page):
    assert not re.search(r"""(src|href)=["'](?!data:)|url\(|@import|<script""", page)
    assert 'http-equiv="refresh"' in page, "an open page follows its run"


def test_the_page_says_what_the_run_did(page):
    for words in ("update 60 of 1000", "held-out accuracy", "20.00 %", "chance: 1.20 %", "5.5",
                  "probe: emotion", "61.0 %", "chance: 25.0 %", "Update not finite"):  # fmt: skip
        assert words in page, words
    assert "&lt;u&gt;&amp;1" in page and "<u>&1" not in page


def test_each_picture_has_its_axes_named_and_its_curves(page):
    pictures = re.findall(r'alt="([^:"]+):[^"]*" src="data:image/svg\+xml;base64,([^"]+)"', page)
    titles = [title for title, _ in pictures]
    for title in ("Contrastive accuracy", "Codes in use", "Codebook usage, group 1",
                  "Codebook usage, group 2", "Representation rank", "Probes", "Norm of the gradient",
                  "Throughput", "Waiting for data"):  # fmt: skip
        assert title in titles
    for title, encoded in pictures:
        drawn = base64.b64decode(encoded)
        ElementTree.fromstring(drawn)
        told = re.findall(r"<text[^>]*>([^<]*)</text>", drawn.decode())
        assert any(text == "update" or text.startswith("codes of group") for text in told), title
        assert any("(" in text or "norm" in text for text in told), f"{title}: no unit among {told}"


# ---- TensorBoard


def test_tensorboard_holds_the_figures_of_each_update(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    watch = Watch(tmp_path, FACTS, 0, tensorboard=True)
    for step in range(1, 6):
        watch.add(line(step, accuracy=10.0 * step, refused=["a"]))
    watch.add(line(5, "valid", accuracy=40.0))
    watch.write("running")
    found = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    trained, held_out = ([(e.step, e.value) for e in found.Scalars(f"{s}/accuracy")] for s in STAGES)
    assert trained == [(k, 10.0 * k) for k in range(1, 6)] and held_out == [(5, 40.0)]


def test_without_tensorboard_one_line_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(UsageError, match=r"pip install 'lebench_sb\[tensorboard\]'") as told:
        Watch(tmp_path, FACTS, 0, tensorboard=True)
    assert "\n" not in str(told.value)


# ---- rank


def test_the_effective_rank_is_that_of_the_singular_values():
    rng = np.random.default_rng(0)
    frames = rng.standard_normal((300, 12)) * np.linspace(3, 0.01, 12) + 0.5
    values = np.linalg.svd(frames, compute_uv=False)
    shares = values / values.sum()
    expected = math.exp(-(shares * np.log(shares)).sum())
    frames = torch.from_numpy(frames)
    assert effective_rank(frames.T @ frames) == pytest.approx(expected, rel=1e-6)
    assert effective_rank(torch.eye(7)) == pytest.approx(7)
    one = torch.ones(5, 4, dtype=torch.float64)
    assert effective_rank(one.T @ one) == pytest.approx(1, abs=1e-5)
    assert effective_rank(torch.zeros(4, 4)) == 0


@pytest.mark.parametrize("norm", [GROUP, LAYER])
def test_the_contexts_of_a_step_are_those_of_transformers(norm):
    model = make_model(**norm).eval()
    wavs, lens, mask, negatives, temperature = make_batch(model, [4000])
    with torch.no_grad():
        out = model(wavs, model.layout(lens, mask, negatives), temperature)
        theirs = model.hf.wav2vec2(wavs, mask_time_indices=mask).last_hidden_state[mask]
    torch.testing.assert_close(out.contexts, theirs, rtol=1e-4, atol=1e-4)


# ---- probes


def test_ridge_is_that_of_scikit_learn():
    torch.manual_seed(0)
    features = torch.randn(40, 60, dtype=torch.float64) * 3 + 1
    classes = torch.randint(0, 3, (40,))
    (mean, deviation), weights = ridge(features, classes, 3)
    weight = 1 / torch.bincount(classes)[classes].double()
    inputs = (features - mean) / deviation
    theirs = Ridge(alpha=float(weight.sum()))
    theirs.fit(inputs.numpy(), np.eye(3)[classes.numpy()], sample_weight=weight.numpy())
    np.testing.assert_allclose(weights[:-1].numpy(), theirs.coef_.T, atol=1e-8)
    np.testing.assert_allclose(weights[-1].numpy(), theirs.intercept_, atol=1e-8)


def test_a_probe_is_at_chance_on_noise_and_right_on_what_is_linear():
    torch.manual_seed(0)
    classes = torch.arange(400) % 4
    folds = torch.arange(400) // 4 % 5
    noise = torch.randn(400, 30, dtype=torch.float64)
    right = (cross_validated(noise, classes, folds, 4) == classes).double().mean()
    assert 0.15 < right < 0.35
    told = noise + 4 * torch.nn.functional.one_hot(classes, 30)
    assert (cross_validated(told, classes, folds, 4) == classes).double().mean() > 0.95


@pytest.mark.parametrize(("label", "speakers"), [("emotion", 12), ("emotion", 2), ("spk_id", 12)])
def test_folds_share_no_speaker_where_they_need_not(label, speakers):
    rows = [Utterance(f"u{k}", "x.wav", 1.0, speaker=f"s{k % speakers}") for k in range(60)]
    classes = [k % speakers if label == "spk_id" else k % 3 for k in range(60)]
    folds = fold_numbers(rows, classes, label)
    assert set(folds) == set(range(FOLDS))
    pairs = {(u.speaker, fold) for u, fold in zip(rows, folds, strict=True)}
    shared = len(pairs) > len({speaker for speaker, _ in pairs})
    assert shared == (label == "spk_id" or speakers == 2)


def test_probes_read_their_manifest(labelled, corpus):
    probe = Probe(labelled, ["half"], corpus, 10.0, lambda wav: wav)
    starts = {tuple(probe_wav(u)[:3].tolist()) for u in probe.utterances if u.labels["half"] == "first"}

    def frames_of(wav):
        mark = 1.0 if tuple(wav[:3].tolist()) in starts else -1.0
        return torch.full((5, 3), mark) + 0.1 * torch.randn(5, 3)

    assert probe.scores(frames_of) == {"probe_half": 100.0, "probe_half_chance": 50.0}


@pytest.mark.parametrize("world", [1, 2, 3, 50])
def test_processes_share_the_utterances_of_a_probe(labelled, corpus, world):
    probe, heard = Probe(labelled, ["half"], corpus, 10.0, lambda wav: wav), []

    def frames_of(wav):
        heard.append(len(wav))
        return wav[:6].reshape(2, 3)

    shares = [probe.means(frames_of, rank, world) for rank in range(world)]
    rows = [row for share in shares for row in share]
    assert len(heard) == len(probe.utterances) and sorted(rows) == list(range(len(probe.utterances)))
    together = torch.stack([mean for _, mean in sorted({k: v for s in shares for k, v in s.items()}.items())])
    assert probe.scored(together) == probe.scores(frames_of)


def test_figures_of_frames_that_are_not_finite_are_none(labelled, corpus):
    probe = Probe(labelled, ["half"], corpus, 10.0, lambda wav: wav)
    found = probe.scores(lambda wav: torch.full((2, 3), math.nan))
    assert math.isnan(found["probe_half"]) and found["probe_half_chance"] == 50.0
    assert math.isnan(effective_rank(torch.full((3, 3), math.nan)))


@pytest.mark.parametrize("unknown", [None, math.nan])
def test_the_page_bears_figures_that_are_not_known(tmp_path, unknown):
    """As steps.jsonl has them, null, and as older ones do, NaN; the figure before is not shown for them"""
    lines = [line(step, contrastive=unknown, grad_norm=unknown) for step in range(1, 61)]
    lines += [line(60, "valid", rank=7.77, probe_a=88.8, probe_a_chance=50.0)]
    lines += [line(61, "valid", rank=unknown, probe_a=unknown, probe_a_chance=50.0, contrastive=unknown,
                   accuracy=unknown, perplexity_0=unknown)]  # fmt: skip
    monitor, _ = monitored(lines)
    write_dashboard(tmp_path, monitor, Curves())
    table = (tmp_path / "health.html").read_text().split("<table>")[1].split("</table>")[0]
    assert "7.8" not in table and "88.8" not in table and "held-out accuracy" not in table
    assert "codes in use" in table and "nan" not in table.lower() and "None" not in table


def test_the_page_says_whose_choice_of_codes_it_shows(tmp_path):
    watch = Watch(tmp_path, FACTS, 0)
    watch.add(line(1))
    for what in ("validation at update 60", "exported checkpoint, update 30"):
        watch.show_codes(np.ones((2, 320)), what)
        watch.write("running")
        page = (tmp_path / "health.html").read_text()
        assert page.count(f"<p>{what[0].upper()}{what[1:]}: perplexity 320.0 of 320") == 2
    assert "validation at update 60" not in page


def probe_wav(utterance):
    from lebench_sb.training.data import load_audio

    return load_audio(utterance.wav, utterance.start, utterance.stop)


def test_a_probe_that_cannot_be_scored_is_refused(labelled, corpus):
    with pytest.raises(UsageError, match="has no column emotion; probe_labels may be of: spk_id, gender"):
        Probe(labelled, ["emotion"], corpus, 10.0, lambda wav: wav)
    with pytest.raises(UsageError, match="column one has 1 classes of at least 5 utterances"):
        Probe(labelled, ["one"], corpus, 10.0, lambda wav: wav)
