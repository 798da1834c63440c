"""The miniature as built: same bytes whatever the workers and kills, the corpora's layouts, the command."""

import csv
import hashlib
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import soundfile

from lebench_sb.corpora.miniature import acoustics, build, layout_mls, voices
from lebench_sb.corpora.miniature.build import build_miniature
from lebench_sb.corpora.miniature.speakers import speakers

SCALE = 0.004
COMMAND = [sys.executable, "-m", "lebench_sb.corpora.miniature", "--scale", str(SCALE)]


def engines():
    pytest.importorskip("espeakng_loader")
    pytest.importorskip("py_nanotts")


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    engines()
    folder = tmp_path_factory.mktemp("miniature")
    summary = build_miniature(folder, seed=0, scale=SCALE, workers=1)
    return folder, summary


def hashes(folder):
    """{path: sha256} of everything but the build's own notes."""
    files = [path for path in folder.rglob("*") if path.is_file() and ".build" not in path.parts]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_two_workers_write_the_bytes_of_one(built, tmp_path):
    build_miniature(tmp_path, seed=0, scale=SCALE, workers=2)
    assert hashes(tmp_path) == hashes(built[0])


def test_an_interrupted_build_goes_on_to_the_same_bytes(built, tmp_path, monkeypatch):
    spoken = []

    def speak_three(chunk, speak=build._speak_chunk):
        if len(spoken) == 3:
            raise KeyboardInterrupt
        spoken.append(chunk["marker"])
        speak(chunk)

    monkeypatch.setattr(build, "_speak_chunk", speak_three)
    with pytest.raises(KeyboardInterrupt):
        build_miniature(tmp_path, scale=SCALE, workers=1)
    assert not (tmp_path / build.MARKER).exists()
    monkeypatch.undo()
    # a clip half written, as a kill leaves it
    next(tmp_path.rglob("*.mp3"), tmp_path / "x").with_name("left.mp3.123.tmp").write_bytes(b"half")
    build_miniature(tmp_path, scale=SCALE, workers=1)
    whole = hashes(tmp_path)
    assert {path: digest for path, digest in whole.items() if not path.endswith(".tmp")} == hashes(built[0])


@pytest.mark.slow
def test_killed_builds_go_on_to_the_same_bytes(built, tmp_path):
    for _ in range(3):
        process = subprocess.Popen(
            [*COMMAND, "--output", str(tmp_path), "--workers", "2"], start_new_session=True
        )
        time.sleep(3)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    subprocess.run([*COMMAND, "--output", str(tmp_path)], check=True)
    whole = hashes(tmp_path)
    assert {path: digest for path, digest in whole.items() if not path.endswith(".tmp")} == hashes(built[0])


def test_a_finished_build_is_reused_and_another_seed_refused(built, monkeypatch):
    folder, summary = built
    monkeypatch.setattr(build, "_speak", lambda *_: pytest.fail("spoke again"))
    assert build_miniature(folder, seed=0, scale=SCALE) == summary | {"reused": True}
    with pytest.raises(ValueError, match="choose another folder"):
        build_miniature(folder, seed=1, scale=SCALE)


def test_clips_last_what_the_tables_say(built):
    folder, summary = built
    with open(folder / "fr" / "clip_durations.tsv", encoding="utf-8") as file:
        listed = {
            row["clip"]: int(row["duration[ms]"]) / 1000 for row in csv.DictReader(file, delimiter="\t")
        }
    clips = sorted((folder / "fr" / "clips").glob("*.mp3"))
    assert {clip.name for clip in clips} == set(listed)
    for clip in clips:
        wave, rate = soundfile.read(clip)
        assert (
            rate == 16000
            and abs(len(wave) / rate - listed[clip.name]) < 0.002
            and 1 <= len(wave) / rate <= 10
        )
        assert 0.01 < np.sqrt(np.mean(wave**2)) < 0.2
    for split in ("train", "dev", "test"):
        for line in (folder / "mls_french" / split / "segments.txt").read_text().splitlines():
            name, _, start, end = line.split("\t")
            speaker, book, _ = name.split("_")
            info = soundfile.info(folder / "mls_french" / split / "audio" / speaker / book / f"{name}.flac")
            assert info.duration == pytest.approx(float(end) - float(start), abs=1e-6)
            assert 1 <= info.duration <= 15 and info.samplerate == 16000
    assert summary["utterances"] == len(clips) + len(list(folder.rglob("*.flac")))


