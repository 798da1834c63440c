"""Every file that a command, its YAML or a manifest names is part of what a finished run depends on."""

import os
from pathlib import Path

import pytest

from lebench_sb.core.errors import UsageError
from lebench_sb.manifests.member_names import manifest_paths
from lebench_sb.manifests.utterance import COLUMNS
from lebench_sb.training.fingerprint import data_hash, forget, named_paths

HEADER = ",".join(COLUMNS)
ROWS = {
    "recording": "u,1,$data_root/a.wav,,,s,F,fr,,",
    "piece": "u,1,$data_root/a.wav,1,2,s,F,fr,,",
    "member": "u,1,$data_root/x.tar::clips/a.flac,,,s,F,fr,,",
    "index": "u,1,$data_root/y.tar::clips/a.flac,,,s,F,fr,,",
    "trace": "u,1,$data_root/b.wav,,,s,F,fr,$data_root/t.csv,",
    "tree": "u,1,$data_root/b.wav,,,s,F,fr,,$data_root/t.conllu",
}
FILES = {
    "recording": "a.wav", "piece": "a.wav", "member": "x.tar", "index": "y.tar.index", "trace": "t.csv",
    "tree": "t.conllu",
}  # fmt: skip


@pytest.fixture
def data(tmp_path, monkeypatch):
    """A data folder with one of everything; the working folder"""
    monkeypatch.chdir(tmp_path)
    root = tmp_path / "data"
    root.mkdir()
    for name in ("a.wav", "b.wav", "x.tar", "y.tar", "y.tar.index", "t.csv", "t.conllu"):
        (root / name).write_text(name)
    return root


def hashed(overrides, resolved=""):
    forget()
    return data_hash(overrides, resolved, [])


@pytest.mark.parametrize("kind", ROWS)
def test_what_a_manifest_names_is_part_of_the_data(data, kind):
    Path("m.csv").write_text(f"{HEADER},trace,tree\n{ROWS[kind]}\n")
    overrides = {"train_csv": "m.csv", "data_folder": str(data)}
    before = hashed(overrides)
    (data / "untold").write_text("x")
    assert hashed(overrides) == before
    os.utime(data / FILES[kind], ns=(5, 5))
    changed = hashed(overrides)
    assert changed != before
    (data / FILES[kind]).unlink()
    assert hashed(overrides) not in (before, changed)


@pytest.mark.parametrize(
    "key, value",
    [
        ("lm", "f.txt"), ("trials", "f.txt"), ("probe_csv", "e.txt,f.txt"), ("head", "{words: f.txt}"),
        ("codes", "[e.txt, f.txt]"), ("lm", "e,f.txt"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("typed", [True, False], ids=["typed", "in the YAML"])
def test_a_file_that_a_value_names_is_part_of_the_data(data, key, value, typed):
    for name in ("e.txt", "f.txt", "e,f.txt"):
        Path(name).write_text("one")
    overrides = {key: value} if typed else {}
    before = hashed(overrides, f"{key}: {value}")
    assert hashed(overrides, f"{key}: {value}") == before
    name = "e,f.txt" if value == "e,f.txt" else "f.txt"
    state = os.stat(name)
    Path(name).write_text("two")
    os.utime(name, ns=(state.st_atime_ns, state.st_mtime_ns + 1))
    assert hashed(overrides, f"{key}: {value}") != before


def test_results_of_another_run_count_and_the_own_ones_do_not(data):
    for folder in ("asr", "own/save"):
        Path(folder).mkdir(parents=True)
        (Path(folder) / "results.json").write_text("1")
    text = "output_folder: own\nsave_folder: own/save\nasr_run: asr\nlog: own/log.txt\n"
    text += "test_csv: own/test.csv\n"
    before = hashed({}, text)
    (Path("own") / "log.txt").write_text("written by the run")
    (Path("own") / "test.csv").write_text(f"{HEADER}\n")
    (Path("own/save") / "results.json").write_text("22")
    assert hashed({}, text) == before
    (Path("asr") / "results.json").write_text("22")
    assert hashed({}, text) != before


def test_a_manifest_of_the_probe_counts_with_its_recordings(data):
    Path("p.csv").write_text(f"{HEADER}\n{'u,1,$data_root/a.wav,,,s,F,fr'}\n")
    text = f"data_folder: {data.parent}/no\nprobe_csv: p.csv\n"
    text = text.replace("/no", "/data")
    Path("m.csv").write_text(f"{HEADER}\n")
    before = hashed({"train_csv": "m.csv"}, text)
    os.utime(data / "a.wav", ns=(5, 5))
    assert hashed({"train_csv": "m.csv"}, text) != before


# ---- commas


COMMAS = [
    (["a.csv", "b.csv"], "a.csv,b.csv", ["a.csv", "b.csv"]),
    (["a.csv", "b.csv"], "a.csv, b.csv ", ["a.csv", "b.csv"]),
    (["a,b.csv"], "a,b.csv", ["a,b.csv"]),
    (["a,b.csv", "c.csv"], "a,b.csv,c.csv", ["a,b.csv", "c.csv"]),
    (["a, b.csv", "c.csv"], "c.csv, a, b.csv", ["c.csv", "a, b.csv"]),
    ([], "a.csv,b.csv", ["a.csv", "b.csv"]),
    (["a.csv"], "a.csv,b.csv", ["a.csv", "b.csv"]),
]


@pytest.mark.parametrize("files, value, paths", COMMAS)
def test_a_comma_may_belong_to_a_name(tmp_path, monkeypatch, files, value, paths):
    monkeypatch.chdir(tmp_path)
    for name in files:
        Path(name).write_text("")
    assert manifest_paths(value) == named_paths(value) == [Path(path) for path in paths]


def test_the_items_of_a_list_are_taken_as_they_are():
    assert manifest_paths(["a,b.csv", "c.csv"]) == named_paths("['a,b.csv', c.csv]")
    assert named_paths("[a.csv, b.csv]") == [Path("a.csv"), Path("b.csv")]


@pytest.mark.parametrize("value", ["a,b", "c,a,b", "a,b,c,a,b"])
def test_a_comma_that_may_mean_two_things_is_refused(tmp_path, monkeypatch, value):
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b", "c", "a,b"):
        Path(name).write_text("")
    with pytest.raises(UsageError, match="write a YAML list"):
        manifest_paths(value)


@pytest.mark.parametrize("value", ["a.csv,", ",", "", "a.csv,,b.csv"])
def test_an_empty_path_is_refused(value):
    with pytest.raises(UsageError, match="an empty path"):
        manifest_paths(value)
