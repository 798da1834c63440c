"""The ETAPE parsers on lines typed by hand in both formats, and on what the miniature writes."""

import numpy as np
import pytest
import soundfile

from lebench_sb.core.errors import DataError
from lebench_sb.corpora.etape import prepare_etape, utterances
from lebench_sb.corpora.formats.stm import read_stm
from lebench_sb.corpora.formats.stretches import cleaned
from lebench_sb.corpora.formats.transcriber import read_trs
from lebench_sb.manifests.reading import read_manifest

TRS = """\
<?xml version="1.0" encoding="ISO-8859-1"?>
<!DOCTYPE Trans SYSTEM "trans-14.dtd">
<Trans scribe="x" audio_filename="BFMTV_2011" version="5" version_date="110401">
<Topics><Topic id="to1" desc="report"/></Topics>
<Speakers>
<Speaker id="spk1" name="Zoé Le Goff" check="no" type="female" dialect="native" accent="" scope="local"/>
<Speaker id="spk2" name="Speaker 2" check="no" type="male" dialect="native" accent="" scope="local"/>
<Speaker id="spk3" name="Paul" check="no" scope="local"/>
</Speakers>
<Episode>
<Section type="nontrans" startTime="0" endTime="1">
<Turn startTime="0" endTime="1">
<Sync time="0"/>
publicité
</Turn>
</Section>
<Section type="report" topic="to1" startTime="1" endTime="9.5">
<Turn speaker="spk1" startTime="1" endTime="4.5" mode="planned" fidelity="high" channel="studio">
<Sync time="1"/>
Bonsoir à tous, l'été
<Event desc="rire" type="noise" extent="instantaneous"/>
revient.
<Sync time="3.25"/>
Il est ^^Lefèvre &amp; *fils.
</Turn>
<Turn speaker="spk2" startTime="4.5" endTime="6">
<Sync time="4.5"/>
J(e) sais, voilà !
</Turn>
<Turn speaker="spk1 spk2" startTime="6" endTime="7">
<Sync time="6"/>
<Who nb="1"/>
oui
<Who nb="2"/>
non
</Turn>
<Turn startTime="7" endTime="8">
<Sync time="7"/>

</Turn>
<Turn speaker="spk3" startTime="8" endTime="9.5">
<Sync time="8"/>
merci
</Turn>
</Section>
</Episode>
</Trans>
"""
STM = """\
;; CATEGORY "0" "" ""
BFMTV_2011 1 excluded_region 0 1 <o,,unknown> ignore_time_segment_in_scoring
BFMTV_2011 1 Zoé_Le_Goff 1 3.25 <o,f0,female> Bonsoir à tous, l'été revient.
BFMTV_2011 1 Zoé_Le_Goff 3.25 4.5 <o,f0,female> Il est {Lefèvre / Lefebvre} & *fils.
BFMTV_2011 1 Speaker_2 4.5 6 <o,f0,male> J(e) sais, voilà !
BFMTV_2011 1 Zoé_Le_Goff+Speaker_2 6 7 <o,f0,> oui non
BFMTV_2011 1 inter_segment_gap 7 8 <o,,>
BFMTV_2011 1 Paul 8 9.5 merci
"""
EXPECTED = [
    ("BFMTV_2011_1.000-3.250", 1.0, 3.25, "Zoé_Le_Goff", "F", "bonsoir à tous l' été revient"),
    ("BFMTV_2011_3.250-4.500", 3.25, 4.5, "Zoé_Le_Goff", "F", "il est lefèvre et fils"),
    ("BFMTV_2011_4.500-6.000", 4.5, 6.0, "BFMTV_2011:Speaker_2", "M", "je sais voilà"),
    ("BFMTV_2011_8.000-9.500", 8.0, 9.5, "Paul", "U", "merci"),
]


