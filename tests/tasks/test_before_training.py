"""Faults of a run's data are told in one line, before a model is built, whatever the task."""

import csv
import logging
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from scripts import load

from lebench_sb.core.errors import DataError, UsageError
from lebench_sb.core.extends import whole
from lebench_sb.core.yaml_values import plain_settings, resolve
from lebench_sb.encoders import encoder as encoders
from lebench_sb.manifests.targets import check_targets, steps_of
from lebench_sb.manifests.trees import Tree, as_conllu
from lebench_sb.manifests.utterance import Utterance
from lebench_sb.manifests.writing import write_manifest
from lebench_sb.tasks.heads.common import FeedForwardHead, PerceptronHead, PyramidHead, RecurrentHead
from lebench_sb.tasks.heads.crdnn import CRDNN
from lebench_sb.tasks.heads.parser import Recogniser
from lebench_sb.training.before_training import Checked, check_before_training
from lebench_sb.training.data import load_utterances

ROOT = Path(__file__).parents[2]
TASKS = {  # a YAML of each task: its overrides
    "ASR/CommonVoice/hparams/ctc.yaml": {},
    "ASR/ETAPE/hparams/crdnn.yaml": {"vocabulary_size": "30"},
    "SLU/MEDIA/hparams/ctc.yaml": {},
    "SLU/MEDIA/hparams/words.yaml": {},
    "AST/mTEDx/hparams/transformer.yaml": {"subwords": "40"},
    "AER/CaFE/hparams/mean_pool.yaml": {},
    "AER/RECOLA/hparams/gru.yaml": {"trace_column": "calm"},
    "ASV/Fabiole/hparams/ecapa.yaml": {"trials": "made"},
    "SA/ORFEO/hparams/wav2tree.yaml": {},
    "pretraining/wav2vec2/hparams/mini.yaml": {},
    "pretraining/distillation/hparams/mini.yaml": {"teacher": "mel_filterbank"},
}
CTC, ATTENTION, SLU, WORDS, AST, CAFE, RECOLA, ASV, SA, SSL, DISTIL = TASKS
CASCADE = "SLU/MEDIA/hparams/cascade.yaml"
COUNTS = {"train": 6, "valid": 4, "test": 4}
SENTENCES = [
    ("le chat dort", "<qui> le chat > dort", "The cat sleeps."),
    ("le rat dort là", "le <qui> rat > dort là", "The cat sleeps there."),
]


@pytest.fixture(autouse=True)
def no_model(monkeypatch):
    """A check that reads weights fails"""

    def refuse(*_, **__):
        raise AssertionError("a model is built")

    monkeypatch.setattr(encoders, "load_encoder", refuse)
    monkeypatch.setattr(encoders, "load_strictly", refuse)
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """Recordings of 1 s and manifests with every label"""
    made, rng = tmp_path_factory.mktemp("sound"), np.random.default_rng(0)
    for split, count in COUNTS.items():
        found = []
        for number in range(count):
            name = f"{split}{number}"
            wav, trace = made / f"{name}.wav", made / f"{name}.csv.trace"
            soundfile.write(wav, 0.1 * rng.standard_normal(16000), 16000)
            trace.write_text("time,calm\n0.0,0.1\n0.5,0.3\n1.0,0.2\n", encoding="utf-8")
            found.append(utterance(name, split, number, wav, trace))
        write_manifest(made / f"{split}.csv", found, made, {})
    return made


@pytest.fixture
def folder(sound, tmp_path):
    """A copy to spoil"""
    return Path(shutil.copytree(sound, tmp_path, dirs_exist_ok=True))


