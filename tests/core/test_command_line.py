"""What a user may mistype: one line, the nearest right name, exit code 2, no traceback."""

import os
from pathlib import Path

import pytest
from python_process import run_python

from lebench_sb.core.command_line import parse
from lebench_sb.core.errors import UsageError
from lebench_sb.core.yaml_values import as_yaml, build, plain_values, resolve
from lebench_sb.training.run import start

ROOT = Path(__file__).parents[2]
CTC = ROOT / "recipes/ASR/CommonVoice/hparams/ctc.yaml"
GOOD = ["--data_folder", "/d", "--ssl_hub", "mel_filterbank"]


@pytest.mark.parametrize(
    "words, said",
    [
        ([*GOOD, "lr=1"], "--lr=1"),
        ([*GOOD, "--head_lr", "1", "2"], "2: a value without its option"),
        ([*GOOD, "--precison", "bf16"], "--precison: no such option or key; did you mean --precision?"),
        ([*GOOD, "--ssl_hubb", "x"], "did you mean --ssl_hub?"),
        (["--data-folder", "/d", "--ssl_hub", "x"], "did you mean --data_folder?"),
        ([*GOOD, "--encoder={freze: True}"], "freze: no such option or key; did you mean freeze?"),
        ([*GOOD, "--head", "{hiden: 3}"], "did you mean hidden?"),
        ([*GOOD, "--prepare", "{normalizer: none}"], "did you mean normaliser?"),
        ([*GOOD, "--head_lr=abc"], "--head_lr abc: a number is expected"),
        ([*GOOD, "--freeze", "maybe"], "True or False is expected"),
        ([*GOOD, "--seed", "--head_lr=1"], "--seed needs a value"),
        ([*GOOD, "--debug=True"], "takes no value"),
        (
            [*GOOD, "--optimizer_step_limit", "ten"],
            "--optimizer_step_limit ten: a number of updates is expected.",
        ),
        ([*GOOD, "--precision", "fp8"], "argument --precision: invalid choice: 'fp8'"),
        ([*GOOD, "--seed", "1", "--seed", "2"], "--seed is given twice"),
        (["--ssl_hub", "x"], "--data_folder is missing"),
    ],
)
def test_a_mistake_names_the_word_and_the_way_out(words, said):
    with pytest.raises(UsageError) as caught:
        parse([str(CTC), *words])
    assert said in str(caught.value)


def test_values_reach_the_yaml_as_typed():
    _, run_opts, overrides = parse(
        [str(CTC), *GOOD, "--caveats=[a, b]", "--corpus", "k=v: 5 # $US", "--precision=bf16"]
    )
    assert run_opts.precision == "bf16" and "precision" in run_opts.overridden_args
    assert overrides["corpus"] == "k=v: 5 # $US"
    assert as_yaml(overrides).count("\n") == len(overrides) - 1
    assert 'corpus: "k=v: 5 # $US"' in as_yaml(overrides)


def test_debug_leaves_results_alone():
    _, _, overrides = parse([str(CTC), *GOOD, "--debug", "--output_folder", "/x"])
    assert overrides["output_folder"] == "/x/debug"


@pytest.mark.parametrize(
    "words, code",
    [
        (["nowhere.yaml"], 2),
        ([str(CTC), *GOOD[2:], "--data_folder", "/no/such/folder", "--output_folder", "{tmp}/o"], 2),
        ([str(CTC), *GOOD, "--precison", "bf16"], 2),
    ],
)
def test_the_process_prints_one_line_and_exits_with_2(words, code, tmp_path):
    words = [word.format(tmp=tmp_path) for word in words]
    script = ROOT / "recipes/ASR/CommonVoice/train.py"
    done = run_python([script, *words], cwd=tmp_path, env={**os.environ, "LEBENCH_TRACEBACK": "0"})
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert done.returncode == code and len(errors) == 1
    assert "Traceback" not in done.stdout + done.stderr


def test_a_limit_of_updates_is_a_number():
    assert parse([str(CTC), *GOOD, "--optimizer_step_limit", "10"])[1].optimizer_step_limit == 10


