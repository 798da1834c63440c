"""CaFE's file names, folds without a speaker in two places, and what the miniature writes."""

import numpy as np
import pytest
import soundfile

from lebench_sb.core.errors import DataError, UsageError
from lebench_sb.corpora._splits import deal
from lebench_sb.corpora.cafe import prepare_cafe, utterances
from lebench_sb.manifests.reading import read_manifest

NAMES = {"C": "anger", "D": "disgust", "J": "happiness", "N": "neutral", "P": "fear", "S": "surprise",
         "T": "sadness"}  # fmt: skip


def corpus(folder, actors=12):
    """Every actor in every emotion; one folder name as a broken unzip leaves it"""
    for actor in range(1, actors + 1):
        for code in NAMES:
            path = folder / "CaFE_48k" / ("ColŠre/Faible" if code == "C" else code)
            path.mkdir(parents=True, exist_ok=True)
            soundfile.write(path / f"{actor:02d}-{code}-1-{1 + actor % 6}.wav", np.zeros(480), 48000)
    return folder


def test_names_say_everything(tmp_path):
    found = {u.id: u for u in utterances(corpus(tmp_path))}
    assert len(found) == 84
    u = found["03-C-1-4"]
    assert (u.speaker, u.gender, u.duration) == ("03", "M", 0.01)
    assert u.labels == {"emotion": "anger", "intensity": "1", "sentence": "4"}
    assert found["12-T-1-1"].gender == "F" and found["12-T-1-1"].labels["emotion"] == "sadness"
    assert {u.id.split("-")[1]: u.labels["emotion"] for u in found.values()} == NAMES


@pytest.mark.parametrize("folds", [3, 5, 6])
def test_each_speaker_is_tested_once_and_no_fold_shares_one(folds):
    speakers = {(f"{k:02d}", "M" if k % 2 else "F") for k in range(1, 13)}
    genders, tested = dict(speakers), []
    for fold in range(1, folds + 1):
        groups = deal(speakers, fold, folds)
        assert set().union(*groups.values()) == set(genders)
        assert sum(map(len, groups.values())) == 12  # none is in two
        for names in groups.values():
            assert {genders[name] for name in names} == {"F", "M"}
        tested += groups["test"]
    assert sorted(tested) == sorted(genders)


@pytest.mark.parametrize(
    "fold, folds, said",
    [(0, 6, "fold is 0: it must be 1 to 6"), (7, 6, "fold is 7"), (1, 2, "3 to 6"), (1, 7, "6 women and 6")],
)
def test_folds_that_cannot_be(fold, folds, said):
    with pytest.raises(UsageError, match=said):
        deal({(f"{k:02d}", "M" if k % 2 else "F") for k in range(1, 13)}, fold, folds)


def test_another_fold_is_prepared_anew_in_the_same_folder(tmp_path):
    corpus(tmp_path)
    first = prepare_cafe(tmp_path, tmp_path / "m", fold=1)
    assert {split: m["speakers"] for split, m in first.items()} == {"train": 8, "valid": 2, "test": 2}
    tested = {u.speaker for u in read_manifest(tmp_path / "m" / "test.csv", tmp_path)}
    before = (tmp_path / "m" / "test.csv").stat().st_mtime_ns
    assert prepare_cafe(tmp_path, tmp_path / "m", fold=1) == first
    assert (tmp_path / "m" / "test.csv").stat().st_mtime_ns == before
    prepare_cafe(tmp_path, tmp_path / "m", fold=2)
    assert not tested & {u.speaker for u in read_manifest(tmp_path / "m" / "test.csv", tmp_path)}


def test_names_that_are_none_of_cafe_are_listed(tmp_path):
    corpus(tmp_path)
    for name in ("13-X-1-1.wav", "noise.wav"):
        soundfile.write(tmp_path / "CaFE_48k" / name, np.zeros(480), 48000)
    with pytest.raises(DataError, match=r"not AA-E-I-S.wav.*\(2\): 13-X-1-1.wav, noise.wav"):
        utterances(tmp_path)


def test_layout(tmp_path):
    with pytest.raises(FileNotFoundError, match="no wav. data_folder must hold CaFE_48k/"):
        utterances(tmp_path)


def test_the_miniature(emotion_miniature, tmp_path):
    markers = prepare_cafe(emotion_miniature, tmp_path / "m", folds=3)
    expected = ["synthetic speech", "emotion by prosody presets: plumbing check"]
    assert all(marker["caveats"] == expected for marker in markers.values())
    found = utterances(emotion_miniature)
    assert {u.labels["emotion"] for u in found} == set(NAMES.values())
    assert {(u.labels["emotion"], u.labels["intensity"]) for u in found} == {
        *((name, i) for name in NAMES.values() for i in "12" if (name, i) != ("neutral", "2"))
    }
    assert all("Neutre/" in u.wav for u in found if u.labels["emotion"] == "neutral")
    assert all(soundfile.info(u.wav).samplerate == 48000 and 0.5 < u.duration < 20 for u in found)


def test_the_miniature_says_sad_things_slowly(emotion_miniature):
    seconds = {}
    for u in utterances(emotion_miniature):
        seconds.setdefault((u.speaker, u.labels["sentence"]), {})[u.id.split("-")[1:3][0]] = u.duration
    assert all(by["T"] > 1.2 * by["N"] > 1.2 * by["P"] for by in seconds.values())