def utterance(name, split, number, wav, trace):
    words, tagged, translation = SENTENCES[number % 2]
    own = tuple(words.split())
    heads = (2, 3, 0) if len(own) == 3 else (2, 3, 0, 3)
    tree = as_conllu(Tree(own, ("X",) * len(own), heads, tuple("root" if h == 0 else "dep" for h in heads)))
    labels = {
        "wrd": words, "text": words.capitalize() + ".", "semantics": tagged, "translation_en": translation,
        "emotion": ("joie", "peur")[number % 2], "trace": str(trace), "tree": tree,
    }  # fmt: skip
    return Utterance(name, str(wav), 1.0, speaker=f"{split}{number % 2}", gender="F", labels=labels)


@cache
def plain_yaml(yaml):
    """The settings of a recipe's YAML, all placeholders filled"""
    path = ROOT / "recipes" / yaml
    keys = whole(path)
    overrides = {"data_folder": "D", "output_folder": "O", **TASKS.get(yaml, {"asr_run": "R"})}
    if "ssl_hub: !PLACEHOLDER" in keys:
        overrides["ssl_hub"] = "mel_filterbank"
    return plain_settings(resolve(path, overrides), path)


def check(folder, yaml, **more):
    settings = plain_yaml(yaml)
    own = {f"{split}_csv": str(folder / f"{split}.csv") for split in COUNTS if f"{split}_csv" in settings}
    return check_before_training({**settings, "data_folder": str(folder), **own, **more}, settings["task"])


