"""The cache of frames: it gives what the encoder gives, whoever computed it and whatever was killed."""

import contextlib
import json
import multiprocessing
import os
import re
import shutil
import signal
import tarfile
import time
from dataclasses import replace

import pytest
import torch
from python_process import run_python
from tiny import write_wav2vec2

from lebench_sb.audio import members
from lebench_sb.core.errors import DataError, UsageError
from lebench_sb.encoders.encoder import load_encoder
from lebench_sb.manifests.reading import read_manifest
from lebench_sb.training import features
from lebench_sb.training.data import as_dataset, audio_item
from lebench_sb.training.features import FeatureCache

ASR = ["recipes/ASR/CommonVoice/train.py", "recipes/ASR/CommonVoice/hparams/ctc.yaml"]


@pytest.fixture(scope="session")
def encoder_folder(tmp_path_factory):
    """A tiny wav2vec 2.0 whose layers differ"""
    changes = dict(num_hidden_layers=3, intermediate_size=32, conv_dim=(16,) * 7, num_conv_pos_embeddings=16)
    changes |= dict(feat_extract_norm="layer", do_stable_layer_norm=True, initializer_range=0.3)
    return write_wav2vec2(tmp_path_factory.mktemp("encoder"), seed=7, **changes)


def dataset_of(corpus, split="test"):
    found = read_manifest(corpus / f"{split}.csv", corpus)
    return as_dataset(found, [audio_item], ["sig", "wrd"])


def view(cache, dataset):
    return cache.view(dataset, contextlib.nullcontext(), "fp32", "cpu")


@pytest.mark.parametrize("layer", ["last", 1, "weighted"])
def test_the_cache_gives_the_frames_of_the_encoder_on_the_utterance_alone(
    corpus, encoder_folder, tmp_path, layer
):
    encoder = load_encoder(encoder_folder, layer=layer)
    if layer == "weighted":
        torch.nn.init.normal_(encoder.layer_mix)
    dataset = dataset_of(corpus)
    for row, plain in zip(view(FeatureCache(tmp_path, encoder), dataset), dataset, strict=True):
        assert "sig" not in row and row["wrd"] == plain["wrd"]
        frames, lens = encoder(plain["sig"][None], torch.ones(1))
        assert len(row["features"]) == int(lens)
        cached, same = encoder(states=row["features"][None], frame_lens=lens)
        torch.testing.assert_close(cached, frames, rtol=0, atol=1e-5 * float(frames.detach().abs().max()))
        assert same.tolist() == lens.tolist()


def test_half_precision_halves_the_disk_and_costs_little(corpus, encoder_folder, tmp_path):
    encoder, dataset = load_encoder(encoder_folder, layer="weighted"), dataset_of(corpus)
    full, half = FeatureCache(tmp_path, encoder), FeatureCache(tmp_path, encoder, "float16")
    for one, two in zip(view(full, dataset), view(half, dataset), strict=True):
        torch.testing.assert_close(one["features"], two["features"].float(), rtol=1e-3, atol=1e-3)
    assert half.bytes * 2 == full.bytes > 0


def test_what_is_computed_is_not_computed_again(corpus, encoder_folder, tmp_path, monkeypatch):
    dataset = dataset_of(corpus)
    view(FeatureCache(tmp_path, load_encoder(encoder_folder)), dataset)
    monkeypatch.setattr(FeatureCache, "compute", lambda *_: pytest.fail("computed again"))
    again = view(FeatureCache(tmp_path, load_encoder(encoder_folder)), dataset)
    assert len(again[0]["features"]) > 0


def test_another_encoder_layer_precision_or_recording_has_frames_of_its_own(corpus, encoder_folder, tmp_path):
    encoder, dataset = load_encoder(encoder_folder), dataset_of(corpus)
    prints = {features.fingerprint(encoder)}
    prints.add(features.fingerprint(load_encoder(encoder_folder, layer=1)))
    prints.add(features.fingerprint(load_encoder(encoder_folder, layer="weighted")))
    prints.add(features.fingerprint(load_encoder(f"random:{encoder_folder}")))
    assert len(prints) == 4 and features.fingerprint(load_encoder(encoder_folder)) in prints
    before = features.described(dataset)
    wav = dataset.data[dataset.data_ids[0]]["wav"]
    state = os.stat(wav)
    os.utime(wav, ns=(state.st_atime_ns, state.st_mtime_ns + 1))
    assert features.described(dataset) != before
    os.utime(wav, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert features.described(dataset) == before
    assert features.described(dataset_of(corpus, "valid")) != before
    cache = FeatureCache(tmp_path, encoder)
    view(cache, dataset)
    cache.view(dataset, contextlib.nullcontext(), "bf16", "cpu")
    assert len(list((tmp_path / cache.fingerprint).iterdir())) == 2


def make_all(folder, encoder_folder, corpus, ready):
    torch.set_num_threads(1)
    features.SHARD_SECONDS = 3.0
    encoder, dataset = load_encoder(encoder_folder), dataset_of(corpus)
    cache = FeatureCache(folder, encoder)
    compute, counted = cache.compute, []
    cache.compute = lambda *words: counted.append(1) or time.sleep(0.1) or compute(*words)
    ready.wait()
    made = view(cache, dataset)
    assert len([row["features"] for row in made]) == len(dataset)
    (folder / f"{os.getpid()}.count").write_text(str(len(counted)))


def start(folder, encoder_folder, corpus, ready):
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=make_all, args=(folder, encoder_folder, corpus, ready))
    process.start()
    return process


