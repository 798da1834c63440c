"""What a user may mistype: one line, the nearest right name, exit code 2, no traceback."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lebench_sb.command_line import UsageError, as_yaml, parse

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
        [str(CTC), *GOOD, "--stamps=[a, b]", "--corpus", "k=v: 5 # $US", "--precision=bf16"]
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
    done = subprocess.run(
        [sys.executable, str(script), *words], capture_output=True, text=True, cwd=tmp_path,
        env={**os.environ, "LEBENCH_TRACEBACK": "0"},
    )  # fmt: skip
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert done.returncode == code and len(errors) == 1
    assert "Traceback" not in done.stdout + done.stderr


def test_a_limit_of_updates_is_a_number():
    assert parse([str(CTC), *GOOD, "--optimizer_step_limit", "10"])[1].optimizer_step_limit == 10
