"""The FABIOLE layout, typed by hand and as the miniature writes it; training manifests from anywhere."""

import numpy as np
import pytest
import soundfile

from lebench_sb.core.errors import DataError, UsageError
from lebench_sb.corpora._splits import hold_out
from lebench_sb.corpora.fabiole import prepare_fabiole, utterances
from lebench_sb.manifests.reading import read_manifest
from lebench_sb.manifests.utterance import Utterance
from lebench_sb.manifests.writing import write_manifest

TRIALS = "1 PierreDupont/france-inter_01.wav PierreDupont/lcp/02.flac\n0 PierreDupont/lcp/02 Jean/01.wav\n"
AUDIO = ("PierreDupont/france-inter_01.wav", "PierreDupont/lcp/02.flac", "Jean/01.wav")


def wav(path, seconds=0.5):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.zeros(round(16000 * seconds)), 16000)
    return path


def fabiole(root, trials=TRIALS, genders="speaker;gender\nPierreDupont;homme\n"):
    for number, name in enumerate(AUDIO, 1):
        wav(root / "wav" / name, number / 2)
    (root / "trials.txt").write_text(trials, encoding="utf-8")
    if genders:
        (root / "speakers.csv").write_text(genders, encoding="utf-8")


def training(folder, speakers=8, excerpts=2, root=None, prefix="t"):
    found = []
    for s in range(speakers):
        for k in range(excerpts):
            name = f"{prefix}{s}-{k}"
            path = wav(folder / "other" / f"{name}.wav")
            found.append(Utterance(name, str(path), 0.5, speaker=f"{prefix}{s}", labels={"wrd": "oui"}))
    write_manifest(folder / f"{prefix}.csv", found, root or folder, {}, caveats=["one seed"])
    return folder / f"{prefix}.csv"


@pytest.mark.parametrize("inner", ["fabiole", "FABIOLE", ""])
def test_layout_typed_by_hand(tmp_path, inner):
    fabiole(tmp_path / inner)
    found = list(utterances(tmp_path))
    assert [(u.id, u.speaker, u.gender, u.duration) for u in found] == [
        ("Jean--01", "Jean", "U", 1.5),
        ("PierreDupont--france-inter_01", "PierreDupont", "M", 0.5),
        ("PierreDupont--lcp--02", "PierreDupont", "M", 1.0),
    ]
    assert found[2].wav == str(tmp_path / inner / "wav" / "PierreDupont" / "lcp" / "02.flac")


def test_prepare(tmp_path):
    fabiole(tmp_path / "fabiole")
    manifest = training(tmp_path)
    markers = prepare_fabiole(tmp_path, tmp_path / "m", manifest)
    assert {split: marker["utterances"] for split, marker in markers.items()} == {
        "train": 12,
        "valid": 4,
        "test": 3,
    }
    assert markers["train"]["caveats"] == ["one seed"] and markers["test"]["caveats"] == []
    train, valid = (read_manifest(tmp_path / "m" / f"{s}.csv", tmp_path) for s in ("train", "valid"))
    assert not {u.speaker for u in train} & {u.speaker for u in valid}
    assert train[0].labels == {"wrd": "oui"}
    assert (tmp_path / "m" / "trials.csv").read_text().splitlines() == [
        "enrol,test,label",
        "PierreDupont--france-inter_01,PierreDupont--lcp--02,1",
        "PierreDupont--lcp--02,Jean--01,0",
    ]
    before = (tmp_path / "m" / "test.csv").stat().st_mtime_ns
    assert prepare_fabiole(tmp_path, tmp_path / "m", manifest) == markers
    assert (tmp_path / "m" / "test.csv").stat().st_mtime_ns == before
    wav(tmp_path / "fabiole" / "wav" / "Jean" / "02.wav")
    assert prepare_fabiole(tmp_path, tmp_path / "m", manifest)["test"]["utterances"] == 4
    assert prepare_fabiole(tmp_path, tmp_path / "m", manifest, seed=3)["valid"] != markers["valid"]


def test_training_manifests_of_several_roots(tmp_path):
    fabiole(tmp_path / "fabiole")
    first = training(tmp_path / "a", prefix="a", root=tmp_path / "a")
    second = training(tmp_path / "b", prefix="b", root=tmp_path)
    markers = prepare_fabiole(
        tmp_path, tmp_path / "m", f"{first}, {second}", f"{tmp_path / 'a'},{tmp_path}", valid_share=0.25
    )
    assert markers["train"]["speakers"] == 12 and markers["valid"]["speakers"] == 4
    with pytest.raises(DataError, match="not under data_root"):
        prepare_fabiole(tmp_path / "fabiole", tmp_path / "n", [first], tmp_path / "a")
    with pytest.raises(UsageError, match="training: 2 manifests and 3 roots"):
        prepare_fabiole(tmp_path, tmp_path / "n", [first, second], [tmp_path] * 3)


def test_a_training_utterance_without_speaker_is_an_error(tmp_path):
    fabiole(tmp_path / "fabiole")
    path = wav(tmp_path / "x.wav")
    write_manifest(tmp_path / "x.csv", [Utterance("x", str(path), 0.5)], tmp_path, {})
    with pytest.raises(DataError, match=r"without spk_id: nothing to learn from them \(1\): x"):
        prepare_fabiole(tmp_path, tmp_path / "m", [training(tmp_path), tmp_path / "x.csv"])
    with pytest.raises(FileNotFoundError, match="--training names manifests with spk_id"):
        prepare_fabiole(tmp_path, tmp_path / "m", tmp_path / "absent.csv")


