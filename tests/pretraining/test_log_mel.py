"""Extractor and projection learn log-mel energies, of the right frames, and nothing else changes."""

import math

import pytest
import torch
from scripts import pretrain
from test_initialise import CONFIG

from lebench_sb.encoders.encoder import load_encoder
from lebench_sb.pretraining.build import build_model, make_config
from lebench_sb.pretraining.log_mel import Frames, teach_log_mel, weights_of
from lebench_sb.training.data import PlannedLoader, StreamPlan

TINY = CONFIG | dict(conv_dim=[32, 24], conv_kernel=[320, 8], conv_stride=[80, 4], hidden_size=24)


class Sounds(torch.utils.data.Dataset):
    """Tones of changing pitch and loudness, 0.5 to 1.5 s; an index is (position, pass)"""

    def __init__(self, count=40):
        generator = torch.Generator().manual_seed(0)
        self.sounds = [self.sound(int(8000 * (1 + k % 3)), generator) for k in range(count)]
        self.durations = torch.tensor([len(sound) / 16000 for sound in self.sounds]).numpy()

    @staticmethod
    def sound(samples, generator):
        steps = samples // 800 + 1
        pitch = 200 * 2 ** (4 * torch.rand(steps, generator=generator)).repeat_interleave(800)[:samples]
        level = 10 ** (-2 * torch.rand(steps, generator=generator)).repeat_interleave(800)[:samples]
        wave = level * (2 * math.pi * pitch.cumsum(0) / 16000).sin()
        wave = wave + 0.001 * torch.randn(samples, generator=generator)
        return (wave - wave.mean()) / wave.std()

    def __len__(self):
        return len(self.sounds)

    def __getitem__(self, index):
        return {"id": str(index[0]), "sig": self.sounds[index[0]]}


def model_of(feature_grad_mult=0.0, **changes):
    return build_model(make_config(**TINY | changes), "", feature_grad_mult, 0, start="filterbank")


def teach(model, sounds, updates):
    plan = StreamPlan(sounds.durations, 6.0, 0, updates, 1, updates)
    return teach_log_mel(model, PlannedLoader(sounds, plan), updates)


def reach(model, frame):
    """First and last sample that an output frame of the extractor depends on"""
    wav = torch.randn(1, 4000, requires_grad=True)
    extractor = model.hf.base_model.feature_extractor
    extractor.requires_grad_(True)
    extractor._requires_grad = False
    extractor(wav)[0, :, frame].square().sum().backward()
    seen = wav.grad[0].nonzero()
    return int(seen[0]), int(seen[-1])


@pytest.mark.parametrize(
    "changes",
    [{}, dict(conv_dim=[16, 16, 24], conv_kernel=[10, 8, 4], conv_stride=[5, 8, 8]),
     dict(conv_kernel=[400, 3], conv_stride=[80, 2])],
)  # fmt: skip
def test_the_log_mel_frames_are_those_around_the_middle_of_each_frame(changes):
    model = model_of(1.0, **changes)
    frames = Frames(model.hf.config, "cpu")
    assert frames.per_frame == frames.hop // 160
    for number in (2, 5):
        first, last = reach(model, number)
        assert (frames.hop * number, frames.hop * number + frames.field - 1) == (first, last)
        starts = 160 * frames.nearest(torch.tensor([number]))[0]
        heard = (starts[0] + starts[-1] + 399) / 2  # the middle of what these frames see together
        assert abs(heard - (first + last) / 2) <= 80


def test_targets_are_the_frames_of_the_filterbank_and_padding_changes_none():
    config = make_config(**TINY | {"conv_dim": [160, 160], "hidden_size": 160})
    frames = Frames(config, "cpu")
    assert frames.rows == 160
    wavs, lens = torch.randn(3, 9000), [9000, 5000, 800]
    batch = frames.targets(wavs, lens).split([(n - 320) // 80 // 4 - 1 for n in lens])
    for wav, n, mine in zip(wavs, lens, batch, strict=True):
        alone = frames.targets(wav[None, :n], [n])
        torch.testing.assert_close(mine, alone)
        mels, _ = load_encoder("mel_filterbank")(wav[None, :n], torch.ones(1))
        for t, target in enumerate(mine):
            near = frames.nearest(torch.tensor([t]))[0].clamp(0, mels.shape[1] - 1)
            torch.testing.assert_close(target, mels[0, near].flatten())
    assert len(frames.targets(torch.randn(1, 330), [330])) == 0


def test_it_learns_and_leaves_everything_else_as_it_was():
    sounds, model = Sounds(), model_of()
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    asked = [p.requires_grad for p in weights_of(model)]
    random = torch.get_rng_state()
    first, later = teach(model_of(), sounds, 4), teach(model, sounds, 120)
    assert first < 0.3 and later > 0.55  # of the variance
    assert torch.equal(random, torch.get_rng_state())
    assert [p.requires_grad for p in weights_of(model)] == asked
    assert all(p.grad is None for p in model.parameters())
    taught = ("feature_extractor.", "feature_projection.")
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, before[name]) != any(part in name for part in taught), name


def test_the_loss_is_that_of_the_projection_that_transformers_computes():
    sounds, model = Sounds(), model_of()
    teach(model, sounds, 60)
    frames, base = Frames(model.hf.config, "cpu"), model.hf.base_model
    wav = sounds.sounds[2][None]
    hidden = base.feature_projection(base.feature_extractor(wav).transpose(1, 2))[0][0, :, : frames.rows]
    loss = frames.loss(base, wav, [wav.shape[1]])
    torch.testing.assert_close(loss, (hidden - frames.targets(wav, [wav.shape[1]])).square().mean())


def test_audio_that_is_not_finite_changes_nothing_and_is_named(caplog):
    sounds = Sounds(4)
    for sound in sounds.sounds:
        sound[100] = math.nan
    model = model_of()
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    teach(model, sounds, 3)
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())
    assert caplog.text.count("left out, not finite") == 3


def test_only_a_model_that_starts_from_nothing_is_taught(root, tiny_pretraining, tmp_path, caplog):
    said = "The extractor learnt log-mel energies for 2 updates"
    words = {"number_of_updates": 2, "valid_every_updates": 2, "num_workers": 0}
    first = pretrain(root, "mini", tiny_pretraining, tmp_path / "first", **words)
    assert said in (first / "log.txt").read_text()
    words |= {"init_from": first / "pretraining", "init_quantizer": False}
    again = pretrain(root, "mini", tiny_pretraining, tmp_path / "again", **words)
    assert "log-mel energies" not in (again / "log.txt").read_text()
