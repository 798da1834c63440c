"""What a grid does with its cells: once each, in order, side by side, through failures."""

import json
import os
import time
from types import SimpleNamespace

import pytest
from toy_recipe import runs

from lebench_sb.core.errors import UsageError
from lebench_sb.evaluation.results import read_results
from lebench_sb.grid.choice import best_on_valid
from lebench_sb.grid.demo import finish
from lebench_sb.grid.execute import FINISHED, REUSED, Outcome
from lebench_sb.grid.schedule import Progress, Slots


def cells(toy):
    found = json.loads((toy.folder / "grid" / "cells.json").read_text())["cells"]
    return {(cell["task"], cell["encoder"], cell["mode"]): cell for cell in found}


def test_every_cell_runs_once_and_is_reused(toy, capsys):
    assert toy.run() == 0
    expected = [f"grid/TOY/filterbank/filterbank/seed{seed}" for seed in (1, 2)]
    expected += [
        f"grid/TOY/{encoder}/{mode}/seed{seed}"
        for encoder in ("ours", "random") for mode in ("frozen", "end-to-end") for seed in (1, 2)
    ]  # fmt: skip
    assert sorted(runs(toy.folder)) == sorted(expected) == sorted(runs(toy.folder, "ended"))
    table = toy.table()
    assert toy.run() == 0 and len(runs(toy.folder)) == len(expected)
    assert toy.table() == table
    assert capsys.readouterr().out.count("finished before, reused") == len(expected)
    command = json.loads((toy.folder / "grid/TOY/ours/end-to-end/seed2/inputs.json").read_text())
    assert set(command) == {"command", "yaml", "code", "data", "encoder"}
    overrides = read_results(toy.folder / "grid/TOY/ours/end-to-end/seed2")["overrides"]
    assert overrides["freeze"] == "False" and overrides["ssl_hub"] == "encoder" and overrides["seed"] == "2"
    baseline = read_results(toy.folder / "grid/TOY/filterbank/filterbank/seed1")["overrides"]
    assert baseline["layer"] == "last" and baseline["mode"] == "filterbank" and baseline["freeze"] == "True"


def test_seeds_share_a_row_with_mean_and_deviation_beside_the_interval(toy):
    toy.run(encoders={"ours": "encoder"}, modes=["frozen"])
    records = [read_results(toy.folder / f"grid/TOY/ours/frozen/seed{seed}") for seed in (1, 2)]
    values = [record["metrics"]["WER"]["value"] for record in records]
    mean = sum(values) / 2
    deviation = (sum((value - mean) ** 2 for value in values) / 1) ** 0.5
    rows = [line for line in toy.table().splitlines() if "| ours " in line]
    assert len(rows) == 1
    low, high = records[0]["metrics"]["WER"]["ci95"]
    assert (
        f"{values[0]:.1f} [{low:.1f}, {high:.1f}]" in rows[0]
        and f"{mean:.1f} ± {deviation:.1f} (2)" in rows[0]
    )
    assert "1, 2" in rows[0] and "one seed" not in toy.table() and "weighted" in rows[0]
    assert "of the smallest seed" in toy.table()


def test_learning_rates_are_chosen_on_valid_and_go_to_the_other_seeds(toy):
    """By test 0.001 would be chosen, by valid it is 0.003."""
    toy.run(
        encoders={"ours": "encoder"},
        modes=["frozen"],
        grid={"head_lr": [0.01, 0.001, 0.003]},
        seeds=[7, 8, 9],
    )
    place = "grid/TOY/ours/frozen"
    assert sorted(runs(toy.folder)) == [
        f"{place}/seed7/head_lr={rate}" for rate in ("0.001", "0.003", "0.01")
    ] + [f"{place}/seed{seed}/head_lr=0.003" for seed in (8, 9)]
    tests = {
        rate: read_results(toy.folder / place / f"seed7/head_lr={rate}")["metrics"]["WER"]["value"]
        for rate in ("0.01", "0.003", "0.001")
    }
    assert tests["0.001"] < tests["0.003"] < tests["0.01"]
    cell = cells(toy)["TOY", "ours", "frozen"]
    assert cell["chosen"] == {"head_lr": 0.003} and cell["chosen_by"] == "valid WER of seed 7"
    assert cell["valid"]["head_lr=0.001"] == pytest.approx(20) and cell["valid"]["head_lr=0.003"] == 0
    assert [run["seed"] for run in cell["runs"]] == ["7", "8", "9"]
    assert toy.table().count("| ours ") == 1 + 3 and "head_lr=0.003" in toy.table()
    assert f"{tests['0.003']:.1f} [" in toy.table() and f"{tests['0.001']:.1f} [" not in toy.table()
    assert "(3)" in toy.table()


