"""The recipe of speech translation: whole runs on small manifests, averaged weights, kills, two processes."""

import csv
import json
import signal
import subprocess
import sys
from ast import literal_eval
from dataclasses import replace
from pathlib import Path

import pytest
import sacrebleu
import torch
from killing import KILL
from python_process import run_python

from lebench_sb.core.errors import DataError
from lebench_sb.evaluation.results import read_results
from lebench_sb.evaluation.tables import show, table
from lebench_sb.manifests.reading import read_manifest
from lebench_sb.manifests.utterance import Utterance
from lebench_sb.manifests.writing import write_manifest
from lebench_sb.tasks.ast import LastEpochs, best_constant, with_targets
from lebench_sb.training.checkpoints import SafeCheckpointer
from lebench_sb.training.schedules import inverse_sqrt

RECIPE = "recipes/AST/mTEDx/train.py", "recipes/AST/mTEDx/hparams/"
SAID = {
    "oui": "Yes,", "non": "No!", "bonjour": "Good morning", "merci": "thank you", "demain": "tomorrow",
    "peut": "may", "être": "be",
}  # fmt: skip
SMALL = ["--source={size: 16, layers: 1, channels: 16, hidden: 16}", "--head={layers: 1, hidden: 16}"]


@pytest.fixture(scope="session")
def translated(corpus, tmp_path_factory):
    """The words that name a corpus with English translations, as a user's own manifests"""
    folder = tmp_path_factory.mktemp("translated")
    words = ["--data_folder", str(corpus), "--ssl_hub", "mel_filterbank", "--num_workers", "0"]
    for split in ("train", "valid", "test"):
        utterances = [
            replace(u, labels={"wrd": u.labels["wrd"], "translation_en": " ".join(map(SAID.get, spoken(u)))})
            for u in read_manifest(corpus / f"{split}.csv", corpus)
        ]
        write_manifest(folder / f"{split}.csv", utterances, corpus, {})
        words += [f"--{split}_csv", str(folder / f"{split}.csv")]
    return words


def spoken(utterance):
    return utterance.labels["wrd"].split()


def command(root, words, output, yaml="transformer.yaml"):
    script = [str(root / RECIPE[0]), str(root / RECIPE[1] / yaml)]
    return [*script, *words, "--output_folder", str(output), "--noprogressbar"]


def run(argv, processes=1):
    launcher = [
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        str(processes),
    ]
    prefix = launcher if processes > 1 else []
    done = run_python([*prefix, *argv])
    assert done.returncode == 0, done.stderr[-3000:]


def read(folder):
    rows = list(csv.DictReader((folder / "utterances.csv").open(encoding="utf-8")))
    return read_results(folder), rows


def steps(folder):
    return [json.loads(line) for line in (folder / "steps.jsonl").read_text().splitlines()]


def test_a_run_on_ones_own_manifests(root, translated, tmp_path):
    words = [*translated, *SMALL, "--number_of_epochs", "3", "--average_checkpoints", "2", "--head_lr", "20"]
    run(command(root, [*words, "--max_length", "9", "--max_batch_seconds", "8"], tmp_path / "r"))
    record, rows = read(tmp_path / "r")
    assert record["task"] == "AST" and record["corpus"] == "mTEDx fr-en" and len(rows) == 13
    references, hypotheses = ([row[name] for row in rows] for name in ("reference", "hypothesis"))
    assert all(text.split()[0] in "Yes, No! Good thank tomorrow may" for text in references)
    for name, public in (("BLEU", sacrebleu.BLEU()), ("chrF2", sacrebleu.CHRF())):
        entry = record["metrics"][name]
        assert entry["value"] == pytest.approx(public.corpus_score(hypotheses, [references]).score, abs=1e-9)
        assert entry["signature"] == str(public.get_signature())
        assert (
            entry["sacrebleu"]["plus_minus"] >= 0 and "bs:1000|seed:12345" in entry["sacrebleu"]["signature"]
        )
        assert entry["n_units"] == 12
        assert entry["method"] == "bootstrap over speakers" and entry["better"] == "higher"
    baseline = json.loads((tmp_path / "r" / "trivial_baseline.json").read_text())["BLEU"]
    text = literal_eval(baseline["system"].removeprefix("always saying "))
    assert baseline["value"] == pytest.approx(sacrebleu.corpus_bleu([text] * 13, [references]).score)
    assert record["details"]["tested"] == "average of epochs 2 to 3"
    note = json.loads((tmp_path / "r" / "subwords.json").read_text())
    assert note["asked"] == 1000 > note["size"] == record["details"]["subwords"]
    assert record["details"]["subwords_sha256"] == note["sha256"]
    assert "texts allow no more (1000 asked for)" in (tmp_path / "r" / "log.txt").read_text()
    assert "BLEU ↑" in table(tmp_path / "r") and "chrF2 ↑" in table(tmp_path / "r")
    assert show({**record["metrics"]["chrF2"], "ci95": None}).count(".") == 1


