"""What is written is a Hugging Face folder: whole, and the same encoder when it is loaded again."""

import json
import os

import pytest
import torch
import transformers
from safetensors.torch import load_file
from tiny_encoders import ARCHITECTURES, LAYER, PRETRAINING, SIZES, new_model, relative

from lebench_sb.core.errors import UsageError
from lebench_sb.core.files import new_folder
from lebench_sb.encoders.encoder import load_encoder
from lebench_sb.encoders.model_folders import save_encoder


def load_with_report(kind, folder):
    model, report = kind.from_pretrained(folder, output_loading_info=True)
    assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    return model


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_export_gives_the_same_encoder(checkpoints, ragged, tmp_path, name):
    wavs, lens = ragged
    encoder = load_encoder(checkpoints(name), freeze=False)
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.mul_(1.01)
    encoder.export(tmp_path / "encoder", extra={"source.json": "{}"})
    model = load_with_report(transformers.AutoModel, tmp_path / "encoder")
    assert (tmp_path / "encoder" / "source.json").read_text() == "{}"
    for parameter, expected in zip(model.parameters(), encoder.model.parameters(), strict=True):
        assert torch.equal(parameter, expected)
    again = load_encoder(tmp_path / "encoder")
    with torch.no_grad():
        assert torch.equal(again(wavs, relative(lens))[0], encoder.eval()(wavs, relative(lens))[0])
    assert again._preprocessor == encoder._preprocessor


@pytest.mark.parametrize("name", ["wav2vec2-layer", "wavlm-group", "wav2vec2-bert"])
def test_export_of_an_encoder_cut_at_a_layer_is_complete(checkpoints, tmp_path, name):
    encoder = load_encoder(checkpoints(name), layer=1, freeze=False)
    assert len(encoder.model.encoder.layers) == 1
    encoder.export(tmp_path / "encoder")
    load_with_report(transformers.AutoModel, tmp_path / "encoder")
    exported = load_file(tmp_path / "encoder" / "model.safetensors")
    original = load_file(f"{checkpoints(name)}/model.safetensors")
    assert exported.keys() == original.keys()
    assert all(torch.equal(exported[key], original[key]) for key in original)


def test_export_keeps_the_config(checkpoints, tmp_path):
    """SpecAugment and LayerDrop are off in the encoder, not in what it writes."""
    load_encoder(checkpoints("wav2vec2-layer"), freeze=False).export(tmp_path / "encoder")
    configs = [
        transformers.AutoConfig.from_pretrained(folder).to_dict()
        for folder in (checkpoints("wav2vec2-layer"), tmp_path / "encoder")
    ]
    for config in configs:
        config.pop("_name_or_path", None)
    assert configs[0] == configs[1] and configs[1]["layerdrop"] == 0.1


@pytest.mark.parametrize("normalize", [True, False])
def test_save_encoder(tmp_path, ragged, normalize):
    wavs, lens = ragged
    model = new_model("Wav2Vec2ForPreTraining", SIZES | LAYER | PRETRAINING)
    save_encoder(model, tmp_path / "pretraining", normalize)
    save_encoder(model.base_model, tmp_path / "encoder", normalize)
    load_with_report(transformers.Wav2Vec2ForPreTraining, tmp_path / "pretraining")
    load_with_report(transformers.AutoModel, tmp_path / "encoder")
    settings = transformers.AutoFeatureExtractor.from_pretrained(tmp_path / "encoder")
    assert settings.do_normalize is normalize and settings.sampling_rate == 16_000
    frames = [load_encoder(tmp_path / name)(wavs, relative(lens))[0] for name in ("pretraining", "encoder")]
    assert torch.equal(*frames)


def test_a_folder_is_replaced_whole(tmp_path):
    model = new_model("Wav2Vec2Model", SIZES)
    save_encoder(model, tmp_path / "encoder", True, extra={"step.json": "1"})
    save_encoder(model, tmp_path / "encoder", False)
    assert not (tmp_path / "encoder" / "step.json").exists()
    settings = json.loads((tmp_path / "encoder" / "preprocessor_config.json").read_text())
    assert settings["do_normalize"] is False
    assert [path.name for path in tmp_path.iterdir()] == ["encoder"]