def test_a_rate_that_fails_is_not_chosen_and_its_cell_goes_on(toy, capsys):
    rates = {"head_lr": [0.003, 0.01]}
    task = {"recipe": "recipes/TOY/Corpus", "overrides": {"fails_on": "head_lr=0.003"}}
    assert toy.run(encoders={"ours": "encoder"}, modes=["frozen"], grid=rates, tasks={"TOY": task}) == 1
    cell = cells(toy)["TOY", "ours", "frozen"]
    assert cell["chosen"] == {"head_lr": 0.01} and cell["valid"]["head_lr=0.003"] is None
    assert "grid/TOY/ours/frozen/seed2/head_lr=0.01" in runs(toy.folder, "ended")
    assert "FAILED TOY/ours/frozen/seed1/head_lr=0.003: exit code 1" in capsys.readouterr().out


def test_the_best_validation_counts_not_the_last_one(tmp_path):
    (tmp_path / "hyperparams.yaml").write_text("key_metric: BLEU\nkey_metric_is_better: higher\n")
    lines = [
        '{"stage": "train", "BLEU": 99}',
        '{"stage": "valid", "BLEU": 3}',
        '{"stage": "valid", "BLEU": 9}',
    ]
    lines += [
        '{"stage": "valid", "BLEU": NaN}',
        '{"stage": "valid", "BLEU": 4}',
        '{"stage": "valid", "loss": 1}',
    ]
    (tmp_path / "steps.jsonl").write_text("\n".join(lines))
    assert best_on_valid(tmp_path) == ("BLEU", "higher", 9)
    (tmp_path / "steps.jsonl").unlink()
    assert best_on_valid(tmp_path) == ("BLEU", "higher", None)


def test_a_failing_cell_is_reported_and_stops_nobody_else(toy, capsys):
    task = {"recipe": "recipes/TOY/Corpus", "overrides": {"fails_on": "ours/end-to-end/seed2"}}
    assert toy.run(tasks={"TOY": task}) == 1
    said = capsys.readouterr().out
    assert "FAILED TOY/ours/end-to-end/seed2: exit code 2 (usage" in said
    assert "grid/TOY/ours/end-to-end/seed2/console.txt" in said
    assert "    the last words of grid/TOY/ours/end-to-end/seed2" in said
    assert len(runs(toy.folder, "ended")) == 9
    assert toy.table().split("### Against")[0].count("| ours ") == 2
    # mended, it alone is run again: the folder is no longer the failing one
    assert toy.run(tasks={"TOY": {**task, "overrides": {"fails_on": "nothing at all"}}}) == 0


def test_what_failed_is_told_with_bars_on_the_screen_and_pictures_show_the_others(toy, capfd):
    recipe = {"recipe": "recipes/TOY/Corpus"}
    tasks = {"TOY": recipe, "BAD": {**recipe, "overrides": {"fails_on": "BAD"}}}
    small = dict(tasks=tasks, encoders={"ours": "encoder"}, modes=["frozen"], seeds=[2])
    assert toy.run(**small, call={"show": True}) == 1
    said, shown = capfd.readouterr()
    last_line = "the last words of grid/BAD/ours/frozen/seed2"
    assert f"    {last_line}" in said, "the reason stands beside the failed run"
    assert last_line in shown, "and where it happened"
    assert last_line in (toy.folder / "grid/BAD/ours/frozen/seed2/console.txt").read_text()
    finish(toy.folder / "grid")
    assert sorted(path.name for path in (toy.folder / "grid").glob("learning*")) == [
        "learning_curves_TOY.png"
    ]


