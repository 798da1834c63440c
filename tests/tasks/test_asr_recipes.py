"""The recipes of speech recognition from a corpus to results.json, each head, with everything small."""

import csv
import json

import jiwer
import pytest
import torch
from python_process import run_python
from safetensors.torch import load_file
from scripts import load
from tiny import write_wav2vec2

from lebench_sb.core.errors import UsageError
from lebench_sb.core.extends import whole
from lebench_sb.manifests.reading import read_manifest
from lebench_sb.manifests.utterance import Utterance
from lebench_sb.manifests.writing import write_manifest
from lebench_sb.tasks.asr import readable
from lebench_sb.text import subwords
from lebench_sb.text.normaliser import normaliser
from lebench_sb.training.brain import SSLBrain

SMALL = {
    "ctc": ["--head={hidden: 16}"],
    "ctc_dnn": ["--head={hidden: 16}", "--encoder_warmup_steps", "0"],
    "crdnn": [
        "--head={rnn_size: 8, rnn_layers: 1, dnn_size: 9, decoder_size: 7, attention_size: 6, embedding: 5}",
        "--vocabulary_size", "30", "--beam", "3", "--tokens_per_state", "0.3",
    ],
}  # fmt: skip
SMALL["crdnn_filterbank"] = [SMALL["crdnn"][0].replace("{", "{channels: [2, 2], "), *SMALL["crdnn"][1:]]
BASELINE = ["--ssl_hub", "mel_filterbank", "--layer", "last", "--freeze", "True", "--mode", "frozen"]


def run(root, corpus, name, *words):
    """Runs a recipe in this process, one epoch"""
    folder = root / "recipes" / "ASR" / corpus
    common = ["--num_workers", "0", "--number_of_epochs", "1", *SMALL[name]]
    given = {str(word).split("=")[0] for word in words}
    kept = [w for pair in grouped(common) if pair[0].split("=")[0] not in given for w in pair]
    argv = [str(folder / "hparams" / f"{name}.yaml"), *kept, "--noprogressbar", *map(str, words)]
    load(folder / "train.py").main(argv)


def grouped(words):
    """Words of a command line -> its options, each with its value"""
    starts = [i for i, word in enumerate(words) if word.startswith("--")]
    return [words[a:b] for a, b in zip(starts, [*starts[1:], len(words)], strict=True)]


def result(folder):
    record = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    rows = list(csv.DictReader((folder / "utterances.csv").open(encoding="utf-8")))
    return record, rows


def check(record, rows, metrics):
    """The scores of results.json against jiwer on the texts of utterances.csv, and their intervals"""
    assert list(record["metrics"]) == metrics
    said = [row["hypothesis"] or " " for row in rows]
    references = [row["reference"] for row in rows]
    wer = 100 * jiwer.wer(references, said)
    assert record["metrics"]["WER"]["value"] == pytest.approx(wer, abs=1e-9)
    for entry in record["metrics"].values():
        low, high = entry["ci95"]
        assert low <= entry["value"] <= high and entry["resamples"] >= 1000


@pytest.fixture(scope="module")
def etape(tmp_path_factory):
    pytest.importorskip("espeakng_loader")
    pytest.importorskip("py_nanotts")
    from lebench_sb.corpora.miniature.build import build_miniature

    folder = tmp_path_factory.mktemp("etape")
    build_miniature(folder, scale=0.01, workers=1, corpora=("etape",))
    return folder / "etape"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """The folder of a small wav2vec 2.0 with random weights"""
    return write_wav2vec2(tmp_path_factory.mktemp("encoder"))