def test_processes_share_the_work_and_a_killed_one_leaves_nothing_broken(
    corpus, encoder_folder, tmp_path, monkeypatch
):
    monkeypatch.setattr(features, "SHARD_SECONDS", 3.0)
    ready = multiprocessing.get_context("spawn").Event()
    processes = [start(tmp_path, encoder_folder, corpus, ready) for _ in range(3)]
    ready.set()
    while not list(tmp_path.rglob("*.json")):
        time.sleep(0.02)
    os.kill(processes[0].pid, signal.SIGKILL)
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [-signal.SIGKILL, 0, 0]
    shards = len(features.cut(dataset_of(corpus)))
    assert shards > 4 and len(list(tmp_path.rglob("*.json"))) == shards
    counts = [int(path.read_text()) for path in tmp_path.glob("*.count")]
    assert len(counts) == 2 and shards - 2 <= sum(counts) <= shards  # the killed one finished one or two
    whole = view(FeatureCache(tmp_path, load_encoder(encoder_folder)), dataset_of(corpus))
    alone = view(FeatureCache(tmp_path / "alone", load_encoder(encoder_folder)), dataset_of(corpus))
    for one, two in zip(whole, alone, strict=True):
        assert torch.equal(one["features"], two["features"])


def test_frames_that_float16_cannot_hold_are_an_error(corpus, encoder_folder, tmp_path):
    encoder = load_encoder(encoder_folder)
    torch.nn.init.constant_(encoder.model.encoder.layer_norm.bias, 1e6)
    with pytest.raises(DataError, match="float16: --feature_cache_dtype float32"):
        view(FeatureCache(tmp_path, encoder, "float16"), dataset_of(corpus))


def edited(change):
    """Damages the index of a shard; with a digest of its own that is right again"""

    def damage(path):
        index = path.with_suffix(".json")
        told = json.loads(index.read_text())
        del told["self"]
        change(told)
        index.write_text(json.dumps(told | {"self": features.own_digest(told)}))

    return damage


def lose_an_id(told):
    told["where"].pop(next(iter(told["where"])))


def point(place):
    def change(told):
        told["where"][next(iter(told["where"]))] = place

    return change


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


DAMAGES = {
    "a bit": (flip, "its bytes are not those that were written"),
    "frames of zeros": (lambda path: path.write_bytes(bytes(path.stat().st_size)), "its bytes are not those"),
    "cut short": (lambda path: os.truncate(path, 1000), "its bytes are not those"),
    "empty": (lambda path: os.truncate(path, 0), "its bytes are not those"),
    "index edited": (
        lambda path: edit(path.with_suffix(".json"), '"values": ', '"values": 1'), "its digest is another"),
    "index of an earlier version": (edited(lambda told: told.pop("format")), "is of another version"),
    "index no JSON": (lambda path: path.with_suffix(".json").write_text("{"), "is not JSON"),
    "index a list": (lambda path: path.with_suffix(".json").write_text("[]"), "list"),
    "an id missing": (edited(lose_an_id), "its utterances are not those of the shard"),
    "an id more": (edited(lambda told: told["where"].update(x=[0, 1])), "x differs"),
    "beyond the file": (edited(point([10**9, 3])), "lie outside"),
    "before the file": (edited(point([-3, 3])), "lie outside"),
    "fewer than none": (edited(point([0, -3])), "lie outside"),
    "another shape": (edited(lambda told: told.update(frame=[1, 4])), r"frames of shape \[1, 4\]"),
    "another size": (edited(lambda told: told.update(values=7)), "by its index 7 values"),
    "frames gone": (lambda path: path.unlink(), ""),
}  # fmt: skip


def edit(path, old, new):
    path.write_text(path.read_text().replace(old, new))


@pytest.fixture(scope="module")
def one_cache(corpus, encoder_folder, tmp_path_factory):
    """(encoder, two utterances, their frames, folder of their cache)"""
    encoder, folder = load_encoder(encoder_folder), tmp_path_factory.mktemp("one")
    found = read_manifest(corpus / "test.csv", corpus)[:2]
    dataset = as_dataset(found, [audio_item], ["sig", "wrd"])
    frames = [row["features"] for row in view(FeatureCache(folder, encoder), dataset)]
    return encoder, dataset, frames, folder


