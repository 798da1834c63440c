"""The Conformer step equals transformers' `Wav2Vec2ConformerForPreTraining` where that sees no padding, and a
batch gives what its utterances give alone."""

import copy
import json
import math

import pytest
import torch
import transformers
from no_waiting import no_reading
from scripts import pretrain
from test_parity import NO_DROPOUT, gradient, reference_step

from lebench_sb.encoders.encoder import load_encoder
from lebench_sb.encoders.model_folders import save_encoder
from lebench_sb.pretraining.build import build_model, make_conformer_config
from lebench_sb.pretraining.conformer import relative_scores
from lebench_sb.pretraining.masking import draw_masks
from lebench_sb.pretraining.model import PretrainingModel

POSITIONS = ["relative", "rotary", None]
SHAPE = dict(
    hidden_size=32, num_hidden_layers=3, num_attention_heads=4, intermediate_size=48,
    conv_dim=[16, 12, 16], conv_kernel=[10, 5, 3], conv_stride=[5, 8, 8], num_codevectors_per_group=20,
    codevector_dim=16, proj_codevector_dim=12, num_conv_pos_embeddings=8, num_conv_pos_embedding_groups=4,
    conv_depthwise_kernel_size=7, mask_time_prob=0.65,
)  # fmt: skip


def make_hf(positions="relative", norm="group", **changes):
    """With biases and norms far enough from 0 and 1 for every mistake to show"""
    torch.manual_seed(0)
    options = {**SHAPE, **NO_DROPOUT, "conformer_conv_dropout": 0.0, "feat_extract_norm": norm, **changes}
    config = transformers.Wav2Vec2ConformerConfig(position_embeddings_type=positions, **options)
    hf = transformers.Wav2Vec2ConformerForPreTraining(config)
    with torch.no_grad():
        for parameter in hf.base_model.encoder.parameters():
            if parameter.ndim == 1 or parameter.shape == (4, 8):
                parameter.add_(0.3 * torch.randn_like(parameter))
        for name, buffer in hf.named_buffers():
            if "running" in name:
                buffer.copy_(0.5 + torch.rand_like(buffer))
    return hf


def make_batch(model, lens, ids=None):
    torch.manual_seed(1)
    lens = torch.tensor(lens)
    wavs = 0.1 * torch.randn(len(lens), int(lens.max())) + 0.02
    wavs *= torch.arange(wavs.shape[1]) < lens[:, None]
    ids = ids or [str(k) for k in range(len(lens))]
    return wavs, lens, *draw_masks(model.frame_lengths(lens), ids, 0, 0, 0.65, 10, 2, 30)


def call(model, wavs, lens, mask, negatives, noise=None):
    return model(wavs, model.layout(lens, mask, negatives), 2.0, noise)


