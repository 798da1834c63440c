"""Tars of any program, and damaged or hostile ones: members are read as `tar` does, or one line says why
not."""

import io
import os
import struct
import subprocess
import tarfile

import pytest

from lebench_sb.audio import members
from lebench_sb.audio.members import first_bytes
from lebench_sb.core.errors import DataError
from lebench_sb.manifests import shards
from lebench_sb.training.data import load_audio

END = bytes(1024)


def header(name="a", size=0, kind=b"0", magic=b"ustar\x0000", raw_size=None, signed=False, **fields):
    """A header with the right checksum (of old programs: of signed bytes); raw_size: 12 bytes in place of the
    size"""
    block = bytearray(512)
    block[:100] = name.encode()[:100].ljust(100, b"\0")
    block[100:108] = b"0000644\0"
    block[124:136] = raw_size or b"%011o\0" % size
    block[156:157] = kind
    block[257:265] = magic
    for place, value in fields.items():
        at = int(place[1:])
        block[at : at + len(value)] = value
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % (sum(block) - signed * 256 * sum(byte > 127 for byte in block))
    return bytes(block)


def member(name="a", data=b"data", **fields):
    return header(name, len(data), **fields) + data + bytes(-len(data) % 512)


def record(key, value):
    text = f" {key}={value}\n"
    length = len(text) + 1
    length = len(str(length + len(str(length)) - 1)) + len(text)
    return f"{length}{text}".encode()


def pax(**said):
    return member("pax", b"".join(record(key, value) for key, value in said.items()), kind=b"x")


@pytest.fixture
def read(tmp_path):
    """Writes a tar and reads its member `a`"""
    members.opened.cache_clear()

    def read(content, name="a"):
        (tmp_path / "x.tar").write_bytes(content)
        return first_bytes(f"{tmp_path / 'x.tar'}::{name}", 100)

    return read


GOOD = {
    "plain": member() + END,
    "no end mark": member(),
    "old, without magic": member(magic=bytes(8)) + END,
    "old type": member(kind=b"\0") + END,
    "folder and link before": header("d/", kind=b"5") + header("l", kind=b"2") + member() + END,
    "a link that says a size": header("l", 4096, kind=b"1") + member() + END,
    "the last of two counts": member(data=b"old") + member() + END,
    "./ before": member("./a") + END,
    "GNU long name": member("././@LongLink", b"a\0", kind=b"L") + member("cut") + END,
    "long link before": member("././@LongLink", b"x" * 600, kind=b"K") + member() + END,
    "pax name": pax(path="a") + member("cut") + END,
    "pax size": pax(size="4") + header("a", 0) + b"data".ljust(512, b"\0") + END,
    "pax for all": member("g", record("comment", "x" * 40), kind=b"g") + member() + END,
    "size in binary": header("a", raw_size=b"\x80" + bytes(10) + b"\4") + b"data".ljust(512, b"\0") + END,
    "signed checksum": member("a", signed=True, v400="é".encode()) + END,
    "unknown type before": member("v", b"label", kind=b"V") + member() + END,
    "sparse before": header("s", 4, kind=b"S", v482=b"\1") + bytes(512) + b"hole".ljust(512) + member() + END,
}  # fmt: skip


@pytest.mark.parametrize("content", GOOD.values(), ids=GOOD)
def test_a_member_is_found(read, content):
    assert read(content) == b"data"


BAD = {
    "empty": (b"", "no uncompressed tar, or cut short .0 bytes"),
    "text": (b"hello\n" * 200, "no uncompressed tar: the header at byte 0"),
    "gzip": (b"\x1f\x8b" + bytes(600), "packed with gzip, unpack it first"),
    "bzip2": (b"BZh" + bytes(600), "packed with bzip2"),
    "xz": (b"\xfd7zXZ" + bytes(600), "packed with xz"),
    "zstd": (b"\x28\xb5\x2f\xfd" + bytes(600), "packed with Zstandard"),
    "checksum": (member("b") + b"x" + member()[1:], "damaged: the header at byte 1024 has another checksum"),
    "cut in a header": (member("b") + member()[:100], "cut short"),
    "beyond the file": (member("b") + header("a", 5000) + END, "a would end at byte 6536 of 2560"),
    "huge": (header("a", raw_size=b"\x80" + b"\x7f" * 11) + END, "a would end at byte"),
    "negative": (header("b", raw_size=b"\xff" * 10 + b"\xfc\0") + member() + END, "b: no size in its header"),
    "negative to the same header": (
        member("b") + header("c", raw_size=b"\xff" * 4 + struct.pack(">q", -512)) + member(), "c: no size"),
    "no number": (header("b", raw_size=b"12x000000000") + member(), "b: no size in its header at byte 0"),
    "minus": (header("b", raw_size=b"-0000000512\0") + member(), "b: no size in its header"),
    "pax size beyond": (pax(size="99999999") + member() + END, "a would end at byte"),
    "pax size negative": (pax(size="-512") + member() + END, "an extended header says the size b'-512'"),
    "pax without length": (member("x", b"path=a\n", kind=b"x") + member(), "an extended header holds"),
    "pax with length 0": (member("x", b"0 path=a\n", kind=b"x") + member(), "an extended header holds"),
    "pax with a long length": (member("x", b"99 path=a\n", kind=b"x") + member(), "an extended header holds"),
    "long name of a gigabyte": (header("b", 1 << 30, kind=b"L") + member(), "extended headers without end"),
    "names without end": (member("b", b"x", kind=b"L") * 2000 + member(), "extended headers without end"),
    "pax without end": (pax(path="b") * 2000 + member(), "extended headers without end"),
    "a name for nothing": (member("b") + pax(path="a"), "stands before no member"),
    "sparse without end": (header("b", 4, kind=b"S", v482=b"\1") + (bytes(504) + b"\1" + bytes(7)) * 9,
                           "extended headers without end"),
    "link": (header("a", kind=b"2") + END, "it is a symbolic link in the shard, not a file"),
    "hard link": (header("a", kind=b"1") + END, "it is a hard link"),
    "device": (header("a", kind=b"3") + END, "it is a device"),
    "pipe": (header("a", kind=b"6") + END, "it is a pipe"),
    "folder": (header("a", kind=b"5") + END, "it is a folder"),
    "sparse": (member(kind=b"S") + END, "it is a sparse file"),
    "sparse of pax": (pax(**{"GNU.sparse.major": "1", "GNU.sparse.name": "a"}) + member("b") + END, "sparse"),
    "behind the end": (member("b") + END + member() + END, "no such member.*another tar follows this one"),
    "only the end": (END, "no such member in the shard"),
}  # fmt: skip


