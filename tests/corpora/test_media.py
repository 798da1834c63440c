"""The MEDIA parser on lines as the corpus has them, and on what the miniature writes."""

import logging
from pathlib import Path

import numpy as np
import pytest
import soundfile

from lebench_sb.core.errors import DataError, UsageError
from lebench_sb.corpora.formats.xml import read_xml
from lebench_sb.corpora.media import DATA, prepare_media
from lebench_sb.manifests.reading import read_manifest
from lebench_sb.training.data import as_dataset, audio_item

LOT = """\
<?xml version="1.0" encoding="ISO-8859-1"?>
<media>
<dialogue id="{name}" nameSpk="speaker_1_08730_{name}">
<turn id="0" speaker="compere" startTime="0.0" endTime="1.0"><semAnnotation withContext="false">
<sem concept="objet" specif="null"><transcription>bonjour que voulez-vous</transcription></sem>
</semAnnotation></turn>
<turn id="1" speaker="spk" startTime="1.0" endTime="4.5">
<semAnnotation withContext="false">
<sem concept="null" mode="+" specif="null" value=""><transcription>
<Sync time="1.250"/> euh </transcription></sem>
<sem concept="reponse" mode="+" specif="null" value="oui"><transcription>Oui, d'accord</transcription></sem>
<sem concept="null" specif="null"><transcription>(bruit) pour <Sync time="2.5"/> la</transcription></sem>
<sem concept="localisation-ville" specif="-hotel" value="le mans"><transcription>ville
du <Sync time="3.0"/>Mans*</transcription></sem>
<sem concept="temps-date" specif="-reservation"><transcription><Sync time="3.5"/>le premier mai
 à l'hôtel</transcription></sem>
</semAnnotation>
<semAnnotation withContext="true">
<sem concept="autre" specif="null"><transcription>rien de ceci</transcription></sem>
</semAnnotation>
</turn>
<turn id="2" speaker="spk" startTime="4.5" endTime="4.8"><semAnnotation withContext="false">
<sem concept="null" specif="null"><transcription>(silence)</transcription></sem></semAnnotation></turn>
</dialogue>
</media>
"""
FLAT = """\
<?xml version="1.0" encoding="ISO-8859-1"?>
<!DOCTYPE Trans SYSTEM "trans-13.dtd">
<Trans><Speakers><Speaker id="a" name="compere"/><Speaker id="b" name="speaker#1"/></Speakers>
<Episode><Section>
<Turn speaker="a" startTime="0" endTime="1"><Sync time="0"/>bonjour</Turn>
<Turn speaker="b" startTime="1" endTime="3">
<Sync time="1.5"/>
à <SemDebut concept="localisation-ville-hotel"/>Nice<SemFin/>
<Sync time="2"/>
le <SemDebut concept="temps-date-reservation"/>six mai<SemFin/>
</Turn></Section></Episode></Trans>
"""
LOTS = {"media_lot1": 1, "media_lot2": 2, "media_lot3": 3, "media_lot4": 4, "media_testHC_a_blanc": 5,
        "media_testHC": 6}  # fmt: skip
CHANNELS = "".join(f"{'LR'[number % 2]},{number}\n" for number in range(1, 8))


@pytest.fixture
def folder(tmp_path):
    """A corpus of seven dialogues: 1-4 train, 5 valid, 6 test, 7 test2; a tone on the left, silence right"""
    root = tmp_path / "data"
    (root / DATA / "semantizer_files").mkdir(parents=True)
    for name, number in LOTS.items():
        text = LOT.format(name=number)
        (root / DATA / f"{name}.xml").write_bytes(text.encode("iso-8859-1"))
    (root / DATA / "semantizer_files" / "7_HC.xml").write_bytes(FLAT.encode("iso-8859-1"))
    # a dialogue that the lots hold is not one of test2
    (root / DATA / "semantizer_files" / "6_HC.xml").write_bytes(FLAT.encode("iso-8859-1"))
    (root / "S0272" / "CD 1").mkdir(parents=True)
    tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(5 * 8000) / 8000)
    for number in range(1, 8):
        samples = np.stack([tone, np.zeros_like(tone)], axis=1)
        soundfile.write(root / "S0272" / "CD 1" / f"{number}.wav", samples, 8000)
    (root / "channels.csv").write_text(CHANNELS)
    rules = "localisation-ville-*,localisation-ville\ntemps-date*,temps-date\n"
    (root / "concepts_full_relax.csv").write_text(rules)
    return root