def test_the_failed_alone_is_tried_again(toy):
    (toy.folder / "recipes/TOY/Corpus/train.py").chmod(0o644)
    flag = toy.folder / "broken"
    train = toy.folder / "recipes/TOY/Corpus/train.py"
    text = train.read_text().replace(
        'log(folder, "begun")',
        'log(folder, "begun")\n    Path("broken").exists() and "seed2" in str(folder) and sys.exit(3)',
    )
    train.write_text(text)
    flag.touch()
    changes = dict(encoders={"ours": "encoder"}, modes=["frozen"])
    assert toy.run(**changes) == 1
    flag.unlink()
    assert toy.run(**changes) == 0
    place = "grid/TOY/ours/frozen"
    assert sorted(runs(toy.folder)) == [f"{place}/seed1", f"{place}/seed2", f"{place}/seed2"]
    assert not list((toy.folder / place).glob("*.old*"))


CHAINS = {
    "encoders": {"ours": "encoder", "made": {"recipe": "recipes/PRE/toy", "overrides": {"head_lr": 0.1}}},
    "tasks": {
        "A": {
            "recipe": "recipes/TOY/Corpus",
            "overrides": {"train_csv": "data/m.csv", "valid_csv": "data/m.csv"},
        },
        "B": {
            "recipe": "recipes/TOY/Corpus",
            "overrides": {"train_csv": "data/m.csv", "valid_csv": "data/m.csv"},
        },
    },
    "modes": {
        "frozen": None,
        "continued SSL": {"recipe": "recipes/PRE/toy", "data_folder": "data"},
        "ASR first": {"task": "A"},
        "end to end": {"overrides": {"head_lr": 0.004}},
    },
    "seeds": [3],
}


def make_chains(toy):
    (toy.folder / "data/m.csv").write_text("ID,wav\n1,$data_root/train.tsv\n")
    train = toy.folder / "recipes/PRE/toy/train.py"
    # a pre-training exports always
    train.write_text(train.read_text().replace('if options["freeze"] == "False" or', "if True or"))


def test_chains_run_in_order_and_share_what_they_need(toy):
    make_chains(toy)
    assert toy.run(**CHAINS) == 0
    begun, ended = runs(toy.folder), runs(toy.folder, "ended")
    assert len(begun) == len(set(begun)) == len(ended) == 16 + 1 + 2
    shared = [run for run in begun if run.startswith("grid/encoders/")]
    assert sorted(shared) == [
        "grid/encoders/continued_SSL/made", "grid/encoders/continued_SSL/ours",
        "grid/encoders/pretraining/made",
    ]  # fmt: skip

    def used(place, key="ssl_hub"):
        return read_results(toy.folder / place)["overrides"][key]

    times = [json.loads(line) for line in (toy.folder / "runs.log").read_text().splitlines()]
    when = {(line[0], line[1]): line[4] for line in times}
    for task in "AB":
        for encoder in ("ours", "made"):
            place = f"grid/{task}/{encoder}"
            assert used(f"{place}/ASR_first/seed3") == f"grid/A/{encoder}/end-to-end/seed3/encoder"
            assert used(f"{place}/continued_SSL/seed3") == f"grid/encoders/continued_SSL/{encoder}/encoder"
            for mode in ("ASR_first", "continued_SSL"):
                needed = used(f"{place}/{mode}/seed3").removesuffix("/encoder")
                assert when[needed, "ended"] < when[f"{place}/{mode}/seed3", "begun"]
            assert used(f"{place}/frozen/seed3", "freeze") == "True"
    assert used("grid/encoders/continued_SSL/ours", "init_from") == "encoder"
    assert (
        used("grid/encoders/continued_SSL/made", "init_from") == "grid/encoders/pretraining/made/pretraining"
    )
    assert used("grid/B/ours/end-to-end/seed3", "head_lr") == "0.004"
    assert toy.run(**CHAINS) == 0 and len(runs(toy.folder)) == 19