def edit(folder, split, change):
    """change(row) -> row or None, for each row of a manifest as it is written; its columns are the first
    row's"""
    path = folder / f"{split}.csv"
    rows = [change(dict(row)) for row in csv.DictReader(path.open(encoding="utf-8", newline=""))]
    rows = [row for row in rows if row is not None]
    with path.open("w", encoding="utf-8", newline="") as out:
        writer = csv.DictWriter(out, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def put(name, column, value):
    """A change of one row"""
    return lambda row: {**row, column: value} if row["ID"] == name else row


def put_all(column, value):
    return lambda row: {**row, column: value}


def dropped(*columns):
    return lambda row: {key: value for key, value in row.items() if key not in columns}


@pytest.mark.parametrize("yaml", TASKS)
def test_sound_data_passes(folder, yaml, caplog):
    with caplog.at_level(logging.WARNING):
        checked = check(folder, yaml)
    assert [len(part) for part in checked.splits.values()] == list(COUNTS.values())[: len(checked.splits)]
    assert set(checked.details) == {"audio"} and not caplog.records
    assert load_utterances({"checked": checked}) is checked.splits


COLUMNS_OF = {
    CTC: "wrd", ATTENTION: "wrd", SLU: "semantics", WORDS: "wrd", AST: "translation_en",
    CAFE: "emotion", RECOLA: "trace", SA: "tree",
}  # fmt: skip


@pytest.mark.parametrize("split", COUNTS)
@pytest.mark.parametrize("yaml", COLUMNS_OF)
def test_a_table_without_the_label_is_named(folder, yaml, split):
    edit(folder, split, dropped(COLUMNS_OF[yaml]))
    with pytest.raises(DataError) as error:
        check(folder, yaml)
    assert f"{split}: no column {COLUMNS_OF[yaml]}" in str(error.value)
    assert f"{folder / split}.csv" in str(error.value) and "gender" not in str(error.value)


FAULTS = [  # YAML, split, change, words of the error
    (CTC, "test", put_all("wrd", " "), "test: every wrd is empty, no error rate is defined"),
    (CTC, "train", put_all("wrd", ""), "train: every wrd is empty, nothing to learn from"),
    (ATTENTION, "valid", put_all("wrd", ""), "valid: every wrd is empty, no error rate is defined"),
    (AST, "test", put_all("translation_en", ""), "test: every translation_en is empty"),
    (CTC, "test", put_all("wrd", "ДОМ МОЙ"), "test: 24 of 24 characters of wrd are unseen in train"),
    (WORDS, "valid", put_all("wrd", "LE CHAT"), "valid: 24 of 24 characters of wrd are unseen in train"),
    (AST, "test", put_all("translation_en", "ДОМ"), "characters of translation_en are unseen in train"),
    (SLU, "test", put_all("semantics", "<qui> ДОМ >"), "characters of semantics are unseen in train"),
    (CTC, "test", put("test1", "wrd", "le \x00chat"), r"test: control characters in wrd \(1\): test1"),
    (AST, "train", put("train1", "translation_en", "a\x07"), "control characters in translation_en"),
    (CTC, "test", put("test2", "wrd", "le chat " * 100), r"wrd over 100 characters per second \(1\): test2"),
    (ATTENTION, "valid", put("valid0", "wrd", "le " * 9999), "over 100 characters per second"),
    (CAFE, "test", put("test0", "emotion", ""), r"no emotion \(column emotion\) \(1\): test0 \(test\)"),
    (CAFE, "valid", put("valid1", "emotion", "colère"), "emotion that train does not have"),
    (CAFE, "train", put("train0", "emotion", "Joie"), "'Joie' and 'joie'"),
    (CAFE, "train", put("train0", "emotion", "joie "), "'joie' and 'joie '"),
    (CAFE, "train", put_all("emotion", "joie"), "emotion that train does not have"),
    (CAFE, "test", put_all("spk_id", "train0"), r"speakers in train and test \(1\): train0"),
    (RECOLA, "test", put_all("spk_id", "train0"), r"speakers in train and test \(1\): train0"),
    (ASV, "test", put("test0", "spk_id", "train0"), "test speakers heard in train or valid"),
    (ASV, "test", put_all("spk_id", "x"), "make no trials"),
    (ASV, "train", put("train0", "spk_id", ""), "training utterances without spk_id"),
    (RECOLA, "test", put("test0", "trace", ""), r"no trace \(column trace\) \(1\): test0"),
    (RECOLA, "test", put("test0", "trace", "$data_root/none.csv"), "none.csv"),
    (SA, "test", put("test0", "tree", ""), r"no tree \(1\): test0"),
    (SA, "valid", put("valid0", "wrd", "le rat mort"), "words of wrd and of the tree that differ"),
    (SLU, "test", put("test0", "semantics", "<quoi> le chat > dort"), "concepts that train lacks"),
    (SLU, "valid", put_all("semantics", "le chat dort"), "no concept in valid"),
    (CTC, "test", put("test0", "duration", "0.02"), r"test: shorter than one frame of mel_filterbank"),
    (ASV, "valid", put("valid0", "duration", "0.02"), "valid: shorter than one frame"),
    (SSL, "valid", put("valid0", "duration", "0.05"), "5 frames of --mask_length"),
    (DISTIL, "valid", put("valid0", "duration", "0.02"), "valid: shorter than"),
    (CTC, "test", put("test3", "duration", "3600"), r"--max_seconds 600.* the longest .*test3 \(3600 s\)"),
    (SSL, "valid", put("valid0", "wav", "$data_root/gone.wav"), r"missing file .*\(1\): .*gone.wav"),
    (CTC, "test", put("test0", "gender", "X"), "gender not F, M or U"),
]  # fmt: skip


@pytest.mark.parametrize(
    "yaml, split, change, words", FAULTS, ids=[f"{f[0].split('/')[0]}-{f[3][:40]}" for f in FAULTS]
)
def test_a_fault_of_the_labels_is_named(folder, yaml, split, change, words):
    edit(folder, split, change)
    with pytest.raises(DataError, match=words) as error:
        check(folder, yaml)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "yaml, overrides, words",
    [
        (ATTENTION, {"vocabulary_size": 3}, "3: the training texts have 10 different characters: 14 or more"),
        (AST, {"subwords": 0}, "--subwords 0: the training texts have"),
        (SLU, {"unseen_concepts": "ignore"}, "--unseen_concepts ignore: error or count"),
        (RECOLA, {"trace_range": [1.0, -1.0]}, "trace_range"),
        (CTC, {"gender": "male"}, "--gender male"),
        (AST, {"max_bad_fraction": 1.5}, "--max_bad_fraction 1.5: a share of train from 0 to 1"),
        (SSL, {"max_bad_fraction": None}, "--max_bad_fraction None"),
        (CTC, {"target": "words"}, "--target words: the training manifest has no such column"),
    ],
)
def test_a_setting_that_the_data_cannot_have(folder, yaml, overrides, words):
    with pytest.raises(UsageError, match=words):
        check(folder, yaml, **overrides)


