"""Own data: any table with a header becomes manifests, and what is wrong with it is said."""

import json
import os
import unicodedata
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lebench_sb.core.errors import DataError, UsageError
from lebench_sb.corpora.own import prepare_own
from lebench_sb.manifests.reading import read_manifest

COLUMNS = {"ID": "id", "wav": "path", "wrd": "text", "spk_id": "speaker"}
SHARED = Path(os.environ.get("LEBENCH_SHARED", Path(__file__).parents[2].parent / "shared" / "data"))


@pytest.fixture
def corpus(tmp_path):
    """A folder with clips/0.wav ... 11.wav of 0.25 s and a function that writes its table."""
    (tmp_path / "clips").mkdir()
    for i in range(12):
        soundfile.write(tmp_path / "clips" / f"{i}.wav", np.full(4000, 0.1), 16000)

    def write(*lines, encoding="utf-8", name="my.csv"):
        path = tmp_path / name
        path.write_bytes(("\n".join(lines) + "\n").encode(encoding))
        return path

    write.root = tmp_path
    return write


def twelve(separator=",", text="Bonjour"):
    """Twelve rows by four speakers."""
    rows = [["id", "path", "text", "speaker"]]
    rows += [[f"u{i}", f"clips/{i}.wav", f"{text} {'abcdefghijkl'[i]}", f"s{i % 4}"] for i in range(12)]
    return [separator.join(row) for row in rows]


def prepare(corpus, path, columns=COLUMNS, **options):
    return prepare_own(path, columns, corpus.root, corpus.root / "M", **options)


def read(corpus, name="train"):
    return read_manifest(corpus.root / "M" / f"{name}.csv", corpus.root)


def read_all(corpus, report):
    return [u for name in report["splits"] for u in read(corpus, name)]


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("end", ["", "\r"])
def test_separators_bom_and_line_ends_do_not_matter(corpus, separator, encoding, end):
    path = corpus(*(line + end for line in twelve(separator)), encoding=encoding)
    report = prepare(corpus, path, ratios=(1, 0, 0))
    assert list(report["splits"]) == ["train"]
    assert [(u.id, u.duration, u.speaker) for u in read(corpus)][:2] == [
        ("u0", 0.25, "s0"),
        ("u1", 0.25, "s1"),
    ]
    assert read(corpus)[0].labels == {"wrd": "bonjour a"}


def test_the_text_as_it_is_written_beside_the_normalised_one(corpus):
    path = corpus("path;phrase", 'clips/0.wav;"Bonjour,  Zoé !"', "clips/1.wav;Oui.")
    prepare(corpus, path, {"wav": "path", "wrd": "phrase", "text": "phrase"}, ratios=(1, 0, 0))
    assert read(corpus)[0].labels == {"text": "Bonjour, Zoé !", "wrd": "bonjour zoé"}


TEXTS = st.text(st.sampled_from('abé \'œ"",;$…'), max_size=12).map(str.strip)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=st.lists(TEXTS, min_size=2, max_size=4).filter(any), separator=st.sampled_from([",", ";"]))
def test_standard_quoting_of_any_text_is_read_back(corpus, texts, separator):
    rows = [["path", "text"]] + [[f"clips/{i}.wav", text] for i, text in enumerate(texts)]
    quoted = [separator.join('"' + field.replace('"', '""') + '"' for field in row) for row in rows]
    columns = {"wav": "path", "wrd": "text"}
    report = prepare(corpus, corpus(*quoted), columns, ratios=(1, 0, 0), normaliser="none")
    kept = {f"clips/{i}": unicodedata.normalize("NFC", " ".join(t.split())) for i, t in enumerate(texts) if t}
    found = {u.id: u.labels["wrd"] for u in read_all(corpus, report)}
    assert found == kept


