"""Common Voice's parser on lines as the releases have them, and on what the miniature writes."""

import csv
import os
import unicodedata

import numpy as np
import pytest
import soundfile

from lebench_sb.core.errors import DataError, UsageError
from lebench_sb.corpora.commonvoice import prepare_commonvoice, utterances
from lebench_sb.manifests.markers import LeftOut, read_marker
from lebench_sb.manifests.reading import read_manifest

OLD = "client_id\tpath\tsentence\tup_votes\tdown_votes\tage\tgender\taccent\tlocale\tsegment"  # 5.1, 6.1
NEW = (
    "client_id\tpath\tsentence_id\tsentence\tsentence_domain\tup_votes\tdown_votes\tage\tgender\taccents\tvariant"
    "\tlocale\tsegment"
)
TRAIN = [
    "a1\tcommon_voice_fr_1.mp3\tC'est l'été, n'est-ce pas ?\t2\t0\ttwenties\tmale\t\tfr\t",
    'b2\tcommon_voice_fr_2.mp3\t"Bonjour, dit-elle.\t2\t1\t\tfemale\tfrance\tfr\t',
    "b2\tcommon_voice_fr_3.mp3\t...\t2\t1\t\tother\t\tfr\t",
    "c3\tcommon_voice_fr_4.mp3\tQuatre-vingts œufs\t2\t0\t\t\t\tfr\t",
]
DEV = ["d4\tcommon_voice_fr_5.mp3\tabc123\tUne phrase.\t\t2\t0\tfourties\tfemale_feminine\t\t\tfr\t"]
TEST = [
    "e5\tcommon_voice_fr_6.mp3\tabc124\tUne autre.\tgeneral\t2\t0\t\tmale_masculine\tQuébec\t\tfr\tBenchmark"
]


def corpus(folder, train=TRAIN, dev=DEV, test=TEST, newline="\n", clips=6):
    """A release in `folder`/fr; clip i lasts i tenths of a second."""
    (folder / "fr" / "clips").mkdir(parents=True)
    for name, header, rows in (("train", OLD, train), ("dev", NEW, dev), ("test", NEW, test)):
        text = newline.join([header, *rows]) + newline
        (folder / "fr" / f"{name}.tsv").write_bytes(text.encode())
    for number in range(1, clips + 1):
        wave = 0.1 * np.random.default_rng(number).standard_normal(1600 * number + 8000)
        soundfile.write(folder / "fr" / "clips" / f"common_voice_fr_{number}.mp3", wave, 16000)
    return folder


def test_real_lines(tmp_path):
    found = {u.id: u for u in utterances(corpus(tmp_path), "train")}
    assert [u.labels["wrd"] for u in found.values()] == [
        "c' est l' été n' est ce pas",
        "bonjour dit elle",
        "quatre vingts oeufs",
    ]
    assert found["common_voice_fr_1"].labels["text"] == "C'est l'été, n'est-ce pas ?"
    assert [(u.speaker, u.gender) for u in found.values()] == [("a1", "M"), ("b2", "F"), ("c3", "U")]
    first = found["common_voice_fr_1"]
    # no clip_durations.tsv: decoded; an encoder adds at most two frames of mp3
    assert 0.6 <= first.duration <= 0.6 + 0.2 and first.wav.endswith("fr/clips/common_voice_fr_1.mp3")
    assert [u.gender for split in ("valid", "test") for u in utterances(tmp_path, split)] == ["F", "M"]


def test_quotes_survive_with_the_normaliser_none(tmp_path):
    texts = [u.labels["wrd"] for u in utterances(corpus(tmp_path), "train", normaliser="none")]
    assert texts == ["C'est l'été, n'est-ce pas ?", '"Bonjour, dit-elle.', "...", "Quatre-vingts œufs"]


def test_bom_and_crlf(tmp_path):
    plain = list(utterances(corpus(tmp_path / "a"), "train"))
    folder = corpus(tmp_path / "b", newline="\r\n")
    tsv = folder / "fr" / "train.tsv"
    tsv.write_bytes(b"\xef\xbb\xbf" + tsv.read_bytes())
    again = list(utterances(folder, "train"))
    assert [(u.id, u.speaker, u.labels) for u in again] == [(u.id, u.speaker, u.labels) for u in plain]


