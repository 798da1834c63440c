"""The step beyond parity: batch equals utterances alone, feature penalty, gradient scale, DDP's needs,
autocast."""

import copy
from unittest.mock import patch

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import Wav2Vec2Config, Wav2Vec2ForPreTraining

from lebench_sb.pretraining import model as model_module
from lebench_sb.pretraining.kernels import linear as linear_module
from lebench_sb.pretraining.kernels import plain
from lebench_sb.pretraining.kernels.extractor import STRETCH, extract, output_length
from lebench_sb.pretraining.kernels.linear import convolutions_win, linear
from lebench_sb.pretraining.masking import draw_masks
from lebench_sb.pretraining.model import PretrainingModel

SHAPE = dict(
    hidden_size=32,
    num_hidden_layers=3,
    num_attention_heads=4,
    intermediate_size=64,
    conv_dim=(16, 16, 24),
    conv_kernel=(10, 5, 3),
    conv_stride=(5, 4, 4),
    num_feat_extract_layers=3,
    num_codevectors_per_group=20,
    codevector_dim=32,
    proj_codevector_dim=16,
    num_conv_pos_embeddings=8,
    num_conv_pos_embedding_groups=4,
)
GROUP = dict(feat_extract_norm="group", do_stable_layer_norm=False, conv_bias=False)
LAYER = dict(feat_extract_norm="layer", do_stable_layer_norm=True, conv_bias=True)
DROPOUTS = ["hidden_dropout", "attention_dropout", "activation_dropout", "feat_proj_dropout"]
QUIET = dict.fromkeys([*DROPOUTS, "feat_quantizer_dropout"], 0.0)


def make_model(feature_grad_mult=1.0, **options):
    torch.manual_seed(0)
    hf = Wav2Vec2ForPreTraining(Wav2Vec2Config(**{**SHAPE, "layerdrop": 0.0, **options}))
    return PretrainingModel(hf, feature_grad_mult).train()


def make_batch(model, sample_lens, ids=None):
    """-> the arguments of forward up to the temperature"""
    torch.manual_seed(1)
    sample_lens = torch.tensor(sample_lens)
    wavs = 0.1 * torch.randn(len(sample_lens), int(sample_lens.max()))
    wavs *= torch.arange(wavs.shape[1]) < sample_lens[:, None]
    ids = ids or [str(i) for i in range(len(sample_lens))]
    return wavs, sample_lens, *draw_masks(model.frame_lengths(sample_lens), ids, 0, 0, 0.65, 10, 2, 20), 2.0


def call(model, wavs, sample_lens, mask, negatives, temperature, noise=None):
    """model: PretrainingModel, or one in DistributedDataParallel"""
    layout = getattr(model, "module", model).layout(sample_lens, mask, negatives)
    return model(wavs, layout, temperature, noise)


@settings(max_examples=25, deadline=None)
@given(
    dims=st.lists(st.integers(1, 9), min_size=1, max_size=4),
    kernels=st.lists(st.integers(1, 11), min_size=4, max_size=4),
    strides=st.lists(st.integers(1, 6), min_size=4, max_size=4),
    norm=st.sampled_from(["group", "layer"]),
    bias=st.booleans(),
)
def test_extractor_and_its_gradients_equal_transformers_whatever_the_shape(
    dims, kernels, strides, norm, bias
):
    kernels, strides = kernels[: len(dims)], strides[: len(dims)]
    config = dict(conv_dim=dims, conv_kernel=kernels, conv_stride=strides, conv_bias=bias)
    config |= dict(num_feat_extract_layers=len(dims), feat_extract_norm=norm)
    torch.manual_seed(0)
    extractor = Wav2Vec2ForPreTraining(
        Wav2Vec2Config(**{**SHAPE, **config})
    ).wav2vec2.feature_extractor.double()
    shortest = 1
    for kernel, stride in zip(reversed(kernels), reversed(strides), strict=True):
        shortest = (shortest - 1) * stride + kernel
    lens = [shortest + 40, shortest + 997]
    wavs = torch.randn(2, max(lens), dtype=torch.float64)
    frames = extract(extractor.conv_layers, wavs, lens, torch.float64)
    expected = torch.cat([extractor(wav[None, :n])[0].t() for wav, n in zip(wavs, lens, strict=True)])
    assert [output_length(n, kernels, strides) for n in lens] == [
        extractor(wav[None, :n]).shape[2] for wav, n in zip(wavs, lens, strict=True)
    ]
    torch.testing.assert_close(frames, expected, rtol=1e-5, atol=1e-5)
    weight = torch.randn_like(frames)
    ours = torch.autograd.grad((frames * weight).sum(), list(extractor.parameters()))
    theirs = torch.autograd.grad((expected * weight).sum(), list(extractor.parameters()))
    scale = max(g.abs().max() for g in theirs)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5 * float(scale))


