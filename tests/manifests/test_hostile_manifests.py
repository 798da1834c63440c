"""What a manifest may hold: paths below data_root, and nothing that is another format or no table."""

import gzip
import os
from pathlib import Path

import pytest

from lebench_sb import cli
from lebench_sb.core.errors import DataError
from lebench_sb.manifests import columns
from lebench_sb.manifests.columns import columnar, open_utterances
from lebench_sb.manifests.formats import format_of
from lebench_sb.manifests.reading import read_manifest
from lebench_sb.manifests.utterance import COLUMNS

HEADER = ",".join(COLUMNS) + ",trace,tree"


@pytest.fixture(params=["rows", "columns"])
def read(request, monkeypatch):
    """Reads a manifest in either way"""
    monkeypatch.setattr(columns, "LARGE", 0)
    opened = lambda path, root: list(open_utterances([path], root))  # noqa: E731
    return read_manifest if request.param == "rows" else opened


def manifest(folder, wav="$data_root/a.wav", trace="", tree=""):
    path = folder / "m.csv"
    path.write_text(f"{HEADER}\nu0,1,$data_root/a.wav,,,s,F,fr,,\nu1,1,{wav},,,s,F,fr,{trace},{tree}\n")
    return path


LEAVING = [
    {"wav": "$data_root/../b.wav"}, {"wav": "$data_root/a/../../b.wav"}, {"wav": "$data_root/.."},
    {"wav": "$data_root/x.tar::../b.wav"}, {"wav": "$data_root/../x.tar::b.wav"},
    {"wav": "$data_root/a\0.wav"}, {"wav": "/etc/passwd"}, {"wav": "a.wav"}, {"wav": "file:///etc/passwd"},
    {"trace": "$data_root/../t.csv"}, {"trace": "../t.csv"}, {"trace": "/etc/passwd"}, {"trace": "/t\0"},
    {"tree": "$data_root/../t.conllu"}, {"tree": "../../t.conllu#s1"}, {"tree": "/etc/passwd"},
    {"wav": "$data_root/clips\\a.wav"}, {"wav": "$data_root\\a.wav"},
]  # fmt: skip


@pytest.mark.parametrize("place", LEAVING, ids=repr)
def test_a_path_that_leaves_data_root_is_named(tmp_path, read, place):
    ((name, value),) = place.items()
    with pytest.raises(DataError, match=f"m.csv: {name} ") as caught:
        read(manifest(tmp_path, **place), tmp_path)
    assert repr(value) in str(caught.value) and ("line 3" in str(caught.value) or "u1" in str(caught.value))
    assert "u0" not in str(caught.value)


INSIDE = [
    {"wav": "$data_root/a..b.wav"}, {"wav": "$data_root/...wav"}, {"wav": "$data_root/a/.b/c.wav"},
    {"trace": "$data_root/t.csv"}, {"tree": "$data_root/t.conllu#a..b"}, {"tree": "sentence-12"},
    {"tree": '"1\tÀ/../\t_\n"'}, {"wav": "$data_root/real\\name.wav"}, {"trace": "ROOT/t.csv"},
]  # fmt: skip


@pytest.mark.parametrize("place", INSIDE, ids=repr)
def test_a_path_inside_is_read_as_before(tmp_path, read, place):
    (tmp_path / "real\\name.wav").write_bytes(b"x")
    place = {name: value.replace("ROOT", str(tmp_path)) for name, value in place.items()}
    assert [u.id for u in read(manifest(tmp_path, **place), tmp_path)] == ["u0", "u1"]


def test_a_link_that_leads_out_is_followed(tmp_path, read):
    (tmp_path / "data").mkdir()
    (tmp_path / "corpus").mkdir()
    (tmp_path / "data/link").symlink_to(tmp_path / "corpus")
    found = read(manifest(tmp_path, "$data_root/link/a.wav"), tmp_path / "data")
    assert found[1].wav == str(tmp_path / "data/link/a.wav")


