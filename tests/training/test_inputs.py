"""A folder goes on with what it began with, and with nothing else, unless the user says so."""

import json
import shutil
from pathlib import Path

import pytest
import soundfile
from tiny import write_wav2vec2

from lebench_sb.core.command_line import parse
from lebench_sb.core.errors import UsageError
from lebench_sb.core.extends import whole
from lebench_sb.core.yaml_values import plain_values, resolve
from lebench_sb.training import folders, inputs
from lebench_sb.training import run as run_module
from lebench_sb.training.speech import content_of

ROOT = Path(__file__).parents[2]
CTC = ROOT / "recipes" / "ASR" / "CommonVoice" / "hparams" / "ctc.yaml"


@pytest.fixture(scope="module")
def encoders(tmp_path_factory):
    """Two folders of the same architecture with other weights"""
    folder = tmp_path_factory.mktemp("encoders")
    return [write_wav2vec2(folder / name, seed=seed) for seed, name in enumerate("ab")]


@pytest.fixture
def started(manifests, encoders, tmp_path, monkeypatch):
    """started(*words, encoder=0): what `start` gives for a run in `tmp_path`/run; the model is not built"""
    monkeypatch.setattr(run_module.sb.utils.logger, "setup_logging", lambda *_: None)
    real = run_module.build

    def built(resolved, path, only=None):
        return real(resolved, path, only) if only else {"checkpointer": type("C", (), {})()}

    monkeypatch.setattr(run_module, "build", built)

    def start(*words, encoder=0):
        given = [*manifests, "--ssl_hub", str(encoders[encoder]), "--output_folder", str(tmp_path / "run")]
        kept = {w: v for w, v in zip(given[::2], given[1::2], strict=True) if w not in words}
        argv = [str(CTC), *(w for pair in kept.items() for w in pair), *words]
        hparams, _ = run_module.start(argv)
        hparams["run"]["lock"].close()
        return hparams["run"]

    return start


def checkpoint(tmp_path):
    """What makes a folder one that has begun"""
    (tmp_path / "run" / "save" / "CKPT+1").mkdir(parents=True)


def test_the_same_goes_on(started, tmp_path):
    started()
    checkpoint(tmp_path)
    assert started()["changes"] == []


def record(*words, processes=1):
    """What a run with these words begins with"""
    needed = {"--data_folder": "d", "--ssl_hub": "mel_filterbank"}
    needed = [w for key, value in needed.items() if key not in words for w in (key, value)]
    path, run_opts, overrides = parse([str(CTC), *needed, *words])
    resolved = resolve(path, overrides)
    typed = {name: getattr(run_opts, name) for name in run_opts.overridden_args}
    return inputs.record_of(resolved, plain_values(resolved), typed, processes)


NEUTRAL = [
    ("--num_workers", "3"), ("--checkpoint_every_updates", "7"), ("--energy_method", "estimate"),
    ("--pue", "1.5"), ("--optimizer_step_limit", "3"), ("--device", "cpu"), ("--noprogressbar",),
    ("--head_lr", "2e-3"),  # another spelling of the same number
    ("--data_folder", "e"), ("--output_folder", "r"), ("--feature_cache", "c"), ("--train_csv", "t.csv"),
]  # fmt: skip


def test_what_changes_no_result_is_not_compared():
    first = record()
    for words in NEUTRAL:
        assert inputs.differences(first, record(*words)) == [], words


OTHERWISE = [
    (["--seed", "7"], "seed: 1234 then, 7 now"),
    (["--head_lr", "0.01"], "head_lr: 0.002 then, 0.01 now"),
    (["--freeze", "False"], "freeze: true then, false now"),
    (["--layer", "1"], "layer: weighted then, 1 now"),
    (["--mode", "end to end"], "mode: frozen then, end to end now"),
    (["--head={hidden: 8}"], "head.hidden: 256 then, 8 now"),
    (["--normaliser", "none"], "normaliser: fr-1 then, none now"),
    (["--precision", "fp16"], "precision: fp32 then, fp16 now"),
    (["--max_grad_norm", "1.0"], "max_grad_norm: 5 then, 1 now"),
    (["--grad_accumulation_factor", "2"], "micro-batches per update: 1 then, 2 now"),
    (["--lm_weights", "[0.3, 0.6, 0.8]"], "lm_weights.2: 0.9 then, 0.8 now"),
    (["--caveats", "[one seed]"], "caveats.0: absent then, one seed now; caveats: [] then, absent now"),
    (["--lm", "train"], "lm: none then, train now"),
    (["--optimizer", "!name:torch.optim.SGD"], "optimizer: !name:torch.optim.AdamW then"),
    (["--number_of_epochs", "30"], "number_of_epochs: 20 then, 30 now"),
]