def test_output_length_is_zero_below_the_receptive_field():
    frames = output_length(
        torch.tensor([0, 9, 399, 400, 16000]), (10, 3, 3, 3, 3, 2, 2), (5, 2, 2, 2, 2, 2, 2)
    )
    assert frames.tolist() == [0, 0, 0, 1, 49]


@settings(max_examples=30, deadline=None)
@given(rows=st.integers(0, 40), inputs=st.integers(1, 12), outputs=st.integers(1, 12), bias=st.booleans())
def test_linear_and_its_gradients_equal_pytorch(rows, inputs, outputs, bias):
    layer, x = torch.nn.Linear(inputs, outputs, bias=bias), torch.randn(rows, inputs, requires_grad=True)
    weight, variables = torch.randn(rows, outputs), [x, *layer.parameters()]
    with patch("lebench_sb.pretraining.kernels.linear.convolutions_win", return_value=True):
        ours = linear(layer, x)
    theirs = layer(x)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    gradients = torch.autograd.grad((ours * weight).sum(), variables)
    for one, other in zip(gradients, torch.autograd.grad((theirs * weight).sum(), variables), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "description, expected",
    [
        ("vendor_id\t: AuthenticAMD\nflags\t\t: fpu avx2 avx512f avx512dq\n", True),
        ("vendor_id\t: AuthenticAMD\nflags\t\t: fpu avx avx2\n", False),
        ("vendor_id\t: GenuineIntel\nflags\t\t: fpu avx2 avx512f\n", False),
        (None, False),
    ],
)
def test_linear_layers_are_convolutions_on_amd_with_avx512(description, expected, tmp_path):
    if description is not None:
        (tmp_path / "cpuinfo").write_text(description)
    assert convolutions_win(str(tmp_path / "cpuinfo")) is expected


@pytest.mark.parametrize("norm", [GROUP, LAYER])
def test_stretches_of_an_utterance_give_its_frames_and_gradients(norm, monkeypatch):
    layers = make_model(**norm).hf.wav2vec2.feature_extractor.conv_layers
    wavs, lens = 0.1 * torch.randn(2, 9000), [9000, 5003]
    results = []
    for longest in (2**30, 16 * 700, 1):
        monkeypatch.setitem(STRETCH, "cpu", longest)
        frames = extract(layers, wavs, lens, torch.float32)
        gradients = torch.autograd.grad((frames * frames.detach().cos()).sum(), list(layers.parameters()))
        results.append([frames, *gradients])
    for other in results[1:]:
        for one, expected in zip(other, results[0], strict=True):
            assert (one - expected).norm() <= 1e-5 * expected.norm() + 1e-6


