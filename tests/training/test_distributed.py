"""Two processes: pre-training steps, an ASR epoch, each test utterance scored once, the scores of one
process."""

import csv
import json
import os
import shutil
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file
from speechbrain.core import INTRA_EPOCH_CKPT_FLAG

from lebench_sb.core.lines import read_records
from lebench_sb.manifests.reading import read_manifest
from lebench_sb.manifests.utterance import Utterance
from lebench_sb.manifests.writing import write_manifest

PRETRAIN = ["recipes/pretraining/wav2vec2/train.py", "recipes/pretraining/wav2vec2/hparams/mini.yaml"]
ASR = ["recipes/ASR/CommonVoice/train.py", "recipes/ASR/CommonVoice/hparams/ctc.yaml"]


def launch(script, processes):
    """Runs a script and its words in so many processes"""
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}  # gloo, on CPUs
    argv = [sys.executable, *(torchrun if processes > 1 else []), *script]
    done = subprocess.run(argv, capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]


def recipe(root, words):
    return [str(root / words[0]), str(root / words[1]), *words[2:], "--noprogressbar"]


def train_lines(folder):
    lines = [json.loads(line) for line in (folder / "steps.jsonl").read_text().splitlines()]
    return [line for line in lines if line["stage"] == "train"]


BUSY = """
import threading, time, torch
from lebench_sb.core.command_line import launch
from lebench_sb.core.errors import DataError
def main(argv):
    torch.distributed.init_process_group("gloo", init_method="file://" + {store!r}, rank=0, world_size=1)
    noise = torch.randn(300, 300)
    def work():
        while True:
            noise @ noise
    for _ in range(4):
        threading.Thread(target=work, daemon=True).start()
    time.sleep(0.1)
    print("done")
    {end}
launch(main)
"""


@pytest.mark.parametrize(
    "end, code", [("", 0), ("raise DataError('x.csv')", 3), ("raise SystemExit(75)", 75)]
)
def test_threads_that_are_still_at_work_do_not_change_the_exit_code(tmp_path, end, code):
    program = BUSY.format(store=str(tmp_path / "store"), end=end)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=100)
    assert (done.returncode, done.stdout) == (code, "done\n"), done.stderr
    assert code != 3 or done.stderr.endswith("error: x.csv\n")


@pytest.fixture(scope="module")
def pretrained(root, tiny_pretraining, tmp_path_factory):
    """A run of two processes, three updates"""
    folder = tmp_path_factory.mktemp("two") / "pretraining"
    words = [
        w for w in tiny_pretraining if not w.startswith(("--number_of_up", "--grad_acc", "--valid_every"))
    ]
    words += ["--number_of_updates=3", "--valid_every_updates=3", "--output_folder", str(folder)]
    launch(recipe(root, [*PRETRAIN, *words]), 2)
    return folder


def test_two_processes_pretrain(pretrained):
    lines = train_lines(pretrained)
    assert [line["step"] for line in lines] == [1, 2, 3]
    assert all(0 < line["contrastive"] < 20 and line["grad_norm"] > 0 for line in lines)


