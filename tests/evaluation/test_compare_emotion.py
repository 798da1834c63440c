"""Scores of emotions of two runs, compared from what utterances.csv holds of them."""

import numpy as np
import pytest
from example_runs import make_record, make_rows
from sklearn.metrics import balanced_accuracy_score, f1_score

from lebench_sb.evaluation.comparison import CONCORDANCE_COLUMNS, compare_records
from lebench_sb.evaluation.metrics import classification, concordance
from lebench_sb.evaluation.metrics.bootstrap import interval
from lebench_sb.evaluation.results import metric_entry, write_results

EMOTIONS = ["anger", "fear", "joy", "neutral"]


def described(number):
    return {"ID": f"u{number:03d}", "spk_id": f"s{number % 12:02d}", "gender": "F", "duration": 2.0}


def write(folder, rows, scores, statistics, units):
    speakers, metrics = [row["spk_id"] for row in rows], {}
    for name, score in scores.items():
        found = interval(statistics, score, speakers)
        better = "lower" if name == "RMSE" else "higher"
        metrics |= metric_entry(name, found.value, units[name], found, better)
    write_results(folder, make_record(make_rows(0.2), metrics=metrics), rows)


def classified(folder, right, seed):
    rng, truth, rows = np.random.default_rng(seed), np.random.default_rng(9), []
    for number in range(96):
        emotion, guess = truth.choice(EMOTIONS, p=[0.5, 0.2, 0.2, 0.1]), rng.choice(EMOTIONS)
        answer = emotion if rng.random() < right else guess
        hits = {"accuracy_hits": int(answer == emotion), "accuracy_utterances": 1}
        rows.append({**described(number), **hits, "reference": str(emotion), "hypothesis": str(answer)})
    pair = [[row[key] for row in rows] for key in ("reference", "hypothesis")]
    cells = classification.statistics(*pair, [*EMOTIONS, "surprise"])  # a class of train that test lacks
    write(folder, rows, classification.SCORES, cells, dict.fromkeys(classification.SCORES, "%"))
    return pair


def traced(folder, noise, seed):
    rng, truth, rows = np.random.default_rng(seed), np.random.default_rng(9), []
    for number in range(24):
        x = truth.standard_normal(50)
        sums = concordance.sums(x, x + noise * rng.standard_normal(50))
        rows.append({**described(number), **dict(zip(CONCORDANCE_COLUMNS, map(float, sums), strict=True))})
    statistics = [[row[name] for name in CONCORDANCE_COLUMNS] for row in rows]
    write(folder, rows, concordance.SCORES, statistics, dict.fromkeys(concordance.SCORES, ""))


def test_classes(tmp_path):
    good, bad = classified(tmp_path / "good", 0.8, 0), classified(tmp_path / "bad", 0.3, 1)
    found = compare_records(tmp_path / "good", tmp_path / "bad")["metrics"]
    assert set(found) == set(classification.SCORES)
    recalls = [100 * balanced_accuracy_score(*pair) for pair in (good, bad)]
    assert found["UAR"]["difference"] == pytest.approx(recalls[0] - recalls[1])
    f1 = [100 * f1_score(*pair, average="macro") for pair in (good, bad)]
    assert found["F1"]["difference"] == pytest.approx(f1[0] - f1[1])
    assert found["UAR"]["better"] == "A" and found["UAR"]["n_units"] == 12


def test_traces(tmp_path):
    traced(tmp_path / "good", 0.3, 0)
    traced(tmp_path / "bad", 1.5, 1)
    found = compare_records(tmp_path / "bad", tmp_path / "good")["metrics"]
    assert set(found) == set(concordance.SCORES)
    assert found["CCC"]["difference"] < 0 < found["RMSE"]["difference"]
    assert found["CCC"]["better"] == found["RMSE"]["better"] == "B"
