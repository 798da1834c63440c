"""Pictures: what they draw equals what the files say; sizes and labels a reader needs."""

import json
import re
import struct
from pathlib import Path

import numpy as np
import pytest
from example_runs import make_record, make_rows

from lebench_sb.core.extends import whole
from lebench_sb.evaluation import plots
from lebench_sb.evaluation.plots import (
    confusion_matrix,
    leaderboard_chart,
    learning_curve_from_train_log,
    learning_curves,
)
from lebench_sb.pretraining.monitor import drawing
from lebench_sb.pretraining.monitor.drawing import codebook_usage

ROOT = Path(__file__).parents[2]


@pytest.fixture
def figures(monkeypatch):
    """The figures that were saved, in order"""
    found, save = [], plots.save_png

    def keep(figure, path):
        found.append(figure)
        return save(figure, path)

    for module in (plots, drawing):
        monkeypatch.setattr(module, "save_png", keep)
    return found


def png_size(path):
    """Width and height from the header of a PNG file"""
    head = path.read_bytes()[:24]
    assert head[:8] == b"\x89PNG\r\n\x1a\n"
    return struct.unpack(">II", head[16:24])


def panels(figure):
    return {axes.get_ylabel(): axes for axes in figure.axes}


def curves(axes, dashes="-"):
    """[(steps, values)] of the lines drawn with these dashes"""
    return [tuple(map(list, line.get_data())) for line in axes.lines if line.get_linestyle() == dashes]


def write_steps(path, lines, tail=""):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines) + tail)
    return path


