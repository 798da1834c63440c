"""The command `lebench`: exit codes, one-line errors, and no torch before it is needed."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

import lebench_sb
from lebench_sb import cli
from lebench_sb.manifests.reading import read_manifest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def lebench(capsys):
    """Runs `lebench WORDS`: (exit code, standard output, standard error)."""

    def run(*words):
        code = cli.run([str(word) for word in words])
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def table(tmp_path):
    """A table of eight clips of 0.25 s by four speakers."""
    rows = ["id;path;text;speaker;sex;lang;set"]
    for i in range(8):
        soundfile.write(tmp_path / f"{i}.wav", np.full(4000, 0.1 + i / 100), 16000)
        row = [f"u{i}", f"{i}.wav", f"L'été {i}", f"s{i % 4}", "FM"[i % 2], "fr" if i else "en"]
        rows.append(";".join([*row, "train" if i < 6 else "test"]))
    (tmp_path / "my.csv").write_text("\n".join(rows), encoding="utf-8")
    return tmp_path


def own(folder, *more):
    words = [
        "prepare",
        "own",
        "--csv",
        folder / "my.csv",
        "--data_root",
        folder,
        "--output",
        folder / "M",
        *more,
    ]
    return (
        words
        if "--columns" in more
        else [*words, "--columns", "ID=id,wav=path,wrd=text,spk_id=speaker,gender=sex"]
    )


def test_own_data_as_the_documentation_writes_it(lebench, table):
    code, out, err = lebench(
        *own(table, "--where", "lang=fr", "--split", "set", "--columns", "ID=id,wav=path,wrd=text")
    )
    assert (code, err) == (0, "")
    assert "where lang=fr: 7 of 8 rows" in out and "train.csv: 5 utterances" in out and "no valid.csv" in out
    assert read_manifest(table / "M" / "test.csv", table)[0].labels == {"wrd": "l' été six"}
    assert (
        "already prepared"
        in lebench(
            *own(table, "--where", "lang=fr", "--split", "set", "--columns", "ID=id,wav=path,wrd=text")
        )[1]
    )


def test_options_are_spelt_with_hyphens_too(lebench, table):
    words = ["--data-root" if word == "--data_root" else word for word in own(table, "--ratios", "1,0,0")]
    assert lebench(*words)[0] == 0
    assert (table / "M" / "train.csv").exists()


USAGE = {
    "--csv is missing": (["prepare", "own"], "--csv"),
    "option misspelt": (["prepare", "own", "--data_rot", "x"], "--data_root"),
    "command misspelt": (["prepar"], "prepare"),
    "path missing": (["stats", "nowhere.csv"], "nowhere.csv not found"),
    "results missing": (["table", "nowhere"], "nowhere not found"),
    "grid missing": (["benchmark", "nowhere.yaml"], "nowhere.yaml"),
    "seeds as csv": (["table", ".", "--over_seeds", "--format", "csv"], "mean and standard deviation"),
    "format": (["table", ".", "--format", "html"], "md, csv or latex"),
    "not a number": (["prepare", "miniature", "--output", "x", "--scale", "big"], "--scale"),
}


@pytest.mark.parametrize("case", USAGE)
def test_usage_mistakes_are_one_line_and_code_2(lebench, tmp_path, monkeypatch, case):
    monkeypatch.chdir(tmp_path)
    words, message = USAGE[case]
    code, out, err = lebench(*words)
    assert code == 2 and out == ""
    assert message in err and err.startswith("error: ") and err.count("\n") == 1


@pytest.mark.parametrize(
    "more, message",
    [
        (["--columns", "wav"], "'wav': write MANIFEST_COLUMN=YOUR_COLUMN"),
        (["--columns", "wav=path,wav=id"], "names wav twice"),
        (["--columns", "wav=pth"], "did you mean path?"),
        (["--ratios", "much"], "three numbers"),
        (["--normaliser", "fr1"], "Did you mean fr-1"),
    ],
)
def test_mistakes_in_own_data_options(lebench, table, more, message):
    code, _, err = lebench(*own(table, *more))
    assert code == 2 and message in err and err.count("\n") == 1


def test_bad_data_is_one_line_and_code_3(lebench, table):
    (table / "3.wav").unlink()
    (table / "5.wav").write_bytes(b"<html>")
    code, out, err = lebench(*own(table))
    assert code == 3 and err.count("\n") == 1
    assert "missing audio file (1): line 5" in err and "HTML page" in err


def test_a_traceback_is_shown_on_demand(lebench, monkeypatch):
    monkeypatch.setenv("LEBENCH_TRACEBACK", "1")
    code, _, err = lebench("stats", "nowhere.csv")
    assert code == 2 and "Traceback" in err and err.splitlines()[-1].startswith("error: ")


def test_a_failure_of_ours_is_code_1_with_a_traceback(lebench, table, monkeypatch):
    monkeypatch.setattr("lebench_sb.corpora.own.prepare_own", lambda *words: 1 / 0)
    code, _, err = lebench(*own(table))
    assert code == 1 and "ZeroDivisionError" in err


def test_stats_count_hours_and_speakers_by_gender(lebench, table):
    lebench(*own(table, "--split", "set"))
    code, out, _ = lebench("stats", table / "M" / "train.csv", table / "M" / "test.csv")
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in out.splitlines()]
    assert code == 0 and rows[0][:3] == ["manifest", "utterances", "M / F / U"]
    assert [row[1:3] for row in rows[2:]] == [["6", "3 / 3 / -"], ["2", "1 / 1 / -"], ["8", "4 / 4 / -"]]
    assert rows[4][5:] == ["4 (2/2/-)", "0.2 (0.2/0.2/-)", "0.2-0.2"]


def test_stats_of_known_hours(lebench, tmp_path):
    rows = ["ID,duration,wav,start,stop,spk_id,gender,language"]
    rows += [
        f"u{i},{seconds},$data_root/a.wav,,,s,{gender},fr"
        for i, (seconds, gender) in enumerate([(3600 * 1096 + 43 * 60, "M"), (7200, "F"), (29.0, "U")])
    ]
    (tmp_path / "x.csv").write_text("\n".join(rows), encoding="utf-8")
    out = lebench("stats", tmp_path / "x.csv")[1]
    assert "1,098:43" in out and "1,096:43 / 2:00 / 0:00" in out


def test_validate_accepts_what_prepare_wrote(lebench, table):
    lebench(*own(table, "--split", "set"))
    manifests = [table / "M" / "train.csv", table / "M" / "test.csv"]
    code, out, err = lebench("validate", *manifests, "--data_root", table, "--decode")
    assert (code, err) == (0, "")
    assert "no errors in 2 manifests" in out and "same speaker in" in out


def test_validate_lists_faults_of_audio_and_manifests(lebench, table):
    lebench(*own(table, "--ratios", "1,0,0"))
    manifest = table / "M" / "train.csv"
    soundfile.write(table / "0.wav", np.full(8000, 0.1), 16000)
    (table / "1.wav").unlink()
    soundfile.write(table / "2.wav", np.zeros(4000), 16000)
    soundfile.write(table / "3.wav", np.full((2000, 2), np.nan), 8000, subtype="FLOAT")
    soundfile.write(table / "x.flac", np.random.default_rng(0).normal(0, 0.1, 160000), 16000)
    data = (table / "x.flac").read_bytes()
    (table / "4.wav").write_bytes(data[: len(data) // 2])
    copy = table / "copy.csv"
    copy.write_bytes(manifest.read_bytes())
    report = table / "validation.jsonl"
    words = ["validate", manifest, copy, "--data_root", table, "--decode", "--report", report]
    code, out, err = lebench(*words)
    assert code == 3 and err.count("\n") == 1
    for part in (
        "same ID",
        "same audio",
        "over 5 % off",
        "missing file",
        "digital silence",
        "NaN or infinite",
    ):
        assert part in err
    assert "cut short" in err
    assert "several sampling rates" in out and "several numbers of channels" in out
    findings = [json.loads(line) for line in report.read_text(encoding="utf-8").splitlines()]
    assert sum(f["kind"].startswith("same ID") for f in findings) == 8


def test_validate_hears_a_recording_that_comes_again_under_another_name(lebench, table):
    """A copy in the test set, and one within the training set"""
    for name in ("5.wav", "7.wav"):  # u5 is of train, u7 of test
        (table / name).write_bytes((table / "0.wav").read_bytes())
    lebench(*own(table, "--split", "set"))
    manifests = [table / "M" / "train.csv", table / "M" / "test.csv"]
    for options in [], ["--decode"]:
        code, out, err = lebench("validate", *manifests, "--data_root", table, *options)
        assert code == 3 and "same samples in" in err and "u0 and u7" in err
        assert "same samples twice" in out and "u0 and u5" in out


def test_results_that_cannot_be_read_or_compared_are_code_3(lebench, tmp_path):
    (tmp_path / "results.json").write_text('{"task": "ASR"', encoding="utf-8")
    for words in (["table", tmp_path], ["compare", tmp_path, tmp_path]):
        code, out, err = lebench(*words)
        assert (code, out) == (3, "") and "results.json" in err and err.count("\n") == 1


def test_the_miniature_is_built_with_the_options_given(lebench, monkeypatch, tmp_path):
    miniature = pytest.importorskip("lebench_sb.corpora.miniature.build")
    calls = []

    def build(output, seed, scale, workers, corpora):
        calls.append((output, seed, scale, workers, corpora))
        return {"reused": False, "hours": 0.5, "utterances": 7, "corpora": corpora}

    monkeypatch.setattr(miniature, "build_miniature", build)
    options = ["--output", tmp_path, "--workers", "2", "--scale", "0.1", "--corpora", "mls,media"]
    code, out, _ = lebench("prepare", "miniature", *options)
    assert code == 0 and calls == [(tmp_path, 0, 0.1, 2, ["mls", "media"])]
    assert "mls, media: 0.50 h, 7 utterances" in out

    def refuse(*words):
        raise ValueError("built with other parameters")

    monkeypatch.setattr(miniature, "build_miniature", refuse)
    code, _, err = lebench("prepare", "miniature", "--output", tmp_path)
    assert code == 2 and err == "error: built with other parameters\n"

    def fail(*words):
        raise RuntimeError("no voices: pip install lebench_sb[demo]")

    monkeypatch.setattr(miniature, "build_miniature", fail)
    code, _, err = lebench("prepare", "miniature", "--output", tmp_path)
    assert code == 1 and err.count("\n") == 1 and "no voices" in err


def test_parameters_of_a_corpus_are_checked_against_its_function():
    def prepare_x(data_folder, manifest_folder, normaliser="fr-1", maximum=None, keep=False):
        pass

    words = ["--normaliser", "none", "--maximum=10.5", "--keep", "True"]
    assert cli._parameters(words, prepare_x) == {"normaliser": "none", "maximum": 10.5, "keep": True}
    with pytest.raises(cli.UsageError, match="--normalizer: no such option .did you mean --normaliser"):
        cli._parameters(["--normalizer", "none"], prepare_x)
    with pytest.raises(cli.UsageError, match="--keep needs a value"):
        cli._parameters(["--keep"], prepare_x)
    with pytest.raises(cli.UsageError, match="stray: no such option"):
        cli._parameters(["stray"], prepare_x)


@pytest.mark.parametrize(
    "path", sorted((ROOT / "lebench_sb" / "corpora").glob("[a-z]*.py")), ids=lambda p: p.stem
)
def test_every_corpus_has_its_command(lebench, path):
    code, out, _ = lebench("prepare", path.stem, "--help")
    assert code == 0 and ("--data_folder" in out or path.stem == "own")


def test_a_corpus_with_an_unknown_normaliser_is_a_usage_mistake(lebench, tmp_path):
    words = ["prepare", "mls", "--data_folder", tmp_path, "--output", tmp_path / "M", "--normaliser", "fr1"]
    code, _, err = lebench(*words)
    assert code == 2 and "Did you mean fr-1" in err and err.count("\n") == 1


def test_help_and_version(lebench):
    assert lebench("--version") == (0, f"lebench {lebench_sb.__version__}\n", "")
    for words in (
        [],
        ["prepare"],
        ["stats"],
        ["validate"],
        ["table"],
        ["benchmark"],
        ["compare"],
        ["import"],
        ["prepare", "own"],
    ):
        code, out, _ = lebench(*words, "--help")
        assert code == 0 and "Usage: lebench" in out


def test_help_is_fast_and_imports_no_torch():
    program = "import sys, lebench_sb.cli as cli; cli.run(['--help']);"
    program += "bad = {'torch', 'numpy'} & set(sys.modules); sys.exit(f'imported {bad}' if bad else 0)"
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=os.environ, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert time.perf_counter() - start < 3  # 0.2 s on a quiet core


def test_the_installed_command_ends_with_the_exit_code():
    done = subprocess.run(
        [sys.executable, "-m", "lebench_sb.cli", "stats", "x.csv"], cwd=ROOT, capture_output=True
    )
    assert done.returncode == 2 and done.stderr.count(b"\n") == 1
