"""What is wrong with a folder of others is said in one line that names the file, and nothing in it is run."""

import ast
import json
import os
import pickle
import shutil
import zipfile
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from tiny_encoders import LAYER, PRETRAINING, SIZES, new_model, relative, write_extractor

import lebench_sb
from lebench_sb.core.errors import DataError, UsageError
from lebench_sb.encoders.encoder import load_encoder
from lebench_sb.encoders.folders.settings import config_of, read_object
from lebench_sb.encoders.model_folders import read_config
from lebench_sb.pretraining.build import build_model, make_config
from lebench_sb.pretraining.distillation import load_teacher

PACKAGE = Path(lebench_sb.__file__).parent
OTHER_CODE = {"AutoConfig": "own.Config", "AutoModel": "own.Model", "AutoFeatureExtractor": "own.Extractor"}


@pytest.fixture
def folder(checkpoints, tmp_path):
    """A copy of a tiny encoder"""
    return shutil.copytree(checkpoints("wav2vec2-layer"), tmp_path / "encoder")


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    """A tiny model with its quantiser"""
    root = tmp_path_factory.mktemp("pretrained")
    model = new_model("Wav2Vec2ForPreTraining", SIZES | LAYER | PRETRAINING)
    model.save_pretrained(root)
    write_extractor(root, model, do_normalize=True)
    return root


def change(path, **values):
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def spoil(folder, name, number, dtype=torch.float32):
    weights = load_file(folder / "model.safetensors")
    weights[name] = weights[name].to(dtype)
    weights[name].view(-1)[3] = number
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def continued(folder):
    """As `--init_from` does"""
    return build_model(make_config(), str(folder), 1.0, 1)


DOORS = {"ssl_hub": load_encoder, "init_from": continued, "teacher": lambda f: load_teacher(str(f), [1], [])}


def wrong(error, folder, *words):
    """Whether one line names the folder and the words"""
    text = str(error.value)
    assert "\n" not in text and str(folder) in text
    assert all(word in text for word in words), text


@pytest.mark.parametrize(
    ("door", "number", "dtype"),
    [(door, "nan", torch.float32) for door in DOORS]
    + [("ssl_hub", "-inf", torch.float16), ("init_from", "1e300", torch.float64)],
)
def test_a_weight_that_is_not_finite_is_named(pretrained, tmp_path, door, number, dtype):
    folder = shutil.copytree(pretrained, tmp_path / "encoder")
    name = "encoder.layers.1.attention.k_proj.weight"
    spoil(folder, f"wav2vec2.{name}", float(number), dtype)
    with pytest.raises(DataError) as error:
        DOORS[door](folder)
    wrong(error, folder, "1 weights are not finite", name)


def test_a_head_that_is_left_out_may_hold_anything(pretrained, tmp_path):
    folder = shutil.copytree(pretrained, tmp_path / "encoder")
    spoil(folder, "project_hid.weight", float("nan"))
    assert load_encoder(folder).output_size == 32
    with pytest.raises(DataError, match="project_hid.weight"):
        continued(folder)


SETTINGS = {
    "hidden_size": ["32", 0, -32, 32.0, True, None, [32], 10**9, 33],
    "num_attention_heads": [3, 0, "2"],
    "num_hidden_layers": [0, 10**6, None],
    "num_conv_pos_embedding_groups": [5, 0],
    "hidden_act": ["gelo", None, 3],
    "hidden_dropout": ["0.1", -0.1, 1.5, True],
    "layer_norm_eps": ["1e-5", 0],
    "feat_extract_norm": ["Group", None, True],
    "do_stable_layer_norm": ["false", 0, None],
    "conv_bias": ["true", 1],
    "conv_dim": [[], [16] * 6, [16] * 6 + ["16"], 16, [16] * 6 + [0], [1] * 101],
    "conv_stride": [[5, 2], {"0": 5}],
    "output_hidden_size": [-1, "24"],
    "architectures": ["Wav2Vec2Model", [1]],
    "model_type": [None, 3, "own", "bert", "vit", "whisper", "speecht5", ["wav2vec2"]],
    "quantization_config": [{"quant_method": "gptq", "bits": 4}],
}


@pytest.mark.parametrize(
    ("key", "value"), [(key, value) for key, values in SETTINGS.items() for value in values]
)
def test_a_setting_that_cannot_be_is_named(folder, key, value):
    change(folder / "config.json", **{key: value})
    with pytest.raises(DataError) as error:
        load_encoder(folder)
    wrong(error, folder, "config.json", key)


