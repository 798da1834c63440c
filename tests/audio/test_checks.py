"""Damage, silence and copies are seen before training and by `lebench validate` without --decode."""

import json
import os

import numpy as np
import pytest
import soundfile

from lebench_sb import cli
from lebench_sb.audio import verdict
from lebench_sb.core.errors import DataError
from lebench_sb.manifests import audio_checks
from lebench_sb.manifests.audio_checks import check_audio, drawn, survey_audio
from lebench_sb.manifests.columns import Utterances, columnar
from lebench_sb.manifests.utterance import Utterance
from lebench_sb.manifests.writing import write_manifest

RATE = 16000


def wave(seed, seconds=1.0):
    return np.random.default_rng(seed).normal(0, 0.05, int(seconds * RATE))


@pytest.fixture
def splits(tmp_path):
    """train of 200 utterances in 2 files (segments) and 2 of their own, valid and test of 2 files each"""
    train = []
    for k in range(2):
        soundfile.write(tmp_path / f"long{k}.flac", wave(k, 10.0), RATE)
        for i in range(99):
            path = str(tmp_path / f"long{k}.flac")
            train.append(Utterance(f"l{k}-{i}", path, 0.1, i / 10, (i + 1) / 10))
    found = {"train": train}
    for split, first in (("train", 10), ("valid", 20), ("test", 30)):
        for k in range(first, first + 2):
            soundfile.write(tmp_path / f"{k}.wav", wave(k), RATE)
            found.setdefault(split, []).append(Utterance(f"u{k}", str(tmp_path / f"{k}.wav"), 1.0))
    return found


def test_sound_splits_have_no_faults(splits):
    report = check_audio(splits)
    assert report.bad == {"train": {}, "valid": {}, "test": {}} and not report.warnings and not report.notes
    assert report.counts["decoded_files"] == report.counts["files"] == 8
    assert report.counts["original_rates"] == {"16000": 8} and "libsndfile" in report.counts["decoder"]
    json.dumps(report.counts)


