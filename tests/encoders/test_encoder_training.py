"""Frozen repeats exactly and has no gradient; fine-tuned, every weight that asks for a gradient gets one."""

import copy

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import transformers
from tiny_encoders import ARCHITECTURES, SIZES, relative, write_extractor
from torch.nn.parallel import DistributedDataParallel

from lebench_sb.encoders.encoder import SSLEncoder, load_encoder

LAYERS = ("last", "weighted", 0, 2)


@pytest.fixture(params=["by length", "padded"])
def way(request, monkeypatch):
    """What a CPU does, and what an accelerator does"""
    if request.param == "padded":
        monkeypatch.setattr(SSLEncoder, "_pads", lambda encoder, _: encoder._can_pad)


@pytest.mark.parametrize("name", ["wav2vec2-group", "wavlm-layer", "conformer-relative", "wav2vec2-bert"])
def test_frozen_repeats_exactly_also_after_train(checkpoints, ragged, name, way):
    wavs, lens = ragged
    encoder = load_encoder(checkpoints(name))
    first, _ = encoder(wavs, relative(lens))
    assert torch.equal(encoder(wavs, relative(lens))[0], first)
    encoder.train()
    assert encoder.training and not any(module.training for module in encoder.model.modules())
    assert torch.equal(encoder(wavs, relative(lens))[0], first)
    assert not first.requires_grad and not any(p.requires_grad for p in encoder.parameters())


def test_frozen_mix_is_trained_alone(checkpoints, ragged):
    wavs, lens = ragged
    encoder = load_encoder(checkpoints("wav2vec2-layer"), layer="weighted").train()
    assert encoder.layer_weights().tolist() == [0.25] * 4
    assert [name for name, p in encoder.named_parameters() if p.requires_grad] == ["layer_mix"]
    frames, _ = encoder(wavs, relative(lens))
    frames.square().sum().backward()
    assert encoder.layer_mix.grad.abs().min() > 0
    before = encoder.layer_weights()
    torch.optim.SGD([encoder.layer_mix], lr=1e-3).step()
    assert not torch.equal(encoder.layer_weights(), before)
    with pytest.raises(ValueError, match="only layer 'weighted' has layer weights"):
        load_encoder(checkpoints("wav2vec2-layer")).layer_weights()


def check_gradients(encoder):
    """Every weight that asks for a gradient has one, no other does, and most of the encoder is trained."""
    trained = {name: p for name, p in encoder.named_parameters() if p.requires_grad}
    for name, parameter in encoder.named_parameters():
        assert (parameter.grad is not None) == (name in trained), name
        assert parameter.grad is None or parameter.grad.isfinite().all(), name
    assert any("feature_projection" in name for name in trained)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_trained_weight_gets_a_gradient(checkpoints, ragged, name, way):
    wavs, lens = ragged
    for layer in LAYERS:
        encoder = load_encoder(checkpoints(name), layer=layer, freeze=False)
        assert encoder.model.training
        for _ in range(3):  # LayerDrop would leave a layer out now and then
            encoder.zero_grad()
            frames, frame_lens = encoder(wavs, relative(lens))
            (frames * torch.linspace(-1, 1, frames.shape[-1])).sum().backward()
            check_gradients(encoder)
        assert not frames[2, frame_lens[2] :].any()


def test_gradients_equal_those_of_the_utterances_alone(checkpoints, ragged, way):
    """The loss of a batch is the sum of its utterances' losses, and so is its gradient."""
    wavs, lens = ragged
    for name in ("wav2vec2-group", "wav2vec2-layer", "data2vec", "conformer-relative", "wav2vec2-bert"):
        encoder = load_encoder(checkpoints(name), freeze=False).eval()
        direction = torch.linspace(-1, 1, encoder.output_size)
        (encoder(wavs, relative(lens))[0] * direction).sum().backward()
        batch = {n: p.grad.clone() for n, p in encoder.named_parameters() if p.requires_grad}
        encoder.zero_grad()
        for i, n in enumerate(lens):
            (encoder(wavs[i : i + 1, :n], torch.ones(1))[0] * direction).sum().backward()
        largest = max(grad.abs().max() for grad in batch.values())
        for n, grad in batch.items():
            assert (grad - encoder.get_parameter(n).grad).abs().max() < 1e-4 * largest, (name, n)