@pytest.mark.parametrize(("words", "told"), OTHERWISE, ids=lambda value: str(value)[:30])
def test_other_settings_are_told(words, told):
    found = inputs.differences(record(), record(*words))
    assert all(any(line.startswith(part) for line in found) for part in told.split("; ")), found
    assert len(found) <= 4


def test_other_settings_are_refused_before_anything_is_written(started, tmp_path):
    started()
    checkpoint(tmp_path)
    (tmp_path / "run" / "results.json").write_text("{}")
    before = contents(tmp_path / "run")
    with pytest.raises(UsageError) as caught:
        started("--seed", "7")
    assert "seed: 1234 then, 7 now" in str(caught.value)
    assert "--output_folder" in str(caught.value) and "--if_changed" in str(caught.value)
    assert contents(tmp_path / "run") == before


def test_processes_may_stand_for_accumulated_batches():
    one, two = record("--grad_accumulation_factor", "2"), record(processes=2)
    assert inputs.differences(one, two) == []
    assert inputs.differences(one, record(processes=None)) == []  # tests only


def test_a_debug_run_is_thrown_away(started, tmp_path):
    started("--debug")
    (tmp_path / "run" / "debug" / "save" / "CKPT+1").mkdir(parents=True)
    started("--debug", "--seed", "7")
    assert not (tmp_path / "run" / "debug" / "save").exists()
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["debug"]


def test_another_encoder_of_the_same_shape_is_refused(started, tmp_path):
    started()
    checkpoint(tmp_path)
    with pytest.raises(UsageError, match="ssl_hub: .*a then, .*b now"):
        started(encoder=1)


def test_an_encoder_whose_weights_were_replaced_is_refused_and_a_moved_one_is_not(
    started, encoders, tmp_path
):
    moved = tmp_path / "moved"
    shutil.copytree(encoders[0], moved)
    started("--ssl_hub", str(encoders[0]))
    checkpoint(tmp_path)
    started("--ssl_hub", str(moved))
    shutil.copy(encoders[1] / "model.safetensors", moved / "model.safetensors")
    with pytest.raises(UsageError, match="holds another encoder now"):
        started("--ssl_hub", str(moved))


def test_what_a_file_that_a_setting_names_says_is_compared(started, tmp_path):
    text = tmp_path / "lm.txt"
    text.write_text("oui non")
    started("--lm", str(text))
    checkpoint(tmp_path)
    text.write_text("non oui")
    with pytest.raises(UsageError, match="lm.txt: another content"):
        started("--lm", str(text))


@pytest.fixture
def own_corpus(corpus, tmp_path):
    """A copy of the corpus and the words that name it"""
    folder = tmp_path / "speech"
    shutil.copytree(corpus, folder)
    words = ["--data_folder", str(folder)]
    splits = ("train", "valid", "test")
    return folder, words + [word for s in splits for word in (f"--{s}_csv", f"{folder}/{s}.csv")]


@pytest.mark.parametrize("case", ["a recording", "a table", "a folder that moved"])
def test_other_speech_is_refused_wherever_it_lies(started, own_corpus, tmp_path, case):
    folder, words = own_corpus
    started(*words)
    checkpoint(tmp_path)
    if case == "a recording":  # of the same length
        samples, rate = soundfile.read(folder / "train3.wav")
        soundfile.write(folder / "train3.wav", samples[::-1], rate)
    elif case == "a table":
        table = folder / "test.csv"
        table.write_text("\n".join(table.read_text().splitlines()[:-1]) + "\n")
    else:
        folder = folder.rename(tmp_path / "elsewhere")
        started(*[word.replace(f"{tmp_path}/speech", str(folder)) for word in words])
        return
    with pytest.raises(UsageError, match="(train|test): other data"):
        started(*words)


def test_the_user_may_begin_beside(started, tmp_path):
    started()
    checkpoint(tmp_path)
    assert started("--seed", "7", "--if_changed", "beside")["changes"] == []
    assert (tmp_path / "run.old1" / "save" / "CKPT+1").is_dir()
    assert not (tmp_path / "run" / "save").exists()
    assert inputs.read(tmp_path / "run")["settings"]["seed"] == "7"
    started("--seed", "7")


