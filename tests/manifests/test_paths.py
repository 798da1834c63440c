"""Which files a folder holds, and which file a path of a table means."""

import os
import unicodedata

import pytest

from lebench_sb.core.paths import Finder, below, files_below, found_audio, is_junk

NFC, NFD = (unicodedata.normalize(form, "été.wav") for form in ("NFC", "NFD"))
THERE = [
    "clips/a.mp3", "clips/b.wav", "clips/c.wav", "clips/c.flac", "clips/D.WAV", "clips/e.wav", "clips/E.wav",
    "clips/._b.wav", "clips/f.g.wav", f"clips/{NFD}", "Deep/Er/h.flac", "clips/a b.wav", "clips/i.txt",
    "clips/i.wav", "clips/%41.wav", "clips/A.ogg",
]  # fmt: skip
FOUND = {
    "clips/a.mp3": "clips/a.mp3",
    "clips\\a.mp3": "clips/a.mp3",
    ".\\clips\\a.mp3": "clips/a.mp3",
    "./clips/a.mp3": "clips/a.mp3",
    "clips//a.mp3": "clips/a.mp3",
    "clips/../clips/b.wav": "clips/b.wav",
    "clips/b": "clips/b.wav",
    "clips/b.mp3": "clips/b.wav",
    "clips/B.WAV": "clips/b.wav",
    "CLIPS/b.wav": "clips/b.wav",
    "clips/d.wav": "clips/D.WAV",
    "clips/d": "clips/D.WAV",
    "clips/e.wav": "clips/e.wav",
    "clips/E.wav": "clips/E.wav",
    "clips/f.g": "clips/f.g.wav",
    "clips/f.g.mp3": "clips/f.g.wav",
    f"clips/{NFC}": f"clips/{NFD}",
    f"clips/{NFD}": f"clips/{NFD}",
    "deep/er/h.wav": "Deep/Er/h.flac",
    "deep\\ER\\H": "Deep/Er/h.flac",
    "clips/a%20b.wav": "clips/a b.wav",
    "clips/i.mp3": "clips/i.wav",
    "clips/i.txt": "clips/i.txt",
    "clips/%41.wav": "clips/%41.wav",
    "clips/c.wav": "clips/c.wav",
    "clips/c": ["c.flac", "c.wav"],
    "clips/c.mp3": ["c.flac", "c.wav"],
    "clips/E.mp3": ["E.wav", "e.wav"],
    "clips/gone.wav": None,
    "clips/._b.wav": None,
    "clips": None,
    "": None,
    "nowhere/b.wav": None,
    "clips/a.mp3/x.wav": None,
    "clips/f": None,
    "clips/f.wav": None,
    "a\0b.wav": None,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("files")
    for name in THERE:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    if len(os.listdir(root / "clips")) < len(THERE) - 1:
        pytest.skip("this file system ignores letter case or composition")
    return root


@pytest.mark.parametrize("written", FOUND)
@pytest.mark.parametrize("absolute", [False, True])
def test_a_path_means_the_only_file_it_can(folder, written, absolute):
    expected = FOUND[written]
    path, fault = found_audio(folder, str(folder / written) if absolute and written else written)
    if isinstance(expected, str):
        assert (path, fault) == (str(folder / expected), "")
    else:
        assert path is None
        several = f"several files it may be ({', '.join(expected or ())})"
        assert fault == (several if expected else "missing file")


def test_a_stem_in_the_same_case_is_preferred_to_another_case(folder):
    assert found_audio(folder, "clips/a") == (
        None, "several files it may be (A.ogg, a.mp3)"
    )  # fmt: skip
    assert found_audio(folder, "clips/A.mp3")[0] == str(folder / "clips/a.mp3")


def test_folders_are_listed_once(folder, monkeypatch):
    asked = []
    real = os.listdir
    monkeypatch.setattr(os, "listdir", lambda path: asked.append(str(path)) or real(path))
    finder = Finder(folder)
    for written in ["clips/a.mp3", "clips/B.mp3", "clips\\d.wav", "clips/gone"] * 3:
        finder.find(written)
    assert asked.count(str(folder / "clips")) == 1


def test_what_macos_and_windows_leave_is_no_file(tmp_path):
    names = ["b.WAV", "a.wav", "c.txt", "._a.wav", ".DS_Store", "__MACOSX/a.wav", "x/a.wav", "x/._x/y.wav"]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    assert [p.relative_to(tmp_path).as_posix() for p in files_below(tmp_path, (".wav",))] == [
        "a.wav",
        "b.WAV",
        "x/a.wav",
    ]
    assert [p.name for p in files_below(tmp_path)] == ["a.wav", "b.WAV", "c.txt", "a.wav"]
    assert [is_junk(name) for name in ("._a.wav", "_a.wav", ".hidden.wav", "Thumbs.db")] == [
        True,
        False,
        False,
        True,
    ]


def test_the_order_is_that_of_rglob(tmp_path):
    for name in ("b/c.wav", "b.wav", "b/a.wav", "a/z/y.wav", "a-b/c.wav"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    assert files_below(tmp_path) == sorted(p for p in tmp_path.rglob("*") if p.is_file())


def test_a_folder_in_another_case_where_there_is_one(tmp_path):
    (tmp_path / "DATA" / "Train").mkdir(parents=True)
    assert below(tmp_path, "data", "train") == tmp_path / "DATA" / "Train"
    assert below(tmp_path, "data", "dev") == tmp_path / "DATA" / "dev"
    (tmp_path / "Data").mkdir()
    assert below(tmp_path, "data", "train") == tmp_path / "data" / "train"
