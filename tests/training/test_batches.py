"""Audio reading, crops, batch plans and sharding."""

import shutil
import subprocess
import sys

import numpy as np
import pytest
import soundfile
import torch

from lebench_sb.core.errors import DataError
from lebench_sb.manifests.utterance import Utterance
from lebench_sb.training.data import (
    EpochPlan,
    PlannedLoader,
    StreamPlan,
    as_dataset,
    audio_item,
    crop_limits,
    cropped_audio_item,
    load_audio,
)


def tone(path, rate=16000, seconds=1.0, channels=1, **options):
    t = np.arange(int(rate * seconds)) / rate
    samples = 0.3 * np.sin(2 * np.pi * 440 * t)
    soundfile.write(
        path, np.stack([samples] * channels, axis=1) if channels > 1 else samples, rate, **options
    )
    return path


@pytest.mark.parametrize(
    "name, rate", [("a.wav", 8000), ("a.flac", 44100), ("a.ogg", 16000), ("a.mp3", 48000)]
)
def test_any_format_and_rate_becomes_16_khz(tmp_path, name, rate):
    sig = load_audio(tone(tmp_path / name, rate))
    assert sig.dtype == torch.float32 and abs(len(sig) - 16000) < 1200  # mp3 pads its ends
    middle = sig[4000:12000] - sig[4000:12000].mean()
    spectrum = torch.fft.rfft(middle).abs()
    assert abs(int(spectrum.argmax()) * 2 - 440) <= 2


def test_stereo_is_averaged_with_a_warning(tmp_path):
    path = tmp_path / "s.wav"
    soundfile.write(path, np.stack([np.full(1600, 0.5), np.full(1600, -0.1)], 1), 16000)
    with pytest.warns(UserWarning, match="2 channels"):
        sig = load_audio(path)
    assert torch.allclose(sig, torch.full((1600,), 0.2), atol=1e-4)


@pytest.mark.parametrize("rate", [8000, 16000])
def test_the_channel_that_is_named_is_heard(tmp_path, rate):
    """Left: a tone; right: silence. With a channel nothing is averaged, at any rate and in any item"""
    path = tmp_path / "s.wav"
    left = 0.5 * np.sin(2 * np.pi * 440 * np.arange(rate) / rate)
    soundfile.write(path, np.stack([left, np.zeros(rate)], 1), rate)
    heard = {}
    for channel in ("1", "2"):
        u = Utterance(channel, str(path), 0.5, 0.25, 0.75, labels={"channel": channel})
        for item in (audio_item, cropped_audio_item(0, 9.0, lambda sig: sig)):
            heard[channel] = as_dataset([u], [item], ["sig"])[0]["sig"]
            assert len(heard[channel]) == 8000
    assert heard["1"].abs().max() > 0.45 and heard["2"].abs().max() == 0
    with pytest.raises(DataError, match="no channel '3', it has 2"):
        load_audio(path, channel="3")


def test_a_stretch_is_read_by_seeking(tmp_path):
    path = tmp_path / "x.wav"
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, 32000).astype("float32")
    soundfile.write(path, samples, 16000, subtype="FLOAT")
    assert np.array_equal(load_audio(path, 0.5, 1.25).numpy(), samples[8000:20000])


def test_bad_audio_names_the_file(tmp_path):
    (tmp_path / "page.wav").write_text("<html>")
    soundfile.write(tmp_path / "nan.wav", np.array([0.0, np.nan] * 100), 16000, subtype="FLOAT")
    for name in ("page.wav", "nan.wav"):
        with pytest.raises(DataError, match=name):
            load_audio(tmp_path / name)
    with pytest.raises(DataError, match="no audio between 5"):
        load_audio(tone(tmp_path / "short.wav"), 5.0, 6.0)


def test_crops_stay_inside_and_depend_on_pass_and_id_alone(tmp_path):
    limits = [crop_limits("u", number, 3.0, 20.0, 1, 5.0) for number in range(50)]
    assert all(3.0 <= low and high <= 23.0 and abs(high - low - 5.0) < 1e-9 for low, high in limits)
    assert len(set(limits)) == 50
    assert limits[7] == crop_limits("u", 7, 3.0, 20.0, 1, 5.0) != crop_limits("v", 7, 3.0, 20.0, 1, 5.0)
    assert crop_limits("u", 1, None, 4.0, 1, 5.0) == (None, None)


def test_a_plan_uses_each_utterance_once_within_the_limit():
    durations = np.random.default_rng(0).uniform(0.5, 15, 500)
    plan = EpochPlan(durations, 60.0, seed=7)
    for epoch in (1, 2):
        batches = plan.batches(epoch)
        assert sorted(i for batch in batches for i, _ in batch) == list(range(500))
        assert all(len(b) == 1 or max(durations[i] for i, _ in b) * len(b) <= 60.0 for b in batches)
    assert plan.batches(1) == EpochPlan(durations, 60.0, seed=7).batches(1) != plan.batches(2)
    padded = sum(max(durations[i] for i, _ in b) * len(b) for b in plan.batches(1))
    assert padded < 1.15 * durations.sum()


