"""A checkpoint that SpeechBrain's own classes wrote becomes two Hugging Face folders, tensor by tensor."""

import json
import os

import pytest
import torch
import transformers
from speechbrain.integrations.huggingface.wav2vec2 import Wav2Vec2, Wav2Vec2Pretrain
from speechbrain.utils.checkpoints import Checkpointer
from tiny_encoders import LAYER, PRETRAINING, SIZES, new_model, relative, write_extractor

from lebench_sb.core.errors import DataError
from lebench_sb.encoders.encoder import load_encoder
from lebench_sb.encoders.importing import command
from lebench_sb.encoders.importing.command import import_checkpoint


@pytest.fixture(scope="session")
def source(tmp_path_factory):
    """A folder as the published ones: config.json and the wav2vec2.ckpt that SpeechBrain's checkpointer
    wrote"""
    root = tmp_path_factory.mktemp("speechbrain")
    model = new_model("Wav2Vec2ForPreTraining", SIZES | LAYER | PRETRAINING)
    model.save_pretrained(root / "architecture")
    write_extractor(root / "architecture", model, do_normalize=True)
    trained = Wav2Vec2Pretrain(str(root / "architecture"), str(root / "cache"))
    with torch.no_grad():
        for parameter in trained.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    saved = Checkpointer(root / "save", {"wav2vec2": trained}).save_checkpoint().path
    model.config.save_pretrained(saved)
    return saved


def load_with_report(auto_class, folder):
    model, report = auto_class.from_pretrained(folder, output_loading_info=True)
    assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    return model