@pytest.mark.parametrize("norm", [GROUP, LAYER], ids=["group", "layer"])
@pytest.mark.parametrize("lens", [[4000, 4000], [4000, 1501, 2600]], ids=["equal", "ragged"])
def test_a_step_of_plain_kernels_has_the_same_losses_and_gradients(norm, lens, monkeypatch):
    model = make_model(**norm, **QUIET)
    batch = make_batch(model, lens)
    noise = torch.randn(len(batch[3]), 2, 20)

    def step():
        model.zero_grad()
        output = call(model, *batch, noise)
        (output.contrastive + output.diversity + output.penalty).backward()
        return output.contrastive.detach(), {n: p.grad for n, p in model.named_parameters()}

    loss, gradients = step()
    called = []
    for place, name in (
        (model_module, "extract"), (model_module, "positions"), (model_module, "linear"),
        (model_module, "attend"), (linear_module, "linear"),
    ):  # fmt: skip
        function = getattr(plain, name.removesuffix("_heads"))
        noted = lambda *a, name=name, function=function: called.append(name) or function(*a)  # noqa: E731
        monkeypatch.setattr(place, name, noted)
    plain_loss, plain_gradients = step()
    assert set(called) == {"extract", "positions", "linear", "attend"}
    torch.testing.assert_close(loss, plain_loss, rtol=1e-5, atol=1e-5)
    scale = max(float(g.abs().max()) for g in plain_gradients.values())
    for name, gradient in plain_gradients.items():
        torch.testing.assert_close(gradients[name], gradient, rtol=1e-3, atol=1e-5 * scale, msg=name)


@pytest.mark.parametrize("norm", [GROUP, LAYER])
def test_a_batch_equals_its_utterances_alone(norm):
    model = make_model(**norm).eval()
    lens, ids = [9000, 5000, 70, 7000], list("abcd")
    wavs, sample_lens, mask, negatives, _ = make_batch(model, lens, ids)
    together = call(model, wavs, sample_lens, mask, negatives, 2.0)
    contrastive, counts = 0, 0
    for wav, length, name in zip(wavs, lens, ids, strict=True):
        one = torch.tensor([length])
        own = draw_masks(model.frame_lengths(one), [name], 0, 0, 0.65, 10, 2, 20)
        alone = call(model, wav[None, :length], one, *own, 2.0)
        contrastive, counts = contrastive + alone.contrastive, counts + alone.code_counts
    torch.testing.assert_close(together.contrastive, contrastive, rtol=1e-5, atol=0)
    assert (together.code_counts == counts).all()
    assert together.code_counts.sum(dim=1).tolist() == [together.num_masked] * 2


@pytest.mark.parametrize("norm", [GROUP, LAYER])
def test_samples_after_the_end_of_an_utterance_change_nothing(norm):
    model = make_model(**norm).eval()
    batch = make_batch(model, [9000, 5000])
    before = call(model, *batch)
    batch[0][1, 5000:] = 3.0
    assert call(model, *batch).contrastive == before.contrastive


def extractor_gradients(model, batch, loss_of):
    model.zero_grad()
    loss_of(call(model, *batch)).backward()
    return [p.grad.clone() for p in model.hf.wav2vec2.feature_extractor.parameters()]


@pytest.mark.parametrize("norm", [GROUP, LAYER])
def test_penalty_is_the_mean_square_of_the_extractor_over_valid_frames(norm):
    model = make_model(**norm)
    batch = make_batch(model, [9000, 5000])
    ours = extractor_gradients(model, batch, lambda output: output.penalty)
    model.zero_grad()
    extractor = model.hf.wav2vec2.feature_extractor
    frames = [extractor(wav[None, :n])[0] for wav, n in zip(batch[0], [9000, 5000], strict=True)]
    expected = sum(z.square().sum() for z in frames) / sum(z.numel() for z in frames)
    expected.backward()
    torch.testing.assert_close(call(model, *batch).penalty, expected)
    for one, parameter in zip(ours, extractor.parameters(), strict=True):
        torch.testing.assert_close(one, parameter.grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("norm", [GROUP, LAYER])
def test_gradient_scale_reaches_the_extractor_only(norm):
    full, scaled = make_model(**norm, **QUIET), make_model(0.1, **norm, **QUIET)
    batch = make_batch(full, [9000, 5000])
    noise = torch.randn(len(batch[3]), 2, 20)

    def loss_of(output):
        return output.contrastive + output.diversity + 10 * output.penalty

    ours = extractor_gradients(scaled, (*batch, noise), loss_of)
    for one, expected in zip(ours, extractor_gradients(full, (*batch, noise), loss_of), strict=True):
        assert (one - 0.1 * expected).norm() <= 1e-5 * expected.norm() + 1e-8
    others = zip(scaled.named_parameters(), full.parameters(), strict=True)
    for (name, one), other in others:
        if "feature_extractor" not in name:
            torch.testing.assert_close(one.grad, other.grad, rtol=1e-5, atol=1e-6)


def test_gradient_scale_zero_freezes_the_extractor():
    model = make_model(0, **GROUP)
    output = call(model, *make_batch(model, [9000]))
    (output.contrastive + output.penalty).backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is None) == ("feature_extractor" in name), name