RECORD = """
import runpy, sys
import torch
from lebench_sb.training.brain import VALID, SSLBrain
fit, run_stage = SSLBrain.fit, SSLBrain.run_stage
def noted(brain, *sets):
    fit(brain, *sets)
    state = brain.model.hf.state_dict()
    assert brain.is_sharded == (brain.hparams.fsdp and brain.world > 1)
    if brain.is_sharded:
        held = sum(value.to_local().numel() for value in state.values())
        assert held < 0.6 * sum(value.numel() for value in state.values())
        state = {{name: value.full_tensor() for name, value in state.items()}}
    torch.save(state, {folder!r} + f"/weights{{brain.rank}}.pt")
def sharded(brain, loader, stage, epoch):
    own = sorted(name for batch in loader.batches(1) for name in batch.id)
    if stage == VALID:
        open({folder!r} + f"/valid{{brain.rank}}.txt", "w").write("\\n".join(own))
    return run_stage(brain, loader, stage, epoch)
SSLBrain.fit, SSLBrain.run_stage = noted, sharded
sys.argv = {argv!r}
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def pretrain(root, tiny_pretraining, folder, processes, updates=5, **options):
    """Runs pre-training, each process noting its weights at the end and its part of valid"""
    short = {
        "number_of_updates": updates, "valid_every_updates": 5, "checkpoint_every_updates": 3,
        "grad_accumulation_factor": 2 // processes, "num_workers": 0, "init_quantizer": "True",
        "freeze_targets_updates": 0, **options,
    }  # fmt: skip
    kept = [word for word in tiny_pretraining if word.split("=")[0].removeprefix("--") not in short]
    folder.mkdir(exist_ok=True)
    words = [*kept, *(f"--{key}={value}" for key, value in short.items()), "--output_folder", str(folder)]
    program = folder / "record.py"
    program.write_text(RECORD.format(folder=str(folder), argv=recipe(root, [*PRETRAIN, *words])))
    launch([str(program)], processes)
    return folder


def weights(folder, rank=0):
    return torch.load(folder / f"weights{rank}.pt", weights_only=True)


def same_course(one, two):
    """Whether two runs saw the same losses, up to the order in which floats are added"""
    names = ("loss", "contrastive", "diversity", "penalty", "grad_norm", "accuracy", "masked_share", "lr")
    for mine, theirs in zip(train_lines(one), train_lines(two), strict=True):
        for name in names:
            assert mine[name] == pytest.approx(theirs[name], rel=2e-4, abs=1e-6), (mine["step"], name)
    for name, value in weights(one).items():
        torch.testing.assert_close(value, weights(two)[name], rtol=1e-3, atol=1e-5)


@pytest.fixture(scope="module")
def alone(root, tiny_pretraining, tmp_path_factory):
    """One process, which accumulates two micro-batches"""
    return pretrain(root, tiny_pretraining, tmp_path_factory.mktemp("one"), 1)


@pytest.mark.slow
def test_two_processes_lose_what_one_does_and_hold_the_same_weights(root, tiny_pretraining, alone, tmp_path):
    two = pretrain(root, tiny_pretraining, tmp_path, 2)
    same_course(two, alone)
    for name, value in weights(two, 0).items():
        assert torch.equal(value, weights(two, 1)[name]), name
    shares = [set((two / f"valid{rank}.txt").read_text().split()) for rank in range(2)]
    assert shares[0] and shares[1] and not shares[0] & shares[1]
    assert shares[0] | shares[1] == set((alone / "valid0.txt").read_text().split())


@pytest.mark.slow
def test_processes_that_drop_different_layers_do_not_wait_for_each_other(root, tiny_pretraining, tmp_path):
    config = next(word for word in tiny_pretraining if word.startswith("--config="))
    config = config.removeprefix("--config=").replace("layerdrop: 0.2", "layerdrop: 0.5")
    for fsdp in (False, True):
        folder = tmp_path / str(fsdp)
        plain = {"init_quantizer": False, "log_mel_updates": 0}
        pretrain(root, tiny_pretraining, folder, 2, config=config, fsdp=fsdp, **plain)
        assert len(train_lines(folder)) == 5


@pytest.mark.slow
def test_sharded_processes_lose_what_one_does_and_one_goes_on_from_their_checkpoint(
    root, tiny_pretraining, tmp_path
):
    plain = {"init_quantizer": False, "log_mel_updates": 0, "max_grad_norm": 0.01}  # so that clipping matters
    one = pretrain(root, tiny_pretraining, tmp_path / "one", 1, **plain)
    more = plain | {"fsdp": True}
    two = pretrain(root, tiny_pretraining, tmp_path / "two", 2, **more)
    same_course(two, one)
    assert min(line["grad_norm"] for line in train_lines(two)) > 0.01
    for name in ("encoder", "pretraining"):
        exported = [load_file(folder / name / "model.safetensors") for folder in (one, two)]
        torch.testing.assert_close(*exported, rtol=1e-3, atol=1e-5)
    # the checkpoint of update 3 is that of one process, and one process goes on from it; so do two again
    for name in os.listdir(two / "save"):
        if INTRA_EPOCH_CKPT_FLAG not in (two / "save" / name / "CKPT.yaml").read_text():
            shutil.rmtree(two / "save" / name)
    assert len(os.listdir(two / "save")) == 1
    again = shutil.copytree(two, tmp_path / "again")
    for folder, processes in ((two, 1), (again, 2)):
        lines = (folder / "steps.jsonl").read_text().splitlines(keepends=True)
        (folder / "steps.jsonl").write_text('{"kept": true, ' + "".join(lines)[1:])
        pretrain(root, tiny_pretraining, folder, processes, **more)
        same_course(folder, one)
        assert train_lines(folder)[0]["kept"]  # it did not begin again


@pytest.mark.slow
@pytest.mark.parametrize("fsdp", [False, True])
def test_processes_share_the_probes_and_say_what_one_does(root, tiny_pretraining, corpus, tmp_path, fsdp):
    found = [Utterance(f"{u.id}-{k}", u.wav, 0.5, k / 2, (k + 1) / 2, labels={"half": str(k)})
             for u in read_manifest(corpus / "train.csv", corpus)[:7] for k in (0, 1)]  # fmt: skip
    write_manifest(tmp_path / "probe.csv", found[:13], corpus, {})  # an odd number
    options = {"probe_csv": tmp_path / "probe.csv", "probe_labels": "[half]", "log_mel_updates": 0}
    more = {"fsdp": True, "init_quantizer": False} if fsdp else {}
    folders = [pretrain(root, tiny_pretraining, tmp_path / str(n), n, 1, **options, **more) for n in (1, 2)]
    one, two = (read_records(folder / "steps.jsonl")[0] for folder in folders)
    assert one["step"] == two["step"] == 0 and 0 <= one["probe_half"] == two["probe_half"] <= 100


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
    launch(recipe(root, [*common, "--output_folder", str(folder)]), 2)
    two = json.loads((folder / "results.json").read_text())
    rows = list(csv.DictReader((folder / "utterances.csv").open(encoding="utf-8")))
    assert sorted(row["ID"] for row in rows) == sorted(f"test{i}" for i in range(13))
    launch(recipe(root, [*common, "--output_folder", str(folder), "--test_only"]), 1)
    one = json.loads((folder / "results.json").read_text())
    assert one["metrics"] == two["metrics"]
    assert rows == list(csv.DictReader((folder / "utterances.csv").open(encoding="utf-8")))