@pytest.mark.parametrize("positions", POSITIONS)
@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("norm", ["group", "layer"])
def test_loss_gradients_and_running_statistics_equal_transformers(positions, count, norm, monkeypatch):
    """Training mode: batch normalisation uses the batch, here without padding in both"""
    model = PretrainingModel(make_hf(positions, norm)).train()
    reference = copy.deepcopy(model.hf)
    wavs, lens, mask, negatives = make_batch(model, [16000] * count)
    noise = -torch.empty(*mask.shape, 2, 20).exponential_().log()

    ours = call(model, wavs, lens, mask, negatives, noise[mask])
    loss = ours.contrastive + reference.config.diversity_loss_weight * ours.diversity * ours.num_masked
    loss.backward()
    theirs = reference_step(reference, wavs, mask, negatives, noise, monkeypatch, lens)

    assert loss.item() == pytest.approx(theirs.loss.item(), rel=1e-5)
    expected = gradient(reference)
    assert (gradient(model.hf) - expected).norm() <= 1e-4 * expected.norm() and expected.norm() > 0
    for (name, one), other in zip(model.hf.named_buffers(), reference.buffers(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.parametrize("positions", POSITIONS)
def test_evaluation_equals_transformers_on_one_utterance(positions):
    model = PretrainingModel(make_hf(positions)).eval()
    wavs, lens, mask, negatives = make_batch(model, [12345])
    places = torch.zeros(*mask.shape, 30, dtype=torch.long)
    places[mask] = mask.flatten().nonzero().flatten()[negatives]
    with torch.no_grad():
        ours = call(model, wavs, lens, mask, negatives)
        theirs = model.hf(wavs, mask_time_indices=mask, sampled_negative_indices=places)
    assert ours.contrastive.item() == pytest.approx(theirs.contrastive_loss.item(), rel=1e-5)


@pytest.mark.parametrize("positions", POSITIONS)
@pytest.mark.parametrize("lens", [[16000, 9000, 70, 12345], [9000, 9000]])
def test_a_batch_equals_its_utterances_alone(positions, lens):
    model = PretrainingModel(make_hf(positions)).eval()
    ids = list("abcd")[: len(lens)]
    wavs, sample_lens, mask, negatives = make_batch(model, lens, ids)
    together = call(model, wavs, sample_lens, mask, negatives)
    contrastive, counts = 0, 0
    for wav, length, name in zip(wavs, lens, ids, strict=True):
        one = torch.tensor([length])
        own = draw_masks(model.frame_lengths(one), [name], 0, 0, 0.65, 10, 2, 30)
        alone = call(model, wav[None, :length], one, *own)
        contrastive, counts = contrastive + alone.contrastive, counts + alone.code_counts
    torch.testing.assert_close(together.contrastive, contrastive, rtol=1e-5, atol=0)
    assert (together.code_counts == counts).all()


def test_padding_enters_no_statistics():
    """Training: the running mean and variance of a ragged batch do not depend on what lies behind the ends"""
    found = []
    for filling in (0.0, 5.0):
        model = PretrainingModel(make_hf()).train()
        batch = make_batch(model, [9000, 16000])
        batch[0][0, 9000:] = filling
        loss = call(model, *batch, torch.zeros(len(batch[3]), 2, 20)).contrastive
        found.append([loss, *(b.clone() for n, b in model.hf.named_buffers() if "running" in n)])
    for one, other in zip(*found, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("frames", [1, 2, 5])
def test_relative_scores_are_query_times_the_code_of_the_distance(frames):
    queries, distances = torch.randn(2, 3, frames, 4), torch.randn(3, 4, 2 * 7 - 1)
    scores = relative_scores(queries, distances)
    for i in range(frames):
        for j in range(frames):
            expected = torch.einsum("bhd,hd->bh", queries[:, :, i], distances[..., 6 - (i - j)])
            torch.testing.assert_close(scores[:, :, i, j], expected)


def test_every_trained_weight_gets_a_gradient_with_every_layer_dropped_too():
    for layerdrop in (0.0, 1.0):
        model = PretrainingModel(make_hf(layerdrop=layerdrop)).train()
        call(model, *make_batch(model, [9000, 5000])).contrastive.backward()
        missing = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
        assert missing == []
    assert not any(p.requires_grad for p in model.hf.base_model.encoder.pos_conv_embed.parameters())


@pytest.mark.parametrize("positions", POSITIONS)
def test_checkpointing_changes_neither_losses_nor_gradients_nor_statistics(positions):
    model = PretrainingModel(make_hf(positions, hidden_dropout=0.1, conformer_conv_dropout=0.1)).train()
    again = copy.deepcopy(model)
    again.activation_checkpointing = True
    batch, found = make_batch(model, [9000, 5000]), []
    for one in (model, again):
        torch.manual_seed(3)
        loss = call(one, *batch).contrastive
        loss.backward()
        grads = [p.grad for p in one.parameters() if p.requires_grad]
        found.append([loss, *grads, *(b for n, b in one.hf.named_buffers() if "running" in n)])
    for ours, expected in zip(*found, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("positions", POSITIONS)
def test_a_step_reads_no_value_back(positions, monkeypatch):
    model = PretrainingModel(make_hf(positions)).train()
    wavs, lens, mask, negatives = make_batch(model, [9000, 5000])
    layout = model.layout(lens, mask, negatives)
    with no_reading(monkeypatch):
        model(wavs, layout, 2.0).contrastive.backward()


@pytest.mark.parametrize("positions", POSITIONS)
@pytest.mark.parametrize("lens", [[9000, 9000], [9000, 5000]])
def test_bfloat16_is_near(positions, lens):
    model = PretrainingModel(make_hf(positions)).train()
    batch = make_batch(model, lens)
    noise = torch.randn(len(batch[3]), 2, 20)
    exact = call(model, *batch, noise).contrastive
    with torch.autocast("cpu", torch.bfloat16):
        near = call(model, *batch, noise).contrastive
    assert near.dtype == torch.float32 and near.item() == pytest.approx(exact.item(), rel=0.05)


@pytest.fixture(scope="module")
def trained(root, manifests, tmp_path_factory):
    """The folder of a run of `base-conformer.yaml`, small and short, in the precision of the YAML"""
    words = [word for word in manifests if "test" not in word.rpartition("/")[2]]
    options = {
        "config": "{hidden_size: 16, intermediate_size: 32, num_attention_heads: 2, num_hidden_layers: 2, "
        "conv_dim: [16, 16, 16, 16, 16, 16, 16]}",
        "number_of_updates": 3, "max_batch_seconds": 6, "num_workers": 0, "min_duration": 1.0,
    }  # fmt: skip
    return pretrain(root, "base-conformer", words, tmp_path_factory.mktemp("conformer") / "run", **options)


def test_a_run_trains_and_its_folders_load_whole(trained):
    steps = [json.loads(line) for line in (trained / "steps.jsonl").read_text().splitlines()]
    assert [s["step"] for s in steps if s["stage"] == "train"] == [1, 2, 3]
    assert all(math.isfinite(s["loss"]) for s in steps if s["stage"] == "train")
    for kind, name in (
        (transformers.AutoModel, "encoder"),
        (transformers.Wav2Vec2ConformerForPreTraining, "pretraining"),
    ):
        _, report = kind.from_pretrained(trained / name, output_loading_info=True)
        assert not report["missing_keys"] and not report["unexpected_keys"]
    frames, lens = load_encoder(trained / "encoder")(torch.randn(1, 16000), torch.ones(1))
    assert frames.shape == (1, 49, 16) and lens.tolist() == [49]


def test_another_run_continues_it(trained, caplog):
    config = make_conformer_config(mask_time_prob=0.5)
    with caplog.at_level("INFO"):
        whole = build_model(config, str(trained / "pretraining"), 1.0, 0)
    assert "start fresh: none" in caplog.text
    kept = transformers.Wav2Vec2ConformerForPreTraining.from_pretrained(trained / "pretraining").state_dict()
    assert all(torch.equal(v, kept[k]) for k, v in whole.hf.state_dict().items())
    assert whole.hf.config.mask_time_prob == 0.5
    with caplog.at_level("INFO"):
        part = build_model(config, str(trained / "encoder"), 1.0, 0)
    assert "quantizer.codevectors" in caplog.text.split("start fresh: ")[-1]
    assert torch.equal(part.hf.base_model.encoder.layers[1].ffn1.output_dense.weight,
                       kept["wav2vec2_conformer.encoder.layers.1.ffn1.output_dense.weight"])  # fmt: skip


def test_a_model_of_another_kind_is_refused(tmp_path):
    config = transformers.HubertConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2)
    config.conv_dim = [8] * 7
    config.num_conv_pos_embedding_groups = 2
    save_encoder(transformers.HubertModel(config), tmp_path / "hubert", False)
    with pytest.raises(
        ValueError, match="is a hubert: this recipe continues wav2vec2 and wav2vec2-conformer"
    ):
        build_model(make_conformer_config(), str(tmp_path / "hubert"), 1.0, 0)


def test_an_unknown_setting_is_refused():
    with pytest.raises(ValueError, match="no setting of Wav2Vec2ConformerConfig"):
        make_conformer_config(conv_depthwise_kernel=31)
