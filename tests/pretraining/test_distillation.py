"""A student learns hidden layers of a frozen teacher: the loss, what is copied, padding, the recipe."""

import json
import math
import shlex
import subprocess
import sys

import numpy as np
import pytest
import torch
import transformers
from hyperpyyaml import load_hyperpyyaml
from killing import KILL
from python_process import run_python
from tiny import SIZES, write_wav2vec2

from lebench_sb.core.extends import whole
from lebench_sb.encoders.encoder import load_encoder
from lebench_sb.pretraining.build import make_config
from lebench_sb.pretraining.distillation import SHARED, build_model, frame_losses, load_teacher, valid_pairs

FOLDER = "recipes/pretraining/distillation"
YAML = f"{FOLDER}/hparams/mini.yaml"
LAYERS = [1, 3]
DROPOUT = 0.05  # so that resuming has random numbers to repeat
STUDENT = ", ".join(
    f"{name}: {list(value) if isinstance(value, tuple) else value}"
    for name, value in {
        **SIZES, "conv_kernel": [10, 3, 3, 3, 3, 2, 2], "conv_stride": [5, 2, 2, 2, 2, 2, 2],
        "conv_bias": False, "do_stable_layer_norm": False, "hidden_dropout": 0.0, "activation_dropout": 0.0,
        "attention_dropout": DROPOUT,
    }.items()
)  # fmt: skip
STUDENT = f"{{{STUDENT}}}"


@pytest.fixture(scope="module")
def teacher_folder(tmp_path_factory):
    """Four layers, group norm, attention that is not uniform"""
    folder = tmp_path_factory.mktemp("teacher")
    return write_wav2vec2(folder, num_hidden_layers=4, initializer_range=0.25)


@pytest.fixture(scope="module")
def trained_folder(teacher_folder, tmp_path_factory):
    """That teacher with norms and biases as after training: none is what a fresh one is"""
    folder = tmp_path_factory.mktemp("trained")
    model = transformers.Wav2Vec2Model.from_pretrained(teacher_folder)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    transformers.Wav2Vec2FeatureExtractor(do_normalize=True).save_pretrained(folder)
    return folder


@pytest.fixture
def batch():
    """Three utterances of different lengths, padded: wavs (3, T), wav_lens (3,), samples"""
    torch.manual_seed(1)
    samples = [16000, 9000, 5200]
    wavs = torch.zeros(3, samples[0])
    for wav, count in zip(wavs, samples, strict=True):
        wav[:count] = torch.randn(count)
    return wavs, torch.tensor(samples) / samples[0], samples


def student(teacher_folder, init_layers=(), layers=LAYERS, **changes):
    config = make_config(**{**SIZES, "mask_time_prob": 0.0, **changes})
    teacher = load_teacher(str(teacher_folder), layers, list(init_layers))
    return build_model(config, teacher, layers, list(init_layers), True, seed=3), teacher


def test_the_loss_is_distilhuberts():
    """Against the formula written out in scalars"""
    rng = np.random.default_rng(0)
    predictions, targets = rng.standard_normal((2, 5, 2, 7))
    for weight in (1.0, 0.3):
        losses, l1, cosine = frame_losses(torch.tensor(predictions), torch.tensor(targets), weight)
        for n in range(5):
            expected = 0.0
            for k in range(2):
                p, t = predictions[n, k], targets[n, k]
                distance = sum(abs(a - b) for a, b in zip(p, t, strict=True)) / 7
                cos = sum(a * b for a, b in zip(p, t, strict=True))
                cos /= math.sqrt(sum(a * a for a in p) * sum(b * b for b in t))
                expected += distance - weight * math.log(1 / (1 + math.exp(-cos)))
                assert float(l1[n, k]) == pytest.approx(distance, rel=1e-5)
                assert float(cosine[n, k]) == pytest.approx(cos, rel=1e-5)
            assert float(losses[n]) == pytest.approx(expected, rel=1e-5)