@pytest.mark.parametrize("yaml", [CTC, CAFE, SA, SSL])
def test_a_folder_without_any_of_the_files(folder, yaml, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    count = 14 if "pretraining" not in yaml else 10
    said = f"none of the {count} audio files is there .is --data_folder {elsewhere}"
    with pytest.raises(DataError, match=said):
        check(folder, yaml, data_folder=str(elsewhere))


def test_all_faults_come_in_one_line(folder):
    edit(folder, "valid", put("valid0", "duration", "0.01"))
    edit(folder, "test", dropped("wrd"))
    (folder / "test1.wav").write_bytes(b"<html>")
    with pytest.raises(DataError) as error:
        check(folder, CTC)
    assert all(words in str(error.value) for words in ("no column wrd", "valid0", "HTML page saved as audio"))


def test_damaged_training_audio_is_left_out_up_to_a_share(folder, caplog):
    (folder / "train1.wav").write_bytes(b"")
    said = "1 of 6 training utterances cannot be used, over the share max_bad_fraction 0.01"
    with pytest.raises(DataError, match=said):
        check(folder, CTC)
    with caplog.at_level(logging.WARNING):
        checked = check(folder, CTC, max_bad_fraction=0.2)
    assert {u.id for u in checked.splits["train"]} == {f"train{k}" for k in (0, 2, 3, 4, 5)}
    assert checked.details["left_out"] == {"file of 0 bytes": 1}
    assert "train1" in caplog.text
    (folder / "test1.wav").write_bytes(b"")
    with pytest.raises(DataError, match="test: file of 0 bytes"):
        check(folder, CTC, max_bad_fraction=1.0)


def test_rare_unseen_characters_are_told(folder, caplog):
    edit(folder, "test", put("test0", "wrd", "le chat œuvre"))
    edit(folder, "train", put("train0", "wrd", ""))
    with caplog.at_level(logging.WARNING):
        details = check(folder, CTC).details
    assert details["unseen_characters"]["test"]["characters"] == {"u": 1, "v": 1, "œ": 1}
    assert details["unseen_characters"]["test"]["count"] == 3 and "'œ'" in caplog.text
    assert details["empty_texts"] == {"train": 1}


def test_emotions_without_an_example_are_told(folder, caplog):
    edit(folder, "test", put_all("emotion", "joie"))
    assert check(folder, CAFE).details["emotions_without_example"] == {"test": ["peur"]}
    assert "test: no example of peur" in caplog.text


def test_overlap_of_speakers_may_be_allowed(folder):
    edit(folder, "test", put_all("spk_id", "train0"))
    for yaml in (CAFE, RECOLA):
        check(folder, yaml, allow_speaker_overlap=True)


def test_constant_traces_are_counted_and_refused_where_there_is_no_other(folder):
    flat = "time,calm\n0.0,0.1\n1.0,0.1\n"
    (folder / "test0.csv.trace").write_text(flat)
    assert check(folder, RECOLA).details["constant_traces"] == {"test": 1}
    for number in range(4):
        (folder / f"test{number}.csv.trace").write_text(flat)
    with pytest.raises(DataError, match="test: every trace is constant"):
        check(folder, RECOLA)


@pytest.mark.parametrize("yaml", [CTC, AST, SSL])
@pytest.mark.parametrize("way", ["ID", "file", "samples"])
def test_audio_of_train_in_valid_is_refused_unless_allowed(folder, yaml, way):
    if way == "ID":
        edit(folder, "valid", lambda row: {**row, "ID": row["ID"].replace("valid0", "train0")})
    elif way == "file":
        edit(folder, "valid", put("valid0", "wav", "$data_root/train0.wav"))
    else:
        shutil.copy(folder / "train0.wav", folder / "valid0.wav")
    with pytest.raises(DataError, match="same .* in train and valid.*allow_shared_audio True"):
        check(folder, yaml)
    assert check(folder, yaml, allow_shared_audio=True).caveats == ["audio shared between splits"]


def test_a_written_target_without_words_is_refused(folder):
    edit(folder, "test", put_all("text", "..."))
    with pytest.raises(DataError, match="fr-1 leaves no word of text"):
        check(folder, CTC, target="text")


def test_large_tables_are_checked_as_columns(folder, monkeypatch):
    from lebench_sb.manifests import columns

    monkeypatch.setattr(columns, "LARGE", 1)
    assert set(check(folder, CTC).details) == {"audio"}
    (folder / "train1.wav").write_bytes(b"")
    assert len(check(folder, SSL, max_bad_fraction=0.5).splits["train"]) == 5
    edit(folder, "test", put("test0", "wrd", "\x01"))
    with pytest.raises(DataError, match="control characters in wrd"):
        check(folder, CTC)


HEADS = {
    "recurrent": RecurrentHead(80, 100.0, 5, hidden=4, max_rate=25.0),
    "perceptron": PerceptronHead(80, 5, hidden=4, stack=3),
    "pyramid": PyramidHead(80, 100.0, 5, hidden=4, levels=3),
    "feed-forward": FeedForwardHead(80, 100.0, 5, hidden=4),
    "wav2tree": Recogniser(80, 100.0, 5, hidden=4),
    "crdnn": CRDNN(80, 100.0, 5, time_pooling=4, rnn_size=4, dnn_size=4, decoder_size=4),
}  # fmt: skip


@pytest.mark.parametrize("name", HEADS)
def test_steps_foreseen_are_those_a_head_gives(name):
    head, encoder = HEADS[name].eval(), encoders.MelFilterbank()
    seconds = [0.025, 0.0349, 0.1, 0.333, 1.0]
    found = [Utterance(str(s), "a.wav", s) for s in seconds]
    foreseen = steps_of(found, encoder, head).tolist()
    for expected, s in zip(foreseen, seconds, strict=True):
        frames, lens = encoder(torch.randn(1, round(16000 * s)), torch.ones(1))
        more = [torch.zeros(1, 1, dtype=torch.int64)] if name == "crdnn" else []
        made = head(frames, lens, *more)
        steps = next(part for part in made if isinstance(part, torch.Tensor) and part.ndim == 1)
        assert steps.tolist() == [expected]


@pytest.mark.parametrize("split", COUNTS)
@pytest.mark.parametrize("text, fits", [("abcde", True), ("abcdef", False), ("aab ", True), ("aaab", False)])
def test_texts_that_need_more_steps_than_their_audio_has(split, text, fits, caplog):
    head = HEADS["recurrent"]  # 25 steps a second: 5 in 0.2 s
    short = {"wrd": "abc"}
    splits = {s: [Utterance(f"{s}{k}", "a.wav", 0.2, labels=short) for k in range(9)] for s in COUNTS}
    splits[split].append(Utterance("long", "a.wav", 0.2, labels={"wrd": text}))
    hparams = {"encoder": encoders.MelFilterbank(), "max_bad_fraction": 0.01, "checked": Checked(splits)}
    if fits:
        check_targets(splits, "wrd", list, head, hparams)
        assert hparams["checked"].details == {}
        return
    with pytest.raises(DataError, match=rf"{split}: 1 of 10 texts .* \(long\), over max_bad_fraction 0.01"):
        check_targets(splits, "wrd", list, head, hparams)
    check_targets(splits, "wrd", list, head, {**hparams, "max_bad_fraction": 0.1})
    assert hparams["checked"].details == {"targets_too_long": {split: 1}} and "long" in caplog.text


def test_a_probe_without_its_audio_or_labels_is_told(folder):
    made = [utterance(f"probe{k}", "probe", k, folder / "train0.wav", "") for k in range(10)]
    write_manifest(folder / "probe.csv", [replace(u, labels={}) for u in made], folder, {})
    keys = {"probe_csv": str(folder / "probe.csv"), "probe_labels": ["spk_id"]}
    check(folder, SSL, **keys)
    with pytest.raises(UsageError, match="has no column emotion"):
        check(folder, SSL, **keys | {"probe_labels": ["emotion"]})
    edit(folder, "probe", put("probe3", "wav", "$data_root/gone.wav"))
    with pytest.raises(DataError, match="probe_csv: missing file.*probe3"):
        check(folder, SSL, **keys)


@pytest.fixture
def heard(folder):
    """What a recognition run wrote of the test set -> settings of the cascade that reads it"""
    asr = folder / "asr"
    asr.mkdir()
    rows = [f"test{k},x,F,1.0,{SENTENCES[k % 2][0]},le chat\n" for k in range(4)]
    (asr / "utterances.csv").write_text("ID,spk_id,gender,duration,reference,hypothesis\n" + "".join(rows))
    return asr


def test_a_cascade_needs_the_words_of_its_recognition_run(folder, heard):
    (folder / "test0.wav").unlink()  # it hears no audio
    assert check(folder, CASCADE, asr_run=str(heard)).details == {}
    table = heard / "utterances.csv"
    table.write_text(table.read_text().replace("test3", "other"))
    with pytest.raises(DataError, match=r"test utterances it did not score \(1\): test3"):
        check(folder, CASCADE, asr_run=str(heard))
    with pytest.raises(UsageError, match="--asr_run .*none: no such folder"):
        check(folder, CASCADE, asr_run=str(folder / "none"))


STARTED = {CTC: "wrd", AST: "translation_en", RECOLA: "trace"}


@pytest.mark.parametrize("yaml", STARTED)
def test_a_recipe_says_so_before_it_builds_its_encoder(folder, yaml, monkeypatch):
    edit(folder, "test", dropped(STARTED[yaml]))
    words = [str(ROOT / "recipes" / yaml), "--data_folder", str(folder)]
    words += ["--output_folder", str(folder / "run")]
    words += [w for split in COUNTS for w in (f"--{split}_csv", str(folder / f"{split}.csv"))]
    words += [w for key, value in TASKS[yaml].items() for w in (f"--{key}", value)]
    train = load(ROOT / "recipes" / Path(yaml).parents[1] / "train.py")
    with pytest.raises(DataError, match=f"test: no column {STARTED[yaml]}"):
        train.main([*words, "--ssl_hub", "mel_filterbank", "--num_workers", "0", "--noprogressbar"])
    assert not (folder / "run" / "steps.jsonl").exists()


@pytest.mark.slow
def test_of_two_processes_none_waits_for_the_one_that_found_the_fault(folder):
    edit(folder, "test", put_all("wrd", ""))
    words = [str(ROOT / "recipes/ASR/CommonVoice/train.py"), str(ROOT / "recipes" / CTC)]
    words += ["--data_folder", str(folder), "--output_folder", str(folder / "run"), "--noprogressbar"]
    words += [w for split in COUNTS for w in (f"--{split}_csv", str(folder / f"{split}.csv"))]
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, *launch, *words, "--ssl_hub", "mel_filterbank"],
        capture_output=True, text=True, env=environment, timeout=200,
    )  # fmt: skip
    assert done.returncode != 0 and done.stderr.count("error: data: test: every wrd is empty") == 1
    assert "exitcode  : 3" in done.stderr