def pretraining_steps(path, tail=""):
    lines = []
    for step in range(1, 201):
        figures = {
            "loss": 6 - step / 50,
            "perplexity_0": 10 + step,
            "perplexity_1": 5 + step,
            "lr": 1e-6 * step,
        }
        lines.append({"step": step, "stage": "train", **figures})
        if step % 50 == 0:
            lines.append({"step": step, "stage": "valid", "epoch": step // 50, "loss": 7 - step / 50})
    return write_steps(path, lines, tail)


def test_curves_draw_the_numbers_of_the_file(tmp_path, figures):
    path = pretraining_steps(tmp_path / "steps.jsonl", tail='{"step": 201, "sta')
    out = learning_curves({"pre-training": path}, tmp_path / "new" / "curves.png")
    assert out == tmp_path / "new" / "curves.png" and png_size(out)[0] == 900
    assert [p.name for p in out.parent.iterdir()] == ["curves.png"]
    found = panels(figures[0])
    assert list(found) == ["loss", "perplexity of the codes", "learning rate"]
    assert {axes.get_xlabel() for axes in found.values()} == {"update"}
    steps = list(range(1, 201))
    loss = curves(found["loss"])
    assert loss[0] == (steps, pytest.approx([6 - s / 50 for s in steps]))
    assert loss[-1] == ([50, 100, 150, 200], pytest.approx([6, 5, 4, 3]))
    assert curves(found["perplexity of the codes"])[0] == (steps, [10 + s for s in steps])
    assert curves(found["perplexity of the codes"], "--")[0] == (steps, [5 + s for s in steps])
    assert curves(found["learning rate"]) == [(steps, pytest.approx([1e-6 * s for s in steps]))]
    labels = [text.get_text() for text in figures[0].legends[0].get_texts()]
    assert labels == ["pre-training", "train", "valid"]


def test_each_run_has_its_colour_and_missing_keys_no_panel(tmp_path, figures):
    files = {}
    for name, rate in (("mel_filterbank", 60.0), ("pretrained", 30.0)):
        lines = [{"step": s, "stage": "valid", "loss": 1.0, "WER": rate - s, "CER": None} for s in (1, 2)]
        files[name] = write_steps(tmp_path / name / "steps.jsonl", lines)
    learning_curves(files, tmp_path / "curves.png")
    found = panels(figures[0])
    assert list(found) == ["loss", "word error rate (%)"]
    lines = found["word error rate (%)"].lines
    assert [list(line.get_ydata()) for line in lines] == [[59, 58], [29, 28]]
    handles = figures[0].legends[0].legend_handles
    assert [line.get_color() for line in lines] == [handle.get_color() for handle in handles[:2]]
    assert len({line.get_color() for line in lines}) == 2


def test_not_finite_numbers_leave_a_gap(tmp_path, figures):
    values = [3.0, float("nan"), 2.0, float("inf")]
    lines = [{"step": s, "stage": "train", "loss": v} for s, v in enumerate(values, 1)]
    learning_curves({"run": write_steps(tmp_path / "steps.jsonl", lines)}, tmp_path / "a.png")
    assert curves(panels(figures[0])["loss"])[0] == ([1, 3], [3, 2])


def test_only_chosen_keys_are_drawn(tmp_path, figures):
    path = pretraining_steps(tmp_path / "steps.jsonl")
    learning_curves({"run": path}, tmp_path / "a.png", keys=["perplexity_1", "loss"])
    assert list(panels(figures[0])) == ["perplexity_1", "loss"]
    with pytest.raises(ValueError, match="run: no line has a finite number for WER"):
        learning_curves({"run": path}, tmp_path / "a.png", keys=["WER"])


def test_wide_losses_get_a_logarithmic_axis(tmp_path, figures):
    lines = [{"step": s, "stage": "train", "loss": 900 if s < 3 else 1.5} for s in range(1, 50)]
    learning_curves({"run": write_steps(tmp_path / "steps.jsonl", lines)}, tmp_path / "a.png")
    assert panels(figures[0])["loss"].get_yscale() == "log"


def test_missing_and_damaged_step_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"steps\.jsonl not found"):
        learning_curves({"run": tmp_path / "steps.jsonl"}, tmp_path / "a.png")
    path = tmp_path / "steps.jsonl"
    path.write_text('{"step": 1, "stage": "train", "loss": 1.0}\n{"step": 2\n{"step": 3, "stage": "train"}\n')
    with pytest.raises(ValueError, match=r"steps\.jsonl, line 2"):
        learning_curves({"run": path}, tmp_path / "a.png")
    assert not (tmp_path / "a.png").exists()


def test_speechbrain_logs_can_be_drawn(tmp_path, figures):
    from speechbrain.utils.train_logger import FileTrainLogger

    logger = FileTrainLogger(str(tmp_path / "train_log.txt"))
    for epoch in (1, 2, 3):
        valid = {"loss": 2.0 / epoch, "WER": 80.0 - epoch}
        logger.log_stats({"epoch": epoch, "lr": 1e-3}, {"loss": 1e-5 * epoch}, valid)
    logger.log_stats({"test": "best on valid"}, test_stats={"WER": 12.0})
    out = learning_curve_from_train_log(
        tmp_path / "train_log.txt", tmp_path / "log.png", keys=["loss", "WER"]
    )
    assert png_size(out)[0] == 900
    found = panels(figures[0])
    assert found["loss"].get_xlabel() == "epoch"
    assert curves(found["word error rate (%)"]) == [([1, 2, 3], [79, 78, 77])]
    train, _, valid = curves(found["loss"])
    assert train == ([1, 2, 3], pytest.approx([1e-5, 2e-5, 3e-5], rel=0.01))
    assert valid == ([1, 2, 3], pytest.approx([2, 1, 0.667], rel=0.01))


def test_moving_average_is_a_mean_of_neighbours():
    values = np.random.default_rng(0).normal(size=40)
    expected = [values[max(0, i - 3) : i + 4].mean() for i in range(40)]
    np.testing.assert_allclose(plots.moving_average(values, 3), expected)
    np.testing.assert_array_almost_equal(plots.moving_average(values, 0), values)


def test_codebook_usage_is_sorted_and_named(tmp_path, figures):
    counts = np.array([[1, 0, 3, 4], [5, 5, 5, 5]])
    out = codebook_usage(counts, tmp_path / "codes.png", "exported checkpoint, update 30")
    assert figures[-1].get_suptitle() == "Held out, exported checkpoint, update 30"
    assert png_size(out)[0] == 900
    left, right = figures[0].axes
    assert left.patches[0].get_data().values == pytest.approx([50, 37.5, 12.5, 0])
    entropy = -sum(p * np.log(p) for p in (0.5, 0.375, 0.125))
    assert left.get_title() == f"group 1: perplexity {np.exp(entropy):.1f} of 4, 1 unused"
    assert right.get_title() == "group 2: perplexity 4.0 of 4, 0 unused"


@pytest.mark.parametrize(
    "counts, words",
    [
        ([1, 2], r"shape \(2,\)"),
        ([[1, 2], [0, 0]], "all 0"),
        ([[1, -2]], "negative"),
        ([[1, np.nan]], "finite"),
    ],
)
def test_wrong_counts_are_refused(tmp_path, counts, words):
    with pytest.raises(ValueError, match=words):
        codebook_usage(counts, tmp_path / "codes.png")


def board_records():
    rows = {share: make_rows(share, per_speaker=2) for share in (0.1, 0.3, 0.5)}
    records = [make_record(rows[0.3], "mel_filterbank"), make_record(rows[0.1], seed=1)]
    return [*records, make_record(rows[0.5], "random:encoder"), make_record(rows[0.1], seed=2)]


def test_leaderboard_draws_values_and_intervals(tmp_path, figures):
    records = board_records()
    out = leaderboard_chart(records, tmp_path / "board.png")
    assert png_size(out)[0] == 900
    (axes,) = figures[0].axes
    labels = [text.get_text().split("\n")[0] for text in axes.get_yticklabels()]
    assert labels == ["random:encoder", "mel_filterbank", "results/demo/pretraining/encoder"]  # best on top
    drawn = sorted(tuple(line.get_xdata()) for line in axes.lines if len(line.get_xdata()) == 2)
    assert drawn == sorted(tuple(record["metrics"]["WER"]["ci95"]) for record in records)
    points = [line.get_xdata()[0] for line in axes.lines if len(line.get_xdata()) == 1]
    assert sorted(points) == sorted(record["metrics"]["WER"]["value"] for record in records)
    assert axes.get_xlabel() == "WER (%), lower is better; bars are 95 % intervals"
    heights = [line.get_ydata()[0] for line in axes.lines]
    assert len(set(heights)) == len(records)  # the seeds of one system do not cover each other


def test_leaderboard_has_a_panel_per_task_and_the_metric_asked_for(tmp_path, figures):
    records = board_records()
    higher = json.loads(json.dumps(records[:3]))
    for record in higher:
        record["task"] = "SLU"
        record["metrics"]["CER"]["better"] = "higher"
    leaderboard_chart(records + higher, tmp_path / "board.png", metric="CER")
    first, second = figures[0].axes
    titles = [axes.get_title(loc="left") for axes in (first, second)]
    assert titles == ["ASR, CommonVoice, test", "SLU, CommonVoice, test"]
    names = [text.get_text().split("\n")[0] for text in second.get_yticklabels()]
    assert names == ["results/demo/pretraining/encoder", "mel_filterbank", "random:encoder"]
    assert second.get_xlabel().startswith("CER (%), higher is better")
    leaderboard_chart(records + higher, tmp_path / "board.png", metric={"SLU": "CER"})
    first, second = figures[-1].axes
    assert first.get_xlabel().startswith("WER (%)") and second.get_xlabel().startswith("CER (%)")


def test_leaderboard_says_once_how_a_system_named_after_its_mode_was_used(tmp_path, figures):
    records = [make_record(make_rows(0.3), "filterbank"), make_record(make_rows(0.1), "ours")]
    records[0]["mode"] = "filterbank"
    leaderboard_chart(records, tmp_path / "board.png")
    labels = [text.get_text() for text in figures[0].axes[0].get_yticklabels()]
    assert labels == ["filterbank", f"ours\n{records[1]['mode']}, layer {records[1]['layer']}"]


def test_leaderboard_without_interval_or_records(tmp_path):
    rows = make_rows(0.2)[:1]
    assert png_size(leaderboard_chart([make_record(rows)], tmp_path / "one.png"))[0] == 900
    with pytest.raises(ValueError, match="no records"):
        leaderboard_chart([], tmp_path / "none.png")
    with pytest.raises(ValueError, match="BLEU"):
        leaderboard_chart([make_record(rows)], tmp_path / "none.png", metric="BLEU")


def test_a_confusion_matrix_shows_shares_and_counts(tmp_path, figures):
    counts, names = [[3, 1, 0], [0, 0, 0], [1, 0, 1]], ["joie", "peur", "colère"]
    path = confusion_matrix(counts, names, tmp_path / "m.png", "T")
    axes = figures[0].axes[0]
    shown = {tuple(map(int, text.get_position())): text.get_text() for text in axes.texts}
    assert shown == {(0, 0): "75 %\n3", (1, 0): "25 %\n1", (0, 2): "50 %\n1", (2, 2): "50 %\n1"}
    np.testing.assert_allclose(axes.images[0].get_array(), [[75, 25, 0], [0, 0, 0], [50, 0, 50]])
    assert [label.get_text() for label in axes.get_yticklabels()] == ["joie (4)", "peur (0)", "colère (2)"]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["joie", "peur", "colère"]
    assert axes.get_title() == "T" and 400 < png_size(path)[0] < 1000


def test_many_classes_stay_within_the_width(tmp_path, figures):
    names = [f"class {k}" for k in range(20)]
    path = confusion_matrix(np.eye(20), names, tmp_path / "m.png")
    assert png_size(path)[0] < 1000 and len(figures[0].axes[0].texts) == 20


@pytest.mark.parametrize("matrix", [np.zeros((2, 3)), np.zeros((3, 3)), [[1, -1], [0, 1]]])
def test_a_confusion_matrix_of_another_shape_is_refused(tmp_path, matrix):
    with pytest.raises(ValueError, match="2 classes, or counts below 0"):
        confusion_matrix(matrix, ["a", "b"], tmp_path / "m.png")


@pytest.mark.parametrize("path", sorted((ROOT / "recipes").glob("*/*/hparams/*.yaml")), ids=str)
def test_the_metric_that_chooses_checkpoints_is_drawn(path):
    (key,) = re.findall(r"^key_metric: (\w+)", whole(path), re.M)
    assert key in plots.USUAL