def test_the_targets_are_the_models_own_hidden_states(teacher_folder, batch):
    """Each utterance of the padded batch as transformers computes it alone, pre-norm models included"""
    wavs, wav_lens, samples = batch
    stable = teacher_folder.parent / "stable"
    write_wav2vec2(stable, num_hidden_layers=4, do_stable_layer_norm=True, feat_extract_norm="layer")
    for folder in (teacher_folder, stable):
        reference = transformers.AutoModel.from_pretrained(folder).eval()
        extractor = transformers.AutoFeatureExtractor.from_pretrained(folder)
        found, lens = load_teacher(str(folder), LAYERS, []).hidden_states(wavs, wav_lens, LAYERS)
        for row, count in enumerate(samples):
            alone = extractor(wavs[row, :count].numpy(), sampling_rate=16000, return_tensors="pt")
            with torch.no_grad():
                states = reference(alone.input_values, output_hidden_states=True).hidden_states
            for k, layer in enumerate(LAYERS):
                assert int(lens[row]) == states[layer].shape[1]
                error = (found[row, : int(lens[row]), k] - states[layer][0]).abs().max()
                assert error < 1e-4 * states[layer].abs().max()


def test_a_padded_batch_is_its_utterances_alone(teacher_folder, batch):
    wavs, wav_lens, samples = batch
    model, teacher = student(teacher_folder)
    model.eval()

    def losses(wavs, wav_lens):
        targets = teacher.hidden_states(wavs, wav_lens, LAYERS)
        predictions, targets, lens = valid_pairs(*model(wavs, wav_lens), *targets)
        return frame_losses(predictions, targets, 1.0)[0].split(lens.tolist())

    together = losses(wavs, wav_lens)
    for row, count in enumerate(samples):
        (alone,) = losses(wavs[row : row + 1, :count], torch.ones(1))
        assert len(alone) == len(together[row])
        torch.testing.assert_close(together[row], alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("init_layers", [[0, 1], [0, 3]])
def test_copied_layers_are_the_teachers(trained_folder, init_layers):
    model, teacher = student(trained_folder, init_layers)
    original = load_encoder(trained_folder).model.state_dict()
    state = model.student.model.state_dict()
    copied = {f"encoder.layers.{index}.": f"encoder.layers.{own}." for own, index in enumerate(init_layers)}
    kept = ["feature_extractor.", "feature_projection.", "encoder.pos_conv_embed.", "encoder.layer_norm."]
    copied |= {part: part for part in kept}
    compared = 0
    for name, weight in original.items():
        for theirs, own in copied.items():
            if name.startswith(theirs):
                assert torch.equal(state[own + name.removeprefix(theirs)], weight), name
                compared += 1
    assert compared == len(state)


def test_the_first_layers_compute_what_they_compute_in_the_teacher(trained_folder, batch):
    model, teacher = student(trained_folder, [0, 1], layers=[2])
    frames, lens = model.student.eval()(*batch[:2])
    states, _ = teacher.hidden_states(*batch[:2], [2])
    for row, count in enumerate(lens.tolist()):
        torch.testing.assert_close(frames[row, :count], states[row, :count, 0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("init_layers", "changes", "message"),
    [
        ([0], {"hidden_size": 32}, r"hidden_size 32 \(the teacher's: 16\).*--init_layers '\[\]'"),
        ([0], {"num_attention_heads": 4}, r"num_attention_heads 4 \(the teacher's: 2\)"),
        ([0, 1, 2], {}, "name 1 to 2 layers"),
        ([4], {}, "this encoder has 4 layers"),
    ],
)
def test_what_cannot_be_copied_is_named(teacher_folder, init_layers, changes, message):
    with pytest.raises(ValueError, match=message):
        student(teacher_folder, init_layers, **changes)


def test_a_teacher_of_another_kind(tmp_path, batch):
    """WavLM teaches a student with random weights; its attention does not fit wav2vec 2.0's"""
    torch.manual_seed(0)
    transformers.WavLMModel(transformers.WavLMConfig(**SIZES)).save_pretrained(tmp_path)
    transformers.Wav2Vec2FeatureExtractor(do_normalize=True).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"encoder.layers.0 of .* \(wavlm\) does not fit"):
        student(tmp_path, [0], layers=[1])
    model, teacher = student(tmp_path, layers=[1, 2], hidden_size=8)
    targets, lens = teacher.hidden_states(*batch[:2], [1, 2])
    predictions, found = model(*batch[:2])
    assert predictions.shape == targets.shape and torch.equal(found, lens)


@pytest.mark.parametrize("layers", [[], [2, 2], [5], [-1]])
def test_layers_to_predict_must_exist(teacher_folder, layers):
    with pytest.raises(ValueError, match="teacher_layers|layer 5|layer -1"):
        model, teacher = student(teacher_folder, layers=layers)
        teacher.hidden_states(torch.randn(1, 4000), torch.ones(1), layers)


def test_another_frame_rate_is_refused(teacher_folder):
    with pytest.raises(ValueError, match="25 frames per second.*conv_stride"):
        student(teacher_folder, conv_stride=(5, 2, 2, 2, 2, 2, 4))


def config_of(path):
    """The Wav2Vec2Config of a YAML's `config`"""
    text = whole(path)
    block = text[text.index("config: !apply") :]
    lines = block.splitlines()
    end = next(k for k, line in enumerate(lines) if k and not line.startswith(" "))
    known = "\n".join(line for line in lines[:end] if "!ref" not in line)
    return load_hyperpyyaml(known)["config"]


def size_of(config):
    with torch.device("meta"):
        return sum(p.numel() for p in transformers.Wav2Vec2Model(config).parameters())


def test_the_published_student_has_its_size(root):
    config = config_of(root / FOLDER / "hparams/distilhubert.yaml")
    assert size_of(config) == pytest.approx(23.49e6, rel=1e-3)  # Chang et al., table 1


def test_the_mini_student_can_start_as_the_mini_model(root):
    own = config_of(root / YAML)
    theirs = config_of(root / "recipes/pretraining/wav2vec2/hparams/mini.yaml")
    assert [getattr(own, name) for name in SHARED] == [getattr(theirs, name) for name in SHARED]
    assert f"{size_of(own) / 1e6:.1f} million" in (root / FOLDER / "README.md").read_text()


# ---- the recipe


def command(root, manifests, teacher, output, updates=60, valid=30):
    """The README's command, with a tiny teacher, student and corpus"""
    readme = (root / FOLDER / "README.md").read_text()
    line = readme.split("```bash\n")[1].split("```")[0].replace("\\\n", " ")
    words = shlex.split(line)[1:3]
    words = [str(root / word) for word in words]
    words += [word for word in manifests if "test" not in word.rpartition("/")[2]]
    options = {
        "teacher": teacher, "output_folder": output, "config": STUDENT, "teacher_layers": LAYERS,
        "init_layers": [0, 1], "number_of_updates": updates, "valid_every_updates": valid,
        "checkpoint_every_updates": 8, "grad_accumulation_factor": 2, "num_workers": 0,
        "max_batch_seconds": 8, "max_crop": 2.0, "encoder_lr": 0.01,
    }  # fmt: skip
    return [*words, *(f"--{key}={value}" for key, value in options.items()), "--noprogressbar"]


def run(argv):
    done = run_python(argv)
    assert done.returncode == 0, done.stderr[-3000:]
    return done


def steps(folder):
    lines = [json.loads(line) for line in (folder / "steps.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in ("audio_per_s", "waiting_share")} for line in lines]


@pytest.fixture(scope="module")
def finished(root, manifests, teacher_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("distilled") / "run"
    before = (teacher_folder / "model.safetensors").read_bytes()
    run(command(root, manifests, teacher_folder, folder))
    assert (teacher_folder / "model.safetensors").read_bytes() == before
    return folder


@pytest.mark.slow
def test_a_run_beats_the_best_constant(finished, corpus, teacher_folder):
    """Held-out loss against constant frames per layer, the mean of valid itself tuned by gradient descent"""
    from lebench_sb.training.data import load_audio

    teacher = load_teacher(str(teacher_folder), LAYERS, [])
    found = []
    for path in sorted(corpus.glob("valid*.wav")):
        wav = load_audio(path)[None, :32000]
        found.append(teacher.hidden_states(wav, torch.ones(1), LAYERS)[0][0])
    targets = torch.cat(found)
    constant = targets.mean(dim=0).clone().requires_grad_()
    optimizer = torch.optim.Adam([constant], lr=0.01)
    for _ in range(300):
        loss = frame_losses(constant.expand_as(targets), targets, 1.0)[0].mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    record = json.loads((finished / "results.json").read_text())
    entry = record["metrics"]["distillation"]
    assert entry["value"] < 0.95 * float(loss.detach())
    assert entry["ci95"][0] < entry["value"] < entry["ci95"][1]
    assert record["mode"] == "distillation" and record["details"]["teacher_layers"] == LAYERS
    valid = [line["loss"] for line in steps(finished) if line["stage"] == "valid"]
    assert entry["value"] == pytest.approx(min(valid), rel=1e-4)
    saved = next((finished / "save").glob("CKPT*")) / "model.ckpt"
    names = torch.load(saved, weights_only=True)
    assert names and all(name.startswith(("student.", "heads.")) for name in names)


@pytest.mark.slow
def test_a_stopped_run_goes_on_exactly(root, manifests, teacher_folder, finished, tmp_path):
    argv = command(root, manifests, teacher_folder, tmp_path / "run")
    code = KILL.format(
        module="lebench_sb.training.brain", owner=".SSLBrain", name="log_step", number=11, argv=argv
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode < 0
    assert len(steps(tmp_path / "run")) == 10
    run(argv)
    assert steps(tmp_path / "run") == steps(finished)


@pytest.mark.slow
def test_two_processes_are_one_that_accumulates(root, manifests, teacher_folder, tmp_path):
    """Same losses and gradient norms: everything is normalised by the frames of the whole update"""
    still = STUDENT.replace(f"attention_dropout: {DROPOUT}", "attention_dropout: 0.0")

    def losses(name, launcher, accumulation):
        argv = command(root, manifests, teacher_folder, tmp_path / name, updates=6, valid=3)
        argv = [f"--config={still}" if word.startswith("--config=") else word for word in argv]
        argv = [word for word in argv if not word.startswith("--grad_accumulation")]
        run([*launcher, *argv, f"--grad_accumulation_factor={accumulation}"])
        lines = steps(tmp_path / name)
        return [(line["stage"], line["distillation"], line.get("grad_norm", 0.0)) for line in lines]

    alone = losses("alone", [], 2)
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    both = losses("both", torchrun, 1)
    assert len(alone) == 8
    for one, other in zip(alone, both, strict=True):
        assert one[0] == other[0] and one[1:] == pytest.approx(other[1:], rel=1e-4)


def test_the_readme_command_leaves_a_student_without_heads(root, manifests, teacher_folder, tmp_path):
    run([*command(root, manifests, teacher_folder, tmp_path / "run"), "--debug"])
    folder = tmp_path / "run/debug"
    record = json.loads((folder / "results.json").read_text())
    assert set(record["metrics"]) == {"distillation", "L1", "cosine"}
    model, report = transformers.AutoModel.from_pretrained(folder / "encoder", output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    assert isinstance(model, transformers.Wav2Vec2Model) and model.config.num_hidden_layers == 2
    assert load_encoder(folder / "encoder").output_size == 16
    assert "update" in (folder / "encoder" / "CHECKPOINT.txt").read_text()
