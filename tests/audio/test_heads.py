"""What is no audio is named, at every door where audio is opened."""

import os
import socket
import stat

import numpy as np
import pytest
import soundfile

from lebench_sb.audio.heads import audio_fault
from lebench_sb.audio.verdict import from_samples
from lebench_sb.core.errors import DataError
from lebench_sb.manifests.durations import audio_duration, probe_durations
from lebench_sb.manifests.tables import read_text
from lebench_sb.manifests.utterance import Utterance
from lebench_sb.manifests.writing import write_manifest
from lebench_sb.training.data import load_audio

HEADS = {
    "HTML page": b"\n <!DOCTYPE html><p>Login</p>",
    "HTML": b"<?xml version='1.0'?><Error>AccessDenied</Error>",
    "JSON": b'{"error": "not found"}', "git-lfs": b"version https://git-lfs.github.com/spec/v1\n",
    "git-annex": b"/annex/objects/SHA256E-s64--abc.wav\n",
    "resource fork": b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X",
    "zip": b"PK\x03\x04\x14\x00", "gzip": b"\x1f\x8b\x08\x00", "bzip2": b"BZh91AY", "xz": b"\xfd7zXZ\x00",
    "encrypted": b"-----BEGIN PGP MESSAGE-----", "Salted": b"Salted__abcdefgh", "zeros": bytes(4096),
    "M4A": b"\x00\x00\x00\x20ftypM4A ", "WebM": b"\x1aE\xdf\xa3\x01", "PDF": b"%PDF-1.7", "0 bytes": b"",
}  # fmt: skip


@pytest.mark.parametrize("name", HEADS)
def test_a_foreign_file_is_named(tmp_path, name):
    path = tmp_path / "._x.wav"
    path.write_bytes(HEADS[name])
    words = {"Salted": "encrypted"}.get(name, name)
    assert words in audio_fault(path) and from_samples(str(path)).fault == audio_fault(path)
    for read in (audio_duration, load_audio):
        with pytest.raises(DataError, match=words):
            read(path)


def fifo(path):
    os.mkfifo(path)


def unix_socket(path):
    one = socket.socket(socket.AF_UNIX)
    one.bind(str(path))
    one.close()


def circle(path):
    path.symlink_to(path)


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "make, words",
    [
        (fifo, "a pipe, a socket or a device"), (unix_socket, "a pipe, a socket or a device"),
        (lambda path: path.symlink_to("/dev/zero"), "a pipe, a socket or a device"),
        (lambda path: path.mkdir(), "a folder"), (circle, "symbolic links in a circle"),
    ],
)  # fmt: skip
def test_what_is_no_file_is_refused_and_never_waited_for(tmp_path, monkeypatch, make, words):
    monkeypatch.chdir(tmp_path)  # names of sockets are short
    path = tmp_path / "x.wav"
    make(path if make is not unix_socket else type(path)("x.wav"))
    assert words in audio_fault(path) and words in from_samples(str(path)).fault
    assert words in probe_durations([path])[1][str(path)]
    with pytest.raises(DataError, match="x.wav"):
        load_audio(path)


@pytest.mark.parametrize(
    "path, words",
    [
        ("/a\0b.wav", "NUL"), ("/" + "a/" * 3000 + "b.wav", "name too long"),
        ("/" + "a" * 300, "name too long"),
        ("/etc/passwd/x.wav", "missing"), ("/nowhere/x.wav", "missing"), ("/nowhere/x.tar::y.wav", "missing"),
    ],
)  # fmt: skip
def test_a_path_that_cannot_be_is_a_fault_in_one_line(path, words):
    assert words in audio_fault(path) and words in from_samples(path).fault
    durations, faults = probe_durations([path])
    assert not durations and words in faults[path] and "\n" not in faults[path]
    with pytest.raises(DataError):
        load_audio(path)


def test_a_file_without_the_right_to_it_is_a_fault(tmp_path):
    path = tmp_path / "x.wav"
    soundfile.write(path, np.zeros(100), 16000)
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("root may read everything")
    assert audio_fault(path) == "unreadable file, Permission denied"
    path.chmod(stat.S_IRUSR)


@pytest.mark.timeout(20)
def test_a_label_that_is_a_pipe_is_refused_and_never_waited_for(tmp_path):
    soundfile.write(tmp_path / "x.wav", np.zeros(1600), 16000)
    fifo(tmp_path / "t.csv")
    for name in ("trace", "tree"):
        u = Utterance("u", str(tmp_path / "x.wav"), 0.1, labels={name: str(tmp_path / "t.csv")})
        with pytest.raises(DataError, match="file of a label.*t.csv"):
            write_manifest(tmp_path / "m.csv", [u], tmp_path, {})
    with pytest.raises(FileNotFoundError, match="t.csv is not a file"):
        read_text(tmp_path / "t.csv")
