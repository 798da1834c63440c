"""Probing, checking and loading agree on the number of samples, whatever a file's header says."""

import struct

import numpy as np
import pytest
import soundfile

from lebench_sb.audio import flac, mpeg
from lebench_sb.audio.extent import extent
from lebench_sb.audio.sound import open_sound
from lebench_sb.audio.verdict import from_header, from_samples
from lebench_sb.core.errors import DataError
from lebench_sb.manifests.durations import audio_duration, probe_durations
from lebench_sb.training.data import load_audio

COUNT, RATE = 24000, 16000
KINDS = {
    "wav": ("WAV", "PCM_16"), "float": ("WAV", "FLOAT"), "wavex": ("WAVEX", "PCM_24"),
    "ulaw": ("WAV", "ULAW"),
    "adpcm": ("WAV", "MS_ADPCM"), "rf64": ("RF64", "PCM_16"), "w64": ("W64", "PCM_16"),
    "aiff": ("AIFF", "PCM_16"), "au": ("AU", "PCM_16"), "caf": ("CAF", "PCM_16"), "sph": ("NIST", "PCM_16"),
    "flac": ("FLAC", "PCM_16"), "flac24": ("FLAC", "PCM_24"), "mp3": ("MP3", "MPEG_LAYER_III"),
    "voc": ("VOC", "PCM_16"), "ogg": ("OGG", "VORBIS"), "opus": ("OGG", "OPUS"),
}  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """{kind: bytes of 1.5 s of a tone in noise}"""
    folder, rng = tmp_path_factory.mktemp("whole"), np.random.default_rng(0)
    wave = 0.3 * np.sin(np.arange(COUNT) * 0.1) + rng.normal(0, 0.02, COUNT)
    found = {}
    for kind, (container, coding) in KINDS.items():
        soundfile.write(folder / kind, wave, RATE, coding, format=container)
        found[kind] = (folder / kind).read_bytes()
    return found


def put(data, place, form, value):
    data = bytearray(data)
    struct.pack_into(form, data, place, value)
    return bytes(data)


def total(data, count):
    """A FLAC whose STREAMINFO says `count` samples"""
    packed = int.from_bytes(data[18:26], "big") >> 36 << 36 | count
    return data[:18] + packed.to_bytes(8, "big") + data[26:]


def place(data, name, offset):
    return data.index(name) + offset


def untagged(data):
    """An MP3 without its Xing tag"""
    return data[mpeg.parsed(int.from_bytes(data[:4], "big"))[0] :]


def agreed(path):
    """The number of samples that probing, checking and loading all say"""
    loaded = len(load_audio(path))
    assert audio_duration(path) == loaded / RATE
    assert from_samples(str(path)).samples == loaded and not from_samples(str(path)).fault
    return loaded


@pytest.mark.parametrize("kind", KINDS)
def test_a_whole_file_is_as_soundfile_reads_it(whole, tmp_path, kind):
    path = tmp_path / "x"
    path.write_bytes(whole[kind])
    assert extent(path).splice is None and from_header(str(path)).samples == agreed(path)
    assert np.array_equal(load_audio(path).numpy(), soundfile.read(path, dtype="float32")[0])


HEADERS = {
    "wav of 0": ("wav", lambda d: put(d, place(d, b"data", 4), "<I", 0)),
    "wav of 0, RIFF of 0": ("wav", lambda d: put(put(d, 4, "<I", 0), place(d, b"data", 4), "<I", 0)),
    "wav of 2**32 - 1": ("wav", lambda d: put(d, place(d, b"data", 4), "<I", 0xFFFFFFFF)),
    "wav of sox": ("wav", lambda d: put(d, place(d, b"data", 4), "<I", 0x7FFFF000)),
    "wav of an older take": ("wav", lambda d: put(d, place(d, b"data", 4), "<I", 2000)),
    "wav with a chunk behind": ("wav", lambda d: d + b"LIST" + struct.pack("<I", 4000) + b"x" * 4000),
    "wav with id3v1": ("wav", lambda d: d + b"TAG" + bytes(125)),
    "wavex of 0": ("wavex", lambda d: put(d, place(d, b"data", 4), "<I", 0)),
    "rf64 of 0": ("rf64", lambda d: put(d, place(d, b"ds64", 16), "<Q", 0)),
    "rf64 of 2**64 - 1": ("rf64", lambda d: put(d, place(d, b"ds64", 16), "<Q", 2**64 - 1)),
    "rf64 of an older take": ("rf64", lambda d: put(d, place(d, b"ds64", 16), "<Q", 2000)),
    "w64 of 0": ("w64", lambda d: put(d, place(d, b"data\xf3", 16), "<Q", 24)),
    "w64 of 2**64 - 1": ("w64", lambda d: put(d, place(d, b"data\xf3", 16), "<Q", 2**64 - 1)),
    "aiff of 0": ("aiff", lambda d: put(put(d, 22, ">I", 0), place(d, b"SSND", 4), ">I", 0)),
    "aiff of an older take": ("aiff", lambda d: put(d, place(d, b"SSND", 4), ">I", 2008)),
    "au of 0": ("au", lambda d: put(d, 8, ">I", 0)),
    "au of 2**32 - 1": ("au", lambda d: put(d, 8, ">I", 0xFFFFFFFF)),
    "caf of -1": ("caf", lambda d: put(d, place(d, b"data", 4), ">q", -1)),
    "caf of 0": ("caf", lambda d: put(d, place(d, b"data", 4), ">q", 4)),
    "flac of 0": ("flac", lambda d: total(d, 0)),
    "flac24 of 0": ("flac24", lambda d: total(d, 0)),
    "flac of an older take": ("flac", lambda d: total(d, 9000)),
    "flac of 0 behind id3": ("flac", lambda d: b"ID3\4\0\0\0\0\1\0" + bytes(128) + total(d, 0)),
    "mp3 of few frames": ("mp3", lambda d: put(d, place(d, b"Xing", 8), ">I", 12)),
    "mp3 of many frames": ("mp3", lambda d: put(d, place(d, b"Xing", 8), ">I", 900)),
    "mp3 with id3": ("mp3", lambda d: b"ID3\4\0\0\0\0\1\0" + bytes(128) + d + b"TAG" + bytes(125)),
}  # fmt: skip


