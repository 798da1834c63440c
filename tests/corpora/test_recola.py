"""The RECOLA parser on files as AVEC 2016 has them, and on what the miniature writes."""

import numpy as np
import pytest
import soundfile

from lebench_sb.core.errors import DataError, UsageError
from lebench_sb.corpora.recola import prepare_recola, utterances
from lebench_sb.manifests.reading import read_manifest
from lebench_sb.manifests.traces import read_traces

HEADER = """\
@relation GOLDSTANDARD

@attribute Instance_name string
@attribute frameTime numeric
@attribute GoldStandard numeric

@data

"""
NAMES = ("train_1", "train_2", "train_3", "train_10", "dev_1", "dev_2", "test_1")


def corpus(folder, names=NAMES, rated=NAMES, seconds=2.0):
    for name in names:
        wav = folder / "recordings_audio" / f"{name}.wav"
        wav.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(wav, np.zeros(round(44100 * seconds)), 44100)
    for dimension in ("arousal", "valence"):
        (folder / "ratings_gold_standard" / dimension).mkdir(parents=True)
        for name in rated:
            steps = range(round(seconds / 0.04) + 1)
            rows = "".join(f"'{name}',{0.04 * k:.2f},{0.01 * k:.4f}\n" for k in steps)
            file = folder / "ratings_gold_standard" / dimension / f"{name}.arff"
            file.write_text(HEADER + rows)
    return folder


@pytest.mark.parametrize("inner", ["", "RECOLA_2016"])
def test_real_files(tmp_path, inner):
    corpus(tmp_path / inner)
    markers = prepare_recola(tmp_path, tmp_path / "m", dimension="valence")
    assert {split: m["utterances"] for split, m in markers.items()} == {"train": 4, "valid": 2, "test": 1}
    train = read_manifest(tmp_path / "m" / "train.csv", tmp_path)
    assert [u.id for u in train] == ["train_1", "train_10", "train_2", "train_3"]
    assert [u.speaker for u in train] == [u.id for u in train] and train[0].duration == 2.0
    assert train[0].labels["trace"].endswith("ratings_gold_standard/valence/train_1.arff")
    assert all(m["caveats"] == [] for m in markers.values())
    trace = read_traces(train, "GoldStandard")[train[1].labels["trace"]]
    assert len(trace.times) == 51 and trace.at(0.04) == pytest.approx(0.01)


def test_a_second_call_returns_at_once_and_another_dimension_does_not(tmp_path):
    corpus(tmp_path)
    first = prepare_recola(tmp_path, tmp_path / "m")
    before = (tmp_path / "m" / "train.csv").stat().st_mtime_ns
    assert prepare_recola(tmp_path, tmp_path / "m") == first
    assert (tmp_path / "m" / "train.csv").stat().st_mtime_ns == before
    prepare_recola(tmp_path, tmp_path / "m", dimension="valence")
    assert "valence" in (tmp_path / "m" / "train.csv").read_text()
    ratings = tmp_path / "ratings_gold_standard" / "valence" / "train_1.arff"
    ratings.write_text(ratings.read_text().replace("0.0100", "x"))
    with pytest.raises(DataError, match="train_1.arff: GoldStandard is not a finite number.*line 10 'x'"):
        prepare_recola(tmp_path, tmp_path / "m", dimension="valence")


def test_without_test_ratings_dev_can_be_tested(tmp_path):
    corpus(tmp_path, rated=NAMES[:-1])
    with pytest.raises(DataError, match="AVEC 2016 kept them.*--test_part dev"):
        prepare_recola(tmp_path, tmp_path / "m")
    markers = prepare_recola(tmp_path, tmp_path / "m", test_part="dev")
    assert {split: m["utterances"] for split, m in markers.items()} == {"train": 3, "valid": 1, "test": 2}
    names = {s: {u.id for u in utterances(tmp_path, s, test_part="dev")} for s in ("train", "valid", "test")}
    assert not names["train"] & names["valid"] and names["test"] == {"dev_1", "dev_2"}


def test_recordings_without_ratings_are_listed(tmp_path):
    corpus(tmp_path, rated=NAMES[1:])
    with pytest.raises(DataError, match=r"without ratings_gold_standard/arousal.*\(1\): train_1"):
        prepare_recola(tmp_path, tmp_path / "m")


def test_wrong_words_and_layout(tmp_path):
    with pytest.raises(FileNotFoundError, match="recordings_audio not found. data_folder must hold"):
        prepare_recola(tmp_path, tmp_path / "m")
    corpus(tmp_path)
    with pytest.raises(UsageError, match=r"'arousel' \(did you mean arousal\?\)"):
        prepare_recola(tmp_path, tmp_path / "m", dimension="arousel")
    with pytest.raises(UsageError, match="test_part 'valid'"):
        prepare_recola(tmp_path, tmp_path / "m", test_part="valid")
    with pytest.raises(ValueError, match="No split 'dev'"):
        list(utterances(tmp_path, "dev"))


@pytest.mark.parametrize("dimension", ["arousal", "valence"])
def test_the_miniature(emotion_miniature, tmp_path, dimension):
    markers = prepare_recola(emotion_miniature, tmp_path / "m", dimension)
    expected = ["synthetic speech", "emotion by prosody presets: plumbing check"]
    assert all(marker["caveats"] == expected for marker in markers.values())
    train = read_manifest(tmp_path / "m" / "train.csv", emotion_miniature)
    traces = read_traces(train, "GoldStandard", (-1, 1))
    assert len(train) >= 2 and all(u.duration > 30 for u in train)
    for u in train:
        trace = traces[u.labels["trace"]]
        np.testing.assert_allclose(np.diff(trace.times), 0.04, atol=1e-6)
        assert abs(trace.times[-1] - u.duration) < 0.05 and trace.values.std() > 0.1


def test_the_level_of_the_miniature_follows_its_arousal(emotion_miniature):
    """Loudness over a second and the rating at its middle go together"""
    levels, rated = [], []
    for u in utterances(emotion_miniature, "train", "arousal"):
        wave, rate = soundfile.read(u.wav)
        trace = read_traces([u], "GoldStandard")[u.labels["trace"]]
        for start in np.arange(0, u.duration - 1, 1.0):
            piece = wave[int(start * rate) : int((start + 1) * rate)]
            levels.append(20 * np.log10(np.sqrt(np.mean(piece**2))))
            rated.append(trace.at(start + 0.5))
    assert np.corrcoef(levels, rated)[0, 1] > 0.3
