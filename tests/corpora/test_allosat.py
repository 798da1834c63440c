"""The AlloSat parser on files as the corpus has them, and on what the miniature writes."""

import numpy as np
import pytest
import soundfile

from lebench_sb.core.errors import DataError
from lebench_sb.corpora.allosat import prepare_allosat, utterances
from lebench_sb.manifests.reading import read_manifest
from lebench_sb.manifests.traces import read_traces

LISTS = {"train": ["a1", "a2"], "dev": ["b1"], "test": ["c1"]}


def corpus(folder, header="name;satisfaction", lists=LISTS):
    labels = folder / "annotations" / "labels"
    labels.mkdir(parents=True)
    (folder / "audio").mkdir()
    for split, names in lists.items():
        (folder / f"{split}.txt").write_text("".join(f"{name}\n" for name in names))
        for name in names:
            soundfile.write(folder / "audio" / f"{name}.wav", np.zeros(16000), 8000)
            rows = "".join(f"{name};{0.1 * k:.2f}\n" for k in range(8))
            if header.startswith("time"):
                rows = "".join(f"{0.25 * k:.2f};{0.1 * k:.2f}\n" for k in range(8))
            (labels / f"{name}.csv").write_text(f"{header}\n{rows}")
    return folder


@pytest.mark.parametrize("inner", ["", "AlloSat_corpus"])
@pytest.mark.parametrize("header, first", [("name;satisfaction", 0.125), ("time;satisfaction", 0.0)])
def test_real_files(tmp_path, inner, header, first):
    corpus(tmp_path / inner, header)
    markers = prepare_allosat(tmp_path, tmp_path / "m")
    assert {split: m["utterances"] for split, m in markers.items()} == {"train": 2, "valid": 1, "test": 1}
    train = read_manifest(tmp_path / "m" / "train.csv", tmp_path)
    assert [(u.id, u.duration, u.speaker) for u in train] == [("a1", 2.0, ""), ("a2", 2.0, "")]
    trace = read_traces(train, "satisfaction")[train[0].labels["trace"]]
    assert trace.times[0] == first and np.allclose(np.diff(trace.times), 0.25)
    before = (tmp_path / "m" / "train.csv").stat().st_mtime_ns
    assert prepare_allosat(tmp_path, tmp_path / "m") == markers
    assert (tmp_path / "m" / "train.csv").stat().st_mtime_ns == before


def test_all_faults_of_a_list_are_told(tmp_path):
    corpus(tmp_path)
    (tmp_path / "train.txt").write_text("a1\na1\nb1\nmissing\na2.wav\n")
    (tmp_path / "annotations" / "labels" / "a2.csv").unlink()
    with pytest.raises(DataError) as error:
        prepare_allosat(tmp_path, tmp_path / "m")
    for said in ("named twice (2): a1, a1", "dev.txt names too (1): b1", "file in audio/ (1): missing",
                 "without a file in annotations/labels/ (2): missing, a2"):  # fmt: skip
        assert said in str(error.value)


def test_ratings_without_the_column(tmp_path):
    corpus(tmp_path, header="name;frustration")
    with pytest.raises(DataError, match="a1.csv has no column 'satisfaction'.*it has name, frustration"):
        prepare_allosat(tmp_path, tmp_path / "m")


def test_layout(tmp_path):
    with pytest.raises(FileNotFoundError, match="audio not found. data_folder must hold audio/"):
        prepare_allosat(tmp_path, tmp_path / "m")
    corpus(tmp_path)
    (tmp_path / "dev.txt").unlink()
    with pytest.raises(FileNotFoundError, match="dev.txt not found"):
        list(utterances(tmp_path, "train"))
    with pytest.raises(ValueError, match="No split 'dev'"):
        list(utterances(tmp_path, "dev"))


def test_the_miniature(emotion_miniature, tmp_path):
    markers = prepare_allosat(emotion_miniature, tmp_path / "m")
    expected = ["synthetic speech", "emotion by prosody presets: plumbing check"]
    assert all(marker["caveats"] == expected for marker in markers.values())
    test = read_manifest(tmp_path / "m" / "test.csv", emotion_miniature)
    traces = read_traces(test, "satisfaction", (-1, 1))
    for u in test:
        assert soundfile.info(u.wav).samplerate == 8000 and u.duration > 25
        trace = traces[u.labels["trace"]]
        np.testing.assert_allclose(np.diff(trace.times), 0.25, atol=1e-6)
        assert abs(trace.times[-1] - u.duration) < 0.3
