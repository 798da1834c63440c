"""results.json of anybody: what its texts would do to a terminal, a page, LaTeX or a spreadsheet; what it may
not be."""

import csv
import io
import json
import os
import re
import shutil

import pytest
from example_runs import make_record, make_rows, write_run

from lebench_sb.cli import run
from lebench_sb.core import escape
from lebench_sb.core.errors import DataError
from lebench_sb.evaluation import comparison, results, tables
from lebench_sb.evaluation.plots import leaderboard_chart
from lebench_sb.training import energy

ROWS = make_rows(0.2, speakers=3, per_speaker=2)
NASTY = {
    "a new line": "a\nb", "a screen": "\x1b[2J\x1b]0;x\x07", "html": "<script>alert(1)</script>",
    "a cell": "a | b", "code": "`x`", "a link": "![x](http://x.y/z)", "latex": "$\\input{/etc/passwd}$",
    "latex again": "\\write18{id} % & # _ ^ {", "a formula": "=cmd|' /C calc'!A0", "a plus": "+1+2",
    "a minus": "-2+3", "an at": "@SUM(1)", "a formula after a space": " =1+1",
    "a tab": "\t=1", "a giant": "x" * 50_000,
    "half a letter": "\ud800",
}  # fmt: skip


@pytest.fixture(scope="module")
def nasty_run(tmp_path_factory):
    """A function: nasty text -> folder of a run in which each text that a table shows is that"""

    def make(text):
        folder = tmp_path_factory.mktemp("run")
        record = make_record(ROWS, system=text, task=text, corpus=text, mode=text, layer=text)
        record["metrics"] = {text: {**record["metrics"]["WER"], "unit": text, "method": text}}
        record["details"] = {"frame_norm": text}
        results.write_results(folder, make_record(ROWS), ROWS)
        (folder / "results.json").write_text(json.dumps(record))
        return folder

    return make


def as_shown(text):
    text.encode()  # no half letters
    assert re.fullmatch(r"[^\x00-\x09\x0b-\x1f\x7f-\x9f]*", text), "something that a terminal obeys"
    return text.splitlines()


@pytest.mark.parametrize("text", NASTY.values(), ids=NASTY)
def test_no_text_does_anything_in_a_table(nasty_run, text):
    folder = nasty_run(text)
    lines = as_shown(tables.table([folder], "md"))
    assert len(lines) == 7 and len({len(re.findall(r"(?<!\\)\|", line)) for line in lines[2:5]}) == 1
    for sign in ("<", ">", "`", "$", "!["):
        assert not re.search(rf"(?<!\\){re.escape(sign)}(?!\\)", "\n".join(lines).replace("![x]\\(", ""))
    assert "](" not in "\n".join(lines)
    lines = as_shown(tables.table([folder], "latex"))
    assert lines[0].startswith("% ") and lines[1].startswith("% ")
    body = [line for line in lines[2:] if line]
    assert {line.split("{")[0] for line in body if line.startswith("\\")} <= {
        "\\begin", "\\end", "\\toprule", "\\midrule", "\\bottomrule",
    }  # fmt: skip
    assert "\\input" not in body[4] and "\\write" not in body[4]
    assert len("".join(lines)) < 20_000


@pytest.mark.parametrize("text", NASTY.values(), ids=NASTY)
def test_no_cell_of_the_csv_is_a_formula(nasty_run, text):
    shown = tables.table([nasty_run(text)], "csv")
    as_shown(shown)
    header, row = csv.reader(io.StringIO(shown))
    assert len(header) == len(row)
    for cell in header + row:
        is_number = re.fullmatch(r"[-+]?[\d.]+(e[-+]?\d+)?", cell)
        assert not cell.lstrip().startswith(("=", "+", "-", "@")) or is_number


def test_plain_texts_and_numbers_stay_as_they_are():
    for text in (
        "results/demo/encoder",
        "random:ours",
        "23.4 [21.9, 25.0]",
        "μ ± σ (3)",
        "a_b-c",
        "WER (%) ↓",
    ):
        assert (
            escape.line(text) == escape.markdown(text) == escape.csv_cell(text) == escape.label(text) == text
        )
    assert escape.csv_cell("-1") == "-1" and escape.csv_cell(-1.5) == -1.5 and escape.csv_cell("=a") == "'=a"


@pytest.mark.parametrize("text", [NASTY["a screen"], NASTY["half a letter"], "$\\frac{$", "$x$"])
def test_compare_and_the_pictures_take_any_text(nasty_run, text, tmp_path):
    folder = nasty_run(text)
    record = json.loads((folder / "results.json").read_text())
    leaderboard_chart([record], tmp_path / "a.png")
    record["metrics"] = make_record(ROWS)["metrics"]
    (folder / "results.json").write_text(json.dumps(record))
    as_shown(comparison.compare(folder, folder))


def test_energy_takes_any_text(tmp_path):
    part = {"part": "a", "kwh": 1.0, "co2_kg": 0.1, "wall_s": 10, "device_h": 0.1, "devices": "1 <b>|\n"}
    folder = tmp_path / "a|b<script>"
    folder.mkdir()
    (folder / "energy.jsonl").write_text(json.dumps({**part, "method": "\x1b[2J<b>"}) + "\n")
    shown = energy.report([folder])
    as_shown(shown)
    assert not re.search(r"(?<!\\)<(b|script)", shown)


