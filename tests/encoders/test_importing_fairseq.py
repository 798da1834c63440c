"""A checkpoint laid out as fairseq's Trainer lays it out becomes Hugging Face folders, optimiser included."""

import argparse
import json
import os
import shutil
import sys
import types

import pytest
import torch
import transformers
from scripts import pretrain

from lebench_sb.core.errors import UsageError
from lebench_sb.encoders.encoder import load_encoder
from lebench_sb.encoders.importing.command import import_checkpoint
from lebench_sb.encoders.importing.fairseq import convolutions
from lebench_sb.pretraining.build import build_model, make_config
from lebench_sb.training.checkpoints import best_checkpoint

CONV, HIDDEN, INNER, FINAL, CODES = 12, 16, 24, 10, 5
MODEL = {
    "extractor_mode": "layer_norm", "encoder_layers": 2, "encoder_embed_dim": HIDDEN,
    "encoder_ffn_embed_dim": INNER, "encoder_attention_heads": 2, "activation_fn": "gelu", "dropout": 0.0,
    "attention_dropout": 0.05, "activation_dropout": 0.0, "encoder_layerdrop": 0.0, "dropout_input": 0.15,
    "dropout_features": 0.2, "final_dim": FINAL, "layer_norm_first": True,
    "conv_feature_layers": f"[({CONV}, 10, 5)] + [({CONV},8,8)] * 2", "conv_bias": True, "logit_temp": 0.2,
    "quantize_targets": True, "latent_vars": CODES, "latent_groups": 2, "latent_dim": 0, "mask_prob": 0.6,
    "mask_length": 4, "num_negatives": 50, "conv_pos": 8, "conv_pos_groups": 2,
}  # fmt: skip
CFG = {"model": MODEL, "task": {"normalize": True}, "criterion": {"loss_weights": [0.3, 10]}}


