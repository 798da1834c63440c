"""The MLS parser on lines as the corpus has them, and on what the miniature writes."""

import numpy as np
import pytest
import soundfile

from lebench_sb.core.errors import DataError
from lebench_sb.corpora.mls import prepare_mls, utterances
from lebench_sb.manifests.reading import read_manifest

META = """\
SPEAKER   | GENDER   | PARTITION  | MINUTES    |  BOOK ID   | TITLE                   | CHAPTER
 10065    | M        | train      | 12.453     | 10039      | Les Mystères | Préface
 1591     | F        | dev        | 8.1        | 1028       | Contes                  | 02 - Le loup
"""
LINES = {
    "train": [
        ("10065_10039_000000", "ses yeux l'avaient vu", "15.1", "16.1"),
        ("10065_10039_000001", "et puis", "16.1", "16.94"),
    ],
    "dev": [("1591_1028_000012", "aujourd'hui", "401.76", "402.56")],
    "test": [("77_9_000003", "une voix sans nom", "0", "0.5")],
}


def corpus(folder, meta=META, lines=LINES):
    root = folder / "mls_french"
    for split, rows in lines.items():
        (root / split).mkdir(parents=True)
        text = "".join(f"{name}\t{text}\n" for name, text, _, _ in rows)
        (root / split / "transcripts.txt").write_text(text, encoding="utf-8")
        url = "http://www.archive.org/download/x/y_64kb.mp3"
        text = "".join(f"{name}\t{url}\t{start}\t{end}\n" for name, _, start, end in rows)
        (root / split / "segments.txt").write_text(text, encoding="utf-8")
        for name, _, start, end in rows:
            path = root / split / "audio" / name.split("_")[0] / name.split("_")[1] / f"{name}.flac"
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(path, np.zeros(round(16000 * (float(end) - float(start)))), 16000)
    (root / "metainfo.txt").write_text(meta, encoding="utf-8")
    return folder


@pytest.mark.parametrize("inner", ["", "mls_french"])
def test_real_lines(tmp_path, inner):
    folder = corpus(tmp_path) / inner
    train = list(utterances(folder, "train"))
    assert [(u.id, u.speaker, u.gender, u.duration) for u in train] == [
        ("10065_10039_000000", "10065", "M", 1.0),
        ("10065_10039_000001", "10065", "M", 0.84),
    ]
    assert train[0].labels == {"wrd": "ses yeux l' avaient vu"}
    assert train[0].wav.endswith("mls_french/train/audio/10065/10039/10065_10039_000000.flac")
    (valid,), (test,) = list(utterances(folder, "valid")), list(utterances(folder, "test"))
    assert (valid.gender, valid.duration, valid.labels["wrd"]) == ("F", 0.8, "aujourd'hui")
    assert test.gender == "U"


def test_prepare_writes_three_manifests_and_repeats(tmp_path):
    folder = corpus(tmp_path / "data")
    markers = prepare_mls(folder, tmp_path / "m")
    assert {split: marker["utterances"] for split, marker in markers.items()} == {
        "train": 2,
        "valid": 1,
        "test": 1,
    }
    before = (tmp_path / "m" / "train.csv").stat().st_mtime_ns
    assert prepare_mls(folder, tmp_path / "m") == markers
    assert (tmp_path / "m" / "train.csv").stat().st_mtime_ns == before
    prepare_mls(folder, tmp_path / "m", normaliser="none")
    assert read_manifest(tmp_path / "m" / "train.csv", folder)[0].labels["wrd"] == "ses yeux l'avaient vu"


def test_bom_crlf_and_a_speaker_of_two_genders(tmp_path):
    folder = corpus(tmp_path, meta=META + " 1591     | M        | dev | 1.0 | 5 | Fables | 1\n")
    for path in sorted((folder / "mls_french").rglob("*.txt")):
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    assert [u.labels["wrd"] for u in utterances(folder, "train")] == ["ses yeux l' avaient vu", "et puis"]
    assert next(utterances(folder, "valid")).gender == "U"


def test_all_bad_lines_are_listed(tmp_path):
    folder = corpus(tmp_path)
    with open(folder / "mls_french" / "train" / "segments.txt", "a", encoding="utf-8") as file:
        file.write("1_2_000009\thttp://x\t3.0\t2.0\n5_6_000001\thttp://x\t1.0\t2.0\nno tabs here\n")
    with pytest.raises(DataError) as error:
        list(utterances(folder, "train"))
    for said in (
        "1_2_000009 3.0 2.0",
        "not in transcripts.txt (2): 1_2_000009, 5_6_000001",
        "line 5 'no tabs here'",
    ):
        assert said in str(error.value)


def test_missing_audio_is_named(tmp_path):
    folder = corpus(tmp_path / "data")
    next((folder / "mls_french" / "test").rglob("*.flac")).unlink()
    with pytest.raises(DataError, match="missing file.*77_9_000003.flac"):
        prepare_mls(folder, tmp_path / "m")


