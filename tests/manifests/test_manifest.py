"""The manifest: what goes in comes out, nothing half-written counts, and bad data is named."""

import csv
import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lebench_sb.core.errors import DataError
from lebench_sb.manifests import durations, markers
from lebench_sb.manifests.durations import audio_duration
from lebench_sb.manifests.markers import is_prepared
from lebench_sb.manifests.reading import read_manifest
from lebench_sb.manifests.utterance import Utterance, tag_faults
from lebench_sb.manifests.writing import write_manifest

HEADER = "ID,duration,wav,start,stop,spk_id,gender,language,wrd"
ROW = "u1,1.5,$data_root/a.wav,,,s1,F,fr,bonjour"


@pytest.fixture
def root(tmp_path):
    """A data_root with three short clips a.wav, b.wav, c.wav of 0.1 s."""
    folder = tmp_path / "data root"  # the space is on purpose
    folder.mkdir()
    for name in "abc":
        soundfile.write(folder / f"{name}.wav", np.zeros(1600, dtype="int16"), 16000)
    return folder


def utterance(root, name="a", **changes):
    return replace(Utterance(name, str(root / f"{name}.wav"), 0.1, labels={"wrd": "bonjour"}), **changes)


def write_csv(tmp_path, *lines, encoding="utf-8", newline="\n"):
    path = tmp_path / "x.csv"
    path.write_bytes((newline.join(lines) + newline).encode(encoding))
    return path


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30) | st.sampled_from(
    ["5 $US", "$data_root/x", 'dit "non", puis', "a\r\nb", "a\rb", " x ", "\ufeffx", "e\u0301", '"', ","]
)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=st.tuples(TEXT, TEXT), speaker=TEXT, duration=st.floats(1e-6, 1e6), start=st.floats(0, 1e4))
def test_any_text_and_number_survives_a_round_trip(root, tmp_path, texts, speaker, duration, start):
    first, second = ({"wrd": texts[i], "translation_en": texts[1]} for i in (0, 1))
    written = [
        utterance(root, "a", labels=first, speaker=speaker, gender="M"),
        utterance(root, "b", labels=second, duration=duration, language="mdw"),
        utterance(root, "c", labels=first, start=start, stop=start + 0.1),
    ]
    write_manifest(tmp_path / "m.csv", reversed(written), root, {})
    assert read_manifest(tmp_path / "m.csv", root) == written


def test_the_file_is_what_interfaces_promise(root, tmp_path):
    write_manifest(tmp_path / "m.csv", [utterance(root, start=0.0, stop=0.1)], root, {})
    header, row = (tmp_path / "m.csv").read_text(encoding="utf-8").splitlines()
    assert header == HEADER
    assert row == "a,0.1,$data_root/a.wav,0.0,0.1,,U,fr,bonjour"


