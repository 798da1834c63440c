"""What is loaded is exactly what the folder holds; what does not fit is named."""

import json
import logging
import os
import pickle
import re
import shutil

import huggingface_hub
import pytest
import torch
import transformers
from huggingface_hub import errors as hub_errors
from safetensors.torch import load_file, save_file
from tiny_encoders import LAYER, PRETRAINING, SIZES, relative, write_extractor

from lebench_sb.encoders.encoder import load_encoder

TASKS = {
    "Wav2Vec2ForPreTraining": LAYER | PRETRAINING,
    "Wav2Vec2ForCTC": LAYER,
    "Wav2Vec2ForSequenceClassification": LAYER | {"use_weighted_layer_sum": True},
    "Wav2Vec2ForXVector": LAYER | {"tdnn_dim": (8, 8, 8, 8, 8), "xvector_output_dim": 8},
    "HubertForCTC": {},
    "WavLMForXVector": {"num_buckets": 20, "tdnn_dim": (8, 8, 8, 8, 8), "xvector_output_dim": 8},
    "UniSpeechForPreTraining": PRETRAINING,
    "UniSpeechSatForPreTraining": PRETRAINING,
    "Data2VecAudioForAudioFrameClassification": {"num_conv_pos_embeddings": 2},
}


def copy_of(checkpoints, name, tmp_path):
    return shutil.copytree(checkpoints(name), tmp_path / name)


def change_weights(folder, change):
    path = folder / "model.safetensors"
    weights = load_file(path)
    change(weights)
    save_file(weights, path, metadata={"format": "pt"})
    return weights


def frames_of(folder, ragged):
    wavs, lens = ragged
    return load_encoder(folder)(wavs, relative(lens))[0]


@pytest.mark.parametrize("kind", TASKS)
def test_heads_are_left_out_and_listed(headed, ragged, caplog, kind):
    folder = headed(kind, SIZES | TASKS[kind])
    frames = frames_of(folder, ragged)
    assert re.search(r"left out the weights of heads: \w+ \(\d", caplog.text)
    model = getattr(transformers, kind).from_pretrained(folder).base_model.eval()
    wav = ragged[0][1:2]
    with torch.no_grad():
        expected = model((wav - wav.mean()) / wav.std(correction=0)).last_hidden_state[0]
    assert (frames[1] - expected).abs().max() < 1e-4 * expected.abs().max()


def test_a_missing_weight_is_named(checkpoints, tmp_path):
    folder = copy_of(checkpoints, "wav2vec2-layer", tmp_path)
    change_weights(folder, lambda weights: weights.pop("encoder.layers.1.attention.k_proj.weight"))
    with pytest.raises(ValueError, match=r"1 missing: encoder\.layers\.1\.attention\.k_proj\.weight\."):
        load_encoder(folder)


def test_the_first_five_missing_weights_and_their_number(checkpoints, tmp_path):
    folder = copy_of(checkpoints, "wav2vec2-layer", tmp_path)

    def empty(weights):
        for name in [n for n in weights if n.startswith("encoder.layers.2.")]:
            weights.pop(name)

    change_weights(folder, empty)
    with pytest.raises(ValueError, match=r"16 missing: (encoder\.layers\.2\.[\w.]+(, | )){5}and 11 more\."):
        load_encoder(folder)


def test_an_unexpected_weight_is_named(checkpoints, tmp_path):
    folder = copy_of(checkpoints, "hubert-group", tmp_path)
    change_weights(folder, lambda weights: weights.update({"encoder.layers.3.gate": torch.ones(1)}))
    with pytest.raises(ValueError, match=r"1 unexpected: encoder\.layers\.3\.gate\."):
        load_encoder(folder)


def test_a_weight_of_another_size_is_named(checkpoints, tmp_path):
    folder = copy_of(checkpoints, "wav2vec2-group", tmp_path)
    change_weights(folder, lambda weights: weights.update({"encoder.layer_norm.bias": torch.ones(7)}))
    with pytest.raises(ValueError, match=r"1 of another size: encoder\.layer_norm\.bias\."):
        load_encoder(folder)


def test_the_mask_embedding_may_be_missing(checkpoints, tmp_path, ragged, caplog):
    folder = copy_of(checkpoints, "wav2vec2-layer", tmp_path)
    change_weights(folder, lambda weights: weights.pop("masked_spec_embed"))
    caplog.set_level(logging.INFO)
    state = torch.get_rng_state()
    frames = frames_of(folder, ragged)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(frames, frames_of(checkpoints("wav2vec2-layer"), ragged))
    assert "masked_spec_embed, which is not used: SpecAugment is off" in caplog.text


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_files_load_as_float32(checkpoints, tmp_path, ragged, dtype):
    folder = copy_of(checkpoints, "wav2vec2-layer", tmp_path)
    config = json.loads((folder / "config.json").read_text())
    config["dtype"] = str(dtype).removeprefix("torch.")
    (folder / "config.json").write_text(json.dumps(config))
    weights = change_weights(folder, lambda w: w.update({k: v.to(dtype) for k, v in w.items()}))
    encoder = load_encoder(folder)
    assert {weight.dtype for weight in encoder.model.parameters()} == {torch.float32}
    name = "encoder.layers.0.attention.q_proj.weight"
    assert torch.equal(encoder.model.get_parameter(name), weights[name].float())
    assert encoder(ragged[0], relative(ragged[1]))[0].dtype == torch.float32