def test_ctc_on_etape_with_n_grams(root, etape, tmp_path):
    pytest.importorskip("kenlm")
    grid = ["--lm", "train", "--lm_weights", "[0.4]", "--lm_word_bonuses", "[0.0, 1.0]"]
    limits = ["--lm_beam", "4", "--lm_tuning_utterances", "2", "--output_folder", tmp_path / "r"]
    run(root, "ETAPE", "ctc", *BASELINE, "--data_folder", etape, *grid, *limits)
    record, rows = result(tmp_path / "r")
    check(record, rows, ["WER", "CER", "WER+LM", "CER+LM"])
    assert record["corpus"] == "ETAPE"
    note = json.loads((tmp_path / "r" / "language_model.json").read_text())
    assert note["chosen"]["weight"] == 0.4 and len(note["tried"]) == 2 and note["valid_utterances"] == 2
    assert note["chosen"]["wer"] == min(each["wer"] for each in note["tried"])
    texts = list(csv.DictReader((tmp_path / "r" / "transcripts.csv").open(encoding="utf-8")))
    wer = 100 * jiwer.wer([t["reference"] for t in texts], [t["hypothesis_lm"] or " " for t in texts])
    assert record["metrics"]["WER+LM"]["value"] == pytest.approx(wer)


def test_cased_text_is_scored_twice(root, etape, tmp_path):
    run(
        root,
        "ETAPE",
        "ctc",
        *BASELINE,
        "--data_folder",
        etape,
        "--target",
        "text",
        "--output_folder",
        tmp_path / "r",
    )
    record, rows = result(tmp_path / "r")
    check(record, rows, ["WER", "CER", "WER cased", "CER cased"])
    texts = list(csv.DictReader((tmp_path / "r" / "transcripts.csv").open(encoding="utf-8")))
    written = {
        u.id: u.labels["text"] for u in read_manifest(tmp_path / "r" / "manifests" / "test.csv", etape)
    }
    assert {t["ID"]: t["reference_written"] for t in texts} == written
    assert all(t["reference"] == normaliser("fr-1")(t["reference_written"]) for t in texts)
    hypotheses = [t["hypothesis_written"] or " " for t in texts]
    wer = 100 * jiwer.wer([t["reference_written"] for t in texts], hypotheses)
    assert record["metrics"]["WER cased"]["value"] == pytest.approx(wer)
    symbols = json.loads((tmp_path / "r" / "characters.json").read_text(encoding="utf-8"))
    assert any(c.isupper() for c in symbols) and "." in symbols


@pytest.mark.parametrize("corpus_name", ["CommonVoice", "ETAPE"])
@pytest.mark.parametrize("name", ["ctc_dnn", "crdnn", "crdnn_filterbank"])
def test_heads_on_own_manifests(root, manifests, tiny, tmp_path, corpus_name, name):
    encoder = [] if name == "crdnn_filterbank" else ["--ssl_hub", tiny]
    options = ["--output_folder", tmp_path / "r", "--max_batch_seconds", "12"]
    run(root, corpus_name, name, *manifests, *encoder, *options)
    record, rows = result(tmp_path / "r")
    check(record, rows, ["WER", "CER"])
    assert record["parameters"]["trained"] > 0 and len(rows) == 13
    exported = (tmp_path / "r" / "encoder" / "model.safetensors").exists()
    assert exported == (name == "ctc_dnn")  # the only one whose YAML fine-tunes the encoder
    if name != "ctc_dnn":
        assert json.loads((tmp_path / "r" / "subwords.json").read_text())["size"] <= 30


def test_a_crdnn_trains_an_encoder_end_to_end_and_repeats_itself(root, manifests, tiny, tmp_path):
    options = ["--freeze", "False", "--encoder_warmup_steps", "0", "--mode", "end-to-end"]
    for name in ("a", "b"):
        run(
            root,
            "CommonVoice",
            "crdnn",
            *manifests,
            "--ssl_hub",
            tiny,
            *options,
            "--output_folder",
            tmp_path / name,
        )
    (first, rows), (second, again) = result(tmp_path / "a"), result(tmp_path / "b")
    assert rows == again and first["metrics"] == second["metrics"]
    assert (tmp_path / "a" / "encoder" / "model.safetensors").exists()