def test_only_path_columns_are_expanded_and_a_tree_key_is_left_alone(root, tmp_path):
    for name in ("t.arff", "t.conllu"):
        (root / name).write_text("x", encoding="utf-8")
    labels = [
        {"wrd": "$data_root/a.wav", "trace": str(root / "t.arff"), "tree": str(root / "t.conllu")},
        {"wrd": "", "trace": "", "tree": "sentence-12"},
    ]
    written = [utterance(root, name, labels=each) for name, each in zip("ab", labels, strict=True)]
    write_manifest(tmp_path / "m.csv", written, root, {})
    assert read_manifest(tmp_path / "m.csv", root) == written
    with open(tmp_path / "m.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["trace"] for row in rows] == ["$data_root/t.arff", ""]
    assert [row["tree"] for row in rows] == ["$data_root/t.conllu", "sentence-12"]


def test_a_label_file_that_is_missing_is_named_and_xml_is_fine(root, tmp_path):
    (root / "t.xml").write_text("<?xml version='1.0'?>", encoding="utf-8")
    labels = [{"trace": str(root / name)} for name in ("t.xml", "gone.xml")]
    write_manifest(tmp_path / "m.csv", [utterance(root, labels=labels[0])], root, {})
    with pytest.raises(DataError, match=r"missing or empty file of a label \(1\): .*gone.xml"):
        write_manifest(tmp_path / "m.csv", [utterance(root, labels=labels[1])], root, {})


def test_a_manifest_follows_its_data_when_they_move(root, tmp_path):
    write_manifest(tmp_path / "m.csv", [utterance(root)], root, {})
    moved = root.rename(tmp_path / "moved")
    assert read_manifest(tmp_path / "m.csv", moved)[0].wav == str(moved / "a.wav")


def test_data_behind_a_symbolic_link_are_under_data_root(root, tmp_path):
    link = tmp_path / "link"
    link.symlink_to(root)
    write_manifest(tmp_path / "m.csv", [utterance(link)], root, {})
    write_manifest(tmp_path / "n.csv", [utterance(root)], link, {})
    assert Path(read_manifest(tmp_path / "m.csv", link)[0].wav).exists()


def test_the_marker_counts(root, tmp_path):
    path = tmp_path / "m.csv"
    utterances = [utterance(root, name, speaker=name, duration=36.0) for name in "abc"]
    marker = write_manifest(path, utterances, root, {"seed": 1, "root": root}, dropped={"empty wrd": 2})
    assert marker == json.loads(markers.marker_path(path).read_text(encoding="utf-8"))
    assert (marker["utterances"], marker["speakers"], marker["hours"]) == (3, 3, 0.03)
    assert marker["dropped"] == {"empty wrd": 2}
    assert marker["sha256"] == markers.manifest_hash(path)


def test_only_an_untouched_manifest_of_the_same_parameters_is_prepared(root, tmp_path):
    path = tmp_path / "m.csv"
    assert not is_prepared(path, {"seed": 1})
    write_manifest(path, [utterance(root)], root, {"seed": 1, "splits": ("a", "b"), "text": write_manifest})
    assert is_prepared(path, {"text": write_manifest, "splits": ["a", "b"], "seed": 1})
    assert not is_prepared(path, {"seed": 2, "splits": ("a", "b"), "text": write_manifest})
    path.write_bytes(path.read_bytes()[:-3])
    assert not is_prepared(path, {"seed": 1, "splits": ("a", "b"), "text": write_manifest})
    markers.marker_path(path).write_text('{"parameters_sha', encoding="utf-8")
    assert not is_prepared(path, {"seed": 1})


def test_a_refused_manifest_leaves_the_old_one_alone(root, tmp_path):
    path = tmp_path / "m.csv"
    write_manifest(path, [utterance(root)], root, {})
    before = path.read_bytes()
    with pytest.raises(DataError):
        write_manifest(path, [utterance(root, duration=0.0)], root, {})
    assert path.read_bytes() == before and is_prepared(path, {})
    assert [p.name for p in tmp_path.glob("*.tmp")] == []


BAD = {
    "duplicate ID (1): a (2 times)": lambda root: [utterance(root), utterance(root)],
    "a lasts nan": lambda root: [utterance(root, duration=float("nan"))],
    "a lasts inf": lambda root: [utterance(root, duration=float("inf"))],
    "a lasts -1": lambda root: [utterance(root, duration=-1)],
    "a lasts None": lambda root: [utterance(root, duration=None)],
    "before stop": lambda root: [utterance(root, start=2.0, stop=1.9)],
    "must both be seconds": lambda root: [utterance(root, start=2.0)],
    "by over 5 %": lambda root: [utterance(root, start=2.0, stop=4.0)],
    "a has 'male'": lambda root: [utterance(root, gender="male")],
    "empty wrd (1): a": lambda root: [utterance(root, labels={"wrd": " "})],
    "empty wrd (1): b": lambda root: [utterance(root), utterance(root, "b", labels={})],
    "ID empty": lambda root: [utterance(root, id=" ")],
    "fixed column's name": lambda root: [utterance(root, labels={"wrd": "x", "spk_id": "y"})],
    "missing file (1)": lambda root: [utterance(root, "gone")],
    "not under data_root": lambda root: [utterance(root, wav="/etc/hosts")],
    "not Unicode": lambda root: [utterance(root, labels={"wrd": "\udce9"})],
    "0 utterances": lambda root: [],
}


@pytest.mark.parametrize("message", BAD)
def test_write_names_what_is_wrong(root, tmp_path, message):
    with pytest.raises(DataError) as error:
        write_manifest(tmp_path / "m.csv", BAD[message](root), root, {}, required=["wrd"])
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "m.csv").exists()