def corpus(folder, trs=TRS, stm=None, encoding="utf-8", seconds=9.5):
    """A folder with the same recording, under other names, in the three splits"""
    for split in ("train", "dev", "test"):
        (folder / split / "tv").mkdir(parents=True)
        name = "BFMTV_2011" if split == "train" else f"{split.upper()}_2011"
        soundfile.write(folder / split / "tv" / f"{name}.wav", np.zeros(round(16000 * seconds)), 16000)
        if trs is not None:
            place = folder / split / f"{name}.trs"
            place.write_bytes(trs.replace("BFMTV_2011", name).encode("iso-8859-1"))
        if stm is not None:
            place = folder / split / "tv" / f"{name}.stm"
            place.write_bytes(stm.replace("BFMTV_2011", name).encode(encoding))
    return folder


def seen(folder, split="train", **options):
    return [
        (u.id, u.start, u.stop, u.speaker, u.gender, u.labels["wrd"])
        for u in utterances(folder, split, **options)
    ]


def test_both_formats_give_the_same_utterances(tmp_path):
    assert seen(corpus(tmp_path / "a")) == EXPECTED
    assert seen(corpus(tmp_path / "b", trs=None, stm=STM)) == EXPECTED
    latin = corpus(tmp_path / "c", trs=None, stm=STM, encoding="iso-8859-1")
    assert seen(latin, stm_encoding="iso-8859-1") == EXPECTED
    u = next(utterances(tmp_path / "a", "train"))
    assert u.labels["text"] == "Bonsoir à tous, l'été revient." and u.duration == 2.25
    assert u.wav.endswith("train/tv/BFMTV_2011.wav")


@pytest.mark.parametrize("written, read", [("Male", "M"), ("homme", "M"), ("F", "F"), ("kid", "U")])
def test_genders_in_other_spellings(tmp_path, written, read):
    folder = corpus(tmp_path, TRS.replace('type="female"', f'type="{written}"'))
    assert [gender for *_, gender, _ in seen(folder)][:2] == [read, read]


def test_what_is_left_out_is_counted(tmp_path):
    markers = prepare_etape(corpus(tmp_path / "a"), tmp_path / "m")
    assert markers["train"]["dropped"] == {
        "section not transcribed": 1, "several speakers at once": 1, "no words": 1,
    }  # fmt: skip
    markers = prepare_etape(corpus(tmp_path / "b", trs=None, stm=STM), tmp_path / "n")
    assert markers["test"]["dropped"] == {
        "ignored in scoring": 1, "several speakers at once": 1, "no words": 1,
    }  # fmt: skip
    assert markers["valid"]["utterances"] == 4


@pytest.mark.parametrize("split", ["train", "dev", "test"])
def test_characters_that_cannot_be_read_are_left_out_of_train_alone(tmp_path, split):
    """And of train only up to 1 %"""
    many = "".join(f"BFMTV_2011 1 Paul {k / 20} {k / 20 + 0.04} <o,f0,male> merci\n" for k in range(120))
    folder = corpus(tmp_path / "a", trs=None, stm=many)
    (stm,) = (folder / split).rglob("*.stm")
    stm.write_text(stm.read_text().replace("merci", "merci ~", 1))
    if split == "train":
        assert prepare_etape(folder, tmp_path / "m")["train"]["dropped"] == {"characters fr-1 cannot read": 1}
        stm.write_text(stm.read_text().replace("male> merci", "male> merci ~", 2))
    with pytest.raises(DataError, match=r"characters fr-1 cannot read .*2011_0.000-0.040 '~'"):
        prepare_etape(folder, tmp_path / "m")


@pytest.mark.parametrize("inner", ["DATA", "data", "etape/DATA", "ETAPE/DATA", ""])
def test_the_folders_that_elda_ships(tmp_path, inner):
    """Capitals, audio in FLAC/, annotations beside it, and what macOS leaves"""
    plain = corpus(tmp_path / "a")
    root = tmp_path / "elda" / inner
    for theirs in ("train", "dev", "test"):
        (root / theirs.upper() / "FLAC").mkdir(parents=True)
        (root / theirs.upper() / "TRS").mkdir()
        (trs,), (wav,) = (plain / theirs).glob("*.trs"), (plain / theirs).rglob("*.wav")
        (root / theirs.upper() / "TRS" / f"{trs.stem}.TRS").write_bytes(trs.read_bytes())
        samples, rate = soundfile.read(wav)
        soundfile.write(root / theirs.upper() / "FLAC" / f"{trs.stem}.FLAC", samples, rate, format="FLAC")
        (root / theirs.upper() / "FLAC" / f"._{trs.stem}.flac").write_bytes(b"Mac OS X")
        (root / "__MACOSX" / theirs).mkdir(parents=True)
        (root / theirs.upper() / "TRS" / f"._{trs.stem}.trs").write_bytes(b"Mac OS X")
    assert seen(tmp_path / "elda") == EXPECTED
    assert prepare_etape(tmp_path / "elda", tmp_path / "m")["test"]["utterances"] == 4