TEXTS = [
    ("--mode", "12", "12"), ("--mode", "1e3", "1e3"), ("--mode", "True", "True"), ("--mode", "null", "null"),
    ("--mode", "2024-01-01", "2024-01-01"), ("--corpus", "0x10", "0x10"), ("--corpus", "no", "no"),
    ("--output_folder", "2024", "2024"), ("--output_folder", "~/o", f"{os.path.expanduser('~')}/o"),
    ("--data_folder", "12", "12"), ("--ssl_hub", "007", "007"), ("--train_csv", "1.5", "1.5"),
    ("--corpus", "a: b", "a: b"), ("--corpus", "#1", "#1"), ("--corpus", "5 $US", "5 $US"),
    ("--corpus", "'x", "'x"), ("--corpus", '"', '"'), ("--corpus", "&a", "&a"), ("--corpus", "*a", "*a"),
    ("--corpus", "- a", "- a"), ("--corpus", "%", "%"), ("--corpus", "a\nb: c", "a\nb: c"),
    ("--layer", "1", 1), ("--layer", "last", "last"), ("--train_csv", "[a.csv, b.csv]", ["a.csv", "b.csv"]),
]  # fmt: skip


@pytest.mark.parametrize(("option", "typed", "read"), TEXTS, ids=lambda value: ascii(value)[:20])
def test_what_is_text_stays_text(option, typed, read):
    needed = {"--data_folder": "d", "--ssl_hub": "e"} | {option: typed}
    path, _, overrides = parse([str(CTC), *(word for pair in needed.items() for word in pair)])
    assert plain_values(resolve(path, overrides))[option[2:]] == read


KINDS = [
    ("--caveats", "x", "a list is expected"), ("--metrics", "WER", "a list is expected"),
    ("--head", "x", "settings in braces"), ("--seed", "[1]", "seed"), ("--caveats", "[x]", "caveats"),
    ("--mode", "[a]", "mode"), ("--mode", "a\x1b[31m", "mode"), ("--mode", " ", "mode"),
    ("--seed", "-1", "seed"), ("--seed", "1.5", "seed"), ("--head", "[" * 50_000, "braces"),
    ("--caveats", "[" * 50_000, "nested"), ("--mode", "{" * 50_000, "mode"),
    ("--if_changed", "maybe", "refuse"), ("--head", "{" * 50_000, "nested"),
    ("--reset_missing", "yes", "True"), ("--output_folder", "[a]", "output_folder"),
]  # fmt: skip


@pytest.mark.parametrize(("option", "typed", "told"), KINDS, ids=lambda value: ascii(value)[:20])
def test_what_the_results_would_refuse_is_refused_at_the_start(option, typed, told, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=told):
        start([str(CTC), "--data_folder", "d", "--ssl_hub", "e", option, typed])
    assert not list(tmp_path.iterdir())


HOSTILE = {
    "brackets": "a: " + "[" * 50_000, "indentation": "".join(" " * k + "a:\n" for k in range(3000)),
    "aliases": "a: &a [x, x]\n" + "".join(f"{n}: &{n} [{', '.join(['*' + p] * 9)}]\n"
                                          for p, n in zip("abcdefgh", "bcdefghi", strict=True)),
    "a list": "- a\n", "a number": "12", "nothing": "", "NUL": "a: \0", "not UTF-8": b"a: \xff",
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_yaml_is_one_line(name, tmp_path):
    content = HOSTILE[name]
    (tmp_path / "x.yaml").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UsageError, match="x.yaml"):
        parse([str(tmp_path / "x.yaml")])


def test_a_pipe_for_a_yaml_does_not_hang(tmp_path):
    os.mkfifo(tmp_path / "x.yaml")
    with pytest.raises((UsageError, FileNotFoundError), match="x.yaml"):
        parse([str(tmp_path / "x.yaml")])


class Broken:
    """What a constructor of ours might do wrong"""

    def __init__(self, kind, asked=1):
        if kind == "type":
            len(3)
        if kind == "key":
            {}["x"]
        if kind == "attribute":
            _ = self.nothing
        if kind == "value":
            raise ValueError("fmax 9000: over 8000.")


@pytest.mark.parametrize(
    ("kind", "error"), [("type", TypeError), ("key", KeyError), ("attribute", AttributeError)]
)
def test_a_fault_of_the_code_keeps_its_traceback(kind, error):
    text = f"a: !new:{__name__}.Broken\n    kind: {kind}\n"
    with pytest.raises(error) as caught:
        build(text, "x.yaml")
    assert caught.traceback[-1].name == "__init__"


WRONG = [
    "a: !new:tests.nowhere.Nothing {}", "a: !new:torch.nn.Linearr {}", "a: !new:torch.nn.Linear {in: 3}",
    "a: !new:torch.nn.Linear {in_features: 3}", "a: !apply:len {}",
    f"a: !new:{__name__}.Broken {{asked: 2}}", f"a: !new:{__name__}.Broken {{kind: value}}",
]  # fmt: skip


@pytest.mark.parametrize("text", WRONG)
def test_a_fault_of_the_yaml_names_it(text):
    with pytest.raises(UsageError, match="x.yaml"):
        build(text, "x.yaml")
