"""Markers: what is prepared stays so until something changes, and nobody else's file is touched."""

import json
import logging
import os
import re
import shutil

import pytest
import soundfile

from lebench_sb.core.errors import DataError, Problems, UsageError
from lebench_sb.manifests import markers
from lebench_sb.manifests.markers import (
    LeftOut,
    is_prepared,
    marker_path,
    prepared,
    read_marker,
    remove_marked,
)
from lebench_sb.manifests.reading import read_manifest
from lebench_sb.manifests.utterance import Utterance
from lebench_sb.manifests.writing import write_manifest

PARAMETERS = {"corpus": "x", "seed": 1}


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    for name in "abc":
        soundfile.write(folder / f"{name}.wav", [0.1] * 1600, 16000)
    return folder


def write(path, root, words="oui", names="abc", **options):
    found = [Utterance(name, str(root / f"{name}.wav"), 0.1, labels={"wrd": words}) for name in names]
    return write_manifest(path, found, root, PARAMETERS, **options)


def somebodys_table(path, root):
    path.write_text("ID,duration,wav\nmine,1.0,x.wav\n")


def edited(path, root):
    write(path, root)
    path.write_text(path.read_text().replace("oui", "ouï"))


def without_marker(path, root):
    write(path, root)
    marker_path(path).unlink()


def dangling_link(path, root):
    path.symlink_to("nowhere.csv")


def a_folder(path, root):
    path.mkdir()


def marker_of_something_else(path, root):
    marker_path(path).write_text('{"tasks": "done"}')


FOREIGN = [somebodys_table, edited, without_marker, dangling_link, a_folder, marker_of_something_else]


@pytest.mark.parametrize("there", FOREIGN)
@pytest.mark.parametrize("attempt", ["write", "prepared", "remove"])
def test_what_we_did_not_make_is_neither_replaced_nor_deleted(root, tmp_path, there, attempt):
    path = tmp_path / "m.csv"
    there(path, root)
    before = {p: p.read_bytes() for p in tmp_path.iterdir() if p.is_file()}
    attempts = {
        "write": lambda: write(path, root, "non"),
        "prepared": lambda: prepared({"train": tmp_path / "other.csv", "test": path}, PARAMETERS),
        "remove": lambda: remove_marked(path),
    }
    if attempt == "remove" and not read_marker(path):
        attempts[attempt]()  # nothing of ours: nothing to remove
    else:
        with pytest.raises(UsageError, match=r"m\.csv.* Give another folder, or move or delete it"):
            attempts[attempt]()
    assert before == {p: p.read_bytes() for p in tmp_path.iterdir() if p.is_file()}


def test_our_own_manifest_is_replaced_and_the_same_bytes_are_no_loss(root, tmp_path):
    path = tmp_path / "m.csv"
    write(path, root)
    write(path, root, "non")
    marker_path(path).unlink()
    write(path, root, "non")
    assert is_prepared(path, PARAMETERS)
    remove_marked(path)
    assert [p.name for p in tmp_path.iterdir()] == ["data"]


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("killed_at", [1, 2, 3])
@pytest.mark.parametrize("after", [True, False], ids=["after the write", "before the write"])
def test_a_preparation_killed_at_any_write_goes_on(root, tmp_path, monkeypatch, first, killed_at, after):
    path, number, real = tmp_path / "m.csv", [0], markers.write_atomically
    if not first:
        write(path, root, "oui")

    def killed(*arguments):
        number[0] += 1
        if number[0] == killed_at and not after:
            raise KeyboardInterrupt
        real(*arguments)
        if number[0] == killed_at:
            raise KeyboardInterrupt

    monkeypatch.setattr(markers, "write_atomically", killed)
    with pytest.raises(KeyboardInterrupt):
        write(path, root, "non")
    monkeypatch.undo()
    if is_prepared(path, PARAMETERS):  # then it is whole: the old one, or the new one
        whole = "oui" if killed_at == 1 else "non"
        assert {u.labels["wrd"] for u in read_manifest(path, root)} == {whole}
    prepared({"train": path}, PARAMETERS)
    write(path, root, "peut être")
    assert is_prepared(path, PARAMETERS)


def replaced(root):
    soundfile.write(root / "b.wav", [0.1] * 3200, 16000)


def other_samples_of_the_same_size(root):
    soundfile.write(root / "b.wav", [0.2] * 1600, 16000)


def an_older_file_of_the_same_name(root):
    soundfile.write(root / "b.wav", [0.2] * 1600, 16000)
    os.utime(root / "b.wav", ns=(1, 1))


def removed(root):
    (root / "b.wav").unlink()