def test_all_problems_are_collected_and_the_first_five_of_each_kind_shown(root, tmp_path):
    bad = [utterance(root, id=f"u{i}", wav=str(root / f"gone{i}.wav"), gender="x") for i in range(9)]
    with pytest.raises(DataError) as error:
        write_manifest(tmp_path / "m.csv", bad, root, {})
    message = str(error.value)
    assert "missing file (9): " in message and "gender not F, M or U (9): " in message
    assert "gone4.wav and 4 more" in message and "gone5" not in message


@pytest.mark.parametrize(
    "content, words",
    [
        (b"", "0 bytes"),
        (b"\n<!DOCTYPE html><html>", "HTML page"),
        (b"<html><body>403", "HTML page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12", "git-lfs pointer"),
    ],
)
def test_files_that_are_no_audio_are_recognised(root, tmp_path, content, words):
    (root / "a.wav").write_bytes(content)
    with pytest.raises(DataError, match=words):
        write_manifest(tmp_path / "m.csv", [utterance(root)], root, {})
    with pytest.raises(DataError, match=rf"a\.wav.*{words}"):
        audio_duration(root / "a.wav")


LINES = {
    "separated by ';'": [HEADER.replace(",", ";"), ROW.replace(",", ";")],
    r"separated by '\t'": [HEADER.replace(",", "\t"), ROW.replace(",", "\t")],
    "spk_id (did you mean speaker_id?)": [HEADER.replace("spk_id", "speaker_id"), ROW],
    "columns named twice: wrd": [HEADER + ",wrd", ROW + ",x"],
    "rows shorter than the header's 9 fields (1): line 3 has 3": [HEADER, ROW, "u2,1.0,$data_root/b.wav"],
    "fields, put quotation marks": [HEADER, ROW + ", madame"],
    "line 2 '1,5'": [HEADER, ROW.replace("1.5", '"1,5"')],
    "line 2 '1.5 s'": [HEADER, ROW.replace("1.5", "1.5 s")],
    "line 2 'nan'": [HEADER, ROW.replace("1.5", "nan")],
    "line 2 ''": [HEADER, ROW.replace("1.5", "")],
    "duration not positive (1): line 2 '0.0'": [HEADER, ROW.replace("1.5", "0.0")],
    "before stop (1): line 2": [HEADER, ROW.replace(",,,", ",3.0,1.0,")],
    "gender not F, M or U (1): line 2 'female'": [HEADER, ROW.replace(",F,", ",female,")],
    "u1 (lines 2, 3)": [HEADER, ROW, ROW],
    "begin with $data_root/ (1): line 2": [HEADER, ROW.replace("$data_root", "/data")],
    "empty ID (1): line 2": [HEADER, ROW.replace("u1", "")],
    "0 utterances, only a header": [HEADER],
    "empty file": [""],
    "line 3: ": [HEADER, ROW, 'u2,1.5,$data_root/a.wav,,,s1,F,fr,"open', "x", "y"],
}


@pytest.mark.parametrize("message", LINES)
def test_read_names_the_line(tmp_path, message):
    path = write_csv(tmp_path, *LINES[message])
    with pytest.raises(DataError) as error:
        read_manifest(path, tmp_path)
    assert message in str(error.value) and str(path) in str(error.value)


def test_latin1_is_named_with_its_line(tmp_path):
    path = write_csv(tmp_path, HEADER, ROW, ROW.replace("bonjour", "été"), encoding="latin-1")
    with pytest.raises(DataError, match="line 3 is not UTF-8.*Latin-1.*iconv"):
        read_manifest(path, tmp_path)
    path = write_csv(tmp_path, HEADER, ROW, encoding="utf-16")
    with pytest.raises(DataError, match="UTF-16"):
        read_manifest(path, tmp_path)


def test_bom_crlf_and_blank_lines_are_fine(tmp_path):
    plain = read_manifest(write_csv(tmp_path, HEADER, ROW), tmp_path)
    path = write_csv(tmp_path, HEADER, ROW, "", encoding="utf-8-sig", newline="\r\n")
    excel = read_manifest(path, tmp_path)
    assert plain == excel and len(plain) == 1