def cut(path):
    os.truncate(path, os.path.getsize(path) // 2)


def write(samples, rate=RATE, **options):
    return lambda path: soundfile.write(path, samples, rate, format="WAV", **options)


def flip(path):
    """One bit of the samples of a FLAC"""
    soundfile.write(path, wave(1), RATE, format="FLAC")
    data = bytearray(open(path, "rb").read())
    data[len(data) // 2] ^= 4
    open(path, "wb").write(data)


def swap(path):
    """A FLAC whose frames are whole and of another recording"""
    soundfile.write(path, wave(1), RATE, format="FLAC")
    other = path + ".flac"
    soundfile.write(other, wave(2), RATE)
    data, own = open(other, "rb").read(), open(path, "rb").read()
    open(path, "wb").write(own[:42] + data[42:])
    os.remove(other)


def bad_page(path):
    soundfile.write(path, wave(1, 3.0)[:RATE], RATE, format="OGG", subtype="VORBIS")
    data = bytearray(open(path, "rb").read())
    data[-200] ^= 4
    open(path, "wb").write(data)


NAN = np.where(np.arange(RATE) == 77, np.nan, wave(3))
INFINITE = np.where(np.arange(RATE) == 77, np.inf, wave(3))
LEFT_OUT = {
    "cut short": cut,
    "NaN or infinite samples": write(NAN, subtype="FLOAT"),
    "NaN or infinite": write(INFINITE, subtype="DOUBLE"),
    "digital silence": write(np.zeros(RATE)),
    "no audio": write(np.zeros(0)),
    "damaged": flip,
    "damaged: samples are not those": swap,
    "damaged: pages of Ogg": bad_page,
    "file of 0 bytes": lambda path: os.truncate(path, 0),
    "HTML page": lambda path: open(path, "w").write("<html>"),
}


@pytest.mark.parametrize("reason", LEFT_OUT)
def test_damage_leaves_train_and_stops_valid_and_test(splits, reason):
    kind, particular = reason.split(": ")[0], reason.split(": ")[-1]
    LEFT_OUT[reason](splits["train"][-1].wav)
    report = check_audio(splits)
    assert list(report.bad["train"]) == ["u11"] and particular in report.bad["train"]["u11"]
    assert kind in report.bad["train"]["u11"] and not report.bad["test"]
    assert sum(report.counts["bad"]["train"].values()) == 1
    LEFT_OUT[reason](splits["test"][0].wav)
    with pytest.raises(DataError, match=f"test: {kind}.*u30") as caught:
        check_audio(splits)
    assert "train: " not in str(caught.value) and list(caught.value.report.bad["test"]) == ["u30"]


ERRORS = {
    "missing file": lambda u: Utterance(u.id, u.wav + "x", 1.0),
    "duration over 5 % off": lambda u: Utterance(u.id, u.wav, 1.06),
    "stop after the end of the file": lambda u: Utterance(u.id, u.wav, 1.0, 0.11, 1.11),
}


@pytest.mark.parametrize("split", ["train", "valid"])
@pytest.mark.parametrize("reason", ERRORS)
def test_a_manifest_that_is_wrong_stops_a_run(splits, reason, split):
    splits[split][-1] = ERRORS[reason](splits[split][-1])
    with pytest.raises(DataError, match=f"{split}: {reason}.*{splits[split][-1].id}"):
        check_audio(splits)


def test_over_one_percent_of_train_is_an_error_with_all_kinds(splits):
    for u in splits["train"][-2:]:
        soundfile.write(u.wav, np.zeros(RATE), RATE)
    assert len(check_audio(splits).bad["train"]) == 2
    soundfile.write(splits["train"][0].wav, np.zeros(10 * RATE), RATE)
    with pytest.raises(
        DataError, match=r"train: over max_bad_fraction 0.01.*101 of 200.*silence \(101\)"
    ) as e:
        check_audio(splits)
    assert "l0-0" in str(e.value) and "l0-50" not in str(e.value) and "more" in str(e.value)
    assert len(check_audio(splits, max_bad_fraction=0.6).bad["train"]) == 101


def test_only_the_segments_that_are_silent_or_broken_are_left_out(splits):
    samples = wave(5, 10.0)
    samples[40000:41600] = 0  # l0-25
    samples[48100] = np.nan  # l0-30
    splits["train"] = [
        Utterance(u.id, u.wav.replace("long0.flac", "long.wav"), u.duration, u.start, u.stop)
        for u in splits["train"]
    ]
    soundfile.write(splits["train"][0].wav, samples, RATE, subtype="FLOAT")
    bad = check_audio(splits).bad["train"]
    assert {name: text.split(" (")[0] for name, text in bad.items()} == {
        "l0-25": "digital silence",
        "l0-30": "NaN or infinite samples",
    }


def test_ends_that_are_clipped_are_counted(splits):
    splits["test"][0] = Utterance("u30", splits["test"][0].wav, 1.0, 0.05, 1.05)
    report = check_audio(splits)
    assert report.counts["ends_clipped"] == {"train": 0, "valid": 0, "test": 1}
    assert any("test: 1 segments end" in note for note in report.notes)


def test_clipping_offset_and_rates_are_told(splits):
    soundfile.write(splits["train"][-1].wav, np.clip(40 * wave(1), -1, 1), RATE)
    soundfile.write(splits["train"][-2].wav, 0.1 + np.repeat(wave(1), 3), 3 * RATE)
    report = check_audio(splits)
    kinds = {line.split(" (")[0] for line in report.warnings}
    assert kinds == {"clipping", "DC offset", "several sampling rates"}
    assert report.counts["original_rates"] == {"16000": 7, "48000": 1}
    assert report.counts["clipping_files"] == report.counts["dc_offset_files"] == 1
    assert any("7 files of 16000 Hz, 1 files of 48000 Hz" in note for note in report.notes)


def test_copies_between_splits_are_errors_and_within_train_warnings(splits):
    for name, source in (("11", "10"), ("20", "10")):
        data, _ = soundfile.read(splits["train"][-2].wav.replace("10.wav", f"{source}.wav"))
        soundfile.write(splits["train"][-2].wav.replace("10.wav", f"{name}.wav"), data, RATE, format="FLAC")
    splits["valid"][1] = splits["valid"][1].__class__("u10", splits["valid"][1].wav, 1.0)
    splits["test"].append(Utterance("again", splits["train"][0].wav, 0.1, 0.0, 0.1))
    with pytest.raises(DataError) as caught:
        check_audio(splits)
    for part in (
        "same ID in train and valid (1): u10",
        "same samples in train and valid (2): u10 and u20, u11 and u20",
        "same audio in train and test (1): l0-0 and again",
    ):
        assert part in str(caught.value)
    assert "same samples twice (1): u10 and u11" in caught.value.report.warnings


def test_a_channel_that_is_silent_or_not_there_is_a_fault(splits, tmp_path):
    path = tmp_path / "two.wav"
    soundfile.write(path, np.stack([wave(7), np.zeros(RATE)], axis=1), RATE)
    for channel in ("1", "2", "3"):
        splits["train"].append(Utterance(f"c{channel}", str(path), 1.0, labels={"channel": channel}))
    bad = check_audio(splits).bad["train"]
    assert bad == {"c2": f"digital silence ({path})", "c3": f"no channel '3' ({path})"}


def test_verdicts_are_kept_until_a_file_changes(splits, tmp_path, monkeypatch):
    decoded = []
    original = verdict.from_samples
    monkeypatch.setattr(verdict, "from_samples", lambda path: decoded.append(path) or original(path))
    folder = tmp_path / "cache"
    first = check_audio(splits, folder)
    assert len(decoded) == 8 and (folder / verdict.NAME).is_file()
    second = check_audio(splits, folder)
    assert len(decoded) == 8 and second.counts | {"from_cache": 0} == first.counts | {"from_cache": 0}
    soundfile.write(splits["test"][0].wav, np.zeros(RATE), RATE)
    os.utime(splits["test"][0].wav, ns=(1, 1))
    with pytest.raises(DataError, match="digital silence"):
        check_audio(splits, folder)
    assert len(decoded) == 9
    (folder / verdict.NAME).write_text('{"path": 1}\nnot JSON\n[1]\n' + "[" * 3000 + "\n")
    with pytest.raises(DataError, match="digital silence"):
        check_audio(splits, folder)
    assert len(decoded) == 17


def test_of_a_large_split_a_part_is_decoded_and_said(splits, monkeypatch):
    report = survey_audio(splits, sample=1)
    assert report.counts["decoded_files"] == 3
    assert any("samples of 3 of 8 files looked at" in note for note in report.notes)
    again = survey_audio(splits, sample=1)
    assert again.counts == report.counts
    monkeypatch.setattr("lebench_sb.manifests.audio_checks.BUDGET", 0.5)
    assert survey_audio(splits).counts["decoded_files"] == 3
    assert survey_audio(splits, sample="all").counts["decoded_files"] == 8


def test_columns_are_checked_as_lists_are(splits, tmp_path):
    splits["train"][3] = Utterance("late", splits["train"][3].wav, 0.3, 9.9, 10.2)
    soundfile.write(splits["train"][-1].wav, np.zeros(RATE), RATE)
    write_manifest(tmp_path / "train.csv", splits["train"], tmp_path, {})
    columns = splits | {"train": Utterances([columnar(tmp_path / "train.csv")], tmp_path)}
    one, other = survey_audio(splits), survey_audio(columns)
    assert one.bad == other.bad and set(one.bad["train"]) == {"late", "u11"} and one.counts == other.counts


def test_validate_sees_it_without_decode_and_leaves_a_report(splits, tmp_path, capsys):
    soundfile.write(splits["train"][-1].wav, np.zeros(RATE), RATE)
    for name, utterances in splits.items():
        write_manifest(tmp_path / f"{name}.csv", utterances, tmp_path, {})
    words = ["validate", *(str(tmp_path / f"{name}.csv") for name in splits), "--data_root", str(tmp_path)]
    assert cli.run(words) == 0  # training leaves it out
    assert "left out of train" in capsys.readouterr().out
    soundfile.write(splits["test"][-1].wav, NAN, RATE, subtype="FLOAT")
    assert cli.run(words) == 3
    assert "NaN or infinite samples" in capsys.readouterr().err
    lines = [json.loads(line) for line in (tmp_path / "validation.jsonl").read_text().splitlines()]
    assert {line["level"] for line in lines} == {"error", "quarantine"}
    assert any("u31" in line["item"] and line["level"] == "error" for line in lines)


def test_the_draw_knows_names_and_not_folders(splits):
    class Long:
        fault, seconds = "", 4000.0

    class Split:
        def __init__(self, folder):
            self.paths = [f"{folder}/{k}.wav" for k in range(50)]

    chosen = [drawn(Split(f), dict.fromkeys(Split(f).paths, Long), None) for f in ("/a", "/b")]
    assert len(chosen[0]) == 2 and [p[3:] for p in chosen[0]] == [p[3:] for p in chosen[1]]


@pytest.mark.parametrize("form", ["WAV", "FLAC"])
def test_a_copy_between_large_splits_is_found_though_few_files_are_decoded(splits, tmp_path, form):
    copy = str(tmp_path / "copy")
    samples, _ = soundfile.read(splits["test"][1].wav)
    soundfile.write(copy, samples, RATE, format=form)
    splits["train"].append(Utterance("copy", copy, 1.0))
    with pytest.raises(DataError, match=r"same samples in train and test \(1\): copy and u31"):
        check_audio(splits, tmp_path, sample=0)
    report = survey_audio(splits, tmp_path, sample=0)
    assert report.counts["decoded_files"] == 2


def test_verdicts_that_cannot_be_kept_stop_nothing(splits, tmp_path, caplog):
    (tmp_path / "file").write_text("")
    assert not check_audio(splits, tmp_path / "file" / "cache").bad["train"]
    assert "verdicts on audio are not kept" in caplog.text


def test_many_utterances_of_one_recording_are_not_compared_as_pairs(tmp_path, monkeypatch):
    soundfile.write(tmp_path / "a.wav", np.sin(np.arange(16000) / 9), 16000)
    found = [Utterance(f"u{number}", str(tmp_path / "a.wav"), 1.0) for number in range(300)]
    valid, calls, real = [Utterance("v", str(tmp_path / "a.wav"), 1.0)], [], audio_checks.tell_same
    monkeypatch.setattr(audio_checks, "tell_same", lambda *told: calls.append(1) or real(*told))
    assert "same audio in train and valid" in str(survey_audio({"train": found, "valid": valid}).errors)
    assert 1 <= len(calls) <= 2 * len(found)