def test_lone_quotation_marks_stay_in_their_row(corpus):
    lines = [
        "id\tpath\ttext",
        'u0\tclips/0.wav\t"Oui',
        'u1\tclips/1.wav\tdit "non"',
        'u2\tclips/2.wav\t"Bien" dit-il',
    ]
    columns = {"ID": "id", "wav": "path", "wrd": "text"}
    prepare(corpus, corpus(*lines), columns, ratios=(1, 0, 0), normaliser="none")
    assert [u.labels["wrd"] for u in read(corpus)] == ['"Oui', 'dit "non"', '"Bien" dit-il']


def test_a_quoted_field_may_hold_separators_and_line_breaks(corpus):
    path = corpus("id,path,text", 'u0,clips/0.wav,"Oui, ""dame""', 'oui"', "u1,clips/1.wav,non")
    columns = {"ID": "id", "wav": "path", "wrd": "text"}
    prepare(corpus, path, columns, ratios=(1, 0, 0), normaliser="none")
    assert [u.labels["wrd"] for u in read(corpus)] == ['Oui, "dame" oui', "non"]


def test_paths_may_be_absolute_or_relative_to_the_table(corpus):
    folder = corpus.root / "tables"
    folder.mkdir()
    lines = ["path", str(corpus.root / "clips/0.wav"), "../clips/1.wav", "clips/2.wav"]
    path = corpus(*lines, name="tables/my.csv")
    prepare(corpus, path, {"wav": "path"}, ratios=(1, 0, 0))
    assert [u.id for u in read(corpus)] == ["clips/0", "clips/1", "clips/2"]
    assert all(Path(u.wav).is_file() for u in read(corpus))
    assert read(corpus)[0].labels == {}


def test_drawn_splits_keep_speakers_apart_and_every_row_once(corpus):
    path = corpus(*twelve())
    report = prepare(corpus, path, ratios=(0.5, 0.25, 0.25))
    speakers = {name: {u.speaker for u in read(corpus, name)} for name in report["splits"]}
    assert {name: len(found) for name, found in speakers.items()} == {"train": 2, "valid": 1, "test": 1}
    assert Counter(u.id for u in read_all(corpus, report)) == Counter(f"u{i}" for i in range(12))
    assert "splits drawn by speaker" in report["notes"]
    assert all(marker["caveats"] == [] for marker in report["splits"].values())


RATIOS = [(0.8, 0.1, 0.1), (0.5, 0.25, 0.25), (0.9, 0.1, 0), (0.95, 0, 0.05), (0.1, 0.8, 0.1)]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    speakers=st.lists(st.sampled_from("abcde"), min_size=3, max_size=12),
    ratios=st.sampled_from(RATIOS),
    seed=st.integers(0, 99),
)
def test_any_draw_is_a_partition_without_shared_speakers_where_they_suffice(corpus, speakers, ratios, seed):
    rows = [f"u{i},clips/{i}.wav,a,{speaker}" for i, speaker in enumerate(speakers)]
    report = prepare(corpus, corpus("id,path,text,speaker", *rows), ratios=ratios, seed=seed)
    wanted = [name for name, ratio in zip(("train", "valid", "test"), ratios, strict=True) if ratio]
    assert list(report["splits"]) == wanted
    found = {name: read(corpus, name) for name in wanted}
    assert sorted(u.id for each in found.values() for u in each) == sorted(
        f"u{i}" for i in range(len(speakers))
    )
    sets = [{u.speaker for u in each} for each in found.values()]
    apart = sum(map(len, sets)) == len(set.union(*sets))
    assert apart or len(set(speakers)) < len(wanted)


def test_the_seed_decides_and_the_same_seed_repeats(corpus):
    path = corpus(*twelve())
    tests = {}
    for seed in (0, 1, 2, 3, 4, 0):
        prepare(corpus, path, ratios=(0.5, 0.25, 0.25), seed=seed)
        ids = [u.id for u in read(corpus, "test")]
        assert tests.setdefault(seed, ids) == ids
    assert len(set(map(tuple, tests.values()))) > 1