@pytest.mark.parametrize("content, words", BAD.values(), ids=BAD)
def test_a_tar_that_cannot_be_used_says_why(read, content, words):
    with pytest.raises(OSError, match=words) as caught:
        read(content)
    assert caught.value.filename.endswith("x.tar") or caught.value.filename.endswith("x.tar::a")


def test_tarfile_reads_what_we_read(tmp_path, read):
    for form in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        file = io.BytesIO()
        with tarfile.open(fileobj=file, mode="w", format=form) as tar:
            for name in ("a", "é" * 40, "d/" * 40 + "a"):
                info = tarfile.TarInfo(name)
                info.size, info.mtime = 4, 1.5 if form == tarfile.PAX_FORMAT else 1
                tar.addfile(info, io.BytesIO(b"data"))
        for name in ("a", "é" * 40, "d/" * 40 + "a"):
            members.opened.cache_clear()
            assert read(file.getvalue(), name) == b"data"


def test_a_sparse_file_of_gnu_tar_is_said_to_be_one(tmp_path, read):
    with open(tmp_path / "a", "wb") as file:
        file.truncate(1 << 20)
        file.write(b"x" * 4096)
    for form in ("gnu", "pax"):
        words = ["tar", "-C", tmp_path, "--sparse", f"--format={form}", "-cf", "-", "a"]
        made = subprocess.run(words, capture_output=True, check=True)
        members.opened.cache_clear()
        with pytest.raises(OSError, match="it is a sparse file"):
            read(made.stdout)


# ---- the index


def written_index(path, change):
    """An index of the tar at `path` with changed columns"""
    index = members.make_index(os.path.getsize(path), [("a", 512, 4, 0x1234), ("b", 1536, 4, 0x1234)])
    change(index)
    (path.parent / f"{path.name}.index").write_bytes(index.bytes())


def put(column, value):
    def change(index):
        k = index.hashes.index(members.name_hash("a"))
        getattr(index, column)[k] = value

    return change


@pytest.mark.parametrize(
    "change, words",
    [
        (put("firsts", 1 << 62), "index of the shard points outside it"),
        (put("firsts", 0), "points outside it"),
        (put("sizes", (1 << 64) - 1), "points outside it"),
        (put("sizes", 3), "holds something else"),
        (put("firsts", 1536), "holds something else"),
        (put("crcs", 0), None),
    ],
)  # fmt: skip
def test_an_index_that_points_elsewhere_is_told(tmp_path, read, change, words):
    path = tmp_path / "x.tar"
    path.write_bytes(member() + member("b") + END)
    written_index(path, change)
    members.opened.cache_clear()
    if words is None:
        assert first_bytes(f"{path}::a", 9) == b"data"
        return
    with pytest.raises(OSError, match=words):
        first_bytes(f"{path}::a", 9)


@pytest.mark.parametrize("content", [b"", b"lebench1", b"x" * 100, b"lebench1" + b"\xff" * 16])
def test_an_index_that_is_none_is_told(tmp_path, content):
    (tmp_path / "x.tar").write_bytes(member() + END)
    (tmp_path / "x.tar.index").write_bytes(content)
    members.opened.cache_clear()
    with pytest.raises(DataError, match="no index of a shard, or cut short") as caught:
        load_audio(f"{tmp_path / 'x.tar'}::a")
    assert "x.tar" in str(caught.value)


@pytest.mark.parametrize("whole", [True, False])
def test_the_checksum_that_differs_is_told(tmp_path, whole):
    path = tmp_path / "x.tar"
    path.write_bytes(member(data=b"fLaC" + bytes(100)) + END)
    index = members.make_index(os.path.getsize(path), [("a", 512, 104, 0x1234)])
    (tmp_path / "x.tar.index").write_bytes(index.bytes())
    members.opened.cache_clear()
    found = shards.zlib.crc32(b"fLaC" + bytes(100))
    with pytest.raises(DataError, match=rf"CRC-32 differs \(expected 00001234, found {found:08x}\)"):
        load_audio(f"{path}::a", None if whole else 0.0, None if whole else 1.0)
