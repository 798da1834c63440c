"""The filterbank start and the balanced quantiser do what they promise."""

import torch
from safetensors.torch import load_file
from scripts import pretrain
from transformers import Wav2Vec2ForPreTraining

from lebench_sb.pretraining.build import build_model, make_config
from lebench_sb.pretraining.initialise import band_pass_filters, init_quantizer
from lebench_sb.pretraining.losses import perplexity

CONFIG = dict(
    conv_dim=[16, 16], conv_kernel=[160, 8], conv_stride=[40, 8], hidden_size=16, num_hidden_layers=1,
    num_attention_heads=2, intermediate_size=16, num_conv_pos_embeddings=4, num_conv_pos_embedding_groups=2,
    codevector_dim=8, proj_codevector_dim=8, num_codevectors_per_group=64, feat_extract_norm="layer",
    conv_bias=True, do_stable_layer_norm=True, mask_time_prob=0.65,
)  # fmt: skip


def test_each_pair_of_filters_answers_most_to_its_own_frequency():
    filters = band_pass_filters(32, 400)
    centres = torch.fft.rfft(filters, 16000).abs().argmax(dim=1)
    assert torch.equal(centres.view(-1, 2).max(1).values, centres.view(-1, 2).max(1).values.sort().values)
    assert 40 <= centres[0] <= 90 and 7500 <= centres[-1] <= 7700
    torch.testing.assert_close(filters.norm(dim=1), torch.ones(32))


def noise(seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(4, 16000, generator=generator).cumsum(1).diff(dim=1, prepend=torch.zeros(4, 1))


def used_codes(model, wavs, lens):
    logits = model.quantizer_logits(model.valid_features(wavs, lens))
    chosen = torch.nn.functional.one_hot(logits.argmax(-1), logits.shape[-1]).float().mean(0)
    return [float(perplexity(group)) for group in chosen]


def test_balancing_centres_the_codes_and_spreads_their_use():
    model = build_model(make_config(**CONFIG), "", 1.0, 0, start="filterbank").eval()
    wavs, lens = noise(0), torch.tensor([16000, 16000, 12000, 8000])
    with torch.no_grad():
        before = used_codes(model, wavs, lens)
        init_quantizer(model, wavs, lens)
        after = used_codes(model, wavs, lens)
        means = model.quantizer_logits(model.valid_features(wavs, lens)).mean(0)
    assert means.abs().max() < 1e-3
    assert all(b > a for a, b in zip(before, after, strict=True))
    assert abs(float(model.hf.quantizer.codevectors.mean())) < 0.1


def test_frames_that_are_not_finite_take_no_part_in_balancing():
    """A batch with a broken utterance balances as the others alone; one of nothing else changes nothing"""
    whole, without, broken = (
        build_model(make_config(**CONFIG), "", 1.0, 0, start="filterbank").eval() for _ in range(3)
    )
    wavs, lens = noise(0), torch.tensor([16000, 16000, 12000, 8000])
    wavs[1] = torch.nan
    kept = torch.tensor([0, 2, 3])
    assert init_quantizer(whole, wavs, lens) and init_quantizer(without, wavs[kept], lens[kept])
    torch.testing.assert_close(whole.hf.quantizer.state_dict(), without.hf.quantizer.state_dict())
    before = {name: value.clone() for name, value in broken.hf.quantizer.state_dict().items()}
    assert not init_quantizer(broken, wavs[1:2], lens[1:2])
    torch.testing.assert_close(broken.hf.quantizer.state_dict(), before, rtol=0, atol=0)


def test_the_choice_of_codes_stays_until_its_targets_learn(root, tiny_pretraining, tmp_path):
    def trained(updates, after):
        words = {"number_of_updates": updates, "valid_every_updates": updates, "num_workers": 0}
        words |= {"freeze_targets_updates": after}
        folder = pretrain(root, "mini", tiny_pretraining, tmp_path / f"{updates}-{after}", **words)
        return load_file(folder / "pretraining" / "model.safetensors")

    one, two, learning = trained(1, 3), trained(3, 3), trained(3, 0)
    chooses = ("feature_extractor.", "feature_projection.layer_norm.", "quantizer.weight_proj.")
    for name, weight in one.items():
        stays = any(part in name for part in chooses)
        assert torch.equal(weight, two[name]) == stays, name
        assert not stays or not torch.equal(weight, learning[name]), name


def test_a_continued_model_keeps_every_weight_and_says_what_starts_fresh(tmp_path, caplog):
    source = Wav2Vec2ForPreTraining(make_config(**CONFIG))
    source.save_pretrained(tmp_path / "whole")
    source.wav2vec2.save_pretrained(tmp_path / "encoder")
    whole = build_model(make_config(**CONFIG), str(tmp_path / "whole"), 1.0, 0)
    assert all(torch.equal(v, source.state_dict()[k]) for k, v in whole.hf.state_dict().items())
    with caplog.at_level("INFO"):
        part = build_model(make_config(**CONFIG), str(tmp_path / "encoder"), 1.0, 0)
    assert "quantizer.codevectors" in caplog.text
    kept = source.wav2vec2.state_dict()
    assert all(torch.equal(v, kept[k]) for k, v in part.hf.wav2vec2.state_dict().items())


def test_an_unknown_setting_of_the_model_is_refused():
    import pytest

    with pytest.raises(ValueError, match="hidden_size"):
        make_config(hiden_size=3)
