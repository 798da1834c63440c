"""A run that goes on from another takes its optimiser's state along, by the names of the weights."""

import pytest
import torch
from python_process import run_python
from safetensors.torch import save_file
from tiny import write_pretraining_model

from lebench_sb.core.errors import UsageError
from lebench_sb.pretraining.build import build_model, make_config
from lebench_sb.pretraining.optimizer_state import load_optimizer_state, name_parameters, read_optimizer_state
from lebench_sb.training.checkpoints import best_checkpoint

TRAIN = "recipes/pretraining/wav2vec2/train.py"
YAML = "recipes/pretraining/wav2vec2/hparams/mini.yaml"


def small(seed):
    torch.manual_seed(seed)
    return torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 2))


def adam(model, *groups):
    made = torch.optim.AdamW([{"params": list(group)} for group in groups], lr=0.1)
    name_parameters(made, model)
    return made


def test_the_state_follows_names_not_positions():
    """Another order of groups, and a layer that is not trained any more"""
    model, other = small(0), small(1)
    old = adam(model, model[0].parameters(), model[1].parameters())
    for _ in range(3):
        model(torch.randn(5, 3)).square().sum().backward()
        old.step()
    saved = old.state_dict()
    states = {
        name: saved["state"][index]
        for group in saved["param_groups"]
        for index, name in zip(group["params"], group["param_names"], strict=True)
    }
    new = adam(other, [other[1].bias], [other[1].weight])
    load_optimizer_state(new, states)
    assert len(new.state) == 2
    for own, theirs in ((other[1].bias, model[1].bias), (other[1].weight, model[1].weight)):
        for key in ("exp_avg", "exp_avg_sq", "step"):
            assert torch.equal(new.state[own][key], old.state[theirs][key])
    assert float(new.state[other[1].bias]["step"]) == 3


ONES, STEP, OTHER = torch.ones(2), {"step": "7"}, "not what `lebench import` writes"
IMPORTED = {
    "whole": ({"exp_avg.a": ONES, "exp_avg_sq.a": ONES}, STEP, ""),
    "nan": ({"exp_avg.a": ONES * torch.nan, "exp_avg_sq.a": ONES}, STEP, "not finite"),
    "no step": ({"exp_avg.a": ONES}, None, OTHER),
    "other step": ({"exp_avg.a": ONES}, {"step": "-1"}, OTHER),
    "other kinds": ({"momentum.a": ONES}, STEP, OTHER),
    "other size": ({"exp_avg.a": torch.ones(3), "exp_avg_sq.a": ONES}, STEP, "1 differ in size"),
    "half": ({"exp_avg.a": ONES}, STEP, "1 differ in size"),
    "another model": ({"exp_avg.b": ONES, "exp_avg_sq.b": ONES}, STEP, "not there: b"),
}


@pytest.mark.parametrize("content", IMPORTED)
def test_an_imported_state_is_looked_at(tmp_path, content):
    tensors, facts, message = IMPORTED[content]
    save_file(
        {name: part.clone() for name, part in tensors.items()},
        tmp_path / "optimizer_state.safetensors",
        facts,
    )
    model = torch.nn.Module()
    model.hf = torch.nn.Module()
    model.hf.a = torch.nn.Parameter(torch.zeros(2))
    if not message:
        assert float(read_optimizer_state(tmp_path, model)["model.hf.a"]["step"]) == 7
        return
    with pytest.raises(UsageError, match=f"optimizer_state.safetensors.*{message}"):
        read_optimizer_state(tmp_path, model)


def test_there_must_be_something_to_take(tmp_path):
    folder = write_pretraining_model(tmp_path / "model")
    with pytest.raises(UsageError, match="has no optimiser state: .*--init_optimizer False"):
        build_model(make_config(), str(folder), 1.0, 0, do_normalize=True, init_optimizer=True)
    with pytest.raises(UsageError, match="needs --init_from"):
        build_model(make_config(), "", 1.0, 0, init_optimizer=True)


def run(root, words, output):
    argv = [str(root / TRAIN), str(root / YAML), *words, "--output_folder", str(output)]
    return run_python([*argv, "--noprogressbar"])


def steps_of(run_folder):
    """{name of a parameter: updates that Adam has counted} in the best checkpoint"""
    state = torch.load(best_checkpoint(run_folder) / "optimizer.ckpt", weights_only=True)
    return {
        name: int(state["state"][index]["step"])
        for group in state["param_groups"]
        for index, name in zip(group["params"], group["param_names"], strict=True)
        if index in state["state"]
    }


@pytest.mark.slow
def test_a_continued_run_goes_on_counting(root, tiny_pretraining, tmp_path):
    words = [w for w in tiny_pretraining if not w.startswith(("--number_of", "--valid_every"))]
    short = ["--number_of_updates=4", "--valid_every_updates=4"]
    assert run(root, [*words, *short], tmp_path / "first").returncode == 0
    again = [*words, *short, "--init_from", str(tmp_path / "first" / "pretraining")]
    again += ["--init_optimizer", "True", "--init_quantizer", "False"]
    done = run(root, again, tmp_path / "on")
    assert done.returncode == 0, done.stderr[-2000:]
    assert "init_optimizer: the state of" in (tmp_path / "on" / "log.txt").read_text()
    first, both = steps_of(tmp_path / "first"), steps_of(tmp_path / "on")
    assert set(first.values()) == {4, 1}  # the targets learn after three updates, in either run
    assert both == {name: 2 * count for name, count in first.items()}
    weights = tmp_path / "first" / "pretraining" / "model.safetensors"
    weights.write_bytes((tmp_path / "on" / "pretraining" / "model.safetensors").read_bytes())
    refused = run(root, again, tmp_path / "refused")
    assert refused.returncode == 2 and "has other weights" in refused.stderr
