"""The optimiser's state of a checkpoint of transformers' Trainer reaches the weights it belongs to."""

import pytest
import torch
import transformers
from test_continued import tiny_model
from torch import nn

from lebench_sb.core.errors import UsageError
from lebench_sb.pretraining.brain import build_model, make_config
from lebench_sb.pretraining.moments import name_parameters, put_moments
from lebench_sb.pretraining.trainer_moments import trainer_moments

BASE = dict(feat_extract_norm="group", do_stable_layer_norm=False)


def small(folder, **changes):
    """A model for pre-training with its config in `folder`"""
    config = transformers.AutoConfig.from_pretrained(tiny_model(folder))
    config.update(changes | {"architectures": ["Wav2Vec2ForPreTraining"], "layerdrop": 0.0})
    torch.manual_seed(0)
    return transformers.Wav2Vec2ForPreTraining(config)


class Sums(nn.Module):
    """Gives every parameter a gradient of its own"""

    def __init__(self, model):
        super().__init__()
        self.model, self.config = model, model.config

    def forward(self, x):
        trained = [p for p in self.model.parameters() if p.requires_grad]
        return {"loss": sum((k + 1) * p.square().sum() for k, p in enumerate(trained)) * x.mean()}


def train(model, folder):
    """Two updates of a real Trainer -> (its checkpoint, {name: state of its optimiser})"""
    pytest.importorskip("accelerate", reason="transformers' Trainer needs it")
    model.forward = Sums(model).forward
    options = transformers.TrainingArguments(
        str(folder), max_steps=2, save_steps=2, report_to=[], use_cpu=True, weight_decay=0.1,
        per_device_train_batch_size=2, disable_tqdm=True, remove_unused_columns=False,
    )  # fmt: skip
    trainer = transformers.Trainer(model, options, train_dataset=[{"x": torch.ones(1)}] * 8)
    trainer.train()
    del model.forward
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    state = {names[id(parameter)]: entry for parameter, entry in trainer.optimizer.state.items()}
    return folder / "checkpoint-2", state


def same(found, expected):
    assert found.keys() == expected.keys()
    for name, entry in found.items():
        for kind in ("exp_avg", "exp_avg_sq", "step"):
            torch.testing.assert_close(entry[kind], expected[name][kind], rtol=0, atol=0)


@pytest.mark.parametrize("changes", [{}, BASE])
@pytest.mark.parametrize("frozen", [False, True])
def test_each_weight_gets_the_state_a_trainer_kept_for_it(tmp_path, changes, frozen):
    model = small(tmp_path / "model", **changes)
    if frozen:
        model.freeze_feature_encoder()
    folder, expected = train(model, tmp_path / "run")
    found = trainer_moments(folder)
    assert len(found) == sum(parameter.requires_grad for parameter in model.parameters())
    same(found, expected)


def test_a_run_goes_on_with_the_state_of_a_trainer(tmp_path):
    """The optimiser of the run counts on from the Trainer's two updates"""
    folder, expected = train(small(tmp_path / "model"), tmp_path / "run")
    model = build_model(make_config(), str(folder), 1.0, 0, do_normalize=True, init_optimizer=True)
    modules = nn.ModuleDict({"model": model})
    optimizer = torch.optim.AdamW(modules.parameters())
    name_parameters(optimizer, modules)
    put_moments(optimizer, model.moments)
    assert len(optimizer.state) == len(expected)
    parameters = dict(model.hf.named_parameters())
    same({name: optimizer.state[parameters[name]] for name in expected}, expected)
    assert float(optimizer.state[parameters["project_q.weight"]]["step"]) == 2


def hand_made(model, folder, groups, kind=torch.optim.AdamW):
    """The checkpoint of an optimiser with these groups of names, after one update"""
    parameters = dict(model.named_parameters())
    optimizer = kind([{"params": [parameters[name] for name in names]} for names in groups], lr=1e-3)
    Sums(model)(torch.ones(1))["loss"].backward()
    optimizer.step()
    model.save_pretrained(folder)
    torch.save(optimizer.state_dict(), folder / "optimizer.pt")
    return {name: optimizer.state[parameters[name]] for names in groups for name in names}


def test_older_trainers_decayed_group_norms_and_some_have_one_group(tmp_path):
    model = small(tmp_path / "model", **BASE)
    names = [name for name, _ in model.named_parameters()]
    layer_norms = {
        f"{name}.{kind}" for name, module in model.named_modules() if isinstance(module, nn.LayerNorm)
        for kind in ("weight", "bias")
    }  # fmt: skip
    spared = [name for name in names if name in layer_norms or "bias" in name]
    for k, groups in enumerate([[[n for n in names if n not in spared], spared], [names]]):
        expected = hand_made(model, tmp_path / f"{k}", groups)
        assert len(expected) == len(names)
        same(trainer_moments(tmp_path / f"{k}"), expected)


def test_an_encoder_alone_lends_the_state_of_its_weights(tmp_path):
    """Names of a model without heads are those below the encoder of a pre-training model"""
    model = small(tmp_path / "model").wav2vec2
    expected = hand_made(model, tmp_path / "c", [[name for name, _ in model.named_parameters()]])
    whole = build_model(make_config(), str(tmp_path / "c"), 1.0, 0, init_optimizer=True)
    assert whole.moments.keys() == {f"model.hf.wav2vec2.{name}" for name in expected}


def not_finite(saved):
    saved["state"][3]["exp_avg"].view(-1)[0] = float("nan")
    return saved


CONTENTS = {
    "nan": not_finite,
    "list": lambda saved: [saved],
    "entry": lambda saved: saved | {"state": {0: 5}},
}
NAMES = {"architecture": "Wav2Vec9", "function": "pipeline"}  # transformers has a function of that name


@pytest.mark.parametrize(
    "fault, message",
    [("sgd", "holds momentum_buffer, not the moments"), ("order", "in no order of a Trainer"),
     ("garbage", "no optimiser's state"), ("architecture", "no architecture Wav2Vec9"),
     ("function", "no architecture pipeline"), ("nan", "1 weights are not finite.*exp_avg of parameter 3"),
     ("list", "no optimiser's state"), ("entry", "no optimiser's state")],
)  # fmt: skip
def test_what_cannot_be_used_is_refused_with_the_way_out(tmp_path, fault, message):
    model, folder = small(tmp_path / "model"), tmp_path / "c"
    names = [name for name, _ in model.named_parameters()]
    if fault == "sgd":
        hand_made(model, folder, [names], lambda groups, lr: torch.optim.SGD(groups, lr=lr, momentum=0.9))
    else:
        hand_made(model, folder, [names[::-1] if fault == "order" else names])
    if fault == "garbage":
        (folder / "optimizer.pt").write_bytes(b"no pickle")
    if fault in CONTENTS:
        saved = torch.load(folder / "optimizer.pt", weights_only=True)
        torch.save(CONTENTS[fault](saved), folder / "optimizer.pt")
    if fault in NAMES:
        config = (folder / "config.json").read_text().replace("Wav2Vec2ForPreTraining", NAMES[fault])
        (folder / "config.json").write_text(config)
    with pytest.raises(UsageError, match=f"{message}.*--init_optimizer False"):
        trainer_moments(folder)
