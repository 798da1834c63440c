"""Each alarm is raised by a real run with the fault it is for; a healthy run raises none."""

import json
import re
import time
from contextlib import nullcontext

import numpy as np
import pytest
import soundfile
import torch
import transformers
from scripts import load

from lebench_sb.audio.waveforms import standardise_waveform
from lebench_sb.core.extends import whole
from lebench_sb.manifests.utterance import Utterance
from lebench_sb.manifests.writing import write_manifest
from lebench_sb.pretraining.monitor.health import RULES, Facts, Monitor, read_lines
from lebench_sb.pretraining.monitor.probes import Probe
from lebench_sb.pretraining.monitor.watch import OWN_CURVES
from lebench_sb.training import before_training, data

YAML = "recipes/pretraining/wav2vec2/hparams/mini.yaml"
LEARNING = {
    "freeze_targets_updates": 0,
    "feature_grad_mult": 1,
    "init_quantizer": False,
    "diversity_weight": 0,
}


@pytest.fixture
def pretrain(root, corpus, tiny_pretraining, tmp_path):
    """Runs the recipe in this process, tiny unless `tiny` says otherwise; returns {alarm: message} of the
    log, the lines of steps.jsonl, and the page"""
    recipe = load(root / "recipes/pretraining/wav2vec2/train.py")
    small = dict(word[2:].split("=", 1) for word in tiny_pretraining if "=" in word)
    small |= manifests_of(corpus) | {
        "valid_every_updates": 60, "number_of_updates": 60, "grad_accumulation_factor": 1, "num_workers": 0,
        "checkpoint_every_updates": 0, "log_mel_updates": 0,
    }  # fmt: skip

    def run(yaml=root / YAML, fails=None, tiny=True, **options):
        folder = tmp_path / "run"
        options = (small if tiny else {}) | options | {"output_folder": folder}
        argv = [str(yaml), *(f"--{key}={value}" for key, value in options.items()), "--noprogressbar"]
        with nullcontext() if fails is None else pytest.raises(ValueError, match=fails):
            recipe.main(argv)
        lines = [json.loads(line) for line in (folder / "steps.jsonl").read_text().splitlines()]
        return rung(folder), lines, (folder / "health.html").read_text()

    return run


def manifests_of(folder):
    return {"data_folder": folder} | {f"{split}_csv": folder / f"{split}.csv" for split in ("train", "valid")}


def rung(folder):
    """{alarm: message} of a run's log; each may be there once"""
    found = {}
    for line in (folder / "log.txt").read_text().splitlines():
        if (told := re.search(r"WARNING - (.+?), update \d+: (.*)", line)) and told[1] in RULES:
            assert told[1] not in found, "said twice"
            found[told[1]] = told[2]
    return found


def test_collapse(pretrain):
    alarms, lines, page = pretrain(encoder_lr=0.01, **LEARNING)
    assert "perplexity" in alarms["Codebook collapse"] and "diversity_weight" in alarms["Codebook collapse"]
    assert min(lines[-1]["perplexity_0"], lines[-1]["perplexity_1"]) < 2
    assert "<b>Codebook collapse</b>" in page and "No alarm" not in page


def copy_of(corpus, folder, change):
    """The corpus with each utterance's samples passed through `change(name, samples)`, as float WAV"""
    for split in ("train", "valid"):
        utterances = []
        for path in sorted(corpus.glob(f"{split}*.wav")):
            samples, rate = soundfile.read(path, dtype="float32")
            soundfile.write(folder / path.name, change(path.stem, samples), rate, subtype="FLOAT")
            seconds = len(samples) / rate
            utterances.append(
                Utterance(path.stem, str(folder / path.name), seconds, speaker="s", labels={"wrd": "oui"})
            )
        write_manifest(folder / f"{split}.csv", utterances, folder, {})
    return manifests_of(folder)


# as the tiny model, with so many codes that two frames seldom share theirs, and no negative is left out
CODES = (
    "{conv_dim: [16, 16, 16], conv_kernel: [10, 8, 4], conv_stride: [5, 8, 8], hidden_size: 16, "
    "num_hidden_layers: 1, num_attention_heads: 2, intermediate_size: 32, num_conv_pos_embeddings: 8, "
    "num_conv_pos_embedding_groups: 2, codevector_dim: 8, proj_codevector_dim: 8, "
    "num_codevectors_per_group: 320, layerdrop: 0.0}"
)


def test_accuracy_at_chance(pretrain, corpus, tmp_path):
    rng = np.random.default_rng(0)
    noise = copy_of(corpus, tmp_path, lambda name, samples: 0.1 * rng.standard_normal(len(samples)))
    alarms, lines, page = pretrain(
        encoder_lr=0, number_of_updates=201, valid_every_updates=201, config=CODES, **noise
    )
    assert set(alarms) == {"Accuracy at chance"} and "learning rate" in alarms["Accuracy at chance"]
    assert np.mean([line["accuracy"] for line in lines[-51:-1]]) < 3.3
    assert "<b>Accuracy at chance</b>" in page


@pytest.fixture
def unheard(monkeypatch):
    """A run whose audio is not listened to before it starts: the check would stop it there"""
    monkeypatch.setattr(before_training, "check_audio", lambda *_: None)