def test_too_few_speakers_are_a_caveat(corpus):
    path = corpus(*(line.replace("s1", "s0").replace("s2", "s0").replace("s3", "s0") for line in twelve()))
    report = prepare(corpus, path)
    assert "same speaker in train and test" in report["notes"]
    assert report["splits"]["test"]["caveats"] == ["same speaker in train and test"]
    done = json.loads((corpus.root / "M" / "test.csv.done.json").read_text(encoding="utf-8"))
    assert done["caveats"] == ["same speaker in train and test"]
    without = prepare(corpus, path, {"wav": "path"})
    assert without["splits"]["test"]["caveats"] == ["speakers not known"]


def test_a_split_column_is_read_in_its_usual_spellings_and_reported(corpus):
    names = ["train", "Train", "dev", "validation", "valid", "test"]
    rows = [f"clips/{i}.wav,{name}" for i, name in enumerate(names)]
    report = prepare(corpus, corpus("path,set", *rows), {"wav": "path"}, split="set")
    assert {name: marker["utterances"] for name, marker in report["splits"].items()} == {
        "train": 2,
        "valid": 3,
        "test": 1,
    }
    assert any("dev -> valid (1)" in note for note in report["notes"])
    with pytest.raises(DataError, match=r"set is no split.*\(1\): line 3 'other'"):
        prepare(
            corpus, corpus("path,set", "clips/0.wav,train", "clips/1.wav,other"), {"wav": "path"}, split="set"
        )


def test_an_empty_split_is_noted_and_an_old_manifest_of_ours_goes(corpus):
    columns = {"wav": "path"}
    prepare(corpus, corpus("path,set", "clips/0.wav,train", "clips/1.wav,test"), columns, split="set")
    assert (corpus.root / "M" / "test.csv").exists()
    report = prepare(
        corpus, corpus("path,set", "clips/0.wav,train", "clips/1.wav,train"), columns, split="set"
    )
    assert "no test.csv: no row is in this split" in report["notes"]
    assert sorted(path.name for path in (corpus.root / "M").iterdir()) == [
        "own.done.json",
        "train.csv",
        "train.csv.done.json",
    ]


CONDITIONS = {
    ("language=fr",): ["u0", "u1"],
    ("language!=fr",): ["u2", "u3"],
    ("tasks~asr",): ["u0", "u2"],
    ("tasks!~asr",): ["u1", "u3"],
    ("tasks~sa",): ["u1", "u3"],
    ("tasks~as",): None,
    ("language = fr", "tasks~asr"): ["u0"],
    ("language=fr", "language=en"): None,
}


@pytest.mark.parametrize("where", CONDITIONS)
def test_conditions(corpus, where):
    rows = ["u0,0,fr,ssl;asr;ast", "u1,1,fr,ssl;sa", "u2,2,en,asr", "u3,3,en,sa"]
    rows = [row.replace(",", ",clips/", 1).replace(",", ".wav,", 2).replace(".wav,", ",", 1) for row in rows]
    path = corpus("id,path,language,tasks", *rows)
    columns = {"ID": "id", "wav": "path", "language": "language"}
    if CONDITIONS[where] is None:
        with pytest.raises(DataError, match="no row left by .*has '"):
            prepare(corpus, path, columns, where=where, ratios=(1, 0, 0))
        return
    prepare(corpus, path, columns, where=where, ratios=(1, 0, 0))
    assert [u.id for u in read(corpus)] == CONDITIONS[where]


def test_transcripts_are_normalised_and_empty_ones_dropped_from_train_only(corpus):
    rows = ["clips/0.wav,L’œuvre,train", "clips/1.wav,…,train", "clips/2.wav,!,test", "clips/3.wav,3 €,test"]
    report = prepare(corpus, corpus("path,text,set", *rows), {"wav": "path", "wrd": "text"}, split="set")
    assert [u.labels["wrd"] for u in read(corpus)] == ["l' oeuvre"]
    assert [u.labels["wrd"] for u in read(corpus, "test")] == ["", "trois euros"]
    assert report["splits"]["train"]["dropped"] == {"empty transcript": 1}
    assert any(note.startswith("test: 1 empty transcripts kept") for note in report["notes"])