@pytest.mark.parametrize("norm", [GROUP, LAYER])
@pytest.mark.parametrize("layerdrop", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("lens", [[9000, 5000], [9000, 70], [200, 170]])
def test_every_parameter_gets_a_finite_gradient_in_every_call(norm, layerdrop, lens):
    """Also when layers are dropped and when no utterance is long enough for a mask: DDP waits for all of
    them"""
    model = make_model(**{**norm, "layerdrop": layerdrop})
    output = call(model, *make_batch(model, lens))
    (output.contrastive + 0.1 * output.diversity + 10 * output.penalty).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name


def test_only_the_losses_carry_a_gradient():
    model = make_model(**GROUP)
    output = call(model, *make_batch(model, [9000]))
    carrying = {name for name, value in vars(output).items() if getattr(value, "requires_grad", False)}
    assert carrying == {"contrastive", "diversity", "penalty"}


@pytest.mark.parametrize("norm", [GROUP, LAYER])
def test_bfloat16_autocast_keeps_the_losses_in_float32_and_near(norm):
    model = make_model(**norm, **QUIET)
    batch = make_batch(model, [9000, 5000])
    noise = torch.randn(len(batch[3]), 2, 20)
    exact = call(model, *batch, noise)
    with torch.autocast("cpu", torch.bfloat16):
        output = call(model, *batch, noise)
    loss = output.contrastive + output.diversity + output.penalty
    loss.backward()
    assert loss.dtype == torch.float32
    assert output.contrastive.item() == pytest.approx(exact.contrastive.item(), rel=0.03)
    assert all(p.grad.isfinite().all() and p.grad.dtype == torch.float32 for p in model.parameters())


def test_bfloat16_gradients_point_where_float32_ones_do():
    model = make_model(**LAYER, **QUIET)
    batch = make_batch(model, [9000, 5000])
    exact = torch.cat([g.flatten() for g in extractor_gradients(model, batch, lambda o: o.penalty)])
    with torch.autocast("cpu", torch.bfloat16):
        rounded = torch.cat([g.flatten() for g in extractor_gradients(model, batch, lambda o: o.penalty)])
    assert torch.cosine_similarity(exact, rounded, dim=0) > 0.99


def test_evaluation_repeats_and_ignores_temperature_and_noise():
    model = make_model(**GROUP).eval()
    *batch, _ = make_batch(model, [9000, 5000])
    with torch.no_grad():
        assert call(model, *batch, 2.0).contrastive == call(model, *batch, 0.5).contrastive


def test_dropouts_of_the_config_are_active_in_training():
    for name in QUIET:
        model = make_model(**LAYER, **{**QUIET, name: 0.5})
        batch = make_batch(model, [9000, 5000])
        noise = torch.randn(len(batch[3]), 2, 20)
        assert call(model, *batch, noise).contrastive != call(model, *batch, noise).contrastive, name
    model = make_model(**LAYER, **QUIET)
    assert call(model, *batch, noise).contrastive == call(model, *batch, noise).contrastive


def test_layerdrop_skips_layers_as_often_as_asked():
    model = make_model(**{**LAYER, **QUIET, "layerdrop": 0.3})
    batch = make_batch(model, [5000])
    calls = []
    for layer in model.hf.wav2vec2.encoder.layers:
        layer.feed_forward.output_dropout.register_forward_hook(lambda *_: calls.append(1))
    for _ in range(200):
        call(model, *batch)
    assert len(calls) / 600 == pytest.approx(0.7, abs=0.07)


def test_state_dict_keeps_the_names_of_transformers():
    model = make_model(**GROUP)
    fresh = Wav2Vec2ForPreTraining(model.hf.config)
    assert model.hf.state_dict().keys() == fresh.state_dict().keys()
    fresh.load_state_dict(model.hf.state_dict(), strict=True)


def test_one_step_changes_every_parameter():
    model = make_model(**LAYER, **QUIET)
    before = copy.deepcopy(model.state_dict())
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.0)
    output = call(model, *make_batch(model, [9000, 5000]))
    (output.contrastive + output.diversity + output.penalty).backward()
    optimizer.step()
    # a bias of the keys shifts all logits of a query alike: its gradient is rounding noise around zero
    same = [k for k, v in model.state_dict().items() if (v == before[k]).all() and "k_proj.bias" not in k]
    assert same == []