def test_an_encoder_to_be_trained_is_trained(root, manifests, tiny, tmp_path):
    """A warm-up as long as the run is refused, and skipped in a debug run"""
    options = ["--ssl_hub", tiny, "--freeze", "False", "--encoder_warmup_steps", "500", "--output_folder"]
    with pytest.raises(UsageError, match=r"encoder_warmup_steps 500: the run has \d+ updates"):
        run(root, "CommonVoice", "ctc", *manifests, *options, tmp_path / "r")
    assert not (tmp_path / "r" / "results.json").exists()
    stopped = ["--optimizer_step_limit", "1", "--encoder_warmup_steps", "1"]
    with pytest.raises(UsageError, match="encoder_warmup_steps 1: the run has 1 updates"):
        run(root, "CommonVoice", "ctc", *manifests, *options[:4], *stopped, "--output_folder", tmp_path / "s")
    run(root, "CommonVoice", "ctc", *manifests, *options, tmp_path / "d", "--debug", "--debug_persistently")
    before, after = (load_file(folder / "model.safetensors") for folder in (tiny, tmp_path / "d" / "encoder"))
    assert any(not torch.equal(before[name], weights) for name, weights in after.items() if name in before)
    frozen = ["--ssl_hub", tiny, "--freeze", "True", *options[4:]]
    run(root, "CommonVoice", "ctc", *manifests, *frozen, tmp_path / "f")
    assert (tmp_path / "f" / "results.json").exists()


def test_a_rate_that_never_falls_is_told(root, manifests, tmp_path):
    rising = "--schedule=!name:lebench_sb.training.schedules.inverse_sqrt {warmup: 1000}"
    for name, words, told in (("short", [rising], True), ("usual", [], False)):
        options = ["--max_batch_seconds", "6", *words, "--output_folder", tmp_path / name]
        run(root, "CommonVoice", "ctc", *manifests, *BASELINE, *options)
        log = (tmp_path / name / "log.txt").read_text(encoding="utf-8")
        assert ("The learning rate still rises when the run ends" in log) == told


def test_a_target_that_no_manifest_has(root, manifests, tmp_path):
    with pytest.raises(UsageError, match="--target text: the training manifest has no such column; wrd"):
        run(
            root,
            "CommonVoice",
            "ctc",
            *manifests,
            *BASELINE,
            "--target",
            "text",
            "--output_folder",
            tmp_path / "r",
        )


def test_n_grams_of_a_file_that_is_not_there(root, manifests, tmp_path):
    pytest.importorskip("kenlm")
    with pytest.raises(FileNotFoundError, match="lm: 4-gram.arpa not found"):
        words = ["--lm", "4-gram.arpa", "--output_folder", tmp_path / "r"]
        run(root, "CommonVoice", "ctc", *manifests, *BASELINE, *words)


def test_what_a_normaliser_cannot_read_is_left_out_of_a_hypothesis():
    assert readable(normaliser("fr-1"), "Oui ~ [non], là") == "oui non là"


def test_subwords_give_back_what_they_were_learnt_from():
    texts = ["Bonjour… « Zoé », ½ heure ?", "20 °C, cœur ’t", "ÉTÉ fi"] * 3
    pieces = subwords.Subwords(subwords.train(texts, 60))
    assert [pieces.decode(pieces.encode(text)) for text in texts] == texts


def test_the_two_corpora_have_the_same_recipe(root):
    """Same keys in the YAMLs of both, the corpus's own options apart"""
    for name in SMALL:
        keys = []
        for corpus in ("CommonVoice", "ETAPE"):
            text = whole(root / "recipes" / "ASR" / corpus / "hparams" / f"{name}.yaml")
            keys.append([line.split(":")[0] for line in text.splitlines() if line and line[0] not in " #"])
        assert [key for key in keys[1] if key != "stm_encoding"] == keys[0]


def test_units_of_own_recordings(root, corpus, tmp_path):
    """A label `text` of one's own manifests is a target too"""
    for split in ("train", "valid", "test"):
        found = read_manifest(corpus / f"{split}.csv", corpus)
        both = [
            Utterance(u.id, u.wav, u.duration, None, None, u.speaker, u.gender, "fr", u.labels | written(u))
            for u in found
        ]
        write_manifest(tmp_path / f"{split}.csv", both, corpus, {})
    words = [w for s in ("train", "valid", "test") for w in (f"--{s}_csv", tmp_path / f"{s}.csv")]
    options = ["--target", "text", "--data_folder", corpus, "--output_folder", tmp_path / "r"]
    run(root, "CommonVoice", "crdnn_filterbank", *words, *options)
    check(*result(tmp_path / "r"), ["WER", "CER", "WER cased", "CER cased"])