def test_a_model_larger_than_the_memory(folder):
    change(folder / "config.json", hidden_size=999_936, num_attention_heads=1)
    for source in (folder, f"random:{folder}"):
        with pytest.raises(DataError) as error:
            load_encoder(source)
        wrong(error, folder, "config.json", "GB of weights", "hidden_size: 999936")


CONTENTS = {
    "list": "[1]", "number": "3", "null": "null", "text": '"wav2vec2"', "empty": "",
    "deep": "[" * 5000 + "]" * 5000, "twice": '{"hidden_size": 32, "hidden_size": 64}',
    "nan": '{"hidden_dropout": NaN}', "html": "<html></html>",
    "latin1": b'{"name": "\xe9"}', "long number": '{"hidden_size": ' + "1" * 5000 + "}",
}  # fmt: skip


@pytest.mark.parametrize("content", CONTENTS)
@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json", "processor_config.json"])
def test_a_file_that_is_no_object_of_json(folder, name, content):
    if name == "processor_config.json":
        (folder / "preprocessor_config.json").unlink()
    text = CONTENTS[content]
    (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(DataError) as error:
        load_encoder(folder)
    wrong(error, folder, name)


def test_a_pipe_is_not_waited_for(folder):
    for name in ("config.json", "model.safetensors"):
        (folder / name).rename(folder / "kept")
        os.mkfifo(folder / name)
        with pytest.raises(DataError, match=f"{name} is a pipe"):
            load_encoder(folder)
        (folder / "kept").replace(folder / name)


PREPROCESSOR = {
    "do_normalize": ["true", 1, None, "False"],
    "sampling_rate": ["16000", 16000.5, None, 8000, True],
    "feature_size": [2, "1", None, 80],
    "return_attention_mask": ["yes", 1],
    "padding_value": ["0", None],
    "feature_extractor_type": [3, "WhisperFeatureExtractor", "SeamlessM4TFeatureExtractor"],
}


@pytest.mark.parametrize(
    ("key", "value"), [(k, value) for k, values in PREPROCESSOR.items() for value in values]
)
def test_a_setting_of_the_input_that_cannot_be(pretrained, tmp_path, key, value):
    folder = shutil.copytree(pretrained, tmp_path / "encoder")
    change(folder / "preprocessor_config.json", **{key: value})
    for door in (load_encoder, continued):
        with pytest.raises(DataError) as error:
            door(folder)
        wrong(error, folder, "preprocessor_config.json", key)


@pytest.mark.parametrize(
    ("key", "value"), [("num_mel_bins", 40), ("num_mel_bins", 0), ("stride", "2"), ("stride", 3)]
)
def test_log_mel_frames_of_another_size(checkpoints, tmp_path, key, value):
    folder = shutil.copytree(checkpoints("wav2vec2-bert"), tmp_path / "encoder")
    change(folder / "preprocessor_config.json", **{key: value})
    with pytest.raises(DataError) as error:
        load_encoder(folder)
    wrong(error, folder, "preprocessor_config.json", key)


NOT_OBEYED = {
    "_attn_implementation": ["flash_attention_2", "sdpa_paged", "org/kernel", "eager", {"": "org/kernel"}, 3],
    "attn_implementation": ["flash_attention_2", "org/kernel", {"": "org/kernel"}],
    "_attn_implementation_internal": ["org/kernel"],
    "experts_implementation": ["org/kernel"],
    "dtype": ["float99", 5, "float16"], "torch_dtype": ["float99", "auto"],
    "auto_map": [OTHER_CODE], "fusion_config": [{"patch_embeddings": True}], "per_layer_config": [{"0": {}}],
    "transformers_weights": ["../other.safetensors"], "num_feat_extract_layers": [3], "return_dict": [False],
    "output_hidden_states": [True], "output_attentions": [True], "num_labels": [10**9], "id2label": [[1]],
    "to_dict": [1], "save_pretrained": ["x"], "__class__": ["x"], "quantization_config": [None],
}  # fmt: skip


BEYOND = [(key, value) for key, values in NOT_OBEYED.items() for value in values]


@pytest.mark.parametrize(("key", "value"), BEYOND)
def test_what_a_config_asks_for_beyond_the_architecture_is_not_taken(folder, key, value):
    plain = read_config(folder).to_dict()
    change(folder / "config.json", **{key: value})
    read = read_config(folder)
    assert read.to_dict() == plain and read._attn_implementation is None


def test_nor_is_it_done_or_written_again(checkpoints, folder, ragged, tmp_path):
    change(folder / "config.json", **{key: values[0] for key, values in NOT_OBEYED.items() if values[0]})
    change(folder / "config.json", quantization_config=None)
    wavs, lens = ragged
    encoder, plain = load_encoder(folder, layer=2), load_encoder(checkpoints("wav2vec2-layer"), layer=2)
    assert torch.equal(encoder(wavs, relative(lens))[0], plain(wavs, relative(lens))[0])
    encoder.export(tmp_path / "exported")
    written = read_object(tmp_path / "exported" / "config.json")
    assert not {key for key, values in NOT_OBEYED.items() if key in written and written[key] in values[:1]}


@pytest.mark.parametrize("door", ["ssl_hub", "init_from"])
def test_code_of_a_folder_is_neither_asked_about_nor_run(pretrained, tmp_path, monkeypatch, door):
    folder = shutil.copytree(pretrained, tmp_path / "encoder")
    (folder / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    (folder / "processor_config.json").write_text(json.dumps({"auto_map": OTHER_CODE}))
    change(folder / "preprocessor_config.json", auto_map=OTHER_CODE)
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked"))
    for model_type in ("wav2vec2", "own"):
        change(folder / "config.json", auto_map=OTHER_CODE, model_type=model_type)
        if model_type == "wav2vec2":
            DOORS[door](folder)
    with pytest.raises(DataError, match="model_type: 'own'.*never run"):
        DOORS[door](folder)
    assert not (tmp_path / "ran").exists()


def test_an_adapter_beside_the_weights_is_not_loaded(folder):
    """It names a base model, which transformers would fetch instead"""
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "organisation/other"}')
    assert load_encoder(folder).output_size == 32


INSTEAD = {
    "tf_model.h5": "TensorFlow", "flax_model.msgpack": "Flax", "adapter_model.safetensors": "adapter",
    "model-00001-of-00003.safetensors": "index", "pytorch_model-00001-of-00002.bin": "index",
    "model.fp16.safetensors": "expected model.safetensors", "model.gguf": "expected model.safetensors",
    "checkpoint-500/config.json": "checkpoint-500", "encoder/config.json": "encoder",
    "wav2vec2.ckpt": "lebench import",
}  # fmt: skip


@pytest.mark.parametrize("name", INSTEAD)
def test_a_folder_without_weights_says_what_is_there(folder, name):
    (folder / "model.safetensors").unlink()
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text("{}")
    with pytest.raises(FileNotFoundError) as error:
        load_encoder(folder)
    wrong(error, folder, "holds no weights", INSTEAD[name])


def test_the_last_checkpoint_of_a_trainer(tmp_path):
    for number in (500, 1000, 90):
        (tmp_path / f"checkpoint-{number}").mkdir()
        (tmp_path / f"checkpoint-{number}" / "config.json").write_text("{}")
    for door in (load_encoder, continued):
        with pytest.raises(FileNotFoundError, match=r"checkpoint-1000 is the last of 3"):
            door(tmp_path)


PLACES = ["../other.safetensors", "/etc/passwd", "sub/model.safetensors", "", 3, None, "model.bin", "."]


@pytest.mark.parametrize("place", PLACES)
def test_an_index_names_files_of_its_folder_alone(folder, place):
    index = folder / "model.safetensors.index.json"
    shutil.copy(folder / "model.safetensors", folder.parent / "other.safetensors")
    (folder / "model.safetensors").unlink()
    index.write_text(json.dumps({"weight_map": {"masked_spec_embed": place}}))
    with pytest.raises(DataError) as error:
        load_encoder(folder)
    wrong(error, folder, index.name, "weight_map")


@pytest.mark.parametrize("content", ["{}", "[]", '{"weight_map": []}', '{"weight_map": {}}', "{"])
def test_an_index_that_is_none(folder, content):
    (folder / "model.safetensors").rename(folder / "model-00001-of-00001.safetensors")
    (folder / "model.safetensors.index.json").write_text(content)
    with pytest.raises(DataError) as error:
        load_encoder(folder)
    wrong(error, folder, "model.safetensors.index.json")


def test_a_missing_shard_is_named(folder):
    (folder / "model.safetensors").rename(folder / "model-1.safetensors")
    places = {"a": "model-1.safetensors", "b": "model-2.safetensors", "c": "model-3.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    with pytest.raises(FileNotFoundError) as error:
        load_encoder(folder)
    wrong(error, folder, "lacks 2 of the 3", "model-2.safetensors, model-3.safetensors")


def test_two_kinds_of_weights_the_one_that_is_read_is_said(folder, caplog):
    torch.save({"other": torch.ones(1)}, folder / "pytorch_model.bin")
    load_encoder(folder)
    assert "the weights are those of model.safetensors; not read: pytorch_model.bin" in caplog.text


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.int32, torch.bool, torch.float8_e4m3fn])
@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_quantised_weights_are_not_taken_for_numbers(folder, dtype, kind):
    weights = load_file(folder / "model.safetensors")
    name = "encoder.layers.1.attention.k_proj.weight"
    weights[name] = weights[name].to(dtype)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    if kind == "bin":
        (folder / "model.safetensors").unlink()
        torch.save(weights, folder / "pytorch_model.bin")
    with pytest.raises(DataError) as error:
        load_encoder(folder)
    wrong(error, folder, "quantised weights are not read", name)