def test_a_table_whose_transcripts_are_all_empty_is_refused(corpus):
    with pytest.raises(DataError, match="every transcript is empty"):
        prepare(
            corpus, corpus("path,text", "clips/0.wav,…"), {"wav": "path", "wrd": "text"}, ratios=(1, 0, 0)
        )


def test_segments_are_cut_from_long_files(corpus):
    soundfile.write(corpus.root / "long.wav", np.full(160000, 0.1), 16000)
    rows = ["long.wav,0,2.5", "long.wav,2.5,10.05"]
    columns = {"wav": "path", "start": "from", "stop": "to"}
    prepare(corpus, corpus("path,from,to", *rows), columns, ratios=(1, 0, 0))
    assert [(u.id, u.start, u.stop, u.duration) for u in read(corpus)] == [
        ("long_0.0-2.5", 0.0, 2.5, 2.5),
        ("long_2.5-10.05", 2.5, 10.0, 7.5),
    ]
    with pytest.raises(DataError, match=r"no piece of the file \(2\): line 2 .*line 3"):
        prepare(corpus, corpus("path,from,to", "long.wav,0,10.2", "long.wav,3,3"), columns)


def test_genders_and_languages_are_understood(corpus):
    genders = ["F", "female", "homme", "male_masculine", "", "other"]
    rows = [f"clips/{i}.wav,{gender},{'en' if i else ''}" for i, gender in enumerate(genders)]
    columns = {"wav": "path", "gender": "g", "language": "l"}
    prepare(corpus, corpus("path,g,l", *rows), columns, ratios=(1, 0, 0), language="mdw")
    assert [u.gender for u in read(corpus)] == ["F", "F", "M", "M", "U", "U"]
    assert [u.language for u in read(corpus)] == ["mdw"] + ["en"] * 5


def not_ours(corpus):
    (corpus.root / "M").mkdir()
    (corpus.root / "M" / "test.csv").write_text("mine")


def edited(corpus):
    prepare(corpus, corpus(*twelve()))
    path = corpus.root / "M" / "test.csv"
    path.write_text(path.read_text().replace("bonjour", "bon jour"))


def a_report_of_something_else(corpus):
    (corpus.root / "M").mkdir()
    (corpus.root / "M" / "own.done.json").write_text('{"mine": 1}')


@pytest.mark.parametrize("there", [not_ours, edited, a_report_of_something_else])
@pytest.mark.parametrize("lines", [twelve(), twelve()[:2]], ids=["replaced", "deleted"])
def test_files_that_are_not_ours_are_neither_replaced_nor_deleted(corpus, there, lines):
    there(corpus)
    before = {path: path.read_bytes() for path in (corpus.root / "M").iterdir()}
    ratios = (0.5, 0.25, 0.25) if len(lines) > 2 else (1, 0, 0)
    with pytest.raises(UsageError, match="Give another folder, or move or delete it"):
        prepare(corpus, corpus(*lines), seed=1, ratios=ratios)
    assert before == {path: path.read_bytes() for path in (corpus.root / "M").iterdir()}


def test_replaced_audio_is_measured_again(corpus, caplog):
    path = corpus(*twelve())
    prepare(corpus, path, ratios=(1, 0, 0))
    soundfile.write(corpus.root / "clips" / "3.wav", np.full(8000, 0.1), 16000)
    assert not prepare(corpus, path, ratios=(1, 0, 0))["reused"]
    assert {u.id: u.duration for u in read(corpus)}["u3"] == 0.5
    assert "clips/3.wav" in caplog.text


