"""Audio in tar shards: the same samples as from files, and every damage named."""

import errno
import io
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import tarfile
import time
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch

from lebench_sb import cli
from lebench_sb.audio import members
from lebench_sb.core.errors import DataError, UsageError
from lebench_sb.manifests import shards
from lebench_sb.manifests.commands import validate
from lebench_sb.manifests.durations import audio_duration
from lebench_sb.manifests.markers import read_marker
from lebench_sb.manifests.reading import read_manifest
from lebench_sb.manifests.shards import make_shards, size_in_bytes
from lebench_sb.manifests.utterance import Utterance
from lebench_sb.manifests.writing import write_manifest
from lebench_sb.training.data import (
    EpochPlan,
    PlannedLoader,
    as_dataset,
    audio_item,
    cropped_audio_item,
    load_audio,
)

SUFFIXES = ("flac", "wav", "mp3", "ogg")


@pytest.fixture(autouse=True)
def forget_shards():
    """Shards that a test damages are opened anew"""
    members.opened.cache_clear()


@pytest.fixture
def files(tmp_path):
    """Folder with a.csv (8 clips of four formats), b.csv (segments of one of them and of a long recording)"""
    rng = np.random.default_rng(0)
    folder = tmp_path / "files"
    (folder / "clips/été").mkdir(parents=True)
    one, other = [], []
    for k in range(8):
        path = folder / "clips/été" / f"{k}.{SUFFIXES[k % 4]}"
        soundfile.write(path, rng.uniform(-0.5, 0.5, 8000 + 800 * k), 16000)
        (folder / "t.csv").write_text("time,value\n0,1\n")
        labels = {"wrd": f"oui, {k}", "trace": str(folder / "t.csv")}
        one.append(
            Utterance(f"a{k}", str(path), audio_duration(path), None, None, f"s{k}", "F", "fr", labels)
        )
    soundfile.write(folder / "long.wav", rng.uniform(-0.5, 0.5, 20 * 16000), 16000)
    for k, (wav, start) in enumerate([("long.wav", 2.5), ("long.wav", 11.0), ("clips/été/0.flac", 0.1)]):
        other.append(Utterance(f"b{k}", str(folder / wav), 0.25, start, start + 0.25))
    write_manifest(folder / "a.csv", one, folder, {}, dropped={"too long": 2}, caveats=["synthetic speech"])
    write_manifest(folder / "b.csv", other, folder, {})
    return folder


@pytest.fixture
def packed(files, tmp_path):
    """The same in shards of at most 60 kB"""
    make_shards([files / "a.csv", files / "b.csv"], files, tmp_path / "packed", "60KB")
    return tmp_path / "packed"


def pairs(files, packed):
    """Utterances of the files and of the shards, pair by pair"""
    names = ("a.csv", "b.csv")
    before, after = ([u for n in names for u in read_manifest(f / n, f)] for f in (files, packed))
    return list(zip(before, after, strict=True))


def test_manifests_point_into_shards_that_tar_unpacks(files, packed, tmp_path):
    assert len(list(packed.glob("shard-*.tar"))) == 3
    assert (packed / "a.csv").read_text(encoding="utf-8").count("$data_root/shard-0000") == 8
    assert not list(packed.glob("*.tmp"))
    for path in packed.glob("*.tar"):
        subprocess.run(["tar", "xf", path, "-C", tmp_path], check=True)
    for old, new in pairs(files, packed):
        assert new.wav.startswith(str(packed)) and new.wav.endswith("::" + old.wav[len(str(files)) + 1 :])
        assert (old.id, old.duration, old.start, old.speaker) == (
            new.id,
            new.duration,
            new.start,
            new.speaker,
        )
        unpacked = tmp_path / old.wav[len(str(files)) + 1 :]
        assert unpacked.read_bytes() == open(old.wav, "rb").read()
    marker = read_marker(packed / "a.csv")
    assert marker["dropped"] == {"too long": 2} and marker["caveats"] == ["synthetic speech"]
    trace = read_manifest(packed / "a.csv", packed)[0].labels["trace"]
    assert trace == str(packed / "t.csv") and os.path.getsize(trace)