def as_opus(folder):
    (folder / "mls_french").rename(folder / "mls_french_opus")
    for flac in sorted(folder.rglob("*.flac")):
        samples, rate = soundfile.read(flac)
        soundfile.write(flac.with_suffix(".opus"), samples, rate, format="OGG", subtype="OPUS")
        flac.unlink()


def capitals(folder):
    (folder / "mls_french").rename(folder / "MLS_French")
    for flac in sorted(folder.rglob("*.flac")):
        flac.rename(flac.with_suffix(".FLAC"))


def from_a_mac(folder):
    for flac in sorted(folder.rglob("*.flac")):
        (flac.parent / f"._{flac.name}").write_bytes(b"\0Mac")
        (flac.parent / f"._{flac.stem}.opus").write_bytes(b"\0Mac")


@pytest.mark.parametrize("change", [as_opus, capitals, from_a_mac])
def test_mls_as_disks_have_it(tmp_path, change):
    expected = prepare_mls(corpus(tmp_path / "plain"), tmp_path / "m")
    folder = corpus(tmp_path / "data")
    change(folder)
    markers = prepare_mls(folder, tmp_path / "other")
    assert [marker["hours"] for marker in markers.values()] == [m["hours"] for m in expected.values()]
    u = read_manifest(tmp_path / "other" / "train.csv", folder)[0]
    assert soundfile.info(u.wav).duration == pytest.approx(1.0)


def test_two_forms_of_one_recording_beside_each_other_take_the_flac(tmp_path):
    folder = corpus(tmp_path)
    flac = next((folder / "mls_french" / "test").rglob("*.flac"))
    flac.with_suffix(".opus").write_bytes(b"x")
    assert next(utterances(folder, "test")).wav == str(flac)


def test_a_tab_in_a_transcript_is_white_space(tmp_path):
    folder = corpus(tmp_path)
    path = folder / "mls_french" / "train" / "transcripts.txt"
    path.write_text(path.read_text().replace("et puis", "et\tpuis"))
    assert [u.labels["wrd"] for u in utterances(folder, "train")][1] == "et puis"


@pytest.mark.parametrize("split, bad", [("train", 1), ("train", 2), ("dev", 1), ("test", 1)])
def test_one_text_in_a_hundred_of_train_may_be_unreadable(tmp_path, split, bad):
    rows = [(f"1_2_{n:06d}", "oui [rire]" if n < bad else "non", "0", "0.5") for n in range(100)]
    folder = corpus(tmp_path / "data", lines=LINES | {split: rows})
    if (split, bad) == ("train", 1):
        marker = prepare_mls(folder, tmp_path / "m")["train"]
        assert (marker["utterances"], marker["dropped"]) == (99, {"characters fr-1 cannot read": 1})
        return
    with pytest.raises(DataError, match=r"cannot read .*1_2_000000 '\[' '\]'"):
        prepare_mls(folder, tmp_path / "m")


def test_audio_replaced_under_unchanged_tables_is_seen(tmp_path, caplog):
    folder = corpus(tmp_path / "data")
    prepare_mls(folder, tmp_path / "m")
    flac = next((folder / "mls_french" / "test").rglob("*.flac"))
    soundfile.write(flac, np.zeros(1600), 16000)
    prepare_mls(folder, tmp_path / "m")
    assert "77_9_000003.flac" in caplog.text and "prepared again" in caplog.text


def test_what_data_folder_must_hold(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"metainfo\.txt not found\. data_folder must hold mls_french/"
    ):
        list(utterances(tmp_path, "train"))
    with pytest.raises(ValueError, match="No split 'dev'"):
        list(utterances(tmp_path, "dev"))


def test_the_miniature(tmp_path):
    pytest.importorskip("espeakng_loader")
    pytest.importorskip("py_nanotts")
    from lebench_sb.corpora.miniature import texts
    from lebench_sb.corpora.miniature.build import build_miniature

    build_miniature(tmp_path / "data", scale=0.004, workers=1)
    markers = prepare_mls(tmp_path / "data", tmp_path / "m")
    assert all(marker["caveats"] == ["synthetic speech"] for marker in markers.values())
    for split, theirs in {"train": "train", "valid": "dev", "test": "test"}.items():
        said = {c.number: c for c in texts.clips(0, 0.004) if (c.corpus, c.split) == ("mls", theirs)}
        for u in read_manifest(tmp_path / "m" / f"{split}.csv", tmp_path / "data"):
            clip = said.pop(int(u.id.split("_")[2]))
            assert u.gender == clip.speaker.gender
            assert u.labels["wrd"].split() == [word for s in clip.sentences for word in s.words]
            assert soundfile.info(u.wav).duration == pytest.approx(u.duration, abs=1e-3)
        assert not said