def test_gradient_of_the_group_norm_layer(checkpoints, ragged, way):
    """The statistics come from the covariance of the waveform: the gradient has to be group norm's own."""
    wav = ragged[0][1:2]
    encoder = load_encoder(checkpoints("wav2vec2-group"), freeze=False).eval()
    model = transformers.AutoModel.from_pretrained(checkpoints("wav2vec2-group")).eval()
    direction = torch.linspace(-1, 1, 32)
    (encoder(wav, torch.ones(1))[0] * direction).sum().backward()
    (model(wav).last_hidden_state * direction).sum().backward()
    ours = encoder.model.feature_extractor.conv_layers[0]
    theirs = model.feature_extractor.conv_layers[0]
    for (name, parameter), expected in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        assert (parameter.grad - expected.grad).abs().max() < 1e-4 * expected.grad.abs().max(), name


def test_frozen_extractor(checkpoints, ragged):
    wavs, lens = ragged
    for name in ("wav2vec2-group", "wav2vec2-layer", "data2vec", "wav2vec2-bert"):
        encoder = load_encoder(checkpoints(name), freeze=False, freeze_extractor=True)
        frames, _ = encoder(wavs, relative(lens))
        frames.sum().backward()
        check_gradients(encoder)
        extractor = getattr(encoder.model, "feature_extractor", torch.nn.Identity())
        assert not any(p.requires_grad for p in extractor.parameters())


def test_dropout_is_on_and_spec_augment_off_when_fine_tuning(checkpoints, ragged, tmp_path, way):
    wavs, lens = ragged
    encoder = load_encoder(checkpoints("wav2vec2-layer"), freeze=False)
    assert not torch.equal(encoder(wavs, relative(lens))[0], encoder(wavs, relative(lens))[0])
    model = transformers.AutoModel.from_pretrained(checkpoints("wav2vec2-layer"))
    for name in ("hidden_dropout", "attention_dropout", "activation_dropout", "feat_proj_dropout"):
        setattr(model.config, name, 0.0)
    model.config.mask_time_prob, model.config.mask_feature_prob, model.config.layerdrop = 0.9, 0.9, 0.5
    model.save_pretrained(tmp_path)
    write_extractor(tmp_path, model, do_normalize=True)
    encoder = load_encoder(tmp_path, freeze=False)
    first, _ = encoder(wavs, relative(lens))
    assert torch.equal(encoder(wavs, relative(lens))[0], first)


def test_batch_norm_keeps_its_statistics(checkpoints, ragged):
    wavs, lens = ragged
    encoder = load_encoder(checkpoints("conformer-relative"), freeze=False)
    norm = encoder.model.encoder.layers[0].conv_module.batch_norm
    before = norm.running_mean.clone()
    encoder(wavs, relative(lens))
    assert torch.equal(norm.running_mean, before) and norm.weight.requires_grad


@pytest.mark.parametrize("name", ["wav2vec2-group", "wav2vec2-layer", "wavlm-group", "wav2vec2-bert"])
def test_autocast(checkpoints, ragged, name, way):
    """Under bfloat16: float32 frames near the float32 ones, and every gradient."""
    wavs, lens = ragged
    encoder = load_encoder(checkpoints(name), freeze=False).eval()
    expected, _ = encoder(wavs, relative(lens))
    with torch.autocast("cpu", torch.bfloat16):
        frames, _ = encoder(wavs, relative(lens))
        assert frames.dtype == torch.float32
        frames.square().mean().backward()
    assert (frames - expected).norm() < 0.05 * expected.norm()
    check_gradients(encoder)


def test_a_copy_has_its_own_padding(checkpoints, ragged):
    """deepcopy (SpeechBrain and moving averages of weights use it) shares nothing with the original."""
    wavs, lens = ragged
    encoder = load_encoder(checkpoints("data2vec"))
    twin = copy.deepcopy(encoder)
    expected, _ = encoder(wavs, relative(lens))
    assert torch.equal(twin(wavs, relative(lens))[0], expected)
    assert twin._batch is not encoder._batch


def _train_on_two(rank, folder, wavs, lens, port):
    """Two steps of DistributedDataParallel, which refuses weights without a gradient at the second."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"tcp://127.0.0.1:{port}", world_size=2, rank=rank)
    encoder = DistributedDataParallel(load_encoder(folder, layer="weighted", freeze=False))
    for _ in range(3):
        frames, _ = encoder(wavs[rank::2], relative(lens)[rank::2])
        frames.square().mean().backward()
    gathered = [torch.empty(4) for _ in range(2)]
    dist.all_gather(gathered, encoder.module.layer_mix.grad)
    assert torch.equal(*gathered)
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_processes(tmp_path, ragged, unused_tcp_port):
    model = transformers.HubertModel(transformers.HubertConfig(**SIZES, layerdrop=0.9))
    model.save_pretrained(tmp_path)
    write_extractor(tmp_path, model, do_normalize=False)
    mp.spawn(_train_on_two, (str(tmp_path), *ragged, unused_tcp_port), nprocs=2)
