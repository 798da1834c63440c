"""results.json and utterances.csv: what is refused, round trips, tables, provenance."""

import copy
import csv
import io
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from example_runs import make_record, make_rows, write_run

from lebench_sb.evaluation import provenance, results, tables
from lebench_sb.evaluation.comparison import compare, compare_records
from lebench_sb.evaluation.metrics.bootstrap import interval
from lebench_sb.evaluation.metrics.errors import mean, rate
from lebench_sb.evaluation.provenance import describe_run
from lebench_sb.evaluation.results import (
    find_results,
    metric_entry,
    read_results,
    read_utterances,
    write_results,
)
from lebench_sb.evaluation.schema import check_record
from lebench_sb.evaluation.tables import table


def test_what_is_written_is_read(tmp_path):
    rows = make_rows(0.2)
    record = make_record(rows)
    write_results(tmp_path / "run", record, reversed(rows))
    assert read_results(tmp_path / "run") == record
    assert read_results(tmp_path / "run" / "results.json") == record
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["results.json", "utterances.csv"]
    back = read_utterances(tmp_path / "run")
    assert [row["ID"] for row in back] == [row["ID"] for row in rows]
    assert list(back[0]) == [
        "ID", "spk_id", "gender", "duration", "WER_errors", "WER_words", "CER_errors", "CER_chars",
        "reference", "hypothesis",
    ]  # fmt: skip
    assert [[str(value) for value in row.values()] for row in rows] == [list(row.values()) for row in back]


def test_texts_and_numpy_numbers_survive_the_csv(tmp_path):
    nasty = ['dit "oui", non', "l'œuf à 5 $US", "fin\nde ligne", "", " ; ", "e\u0301 😀"]
    rows = make_rows(0.2)[: len(nasty)]
    for row, text in zip(rows, nasty, strict=True):
        row |= {"hypothesis": text, "duration": np.float64(1.25), "WER_errors": np.int64(3)}
    write_results(tmp_path, make_record(rows), rows)
    back = read_utterances(tmp_path)
    assert [row["hypothesis"] for row in back] == nasty
    assert {(row["duration"], row["WER_errors"]) for row in back} == {("1.25", "3")}


def test_no_utterances_leave_a_header(tmp_path):
    write_results(tmp_path, make_record(make_rows(0.2)), [])
    assert (tmp_path / "utterances.csv").read_text() == "ID,spk_id,gender,duration\n"
    assert read_utterances(tmp_path) == []


