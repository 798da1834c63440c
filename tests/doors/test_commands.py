"""Every command of `lebench` with every kind of path that is none: one line, no traceback, no waiting."""

import builtins
import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lebench_sb.cli import CORPORA, run

ROOT = Path(__file__).parents[2]
MANIFEST = "ID,duration,wav,spk_id,gender,wrd\nu1,1.0,$data_root/a.wav,s1,F,le chat\n"
PREPARE = {
    p.stem: ["prepare", p.stem, "--data_folder", "DATA", "--output", "OUT"] for p in CORPORA.glob("[a-z]*.py")
}
PREPARE["own"] = [
    "prepare",
    "own",
    "--csv",
    "FILE",
    "--columns",
    "wav=wav",
    "--data_root",
    "DATA",
    "--output",
    "OUT",
]
COMMANDS = {
    "stats": ["stats", "FILE"], "validate": ["validate", "FILE", "--data_root", "DATA", "--report", "OUT"],
    "shard": ["shard", "FILE", "--data_root", "DATA", "--output", "OUT"], "table": ["table", "FILE"],
    "compare": ["compare", "FILE", "FILE"], "energy": ["energy", "FILE"], "benchmark": ["benchmark", "FILE"],
    "dry run": ["benchmark", "FILE", "--dry_run"], "yaml": ["yaml", "FILE"],
    "import": ["import", "FILE", "--output", "OUT", "--config", "FILE"],
    "miniature": ["prepare", "miniature", "--output", "OUT", "--scale", "0"], **PREPARE,
}  # fmt: skip
PLACES = [(name, k) for name, words in COMMANDS.items() for k, word in enumerate(words) if word.isupper()]


def paths(folder):
    """{kind of path: path}; the things they name are made in `folder`"""
    (folder / "data").mkdir()
    (folder / "file").write_text(MANIFEST)
    (folder / "binary").write_bytes(bytes(range(256)))
    (folder / "nothing").write_text("")
    (folder / "loop").symlink_to("loop")
    os.mkfifo(folder / "pipe")
    names = {name: str(folder / name) for name in ("data", "file", "binary", "nothing", "loop", "pipe")}
    return names | {
        "below a file": str(folder / "file" / "x"), "NUL": "a\0b",
        "5,000 characters": "x" * 5000, "nobody": "~no.body/x",
        "an empty word": "", "half a letter": "a\ud800", "missing": "no/such", "a screen": "\x1b[2J\n",
        "not text": "a\udc80", "home": "~", "a dash": "-", "many parts": "/".join(["y" * 200] * 30),
    }  # fmt: skip


@pytest.mark.parametrize("name, place", PLACES, ids=[f"{name} {place}" for name, place in PLACES])
def test_any_path_is_a_line_and_a_code(tmp_path, monkeypatch, capsys, name, place):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    there = paths(tmp_path)
    usual = {"FILE": there["file"], "DATA": there["data"], "OUT": str(tmp_path / "out")}
    for kind, path in there.items():
        words = [path if k == place else usual.get(word, word) for k, word in enumerate(COMMANDS[name])]
        code, said = run(words), capsys.readouterr()
        if code == 0:  # a command that took it: a name of a folder to write, a manifest
            continue
        assert code in (1, 2, 3) and said.err.startswith("error: "), (kind, said.err[-500:])
        assert len(said.err.splitlines()) == 1 and len(said.err) < 5000, (kind, said.err[-500:])
        assert said.err.rstrip("\n").isprintable(), kind


@pytest.mark.parametrize("words", [
    ["--seed", "x"], ["--data_folder"], ["--normaliser", "[" * 50_000], ["--normaliser", "nn"], ["--x", "1"],
    ["--normaliser", "{"], ["stray"],
])  # fmt: skip
def test_any_parameter_of_a_preparation_is_a_line(tmp_path, capsys, words):
    code = run(
        ["prepare", "commonvoice", "--data_folder", str(tmp_path), "--output", str(tmp_path / "o"), *words]
    )
    said = capsys.readouterr().err
    assert code == 2 and len(said.splitlines()) == 1 and said.startswith("error: ") and len(said) < 5000