@pytest.mark.parametrize("name", HEADERS)
def test_a_header_that_is_open_old_or_wrong_changes_nothing(whole, tmp_path, name):
    kind, change = HEADERS[name]
    path, good = tmp_path / "x", tmp_path / "good"
    path.write_bytes(change(whole[kind]))
    good.write_bytes(whole[kind])
    assert agreed(path) == from_header(str(path)).samples == COUNT
    assert np.abs(load_audio(path).numpy() - load_audio(good).numpy()).max() < 1e-6
    assert np.abs(load_audio(path, 0.5, 1.0).numpy() - load_audio(good).numpy()[8000:16000]).max() < 1e-6


def test_a_variable_rate_mp3_without_a_tag_is_heard_to_its_end(whole, tmp_path):
    """libsndfile takes the first frame's bit rate for all"""
    path = tmp_path / "x.mp3"
    path.write_bytes(untagged(whole["mp3"]) * 2)
    assert len(soundfile.read(path)[0]) < 2 * COUNT - 4000
    assert abs(agreed(path) - 2 * COUNT) < 3000


@pytest.mark.parametrize("share", [0.5, 0.93])
@pytest.mark.parametrize("kind", KINDS)
def test_a_file_cut_short_is_a_fault_that_counts_samples(whole, tmp_path, kind, share):
    path = tmp_path / "x"
    path.write_bytes(whole[kind][: int(share * len(whole[kind]))])
    words = "page of Ogg" if kind in ("ogg", "opus") else r"\d+ of \d+ (samples|bytes)"
    for read in (audio_duration, load_audio):
        with pytest.raises(DataError, match=f"cut short: .*{words}"):
            read(path)
    assert (
        "cut short" in from_header(str(path)).fault and "cut short" in probe_durations([path])[1][str(path)]
    )


def test_flac_of_open_length_that_is_cut_short_is_a_fault(whole, tmp_path):
    path = tmp_path / "x.flac"
    path.write_bytes(total(whole["flac"], 0)[:-100])
    with pytest.raises(DataError, match=r"cut short: after \d+ samples, inside a frame"):
        audio_duration(path)


def test_a_stretch_of_a_file_cut_short_is_read_where_it_is_whole(whole, tmp_path):
    path = tmp_path / "x.wav"
    path.write_bytes(whole["wav"][: 44 + 2 * 16000])
    assert len(load_audio(path, 0.25, 0.75)) == 8000
    with pytest.raises(DataError, match="ends at 1.400 s, but it lasts 1.000 s, cut short: 16000 of 24000"):
        load_audio(path, 0.5, 1.4)
    assert len(load_audio(path, 0.5, 1.05)) == 8000  # less than 0.1 s after the end: clipped


@pytest.mark.parametrize(
    "data", [b"", b"RIFF\0\0\0\0WAVE", b"fLaC", b"OggS", b"\xff\xfb\x90\x00", b".snd", b"caff"]
)
@pytest.mark.parametrize("tail", [b"", b"\0" * 70, b"\xff" * 300])
def test_scraps_are_faults_in_words(tmp_path, data, tail):
    path = tmp_path / "x.wav"
    path.write_bytes(data + tail)
    for read in (audio_duration, load_audio):
        with pytest.raises(DataError, match="x.wav"):
            read(path)


def test_any_bytes_of_a_header_are_answered_in_words(whole, tmp_path):
    """Headers with wrong bytes are read or refused, never a traceback of ours"""
    rng, path = np.random.default_rng(1), tmp_path / "x"
    refused = 0
    for kind in KINDS:
        for _ in range(10):
            data = bytearray(whole[kind][:6000])
            for at in rng.integers(0, 120, 4).tolist():
                data[at] = int(rng.integers(0, 256))
            path.write_bytes(data)
            extent.__globals__["_extent"].cache_clear()
            refused += bool(from_samples(str(path)).fault)
    assert refused > 50


def test_the_frames_of_flac_are_found_from_the_end(whole):
    assert flac.crc8(b"123456789") == 0xF4 and flac.crc16(b"123456789") == 0xFEE8
    frames = flac.candidates(whole["flac"], int.from_bytes(whole["flac"][10:12], "big"))
    assert frames[0][1] + frames[0][2] == COUNT


def test_a_sound_reads_no_more_than_there_is(whole, tmp_path):
    path = tmp_path / "x.flac"
    path.write_bytes(total(whole["flac"], 0))
    with open_sound(path) as sound:
        assert sound.read(23000).shape == (1000, 1) and sound.read(30000).shape == (0, 1)
        assert sound.read(0, 10).shape == (10, 1)