class Attack:
    def __reduce__(self):
        return os.mkdir, ("attacked",)


def packed(path):
    torch.save({"a": torch.zeros(10**6)}, path.with_suffix(".plain"))
    with (
        zipfile.ZipFile(path.with_suffix(".plain")) as plain,
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file,
    ):
        for name in plain.namelist():
            file.writestr(name, plain.read(name))


def later_zip(path):
    """One that says it needs a reader of version 9.2"""
    torch.save({"a": torch.zeros(1)}, path)
    content = path.read_bytes()
    at = content.index(b"PK\x01\x02") + 6
    path.write_bytes(content[:at] + b"\x5c" + content[at + 1 :])


def write(path, content):
    path.write_bytes(content)


BINS = {
    "0 bytes": (lambda path: write(path, b""), "0 bytes"),
    "LFS": (lambda path: write(path, b"version https://git-lfs.github.com/spec/v1\noid"), "git lfs pull"),
    "HTML": (lambda path: write(path, b"<!DOCTYPE html><html>"), "web page"),
    "pickle": (lambda path: write(path, pickle.dumps(Attack())), "pickle"),
    "code": (lambda path: torch.save({"a": Attack()}, path), "pickle"),
    "noise": (lambda path: write(path, b"\x80\x02" + bytes(range(256))), "cannot be read"),
    "packed": (packed, "packed zip"),
    "other zip": (later_zip, "broken zip"),
    "list": (lambda path: torch.save([1], path), "holds a list"),
    "nested": (lambda path: torch.save({"state_dict": {}}, path), "state_dict is a dict"),
    "repeated": (lambda path: torch.save({"a": torch.ones(1).expand(10**9)}, path), "no dense tensor"),
    "sparse": (lambda path: torch.save({"a": torch.eye(3).to_sparse()}, path), "no dense tensor"),
    "folder": (lambda path: path.mkdir(), "is a folder"),
}