def test_members_sound_like_files_bit_for_bit(files, packed):
    for old, new in pairs(files, packed):
        for start, stop in ((old.start, old.stop), (None, None), (0.05, 0.4), (0.3, None)):
            assert torch.equal(load_audio(old.wav, start, stop), load_audio(new.wav, start, stop))
        assert audio_duration(old.wav) == audio_duration(new.wav)


def test_a_tar_of_another_program_is_read_without_index(files, tmp_path):
    for name, options in (("gnu.tar", ["--format=gnu"]), ("pax.tar", ["--format=pax"])):
        subprocess.run(["tar", "cf", tmp_path / name, "-C", files, *options, "."], check=True)
        with tarfile.open(tmp_path / name, "a") as tar:
            tar.add(files / "long.wav", "x" * 90 + "/" + "y" * 90 + ".wav")
        old = load_audio(files / "clips/été/1.wav")
        assert torch.equal(load_audio(f"{tmp_path / name}::clips/été/1.wav"), old)
        long = f"{tmp_path / name}::{'x' * 90}/{'y' * 90}.wav"
        assert torch.equal(load_audio(long, 3.0, 4.0), load_audio(files / "long.wav", 3.0, 4.0))
    subprocess.run(["tar", "czf", tmp_path / "z.tar", "-C", files, "."], check=True)
    with pytest.raises(DataError, match=r"z.tar::long.wav.*no uncompressed tar"):
        load_audio(f"{tmp_path / 'z.tar'}::long.wav")


def test_a_crop_of_a_long_recording_reads_a_small_part_of_it(files, packed, monkeypatch):
    """Bytes asked of the system for 0.25 s (8,000 bytes) out of 20 s"""
    read = []
    for name in ("pread", "preadv"):
        real = getattr(os, name)

        def counted(*words, real=real):
            got = real(*words)
            read.append(got if isinstance(got, int) else len(got))
            return got

        monkeypatch.setattr(os, name, counted)
    old, new = pairs(files, packed)[8]
    assert (old.start, os.path.getsize(old.wav)) == (2.5, 640044)
    load_audio(new.wav, new.start, new.stop)
    assert 8000 <= sum(read) < 64000
    read.clear()
    load_audio(new.wav)
    assert sum(read) >= 640044


@pytest.mark.skipif(not os.path.exists("/proc/self/io"), reason="the kernel counts what is read")
@pytest.mark.parametrize("suffix", ["wav", "flac"])
def test_a_crop_of_a_long_file_is_read_by_seeking(tmp_path, suffix):
    def read():
        with open("/proc/self/io") as file:
            return int(file.readline().split()[1])

    path = tmp_path / f"long.{suffix}"
    soundfile.write(path, np.random.default_rng(0).uniform(-0.5, 0.5, 16000 * 300), 16000)
    begun = read()
    item = cropped_audio_item(3, 2.0, lambda sig: sig)
    u = Utterance("u", str(path), 300.0)
    assert len(as_dataset([u], [item], ["sig"])[0]["sig"]) == 32000
    assert read() - begun < 0.1 * os.path.getsize(path)
    begun = read()
    load_audio(path)
    assert read() - begun >= os.path.getsize(path)


def test_stats_and_validate_work_on_shards(files, packed, capsys):
    assert cli.run(["stats", str(packed / "a.csv")]) == 0
    table = capsys.readouterr().out
    cli.run(["stats", str(files / "a.csv")])
    assert table.splitlines()[-1].split("|")[2:] == capsys.readouterr().out.splitlines()[-1].split("|")[2:]
    for decode in (False, True):
        errors, _ = validate([packed / "a.csv", packed / "b.csv"], packed, decode)
        assert not errors