WRITTEN = {
    "clips\\0.wav": "0.wav",
    ".\\clips\\0.wav": "0.wav",
    "./clips/0.wav": "0.wav",
    "Clips/0.WAV": "0.wav",
    "clips/0": "0.wav",
    "clips/0.mp3": "0.wav",
    unicodedata.normalize("NFC", "clips/é.wav"): unicodedata.normalize("NFD", "é.wav"),
}


@pytest.mark.parametrize("written", WRITTEN)
@pytest.mark.parametrize("table", ["my.csv", "tables/my.csv"])
def test_paths_as_other_systems_write_them(corpus, written, table):
    there = corpus.root / "clips" / WRITTEN[written]
    soundfile.write(there, np.full(4000, 0.1), 16000)
    (corpus.root / "clips" / "._0.wav").write_bytes(b"Mac OS X")
    (corpus.root / "tables").mkdir()
    prepare(corpus, corpus("path;x", f"{written};y", name=table), {"wav": "path"}, ratios=(1, 0, 0))
    assert [u.wav for u in read(corpus)] == [str(there)]


def test_a_path_that_may_be_two_files_is_told_with_its_line(corpus):
    soundfile.write(corpus.root / "clips" / "0.flac", np.full(4000, 0.1), 16000)
    with pytest.raises(DataError, match=r"several files \(1\): line 2 clips/0.mp3: .*0.flac, 0.wav"):
        prepare(corpus, corpus("path", "clips/0.mp3"), {"wav": "path"}, ratios=(1, 0, 0))


def hundred(corpus, split, bad, kind):
    """A table of 100 rows, half a split each of train and `split`, of which `bad` in `split` are no use"""
    rows = [["id", "path", "text", "set"]]
    for i in range(100 if split == "train" else 200):
        name = split if i < 100 else "train"
        path = corpus.root / "clips" / f"n{i}.wav"
        path.write_bytes(b"" if kind == "audio" and i < bad else (corpus.root / "clips/0.wav").read_bytes())
        rows.append([f"n{i}", f"clips/n{i}.wav", "[rire]" if kind == "text" and i < bad else "oui", name])
    return corpus(*(",".join(row) for row in rows))


@pytest.mark.parametrize("kind, said", [("audio", "0 bytes"), ("text", "cannot read")])
@pytest.mark.parametrize("split, bad", [("train", 1), ("train", 2), ("valid", 1), ("test", 1)])
def test_one_row_in_a_hundred_of_train_may_be_of_no_use(corpus, kind, said, split, bad):
    path = hundred(corpus, split, bad, kind)
    columns = {"ID": "id", "wav": "path", "wrd": "text"}
    if (split, bad) == ("train", 1):
        report = prepare(corpus, path, columns, split="set")
        (reason,) = report["splits"]["train"]["dropped"].items()
        assert said in reason[0] and reason[1] == 1 and len(read(corpus)) == 99
        assert any("1 utterances dropped" in note for note in report["notes"])
        drawn = prepare(corpus, path, columns, ratios=(1, 0, 0))["splits"]
        assert drawn["train"]["dropped"] == report["splits"]["train"]["dropped"]
        return
    with pytest.raises(DataError, match=f"{said}.*line 2"):
        prepare(corpus, path, columns, split="set")


def test_what_the_normaliser_changed_is_counted_in_its_split(corpus):
    rows = ["clips/0.wav,L’œuvre !,train", "clips/1.wav,oui,test", "clips/2.wav,3 €,test"]
    report = prepare(corpus, corpus("path,text,set", *rows), {"wav": "path", "wrd": "text"}, split="set")
    assert report["splits"]["train"]["changed"] == {"!": 1, "œ": 1, "’": 1}
    assert report["splits"]["test"]["changed"] == {"3": 1, "€": 1}


@pytest.mark.parametrize(
    "written", ["transgender", "do_not_wish_to_say", "non-binary", "féminin", "Masculin"]
)
def test_genders_of_todays_common_voice(corpus, written):
    prepare(
        corpus, corpus("path,g", f"clips/0.wav,{written}"), {"wav": "path", "gender": "g"}, ratios=(1, 0, 0)
    )
    expected = {"féminin": "F", "Masculin": "M"}.get(written, "U")
    assert [u.gender for u in read(corpus)] == [expected]