def test_a_bad_trial_list_stops_before_anything_is_written(tmp_path):
    fabiole(tmp_path / "fabiole", TRIALS + "0 Jean/01.wav Paul/01.wav\n1 Jean/01.wav Jean/01.wav\n")
    with pytest.raises(DataError) as error:
        prepare_fabiole(tmp_path, tmp_path / "m", training(tmp_path))
    assert "unknown utterances (1): line 3 Paul/01.wav" in str(error.value)
    assert "with itself (1): line 4 Jean--01" in str(error.value)
    assert not (tmp_path / "m").exists()


def test_models_of_several_excerpts(tmp_path):
    fabiole(tmp_path / "fabiole", "PD PierreDupont/3.wav target\nPD Jean/01.wav nontarget\n")
    wav(tmp_path / "fabiole" / "wav" / "PierreDupont" / "3.wav")
    lines = "PD PierreDupont/france-inter_01.wav PierreDupont/lcp/02.flac\n"
    (tmp_path / "fabiole" / "enrolment.txt").write_text(lines)
    prepare_fabiole(tmp_path, tmp_path / "m", training(tmp_path))
    model = "PierreDupont--france-inter_01+PierreDupont--lcp--02"
    assert (tmp_path / "m" / "trials.csv").read_text().splitlines()[1:] == [
        f"{model},PierreDupont--3,1",
        f"{model},Jean--01,0",
    ]


def test_what_data_folder_must_hold(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"wav not found\. data_folder must hold fabiole/"):
        list(utterances(tmp_path))
    fabiole(tmp_path / "fabiole")
    (tmp_path / "fabiole" / "trials.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"trials\.txt not found"):
        list(utterances(tmp_path))


def test_bad_audio_and_bad_genders_are_listed(tmp_path):
    fabiole(tmp_path / "fabiole", genders="speaker,gender\nJean,male\nPierreDupont,vrai\n")
    with pytest.raises(DataError, match=r"genders that are not F, M or U \(1\): line 3 'vrai'"):
        list(utterances(tmp_path))
    (tmp_path / "fabiole" / "speakers.csv").write_text("name,sex\nJean,M\n")
    with pytest.raises(DataError, match="its columns are name, sex; it needs speaker and gender"):
        list(utterances(tmp_path))
    (tmp_path / "fabiole" / "speakers.csv").unlink()
    wav(tmp_path / "fabiole" / "wav" / "stray.wav")
    with pytest.raises(DataError, match=r"audio in no speaker's folder \(1\): stray.wav"):
        list(utterances(tmp_path))
    (tmp_path / "fabiole" / "wav" / "stray.wav").unlink()
    (tmp_path / "fabiole" / "wav" / "Jean" / "01.wav").write_bytes(b"")
    with pytest.raises(DataError, match="file of 0 bytes"):
        list(utterances(tmp_path))


def test_hold_out():
    found = [
        Utterance(f"{s}-{k}", "/x", 1.0, speaker=f"s{s:02d}") for s in range(20) for k in range(1 + s % 2)
    ]
    train, valid = hold_out(found, 0.2, 0)
    assert len({u.speaker for u in valid}) == 4 and len({u.speaker for u in train}) == 16
    assert all(int(u.speaker[1:]) % 2 for u in valid)  # those with two utterances
    assert hold_out(found[::-1], 0.2, 0)[1][::-1] == valid and hold_out(found, 0.2, 1)[1] != valid
    for few, share in ((found[:3], 0.2), (found, 0.95), (found, 0.0), (found[::3], 0.1)):
        if share == 0.1:
            few = [u for u in found if u.id.endswith("-0")]
        with pytest.raises(DataError, match="leaves fewer than two"):
            hold_out(few, share, 0)


def test_the_miniature(tmp_path):
    pytest.importorskip("espeakng_loader")
    pytest.importorskip("py_nanotts")
    from lebench_sb.corpora.miniature import layout_fabiole
    from lebench_sb.corpora.miniature.build import build_miniature

    assert layout_fabiole.PARTS["test"].espeak >= 30
    build_miniature(tmp_path, scale=0.01, workers=1, corpora=("fabiole",))
    markers = prepare_fabiole(
        tmp_path, tmp_path / "m", tmp_path / "fabiole_training" / "train.csv", valid_share=0.3
    )
    assert all(marker["caveats"] == ["synthetic speech"] for marker in markers.values())
    assert markers["test"]["speakers"] == 4 and markers["test"]["utterances"] == 12
    test = {u.id: u for u in read_manifest(tmp_path / "m" / "test.csv", tmp_path)}
    assert {u.gender for u in test.values()} == {"F", "M"}
    lines = (tmp_path / "m" / "trials.csv").read_text().splitlines()[1:]
    for line in lines:
        enrol, other, label = line.split(",")
        assert (test[enrol].speaker == test[other].speaker) == (label == "1")
    assert sum(line.endswith(",1") for line in lines) == 12
    for split in ("train", "valid", "test"):
        for u in read_manifest(tmp_path / "m" / f"{split}.csv", tmp_path):
            assert soundfile.info(u.wav).duration == pytest.approx(u.duration)