def test_pretraining_checkpoint(source, tmp_path, ragged, caplog):
    folders = import_checkpoint(source, None, tmp_path / "imported")
    assert folders == [tmp_path / "imported" / "encoder", tmp_path / "imported" / "pretraining"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["imported"]
    weights = torch.load(source / "wav2vec2.ckpt", weights_only=True)
    whole = load_with_report(transformers.Wav2Vec2ForPreTraining, folders[1]).state_dict()
    assert {"model." + name for name in whole} == set(weights)
    assert all(torch.equal(weights["model." + name], weight) for name, weight in whole.items())
    base = load_with_report(transformers.AutoModel, folders[0]).state_dict()
    assert all(torch.equal(whole["wav2vec2." + name], weight) for name, weight in base.items())
    assert transformers.AutoFeatureExtractor.from_pretrained(folders[0]).do_normalize is True
    assert "waveforms are normalised" in caplog.text
    wavs, lens = ragged
    frames = [load_encoder(folder)(wavs, relative(lens))[0] for folder in folders]
    assert torch.equal(*frames)


def test_old_names_of_weight_norm(source, tmp_path):
    weights = torch.load(source / "wav2vec2.ckpt", weights_only=True)
    conv = "model.wav2vec2.encoder.pos_conv_embed.conv."
    weights[conv + "weight_g"] = weights.pop(conv + "parametrizations.weight.original0")
    weights[conv + "weight_v"] = weights.pop(conv + "parametrizations.weight.original1")
    torch.save(weights, tmp_path / "old.ckpt")
    folder, _ = import_checkpoint(tmp_path / "old.ckpt", source / "config.json", tmp_path / "imported")
    name = "encoder.pos_conv_embed.conv.parametrizations.weight.original0"
    assert torch.equal(
        transformers.AutoModel.from_pretrained(folder).state_dict()[name], weights[conv + "weight_g"]
    )


def test_fine_tuned_checkpoint_gives_an_encoder(tmp_path, checkpoints):
    tuned = Wav2Vec2(checkpoints("wav2vec2-layer"), str(tmp_path / "cache"))
    torch.save(tuned.state_dict(), tmp_path / "wav2vec2.ckpt")
    folders = import_checkpoint(tmp_path, checkpoints("wav2vec2-layer"), tmp_path / "imported")
    assert folders == [tmp_path / "imported" / "encoder"]
    weights = load_with_report(transformers.AutoModel, folders[0]).state_dict()
    assert all(torch.equal(tuned.model.state_dict()[name], weight) for name, weight in weights.items())


def test_normalisation_comes_from_the_file_if_there_is_one(source, tmp_path):
    config = json.loads((source / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "preprocessor_config.json").write_text('{"do_normalize": false}')
    folder, _ = import_checkpoint(source, tmp_path, tmp_path / "imported")
    assert transformers.AutoFeatureExtractor.from_pretrained(folder).do_normalize is False


def test_nothing_is_overwritten(source, tmp_path):
    (tmp_path / "imported").mkdir()
    with pytest.raises(FileExistsError, match="imported exists"):
        import_checkpoint(source, None, tmp_path / "imported")
    assert not list((tmp_path / "imported").iterdir())


def test_weights_that_do_not_fit_the_config_are_named(source, tmp_path):
    config = json.loads((source / "config.json").read_text())
    config.update(num_hidden_layers=2, intermediate_size=64)
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"do not fit.* 16 unexpected: .*layers\.2.* and 11 more; ") as e:
        import_checkpoint(source, tmp_path / "config.json", tmp_path / "imported")
    assert "6 of another size: wav2vec2.encoder.layers.0.feed_forward" in str(e.value)
    assert not (tmp_path / "imported").exists()


def test_files_that_are_missing(source, tmp_path):
    torch.save({}, tmp_path / "counter.ckpt")
    with pytest.raises(FileNotFoundError, match="no wav2vec2.ckpt or checkpoint_best.pt. It has counter"):
        import_checkpoint(tmp_path, None, tmp_path / "imported")
    (tmp_path / "wav2vec2.ckpt").write_bytes((source / "wav2vec2.ckpt").read_bytes())
    with pytest.raises(FileNotFoundError, match="holds no config.json. Give --config"):
        import_checkpoint(tmp_path, None, tmp_path / "imported")
    with pytest.raises(FileNotFoundError, match="/absent: no such file or folder"):
        import_checkpoint("/absent", None, tmp_path / "imported")


def test_files_that_are_something_else(source, tmp_path):
    torch.save({"model.a": torch.ones(1), "optimizer": torch.ones(1)}, tmp_path / "a.ckpt")
    with pytest.raises(ValueError, match="1 others: optimizer"):
        import_checkpoint(tmp_path / "a.ckpt", source, tmp_path / "imported")
    (tmp_path / "b.ckpt").write_bytes((source / "wav2vec2.ckpt").read_bytes()[:5000])
    with pytest.raises(ValueError, match="damaged"):
        import_checkpoint(tmp_path / "b.ckpt", source, tmp_path / "imported")
    (tmp_path / "config.json").write_text('{"speechbrain_interface": "EncoderASR"}')
    with pytest.raises(ValueError, match="not the config of a Hugging Face model"):
        import_checkpoint(source, tmp_path / "config.json", tmp_path / "imported")


def test_a_write_that_went_wrong_is_seen(source, tmp_path, monkeypatch):
    def spoil(model, folder, do_normalize, extra):
        with torch.no_grad():
            next(model.parameters()).add_(1.0)
        real(model, folder, do_normalize, extra)
        with torch.no_grad():
            next(model.parameters()).sub_(1.0)

    real = command.save_encoder
    monkeypatch.setattr(command, "save_encoder", spoil)
    with pytest.raises(ValueError, match="1 weights do not come back as written"):
        import_checkpoint(source, None, tmp_path / "imported")
    assert not (tmp_path / "imported").exists()


@pytest.mark.parametrize("there", ["link", "file", "folder"])
def test_an_output_that_is_there_is_not_touched(source, tmp_path, there):
    output = tmp_path / "imported"
    {"link": lambda: output.symlink_to(tmp_path / "nowhere"), "file": output.touch, "folder": output.mkdir}[
        there
    ]()
    with pytest.raises(FileExistsError, match="imported exists"):
        import_checkpoint(source, None, output)
    assert not (tmp_path / "nowhere").exists() and os.path.lexists(output)


def test_names_beside_the_output_are_somebody_elses(source, tmp_path):
    (tmp_path / "imported.tmp").mkdir()
    (tmp_path / "imported.tmp" / "notes.txt").write_text("mine")
    import_checkpoint(source, None, tmp_path / "imported")
    assert (tmp_path / "imported.tmp" / "notes.txt").read_text() == "mine"
    assert all(path.stat().st_mode & 0o044 for path in (tmp_path / "imported").rglob("*.safetensors"))


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_a_weight_that_is_not_finite_is_not_imported(source, tmp_path, number):
    weights = torch.load(source / "wav2vec2.ckpt", weights_only=True)
    name = "wav2vec2.encoder.layers.0.attention.k_proj.weight"
    weights["model." + name][0, 0] = number
    torch.save(weights, tmp_path / "bad.ckpt")
    with pytest.raises(DataError, match=f"1 weights are not finite.*{name}"):
        import_checkpoint(tmp_path / "bad.ckpt", source / "config.json", tmp_path / "imported")
    assert not (tmp_path / "imported").exists()


STRANGE = {
    "a number": ({"model.a": 5}, "model.a is a int"),
    "whole numbers": ({"model.a": torch.ones(2, dtype=torch.int8)}, "quantised"),
    "names that are none": ({3: torch.ones(1), "b": torch.ones(1)}, "2 others: 3, b"),
    "sparse": ({"model.a": torch.eye(2).to_sparse()}, "no dense tensor"),
    "repeated": ({"model.a": torch.ones(1, dtype=torch.float16).expand(10**12)}, "no dense tensor"),
}


@pytest.mark.parametrize("content", STRANGE)
def test_a_checkpoint_of_something_else(source, tmp_path, content):
    value, word = STRANGE[content]
    torch.save(value, tmp_path / "a.ckpt")
    with pytest.raises(DataError, match=f"a.ckpt.*{word}"):
        import_checkpoint(tmp_path / "a.ckpt", source, tmp_path / "imported")


BYTES = {b"": "0 bytes", b"version https://git-lfs.github.com/spec/v1": "git lfs pull", b"<html>": "web page"}


@pytest.mark.parametrize("content", BYTES)
def test_a_checkpoint_that_was_not_fetched(source, tmp_path, content):
    (tmp_path / "a.ckpt").write_bytes(content)
    with pytest.raises(DataError, match=f"a.ckpt.*{BYTES[content]}"):
        import_checkpoint(tmp_path / "a.ckpt", source, tmp_path / "imported")


def test_a_pipe_is_not_waited_for(source, tmp_path):
    os.mkfifo(tmp_path / "a.ckpt")
    with pytest.raises(DataError, match="a.ckpt is a pipe"):
        import_checkpoint(tmp_path / "a.ckpt", source, tmp_path / "imported")


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ({"hidden_size": "32"}, "hidden_size"),
        ({"num_attention_heads": 5}, "divisor"),
        ({"model_type": "bert"}, "bert"),
    ],
)
def test_a_config_that_cannot_be(source, tmp_path, values, word):
    config = json.loads((source / "config.json").read_text()) | values
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(DataError, match=f"config.json.*{word}.*Give --config"):
        import_checkpoint(source, tmp_path / "config.json", tmp_path / "imported")


@pytest.mark.parametrize(
    ("values", "word"),
    [({"do_normalize": "false"}, ": do_normalize: 'false'"), ({"sampling_rate": 8000}, "8000")],
)
def test_an_input_that_the_model_cannot_have(source, tmp_path, values, word):
    (tmp_path / "config.json").write_bytes((source / "config.json").read_bytes())
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(values))
    with pytest.raises(DataError, match=f"preprocessor_config.json.*{word}"):
        import_checkpoint(source, tmp_path, tmp_path / "imported")