@pytest.mark.parametrize("content", BINS)
def test_a_file_of_torch_that_is_none(folder, tmp_path, monkeypatch, content):
    (folder / "model.safetensors").unlink()
    make, word = BINS[content]
    make(folder / "pytorch_model.bin")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError) as error:
        load_encoder(folder)
    wrong(error, folder, "pytorch_model.bin", word)
    assert not (tmp_path / "attacked").exists()


LIE = b'{"a":{"dtype":"F32","shape":[1000000000],"data_offsets":[0,4000000000]}}'
HEADERS = {
    "huge": (2**62).to_bytes(8, "little") + b"{}",
    "short": b"\x00\x01",
    "list": (2).to_bytes(8, "little") + b"[]",
    "outside": len(LIE).to_bytes(8, "little") + LIE,
}


@pytest.mark.parametrize("content", HEADERS)
def test_a_header_of_safetensors_that_lies(folder, content):
    (folder / "model.safetensors").write_bytes(HEADERS[content])
    with pytest.raises(DataError) as error:
        load_encoder(folder)
    wrong(error, folder, "model.safetensors", "cannot be read")


def test_what_is_written_to_a_file_later_changes_no_weight(folder):
    encoder = load_encoder(folder)
    before = {name: weight.clone() for name, weight in encoder.model.state_dict().items()}
    with open(folder / "model.safetensors", "r+b") as file:
        file.seek(20_000)
        file.write(b"\xff" * 50_000)
    assert all(torch.equal(before[name], weight) for name, weight in encoder.model.state_dict().items())


