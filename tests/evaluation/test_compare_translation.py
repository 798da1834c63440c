"""BLEU and chrF2 of two runs: compared from the sums in utterances.csv, as sacrebleu would resample them."""

import random

import pytest
from example_runs import make_record, make_rows
from sacrebleu.metrics import BLEU

from lebench_sb.evaluation.comparison import compare, compare_records
from lebench_sb.evaluation.metrics import translation
from lebench_sb.evaluation.metrics.bootstrap import interval
from lebench_sb.evaluation.results import metric_entry, write_results

WORDS = "the cat sat on a mat and saw two dogs".split()


def make_run(folder, spoil, changed=0):
    """24 speakers of 5 utterances; a system that gets a word wrong with probability `spoil`"""
    rng, noise, rows = random.Random(1), random.Random(2), []
    for number in range(120):
        words = rng.choices(WORDS, k=rng.randint(4, 9))
        said = [word if noise.random() > spoil else "x" for word in words]
        row = {"ID": f"u{number:03d}", "spk_id": f"s{number % 24:02d}", "gender": "U", "duration": 2.0}
        reference, hypothesis = " ".join(words), " ".join(said)
        for name, columns in translation.COLUMNS.items():
            numbers = translation.statistics(name, [reference], [hypothesis])[0].tolist()
            row.update(zip(columns, numbers, strict=True))
        rows.append({**row, "reference": reference, "hypothesis": hypothesis})
    metrics = {}
    for name, columns in translation.COLUMNS.items():
        counts = [[row[column] for column in columns] for row in rows]
        found = interval(counts, translation.SCORES[name], [row["spk_id"] for row in rows])
        metrics |= metric_entry(name, found.value, name, found, "higher")
    rows[0]["BLEU_correct_1"] -= changed
    write_results(folder, make_record(make_rows(0.2), metrics=metrics), rows)
    return rows


def test_two_systems(tmp_path):
    rows = make_run(tmp_path / "good", 0.1), make_run(tmp_path / "bad", 0.4)
    found = compare_records(tmp_path / "good", tmp_path / "bad")
    assert set(found["metrics"]) == {"BLEU", "chrF2"}
    entry = found["metrics"]["BLEU"]
    texts = [[[row[name] for row in run] for name in ("hypothesis", "reference")] for run in rows]
    scores = [BLEU().corpus_score(said, [references]).score for said, references in texts]
    assert entry["difference"] == pytest.approx(scores[0] - scores[1])
    assert entry["method"] == "bootstrap over speakers" and entry["n_units"] == 24
    assert entry["ci95"][0] < entry["difference"] < entry["ci95"][1] and entry["better"] == "A"
    text = compare(tmp_path / "good", tmp_path / "bad")
    assert "BLEU (BLEU): A " in text and "A is better" in text and "Not compared" not in text


def test_sums_that_do_not_give_the_score(tmp_path):
    make_run(tmp_path / "a", 0.1, changed=3)
    make_run(tmp_path / "b", 0.1)
    with pytest.raises(ValueError, match=r"BLEU is [\d.]+ by utterances.csv but"):
        compare(tmp_path / "a", tmp_path / "b")