@pytest.mark.parametrize("name", ["wav2vec2-layer", "wavlm-group"])
def test_old_bin_with_weight_norm_names(checkpoints, tmp_path, ragged, name):
    """Folders of before safetensors: pytorch_model.bin, weight_g and weight_v, names of a headed model."""
    folder = copy_of(checkpoints, name, tmp_path)
    prefix = "wav2vec2." if name.startswith("wav2vec2") else "wavlm."
    weights = {prefix + key: value for key, value in load_file(folder / "model.safetensors").items()}
    conv = prefix + "encoder.pos_conv_embed.conv."
    weights[conv + "weight_g"] = weights.pop(conv + "parametrizations.weight.original0")
    weights[conv + "weight_v"] = weights.pop(conv + "parametrizations.weight.original1")
    weights["lm_head.weight"] = torch.ones(2, 2)
    torch.save(weights, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    assert torch.equal(frames_of(folder, ragged), frames_of(checkpoints(name), ragged))


class Attack:
    def __reduce__(self):
        return os.mkdir, ("attacked",)


def test_a_pickle_is_not_run(checkpoints, tmp_path, monkeypatch):
    folder = copy_of(checkpoints, "wav2vec2-layer", tmp_path)
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps({"weight": Attack()}))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="pickle"):
        load_encoder(folder)
    assert not (tmp_path / "attacked").exists()


@pytest.mark.parametrize("content", [b"", b"version https://git-lfs.github.com/spec/v1\n", None])
@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_damaged_weights(checkpoints, tmp_path, name, content):
    """Empty, a Git LFS pointer, and cut short"""
    folder = copy_of(checkpoints, "wav2vec2-layer", tmp_path)
    whole = folder / "model.safetensors"
    if name == "pytorch_model.bin":
        torch.save(load_file(whole), folder / name)
        whole.unlink()
    (folder / name).write_bytes((folder / name).read_bytes()[:5000] if content is None else content)
    with pytest.raises(ValueError, match="cannot be read.*damaged, cut short or a Git LFS pointer"):
        load_encoder(folder)


def test_sharded_weights(checkpoints, tmp_path, ragged):
    folder = tmp_path / "sharded"
    model = transformers.AutoModel.from_pretrained(checkpoints("unispeech"))
    model.save_pretrained(folder, max_shard_size="50KB")
    write_extractor(folder, model, do_normalize=False)
    assert len(list(folder.glob("model-*.safetensors"))) > 1
    assert torch.equal(frames_of(folder, ragged), frames_of(checkpoints("unispeech"), ragged))
    next(folder.glob("model-00002*")).unlink()
    with pytest.raises(FileNotFoundError, match="model-00002"):
        load_encoder(folder)


@pytest.mark.parametrize(("name", "normalize"), [("wav2vec2-layer", "true"), ("wav2vec2-group", "false")])
def test_a_missing_preprocessor_config_says_what_to_write(checkpoints, tmp_path, name, normalize):
    folder = copy_of(checkpoints, name, tmp_path)
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(
        FileNotFoundError, match=f'preprocessor_config.json.*"do_normalize": {normalize}'
    ) as error:
        load_encoder(folder)
    example = re.search(r"\{.*?\}", str(error.value))[0]
    (folder / "preprocessor_config.json").write_text(example)
    assert load_encoder(folder).front.normalize == (normalize == "true")


def test_processor_config_of_transformers_5(checkpoints, tmp_path, ragged):
    folder = copy_of(checkpoints, "wav2vec2-layer", tmp_path)
    settings = json.loads((folder / "preprocessor_config.json").read_text())
    (folder / "preprocessor_config.json").unlink()
    (folder / "processor_config.json").write_text(json.dumps({"feature_extractor": settings}))
    assert torch.equal(frames_of(folder, ragged), frames_of(checkpoints("wav2vec2-layer"), ragged))


def test_another_sampling_rate(checkpoints, tmp_path):
    folder = copy_of(checkpoints, "wav2vec2-layer", tmp_path)
    (folder / "preprocessor_config.json").write_text('{"sampling_rate": 8000}')
    with pytest.raises(ValueError, match="sampling_rate 8000, but encoders take 16000 Hz"):
        load_encoder(folder)