def test_an_interrupted_write_leaves_no_results(tmp_path, monkeypatch):
    """New utterances beside old scores would be read as one run."""
    write_run(tmp_path)
    write = results.write_atomically

    def interrupted(path, text):
        if path.name == "results.json":
            raise KeyboardInterrupt
        write(path, text)

    monkeypatch.setattr(results, "write_atomically", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_run(tmp_path, error_share=0.3)
    with pytest.raises(FileNotFoundError, match=r"results\.json not found"):
        read_results(tmp_path)


def change(record, path, value):
    """A copy of the record with one value replaced, or deleted where value is `...`"""
    changed = copy.deepcopy(record)
    *folders, last = path.split("/")
    found = changed
    for folder in folders:
        found = found[folder]
    if value is ...:
        del found[last]
    else:
        found[last] = value
    return changed


WRONG = [
    ("task", ..., "task is missing"),
    ("normaliser", "fr-1", "normaliser is unknown .did you mean text_normaliser"),
    ("seed", "1234", "seed is '1234', expected int"),
    ("seed", True, "seed is True, expected int"),
    ("layer", 2.5, "layer is 2.5, expected str or int"),
    ("dirty", "yes", "dirty is 'yes'"),
    ("metrics/WER/ci95", ..., "metrics.WER.ci95 is missing"),
    ("metrics/WER/value", float("nan"), "metrics.WER.value is nan"),
    ("metrics/WER/value", None, "metrics.WER.value is None"),
    ("metrics/WER/ci95", [25.0, 21.9], r"metrics.WER.ci95 is \[25.0, 21.9\]"),
    ("metrics/WER/ci95", [1.0], r"metrics.WER.ci95 is \[1.0\]"),
    ("metrics/WER/ci95", [1.0, float("inf")], "metrics.WER.ci95"),
    ("metrics/WER/better", "less", "metrics.WER.better is 'less'"),
    ("metrics/WER", 23.4, "metrics.WER is 23.4, expected a dict"),
    ("data/test", ..., "data.test is missing"),
    ("data/test/hour", 2, "data.test.hour is unknown .did you mean hours"),
    ("data/train/hours", "5", "data.train.hours is '5'"),
    ("parameters/encoder", ..., "parameters.encoder is missing"),
    ("time/train_s", float("inf"), "time.train_s is inf"),
    ("energy/kwh", float("nan"), "energy.kwh is nan"),
    ("energy", None, "energy is None, expected a dict"),
    ("caveats", ["one seeds"], "one seeds is unknown .did you mean one seed"),
    ("caveats", "one seed", "caveats is 'one seed'"),
    ("overrides/data_folder", Path("x"), "overrides.data_folder is a .*Path"),
    ("overrides/lr", [1.0, float("-inf")], "overrides.lr.1 is -inf"),
    ("parameters/trained", np.int64(3), "parameters.trained is"),
]


@pytest.mark.parametrize("path, value, words", WRONG)
def test_wrong_records_are_refused_before_anything_is_written(tmp_path, path, value, words):
    rows = make_rows(0.2, per_speaker=1)
    with pytest.raises(ValueError, match=words):
        write_results(tmp_path / "run", change(make_record(rows), path, value), rows)
    assert not (tmp_path / "run").exists()


def test_all_problems_are_counted_and_five_shown():
    with pytest.raises(ValueError, match="17 problems, the first five") as error:
        check_record({"metrics": {}, "data": {"train": {}, "valid": {}, "test": {}}})
    assert str(error.value).count("missing") == 5
    with pytest.raises(ValueError, match="the record is a list"):
        check_record([])


def test_a_metric_without_interval_is_allowed(tmp_path):
    rows = make_rows(0.2)[:1]
    record = make_record(rows)
    assert record["metrics"]["WER"]["ci95"] is None
    write_results(tmp_path, record, rows)
    assert "no interval: 1 utterance" in table(tmp_path)


@pytest.mark.parametrize(
    "edit, words",
    [
        (lambda rows: rows[3].update(ID="utt0002"), "utt0002 is scored twice"),
        (lambda rows: rows[3].pop("spk_id"), "utt0003: keys missing or not in every row: spk_id"),
        (lambda rows: [row.pop("duration") for row in rows], "utt0000: .*duration"),
        (lambda rows: rows[3].update(WER_errors=float("nan")), "utt0003: WER_errors is nan"),
        (lambda rows: rows[3].update(CER_chars=""), "utt0003: CER_chars is ''"),
    ],
)
def test_wrong_rows_are_refused(tmp_path, edit, words):
    rows = make_rows(0.2)
    record = make_record(rows)
    edit(rows)
    with pytest.raises(ValueError, match=words):
        write_results(tmp_path, record, rows)


def test_an_interval_of_another_value_is_refused():
    found = interval([[1, 4], [2, 5]], rate)
    with pytest.raises(ValueError, match="WER is 30.0"):
        metric_entry("WER", 30.0, "%", found, "lower")


def test_damaged_files_are_named(tmp_path):
    write_run(tmp_path / "run")
    path = tmp_path / "run" / "results.json"
    good = path.read_text()
    for text, words in [
        (good[:-40], "Unterminated string"),
        (good.replace('"task"', '"tasks"'), "task is missing"),
    ]:
        path.write_text(text)
        with pytest.raises(ValueError, match=f"{re.escape(str(path))}.*{words}"):
            read_results(tmp_path / "run")
    path.write_text(good)
    with open(tmp_path / "run" / "utterances.csv", "a") as file:
        file.write("utt9999,spk\n")
    with pytest.raises(ValueError, match=r"utterances\.csv: the row of 'utt9999'"):
        read_utterances(tmp_path / "run")


def test_results_are_found_sorted_and_once(tmp_path):
    for name in ("b/2", "a", "b/1"):
        write_run(tmp_path / name)
    expected = [tmp_path / name / "results.json" for name in ("a", "b/1", "b/2")]
    assert find_results(tmp_path) == expected
    assert find_results([str(tmp_path / "b"), tmp_path, expected[0]]) == expected
    write_run(tmp_path / "b/2.old1")
    write_run(tmp_path / "a.old12/x")
    assert find_results(tmp_path) == expected  # but asked for by name they are found
    assert find_results(tmp_path / "b/2.old1") == [tmp_path / "b/2.old1/results.json"]
    with pytest.raises(FileNotFoundError, match="nowhere not found"):
        find_results(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="No results.json below"):
        find_results(tmp_path / "empty")


def test_provenance_names_commit_and_changes(tmp_path):
    def git(*arguments):
        identity = ["-c", "user.name=x", "-c", "user.email=x@y"]
        done = subprocess.run(["git", *identity, *arguments], cwd=tmp_path, capture_output=True, check=True)
        return done.stdout.decode().strip()

    outside = describe_run(1, {})
    assert {"commit", "dirty", "seed", "overrides", "command", "versions", "energy"} == set(outside)
    found = describe_run(7, {"lr": 1}, "python train.py", root=tmp_path)
    assert (found["commit"], found["dirty"]) == ("unknown", None)
    assert (found["seed"], found["overrides"], found["command"]) == (7, {"lr": 1}, "python train.py")
    git("init", "-q")
    assert describe_run(1, {}, root=tmp_path)["commit"] == "unknown"  # no commit yet
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "train.py").write_text("pass\n")
    git("add", "recipes")
    git("commit", "-q", "-m", "first")
    found = describe_run(1, {}, root=tmp_path)
    assert (found["commit"], found["dirty"]) == (git("rev-parse", "HEAD"), False)
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "log.txt").write_text("what a run writes is no change of the code\n")
    assert describe_run(1, {}, root=tmp_path)["dirty"] is False
    (tmp_path / "recipes" / "new.yaml").write_text("seed: 1\n")
    assert describe_run(1, {}, root=tmp_path)["dirty"] is True
    # an installed copy inside another repository does not take its commit
    assert describe_run(1, {}, root=tmp_path / "recipes")["commit"] == "unknown"