def test_the_best_on_valid_is_tested_where_no_average_is_asked_for(root, translated, tmp_path):
    words = [*translated, "--number_of_epochs", "1", "--max_length", "9", "--freeze", "True"]
    small = ["--source={size: 16}", "--head={layers: 1, hidden: 16}"]
    run(command(root, [*words, *small], tmp_path / "r", "end_to_end.yaml"))
    record, _ = read(tmp_path / "r")
    assert record["details"]["tested"] == "best on valid" and record["mode"] == "end-to-end"
    assert not (tmp_path / "r" / "save" / "epochs").exists()


def utterance(name="a", **labels):
    return Utterance(name, f"{name}.wav", 1.0, labels=labels)


def test_splits_need_the_column_of_the_language():
    good, empty = utterance(translation_en="Yes."), utterance("b", translation_en=" ")
    splits = {"train": [good, empty, utterance("c", wrd="oui")], "valid": [good, empty], "test": [good]}
    kept = with_targets(splits, "en")
    assert [u.id for u in kept["train"]] == ["a"] and [u.id for u in kept["valid"]] == ["a", "b"]
    with pytest.raises(DataError, match=r"train: no column 'translation_es' \(did you mean translation_en"):
        with_targets(splits, "es")
    with pytest.raises(DataError, match="test: every translation_en is empty"):
        with_targets({**splits, "test": [empty]}, "en")


def test_the_system_that_hears_nothing_says_what_fits_best():
    texts = ["a b c d"] * 3 + ["a b c e", "q r"] + ["x y"] * 2
    assert best_constant(texts, seed=1) == "a b c d" and best_constant(["x"], seed=1) == "x"


def test_inverse_square_root():
    """fairseq: lr * update / warmup, then lr * (warmup / update) ** 0.5"""
    assert [inverse_sqrt(u, 99, warmup=4) for u in (1, 4, 16, 400)] == [0.25, 1.0, 0.5, 0.1]


def test_the_mean_of_the_last_epochs(tmp_path):
    head, encoder = torch.nn.Linear(3, 2), torch.nn.Linear(2, 2)
    encoder.weight.requires_grad_(False)
    frozen = encoder.weight.clone()
    kept = LastEpochs({"head": head, "encoder": encoder}, SafeCheckpointer(tmp_path, {}), 3)
    assert kept.load() == []
    for epoch in (1, 2, 3, 4, 5, 4, 5):  # killed after it had kept epoch 5, and gone on from epoch 3
        torch.nn.init.constant_(head.weight, 10.0 * epoch)
        torch.nn.init.constant_(encoder.bias, -float(epoch))
        kept.keep(epoch)
    assert len(list((tmp_path / "epochs").iterdir())) == 3
    torch.nn.init.constant_(head.weight, 0.0)
    assert kept.load() == [3, 4, 5]
    assert torch.equal(head.weight, torch.full((2, 3), 40.0))
    assert torch.equal(encoder.bias, torch.full((2,), -4.0)) and torch.equal(encoder.weight, frozen)
    path = next(path for path in sorted((tmp_path / "epochs").iterdir()) if (path / "head.ckpt").exists())
    data = bytearray((path / "head.ckpt").read_bytes())
    data[-1] ^= 255
    (path / "head.ckpt").write_bytes(data)
    with pytest.raises(OSError, match="another content"):
        kept.load()
    assert LastEpochs({"head": head}, SafeCheckpointer(tmp_path, {}), 0).load() == []


def test_the_mean_is_better_than_each_where_training_goes_round_the_best(tmp_path):
    """Steps of a high learning rate end on all sides of the least squares' solution"""
    generator = torch.Generator().manual_seed(0)
    x, best = torch.randn(64, 5, generator=generator), torch.randn(5, 1, generator=generator)
    y = x @ best + 0.5 * torch.randn(64, 1, generator=generator)
    head = torch.nn.Linear(5, 1, bias=False)
    kept = LastEpochs({"head": head}, SafeCheckpointer(tmp_path, {}), 8)
    optimizer, losses = torch.optim.SGD(head.parameters(), lr=0.15), []
    for epoch in range(1, 13):
        for rows in torch.randperm(64, generator=generator).split(4):
            optimizer.zero_grad()
            (head(x[rows]) - y[rows]).square().mean().backward()
            optimizer.step()
        kept.keep(epoch)
        losses.append(float((head(x) - y).square().mean()))
    assert kept.load() == list(range(5, 13))
    assert float((head(x) - y).square().mean()) < min(losses[4:])