def test_a_curriculum_starts_each_run_from_that_of_the_task_before(toy):
    make_chains(toy)
    tasks = {"A": CHAINS["tasks"]["A"], "B": {**CHAINS["tasks"]["B"], "start_from": "A"}}
    encoders = {"filterbank": "mel_filterbank", "made": CHAINS["encoders"]["made"]}
    grid = {**CHAINS, "tasks": tasks, "encoders": encoders}
    assert toy.run(**grid) == 0
    times = [json.loads(line) for line in (toy.folder / "runs.log").read_text().splitlines()]
    when = {(line[0], line[1]): line[4] for line in times}
    started = {"filterbank": "filterbank", "frozen": "frozen", "end-to-end": "end-to-end"}
    started["ASR_first"] = "end-to-end"  # whose encoder it hears
    for encoder, modes in (("filterbank", ["filterbank"]), ("made", ["frozen", "end-to-end", "ASR_first"])):
        for mode in modes:
            used = read_results(toy.folder / f"grid/B/{encoder}/{mode}/seed3")["overrides"]
            before = f"grid/A/{encoder}/{started[mode]}/seed3"
            assert used["init_from_run"] == before
            assert when[before, "ended"] < when[f"grid/B/{encoder}/{mode}/seed3", "begun"]
            if mode in ("end-to-end", "ASR_first"):
                assert used["ssl_hub"] == f"{before}/encoder"
    fresh = read_results(toy.folder / "grid/B/made/continued_SSL/seed3")["overrides"]
    assert "init_from_run" not in fresh
    count = len(runs(toy.folder))
    assert toy.run(**grid) == 0 and len(runs(toy.folder)) == count
    results = toy.folder / "grid/A/made/frozen/seed3/results.json"
    results.write_text(results.read_text().replace('"seed": 3', '"seed":  3'))
    assert toy.run(**grid) == 0 and runs(toy.folder)[count:] == ["grid/B/made/frozen/seed3"]


def test_a_start_needs_one_rate(toy):
    tasks = {n: {**t, "grid": {"head_lr": [0.1, 0.2]}} for n, t in CHAINS["tasks"].items()}
    tasks["B"]["start_from"] = "A"
    with pytest.raises(UsageError, match="B.start_from: A tries 2 rates"):
        toy.run(tasks=tasks)


def test_the_cells_of_a_task_are_compared_with_its_filterbanks(toy):
    rates = {"ours": 0.001, "worse": 0.03, "filterbank": 0.01}
    recipe = {"recipe": "recipes/TOY/Corpus"}
    encoders = {
        name: {"source": source, "run_overrides": {"head_lr": rates[name]}}
        for name, source in {"ours": "encoder", "worse": "other", "filterbank": "mel_filterbank"}.items()
    }
    assert toy.run(encoders=encoders, tasks={"A": recipe}, modes=["frozen"], seeds=[1]) == 0
    rows = [line.replace(" ", "").strip("|").split("|") for line in toy.table().splitlines()]
    begin = rows.index(["###Againstfilterbanks"])
    found = {row[1]: row[3:] for row in rows[begin + 4 : begin + 6]}
    assert set(found) == {"ours", "worse"} and found["ours"][3] == "better" and found["worse"][3] == "worse"
    wer = {n: read_results(toy.folder / f"grid/A/{n}/{m}/seed1")["metrics"]["WER"]["value"]
           for n, m in (("ours", "frozen"), ("filterbank", "filterbank"))}  # fmt: skip
    assert found["ours"][:2] == ["WER", f"{wer['filterbank']:.1f}"]
    assert found["ours"][2].startswith(f"{wer['ours'] - wer['filterbank']:+.1f}[-")
    assert rows[0][:5] == ["task", "metric", "filterbank", "ours,frozen", "worse,frozen"]  # the summary
    assert rows[2][:2] == ["A", "WER(%)↓"]
    assert [cell.split("[")[0] for cell in rows[2][2:4]] == [f"{wer[n]:.1f}" for n in ("filterbank", "ours")]
    # of another test set: said, and the rest of the table stands
    path = toy.folder / "grid/A/filterbank/filterbank/seed1/utterances.csv"
    path.write_text("\n".join(path.read_text().splitlines()[:-1]) + "\n")
    assert toy.run(encoders=encoders, tasks={"A": recipe}, modes=["frozen"], seeds=[1]) == 0
    assert "not compared: Different test sets: 1 utterances only in" in toy.table()