def test_durations_come_from_the_table_when_it_lists_the_clip(tmp_path):
    folder = corpus(tmp_path)
    (folder / "fr" / "clip_durations.tsv").write_text("clip\tduration[ms]\ncommon_voice_fr_1.mp3\t4321\n")
    durations = [u.duration for u in utterances(folder, "train")]
    assert durations[0] == 4.321 and durations[1] == pytest.approx(0.7, abs=0.2)


@pytest.mark.parametrize("inner", ["", "fr"])
def test_prepare_writes_three_manifests_counts_and_repeats(tmp_path, inner):
    folder = corpus(tmp_path / "cv") / inner
    markers = prepare_commonvoice(folder, tmp_path / "m")
    assert {split: marker["utterances"] for split, marker in markers.items()} == {
        "train": 3,
        "valid": 1,
        "test": 1,
    }
    assert read_marker(tmp_path / "m" / "train.csv")["dropped"] == {"empty transcript": 1}
    before = {split: (tmp_path / "m" / f"{split}.csv").stat().st_mtime_ns for split in markers}
    assert prepare_commonvoice(folder, tmp_path / "m") == markers
    assert before == {split: (tmp_path / "m" / f"{split}.csv").stat().st_mtime_ns for split in markers}
    prepare_commonvoice(folder, tmp_path / "m", normaliser="none")
    assert len(read_manifest(tmp_path / "m" / "train.csv", folder)) == 4
    assert read_marker(tmp_path / "m" / "train.csv")["caveats"] == []


def test_a_changed_table_is_read_again(tmp_path):
    folder = corpus(tmp_path / "cv")
    prepare_commonvoice(folder, tmp_path / "m")
    tsv = folder / "fr" / "train.tsv"
    tsv.write_text("\n".join(tsv.read_text().split("\n")[:2]) + "\n")
    assert prepare_commonvoice(folder, tmp_path / "m")["train"]["utterances"] == 1


def test_missing_clips_are_counted_and_five_named(tmp_path):
    rows = [f"a\tcommon_voice_fr_{number}.mp3\tOui.\t2\t0\t\t\t\tfr\t" for number in range(1, 10)]
    folder = corpus(tmp_path, train=rows, clips=2)
    with pytest.raises(
        DataError, match=r"7 of 9 clips .*common_voice_fr_3\.mp3.*common_voice_fr_7\.mp3 \.\.\."
    ) as e:
        list(utterances(folder, "train"))
    assert "common_voice_fr_8" not in str(e.value)


def test_a_clip_that_does_not_decode_is_named(tmp_path):
    folder = corpus(tmp_path)
    (folder / "fr" / "clips" / "common_voice_fr_2.mp3").write_bytes(b"<html>please log in</html>")
    with pytest.raises(DataError, match="common_voice_fr_2.mp3"):
        list(utterances(folder, "train"))


def test_what_data_folder_must_hold(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"data_folder must hold train\.tsv, dev\.tsv, test\.tsv and clips/"
    ):
        list(utterances(tmp_path, "train"))
    with pytest.raises(ValueError, match="No split 'dev'.*train, valid, test"):
        list(utterances(tmp_path, "dev"))


def test_a_missing_column_is_named(tmp_path):
    folder = corpus(tmp_path)
    tsv = folder / "fr" / "dev.tsv"
    tsv.write_text(tsv.read_text().replace("\tsentence\t", "\tsentense\t"))
    with pytest.raises(DataError, match="no column 'sentence'.*sentense"):
        list(utterances(folder, "valid"))


def bad_folder(folder, change):
    """A release whose clips and tables are as some disks have them"""
    change(folder / "fr" / "clips", folder / "fr")
    return folder


def without_suffix(clips, locale):
    for tsv in locale.glob("*.tsv"):
        tsv.write_text(tsv.read_text().replace(".mp3", ""))


def backslashes(clips, locale):
    for tsv in locale.glob("*.tsv"):
        tsv.write_text(tsv.read_text().replace("common_voice", "clips\\common_voice"))


def dotted(clips, locale):
    for tsv in locale.glob("*.tsv"):
        tsv.write_text(tsv.read_text().replace("common_voice", "./common_voice"))


def converted(clips, locale):
    for mp3 in clips.glob("*.mp3"):
        samples, rate = soundfile.read(mp3)
        soundfile.write(mp3.with_suffix(".flac" if "1" in mp3.name else ".wav"), samples, rate)
        mp3.unlink()