def test_suspiciously_perfect_accuracy(pretrain, corpus, tmp_path, unheard):
    silent = copy_of(corpus, tmp_path, lambda name, samples: 0 * samples)
    alarms, lines, page = pretrain(init_quantizer=False, **silent)
    assert "100.0 %" in alarms["Accuracy suspiciously perfect"]
    assert "audio repeats itself" in alarms["Accuracy suspiciously perfect"]
    assert "<b>Accuracy suspiciously perfect</b>" in page


def broken(name, samples):
    """One recording of numbers so large that their mean is infinite"""
    return np.full_like(samples, 3e38) if name == "train3" else samples


def test_a_batch_that_is_not_finite_is_left_out_and_named(pretrain, corpus, tmp_path):
    faulty = copy_of(corpus, tmp_path, broken)
    alarms, lines, page = pretrain(
        number_of_updates=12, valid_every_updates=3, max_batch_seconds=3, nonfinite_patience=9, **faulty,
    )  # fmt: skip
    refused = [line["refused"] for line in lines if "refused" in line]
    assert refused and all("train3" in ids and len(ids) < 16 for ids in refused)
    assert set(alarms) == {"Update not finite"} and "train3" in alarms["Update not finite"]
    assert "Updates left out" in page and "train3" in page
    last = lines[-1]
    assert last["stage"] == "valid" and np.isfinite(last["loss"]), "the weights stayed finite"


def test_too_many_of_them_stop_the_run(pretrain, corpus, tmp_path, unheard):
    faulty = copy_of(corpus, tmp_path, lambda name, samples: np.full_like(samples, 3e38))
    faulty |= {"nonfinite_patience": 2}
    alarms, lines, page = pretrain(fails="3 updates.*train", **faulty)
    assert [line["step"] for line in lines] == [1, 2] and set(alarms) == {"Update not finite"}
    assert "stopped, update 2 of 60" in page


def test_batch_far_below_the_recipe(root, pretrain, tmp_path):
    text = whole(root / YAML)
    text = re.sub(r"^hours_per_update:.*\n", "", text, flags=re.M) + "\nhours_per_update: 1.6\n"
    (tmp_path / "other.yaml").write_text(text)
    alarms, lines, page = pretrain(yaml=tmp_path / "other.yaml", number_of_updates=12, valid_every_updates=12)
    message = alarms["Batch far below the recipe's"]
    assert set(alarms) == {"Batch far below the recipe's"} and "the recipe 1.6 h" in message
    seconds = np.mean([line["audio_s"] for line in lines if line["stage"] == "train"][:10])
    assert f"--grad_accumulation_factor {np.ceil(1.6 * 3600 / seconds):.0f} " in message


def test_waiting_for_data(pretrain, monkeypatch):
    load = data.load_audio

    def from_a_slow_disk(*arguments):
        time.sleep(0.05)
        return load(*arguments)

    monkeypatch.setattr(data, "load_audio", from_a_slow_disk)
    short = {"number_of_updates": 55, "valid_every_updates": 55, "max_batch_seconds": 4}
    alarms, lines, page = pretrain(**short, freeze_targets_updates=1000)
    assert set(alarms) == {"Waiting for data"} and "num_workers" in alarms["Waiting for data"]
    assert np.median([line["waiting_share"] for line in lines if line["stage"] == "train"]) > 25


def test_probes_are_those_of_the_exported_encoder(pretrain, corpus, labelled, tmp_path):
    _, lines, page = pretrain(
        number_of_updates=2, valid_every_updates=2, max_crop=2.0, probe_csv=labelled, probe_labels="[half]"
    )
    start, last = lines[0], lines[-1]
    assert start["step"] == 0 and start["probe_half_chance"] == last["probe_half_chance"] == 50
    assert 1 <= last["rank"] <= 16 and "probe: half" in page
    encoder = transformers.AutoModel.from_pretrained(tmp_path / "run/encoder").eval()
    with torch.no_grad():
        expected = Probe(labelled, "half", corpus, 2.0, standardise_waveform).scores(
            lambda wav: encoder(wav[None]).last_hidden_state[0]
        )
    assert last["probe_half"] == pytest.approx(expected["probe_half"], abs=3)


def test_the_reference_run_rings_nothing():
    monitor = Monitor(Facts(2, 320, 100, 600, 256))
    for line in read_lines(OWN_CURVES):
        monitor.add(line)
    assert not monitor.alarms and monitor.curves.stages["valid"]["rank"].values


@pytest.mark.full
def test_a_healthy_run_of_200_updates_raises_no_alarm(pretrain, root, tmp_path):
    pytest.importorskip("espeakng_loader")
    from lebench_sb.corpora.miniature.build import build_miniature
    from lebench_sb.corpora.mls import prepare_mls

    build_miniature(tmp_path / "miniature", scale=0.3, workers=1, corpora=("mls",))
    prepare_mls(tmp_path / "miniature", tmp_path / "manifests")
    options = manifests_of(tmp_path / "manifests") | {"data_folder": tmp_path / "miniature"}
    options |= {"number_of_updates": 200, "num_workers": 0}
    alarms, lines, page = pretrain(tiny=False, **options)
    assert alarms == {} and "No alarm" in page
    assert lines[-1]["step"] == 200 and lines[-1]["accuracy"] > 3