def test_provenance_without_git(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert describe_run(1, {})["commit"] == "unknown"


def test_versions_are_those_installed():
    import torch

    versions = describe_run(1, {})["versions"]
    assert set(versions) == {"torch", "speechbrain", "transformers", "python", "lebench_sb"}
    assert versions["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert provenance._version("no-such-package") == "not installed"


def test_results_import_without_torch():
    code = "import sys, lebench_sb.evaluation.results\n"
    code += "assert not {'torch', 'speechbrain', 'matplotlib'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def markdown_rows(text):
    """[{column: cell}] of the first Markdown table in a text"""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [dict(zip(cells[0], row, strict=True)) for row in cells[2:]]


def test_table_shows_what_the_files_say(tmp_path):
    write_run(tmp_path / "mfb", 0.5, system="mel_filterbank", caveats=["synthetic speech", "one seed"])
    write_run(tmp_path / "ssl", 0.2, layer=6, parameters={"encoder": 94_371_712, "trained": 12_345})
    text = table([tmp_path])
    assert text.startswith("### ASR, CommonVoice, test\n")
    first, second = markdown_rows(text)
    entry = read_results(tmp_path / "mfb")["metrics"]["WER"]
    low, high = entry["ci95"]
    assert first["WER (%) ↓"] == f"{entry['value']:.1f} [{low:.1f}, {high:.1f}]"
    assert first["system"] == "mel_filterbank" and first["caveats"] == "synthetic speech; one seed"
    assert second["system"] == "results/demo/pretraining/encoder" and second["layer"] == "6"
    assert (second["encoder parameters"], second["trained parameters"]) == ("94.4 M", "12.3 k")
    assert second["training (s)"] == "61"
    assert "WER, CER: bootstrap over speakers, 288 utterances of 24 speakers, 1000 resamples." in text
    assert "over seeds" not in text and "seed" not in first


def test_a_frame_norm_is_shown_where_runs_differ_in_it(tmp_path):
    for name, norm in (("a", "cmvn"), ("b", "none"), ("c", "cmvn")):
        write_run(tmp_path / name, details={"frame_norm": norm})
    rows = markdown_rows(table(tmp_path))
    assert [row["frame norm"] for row in rows] == ["cmvn", "none", "cmvn"]
    assert "frame norm" not in table([tmp_path / "a", tmp_path / "c"])
    assert "frame norm none, seed" in compare(tmp_path / "a", tmp_path / "b")
    rows = csv.DictReader(io.StringIO(table(tmp_path, "csv")))
    assert [row["frame_norm"] for row in rows] == ["cmvn", "none", "cmvn"]


def test_seeds_of_one_experiment_keep_their_rows(tmp_path):
    for seed in (1, 2, 3):
        write_run(tmp_path / f"seed{seed}", 0.2, noise=seed, seed=seed)
    write_run(tmp_path / "other", 0.2, noise=9, seed=4, mode="fine-tuned")
    rows = {row["seed"]: row for row in markdown_rows(table(tmp_path))}
    assert len(rows) == 4
    values = [read_results(tmp_path / f"seed{s}")["metrics"]["WER"]["value"] for s in (1, 2, 3)]
    expected = f"{np.mean(values):.1f} ± {np.std(values, ddof=1):.1f} (3)"
    assert [rows[s]["WER over seeds"] for s in ("1", "2", "3")] == [expected] * 3
    assert len({rows[s]["WER (%) ↓"] for s in ("1", "2", "3")}) == 3
    assert rows["1"]["caveats"] == "" and rows[""]["caveats"] == "one seed"
    assert rows[""]["WER over seeds"] == ""


def test_another_setting_or_recipe_is_another_cell():
    rows = make_rows(0.2, per_speaker=1)
    record = make_record(rows, seed=1)
    assert tables.cell(record) == tables.cell(make_record(rows, seed=2))
    moved = {**record, "overrides": {"seed": 5, "output_folder": "elsewhere"}}
    assert tables.cell(record) == tables.cell(moved)
    for changes in ({"overrides": {"head_lr": 1}}, {"layer": 3}, {"command": "python train.py other.yaml"}):
        assert tables.cell(record) != tables.cell({**record, **changes})


def test_one_seed_run_twice_is_one_seed(tmp_path):
    for name in ("a", "b"):
        write_run(tmp_path / name)
    assert "over seeds" not in table(tmp_path)


def test_different_test_sets_are_pointed_out(tmp_path):
    write_run(tmp_path / "a")
    other = {"sha256": "cd34", "utterances": 5, "hours": 0.1}
    write_run(tmp_path / "b", data={"train": {}, "valid": {}, "test": other})
    assert "2 different test sets" in table(tmp_path)


def test_tasks_have_tables_of_their_own(tmp_path):
    write_run(tmp_path / "a")
    write_run(tmp_path / "b", task="SLU", corpus="MEDIA")
    assert re.findall("^### .*", table(tmp_path), re.M) == [
        "### ASR, CommonVoice, test",
        "### SLU, MEDIA, test",
    ]


def test_csv_table_keeps_every_digit(tmp_path):
    for seed in (1, 2):
        write_run(tmp_path / f"seed{seed}", noise=seed, seed=seed)
    rows = list(csv.DictReader(io.StringIO(table(tmp_path, "csv"))))
    for row in rows:
        record = json.loads(Path(row["results"]).read_text())
        entry = record["metrics"]["CER"]
        assert [float(row[k]) for k in ("CER", "CER_low", "CER_high")] == [entry["value"], *entry["ci95"]]
        assert (row["task"], row["seed"], row["CER_seeds"]) == ("ASR", str(record["seed"]), "2")
        assert float(row["CER_mean"]) == np.mean([float(r["CER"]) for r in rows])


def test_latex_table_escapes(tmp_path):
    write_run(tmp_path / "a", system="mel_filterbank")
    text = table(tmp_path, "latex")
    assert r"mel\_filterbank" in text and r"WER (\%) $\downarrow$" in text and "↓" not in text
    with pytest.raises(ValueError, match="format is 'html'"):
        table(tmp_path, "html")


def test_system_names_lose_the_machine(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert tables.system_name(str(tmp_path / "results/x/encoder")) == "results/x/encoder"
    assert tables.system_name("/home/somebody/lab/results/x/encoder") == "results/x/encoder"
    assert tables.system_name("/data/models/org/model/large") == "org/model/large"
    assert tables.system_name("random:/somewhere/results/x/encoder") == "random:results/x/encoder"
    assert tables.system_name("LeBenchmark/wav2vec2-FR-7K-large") == "LeBenchmark/wav2vec2-FR-7K-large"


def test_comparison_of_two_systems(tmp_path):
    a, b = write_run(tmp_path / "a", 0.3, noise=1), write_run(tmp_path / "b", 0.15, noise=2)
    found = compare_records(a, b)
    assert list(found["metrics"]) == ["WER", "CER"]
    entry = found["metrics"]["WER"]
    assert entry["difference"] == pytest.approx(entry["a"] - entry["b"])
    assert entry["ci95"][0] > 0 and entry["excludes_zero"] and entry["better"] == "B"
    assert (entry["n"], entry["n_units"], entry["method"]) == (288, 24, "bootstrap over speakers")
    text = compare(a, b, "WER")
    assert "The interval excludes 0 (p < 0.001): B is better." in text
    assert f"A - B = {entry['difference']:+.1f} [{entry['ci95'][0]:+.1f}, {entry['ci95'][1]:+.1f}]" in text
    assert "288 utterances of 24 speakers" in text and "CER" not in text
    assert compare_records(b, a)["metrics"]["WER"]["better"] == "A"


def test_systems_that_do_not_differ(tmp_path):
    a, b = write_run(tmp_path / "a", 0.2, noise=1), write_run(tmp_path / "b", 0.2, noise=2)
    entry = compare_records(a, b, "WER")["metrics"]["WER"]
    assert entry["ci95"][0] < 0 < entry["ci95"][1] and entry["better"] is None
    assert "contains 0" in compare(a, b) and "is better" not in compare(a, b)


def test_higher_may_be_better(tmp_path):
    for name, share in (("a", 0.3), ("b", 0.15)):
        rows = make_rows(share)
        record = make_record(rows)
        for entry in record["metrics"].values():
            entry["better"] = "higher"
        write_results(tmp_path / name, record, rows)
    assert compare_records(tmp_path / "a", tmp_path / "b")["metrics"]["WER"]["better"] == "A"


def test_means_are_compared_in_their_unit(tmp_path):
    """A loss in nats is a sum over a count, without the factor of a percentage."""
    for name, loss in (("a", 3.0), ("b", 2.0)):
        rows = [
            {**row, "loss_sum": loss * row["WER_words"], "loss_words": row["WER_words"]}
            for row in make_rows(0)
        ]
        record = make_record(rows)
        found = interval([[row["loss_sum"], row["loss_words"]] for row in rows], mean)
        record["metrics"] |= metric_entry("loss", loss, "nats", found, "lower")
        write_results(tmp_path / name, record, rows)
    entry = compare_records(tmp_path / "a", tmp_path / "b", "loss")["metrics"]["loss"]
    assert (entry["difference"], entry["better"]) == (pytest.approx(1.0), "B")
    assert "3.000 [3.000, 3.000]" in table(tmp_path / "a")


def test_different_test_sets_are_not_compared(tmp_path):
    write_run(tmp_path / "a")
    rows = make_rows(0.2)
    write_results(tmp_path / "short", make_record(rows[7:]), rows[7:])
    words = "7 utterances only in .*: utt0000, utt0001, utt0002, utt0003, utt0004 ..."
    for pair in (("a", "short"), ("short", "a")):
        with pytest.raises(ValueError, match=words):
            compare(*(tmp_path / name for name in pair))
    for row in rows[10:12]:
        row["reference"] = row["reference"].upper()
    write_results(tmp_path / "upper", make_record(rows), rows)
    with pytest.raises(ValueError, match="references of 2 utterances in .*: utt0010, utt0011. First: 'mot"):
        compare(tmp_path / "a", tmp_path / "upper")


def test_files_of_two_runs_are_not_mixed(tmp_path):
    write_run(tmp_path / "a", 0.2)
    write_run(tmp_path / "b", 0.4)
    (tmp_path / "b" / "results.json").write_text((tmp_path / "a" / "results.json").read_text())
    with pytest.raises(ValueError, match=r"b: WER is .* by utterances.csv but .* in results.json"):
        compare(tmp_path / "a", tmp_path / "b")


def test_metrics_without_sums_are_named(tmp_path):
    write_run(tmp_path / "a")
    with pytest.raises(ValueError, match="lacks the sums of BLEU; it has those of: WER, CER"):
        compare(tmp_path / "a", tmp_path / "a", "BLEU")
    for name in ("c", "d"):
        write_results(tmp_path / name, make_record(make_rows(0.2)), [])
    with pytest.raises(ValueError, match="no metric that both have"):
        compare(tmp_path / "c", tmp_path / "d")


def test_a_run_against_itself(tmp_path):
    write_run(tmp_path / "a")
    entry = compare_records(tmp_path / "a", tmp_path / "a")["metrics"]["WER"]
    assert (entry["difference"], entry["ci95"], entry["probability"]) == (0, [0, 0], 1)
    assert not entry["excludes_zero"]


def test_one_row_for_all_seeds(tmp_path):
    """Three seeds of one experiment and one of another: two rows, by hand-computed mean and deviation."""
    values = {}
    for seed, share in ((30, 0.3), (4, 0.2), (11, 0.25)):
        folder = write_run(tmp_path / str(seed), share, noise=seed, seed=seed, overrides={"seed": str(seed)})
        values[seed] = read_results(folder)["metrics"]["WER"]
    write_run(tmp_path / "last", 0.4, seed=4, layer="last")
    text = tables.seeds_table(tmp_path, extra={tmp_path / "4" / "results.json": {"note": "hello"}})
    rows = [line for line in text.splitlines() if line.startswith("| ") and "system" not in line]
    assert len(rows) == 2
    row = next(row for row in rows if "weighted" in row)
    numbers = np.array([entry["value"] for entry in values.values()])
    assert f"{numbers.mean():.1f} ± {numbers.std(ddof=1):.1f} (3)" in row and "4, 11, 30" in row
    low, high = values[4]["ci95"]
    assert f"{values[4]['value']:.1f} [{low:.1f}, {high:.1f}]" in row  # never merged with the deviation
    assert "one seed" not in row and "hello" in row
    other = next(row for row in rows if "weighted" not in row)
    assert "±" not in other and "one seed" in other
    assert "training (s)" not in text and "of the smallest seed" in text
    assert "tabular" in tables.seeds_table(tmp_path, "latex")
    with pytest.raises(ValueError, match="'md' or 'latex'"):
        tables.seeds_table(tmp_path, "csv")