def read(folder, tmp_path, split="train"):
    return read_manifest(tmp_path / "m" / f"{split}.csv", folder)


def test_real_lines(folder, tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        markers = prepare_media(folder, tmp_path / "m", "full", test2=True)
    assert {split: marker["utterances"] for split, marker in markers.items()} == {
        "train": 12, "valid": 3, "test": 3, "test2": 2,
    }  # fmt: skip
    assert markers["train"]["dropped"] == {"no words": 4} and "no words (1)" in caplog.text
    assert not any(marker["caveats"] for marker in markers.values())
    first, second = read(folder, tmp_path)[:2]
    assert (first.id, first.start, first.stop, first.duration) == ("1_0001.250_0002.500", 1.25, 2.5, 1.25)
    assert (second.start, second.stop, second.speaker) == (2.5, 3.5, "speaker_1_08730_1")
    assert first.labels == {
        "wrd": "euh oui d' accord pour",
        "semantics": "euh <reponse> oui d' accord > pour",
        "channel": "2",
    }


def test_a_sync_inside_the_words_of_a_concept_cuts_nothing(folder, tmp_path):
    prepare_media(folder, tmp_path / "m", "full")
    texts = {(u.start, u.stop): u.labels["semantics"] for u in read(folder, tmp_path, "test")}
    assert texts == {
        (1.25, 2.5): "euh <reponse> oui d' accord > pour",
        (2.5, 3.5): "la <localisation-ville-hotel> ville du mans >",
        (3.5, 4.5): "<temps-date-reservation> le premier mai à l' hôtel >",
    }


def test_relax_leaves_specifiers_out_in_both_kinds_of_files(folder, tmp_path):
    prepare_media(folder, tmp_path / "m", "relax", test2=True)
    assert read(folder, tmp_path, "valid")[1].labels["semantics"].startswith("la <localisation-ville> ")
    test2 = [u.labels["semantics"] for u in read(folder, tmp_path, "test2")]
    assert test2 == ["à <localisation-ville> nice >", "le <temps-date> six mai >"]
    assert [(u.start, u.stop) for u in read(folder, tmp_path, "test2")] == [(1.5, 2.0), (2.0, 3.0)]
    prepare_media(folder, tmp_path / "m", "full", test2=True)
    assert read(folder, tmp_path, "test2")[1].labels["semantics"] == "le <temps-date-reservation> six mai >"


def test_the_users_channel_is_heard(folder, tmp_path):
    prepare_media(folder, tmp_path / "m")
    sets = as_dataset(read(folder, tmp_path), [audio_item], ["sig"])
    for number, one in enumerate(sets):
        expected = 0.5 if CHANNELS.splitlines()[int(one["id"][0]) - 1][0] == "L" else 0.0
        assert one["sig"].abs().max() == pytest.approx(expected, abs=0.01), (number, one["id"])


def test_a_second_call_writes_nothing_and_another_set_of_concepts_all(folder, tmp_path):
    markers = prepare_media(folder, tmp_path / "m")
    before = (tmp_path / "m" / "train.csv").stat().st_mtime_ns
    assert prepare_media(folder, tmp_path / "m") == markers
    assert (tmp_path / "m" / "train.csv").stat().st_mtime_ns == before
    assert prepare_media(folder, tmp_path / "m", "relax") != markers
    (folder / "channels.csv").write_text(CHANNELS.replace("L,2", "R,2"))
    prepare_media(folder, tmp_path / "m", "relax")
    assert {u.labels["channel"] for u in read(folder, tmp_path) if u.id[0] == "2"} == {"2"}


def test_characters_without_reading_are_removed_and_reported(folder, tmp_path, caplog):
    path = folder / DATA / "media_lot1.xml"
    path.write_bytes(path.read_bytes().replace(b"Oui, d'accord", b"Oui [rire] d'accord ~"))
    with caplog.at_level(logging.WARNING):
        prepare_media(folder, tmp_path / "m")
    assert read(folder, tmp_path)[0].labels["wrd"] == "euh oui rire d' accord pour"
    assert "fr-1 cannot read, removed: '[' (1), ']' (1), '~' (1)" in caplog.text


def test_segments_after_the_end_of_a_recording_are_counted(folder, tmp_path):
    path = folder / DATA / "media_testHC.xml"
    text = path.read_bytes().replace(b'endTime="4.5"', b'endTime="5.05"')
    path.write_bytes(text)
    prepare_media(folder, tmp_path / "m")
    assert read(folder, tmp_path, "test")[-1].stop == 5.0
    path.write_bytes(text.replace(b'endTime="5.05"', b'endTime="9.0"'))
    markers = prepare_media(folder, tmp_path / "m")
    assert markers["test"]["dropped"] == {"ends after its recording": 1, "no words": 1}


@pytest.mark.parametrize(
    "file, old, new, said",
    [
        ("media_lot2.xml", 'concept="reponse"', 'concept="re ponse"', "line 11 're ponse'"),
        ("media_lot2.xml", 'startTime="1.0"', 'startTime="1,0"', "turn whose startTime is not a number of "),
        ("media_lot2.xml", 'time="2.5"', "", "line 12 ''"),
        ("media_lot2.xml", 'concept="reponse"', "", "sem without concept (1): line 11"),
        ("media_lot2.xml", "</turn>", "", "line 24: not well-formed XML (mismatched tag)"),
        ("semantizer_files/7_HC.xml", "six mai<SemFin/>", "six mai", "SemDebut without SemFin (1): line 10"),
        ("semantizer_files/7_HC.xml", "Nice<SemFin/>", "Nice", "SemDebut inside a concept (1): line 10"),
        ("semantizer_files/7_HC.xml", '"speaker#1"', '"x"', "no Speaker whose name begins with s"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(folder, tmp_path, file, old, new, said):
    path = folder / DATA / file
    text = path.read_text("iso-8859-1")
    assert old in text
    path.write_text(text.replace(old, new), "iso-8859-1")
    with pytest.raises(DataError) as error:
        prepare_media(folder, tmp_path / "m", test2=True)
    assert said in str(error.value) and Path(file).name in str(error.value)


OK = '<sem concept="null" specif="null"><transcription>(silence)</transcription></sem>'


@pytest.mark.parametrize(
    "old, new, said",
    [
        (OK, OK.replace("</sem>", OK + "</sem>"), "sem in a sem (1): line 23"),
        ("<sem concept=\"reponse\"", "oui <sem concept=\"reponse\"",
         "words right in <semAnnotation>, where none"),
        ("</turn>", "oui</turn>", "words right in <turn>, where none are read (2): line 7 'oui', line 22"),
        ("</turn>\n</dialogue>", "</turn>oui</dialogue>",
         "words right in <dialogue>, where none are read (1): line 3"),
        ("<transcription>Oui,", "Non <transcription>Oui,",
         "words right in <sem>, where none are read (1): line 11"),
        ("Oui, d'accord", "<b>Oui</b>, d'accord",
         "words in <b> in <transcription>, where none are read (1): line 11"),
        ('<Sync time="2.5"/>', '<Sync time="2.5">de</Sync>',
         "words in <Sync> in <transcription>, where none"),
        ("Oui, d'accord", "", "concepts without words (1): line 11 reponse"),
        ('withContext="true"', 'withContext="false"',
         'two semAnnotation withContext="false" in a turn (1): line 18'),
        ('withContext="true"', 'withContext="no"', "withContext is neither true nor false (1): line 18 'no'"),
        ('startTime="4.5" endTime="4.8"><semAnnotation withContext="false">',
         'startTime="4.5" endTime="4.8"><semAnnotation withContext="true">',
         "turns with words, but no semAnnotation"),
        ('specif="-hotel"', 'specif="-ho tel"',
         "specifiers with spaces, < or > in their name (1): line 13 '-ho tel'"),
        ('startTime="4.5" endTime="4.8"', 'startTime="4.0" endTime="4.8"',
         "begin before the one before has ended"),
        ('<turn id="2"', '<turn id="1b"><turn id="2"', "mismatched"),
        ('id="2" nameSpk', 'id="1" nameSpk',
         "dialogues that another file holds too (1): 1 in media_lot1.xml"),
        ('time="3.5"', 'time="35"', "Sync outside its turn (1): line 15 35 s of [1, 4.5]"),
        ('time="2.5"', 'time="nan"', "Sync whose time is not a number of seconds (1): line 12 'nan'"),
        ('time="2.5"', 'time="1e999"', "Sync whose time is not a number of seconds (1): line 12 '1e999'"),
    ],
)  # fmt: skip
def test_no_word_is_lost_moved_or_doubled_in_silence(folder, tmp_path, old, new, said):
    path = folder / DATA / "media_lot2.xml"
    text = path.read_text("iso-8859-1").replace("(silence)", "bien" if "4.0" in new else "(silence)")
    assert old in text
    path.write_text(text.replace(old, new), "iso-8859-1")
    with pytest.raises(DataError) as error:
        prepare_media(folder, tmp_path / "m")
    assert said in str(error.value) and "media_lot2.xml" in str(error.value)


@pytest.mark.parametrize(
    "old, new, said",
    [
        ('<SemDebut concept="localisation-ville-hotel"/>Nice',
         '<SemDebut concept="localisation-ville-hotel">Nice</SemDebut>',
         "words in <SemDebut> in <Turn>, where none are read (1): line 8"),
        ("bonjour</Turn>", "bonjour</Turn> non",
         "words right in <Section>, where none are read (1): line 4 'non'"),
        ("Nice", "", "concepts without words (1): line 8 localisation-ville-hotel"),
        ('speaker="b"', 'speaker="c"', "turns of a speaker who is not declared (1): line 6 c"),
        ('speaker="b"', 'speaker="a b"', "turns of the user and others at once (1): line 6"),
        ('"compere"', '"speaker#2"', "several Speakers whose name begins with s"),
    ],
)  # fmt: skip
def test_nor_in_the_flat_files(folder, tmp_path, old, new, said):
    path = folder / DATA / "semantizer_files" / "7_HC.xml"
    text = path.read_text("iso-8859-1")
    assert old in text
    path.write_text(text.replace(old, new), "iso-8859-1")
    with pytest.raises(DataError) as error:
        prepare_media(folder, tmp_path / "m", test2=True)
    assert said in str(error.value) and "7_HC.xml" in str(error.value)


def test_all_faults_of_all_files_are_listed(folder, tmp_path):
    for name in ("media_lot1", "media_testHC"):
        path = folder / DATA / f"{name}.xml"
        path.write_bytes(path.read_bytes().replace(b'time="2.5"', b'time="x"'))
    with pytest.raises(DataError, match=r"media_lot1\.xml: .*line 12 'x'; .*media_testHC\.xml: .*line 12"):
        prepare_media(folder, tmp_path / "m")


@pytest.mark.parametrize(
    "table, said",
    [
        ("L,1\nM,2\nL 3\n", "line 2 'M'|line 3 'L 3'"),
        (CHANNELS + "L,1\n", "dialogues on both sides .*line 8 1"),
        ("L,1\n", "does not list .*: 2, 3, 4, 5, 6"),
    ],
)
def test_channels_are_checked(folder, tmp_path, table, said):
    (folder / "channels.csv").write_text(table)
    with pytest.raises(DataError, match=said):
        prepare_media(folder, tmp_path / "m")


def test_mono_recordings_need_no_channel_and_missing_ones_are_named(folder, tmp_path):
    for number in range(1, 7):
        soundfile.write(folder / "S0272" / "CD 1" / f"{number}.wav", np.full(40000, 0.1), 8000)
    prepare_media(folder, tmp_path / "m")
    assert {u.labels["channel"] for u in read(folder, tmp_path)} == {""}
    (folder / "S0272" / "CD 1" / "3.wav").unlink()
    with pytest.raises(DataError, match=r"dialogues without S0272/\*\*/<dialogue>.wav \(1\): 3"):
        prepare_media(folder, tmp_path / "n")


def test_what_data_folder_must_hold(folder, tmp_path):
    with pytest.raises(UsageError, match="full .* or relax"):
        prepare_media(folder, tmp_path / "m", "ful")
    (folder / "channels.csv").unlink()
    with pytest.raises(FileNotFoundError, match=r"channels\.csv not found\. data_folder must hold S0272/"):
        prepare_media(folder, tmp_path / "m")


@pytest.mark.parametrize("declared", ["ISO-8859-1", "UTF-8", "windows-1252", "no-such-thing", "UTF-16", ""])
@pytest.mark.parametrize("used", ["iso-8859-1", "utf-8", "utf-8-sig", "utf-16"])
def test_the_bytes_decide_what_is_read(tmp_path, declared, used):
    path = tmp_path / "x.xml"
    first = f'<?xml version="1.0" encoding="{declared}"?>' if declared else '<?xml version="1.0"?>'
    path.write_bytes(f"{first}\n<a>\n<b>été &amp; hôtel</b></a>".encode(used))
    (b,) = read_xml(path).find("b")
    assert (b.children, b.line) == (["été & hôtel"], 3)


def test_windows_letters_under_iso_8859_1(tmp_path):
    path = tmp_path / "x.xml"
    path.write_bytes('<?xml version="1.0" encoding="ISO-8859-1"?><a>cœur d’été</a>'.encode("cp1252"))
    assert [a.words for a in read_xml(path).find("a")] == ["cœur d’été"]


@pytest.mark.parametrize(
    "content, said",
    [
        (
            "<a>\n<b>été</b>\n".encode() + "<b>hôtel</b></a>".encode("iso-8859-1"),
            "line 3 is not UTF-8, though",
        ),
        (
            "<a>\n<b>Ã©tÃ©</b></a>".encode(),
            "line 2: 'Ã©' was UTF-8, read in another encoding and saved again",
        ),
        (b"<a>\n<b>\x81</b></a>", "line 2 is neither UTF-8 nor cp1252"),
        (b"<a>" * 3000 + b"</a>" * 3000, "line 1: elements nested over 100 deep"),
        (
            b'<!DOCTYPE a [\n<!ENTITY x "ha"><!ENTITY y "&x;&x;">]><a>&y;</a>',
            "line 2: XML that declares entities",
        ),
        (b"", "line 1: not well-formed XML (no element found)"),
        (b"<a>\0</a>", "not well-formed XML"),
    ],
)
def test_xml_that_is_not_read(tmp_path, content, said):
    path = tmp_path / "x.xml"
    path.write_bytes(content)
    with pytest.raises(DataError) as error:
        read_xml(path)
    assert said in str(error.value) and str(path) in str(error.value)


def test_the_miniature(tmp_path):
    pytest.importorskip("espeakng_loader")
    pytest.importorskip("py_nanotts")
    from lebench_sb.corpora.miniature import texts
    from lebench_sb.corpora.miniature.build import build_miniature
    from lebench_sb.corpora.miniature.layout_media import dialogue

    build_miniature(tmp_path / "data", scale=0.06, workers=1, corpora=("media",))
    markers = prepare_media(tmp_path / "data", tmp_path / "m", "relax", test2=True)
    assert all(m["caveats"] == ["synthetic speech"] and not m["dropped"] for m in markers.values())
    plan = {dialogue(clip): clip for clip in texts.clips(0, 0.06, ["media"])}
    heard = {}
    for split in markers:
        for u in read_manifest(tmp_path / "m" / f"{split}.csv", tmp_path / "data"):
            heard.setdefault(u.id.split("_")[0], []).append(u)
            assert soundfile.info(u.wav).channels == 2 and soundfile.info(u.wav).samplerate == 8000
    assert heard.keys() == plan.keys()
    for name, found in heard.items():
        said = plan[name].sentences
        assert [word for u in found for word in u.labels["wrd"].split()] == [w for s in said for w in s.words]
        tags = [t for u in found for t in u.labels["semantics"].split() if t.startswith("<")]
        assert tags == [f"<{c.name}>" for s in said for c in s.concepts]