def test_a_second_call_returns_at_once_until_something_changes(corpus):
    path = corpus(*twelve())
    assert not prepare(corpus, path)["reused"]
    before = (corpus.root / "M" / "train.csv").stat().st_mtime_ns
    again = prepare(corpus, path)
    assert again["reused"] and again["notes"] and set(again["splits"]) == {"train", "valid", "test"}
    assert (corpus.root / "M" / "train.csv").stat().st_mtime_ns == before
    assert not prepare(corpus, path, seed=1)["reused"]
    assert not prepare(corpus, corpus(*twelve(text="Salut")), seed=1)["reused"]
    (corpus.root / "M" / "valid.csv").unlink()
    assert not prepare(corpus, path, seed=1)["reused"]
    assert (corpus.root / "M" / "valid.csv").exists()


def test_every_fault_of_the_table_is_listed_at_once(corpus):
    (corpus.root / "clips" / "4.wav").write_bytes(b"")
    (corpus.root / "clips" / "5.wav").write_bytes(b"<html>")
    rows = [f"u{i},gone/{i}.wav,a,1.0" for i in range(7)]
    rows += [
        "x,clips/0.wav,a,0.25",
        "x,clips/1.wav,b,0.25",
        "y,clips/2.wav,[rire],0.25",
        "z,clips/3.wav,a,0.5",
    ]
    rows += ['w,clips/4.wav,a,"0,25"', "v,clips/5.wav,a,0.25"]
    columns = {"ID": "id", "wav": "path", "wrd": "text", "duration": "s"}
    with pytest.raises(DataError) as error:
        prepare(corpus, corpus("id,path,text,s", *rows), columns)
    message = str(error.value)
    for part in (
        "missing audio file (7): line 2 ",
        "and 2 more",
        "duplicate ID (1): x (lines 9, 10)",
        "cannot read (spell them out or remove them) (1): line 11 '[' ']'",
        "over 5 % off the audio's (1): line 12 says 0.5, measured 0.250",
        "line 13 '0,25'",
        "0 bytes",
        "HTML page",
    ):
        assert part in message
    assert "\n" not in message and not (corpus.root / "M").exists()


def test_the_same_audio_in_two_splits_is_refused(corpus):
    path = corpus("id,path,set", "a,clips/0.wav,train", "b,clips/0.wav,test")
    with pytest.raises(DataError, match=r"same audio in train and test \(1\): b"):
        prepare(corpus, path, {"ID": "id", "wav": "path"}, split="set")


def test_latin1_short_rows_and_empty_tables_are_named(corpus):
    with pytest.raises(DataError, match="line 3 is not UTF-8"):
        prepare(
            corpus, corpus("path,text", "clips/0.wav,a", "clips/1.wav,é", encoding="latin-1"), {"wav": "path"}
        )
    with pytest.raises(DataError, match=r"shorter.*line 3 has 1"):
        prepare(corpus, corpus("path,text", "clips/0.wav,a", "clips/1.wav"), {"wav": "path"})
    with pytest.raises(DataError, match="0 rows"):
        prepare(corpus, corpus("path,text"), {"wav": "path"})


MISTAKES = {
    "speaker is no column of a manifest": {"columns": {"wav": "path", "speaker": "speaker"}},
    "did you mean wrd": {"columns": {"wav": "path", "word": "text"}},
    "no column 'pth' (did you mean path?)": {"columns": {"wav": "pth"}},
    "wav=<column of the audio path> is missing": {"columns": {"wrd": "text"}},
    "no column 'split'": {"split": "split"},
    "no column 'lang'": {"where": ["lang=fr"]},
    "where 'fr'": {"where": ["fr"]},
    "must sum to 1": {"ratios": (0.8, 0.1, 0.2)},
    "train above 0": {"ratios": (0, 0.5, 0.5)},
    "Did you mean fr-1": {"normaliser": "fr1"},
    "start and stop go together": {"columns": {"wav": "path", "start": "text"}},
}