def capitals(clips, locale):
    for mp3 in clips.glob("*.mp3"):
        mp3.rename(mp3.with_suffix(".MP3"))
    for tsv in locale.glob("*.tsv"):
        tsv.rename(tsv.with_suffix(".TSV"))
    clips.rename(locale / "Clips")


def from_a_mac(clips, locale):
    for name in ("._common_voice_fr_1.mp3", ".DS_Store"):
        (clips / name).write_bytes(b"\0Mac")
    (locale / "._train.tsv").write_bytes(b"\0Mac")


def decomposed(clips, locale):
    (clips / "common_voice_fr_1.mp3").rename(clips / unicodedata.normalize("NFD", "été.mp3"))
    tsv = locale / "train.tsv"
    tsv.write_text(tsv.read_text().replace("common_voice_fr_1", unicodedata.normalize("NFC", "été")))


@pytest.mark.parametrize(
    "change", [without_suffix, backslashes, dotted, converted, capitals, from_a_mac, decomposed]
)
def test_a_release_as_disks_have_it(tmp_path, change):
    folder = bad_folder(corpus(tmp_path), change)
    found = [u for split in ("train", "valid", "test") for u in utterances(folder, split)]
    assert len(found) == 5 and all(os.path.isfile(u.wav) for u in found)
    assert [u.id for u in found][1:] == [f"common_voice_fr_{number}" for number in (2, 4, 5, 6)]


def test_two_clips_of_one_stem_are_told_not_chosen_from(tmp_path):
    folder = corpus(tmp_path)
    without_suffix(folder / "fr" / "clips", folder / "fr")
    soundfile.write(folder / "fr" / "clips" / "common_voice_fr_1.wav", np.zeros(1600), 16000)
    with pytest.raises(
        DataError, match=r"several files it may be \(common_voice_fr_1.mp3, common_voice_fr_1"
    ):
        list(utterances(folder, "train"))


def test_the_duration_listed_for_an_mp3_is_that_of_its_conversion(tmp_path):
    folder = corpus(tmp_path)
    converted(folder / "fr" / "clips", folder / "fr")
    (folder / "fr" / "clip_durations.tsv").write_text("clip\tduration[ms]\ncommon_voice_fr_1.mp3\t4321\n")
    assert next(utterances(folder, "train")).duration == 4.321


@pytest.mark.parametrize("broken", ["\t", "\n", "\r", "\r\n"])
def test_a_tab_or_line_break_in_a_sentence_is_told_with_advice_that_works(tmp_path, broken):
    rows = [TRAIN[0], TRAIN[1].replace("Bonjour, ", f"Bonjour,{broken}")]
    folder = corpus(tmp_path, train=rows)
    with pytest.raises(DataError, match="line 3 has") as error:
        list(utterances(folder, "train"))
    assert "put a space in its place" in str(error.value)
    tsv = folder / "fr" / "train.tsv"
    tsv.write_bytes(tsv.read_bytes().replace(f"Bonjour,{broken}".encode(), b"Bonjour, "))
    assert len(list(utterances(folder, "train"))) == 2


def many(folder, split, bad, sentence="Oui.", clip=None, listed=False):
    """A hundred rows in `split`, of which the first `bad` say `sentence`, or have the bytes `clip`"""
    header = OLD if split == "train" else NEW
    rows = []
    for number in range(100):
        name = f"clip_{number}.mp3"
        text = sentence if number < bad else "Non."
        row = {"client_id": "x", "path": name, "sentence": text, "gender": ""}
        rows.append("\t".join(row.get(column, "") for column in header.split("\t")))
    corpus(folder, **{"dev" if split == "valid" else split: rows})
    clips = folder / "fr" / "clips"
    good = (clips / "common_voice_fr_1.mp3").read_bytes()
    for number in range(100):
        bytes_ = clip if clip is not None and number < bad else good
        (clips / f"clip_{number}.mp3").write_bytes(bytes_)
    if listed:
        lines = [f"clip_{number}.mp3\t600" for number in range(100)]
        (folder / "fr" / "clip_durations.tsv").write_text("\n".join(["clip\tduration[ms]", *lines]) + "\n")
    return folder