# ---- other formats and hostile tables


GOOD = f"{HEADER}\nu1,1,$data_root/a.wav,,,s,F,fr,,\n"
OTHERS = {
    "JSON lines": (b'{"ID": "u1", "wav": "a.wav"}\n', "is JSON lines.*lebench prepare own"),
    "JSON lines after a mark": (b'\xef\xbb\xbf\n {"ID": 1}\n', "is JSON lines"),
    "JSON": (b'[{"ID": "u1"}]', "is JSON,"),
    "Parquet": (b"PAR1\x15\x04" + bytes(50), "is a Parquet file.*export it as CSV"),
    "Arrow": (b"ARROW1\0\0" + bytes(50), "is an Arrow file"),
    "spreadsheet": (b"PK\x03\x04\x14\0" + bytes(50), r"spreadsheet \(.xlsx"),
    "gzip": (gzip.compress(GOOD.encode()), "packed .gzip.; unpack it first"),
    "zstd": (b"\x28\xb5\x2f\xfd" + bytes(50), "Zstandard"),
    "HTML": (b"<!DOCTYPE html><html>", "is it a page saved in place of a download"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\noid", "git lfs pull"),
    "tar": (b"a.csv".ljust(257, b"\0") + b"ustar" + bytes(250), "a tar archive"),
    "audio": (b"RIFF\x24\0\0\0WAVEfmt ", "is audio"),
    "UTF-16": (GOOD.encode("utf-16"), "UTF-16; save it as UTF-8"),
    "UTF-16 without mark": (GOOD.encode("utf-16-le"), "NUL bytes in its first line; is it UTF-16"),
    "only a mark": (b"\xef\xbb\xbf", "empty file"),
    "many columns": ((",".join(f"c{k}" for k in range(100_000)) + "\n").encode(), "100000 columns, at most"),
    "long field": (f"{GOOD}u2,1,$data_root/b,{'a' * 140_000},,s,F,fr,,".encode(), "line 3: field larger"),
    "NUL in an ID": (GOOD.replace("u1", "u\0").encode(), "ID with a NUL byte"),
}  # fmt: skip


@pytest.mark.parametrize("content, words", OTHERS.values(), ids=OTHERS)
def test_what_is_no_manifest_is_said_to_be_what_it_is(tmp_path, read, content, words):
    (tmp_path / "m.csv").write_bytes(content)
    with pytest.raises(DataError, match=words) as caught:
        read(tmp_path / "m.csv", tmp_path)
    assert str(caught.value).startswith(str(tmp_path / "m.csv"))


def test_lines_of_an_old_mac_are_lines(tmp_path, read):
    (tmp_path / "m.csv").write_bytes(GOOD.replace("\n", "\r").encode())
    assert [u.id for u in read(tmp_path / "m.csv", tmp_path)] == ["u1"]


@pytest.mark.parametrize("name", ["JSON lines", "Parquet", "spreadsheet", "gzip"])
def test_own_data_in_another_format_is_said_to_be_what_it_is(tmp_path, capsys, name):
    content, words = OTHERS[name]
    (tmp_path / "m.csv").write_bytes(content)
    code = cli.run(
        ["prepare", "own", "--csv", str(tmp_path / "m.csv"), "--data_root", str(tmp_path), "--output",
         str(tmp_path / "out"), "--columns", "ID=ID,wav=wav"]
    )  # fmt: skip
    said = capsys.readouterr().err
    assert code == 3 and "m.csv is " in said and len(said.strip().splitlines()) == 1


@pytest.mark.parametrize("text", ["ID3,duration\n", "PARIS,Texte\n", "RIFF\n", "BZh,été\n", "", "é" * 400])
def test_text_is_not_taken_for_another_format(text):
    assert format_of(text.encode()[:511]) == ""


# ---- the copy in columns


def replaced(path):
    """Other rows under the metadata of these"""
    import pyarrow as pa

    table = columns._mapped(path)
    ids = pa.array([f"x{k}" for k in range(len(table))])
    written = pa.BufferOutputStream()
    with pa.ipc.new_file(written, table.schema) as writer:
        writer.write_table(table.set_column(0, "ID", ids))
    return written.getvalue().to_pybytes()


def tampered(change):
    def damage(copy):
        data = bytearray(copy.read_bytes())
        copy.write_bytes(bytes(change(data, copy)))

    return damage


def flipped(data, copy):
    data[data.index(b"u1")] ^= 1
    return data


DAMAGES = {
    "a byte": tampered(flipped),
    "rows of another": tampered(lambda data, copy: replaced(copy) + bytes(data[-columns.DIGEST :])),
    "rows without digest": tampered(lambda data, copy: replaced(copy)),
    "cut short": tampered(lambda data, copy: data[:-200]),
    "empty": tampered(lambda data, copy: b""),
    "only the digest": tampered(lambda data, copy: data[-columns.DIGEST :]),
    "no Arrow": tampered(lambda data, copy: b"x" * 1000),
    "zeros": tampered(lambda data, copy: bytes(len(data))),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_copy_that_is_not_what_was_written_is_built_anew(tmp_path, monkeypatch, caplog, damage):
    monkeypatch.setattr(columns, "LARGE", 0)
    path = manifest(tmp_path)
    copy = columnar(path)
    state = os.stat(copy)
    damage(copy)
    os.utime(copy, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert [u.id for u in open_utterances([path], tmp_path)] == ["u0", "u1"]
    assert f"{copy}: not what was written" in caplog.text


def test_a_copy_with_another_schema_is_built_anew(tmp_path, monkeypatch):
    import pyarrow as pa

    monkeypatch.setattr(columns, "LARGE", 0)
    path = manifest(tmp_path)
    copy = columnar(path)
    metadata = columns._mapped(copy).schema.metadata
    tables = [
        pa.table({"ID": ["u0"], "duration": ["1"]}),
        pa.table({name: pa.array([1.0]) for name in COLUMNS}),
        columns._mapped(copy).set_column(0, "ID", pa.array(["u0", None])),
    ]
    for table in tables:
        with open(copy, "w+b") as file, pa.ipc.new_file(file, table.schema.with_metadata(metadata)) as writer:
            writer.write_table(table.replace_schema_metadata(metadata))
        copy.write_bytes(copy.read_bytes() + columns.digest_of(copy.read_bytes()).encode())
        assert [u.id for u in open_utterances([path], tmp_path)] == ["u0", "u1"]


def test_copies_may_be_read_by_whom_the_umask_lets_and_leftovers_go(tmp_path):
    path = manifest(tmp_path)
    dead, mine = tmp_path / f".m.csv.arrow.{'0' * 16}.tmp", tmp_path / ".m.csv.arrow.notes.tmp"
    alive = tmp_path / f".m.csv.arrow.{'1' * 16}.tmp"
    for file in (dead, mine, alive):
        file.write_text("x")
    for file in (dead, mine):
        os.utime(file, (1, 1))
    before = os.umask(0o027)
    try:
        copy = columnar(path)
    finally:
        os.umask(before)
    assert copy.stat().st_mode & 0o777 == 0o640
    assert not dead.exists() and mine.exists() and alive.exists()


def test_a_lock_of_somebody_else_is_no_obstacle(tmp_path):
    path = manifest(tmp_path)
    Path(f"{path}.arrow.lock").symlink_to(tmp_path / "elsewhere")
    assert columnar(path).is_file() and not (tmp_path / "elsewhere").exists()


def test_a_copy_replaced_while_it_is_read_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(columns, "LARGE", 0)
    path = manifest(tmp_path)
    opened = open_utterances([path], tmp_path)
    make, arguments = opened.__reduce__()
    assert list(make(*arguments)) == list(opened)
    path.write_text(path.read_text().replace("u1", "u2"))
    columnar(path)
    with pytest.raises(DataError, match="replaced while it was read"):
        make(*arguments)