def test_the_user_may_go_on_and_it_is_written_down(started, tmp_path):
    started()
    checkpoint(tmp_path)
    changes = started("--seed", "7", "--if_changed", "resume")["changes"]
    assert [change["differences"] for change in changes] == [["seed: 1234 then, 7 now"]]
    assert started("--seed", "7")["changes"] == changes
    with pytest.raises(UsageError, match="seed: 7 then, 1234 now"):
        started()


def test_a_folder_in_which_nothing_was_learned_belongs_to_nobody(started, tmp_path):
    started()
    assert started("--seed", "7")["changes"] == []


def test_a_folder_from_before_the_record_says_its_settings(started, tmp_path):
    started()
    checkpoint(tmp_path)
    (tmp_path / "run" / "inputs.json").unlink()
    with pytest.raises(UsageError, match="seed: 1234 then, 7 now"):
        started("--seed", "7")
    with pytest.raises(UsageError, match="ssl_hub"):
        started(encoder=1)
    started()


def test_checkpoints_elsewhere_know_what_they_began_with(started, tmp_path):
    saved = ["--save_folder", str(tmp_path / "scratch")]
    started(*saved)
    (tmp_path / "scratch" / "CKPT+1").mkdir()
    with pytest.raises(UsageError, match="seed: 1234 then, 7 now"):
        started(*saved, "--seed", "7", "--output_folder", str(tmp_path / "other"))


def test_links_of_a_run_folder_are_not_written_through(started, tmp_path):
    started()
    (tmp_path / "precious").write_text("mine")
    (tmp_path / "run" / "log.txt").unlink(missing_ok=True)
    (tmp_path / "run" / "log.txt").symlink_to(tmp_path / "precious")
    with pytest.raises(UsageError, match="symbolic link"):
        started()
    assert (tmp_path / "precious").read_text() == "mine"


@pytest.mark.parametrize("content", ["[]", "{", "\xff", "[" * 50_000])
def test_a_record_that_is_none_is_named(started, tmp_path, content):
    started()
    checkpoint(tmp_path)
    (tmp_path / "run" / "inputs.json").write_text(content)
    with pytest.raises(UsageError, match="inputs.json"):
        started()


def contents(folder):
    """{name: bytes} of the files of a run, its lock apart"""
    return {p: p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file() and p.name != ".lock"}


def test_large_data_is_told_apart_by_sizes_and_pieces(tmp_path, monkeypatch):
    monkeypatch.setattr("lebench_sb.training.speech.WHOLE", 100)
    paths = [tmp_path / str(number) for number in range(4)]
    for path in paths:
        path.write_bytes(bytes(1 << 21))
    first = content_of(paths)
    assert content_of(paths) == first
    with open(paths[2], "r+b") as file:  # in the middle, the size stays
        file.seek(1 << 20)
        file.write(b"x" * (1 << 16))
    assert content_of(paths) != first


def test_two_encoders_never_share_a_default_folder():
    name = folders.run_folder("results/ASR/CommonVoice/ctc", "LeBenchmark/wav2vec2-FR-7K-large", "frozen", 1)
    assert name == "results/ASR/CommonVoice/ctc/LeBenchmark_wav2vec2-FR-7K-large/frozen/seed1"
    sources = ["a/encoder", "b/encoder", "random:a/encoder", "mel_filterbank", "/x" * 60, "/x" * 61, "../é"]
    names = {folders.name_of(source) for source in sources}
    assert len(names) == len(sources) and all(len(name) < 80 and "/" not in name for name in names)


def test_the_record_is_json(started, tmp_path):
    started()
    record = json.loads((tmp_path / "run" / "inputs.json").read_text())
    assert {"settings", "encoders", "files", "speech", "version", "changes"} <= set(record)


SOURCES = ("encoder.source", "teacher_encoder.source", "model.init_from")


def test_every_recipe_names_what_decides_its_encoder():
    """A YAML whose encoder comes by another key would be resumed with another encoder unseen"""
    keys = set()
    for path in ROOT.glob("recipes/*/*/hparams/*.yaml"):
        settings = inputs.flat(whole(path))
        keys |= {value for key, value in settings.items() if key in SOURCES}
    assert {key.removeprefix("!ref <").removesuffix(">") for key in keys} == set(inputs.ENCODERS)