def wavs_of(dataset, queue):
    queue.put([dataset[k]["sig"].numpy() for k in (3, 0, 9, 7)])


@pytest.mark.parametrize("method", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_several_processes_read_one_shard(files, packed, method):
    dataset = as_dataset([new for _, new in pairs(files, packed)], [audio_item], ["sig"])
    expected = [dataset[k]["sig"].numpy() for k in (3, 0, 9, 7)]
    context = multiprocessing.get_context(method)
    queue = context.Queue()
    workers = [context.Process(target=wavs_of, args=(dataset, queue)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for _ in workers:
        found = queue.get(timeout=90)
        assert all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))
    for worker in workers:
        worker.join()


def test_a_resumed_loader_gives_the_rest_of_the_batches_of_files(files, packed):
    found = []
    for utterances in zip(*pairs(files, packed), strict=True):
        item = cropped_audio_item(0, 0.5, torch.clone)
        dataset = as_dataset(utterances, [item], ["sig"])
        loader = PlannedLoader(dataset, EpochPlan(dataset.durations, 1.2, 0), num_workers=2)
        whole = [(batch.id, batch.sig.data) for batch in loader.batches(2)]
        rest = [(batch.id, batch.sig.data) for batch in loader.batches(2, start=2)]
        assert len(whole) > 3 and len(rest) == len(whole) - 2
        found += [whole[2:], rest]
    for other in found[1:]:
        assert all(a == c and torch.equal(b, d) for (a, b), (c, d) in zip(found[0], other, strict=True))


# ---- damage


def first_of(packed):
    """(utterance, its shard, first byte, bytes)"""
    u = read_manifest(packed / "a.csv", packed)[1]
    path, name = members.inside(u.wav)
    first, size, _ = members.opened(path).place(name, u.wav)
    members.opened.cache_clear()
    return u, path, first, size


def damage(path, change):
    data = bytearray(open(path, "rb").read())
    change(data)
    open(path, "wb").write(data)


def cut_short(packed):
    _, path, first, size = first_of(packed)
    os.truncate(path, first + size // 2)


def flip(packed):
    _, path, first, size = first_of(packed)
    damage(path, lambda data: data.__setitem__(first + size // 2, data[first + size // 2] ^ 1))


def move(packed):
    _, path, first, _ = first_of(packed)
    damage(path, lambda data: data.__setitem__(slice(first - 512, first - 412), bytes(100)))


def lose_shard(packed):
    os.remove(first_of(packed)[1])


def cut_index(packed):
    path = f"{first_of(packed)[1]}.index"
    os.truncate(path, os.path.getsize(path) - 3)


@pytest.mark.parametrize(
    "fault, words",
    [
        (cut_short, "cut short or another file"), (flip, "CRC-32"), (move, "holds something else"),
        (lose_shard, "No such file"), (cut_index, "no index of a shard"),
    ],
)  # fmt: skip
def test_a_damaged_shard_is_named_with_its_member(packed, fault, words):
    u = first_of(packed)[0]
    fault(packed)
    with pytest.raises(DataError, match=words) as caught:
        load_audio(u.wav)
    assert u.wav in str(caught.value) and "shard-0000" in u.wav and "::clips/été/1.wav" in u.wav
    errors, _ = validate([packed / "a.csv"], packed, decode=True)
    assert any(u.wav in item for items in errors.found.values() for item in items)


def test_a_member_that_is_not_there_is_named(packed):
    u = read_manifest(packed / "a.csv", packed)[0]
    with pytest.raises(DataError, match="no such member in the shard"):
        load_audio(u.wav + "x")
    with pytest.raises(DataError, match="missing file.*shard"):
        write_manifest(packed / "c.csv", [Utterance("c", u.wav + "x", 1.0)], packed, {})


def test_an_error_of_the_disk_inside_a_crop_is_told(packed, monkeypatch):
    u = read_manifest(packed / "b.csv", packed)[0]

    def broken(*_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "preadv", broken)
    with pytest.raises(DataError, match="Input/output error"):
        load_audio(u.wav, u.start, u.stop)


# ---- the command


def test_the_command_makes_shards_once(files, tmp_path, capsys):
    words = ["shard", files / "a.csv", files / "b.csv", "--data_root", files, "--output", tmp_path / "p"]
    words = [str(word) for word in (*words, "--size", "0.1MB")]
    assert cli.run(words) == 0 and "shards" in capsys.readouterr().out
    made = {
        path.name: path.stat().st_mtime_ns for path in (tmp_path / "p").iterdir() if path.suffix == ".tar"
    }
    assert cli.run(words) == 0
    assert made == {
        path.name: (tmp_path / "p" / path.name).stat().st_mtime_ns for path in (tmp_path / "p").glob("*.tar")
    }
    assert cli.run([*words[:-1], "0.2MB"]) == 2
    assert "holds shards of other files or another --size" in capsys.readouterr().err
    assert cli.run([*words[:-3], str(files)]) == 2


@pytest.mark.parametrize("size", ["4", "0GB", "-1MB", "GB", "4 parsec", "nan GB"])
def test_a_size_that_is_none_is_a_usage_mistake(size):
    with pytest.raises(UsageError, match="write a number of KB, MB, GB or TB"):
        size_in_bytes(size)
    assert size_in_bytes("1.5 gb") == 1_500_000_000


def test_what_cannot_be_packed_is_refused_before_a_byte_is_written(files, packed, tmp_path, monkeypatch):
    with pytest.raises(DataError, match="in a shard already"):
        make_shards([packed / "a.csv"], packed, tmp_path / "p")
    with pytest.raises(UsageError, match="holds a.csv itself"):
        make_shards([files / "a.csv"], files, files)
    (tmp_path / "full").mkdir()
    (tmp_path / "full/thesis.doc").write_text("mine")
    with pytest.raises(UsageError, match="is not empty, it holds thesis.doc"):
        make_shards([files / "a.csv"], files, tmp_path / "full")
    monkeypatch.setattr(shards.shutil, "disk_usage", lambda _: Usage)
    with pytest.raises(UsageError, match="GB free on its disk"):
        make_shards([files / "a.csv"], files, tmp_path / "small")
    os.remove(files / "long.wav")
    with pytest.raises(DataError, match=r"missing file \(1\): .*long.wav"):
        make_shards([files / "b.csv"], files, tmp_path / "p")
    assert not (tmp_path / "p").exists() and not list((tmp_path / "full").glob("*.tar"))


def labelled(files, **labels):
    """A manifest of one clip with these labels, as written by hand"""
    path = files / "l.csv"
    names = ",".join(labels)
    header = f"ID,duration,wav,start,stop,spk_id,gender,language,{names}"
    path.write_text(f"{header}\nl,0.5,$data_root/clips/été/1.wav,,,,U,fr,{','.join(labels.values())}\n")
    return path


@pytest.mark.parametrize(
    "name, value, words",
    [
        ("trace", "$data_root/../secret", "leaves data_root"),
        ("tree", "$data_root/../secret", "leaves data_root"),
        ("trace", "$data_root/no.csv", "missing file of trace"),
        ("trace", "$data_root/link.csv", "link that leads out of data_root"),
        ("tree", "link/secret#s1", "link that leads out of data_root"),
        ("trace", "$data_root/shards.json", "name of a file of ours"),
        ("trace", "$data_root/l.csv", "name of a file of ours"),
        ("tree", "$data_root/shard-00000.tar", "name of a file of ours"),
        ("trace", "$data_root/out/t.csv", "is a link out of"),
    ],
)
def test_a_label_neither_leads_out_nor_overwrites(files, tmp_path, name, value, words):
    (tmp_path / "secret").write_text("secret")
    (files / "link.csv").symlink_to(tmp_path / "secret")
    (files / "link").symlink_to(tmp_path)
    for made in ("shards.json", "shard-00000.tar", "out/t.csv"):
        (files / made).parent.mkdir(exist_ok=True)
        (files / made).write_text("mine")
    (tmp_path / "p").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "p/out").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DataError, match=words):
        make_shards([labelled(files, **{name: value})], files, tmp_path / "p")
    assert os.listdir(tmp_path / "p") == ["out"] and not os.listdir(tmp_path / "elsewhere")


def test_labels_are_copied_with_their_keys(files, tmp_path):
    (files / "t.conllu").write_text("# sent_id = s1")
    (files / "d").mkdir()
    (files / "d/u.conllu").write_text("# sent_id = s2")
    for number, value in enumerate(["$data_root/t.conllu#s1", "d/u.conllu#s2", "key"]):
        make_shards([labelled(files, tree=value)], files, tmp_path / str(number))
        tree = read_manifest(tmp_path / f"{number}/l.csv", tmp_path / str(number))[0].labels["tree"]
        assert tree == value.replace("$data_root", str(tmp_path / str(number)))
    assert (tmp_path / "0/t.conllu").read_text() == "# sent_id = s1"
    assert (tmp_path / "1/d/u.conllu").read_text() == "# sent_id = s2"


@pytest.mark.parametrize("link", ["file", "folder", "inside"])
def test_a_recording_that_is_a_link_out_is_not_packed(files, tmp_path, link):
    place = files / "clips/été"
    if link == "file":
        (place / "1.wav").rename(tmp_path / "out.wav")
        (place / "1.wav").symlink_to(tmp_path / "out.wav")
    elif link == "folder":
        place.rename(tmp_path / "out")
        place.symlink_to(tmp_path / "out")
    else:
        (place / "1.wav").rename(files / "other.wav")
        (place / "1.wav").symlink_to("../../other.wav")
    if link == "inside":
        assert make_shards([files / "a.csv"], files, tmp_path / "p") == 1
        return
    with pytest.raises(DataError, match="link that leads out of data_root .*1.wav -> .*out"):
        make_shards([files / "a.csv"], files, tmp_path / "p")
    assert not (tmp_path / "p").exists()


@pytest.mark.parametrize("damage", ["index cut", "index of other files", "tar cut"])
def test_a_shard_that_is_not_whole_is_packed_again(files, tmp_path, damage):
    make_shards([files / "a.csv"], files, tmp_path / "p")
    path, index = tmp_path / "p/shard-00000.tar", tmp_path / "p/shard-00000.tar.index"
    before = path.read_bytes(), index.read_bytes()
    (tmp_path / "p" / f".shard-00000.tar.{'a' * 16}.tmp").write_text("of a killed process")
    (tmp_path / "p/.shard-00000.tar.mine.tmp").write_text("of somebody else")
    if damage == "index cut":
        os.truncate(index, 40)
    elif damage == "index of other files":
        rows = [(f"x{k}", 512, 1, 1) for k in range(8)]
        index.write_bytes(members.make_index(path.stat().st_size, rows).bytes())
    else:
        os.truncate(path, 4000)
    make_shards([files / "a.csv"], files, tmp_path / "p")
    assert (path.read_bytes(), index.read_bytes()) == before
    assert [p.name for p in (tmp_path / "p").glob(".*.tmp")] == [".shard-00000.tar.mine.tmp"]


def test_shards_may_be_read_by_whom_the_umask_lets(files, tmp_path):
    before = os.umask(0o022)
    try:
        make_shards([files / "a.csv"], files, tmp_path / "p")
    finally:
        os.umask(before)
    for path in (tmp_path / "p").iterdir():
        assert path.stat().st_mode & 0o777 == 0o644


def test_the_plan_and_the_lock_are_no_links(files, tmp_path):
    (tmp_path / "p").mkdir()
    (tmp_path / "p/.lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UsageError, match="is a symbolic link"):
        make_shards([files / "a.csv"], files, tmp_path / "p")
    (tmp_path / "p/.lock").unlink()
    (tmp_path / "p/shards.json").write_text("{")
    with pytest.raises(UsageError, match="shards.json is not JSON"):
        make_shards([files / "a.csv"], files, tmp_path / "p")
    assert not (tmp_path / "elsewhere").exists()


def test_validate_tells_the_checksum_that_differs(files, packed, capsys):
    flip(packed)
    assert cli.run(["validate", str(packed / "a.csv"), "--data_root", str(packed), "--decode"]) == 3
    said = capsys.readouterr()
    assert "CRC-32 differs (expected " in said.err + said.out and "clips/été/1.wav" in said.err + said.out


class Usage:
    free = 10


PROGRAM = """
import sys, time
from lebench_sb.manifests import shards
real = shards.copied
def slowly(*words):
    time.sleep(0.05)
    return real(*words)
shards.copied = slowly
shards.make_shards([sys.argv[1]], sys.argv[2], sys.argv[3], "20KB")
"""


def test_a_killed_packing_goes_on_where_it_was(files, tmp_path):
    words = [sys.executable, "-c", PROGRAM, files / "a.csv", files, tmp_path / "killed"]
    for wanted in (1, 3):
        process = subprocess.Popen(words, stderr=subprocess.DEVNULL)
        while len(list((tmp_path / "killed").glob("*.index"))) < wanted and process.poll() is None:
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    kept = {
        p.name: p.stat().st_ino for p in (tmp_path / "killed").glob("*.tar") if os.path.exists(f"{p}.index")
    }
    assert len(kept) >= 3
    for folder in ("killed", "whole"):
        make_shards([files / "a.csv"], files, tmp_path / folder, "20KB")
    for path in (tmp_path / "whole").iterdir():
        if "done" not in path.name:
            assert path.read_bytes() == (tmp_path / "killed" / path.name).read_bytes()
    assert {p.name for p in (tmp_path / "killed").iterdir()} == {
        p.name for p in (tmp_path / "whole").iterdir()
    }
    assert all((tmp_path / "killed" / name).stat().st_ino == inode for name, inode in kept.items())


def test_two_at_once_are_refused(files, tmp_path):
    words = [sys.executable, "-c", PROGRAM, files / "a.csv", files, tmp_path / "p"]
    with subprocess.Popen(words, stderr=subprocess.DEVNULL) as process:
        while not (tmp_path / "p/shards.json").exists() and process.poll() is None:
            time.sleep(0.005)
        with pytest.raises(UsageError, match="another `lebench shard` writes there"):
            make_shards([files / "a.csv"], files, tmp_path / "p", "20KB")
    assert process.returncode == 0


def test_an_index_finds_every_member_and_no_other():
    rows = [(f"clips/{k}.wav", 512 * k, k, k * k) for k in range(500)]
    index = members.make_index(10**12, rows)
    assert all(index.find(name) == tuple(place) for name, *place in rows)
    assert index.find("clips/500.wav") is None
    with pytest.raises(ValueError, match="two members of one name"):
        members.make_index(1, [rows[0], rows[0]])


def test_a_member_is_a_file_of_its_own(tmp_path):
    (tmp_path / "x").write_bytes(bytes(range(100)))
    with open(tmp_path / "x", "rb") as file:
        member, plain = members.Member(SimpleNamespace(file=file), 10, 50), io.BytesIO(bytes(range(10, 60)))
        rng = np.random.default_rng(0)
        for _ in range(200):
            offset, whence, count = int(rng.integers(-20, 70)), int(rng.integers(3)), int(rng.integers(30))
            if offset + (0, plain.tell(), 50)[whence] < 0:
                continue
            assert member.seek(offset, whence) == plain.seek(offset, whence)
            assert member.read(count) == plain.read(count) and member.tell() == plain.tell()


def test_the_plan_of_the_folder_is_readable(packed):
    plan = json.loads((packed / "shards.json").read_text())
    assert plan["files"] == 9 and plan["shards"] == len(list(packed.glob("*.tar")))