def written(u):
    return {"text": u.labels["wrd"].capitalize() + " !"}


class Stopped(Exception):
    pass


@pytest.mark.parametrize("name", ["crdnn", "ctc_dnn"])
def test_a_stopped_run_goes_on_as_if_nothing_had_happened(root, manifests, tmp_path, monkeypatch, name):
    """Statistics of FrameNorm, the epoch of the joint loss, subwords: nothing starts again"""
    words = [*manifests, *BASELINE, "--max_batch_seconds", "6", "--checkpoint_every_updates", "1"]
    words += ["--number_of_epochs", "3"] + (["--ctc_epochs", "2"] if name == "crdnn" else [])
    run(root, "CommonVoice", name, *words, "--output_folder", tmp_path / "whole")
    log_step, calls = SSLBrain.log_step, []

    def stopping(self, stage, **values):
        calls.append(stage)
        if len(calls) == 12:
            raise Stopped
        log_step(self, stage, **values)

    with monkeypatch.context() as patch:
        patch.setattr(SSLBrain, "log_step", stopping)
        with pytest.raises(Stopped):
            run(root, "CommonVoice", name, *words, "--output_folder", tmp_path / "stopped")
    run(root, "CommonVoice", name, *words, "--output_folder", tmp_path / "stopped")
    steps = [(tmp_path / kind / "steps.jsonl").read_text() for kind in ("whole", "stopped")]
    assert steps[0] == steps[1] and len(steps[0].splitlines()) > 15
    assert result(tmp_path / "whole")[1] == result(tmp_path / "stopped")[1]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["crdnn", "ctc_dnn"])
def test_two_processes_score_as_one_does_with_their_checkpoint(root, manifests, tmp_path, name):
    options = [*manifests, *BASELINE, "--max_batch_seconds", "6", "--output_folder", str(tmp_path / "r")]
    options += ["--num_workers", "0", "--number_of_epochs", "2", "--noprogressbar", *SMALL[name]]
    if name == "ctc_dnn":
        pytest.importorskip("kenlm")
        options += [
            "--lm",
            "train",
            "--lm_beam",
            "4",
            "--lm_weights",
            "[0.2, 0.8]",
            "--lm_word_bonuses",
            "[1]",
        ]
    folder = root / "recipes" / "ASR" / "CommonVoice"
    script = [str(folder / "train.py"), str(folder / "hparams" / f"{name}.yaml"), *options]
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    found = []
    for words in ([*launcher, *script], [*script, "--test_only"]):
        done = run_python(words)
        assert done.returncode == 0, done.stderr[-3000:]
        record, rows = result(tmp_path / "r")
        found.append((record["metrics"], rows))
    assert found[0] == found[1] and len(found[0][1]) == 13


@pytest.mark.full
def test_eight_utterances_can_be_overfitted_with_attention(root, corpus, tmp_path):
    """From files through the decoder with attention and beam search: at most 5 % of the words are wrong"""
    write_manifest(tmp_path / "eight.csv", read_manifest(corpus / "train.csv", corpus)[:8], corpus, {})
    words = [w for s in ("train", "valid", "test") for w in (f"--{s}_csv", tmp_path / "eight.csv")]
    words += ["--allow_shared_audio", "True"]
    sizes = "rnn: lstm, rnn_size: 64, rnn_layers: 2, dnn_size: 64, decoder_size: 64, attention_size: 64"
    options = [
        "--data_folder", corpus, "--ssl_hub", "mel_filterbank", "--output_folder", tmp_path / "r",
        "--max_batch_seconds", "8", "--mask=!name:lebench_sb.audio.augment.no_mask", "--beam", "5",
        f"--head={{{sizes}, dropout: 0.0, time_pooling: 4, attention_kernel: 10}}",
        "--tokens_per_state", "1.0", "--number_of_epochs", "120", "--vocabulary_size", "40",
    ]  # fmt: skip
    run(root, "CommonVoice", "crdnn", *words, *options)
    record, rows = result(tmp_path / "r")
    assert record["metrics"]["WER"]["value"] <= 5.0, rows