def test_a_failure_leaves_the_old_folder(tmp_path, monkeypatch):
    model = new_model("Wav2Vec2Model", SIZES)
    save_encoder(model, tmp_path / "encoder", True)
    before = (tmp_path / "encoder" / "model.safetensors").read_bytes()
    monkeypatch.setattr(transformers.PreTrainedConfig, "save_pretrained", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        save_encoder(new_model("Wav2Vec2Model", SIZES, seed=1), tmp_path / "encoder", True)
    assert (tmp_path / "encoder" / "model.safetensors").read_bytes() == before


def test_another_folder_is_not_replaced(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="not a Hugging Face folder"):
        save_encoder(new_model("Wav2Vec2Model", SIZES), tmp_path, True)
    assert (tmp_path / "notes.txt").read_text() == "mine"


@pytest.fixture(scope="module")
def tiny():
    """A model that is written in no time"""
    return new_model("Wav2Vec2Model", SIZES | {"num_hidden_layers": 1})


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_model_of_the_user_is_not_replaced(tiny, tmp_path):
    """Its config.json does not make it ours"""
    tiny.save_pretrained(tmp_path / "encoder")
    before = contents(tmp_path / "encoder")
    with pytest.raises(FileExistsError, match="lebench_sb wrote: not replaced"):
        save_encoder(tiny, tmp_path / "encoder", True)
    assert contents(tmp_path / "encoder") == before


def added(folder):
    (folder / "notes.txt").write_text("mine")


def changed(folder):
    (folder / "preprocessor_config.json").write_text("{}")


def subfolder(folder):
    (folder / "sub").mkdir()


def linked(folder):
    (folder / "notes.txt").symlink_to(folder.parent / "hyperparams.yaml")


@pytest.mark.parametrize("mark", [True, False])
@pytest.mark.parametrize("touch", [added, changed, subfolder, linked])
def test_what_a_user_put_into_our_folder_is_kept(tiny, tmp_path, caplog, touch, mark):
    (tmp_path / "hyperparams.yaml").write_text("seed: 1\n")
    save_encoder(tiny, tmp_path / "encoder", True)
    touch(tmp_path / "encoder")
    if not mark:  # as older versions left it
        (tmp_path / "encoder" / "lebench_sb.json").unlink()
    kept = touch is not changed or mark  # without digests a changed file of ours cannot be told
    save_encoder(tiny, tmp_path / "encoder", True)
    names = {path.name for path in tmp_path.iterdir()} - {"hyperparams.yaml"}
    assert names == ({"encoder", "encoder.kept-1"} if kept else {"encoder"})
    assert ("it is now" in caplog.text) == kept
    assert "notes.txt" not in contents(tmp_path / "encoder")


def test_names_beside_the_folder_are_somebody_elses(tiny, tmp_path):
    for name in ("encoder.tmp", "encoder.old"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "notes.txt").write_text("mine")
    for _ in range(2):
        save_encoder(tiny, tmp_path / "encoder", True)
    for name in ("encoder.tmp", "encoder.old"):
        assert (tmp_path / name / "notes.txt").read_text() == "mine"
    assert len(list(tmp_path.iterdir())) == 3


def test_nothing_is_written_through_a_link(tiny, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    save_encoder(tiny, tmp_path / "elsewhere" / "model", True)
    before = contents(tmp_path / "elsewhere" / "model")
    for target in (tmp_path / "elsewhere" / "model", tmp_path / "nowhere"):
        (tmp_path / "encoder").symlink_to(target)
        with pytest.raises(UsageError, match="encoder is a symbolic link to"):
            save_encoder(tiny, tmp_path / "encoder", True)
        (tmp_path / "encoder").unlink()
    assert contents(tmp_path / "elsewhere" / "model") == before and not (tmp_path / "nowhere").exists()
    assert {path.name for path in tmp_path.iterdir()} == {"elsewhere"}


@pytest.mark.parametrize("mask", [0o022, 0o027, 0o002, 0o077])
def test_others_may_read_what_is_exported(tiny, tmp_path, mask):
    before = os.umask(mask)
    try:
        save_encoder(tiny, tmp_path / "encoder", True)
    finally:
        os.umask(before)
    rights = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "encoder").iterdir()}
    assert set(rights.values()) == {0o666 & ~mask}, rights


def test_a_folder_that_cannot_be_replaced_stays(tmp_path, monkeypatch):
    """The second of the two renames fails"""
    (tmp_path / "encoder").mkdir()
    (tmp_path / "encoder" / "weights").write_text("old")
    rename = type(tmp_path).rename

    def full(path, target):
        if target == tmp_path / "encoder" and (path / "new").exists():
            raise OSError("no")
        return rename(path, target)

    monkeypatch.setattr(type(tmp_path), "rename", full)
    with pytest.raises(OSError, match="no"), new_folder(tmp_path / "encoder") as new:
        (new / "new").write_text("x")
    assert contents(tmp_path / "encoder") == {"weights": b"old"}
    assert [path.name for path in tmp_path.iterdir()] == ["encoder"]
