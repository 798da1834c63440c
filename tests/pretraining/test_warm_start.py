"""A warm start never changes what was given: before the first update only fresh weights are fitted."""

import pytest
import torch
from scripts import pretrain
from test_initialise import CONFIG, noise
from transformers import Wav2Vec2ForPreTraining

from lebench_sb.encoders.model_folders import save_encoder
from lebench_sb.pretraining.build import build_model, make_config
from lebench_sb.pretraining.initialise import init_quantizer
from lebench_sb.training.updates import Updates

LENS = torch.tensor([16000, 16000, 12000, 8000])
QUANTISER = ("quantizer.weight_proj.weight", "quantizer.weight_proj.bias", "quantizer.codevectors")


def given(folder, without=()):
    """Writes a model with random weights but those that begin with one of `without` -> its state"""
    torch.manual_seed(5)
    model = Wav2Vec2ForPreTraining(make_config(**CONFIG))
    kept = {n: v for n, v in model.state_dict().items() if not n.startswith(tuple(without) or ("?",))}
    save_encoder(model, folder, True)
    model.save_pretrained(folder, state_dict=dict(kept))  # which it empties
    return kept


@pytest.mark.parametrize(
    "without",
    [(), QUANTISER[2:], QUANTISER[:2], QUANTISER[:1], ("quantizer.", "project_"), ("masked_spec_embed",)],
    ids=lambda names: " ".join(names) or "nothing",
)
def test_only_fresh_weights_of_the_quantiser_are_fitted(tmp_path, without):
    kept = given(tmp_path / "model", without)
    model = build_model(make_config(**CONFIG), str(tmp_path / "model"), 1.0, 0)
    before = {name: value.clone() for name, value in model.hf.state_dict().items()}
    assert all(torch.equal(before[name], value) for name, value in kept.items())
    fresh = [name for name in QUANTISER if name not in kept]
    assert model.fresh_quantiser() == bool(fresh)
    init_quantizer(model, noise(0), LENS)
    after = model.hf.state_dict()
    changed = {name for name in after if not torch.equal(after[name], before[name])}
    assert not changed & set(kept)
    if fresh != [QUANTISER[0]]:  # a projection is fitted with its bias, or not at all
        assert changed == set(fresh)


def test_a_model_of_random_weights_is_all_fresh():
    model = build_model(make_config(**CONFIG), "", 1.0, 0, start="filterbank")
    assert model.fresh_quantiser() and all(map(model.is_fresh, QUANTISER))


@pytest.mark.parametrize(
    "without",
    [(), pytest.param(("quantizer.", "project_"), marks=pytest.mark.slow)],
    ids=["whole", "encoder alone"],
)
def test_mini_begins_with_every_weight_it_was_given(root, manifests, tmp_path, monkeypatch, without):
    """All that mini.yaml does at the start: filterbank, log-mel, balanced codes, up to the first update"""
    kept, seen = given(tmp_path / "model", without), {}

    def noted(updates, norm):
        seen.update({name: value.clone() for name, value in updates.brain.model.hf.state_dict().items()})
        raise KeyboardInterrupt

    monkeypatch.setattr(Updates, "step_if_finite", noted)
    words = [word for word in manifests if "test" not in word.rpartition("/")[2]]
    options = {"init_from": tmp_path / "model", "num_workers": 0, "max_batch_seconds": 6, "max_crop": 1.0,
               "number_of_updates": 1, "precision": "fp32", "eval_precision": "fp32"}  # fmt: skip
    words += [f"--{key}={value}" for key, value in options.items()]
    with pytest.raises(KeyboardInterrupt):
        pretrain(root, "mini", words, tmp_path / "run")
    assert kept and [name for name, value in kept.items() if not torch.equal(seen[name], value)] == []
