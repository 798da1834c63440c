"""What a file is that was taken for a table of text, told by its first bytes."""

import codecs
import os

from lebench_sb.core.errors import DataError

HEAD = 512
TAR = slice(257, 262)
PACKED = "packed ({}); unpack it first"
BINARY = {
    b"PAR1": "a Parquet file", b"ARROW1": "an Arrow file", b"FEA1": "a Feather file",
    b"\xff\xff\xff\xff": "an Arrow stream", b"Obj\x01": "an Avro file",
    b"PK\x03\x04": "a zip archive or a spreadsheet (.xlsx, .ods)",
    b"\xd0\xcf\x11\xe0": "a spreadsheet (.xls)", b"SQLite format 3\0": "an SQLite database",
    b"\x93NUMPY": "a NumPy array", b"\x89HDF": "an HDF5 file", b"%PDF": "a PDF",
    b"RIFF": "audio (WAV)", b"fLaC": "audio (FLAC)", b"OggS": "audio (Ogg)", b"ID3": "audio (MP3)",
    b"\x1f\x8b": PACKED.format("gzip"), b"BZh": PACKED.format("bzip2"),
    b"\xfd7zXZ": PACKED.format("xz"), b"\x28\xb5\x2f\xfd": PACKED.format("Zstandard"),
}  # fmt: skip
WORDS = {
    b"{": "JSON lines", b"[": "JSON", b"<": "HTML or XML", b"version https://git-lfs": "a git-lfs pointer",
}  # fmt: skip
WAYS = {
    "a git-lfs pointer": "run `git lfs pull`",
    "HTML or XML": "is it a page saved in place of a download?",
}
EXPORT = "export it as CSV, and `lebench prepare own` makes manifests of it"


def refuse_other_formats(path, wanted):
    """Raises DataError where the first bytes of `path` are those of another format; nothing where it is not
    there or no file (who opens it says so). wanted: what it was taken for, as "a manifest"."""
    if not os.path.isfile(path):
        return
    with open(path, "rb") as file:
        head = file.read(HEAD)
    if kind := format_of(head):
        way = "" if kind.startswith("packed") else f": {WAYS.get(kind, EXPORT)}"
        raise DataError(f"{path} is {kind}, {wanted} is text in CSV (UTF-8){way}.")


def format_of(head):
    """The first bytes of a file -> what it is in words, "" for what may be a table of text"""
    if head[TAR] == b"ustar":
        return "a tar archive"
    for magic, kind in BINARY.items():
        if head.startswith(magic) and not _is_text(head):
            return kind
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    return next((kind for magic, kind in WORDS.items() if text.startswith(magic)), "")


def _is_text(head):
    """Whether bytes, the last character perhaps cut, are text without control characters"""
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return False
    return all(character.isprintable() or character in "\t\r\n" for character in text)