def test_a_task_in_which_nothing_beats_the_trivial_baseline_is_a_failure(toy, capsys):
    recipe = {"recipe": "recipes/TOY/Corpus"}
    tasks = {
        "A": {**recipe, "overrides": {"beats": False}, "modes": {"frozen": {"beats": True}}},
        "B": {**recipe, "overrides": {"beats": False}},
    }
    assert toy.run(tasks=tasks, seeds=[1]) == 0
    changes = dict(tasks=tasks, seeds=[1], beats_trivial_baseline=True)
    assert toy.run(**changes) == 1
    said = capsys.readouterr().out
    assert "FAILED B: nothing beats" in said and "FAILED A" not in said
    rows = [line.replace(" ", "").strip("|").split("|") for line in said.splitlines()]
    assert ["A", "ours", "frozen", "WER", "100.0", "-3.0[-4.0,-2.0]", "better"] in rows
    tasks["B"]["modes"] = {"frozen": {"beats": True}}
    only_random = [{"encoder": "ours"}, {"encoder": "filterbank"}]
    assert toy.run(**changes) == 0
    assert toy.run(**changes, exclude=only_random) == 1, "an untrained encoder does not count"


def test_the_time_left_is_that_of_steps_of_the_same_kind():
    names = ["encoders/pretraining/a", *(f"T/a/frozen/seed{seed}" for seed in range(5))]
    steps = {name: SimpleNamespace(name=name, slots=1 + (name == names[0])) for name in names}
    progress = Progress(SimpleNamespace(steps=steps), Slots(2, 1, gpus=[]))

    def left_after(index, seconds, status=FINISHED):
        progress.ended(steps[names[index]], Outcome(status, seconds))
        return progress.left()

    assert left_after(0, 900) == "", "an encoder's training says nothing of a task's time"
    assert left_after(1, 100) == "; about 3 min left"  # four of 100 s, two at once
    assert left_after(2, 0, REUSED) == "; about 2 min left"  # three
    assert left_after(3, 300) == "; about 3 min left"  # two of 200 s, both at once
    assert left_after(4, 50) == "; about 2 min left"  # one of 150 s
    assert left_after(5, 50) == ""
    progress.close()


def test_what_needs_a_failed_step_is_not_run(toy, capsys):
    make_chains(toy)
    tasks = {
        n: {**t, "overrides": {**t["overrides"], "fails_on": "A/ours/end-to-end"}}
        for n, t in CHAINS["tasks"].items()
    }
    assert toy.run(**{**CHAINS, "tasks": tasks}) == 1
    said = capsys.readouterr().out
    assert "NOT RUN B/ours/ASR_first/seed3: needs A/ours/end-to-end/seed3" in said
    assert "FAILED A/ours/end-to-end/seed3: exit code 3 (content of the data)" in said
    begun = runs(toy.folder)
    assert "grid/B/made/ASR_first/seed3" in begun and "grid/B/ours/ASR_first/seed3" not in begun


