"""Two processes: pre-training steps, an ASR epoch, each test utterance scored once, the scores of one
process."""

import csv
import json
import os
import subprocess
import sys

import pytest

PRETRAIN = ["recipes/pretraining/wav2vec2/train.py", "recipes/pretraining/wav2vec2/hparams/mini.yaml"]
ASR = ["recipes/ASR/CommonVoice/train.py", "recipes/ASR/CommonVoice/hparams/ctc.yaml"]


def launch(root, words, processes):
    argv = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    script = [str(root / words[0]), str(root / words[1]), *words[2:], "--noprogressbar"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}  # gloo, on CPUs
    prefix = argv if processes > 1 else [sys.executable]
    done = subprocess.run([*prefix, *script], capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]


def train_lines(folder):
    lines = [json.loads(line) for line in (folder / "steps.jsonl").read_text().splitlines()]
    return [line for line in lines if line["stage"] == "train"]


@pytest.fixture(scope="module")
def pretrained(root, tiny_pretraining, tmp_path_factory):
    """A run of two processes, three updates"""
    folder = tmp_path_factory.mktemp("two") / "pretraining"
    words = [
        w for w in tiny_pretraining if not w.startswith(("--number_of_up", "--grad_acc", "--valid_every"))
    ]
    words += ["--number_of_updates=3", "--valid_every_updates=3", "--output_folder", str(folder)]
    launch(root, [*PRETRAIN, *words], 2)
    return folder


def test_two_processes_pretrain(pretrained):
    lines = train_lines(pretrained)
    assert [line["step"] for line in lines] == [1, 2, 3]
    assert all(0 < line["contrastive"] < 20 and line["grad_norm"] > 0 for line in lines)


def test_two_processes_mask_and_count_what_one_does(root, tiny_pretraining, pretrained, tmp_path):
    """One process that accumulates two micro-batches sees the same frames in each update"""
    words = [w for w in tiny_pretraining if not w.startswith(("--number_of_up", "--valid_every"))]
    words += ["--number_of_updates=3", "--valid_every_updates=3", "--output_folder", str(tmp_path / "one")]
    launch(root, [*PRETRAIN, *words], 1)
    for one, two in zip(train_lines(tmp_path / "one"), train_lines(pretrained), strict=True):
        assert one["masked_share"] == pytest.approx(two["masked_share"], rel=1e-9)
    first, second = train_lines(tmp_path / "one")[0], train_lines(pretrained)[0]
    assert first["penalty"] == pytest.approx(second["penalty"], rel=1e-4)  # same weights, same crops


def test_two_processes_recognise_and_score_each_utterance_once(root, manifests, pretrained, tmp_path):
    encoder = ["--ssl_hub", str(pretrained / "encoder"), "--freeze", "False", "--encoder_warmup_steps", "0"]
    common = [
        *ASR,
        *manifests,
        *encoder,
        "--number_of_epochs",
        "1",
        "--max_batch_seconds",
        "6",
        "--head={hidden: 8}",
    ]
    folder = tmp_path / "asr"
    launch(root, [*common, "--output_folder", str(folder)], 2)
    two = json.loads((folder / "results.json").read_text())
    rows = list(csv.DictReader((folder / "utterances.csv").open(encoding="utf-8")))
    assert sorted(row["ID"] for row in rows) == sorted(f"test{i}" for i in range(13))
    launch(root, [*common, "--output_folder", str(folder), "--test_only"], 1)
    one = json.loads((folder / "results.json").read_text())
    assert one["metrics"] == two["metrics"]
    assert rows == list(csv.DictReader((folder / "utterances.csv").open(encoding="utf-8")))