@pytest.mark.parametrize("change, words", [
    ({"kwh": "x"}, "kwh is 'x'"), ({"wall_s": None}, "wall_s is None"), ({"co2_kg": True}, "co2_kg"),
    ({"kwh": float("nan")}, "kwh is nan"), ({"part": ["a"]}, "part is"), ({"method": 3}, "method is 3"),
])  # fmt: skip
def test_energy_that_is_none_is_named_with_its_line(tmp_path, change, words):
    part = {"part": "a", "kwh": 1.0, "co2_kg": 0.1, "wall_s": 10, "device_h": 0.1, "method": "x", **change}
    (tmp_path / "energy.jsonl").write_text(json.dumps(part) + "\n")
    with pytest.raises(DataError, match=rf"energy\.jsonl, record 1: {words}"):
        energy.report([tmp_path])


# ---- files that are none

GOOD = make_record(ROWS)
BROKEN = {
    "deep": "[" * 50_000, "deep objects": '{"a":' * 50_000, "a list": "[]", "a number": "1", "nothing": "",
    "Latin-1": b"\xe9", "NaN": json.dumps({**GOOD, "time": {"train_s": float("nan"), "device_h": 0}}),
    "a number of 5,000 digits": "1" * 5000, "a huge number": json.dumps({**GOOD, "seed": 10**400}),
    "a list for a text": json.dumps({**GOOD, "task": ["x"]}),
    "a text for a list": json.dumps({**GOOD, "caveats": "x"}),
    "a caveat that is a list": json.dumps({**GOOD, "caveats": [["x"]]}),
    "no metric": json.dumps({**GOOD, "metrics": [1]}),
    "a frame norm": json.dumps({**GOOD, "details": {"frame_norm": [1]}}),
    "an interval": json.dumps({**GOOD, "metrics": {"WER": {**GOOD["metrics"]["WER"], "ci95": [{}, 1]}}}),
}  # fmt: skip


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN)
@pytest.mark.parametrize("command", ["table", "compare"])
def test_a_results_json_that_is_none_is_one_line(tmp_path, capsys, content, command):
    path = tmp_path / "results.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert run([command, str(path), *([str(path)] if command == "compare" else [])]) == 3
    said = capsys.readouterr()
    assert said.out == "" and len(said.err.splitlines()) == 1 and str(path) in said.err


def test_a_pipe_named_results_json_is_one_line(tmp_path, capsys):
    os.mkfifo(tmp_path / "results.json")
    assert run(["table", str(tmp_path)]) == 3 and "a pipe" in capsys.readouterr().err


def test_one_broken_file_among_many_is_named_with_the_way_out(tmp_path, capsys):
    for name in "abc":
        results.write_results(tmp_path / name, GOOD, ROWS)
    (tmp_path / "b" / "results.json").write_text("{")
    assert run(["table", str(tmp_path)]) == 3
    said = capsys.readouterr().err
    assert "b/results.json is not JSON" in said and "1 of 3 files" in said and "name the others" in said
    assert run(["table", str(tmp_path / "a"), str(tmp_path / "c")]) == 0


@pytest.mark.parametrize("name", ["results.json", "utterances.csv"])
def test_a_link_in_a_run_folder_is_replaced_and_not_written_through(tmp_path, name):
    (tmp_path / "precious").write_text("mine")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / name).symlink_to(tmp_path / "precious")
    write_run(tmp_path / "run")
    assert (tmp_path / "precious").read_text() == "mine" and not (tmp_path / "run" / name).is_symlink()


# ---- utterances.csv


def changed(folder, change):
    path = folder / "utterances.csv"
    path.write_bytes(change(path.read_bytes()))


@pytest.mark.parametrize("change, words", [
    (lambda b: b"", "no column ID"), (lambda b: b.replace(b"spk_id", b"speaker", 1), "no column spk_id"),
    (lambda b: b + b"\xe9\n", "utterances.csv"), (lambda b: b + b"a\0b\n", "utterances.csv"),
    (lambda b: b + b'"' + b"x" * 200_000 + b'"\n', "utterances.csv"),
    (lambda b: b + b.splitlines()[1] + b"\n", "same utterance"),
    (lambda b: re.sub(rb"(utt0000,\w+,\w,[\d.]+),\d+", rb"\1,x", b), "utt0000: WER_errors is 'x'"),
    (lambda b: re.sub(rb"(utt0000,\w+,\w,[\d.]+),\d+", rb"\1,nan", b), "utt0000: WER_errors is 'nan'"),
])  # fmt: skip
def test_an_utterances_csv_that_is_none_is_one_line(tmp_path, capsys, change, words):
    for name in "ab":
        results.write_results(tmp_path / name, GOOD, ROWS)
    changed(tmp_path / "b", change)
    assert run(["compare", str(tmp_path / "a"), str(tmp_path / "b")]) == 3
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1 and words in said


def test_rows_in_another_order_are_still_pairs(tmp_path):
    """Two files of the same utterances, one of them sorted by hand: no pair of different utterances"""
    results.write_results(tmp_path / "a", GOOD, ROWS)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    changed(tmp_path / "b", lambda b: b"".join([b.splitlines(True)[0], *reversed(b.splitlines(True)[1:])]))
    found = comparison.compare_records(tmp_path / "a", tmp_path / "b", "WER")["metrics"]["WER"]
    assert found["difference"] == 0 and found["ci95"] == [0, 0]
