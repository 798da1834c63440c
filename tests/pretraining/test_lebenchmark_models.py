"""The YAMLs of LeBenchmark's ten models against one table of (value, status), their sizes, and two updates.

The table: lebenchmark_models.csv. Its models are names of YAMLs, data sets ("14K": all models of 14,000 h),
and "base" and "large", the models trained with fairseq (those of 14,000 h were not).
"""

import csv
import functools
import json
import math
import re
from pathlib import Path

import pytest
import torch
from ruamel.yaml import YAML
from scripts import pretrain

from lebench_sb.core.errors import UsageError
from lebench_sb.core.extends import complete
from lebench_sb.core.yaml_values import load_yaml
from lebench_sb.corpora.lebenchmark import TRAINED_ON, manifests, prepare_lebenchmark
from lebench_sb.manifests.utterance import Utterance
from lebench_sb.manifests.writing import write_manifest

HPARAMS = Path(__file__).parents[2] / "recipes" / "pretraining" / "wav2vec2" / "hparams"
MODELS = [
    "1K-base", "1K-large", "2.7K-base", "3K-base", "3K-large", "7K-base", "7K-large", "14K-light",
    "14K-large", "14K-xlarge",
]  # fmt: skip
# (encoder, with heads), computed from the shapes; 14K models: those of the released files' sizes
COUNTS = {
    "base": (94_371_712, 95_044_608),
    "large": (315_438_720, 317_390_592),
    "14K-light": (25_487_488, 26_094_848),
    "14K-large": (315_438_720, 316_177_152),
    "14K-xlarge": (962_497_408, 965_514_752),
}
# keys of the run and of this implementation: nothing of the published models
OWN = set(
    """
    prepare brain train_csv gender languages max_duration num_workers precision eval_precision
    valid_every_updates checkpoint_every_updates freeze_targets_updates init_quantizer
    config.mask_time_prob model modules optimizer optimizer.fused schedule.start config
    activation_checkpointing fsdp max_bad_fraction allow_shared_audio
""".split()
)
STATUS = re.compile(r"\b(confirmed|inferred|unknown)\b")


def is_of(model, group):
    """Whether a name in the table's second column means this model"""
    data, size = model.split("-")
    return group in ("all", model, data) or (group == size and data != "14K")