@pytest.mark.parametrize("damage", ["padding", "missing", "negatives"])
def test_masks_of_another_batch_are_refused(damage):
    model = make_model(**GROUP)
    wavs, lens, mask, negatives, temperature = make_batch(model, [9000, 5000])
    if damage == "padding":
        mask[1, -1] = True
    elif damage == "missing":
        mask = mask[:, :-5]
    else:
        negatives = negatives[1:]
    with pytest.raises(ValueError, match="draw_masks"):
        call(model, wavs, lens, mask, negatives, temperature)


@pytest.mark.parametrize(
    "setting", [dict(mask_time_prob=0.0), dict(feat_extract_activation="relu"), dict(add_adapter=True)]
)
def test_configs_of_other_models_are_refused_by_name(setting):
    with pytest.raises(ValueError, match=next(iter(setting))):
        make_model(**setting)


@pytest.mark.parametrize("norm", [GROUP, LAYER])
def test_steps_through_distributed_data_parallel_even_without_masked_frames(norm, tmp_path):
    torch.distributed.init_process_group("gloo", f"file://{tmp_path}/store", world_size=1, rank=0)
    try:
        model = make_model(**{**norm, "layerdrop": 0.5})
        wrapped = torch.nn.parallel.DistributedDataParallel(model)
        for lens in ([9000, 5000], [200], [9000]):
            output = call(wrapped, *make_batch(model, lens))
            (output.contrastive + output.diversity + output.penalty).backward()
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.parametrize("norm", [GROUP, LAYER])
def test_activation_checkpointing_changes_neither_losses_nor_gradients(norm):
    model = make_model(**norm)
    again = copy.deepcopy(model)
    again.activation_checkpointing = True
    batch = make_batch(model, [9000, 5000])
    found = []
    for one in (model, again):
        torch.manual_seed(3)  # dropout is on
        output = call(one, *batch)
        (output.contrastive + output.diversity + output.penalty).backward()
        found.append([output.contrastive, *(p.grad for p in one.parameters())])
    for ours, expected in zip(*found, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-6)


def test_activation_checkpointing_computes_the_layers_twice():
    model = make_model(**LAYER)
    model.activation_checkpointing = True
    calls = []
    for layer in model.hf.wav2vec2.encoder.layers:
        layer.feed_forward.intermediate_dropout.register_forward_hook(lambda *_: calls.append(1))
    call(model, *make_batch(model, [5000])).contrastive.backward()
    assert len(calls) == 2 * len(model.hf.wav2vec2.encoder.layers)


@pytest.mark.slow
@pytest.mark.parametrize("norm", [GROUP, LAYER])
def test_compiled_blocks_give_the_same_step_at_any_length_without_new_kernels(norm):
    model = make_model(**norm, **QUIET)
    compiled = copy.deepcopy(model)
    compiled.compile_blocks()
    for lens in ([9000, 5000], [8000, 7000, 3000], [9000, 9000]):
        batch = make_batch(model, lens)
        noise, found = torch.randn(len(batch[3]), 2, 20), []
        for one in (model, compiled):
            one.zero_grad()
            output = call(one, *batch, noise)
            (output.contrastive + output.diversity + output.penalty).backward()
            found.append([output.contrastive, *(p.grad for p in one.parameters())])
        for ours, expected in zip(*found, strict=True):
            torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5)
    made = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    assert 0 < made <= 2 * len(model.hf.wav2vec2.encoder.layers), made
    assert compiled.hf.state_dict().keys() == model.hf.state_dict().keys()