def test_marks_of_the_conventions_go():
    said = "[rire] c'est ^^Dupond, *pestacle (n)otre p(e)tit bonj() {neuf / 9} 3*4 (sic)"
    assert cleaned(said) == "c'est Dupond, pestacle notre petit bonj neuf 3*4 (sic)"


def test_a_recording_read_again_only_when_an_annotation_changed(tmp_path):
    folder = corpus(tmp_path / "a")
    first = prepare_etape(folder, tmp_path / "m")
    before = (tmp_path / "m" / "train.csv").stat().st_mtime_ns
    assert prepare_etape(folder, tmp_path / "m") == first
    assert (tmp_path / "m" / "train.csv").stat().st_mtime_ns == before
    trs = folder / "train" / "BFMTV_2011.trs"
    trs.write_bytes(trs.read_bytes().replace(b"merci", b"non merci"))
    prepare_etape(folder, tmp_path / "m")
    texts = [u.labels["wrd"] for u in read_manifest(tmp_path / "m" / "train.csv", folder)]
    assert texts[-1] == "non merci"


def test_bad_lines_are_listed(tmp_path):
    bad = STM + "BFMTV_2011 1 Paul neuf 10 mot\ntwo words\n"
    folder = corpus(tmp_path / "a", trs=None, stm=bad)
    with pytest.raises(DataError) as error:
        list(utterances(folder, "train"))
    assert "line 9 'BFMTV_2011 1 Paul neuf 10 mot', line 10 'two words'" in str(error.value)
    latin = corpus(tmp_path / "b", trs=None, stm=STM, encoding="iso-8859-1")
    with pytest.raises(DataError, match="line 3 is not utf-8; --stm_encoding"):
        list(utterances(latin, "train"))
    with pytest.raises(DataError, match="is no encoding"):
        list(utterances(latin, "train", stm_encoding="latin-42"))


@pytest.mark.parametrize(
    "old, new, message",
    [
        ("</Episode>", "", r"BFMTV_2011.trs: line 47: not well-formed XML"),
        ('speaker="spk3"', 'speaker="spk9"', "speaker who is not declared.*spk9 at 8"),
        ('<Sync time="8"/>', '<Sync time="eight"/>', "times that are not seconds.*eight"),
        (
            'endTime="9.5">\n<Sync time="8"',
            'endTime="9.9">\n<Sync time="8"',
            "end after their recording.*9.50 s",
        ),
        ('<Sync time="3.25"/>', '<Sync time="5"/>', "do not end after they start"),
        ("revient.", "<b>revient</b>.", "words in <b> in a turn, where none are read .*line 22 'revient'"),
        ('<Sync time="3.25"/>', '<Sync time="3.25">Il</Sync>', "words in <Sync> in a turn.*line 23 'Il'"),
        ("merci\n</Turn>", "merci\n</Turn>\nbien", "words outside turns .*line 17, in Section: 'bien'"),
        ("</Section>\n</Episode>", "</Section>\nbien</Episode>", "words outside turns .*in Episode: 'bien'"),
        ('<Turn speaker="spk3"', '</Section><Turn speaker="spk3"', "well-formed"),
        ("merci\n</Turn>", "<Turn>merci</Turn></Turn>", "turns that are not right in a Section .*line 43"),
        ('id="spk3"', 'id="spk2"', "speakers declared twice .*line 8 spk2"),
        ('<Sync time="8"/>', '<Sync time="1e999"/>', "times that are not seconds.*1e999"),
    ],
)
def test_bad_transcriptions_are_told(tmp_path, old, new, message):
    assert old in TRS
    with pytest.raises(DataError, match=message):
        list(utterances(corpus(tmp_path, TRS.replace(old, new)), "train"))