def test_an_utterance_over_the_limit_is_a_batch_of_its_own():
    assert EpochPlan([100.0, 1.0, 1.0], 10.0, 0, shuffle=False).batches(1) == [[(0, 1)], [(1, 1), (2, 1)]]


@pytest.mark.parametrize("world", [1, 2, 3])
def test_processes_share_an_epoch(world):
    plan = EpochPlan(np.full(25, 1.0), 2.0, seed=0)
    even = [PlannedLoader(None, plan, rank, world).share(1) for rank in range(world)]
    assert len({len(share) for share in even}) == 1
    once = [PlannedLoader(None, plan, rank, world, even=False).share(1) for rank in range(world)]
    assert sorted(i for share in once for batch in share for i, _ in batch) == list(range(25))


def test_a_stream_has_the_updates_asked_for_over_passes():
    plan = StreamPlan(
        np.full(10, 1.0), 2.0, 0, updates_per_epoch=4, batches_per_update=3, number_of_updates=10
    )
    epochs = [plan.batches(epoch) for epoch in (1, 2, 3)]
    assert [len(e) for e in epochs] == [12, 12, 6]
    together = [item for epoch in epochs for batch in epoch for item in batch]
    for number in range(1, 6):  # 5 batches a pass
        assert sorted(i for i, n in together if n == number) == list(range(10))


def test_an_epoch_of_a_stream_does_not_depend_on_those_asked_for_before():
    durations = np.random.default_rng(0).uniform(1, 9, 40)

    def plan():
        return StreamPlan(durations, 20.0, 0, 3, batches_per_update=7, number_of_updates=40)

    one = plan()
    in_order = [one.batches(epoch) for epoch in range(1, 15)]
    assert [len(epoch) for epoch in in_order] == [21] * 13 + [7]
    other = plan()
    assert [other.batches(epoch) for epoch in (14, 3, 9, 3)] == [in_order[k - 1] for k in (14, 3, 9, 3)]
    stream = [batch for epoch in in_order for batch in epoch]
    whole = [[(int(i), n) for i in batch] for n in range(1, 30) for batch in one.one_pass(n)]
    assert stream == whole[: len(stream)]


def test_a_resumed_loader_gives_the_rest_of_the_same_batches(tmp_path):
    utterances = [
        Utterance(f"u{i}", str(tone(tmp_path / f"{i}.wav", seconds=1 + i / 10)), 1 + i / 10) for i in range(8)
    ]
    dataset = as_dataset(utterances, [cropped_audio_item(0, 1.2, lambda sig: sig)], ["sig"])
    loader = PlannedLoader(dataset, EpochPlan(dataset.durations, 3.0, 0), num_workers=2)
    whole = [(batch.id, batch.sig.data) for batch in loader.batches(3)]
    rest = [(batch.id, batch.sig.data) for batch in loader.batches(3, start=2)]
    assert [ids for ids, _ in whole[2:]] == [ids for ids, _ in rest] and len(rest) > 0
    assert all(torch.equal(a, b) for (_, a), (_, b) in zip(whole[2:], rest, strict=True))


FULL = """
import sys
from lebench_sb.training.data import EpochPlan, PlannedLoader, as_dataset, audio_item
from lebench_sb.manifests.utterance import Utterance
dataset = as_dataset([Utterance("a", sys.argv[1], 40.0)], [audio_item], ["sig"])
loader = PlannedLoader(dataset, EpochPlan(dataset.durations, 60.0, 0), num_workers=1)
print([batch.sig.data.shape for batch in loader.batches(1)])
"""


@pytest.mark.parametrize("size, fits", [("1m", False), ("16m", True)])
def test_a_batch_that_shared_memory_cannot_hold_is_refused_and_not_waited_for(tmp_path, size, fits):
    """In a mount namespace whose /dev/shm is that small, as containers have it"""
    wav = tone(tmp_path / "a.wav", seconds=40)
    inside = 'mount -t tmpfs -o size="$1" tmpfs /dev/shm && shift && exec "$@"'
    words = ["unshare", "--mount", "sh", "-c", inside, "sh"]
    if not shutil.which("unshare") or subprocess.run([*words, size, "true"], capture_output=True).returncode:
        pytest.skip("no /dev/shm of another size can be mounted here")
    argv = [*words, size, sys.executable, "-c", FULL, str(wav)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120)
    if fits:
        assert done.returncode == 0 and "640000" in done.stdout, done.stderr
    else:
        assert "/dev/shm has 1.0 MB left and this batch takes 2.6: enlarge it" in done.stderr


def test_labels_become_columns(tmp_path):
    u = Utterance("a", str(tone(tmp_path / "a.wav")), 1.0, labels={"wrd": '5 $US, "oui"'})
    assert as_dataset([u], [audio_item], ["wrd", "sig"])[0]["wrd"] == '5 $US, "oui"'