def weights_of(layer_norm=True, conv=CONV):
    """The state of fairseq's Wav2Vec2Model, in the order in which it registers its parameters"""
    shapes = {"mask_emb": (HIDDEN,)}
    for number in range(3):
        kernel = (10, 8, 8)[number]
        shapes[f"feature_extractor.conv_layers.{number}.0.weight"] = (conv, conv if number else 1, kernel)
        if layer_norm:
            shapes[f"feature_extractor.conv_layers.{number}.0.bias"] = (conv,)
        if layer_norm or not number:
            place = "2.1" if layer_norm else "2"
            shapes[f"feature_extractor.conv_layers.{number}.{place}.weight"] = (conv,)
            shapes[f"feature_extractor.conv_layers.{number}.{place}.bias"] = (conv,)
    if conv != HIDDEN:
        shapes |= {"post_extract_proj.weight": (HIDDEN, conv), "post_extract_proj.bias": (HIDDEN,)}
    shapes |= {
        "quantizer.vars": (1, 2 * CODES, FINAL // 2),
        "quantizer.weight_proj.weight": (2 * CODES, conv),
        "quantizer.weight_proj.bias": (2 * CODES,),
        "project_q.weight": (FINAL, FINAL),
        "project_q.bias": (FINAL,),
        "encoder.pos_conv.0.bias": (HIDDEN,),
        "encoder.pos_conv.0.weight_g": (1, 1, 8),
        "encoder.pos_conv.0.weight_v": (HIDDEN, HIDDEN // 2, 8),
    }
    for number in range(2):
        layer = f"encoder.layers.{number}."
        for name in ("k_proj", "v_proj", "q_proj", "out_proj"):
            shapes |= {
                f"{layer}self_attn.{name}.weight": (HIDDEN, HIDDEN),
                f"{layer}self_attn.{name}.bias": (HIDDEN,),
            }
        shapes |= {f"{layer}self_attn_layer_norm.{kind}": (HIDDEN,) for kind in ("weight", "bias")}
        shapes |= {f"{layer}fc1.weight": (INNER, HIDDEN), f"{layer}fc1.bias": (INNER,)}
        shapes |= {f"{layer}fc2.weight": (HIDDEN, INNER), f"{layer}fc2.bias": (HIDDEN,)}
        shapes |= {f"{layer}final_layer_norm.{kind}": (HIDDEN,) for kind in ("weight", "bias")}
    shapes |= {f"encoder.layer_norm.{kind}": (HIDDEN,) for kind in ("weight", "bias")}
    shapes |= {f"layer_norm.{kind}": (conv,) for kind in ("weight", "bias")}
    shapes |= {"final_proj.weight": (FINAL, HIDDEN), "final_proj.bias": (FINAL,)}
    torch.manual_seed(0)
    return {name: torch.randn(shape) for name, shape in shapes.items()}


def optimizer_state(weights, flat):
    """That of fairseq's Adam: one vector of all weights (fp16), or a tensor for each"""
    states = [(tensor * 0.01, tensor.square() * 0.001) for tensor in weights.values()]
    if flat:
        states = [tuple(torch.cat([m.flatten() for m in kind]) for kind in zip(*states, strict=True))]
    state = {
        index: {"step": 500, "exp_avg": mean, "exp_avg_sq": square}
        for index, (mean, square) in enumerate(states)
    }
    return {"state": state, "param_groups": [{"lr": 1e-4, "params": list(state)}], "loss_scale": 8.0}


@pytest.fixture
def write(tmp_path):
    """Writes a checkpoint -> its path; `changes` replace its parts"""

    def write(**changes):
        weights = changes.get("model") or weights_of()
        whole = {
            "args": None, "cfg": CFG, "model": weights, "criterion": None,
            "optimizer_history": [{"num_updates": 500}], "task_state": {},
            "extra_state": {"epoch": 3, "train_iterator": {"epoch": 3}},
            "last_optimizer_state": optimizer_state(weights, flat=True),
        }  # fmt: skip
        torch.save(whole | changes, tmp_path / "checkpoint_best.pt")
        return tmp_path / "checkpoint_best.pt"

    return write


def test_weights_and_settings(write, tmp_path):
    path = write()
    folders = import_checkpoint(path.parent, None, tmp_path / "imported")
    assert [folder.name for folder in folders] == ["encoder", "pretraining"]
    model, report = transformers.Wav2Vec2ForPreTraining.from_pretrained(folders[1], output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    ours, theirs = model.state_dict(), weights_of()
    assert sum(t.numel() for t in ours.values()) == sum(t.numel() for t in theirs.values())
    for name, fairseq_name in (
        ("wav2vec2.masked_spec_embed", "mask_emb"),
        ("wav2vec2.feature_extractor.conv_layers.2.conv.bias", "feature_extractor.conv_layers.2.0.bias"),
        (
            "wav2vec2.feature_extractor.conv_layers.1.layer_norm.weight",
            "feature_extractor.conv_layers.1.2.1.weight",
        ),
        ("wav2vec2.feature_projection.layer_norm.weight", "layer_norm.weight"),
        ("wav2vec2.feature_projection.projection.weight", "post_extract_proj.weight"),
        (
            "wav2vec2.encoder.pos_conv_embed.conv.parametrizations.weight.original0",
            "encoder.pos_conv.0.weight_g",
        ),
        ("wav2vec2.encoder.layers.1.attention.v_proj.weight", "encoder.layers.1.self_attn.v_proj.weight"),
        ("wav2vec2.encoder.layers.1.layer_norm.bias", "encoder.layers.1.self_attn_layer_norm.bias"),
        ("wav2vec2.encoder.layers.0.feed_forward.output_dense.weight", "encoder.layers.0.fc2.weight"),
        ("wav2vec2.encoder.layers.0.final_layer_norm.weight", "encoder.layers.0.final_layer_norm.weight"),
        ("wav2vec2.encoder.layer_norm.weight", "encoder.layer_norm.weight"),
        ("quantizer.codevectors", "quantizer.vars"),
        ("project_hid.weight", "final_proj.weight"),
        ("project_q.weight", "project_q.weight"),
    ):
        assert torch.equal(ours[name], theirs[fairseq_name]), name
    config = model.config
    assert (
        config.conv_stride == [5, 8, 8]
        and config.feat_extract_norm == "layer"
        and config.do_stable_layer_norm
    )
    assert (config.feat_proj_dropout, config.feat_quantizer_dropout, config.attention_dropout) == (
        0.15,
        0.2,
        0.05,
    )
    assert (config.contrastive_logits_temperature, config.diversity_loss_weight) == (0.2, 0.3)
    assert (config.mask_time_prob, config.mask_time_length, config.num_negatives) == (0.6, 4, 50)
    assert transformers.AutoFeatureExtractor.from_pretrained(folders[0]).do_normalize is True
    assert json.loads((folders[0] / "import.json").read_text())["optimizer_updates"] == 500
    frames, _ = load_encoder(folders[0])(torch.randn(1, 8000), torch.ones(1))
    assert frames.isfinite().all() and frames.shape[2] == HIDDEN


def test_group_norm_and_equal_widths(write, tmp_path):
    """Base models: one group norm, after the first convolution; no projection between equal widths"""
    text = MODEL["conv_feature_layers"].replace(str(CONV), str(HIDDEN))
    model = MODEL | {
        "extractor_mode": "default", "layer_norm_first": False, "conv_bias": False,
        "conv_feature_layers": text,
    }  # fmt: skip
    weights = weights_of(layer_norm=False, conv=HIDDEN)
    path = write(model=weights, cfg=CFG | {"model": model, "task": {}})
    folder, _ = import_checkpoint(path, None, tmp_path / "imported")
    encoder = transformers.AutoModel.from_pretrained(folder)
    assert encoder.config.feat_extract_norm == "group"
    norm = encoder.feature_extractor.conv_layers[0].layer_norm
    assert torch.equal(norm.weight, weights["feature_extractor.conv_layers.0.2.weight"])
    assert torch.equal(encoder.feature_projection.projection.weight, torch.eye(HIDDEN))
    assert not encoder.feature_projection.projection.bias.any()
    assert transformers.AutoFeatureExtractor.from_pretrained(folder).do_normalize is False


@pytest.mark.parametrize("flat", [True, False])
def test_the_optimiser_goes_on(write, tmp_path, flat):
    weights = weights_of()
    path = write(last_optimizer_state=optimizer_state(weights, flat))
    _, folder = import_checkpoint(path, None, tmp_path / "imported")
    model = build_model(make_config(), str(folder), 1.0, 0, do_normalize=True, init_optimizer=True)
    names = dict(torch.nn.ModuleDict({"model": model}).named_parameters())
    assert model.optimizer_state.keys() == names.keys()
    for name, state in model.optimizer_state.items():  # they were made from the weights
        assert float(state["step"]) == 500
        torch.testing.assert_close(state["exp_avg"], names[name] * 0.01)
        torch.testing.assert_close(state["exp_avg_sq"], names[name].square() * 0.001)


def test_a_run_continues_the_optimiser(write, root, corpus, tiny_pretraining, tmp_path):
    _, folder = import_checkpoint(write(), None, tmp_path / "imported")
    words = [word for word in tiny_pretraining if not word.startswith("--config")]
    pretrain(
        root, "mini", words, tmp_path / "run", init_from=folder, init_optimizer=True, init_quantizer=False,
        number_of_updates=2, valid_every_updates=2, num_workers=0, max_crop=1.5, freeze_targets_updates=0,
    )  # fmt: skip
    state = torch.load(best_checkpoint(tmp_path / "run") / "optimizer.ckpt", weights_only=True)
    assert {int(entry["step"]) for entry in state["state"].values()} == {502}


def test_settings_of_older_releases(write, tmp_path):
    """A Namespace; and omegaconf's nodes, with enumerations, none of whose classes is imported"""
    flat = MODEL | {"normalize": True, "loss_weights": [0.3, 10]}
    path = write(cfg=None, args=argparse.Namespace(**flat), last_optimizer_state=None)
    _, expected = import_checkpoint(path, None, tmp_path / "first")

    module = types.ModuleType("omegaconf_of_old")
    for name in ("Node", "Choice"):
        setattr(module, name, type(name, (), {"__module__": module.__name__}))
    module.Choice.__reduce__ = lambda self: (module.Choice, ("layer_norm",))
    module.Choice.__new__ = lambda cls, *arguments: object.__new__(cls)

    def node(value):
        made = module.Node()
        if isinstance(value, dict):
            made._content = {key: node(part) for key, part in value.items()}
        elif isinstance(value, list):
            made._content = [node(part) for part in value]
        else:
            made._val = module.Choice() if value == "layer_norm" else value
        return made

    sys.modules[module.__name__] = module
    try:
        path = write(cfg=node(CFG), last_optimizer_state=None)
    finally:
        del sys.modules[module.__name__]
    _, found = import_checkpoint(path, None, tmp_path / "second")
    for folder in (expected, found):
        assert not (folder / "optimizer_state.safetensors").exists()
    assert (expected / "config.json").read_text() == (found / "config.json").read_text()


def test_the_optimiser_of_other_weights_is_left_out(write, tmp_path, caplog):
    path = write(last_optimizer_state=optimizer_state({"a": torch.ones(7)}, flat=True))
    _, folder = import_checkpoint(path, None, tmp_path / "imported")
    assert "left out, it is not of these weights: exp_avg has 1 tensors of 7 numbers" in caplog.text
    with pytest.raises(UsageError, match="has no optimiser state"):
        build_model(make_config(), str(folder), 1.0, 0, do_normalize=True, init_optimizer=True)


def spoilt(state):
    state["state"][0]["exp_avg"][3] = float("nan")
    return state


@pytest.mark.parametrize(
    "state",
    [
        spoilt(optimizer_state(weights_of(), flat=True)), {"state": [1]}, {"state": {0: 5}},
        {"state": {"a": {}}},
    ],
)  # fmt: skip
def test_an_optimiser_of_no_use_is_left_out(write, tmp_path, caplog, state):
    _, folder = import_checkpoint(write(last_optimizer_state=state), None, tmp_path / "imported")
    assert "the optimiser's state is left out, it is not Adam's, or not finite" in caplog.text
    assert not (folder / "optimizer_state.safetensors").exists()


class Harm:
    def __init__(self, *call):
        self.call = call

    def __reduce__(self):
        return self.call


def test_nothing_in_the_file_is_run(write, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="cannot be read"):  # torch refuses some modules whatever is allowed
        import_checkpoint(write(extra_state=Harm(os.mkdir, ("harm",))), None, tmp_path / "imported")
    (tmp_path / "there").mkdir()
    copy = Harm(shutil.copytree, ("there", "harm"))
    assert len(import_checkpoint(write(extra_state=copy), None, tmp_path / "weights")) == 2
    text = "__import__('os').mkdir('harm')"
    with pytest.raises(ValueError, match="no list of layers"):
        import_checkpoint(
            write(cfg=CFG | {"model": MODEL | {"conv_feature_layers": text}}), None, tmp_path / "imported"
        )
    assert not (tmp_path / "harm").exists()


def test_convolutions_are_read_not_run():
    text = "[(512, 10, 5)] + [(512, 3, 2)] * 4 + [(512,2,2)] + [(512,2,2)]"
    assert convolutions(text) == eval(text)
    bomb = "[(1, 2, 3)]" + " * 99" * 9
    others = ("[(512, 10)]", "512", "[(1, 2, 3)] * 10**9", "[(n, 2, 3)]", "[(1, 2, 3)] * -1")
    for wrong in (*others, bomb, "(" * 5000):
        with pytest.raises(ValueError):
            convolutions(wrong)


DEEP = {"model": {}}
DEEP["model"] = DEEP  # settings in themselves


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": {"w2v_encoder.w2v_model.mask_emb": torch.ones(1)}}, "fine-tuned model of fairseq"),
        ({"model": {"mask_emb": torch.ones(1)}}, "no quantizer.vars"),
        ({"cfg": {}, "args": None}, "neither `cfg` nor `args`"),
        ({"cfg": CFG | {"model": MODEL | {"target_glu": True}}}, "be trained with {'target_glu': True}"),
        ({"cfg": CFG | {"model": MODEL | {"encoder_layers": 3}}}, "16 missing: .*layers.2"),
        ({"cfg": CFG | {"model": MODEL | {"encoder_embed_dim": "24"}}}, "best.pt: hidden_size: '24'"),
        ({"cfg": CFG | {"model": MODEL | {"final_dim": "24"}}}, "best.pt: final_dim: '24'"),
        ({"cfg": CFG | {"model": MODEL | {"layer_norm_first": "false"}}}, "do_stable_layer_norm: 'false'"),
        ({"cfg": CFG | {"model": MODEL | {"extractor_mode": "Default"}}}, "extractor_mode"),
        ({"cfg": CFG | {"model": MODEL | {"dropout": float("nan")}}}, "hidden_dropout: nan"),
        ({"cfg": CFG | {"task": {"normalize": "false"}}}, "normalize: 'false', expected True or False"),
        ({"cfg": [1]}, "neither `cfg` nor `args`"),
        ({"cfg": {"model": [1]}}, "neither `cfg` nor `args`"),
        ({"cfg": DEEP}, "nested over 20 deep"),
        ({"model": {"mask_emb": torch.ones(1, dtype=torch.int8)}}, "quantised weights are not read"),
        ({"model": weights_of() | {"mask_emb": torch.full((HIDDEN,), torch.nan)}}, "not finite"),
    ],
)  # fmt: skip
def test_what_cannot_be_imported_is_said(write, tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        import_checkpoint(write(**changes), None, tmp_path / "imported")
    assert not (tmp_path / "imported").exists()