def test_an_annotation_may_end_a_little_late(tmp_path):
    folder = corpus(tmp_path, seconds=9.45)
    last = list(utterances(folder, "train"))[-1]
    assert last.stop == pytest.approx(9.45) and last.id == "BFMTV_2011_8.000-9.500"


def test_one_stm_may_hold_all_recordings(tmp_path):
    folder = corpus(tmp_path / "a", trs=None)
    for split, prefix in (("train", "BFMTV"), ("dev", "DEV"), ("test", "TEST")):
        wave = folder / split / "tv" / "SECOND.wav"
        soundfile.write(wave, np.zeros(32000), 16000)
        lines = STM.replace("BFMTV_2011", f"{prefix}_2011") + "SECOND 1 Paul 0.5 1.5 <o,f0,male> Bonsoir.\n"
        (folder / split / f"all_{split}.stm").write_text(lines, encoding="utf-8")
    assert seen(folder) == [*EXPECTED, ("SECOND_0.500-1.500", 0.5, 1.5, "Paul", "M", "bonsoir")]
    assert prepare_etape(folder, tmp_path / "m")["test"]["utterances"] == 5
    (folder / "train" / "tv" / "SECOND.wav").unlink()
    with pytest.raises(DataError, match=r"annotations without a recording \(1\): SECOND"):
        list(utterances(folder, "train"))
    (folder / "dev" / "again.stm").write_text("SECOND 1 Paul 1.5 1.9 oui\n")
    with pytest.raises(DataError, match="recordings in two .stm.*SECOND in .*all_dev.stm"):
        list(utterances(folder, "valid"))


def test_folders_and_pairs(tmp_path):
    with pytest.raises(
        FileNotFoundError, match="train not found. data_folder must hold train/, dev/ and test/"
    ):
        prepare_etape(tmp_path, tmp_path / "m")
    folder = corpus(tmp_path / "a")
    (folder / "dev" / "LOST.trs").write_bytes(TRS.encode("iso-8859-1"))
    with pytest.raises(DataError, match=r"annotations without a recording \(1\): LOST"):
        prepare_etape(folder, tmp_path / "m")
    (folder / "dev" / "LOST.trs").unlink()
    (folder / "dev" / "DEV_2011.trs").unlink()
    with pytest.raises(DataError, match=r"recordings without .trs and without .* \(1\): DEV_2011.wav"):
        prepare_etape(folder, tmp_path / "m")
    with pytest.raises(ValueError, match="No split 'dev'"):
        list(utterances(folder, "dev"))


def test_the_miniature(tmp_path):
    pytest.importorskip("espeakng_loader")
    pytest.importorskip("py_nanotts")
    from lebench_sb.corpora.miniature import texts
    from lebench_sb.corpora.miniature.build import build_miniature

    build_miniature(tmp_path / "data", scale=0.01, workers=1, corpora=("etape",))
    folder = tmp_path / "data" / "etape"
    markers = prepare_etape(folder, tmp_path / "m")
    assert all(marker["caveats"] == ["synthetic speech"] for marker in markers.values())
    for split, theirs in {"train": "train", "valid": "dev", "test": "test"}.items():
        clips = [c for c in texts.clips(0, 0.01, ["etape"]) if c.split == theirs]
        words = [[word for s in c.sentences for word in s.words] for c in clips]
        found = read_manifest(tmp_path / "m" / f"{split}.csv", folder)
        said = {}
        for u in sorted(found, key=lambda u: (u.wav, u.start)):
            said.setdefault(u.wav, []).extend(u.labels["wrd"].split())
            assert u.labels["text"][-1] in ".?!" and u.labels["text"][0].isupper()
        assert list(said.values()) == words and len(found) > len(clips)
        assert {u.gender for u in found} == {c.speaker.gender for c in clips}
        for trs in sorted((folder / theirs).glob("*.trs")):
            assert {trs.stem: read_trs(trs)} == read_stm(trs.with_suffix(".stm"))