@pytest.mark.parametrize("listed", [False, True])
@pytest.mark.parametrize("split, bad", [("train", 1), ("train", 2), ("valid", 1), ("test", 1)])
def test_one_clip_in_a_hundred_of_train_may_be_empty(tmp_path, split, bad, listed):
    folder = many(tmp_path / "cv", split, bad, clip=b"", listed=listed)
    if (split, bad) == ("train", 1):
        marker = prepare_commonvoice(folder, tmp_path / "m")["train"]
        assert marker["utterances"] == 99
        assert marker["dropped"] == {"file of 0 bytes (interrupted copy?)": 1}
        return
    with pytest.raises(DataError, match="0 bytes.*clip_0.mp3"):
        prepare_commonvoice(folder, tmp_path / "m")


@pytest.mark.parametrize("split, bad", [("train", 1), ("train", 2), ("valid", 2), ("test", 2)])
def test_unreadable_sentences_are_counted_in_their_own_split(tmp_path, split, bad):
    folder = many(tmp_path / "cv", split, bad, sentence="Oui [rire].")
    if (split, bad) == ("train", 2):
        with pytest.raises(DataError, match=r"cannot read .*line 2 '\[' '\]', line 3"):
            prepare_commonvoice(folder, tmp_path / "m")
        return
    markers = prepare_commonvoice(folder, tmp_path / "m")
    kind = "characters fr-1 cannot read"
    assert {name: marker["dropped"].get(kind, 0) for name, marker in markers.items()} == {
        name: bad * (name == split) for name in markers
    }


def test_what_the_normaliser_changed_is_counted(tmp_path):
    markers = prepare_commonvoice(corpus(tmp_path / "cv"), tmp_path / "m")
    assert markers["train"]["changed"] == {"-": 3, ".": 4, ",": 2, '"': 1, "?": 1, "œ": 1}
    left_out = LeftOut("train")
    list(utterances(tmp_path / "cv", "train", "none", dropped=left_out))
    assert not left_out.changed


def test_a_manifest_of_somebody_else_stays(tmp_path):
    folder = corpus(tmp_path / "cv")
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "test.csv").write_text("mine")
    with pytest.raises(UsageError, match="test.csv was not made by a preparation"):
        prepare_commonvoice(folder, tmp_path / "m")
    assert [path.name for path in (tmp_path / "m").iterdir()] == ["test.csv"]


def test_a_replaced_clip_is_measured_again(tmp_path):
    folder = corpus(tmp_path / "cv")
    before = prepare_commonvoice(folder, tmp_path / "m")["test"]["hours"]
    clip = folder / "fr" / "clips" / "common_voice_fr_6.mp3"
    soundfile.write(clip, np.zeros(16000 * 20), 16000)
    assert prepare_commonvoice(folder, tmp_path / "m")["test"]["hours"] > before


def test_shared_speakers_are_a_caveat(tmp_path):
    folder = corpus(tmp_path / "cv", test=[TEST[0].replace("e5", "a1")])
    caveats = prepare_commonvoice(folder, tmp_path / "m")["test"]["caveats"]
    assert caveats == ["same speaker in train and test"]


def test_the_miniature(tmp_path):
    pytest.importorskip("espeakng_loader")
    pytest.importorskip("py_nanotts")
    from lebench_sb.corpora.miniature import texts
    from lebench_sb.corpora.miniature.build import build_miniature

    build_miniature(tmp_path / "data", scale=0.004, workers=1)
    markers = prepare_commonvoice(tmp_path / "data", tmp_path / "m")
    assert all(marker["caveats"] == ["synthetic speech"] for marker in markers.values())
    for split, theirs in {"train": "train", "valid": "dev", "test": "test"}.items():
        said = [c for c in texts.clips(0, 0.004) if (c.corpus, c.split) == ("commonvoice", theirs)]
        read = read_manifest(tmp_path / "m" / f"{split}.csv", tmp_path / "data")
        assert [u.labels["wrd"].split() for u in read] == [list(c.sentences[0].words) for c in said]
        assert [u.gender for u in read] == [c.speaker.gender for c in said]
        assert all(abs(len(soundfile.read(u.wav)[0]) / 16000 - u.duration) < 0.002 for u in read)
    with open(tmp_path / "data" / "fr" / "test.tsv", encoding="utf-8", newline="") as file:
        assert next(csv.reader(file, delimiter="\t")) == NEW.split("\t")