def table(model):
    """-> {key: (value, status)}"""
    found = {}
    with open(Path(__file__).with_name("lebenchmark_models.csv"), encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if any(is_of(model, group) for group in row["models"].split()):
                assert row["key"] not in found, f"{model}: {row['key']} twice"
                found[row["key"]] = (YAML(typ="safe").load(row["value"]), row["status"])
    return found


@functools.cache
def loaded(model):
    """The YAML's objects, their weights without storage"""
    overrides = {"data_folder": "/D", "output_folder": "/tmp/unused", "save_folder": "", "__set_seed": "null"}
    overrides |= {"checkpointer": "null", "train_logger": "null"}
    with torch.device("meta"):
        return load_yaml(HPARAMS / f"{model}.yaml", overrides)


def value_of(hparams, key):
    """What the loaded YAML says of a key of the table"""
    first, _, rest = key.partition(".")
    value = hparams[first]
    if first == "config":
        value = getattr(value, rest)
    elif rest:
        value = value.keywords[rest]
    elif first == "schedule":
        value = value.func.__name__
    elif first == "corpora":
        value = len(value)
    elif first == "valid_csv":
        value = str(Path(value).relative_to("/D/manifests"))
    return list(value) if isinstance(value, tuple) else value


@functools.cache
def text_of(model):
    """The model's YAML, with what it extends and includes"""
    return complete(HPARAMS / f"{model}.yaml")


def comments(text):
    """-> {key, nested ones as parent.key: its comment}"""
    found, parent = {}, ""
    for line in text.splitlines():
        match = re.match(r"( *)([\w]+):(.*)", line)
        if not match:
            continue
        name = f"{parent}.{match[2]}" if match[1] else match[2]
        parent = parent if match[1] else match[2]
        found[name] = match[3].partition(" #")[2]
    return found


def scientific(text):
    """Keys between "# Data" and "# Evaluation", those of the included shape, and what leads up to them"""
    inside = text.split("# Data\n")[1].split("# Evaluation\n")[0]
    tops = set(re.findall(r"^(\w+):", inside, re.M)) - {"prepare", "model", "modules"}
    return {key for key in comments(text) if key.split(".")[0] in tops} - OWN | {
        "corpora",
        "number_of_updates",
    }


@pytest.mark.parametrize("model", MODELS)
def test_every_value_and_status_is_that_of_the_table(model):
    wanted, hparams, said = table(model), loaded(model), comments(text_of(model))
    for key, (value, status) in wanted.items():
        assert value_of(hparams, key) == value, f"{model}: {key}"
        assert STATUS.findall(said[key])[:1] == [status], f"{model}: {key} has the comment {said[key]!r}"
    assert scientific(text_of(model)) == set(wanted), "each value is in the table and the reverse"


@pytest.mark.parametrize("model", MODELS)
def test_parameters_are_as_many_as_published(model):
    hf = loaded(model)["model"].hf
    encoder, whole = COUNTS.get(model) or COUNTS[model.split("-")[1]]
    assert sum(p.numel() for p in hf.wav2vec2.parameters()) == encoder
    assert sum(p.numel() for p in hf.parameters()) == whole
    million = f"{whole / 1e6:.1f} million parameters"
    assert million in text_of(model).splitlines()[0]


@pytest.mark.parametrize(("layers", "intermediate"), [(6, 2048), (9, 1024), (12, 512)])
def test_three_shapes_fit_the_light_models_file_and_ours_is_one(layers, intermediate):
    """104 MB of float32: so the layers' number and width cannot be told from the size of the released file"""
    config = type(loaded("14K-light")["config"])(**loaded("14K-light")["config"].to_dict())
    config.num_hidden_layers, config.intermediate_size = layers, intermediate
    with torch.device("meta"):
        hf = type(loaded("14K-light")["model"].hf)(config)
    assert sum(p.numel() for p in hf.parameters()) * 4 / 1e6 == pytest.approx(104.42, abs=0.06)


@pytest.mark.parametrize("model", MODELS)
def test_the_original_number_of_gpus_reaches_the_hours(model):
    gpus = int(re.search(r"(\d+) GPUs", text_of(model).splitlines()[0])[1])
    hparams = loaded(model)
    hours = gpus * hparams["grad_accumulation_factor"] * hparams["max_batch_seconds"] / 3600
    assert hours == pytest.approx(hparams["hours_per_update"], rel=0.015)


@pytest.mark.parametrize("model", MODELS)
def test_the_rate_rises_to_its_peak_and_falls(model):
    hparams = loaded(model)
    total = hparams["number_of_updates"]
    factor = functools.partial(hparams["schedule"], total=total)
    warmup = hparams["schedule"].keywords["warmup"]
    assert factor(1) == pytest.approx(1 / warmup) and factor(warmup) == 1
    if model.startswith("14K"):  # Noam: lr_initial x model_size^-0.5 x min(n^-0.5, n x warmup^-1.5)
        for n in (1000, 25_000, 100_000):
            noam = 2.0 * 768**-0.5 * min(n**-0.5, n * 25_000**-1.5)
            assert hparams["encoder_lr"] * factor(n) == pytest.approx(noam, rel=1e-3)
    else:  # fairseq's polynomial_decay of power 1
        assert factor(total) == 0 and factor((total + warmup) // 2) == pytest.approx(0.5, rel=1e-3)


@pytest.mark.parametrize(
    ("model", "update", "floor"), [("1K-base", 277_258, 0.5), ("3K-large", 599_145, 0.1)]
)
def test_the_temperature_reaches_its_floor_when_it_should(model, update, floor):
    start, end, decay = loaded(model)["gumbel_temperature"]
    assert end == floor and math.ceil(math.log(end / start) / math.log(decay)) == pytest.approx(update, abs=2)


# ---- the corpora


def test_data_sets_grow_and_mls_is_validated_on_but_not_trained_on():
    sets = [loaded(model)["corpora"] for model in ("1K-base", "2.7K-base", "3K-base", "7K-base", "14K-light")]
    for small, large in zip(sets, sets[1:], strict=False):
        assert large[: len(small)] == small
    assert sets[-1] == list(TRAINED_ON)
    paths = manifests("/M", sets[-1])
    assert "/M/mls/valid.csv" not in paths and "/M/mls/test.csv" in paths and len(set(paths)) == len(paths)
    assert loaded("3K-large")["train_csv"] == manifests("/D/manifests", sets[2])


def test_a_corpus_that_is_none_is_named():
    with pytest.raises(UsageError, match="'eslo' is none of LeBenchmark's, did you mean eslo2"):
        manifests("/M", "mls, eslo")


def test_missing_manifests_are_all_named_and_those_of_known_corpora_are_made(tmp_path, monkeypatch):
    made = []
    monkeypatch.setattr("lebench_sb.corpora.mls.prepare_mls", lambda *folders: made.append(folders))
    (tmp_path / "M" / "gemep").mkdir(parents=True)
    (tmp_path / "M" / "gemep" / "train.csv").write_text("")
    with pytest.raises(FileNotFoundError, match=r"M lacks epac/train.csv, voxpopuli/train.csv, .*--corpora"):
        prepare_lebenchmark(tmp_path, tmp_path / "M", ["mls", "epac", "gemep", "voxpopuli"])
    assert made == [(str(tmp_path), str(tmp_path / "M" / "mls"))]


# ---- training

SMALL = {
    "config": "{hidden_size: 32, intermediate_size: 64, num_attention_heads: 2, "
    "conv_dim: [32, 32, 32, 32, 32, 32, 32]}",
    "number_of_updates": 2, "grad_accumulation_factor": 1, "max_batch_seconds": 4, "num_workers": 0,
    "min_duration": 1.0, "precision": "fp32", "eval_precision": "fp32",
}  # fmt: skip


FAST = ("1K-base", "14K-light")  # one extractor of each kind; all of them with the slow tests


@pytest.mark.parametrize(
    "model", [m if m in FAST else pytest.param(m, marks=pytest.mark.slow) for m in MODELS]
)
def test_two_updates_at_width_32(root, model, manifests, tmp_path):
    words = [word for word in manifests if "test" not in Path(word).name]
    folder = pretrain(root, model, words, tmp_path / "run", **SMALL)
    steps = [json.loads(line) for line in (folder / "steps.jsonl").read_text().splitlines()]
    assert [step["step"] for step in steps if step["stage"] == "train"] == [1, 2]
    assert all(math.isfinite(step["loss"]) and step["lr"] > 0 for step in steps if step["stage"] == "train")
    config = json.loads((folder / "encoder" / "config.json").read_text())
    assert config["hidden_size"] == 32
    assert config["num_hidden_layers"] == loaded(model)["config"].num_hidden_layers
    assert "the recipe's: " in (folder / "log.txt").read_text()


def test_a_womens_model_hears_the_folders_of_its_corpora(root, manifests, corpus, tmp_path):
    """1K-Female: `--gender F`, with manifests where the YAML expects them"""
    for split in ("train", "valid", "test"):
        found = [
            Utterance(f"{split}{k}", str(corpus / f"{split}{k}.wav"), 1.0, 0.0, 1.0, gender="FM"[k % 2])
            for k in range(6)
        ]
        write_manifest(tmp_path / "M" / "mls" / f"{split}.csv", found, corpus, {})
    words = ["--data_folder", str(corpus), "--manifest_folder", str(tmp_path / "M"), "--gender", "F"]
    folder = pretrain(root, "1K-base", words, tmp_path / "run", **SMALL)
    assert "train: 6 of 12 utterances kept" in (folder / "log.txt").read_text()
    record = json.loads((folder / "results.json").read_text())
    assert [record["data"][split]["utterances"] for split in ("train", "valid")] == [6, 3]