def test_weights_that_a_continued_model_has_no_place_for(pretrained, tmp_path):
    """Fewer layers in config.json than in the file: they would be dropped in silence"""
    folder = shutil.copytree(pretrained, tmp_path / "encoder")
    change(folder / "config.json", num_hidden_layers=2)
    with pytest.raises(DataError, match=r"16 unexpected: wav2vec2\.encoder\.layers\.2"):
        continued(folder)


@pytest.mark.parametrize("value", [["a"], 4, [1.5], [-1], [True], None])
def test_layers_of_a_teacher_are_whole_numbers(value):
    with pytest.raises(UsageError, match="teacher_layers .*a list of layers is expected"):
        load_teacher("nowhere", value, [])


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ({"hidden_size": "32"}, "hidden_size: '32'"),
        ({"return_dict": False}, "no setting"),
        ({"conv_dim": [1]}, "conv_dim has 1"),
    ],
)
def test_a_config_in_a_yaml(values, word):
    with pytest.raises(UsageError, match=f"^config: .*{word}"):
        make_config(**values)


@pytest.mark.parametrize(("buckets", "farthest"), [(20, 5), (3, 40), (0, 40), (20, "40")])
def test_distances_that_wavlm_cannot_have(checkpoints, tmp_path, buckets, farthest):
    folder = shutil.copytree(checkpoints("wavlm-group"), tmp_path / "encoder")
    change(folder / "config.json", num_buckets=buckets, max_bucket_distance=farthest)
    with pytest.raises(DataError) as error:
        load_encoder(folder)
    wrong(error, folder, "config.json", "bucket")


def test_positions_that_would_be_left_out_in_silence(checkpoints, tmp_path):
    folder = shutil.copytree(checkpoints("conformer-relative"), tmp_path / "encoder")
    change(folder / "config.json", position_embeddings_type="Relative")
    with pytest.raises(DataError, match="position_embeddings_type: 'Relative', expected one of 'relative'"):
        load_encoder(folder)


NO_CODE = "trust_remote_code=False"
SAFE = {"from_pretrained": NO_CODE, "from_config": NO_CODE, "load": "weights_only=True"}


def test_no_door_runs_code():
    """Each call that opens a model or a file of torch says that no code of it runs"""
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in PACKAGE.rglob("*.py")]
    calls = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Call)]
    doors = [call for call in calls if isinstance(call.func, ast.Attribute) and call.func.attr in SAFE]
    for call in doors:
        if call.func.attr != "load" or ast.unparse(call.func.value) in ("torch", "pickle", "joblib"):
            said = {ast.unparse(keyword) for keyword in call.keywords}
            assert SAFE[call.func.attr] in said, ast.unparse(call)
    assert len(doors) > 5


def test_whole_numbers_are_numbers():
    config = config_of(transformers.Wav2Vec2Config, {"layer_norm_eps": 1, "hidden_dropout": 0}, "here")
    assert config.layer_norm_eps == 1.0 and isinstance(config.layer_norm_eps, float)


def test_an_id_with_a_revision_says_how_to_fetch_it():
    with pytest.raises(FileNotFoundError, match="hf download org/name --revision v2 --local-dir"):
        load_encoder("org/name@v2")
    with pytest.raises(UsageError, match="no Hub id"):
        load_encoder("or..g/na--me")


def test_a_published_config_reads_as_before(checkpoints, tmp_path):
    """Keys of any age are passed over, settings are as transformers reads them"""
    old = {
        "feat_extract_dropout": 0.0,
        "gradient_checkpointing": False,
        "tokenizer_class": "X",
        "torch_dtype": "float16",
    }
    folder = shutil.copytree(checkpoints("wav2vec2-layer"), tmp_path / "encoder")
    change(folder / "config.json", **old, id2label={"0": "A"}, label2id={"A": 0})
    read = load_encoder(folder)._config
    for key, value in read_object(folder / "config.json").items():
        if key in SIZES | LAYER:
            assert getattr(read, key) == value