KILLED = [*SMALL, "--number_of_epochs", "4", "--average_checkpoints", "2", "--head_lr", "20"]
KILLED += ["--max_length", "9", "--max_batch_seconds", "8", "--grad_accumulation_factor", "1"]
KILLED += ["--checkpoint_every_updates", "0"]


@pytest.fixture(scope="module")
def uninterrupted(root, translated, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "run"
    run(command(root, [*translated, *KILLED], folder))
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    "module, owner, name, number",
    [
        ("lebench_sb.training.brain", ".SSLBrain", "log_step", 7),  # in the middle of epoch 2
        ("lebench_sb.training.checkpoints", "", "describe", 5),  # while it keeps epoch 3
        ("lebench_sb.training.checkpoints", "", "describe", 6),  # epoch 3 is kept, its checkpoint is not
    ],
)
def test_a_killed_run_averages_what_it_would_have(
    root, translated, uninterrupted, tmp_path, module, owner, name, number
):
    argv = command(root, [*translated, *KILLED], tmp_path / "run")
    code = KILL.format(module=module, owner=owner, name=name, number=number, argv=argv)
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == -signal.SIGKILL
    run(argv)
    assert steps(tmp_path / "run") == steps(uninterrupted)
    (one, first), (two, second) = read(uninterrupted), read(tmp_path / "run")
    assert first == second and one["metrics"] == two["metrics"]
    assert one["details"]["tested"] == two["details"]["tested"] == "average of epochs 3 to 4"


@pytest.mark.slow
def test_two_processes_update_and_score_as_one(root, translated, tmp_path):
    """One that accumulates two micro-batches: the same gradient per subword; then the same test scores"""
    words = [*translated, "--source={size: 16, layers: 1, channels: 16, hidden: 16, dropout: 0.0}"]
    words += ["--head={layers: 1, hidden: 16, dropout: 0.0}", "--mask=!name:lebench_sb.audio.augment.no_mask"]
    words += ["--number_of_epochs", "2", "--max_length", "9", "--max_batch_seconds", "8", "--head_lr", "5"]
    run(command(root, [*words, "--grad_accumulation_factor", "2"], tmp_path / "one"))
    run(command(root, [*words, "--grad_accumulation_factor", "1"], tmp_path / "two"), processes=2)
    norms = [
        [line["grad_norm"] for line in steps(tmp_path / name) if line["stage"] == "train"]
        for name in ("one", "two")
    ]
    assert norms[0][0] == pytest.approx(norms[1][0], rel=1e-4)
    two, rows = read(tmp_path / "two")
    run(command(root, [*words, "--test_only"], tmp_path / "two"))
    one, again = read(tmp_path / "two")
    assert rows == again and one["metrics"] == two["metrics"]


@pytest.mark.full
def test_eight_utterances_can_be_overfitted(root, translated, corpus, tmp_path):
    """From files through subwords, beam search and averaging to the scorer: BLEU above 90"""
    path = Path(translated[translated.index("--train_csv") + 1])
    eight = read_manifest(path, corpus)[:8]
    assert len({u.labels["translation_en"] for u in eight}) >= 4
    write_manifest(tmp_path / "eight.csv", eight, corpus, {})
    words = translated[: translated.index("--train_csv")]
    words += [
        w for split in ("train", "valid", "test") for w in (f"--{split}_csv", str(tmp_path / "eight.csv"))
    ]
    words += ["--allow_shared_audio", "True"]
    words += ["--source={size: 64, layers: 1, channels: 64, hidden: 64, dropout: 0.0}"]
    words += ["--head={layers: 1, hidden: 64, dropout: 0.0}", "--mask=!name:lebench_sb.audio.augment.no_mask"]
    words += ["--number_of_epochs", "120", "--grad_accumulation_factor", "1", "--schedule={warmup: 20}"]
    run(command(root, [*words, "--max_length", "20", "--average_checkpoints", "5"], tmp_path / "r"))
    record, rows = read(tmp_path / "r")
    assert record["metrics"]["BLEU"]["value"] > 90, rows
    assert "same speaker in train and test" in record["caveats"]