@pytest.mark.parametrize("words", [["prepare", "lebenchmark", "--data_folder", ".", "--output", "o"]])
def test_a_parameter_that_is_needed_is_named(capsys, words):
    assert run(words) == 2 and "--corpora needed" in capsys.readouterr().err


# ---- what the system refuses

TABLE = "id;path;words\na;a.wav;le chat\n"
WRITING = {
    "own": ["prepare", "own", "--csv", "t.csv", "--columns", "ID=id,wav=path,wrd=words", "--data_root", ".",
            "--output", "out", "--split", "id"],
    "validate": ["validate", "m.csv", "--data_root", ".", "--report", "out"],
    "shard": ["shard", "m.csv", "--data_root", ".", "--output", "out"],
    "benchmark": ["benchmark", "grid.yaml"], "yaml": ["yaml", "grid.yaml"],
    "import": ["import", "model.ckpt", "--output", "out"],
    "stats": ["stats", "m.csv"], "table": ["table", "results.json"], "energy": ["energy", "."],
    "compare": ["compare", ".", "."],
}  # fmt: skip
REFUSED = {errno.EROFS: 2, errno.EACCES: 2, errno.ENOSPC: 1, errno.EDQUOT: 1, errno.EIO: 1, errno.EMFILE: 1}


@pytest.mark.parametrize("number", REFUSED, ids=errno.errorcode.get)
@pytest.mark.parametrize("name", WRITING)
def test_what_the_system_refuses_is_a_line_with_the_way_out(tmp_path, monkeypatch, capsys, name, number):
    monkeypatch.chdir(tmp_path)
    for file, content in (("t.csv", TABLE), ("m.csv", MANIFEST), ("grid.yaml", "output: out"), ("a.wav", ""),
                          ("model.ckpt", "x"), ("results.json", "{}"), ("energy.jsonl", "{}\n")):  # fmt: skip
        Path(file).write_text(content)
    assert run(WRITING[name]) in (0, 1, 2, 3)  # whatever it imports is imported
    capsys.readouterr()
    refuse_below(tmp_path, monkeypatch, number)
    code, said = run(WRITING[name]), capsys.readouterr().err
    monkeypatch.undo()
    assert code == REFUSED[number] and len(said.splitlines()) == 1, said[-800:]
    assert said.startswith("error: ") and os.strerror(number) in said


def refuse_below(folder, monkeypatch, number):
    """The system says no to whatever is opened or made below a folder"""

    def refusing(function):
        def call(path, *rest, **named):
            if isinstance(path, (str, os.PathLike)) and Path(path).absolute().is_relative_to(folder):
                raise OSError(number, os.strerror(number), str(path))
            return function(path, *rest, **named)

        return call

    for module, name in ((builtins, "open"), (os, "open"), (os, "mkdir")):
        monkeypatch.setattr(module, name, refusing(getattr(module, name)))
    monkeypatch.setattr("io.open", builtins.open)
    monkeypatch.setattr("pathlib.io.open", builtins.open)


# ---- an output that knows ASCII only

ASCII = {
    "a table": ["-m", "lebench_sb.cli", "table", "."], "an error": ["-m", "lebench_sb.cli", "table", "g\xe9"],
    "what others print": ["-c", "import lebench_sb.cli as c; c.run(['--version']); print('\u2193 \xe9')"],
    "the demo": ["-m", "lebench_sb.grid.demo", "g\xe9.yaml"],
}  # fmt: skip


@pytest.mark.parametrize("words", ASCII.values(), ids=ASCII)
def test_an_output_of_ascii_takes_any_text(tmp_path, words):
    sys.path.insert(0, str(ROOT / "tests/evaluation"))
    from example_runs import make_record, make_rows

    from lebench_sb.evaluation.results import write_results

    rows = make_rows(0.2, speakers=3, per_speaker=2)
    write_results(tmp_path, make_record(rows, system="\xe9lan \u2193"), rows)
    done = subprocess.run(
        [sys.executable, *words], cwd=tmp_path, capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert b"Traceback" not in done.stderr and done.returncode in (0, 2), done.stderr[-500:]