CHANGES = {
    replaced: r"have changed since, 1 of 3 \(b\.wav\)",
    other_samples_of_the_same_size: r"have changed since, 1 of 3 \(b\.wav\)",
    an_older_file_of_the_same_name: r"have changed since, 1 of 3 \(b\.wav\)",
    removed: r"1 of 3 files are no longer there: b\.wav",
}


@pytest.mark.parametrize("change", CHANGES)
def test_audio_that_changed_under_its_manifest_is_prepared_again(root, tmp_path, caplog, change):
    path = tmp_path / "m.csv"
    write(path, root)
    assert is_prepared(path, PARAMETERS) and is_prepared(path, PARAMETERS, root)
    before = os.stat(root / "b.wav").st_mtime_ns
    change(root)
    if change is not removed and os.stat(root / "b.wav").st_mtime_ns == before:
        os.utime(root / "b.wav")
    with caplog.at_level(logging.WARNING):
        assert not is_prepared(path, PARAMETERS)
    (record,) = caplog.records
    assert re.search(f"^{re.escape(str(path))} is prepared again: .*{CHANGES[change]}", record.getMessage())


def test_files_of_labels_and_shards_count_as_audio_does(root, tmp_path):
    trace, path = root / "a.csv", tmp_path / "m.csv"
    trace.write_text("1")
    write_manifest(
        path, [Utterance("a", str(root / "a.wav"), 0.1, labels={"trace": str(trace)})], root, PARAMETERS
    )
    assert read_marker(path)["audio"]["files"] == 2
    trace.write_text("12")
    assert not is_prepared(path, PARAMETERS)
    assert markers.files_in(["$data_root/s.tar::a.wav", "$data_root/s.tar::b.wav", "a tree"]) == ["s.tar"]


def test_data_that_moved_whole_are_still_prepared_and_a_second_copy_is_looked_at(root, tmp_path):
    path = tmp_path / "m.csv"
    write(path, root)
    copy = tmp_path / "copy"
    shutil.copytree(root, copy)  # keeps the times
    assert is_prepared(path, PARAMETERS, copy)
    soundfile.write(copy / "a.wav", [0.1] * 800, 16000)
    assert not is_prepared(path, PARAMETERS, copy) and is_prepared(path, PARAMETERS, root)


def test_a_marker_of_an_older_version_is_prepared_again_once(root, tmp_path, caplog):
    path = tmp_path / "m.csv"
    write(path, root)
    marker = json.loads(marker_path(path).read_text())
    marker_path(path).write_text(json.dumps({k: v for k, v in marker.items() if k != "audio"}))
    assert not is_prepared(path, PARAMETERS) and "older version" in caplog.text
    write(path, root)
    assert is_prepared(path, PARAMETERS)


def test_many_files_are_asked_for_in_their_order(tmp_path):
    names = [f"{number:04d}" for number in range(900)]
    for name in names[::2]:
        (tmp_path / name).write_text(name)
    states = markers.file_states(names, tmp_path)
    assert list(states) == names
    assert [states[name] is None for name in names] == [number % 2 == 1 for number in range(900)]


def bad_audio(root, count, content=b""):
    found = []
    for number in range(count):
        path = root / f"{number:03d}.wav"
        shutil.copy(root / "a.wav", path)
        found.append(Utterance(path.stem, str(path), 0.1))
    (root / "000.wav").write_bytes(content)
    return found


@pytest.mark.parametrize("content, reason", [(b"", "0 bytes"), (b"<html>", "HTML"), (None, "missing file")])
@pytest.mark.parametrize("split, count", [("train", 100), ("train", 99), ("valid", 100), ("test", 100)])
def test_one_in_a_hundred_clips_of_train_may_be_no_audio(root, tmp_path, split, count, content, reason):
    found, path = bad_audio(root, count, content or b""), tmp_path / f"{split}.csv"
    if content is None:
        (root / "000.wav").unlink()
    left_out = LeftOut(split)
    if split == "train" and count == 100 and content is not None:
        marker = write_manifest(path, found, root, PARAMETERS, dropped=left_out)
        assert marker["utterances"] == 99 and list(marker["dropped"].values()) == [1]
        assert reason in next(iter(marker["dropped"]))
        return
    with pytest.raises(DataError, match=reason):
        write_manifest(path, found, root, PARAMETERS, dropped=left_out)
    assert not path.exists() and not left_out


def test_the_hundredth_part_is_one_for_all_reasons():
    left_out, problems = LeftOut("train"), Problems("x")
    assert left_out.spare([("a", 1)], 200, problems) and left_out.spare([("b", 2)], 200, problems)
    assert not left_out.spare([("c", 3)], 200, problems)
    assert problems.found == {"c": ["3"]} and left_out == {"a": 1, "b": 1}
