"""What is no audio, seen by its first bytes: pages, pointers, archives, pipes."""

import errno
import os

from lebench_sb.audio.members import file_of, first_bytes
from lebench_sb.core.errors import DataError, one_line

HEAD = 512  # bytes
MISSING = "missing file"
FOREIGN = {
    (b"<html", b"<!doctype", b"<?xml", b"<head", b"<body", b"<error"):
        "HTML page saved as audio (a download that asked for a login?)",
    (b'{"', b"{ ", b"{\n", b"[{"): "JSON saved as audio (the error message of a download?)",
    (b"version https://git-lfs",): "git-lfs pointer saved as audio (run `git lfs pull`)",
    (b"/annex/objects/", b"../.git/annex/", b".git/annex/"):
        "git-annex pointer saved as audio (run `git annex get`)",
    (b"oid sha256:",): "git-lfs pointer saved as audio (run `git lfs pull`)",
    (b"%pdf",): "PDF saved as audio",
    (b"-----begin", b"age-encryption.org", b"salted__", b"luks\xba\xbe"):
        "encrypted file (decrypt it first)",
}  # fmt: skip
BINARY = {
    (b"\x00\x05\x16\x07", b"\x00\x05\x16\x00"):
        "macOS resource fork (`._` file of a copy from a Mac), no audio: delete it",
    (b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08"): "zip archive named as audio (unpack it)",
    (b"\x1f\x8b",): "gzip file named as audio (unpack it)",
    (b"BZh",): "bzip2 file named as audio (unpack it)",
    (b"\xfd7zXZ\x00",): "xz file named as audio (unpack it)",
    (b"(\xb5/\xfd",): "zstd file named as audio (unpack it)",
    (b"7z\xbc\xaf'\x1c",): "7z archive named as audio (unpack it)",
    (b"Rar!\x1a\x07",): "rar archive named as audio (unpack it)",
    (b"\x8c\x0d\x04", b"\x85\x01\x0c", b"\x85\x02\x0c", b"\x85\x04\x0c"):
        "encrypted file (decrypt it first)",
    (b"\x7fELF", b"MZ\x90"): "program named as audio",
    (b"\x89PNG", b"\xff\xd8\xff\xe0", b"\xff\xd8\xff\xe1", b"GIF8"): "picture named as audio",
    (b"\x1aE\xdf\xa3",): "Matroska or WebM, which is not read: `ffmpeg -i IN OUT.flac` converts it",
    (b"SQLite format 3",): "SQLite database named as audio",
}  # fmt: skip


def audio_fault(path):
    """What makes `path` no audio file, or "" when its first bytes look sane; decodes nothing."""
    path = str(path)
    if "\0" in path:
        return "path with a NUL character"
    try:
        head = first_bytes(path, HEAD)
    except (FileNotFoundError, NotADirectoryError):
        return MISSING
    except DataError as error:
        return str(error).removeprefix(f"{file_of(path)} is ").rstrip(".")
    except OSError as error:
        return f"unreadable file, {system_words(error)}"
    return head_fault(head)


SANE = {}  # {path: (bytes, time of change)} of files whose head this process has found sane
KEPT = 1 << 14


def fault_of_new(path):
    """`audio_fault`, but a file that has not changed since it was found sane is not read again"""
    if "\0" in str(path):
        return audio_fault(path)
    try:
        stat = os.stat(file_of(path))
    except OSError:  # said by audio_fault
        return audio_fault(path)
    state = stat.st_size, stat.st_mtime_ns
    if SANE.get(str(path)) == state:
        return ""
    fault = audio_fault(path)
    if not fault:
        if len(SANE) >= KEPT:
            SANE.clear()
        SANE[str(path)] = state
    return fault


def system_words(error):
    """What the system says, without the path"""
    if error.errno == errno.ELOOP:
        return "symbolic links in a circle"
    return error.strerror or one_line(error)


def head_fault(head):
    """The fault of a file that begins with these bytes, "" for none"""
    if not head:
        return "file of 0 bytes (interrupted copy?)"
    for signs, fault in BINARY.items():
        if head.startswith(signs):
            return fault
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    for signs, fault in FOREIGN.items():
        if text.startswith(signs):
            return fault
    if len(head) >= 64 and not any(head):
        return "zeros where the head of an audio file should be (interrupted copy, or a file only reserved?)"
    if head[4:8] == b"ftyp":
        return "MP4 or M4A, which is not read: `ffmpeg -i IN OUT.flac` converts it"
    return ""


def kind_of(fault, path):
    """A file's fault -> (its kind, what is particular to the file): files of one kind are told together"""
    for kind in ("cut short", "damaged"):
        if fault.startswith(f"{kind}: "):
            return kind, f"{path}: {fault.removeprefix(f'{kind}: ')}"
    return fault, str(path)