def test_missing_manifest_and_root_are_usage_errors(tmp_path):
    with pytest.raises(FileNotFoundError, match="x.csv not found"):
        read_manifest(tmp_path / "x.csv", tmp_path)
    with pytest.raises(FileNotFoundError, match="nowhere is not a folder"):
        read_manifest(write_csv(tmp_path, HEADER, ROW), tmp_path / "nowhere")


def test_a_hundred_thousand_rows_load_in_seconds(tmp_path):
    row = 'u{0},1.5,$data_root/clips/{0}.mp3,,,s1,F,fr,"bonjour, l\' ami {0}"'
    path = write_csv(tmp_path, HEADER, *map(row.format, range(100_000)))
    start = time.perf_counter()
    assert len(read_manifest(path, tmp_path)) == 100_000
    assert time.perf_counter() - start < 10  # about 1.5 s on a quiet core


@pytest.mark.parametrize("suffix, tolerance", [("wav", 0), ("flac", 0), ("ogg", 0.01), ("mp3", 0.08)])
def test_durations_of_common_formats(tmp_path, suffix, tolerance):
    noise = np.random.default_rng(0).normal(0, 0.1, (22050 * 3 // 2, 2))
    path = tmp_path / f"é.{suffix}"
    soundfile.write(path, noise, 22050)
    assert audio_duration(path) == pytest.approx(1.5, abs=tolerance + 1e-9)
    assert audio_duration(path) == pytest.approx(len(soundfile.read(path)[0]) / 22050, abs=1e-9)


def test_a_truncated_mp3_is_a_fault(tmp_path):
    path = tmp_path / "x.mp3"
    soundfile.write(path, np.random.default_rng(0).normal(0, 0.1, 16000 * 20), 16000)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(DataError, match=r"x.mp3: cut short: \d+ of 32\d+ samples"):
        audio_duration(path)


def test_measuring_lists_every_bad_file(tmp_path):
    soundfile.write(tmp_path / "good.wav", np.zeros(8000), 8000)
    soundfile.write(tmp_path / "none.wav", np.zeros(0), 8000)
    (tmp_path / "noise.wav").write_bytes(b"RIFFnothing to hear" * 9)
    names = ["good.wav", "none.wav", "noise.wav", "gone.wav"]
    assert durations.measure_durations([tmp_path / "good.wav"] * 40) == {str(tmp_path / "good.wav"): 1.0}
    with pytest.raises(DataError) as error:
        durations.measure_durations([tmp_path / name for name in names], where="clips")
    message = str(error.value)
    assert message.startswith("clips: ")
    for part in ("no audio (0 samples) (1)", "missing audio file (1)", "not readable as audio"):
        assert part in message


@pytest.mark.parametrize(
    "text, faults",
    [
        ("", []),
        ("oui <ville> le mans > et <temps-date> demain >", []),
        ("<a> x <b> y > >", ["<b> opens inside <a>", "> closes no concept"]),
        ("<a> x", ["<a> is not closed"]),
        ("x > <a> y >", ["> closes no concept"]),
        ("<a>x >", ["'<a>x' is neither a word nor a tag with spaces around it", "> closes no concept"]),
        ("< a > x", ["'<' is neither a word nor a tag with spaces around it", "> closes no concept"]),
    ],
)
def test_tags_of_semantics(root, tmp_path, text, faults):
    assert tag_faults(text) == faults
    path = tmp_path / "m.csv"
    path.write_text(f"{HEADER},semantics\n{ROW},{text}\n", encoding="utf-8")
    u = utterance(root, labels={"wrd": "x", "semantics": text})
    if not faults:
        assert read_manifest(path, root)[0].labels["semantics"] == text
        write_manifest(tmp_path / "w.csv", [u], root, {})
        return
    for attempt in (
        lambda: read_manifest(path, root),
        lambda: write_manifest(tmp_path / "w.csv", [u], root, {}),
    ):
        with pytest.raises(DataError) as error:
            attempt()
        assert all(fault in str(error.value) for fault in faults)
    with pytest.raises(DataError, match="line 2"):
        read_manifest(path, root)