@pytest.mark.parametrize("damage, words", DAMAGES.values(), ids=DAMAGES)
def test_a_shard_that_is_not_what_was_written_is_computed_again(one_cache, tmp_path, caplog, damage, words):
    encoder, dataset, frames, folder = one_cache
    shutil.copytree(folder, tmp_path / "cache")
    (path,) = (tmp_path / "cache").rglob("*.bin")
    state = os.stat(path)
    damage(path)
    if path.exists():  # as a copy that keeps times
        os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    found = [row["features"] for row in view(FeatureCache(tmp_path / "cache", encoder), dataset)]
    assert all(torch.equal(a, b) for a, b in zip(found, frames, strict=True))
    told = [record.getMessage() for record in caplog.records if "Computed again" in record.getMessage()]
    assert len(told) == bool(words)
    assert all(re.search(words, text) and str(path)[:-4] in text for text in told)


def test_frames_that_are_not_finite_are_told(one_cache, tmp_path):
    encoder, dataset, _, folder = one_cache
    shutil.copytree(folder, tmp_path / "cache")
    (path,) = (tmp_path / "cache").rglob("*.bin")
    path.write_bytes(b"\xff" * path.stat().st_size)
    edited(lambda told: told.update(digest=features.digest_of(path.read_bytes())))(path)
    found = view(FeatureCache(tmp_path / "cache", encoder), dataset)
    with pytest.raises(DataError, match="00000.bin: frames of .* are not finite; remove it"):
        found[0]


def test_a_cache_may_be_read_by_whom_the_umask_lets_and_leftovers_go(one_cache, tmp_path):
    encoder, dataset, _, folder = one_cache
    shutil.copytree(folder, tmp_path / "cache")
    (path,) = (tmp_path / "cache").rglob("*.bin")
    dead, mine = path.with_name(f".00000.bin.{'0' * 16}.tmp"), path.with_name("00000.tmp")
    for file in (dead, mine):
        file.write_text("x")
        os.utime(file, (1, 1))
    path.with_suffix(".json").unlink()
    before = os.umask(0o022)
    try:
        view(FeatureCache(tmp_path / "cache", encoder), dataset)
    finally:
        os.umask(before)
    assert [file.stat().st_mode & 0o777 for file in (path, path.with_suffix(".json"))] == [0o644, 0o644]
    assert not dead.exists() and mine.exists() and len(list(path.parent.glob(".*.tmp"))) == 0


def test_a_recording_inside_a_shard_is_told_from_another_there(corpus, tmp_path):
    found = read_manifest(corpus / "test.csv", corpus)[:2]
    described = set()
    for number in range(2):
        folder = tmp_path / str(number)
        folder.mkdir()
        with tarfile.open(folder / "x.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
            tar.add(found[number].wav, "a.wav")
        content = (folder / "x.tar").read_bytes().ljust(1 << 20, b"\0")
        (tmp_path / "x.tar").write_bytes(content)
        os.utime(tmp_path / "x.tar", (1, 1))
        members.opened.cache_clear()
        one = replace(found[0], wav=f"{tmp_path / 'x.tar'}::a.wav")
        described.add(features.described(as_dataset([one], [audio_item], ["sig"])))
    assert len(described) == 2


def test_misuse_is_refused(encoder_folder, tmp_path):
    with pytest.raises(UsageError, match="--freeze True"):
        FeatureCache(tmp_path, load_encoder(encoder_folder, freeze=False))
    with pytest.raises(UsageError, match="float16"):
        FeatureCache(tmp_path, load_encoder(encoder_folder), "int8")


def run(root, words):
    argv = [*(str(root / s) for s in ASR), *words, "--noprogressbar"]
    return run_python(argv)


def test_a_recipe_learns_the_same_with_and_without_the_cache(root, manifests, encoder_folder, tmp_path):
    words = [
        *manifests, "--ssl_hub", str(encoder_folder), "--number_of_epochs", "2", "--max_batch_seconds", "10",
        "--head={hidden: 16, dropout: 0.0}",
    ]  # fmt: skip
    for name, cache in (("plain", ""), ("cached", str(tmp_path / "frames"))):
        done = run(root, [*words, "--output_folder", str(tmp_path / name), f"--feature_cache={cache}"])
        assert done.returncode == 0, done.stderr[-2000:]
    plain, cached = (
        [json.loads(line)["loss"] for line in (tmp_path / name / "steps.jsonl").read_text().splitlines()]
        for name in ("plain", "cached")
    )
    assert len(plain) == len(cached) > 4
    assert cached == pytest.approx(plain, rel=1e-4)
    said = (tmp_path / "cached" / "log.txt").read_text()
    assert re.search(r"Frames: \d+ MB in .*frames, \d+\.\d s to compute", said)


def test_the_recipe_says_what_is_wrong_with_a_cache(root, manifests, encoder_folder, tmp_path):
    words = [*manifests, "--number_of_epochs", "1", "--feature_cache", str(tmp_path / "frames"), "--debug"]
    words += ["--output_folder", str(tmp_path / "run")]
    done = run(root, [*words, "--ssl_hub", str(encoder_folder), "--freeze", "False"])
    assert done.returncode == 2 and "--freeze True" in done.stderr and "Traceback" not in done.stderr
    done = run(root, [*words, "--ssl_hub", "mel_filterbank", "--layer", "last"])
    assert done.returncode == 0, done.stderr[-2000:]
    assert not (tmp_path / "frames").exists()