def test_cells_run_side_by_side_with_their_threads_and_devices(toy, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    changes = dict(
        encoders={"ours": "encoder"}, modes=["frozen"], seeds=[1, 2, 3, 4], threads=3, parallel=None
    )
    task = {"recipe": "recipes/TOY/Corpus", "overrides": {"seconds": 1.0}}
    started = time.time()
    assert toy.run(**changes, tasks={"TOY": task}) == 0
    lines = [json.loads(line) for line in (toy.folder / "runs.log").read_text().splitlines()]
    assert {line[2] for line in lines} == {"3"} and {line[3] for line in lines} == {"4", "7"}
    events = sorted((line[4], 1 if line[1] == "begun" else -1) for line in lines)
    at_once = [sum(step for _, step in events[: i + 1]) for i in range(len(events))]
    assert max(at_once) == 2 and time.time() - started < 60


def test_pretraining_may_take_several_slots(toy, monkeypatch):
    """It runs alone, with the threads of both; the others side by side"""
    make_chains(toy)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    recipe, slow = {"recipe": "recipes/TOY/Corpus"}, {"overrides": {"seconds": 0.5}}
    encoders = {"filterbank": "mel_filterbank", "made": {**CHAINS["encoders"]["made"], "slots": 2}}
    options = dict(encoders=encoders, modes=["frozen"], seeds=[1, 2], threads=2, parallel=2)
    assert toy.run(**options, tasks={"TOY": {**recipe, **slow}}) == 0
    lines = [json.loads(line) for line in (toy.folder / "runs.log").read_text().splitlines()]
    threads = {folder: count for folder, _, count, *_ in lines}
    assert {threads.pop(folder) for folder in list(threads) if "encoders" in folder} == {"4"}
    assert set(threads.values()) == {"2"}
    lines.sort(key=lambda line: line[4])
    (begun,) = [i for i, line in enumerate(lines) if "encoders" in line[0] and line[1] == "begun"]
    assert "encoders" in lines[begun + 1][0], "something ran beside it"
    before = [1 if line[1] == "begun" else -1 for line in lines[:begun]]
    assert sum(before) == 0


def test_lanes_follow_the_machine(monkeypatch):
    monkeypatch.setattr("lebench_sb.grid.schedule.cores", lambda: 16)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    slots = Slots(gpus=[])
    assert (slots.parallel, slots.threads) == (4, 4)
    monkeypatch.setattr("lebench_sb.grid.schedule.cores", lambda: 2)
    slots = Slots(gpus=[])
    assert (slots.parallel, slots.threads) == (2, 1)
    assert Slots(gpus=["0", "1", "2"]).parallel == 3 and Slots(5, 1, gpus=["0"]).parallel == 5
    monkeypatch.setenv("OMP_NUM_THREADS", "8")
    assert Slots(gpus=[]).threads == 8 and Slots(gpus=[]).parallel == 1


def test_jobs_of_submitit(toy):
    pytest.importorskip("submitit")
    changes = dict(encoders={"ours": "encoder"}, modes=["frozen"], seeds=[1])
    assert toy.run(**changes, call={"slurm": "cluster=local,timeout_min=5"}) == 0
    assert len(runs(toy.folder, "ended")) == 1 and list((toy.folder / "grid/jobs").glob("*_result.pkl"))
    assert toy.table().count("| ours ") == 1
    assert toy.run(**changes) == 0 and len(runs(toy.folder)) == 1


@pytest.mark.parametrize("settings, message", [
    ("partition", "write key=value"), ("partition=", "write key=value"),
    ("cluster=local,timeout_mins=5", "timeout_mins.*did you mean timeout_min"),
    ("cluster=nowhere", "nowhere"),
])  # fmt: skip
def test_wrong_slurm_settings_are_usage_mistakes(toy, settings, message):
    pytest.importorskip("submitit")
    with pytest.raises(UsageError, match=message):
        toy.run(call={"slurm": settings})
    assert not runs(toy.folder)


@pytest.mark.slow
def test_a_job_that_is_lost_is_a_failed_step(toy, capsys):
    pytest.importorskip("submitit")
    train = toy.folder / "recipes/TOY/Corpus/train.py"
    kill = 'if "seed1" in str(folder):\n        os.kill(os.getppid(), 9)'  # the job, as a node that dies
    train.write_text(train.read_text().replace('print("a line of the console")', kill))
    changes = dict(encoders={"ours": "encoder"}, modes=["frozen"])
    assert toy.run(**changes, call={"slurm": "cluster=local"}) == 1
    said = capsys.readouterr().out
    assert "FAILED TOY/ours/frozen/seed1" in said and len(runs(toy.folder, "ended")) == 1


def test_the_environment_stays_as_it_was(toy):
    before = dict(os.environ)
    toy.run(encoders={"ours": "encoder"}, modes=["frozen"], seeds=[1])
    assert dict(os.environ) == before