@pytest.mark.parametrize(
    "source", ["/no/such/folder", "./absent", "../absent/a", "absent", "a/b/c", "here/absent"]
)
def test_a_path_that_does_not_exist(tmp_path, monkeypatch, source):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda *_: pytest.fail("asked the Hub"))
    with pytest.raises(FileNotFoundError, match=f"^{re.escape(source)}: no such folder in {tmp_path}"):
        load_encoder(source)


def test_a_hub_id_that_is_not_cached_while_offline(monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    for source in ("organisation/model", "random:organisation/model"):
        with pytest.raises(
            FileNotFoundError, match="^organisation/model is not .* cache while HF_HUB_OFFLINE=1"
        ) as e:
            load_encoder(source)
        assert "\n" not in str(e.value)


@pytest.mark.parametrize(
    ("error", "said"), [("GatedRepoError", "gated"), ("RepositoryNotFoundError", "misspelt")]
)
def test_what_the_hub_refuses(monkeypatch, error, said):
    def refuse(hub_id, name):
        raise getattr(hub_errors, error).__new__(getattr(hub_errors, error))

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", refuse)
    with pytest.raises(FileNotFoundError, match=f"organisation/model.*{said}.*hf auth login"):
        load_encoder("organisation/model")


@pytest.mark.parametrize("name", ["unispeech", "sharded"])
def test_a_hub_id(checkpoints, tmp_path, monkeypatch, ragged, name):
    """A stand-in for the Hub: what is fetched is copied to a cache, and only that is read."""
    hub, cache = tmp_path / "hub", tmp_path / "cache"
    model = transformers.AutoModel.from_pretrained(checkpoints("unispeech"))
    model.save_pretrained(hub, max_shard_size="50KB" if name == "sharded" else "1GB")
    write_extractor(hub, model, do_normalize=False)
    cache.mkdir()

    def fetch(hub_id, file_name):
        assert hub_id == "organisation/model"
        if not (hub / file_name).exists():
            raise hub_errors.EntryNotFoundError("404")
        return shutil.copy(hub / file_name, cache)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fetch)
    assert load_encoder("random:organisation/model").output_size == 32
    assert not list(cache.glob("*.safetensors"))
    assert torch.equal(frames_of("organisation/model", ragged), frames_of(checkpoints("unispeech"), ragged))


def test_a_speechbrain_checkpoint_folder(tmp_path):
    torch.save({}, tmp_path / "wav2vec2.ckpt")
    with pytest.raises(ValueError, match="lebench import"):
        load_encoder(tmp_path)
    with pytest.raises(ValueError, match="is a file.*lebench import"):
        load_encoder(tmp_path / "wav2vec2.ckpt")


def test_config_beside_a_speechbrain_checkpoint(checkpoints, tmp_path):
    folder = copy_of(checkpoints, "wav2vec2-layer", tmp_path)
    (folder / "model.safetensors").rename(folder / "wav2vec2.ckpt")
    with pytest.raises(FileNotFoundError, match="holds no weights.*lebench import"):
        load_encoder(folder)


def test_a_folder_that_is_no_encoder(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no config.json"):
        load_encoder(tmp_path)
    (tmp_path / "config.json").write_text("{,}")
    with pytest.raises(ValueError, match="config.json is not JSON"):
        load_encoder(tmp_path)
    transformers.WhisperConfig(d_model=8).save_pretrained(tmp_path)
    transformers.WhisperFeatureExtractor().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="'whisper' is no encoder of waveforms"):
        load_encoder(tmp_path)


@pytest.mark.parametrize("layer", ["first", "2", 4, -1, True, 1.0, None])
def test_a_layer_that_does_not_exist(checkpoints, layer):
    with pytest.raises(ValueError, match="this encoder has 3 layers: 'last', 'weighted' or 0 to 3"):
        load_encoder(checkpoints("wav2vec2-group"), layer=layer)
    with pytest.raises(ValueError, match="mel_filterbank has no layers"):
        load_encoder("mel_filterbank", layer=layer)


@pytest.mark.parametrize("source", ["mel_filterbank", "random:nowhere"])
def test_a_frame_norm_that_does_not_exist(source):
    with pytest.raises(ValueError, match="frame_norm 'layer': none, cmvn, utterance"):
        load_encoder(source, frame_norm="layer")


def test_the_untrained_control(checkpoints, ragged):
    """The same weights whatever the random state, which is left alone; not those of the checkpoint."""
    folder, (wavs, lens) = checkpoints("wav2vec2-layer"), ragged
    torch.manual_seed(3)
    state = torch.get_rng_state()
    first = load_encoder(f"random:{folder}")
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(10)
    second = load_encoder(f"random:{folder}")
    trained = load_encoder(folder)
    weights = trained.model.state_dict()
    for name, weight in first.model.state_dict().items():
        assert torch.equal(weight, second.model.state_dict()[name]), name
        assert weight.dim() == 1 or not torch.equal(weight, weights[name]), name
    frames, frame_lens = first(wavs, relative(lens))
    assert frames.isfinite().all() and torch.equal(frame_lens, trained(wavs, relative(lens))[1])