@pytest.mark.parametrize("message", MISTAKES)
def test_mistakes_in_the_options_are_usage_errors(corpus, message):
    with pytest.raises(UsageError) as error:
        prepare(corpus, corpus(*twelve()), **MISTAKES[message])
    assert message in str(error.value)


def test_the_table_is_never_overwritten(corpus):
    path = corpus(*twelve(), name="train.csv")
    with pytest.raises(UsageError, match="overwritten"):
        prepare_own(path, COLUMNS, corpus.root, corpus.root)
    with pytest.raises(FileNotFoundError, match="absent.csv not found"):
        prepare_own(corpus.root / "absent.csv", COLUMNS, corpus.root, corpus.root / "M")
    with pytest.raises(FileNotFoundError, match="nowhere is not a folder"):
        prepare_own(path, COLUMNS, corpus.root / "nowhere", corpus.root / "M")


@pytest.fixture
def dev_pack():
    """Real recordings beside the repository; the tests that use them are skipped where they are absent."""
    if not (SHARED / "dev_pack" / "manifest.csv").is_file():
        pytest.skip(f"{SHARED}/dev_pack is not there (LEBENCH_SHARED names another place)")
    return SHARED / "dev_pack"


@pytest.mark.parametrize(
    "where, text, normaliser, sizes",
    [
        (["language=fr", "tasks~asr"], "transcript", "fr-1", {"train": 349, "valid": 53, "test": 42}),
        (["language=mdw", "tasks~asr"], "transcript_norm", "none", {"train": 253, "valid": 33, "test": 44}),
    ],
)
def test_real_recordings(dev_pack, tmp_path, where, text, normaliser, sizes):
    columns = {name: name for name in ("ID", "wav", "duration", "spk_id", "gender", "language")} | {
        "wrd": text
    }
    report = prepare_own(
        dev_pack / "manifest.csv", columns, dev_pack, tmp_path, where, "split", normaliser=normaliser
    )
    assert {name: marker["utterances"] for name, marker in report["splits"].items()} == sizes
    assert report["splits"]["test"]["caveats"] == ["same speaker in train and test"]
    for name in sizes:
        utterances = read_manifest(tmp_path / f"{name}.csv", dev_pack)
        assert all(Path(u.wav).is_file() and u.labels["wrd"] for u in utterances)


def test_the_words_between_tags_are_normalised_and_bad_tags_are_named(corpus):
    rows = ["path,sem", *(f"clips/{i}.wav,<Ville> L'Hôtel du Mans > ; OUI" for i in range(12))]
    columns = {"wav": "path", "semantics": "sem"}
    report = prepare(corpus, corpus(*rows), columns)
    assert {u.labels["semantics"] for u in read_all(corpus, report)} == {"<Ville> l' hôtel du mans > oui"}
    rows[3], rows[7] = "clips/2.wav,<a> x <b> y >", "clips/6.wav,x >"
    with pytest.raises(DataError) as error:
        prepare(corpus, corpus(*rows), columns)
    assert "line 4: <b> opens inside <a>, line 8: > closes no concept" in str(error.value)


def test_a_channel_is_a_number(corpus):
    rows = ["path,side", *(f"clips/{i}.wav,{i % 2 + 1 if i else ''}" for i in range(12))]
    report = prepare(corpus, corpus(*rows), {"wav": "path", "channel": "side"})
    assert sorted(u.labels["channel"] for u in read_all(corpus, report)) == ["", *"1" * 5, *"2" * 6]
    with pytest.raises(DataError, match=r"channel is no number \(1 is the left one\) \(1\): line 2 'L'"):
        prepare(corpus, corpus(rows[0], "clips/0.wav,L", *rows[2:]), {"wav": "path", "channel": "side"})