def test_no_speaker_or_book_number_is_shared():
    from lebench_sb.corpora.miniature import texts

    clips = [clip for clip in texts.clips(0, 1.0) if clip.corpus == "mls"]
    numbers = {clip.speaker.name: layout_mls.identity(clip).split("_")[0] for clip in clips}
    assert len(set(numbers.values())) == len(numbers)


def test_command_prints_a_summary_and_reuses(built):
    command = [*COMMAND, "--output", str(built[0])]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0 and "reused" in done.stdout and "voices" in done.stdout
    done = subprocess.run([*command, "--seed", "7"], capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "choose another folder" in done.stderr


def test_without_the_engines_one_line_says_what_to_install(tmp_path, monkeypatch, capsys):
    from lebench_sb.corpora.miniature.__main__ import main

    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    with pytest.raises(SystemExit) as stop:
        main(["--output", str(tmp_path / "data"), "--scale", "0.01"])
    assert stop.value.code == 1
    assert (
        capsys.readouterr().err == f"error: {voices.INSTALL}\n"
        and "pip install 'lebench_sb[demo]'" in voices.INSTALL
    )


def test_pico_does_not_hear_what_it_said_before(tmp_path):
    engines()
    person = [speaker for speaker in speakers("mls", "train", 0) if speaker.engine == "pico"][0].as_dict()
    heard = set()
    for number, before in enumerate(
        ["Oui.", "Le train part à huit heures et demie.", "Qui a mangé la pomme ?"]
    ):
        clip = tmp_path / str(number) / "clip.flac"
        clip.parent.mkdir()
        sentence = [{"text": "La boulangère vend une tarte."}]
        said = [[str(clip.with_name("first.flac")), [{"text": before}]], [str(clip), sentence]]
        chunk = {"seed": 0, "corpus": "mls", "speaker": person, "clips": said, "key": "k"}
        build._speak_chunk(chunk | {"marker": str(clip.with_name("chunk.json"))})
        heard.add(clip.read_bytes())
    assert len(heard) == 1


def test_a_failing_chunk_is_named(tmp_path):
    engines()
    person = speakers("mls", "test", 0)[0].as_dict() | {"variant": "nobody"}
    said = [[str(tmp_path / "a.flac"), [{"text": "Oui."}]]]
    chunk = {"seed": 0, "corpus": "mls", "speaker": person, "clips": said, "key": "k"}
    chunk["marker"] = str(tmp_path / "chunk.json")
    with pytest.raises(RuntimeError, match=r"chunk\.json.*fr\+nobody"):
        build._speak_chunk(chunk)
    assert not list(tmp_path.iterdir())


def test_speaker_voice_and_session_are_fixed(built):
    first = [speaker.as_dict() for speaker in speakers("commonvoice", "test", 0)]
    assert first == [speaker.as_dict() for speaker in speakers("commonvoice", "test", 0)]
    assert len({json.dumps(speaker) for speaker in first}) == len(first)


@pytest.mark.parametrize("kind", ["white", "pink", "babble", "hum"])
def test_noise_has_the_ratio_asked_for(kind):
    rng = np.random.default_rng(0)
    time_axis = np.arange(2 * acoustics.RATE) / acoustics.RATE
    clean = np.sin(2 * np.pi * 440 * time_axis)

    class Session:
        noise, snr, rt60, tilt, level = kind, 15.0, 0.1, 0.0, -25.0

    noisy = acoustics.recorded(clean, Session, np.random.default_rng(1))[0] / 32767
    assert 20 * np.log10(np.sqrt(np.mean(noisy**2))) == pytest.approx(-25, abs=0.1)
    # what is no longer the 440 Hz tone (two seconds, 0.12 s of silence at each end) is noise
    spectrum = np.abs(np.fft.rfft(noisy[2000:-2000] * np.hanning(len(noisy) - 4000))) ** 2
    frequencies = np.fft.rfftfreq(len(noisy) - 4000, 1 / acoustics.RATE)
    tone = np.abs(frequencies - 440) < 6
    assert 10 * np.log10(spectrum[tone].sum() / spectrum[~tone].sum()) == pytest.approx(15, abs=2)
    assert acoustics.noise(kind, 1000, rng).shape == (1000,)


def test_reverberation_decays_as_asked():
    pulse = np.zeros(acoustics.RATE)
    pulse[0] = 1
    tail = acoustics.reverberated(pulse, 0.3, np.random.default_rng(0))
    decibels = [10 * np.log10(np.mean(tail[start : start + 800] ** 2)) for start in (800, 2400)]
    assert decibels[0] - decibels[1] == pytest.approx(60 * 0.1 / 0.3, abs=2)
    assert len(tail) == len(pulse)
