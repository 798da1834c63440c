"""Embeddings that padding does not change, trials before scores, and runs of the recipe in each mode."""

import csv
import json
import os
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from python_process import run_python
from speechbrain.lobes.models.ECAPA_TDNN import ECAPA_TDNN
from tiny import write_wav2vec2

from lebench_sb.core.errors import DataError
from lebench_sb.evaluation import comparison, plots, results
from lebench_sb.evaluation.metrics.verification import Ranking, equal_error_rate
from lebench_sb.manifests.reading import read_manifest
from lebench_sb.manifests.trials import Trials
from lebench_sb.manifests.utterance import Utterance
from lebench_sb.manifests.writing import write_manifest
from lebench_sb.tasks.asv import (
    ChunkPlan,
    FewPlan,
    check_speakers,
    cosines,
    datasets,
    few_of_each,
    frame_crop,
    only,
    repeat_pad_crop,
    trial_lists,
    trial_rows,
)
from lebench_sb.tasks.heads.ecapa import Drops, SpeakerEmbedder, repeat_pad
from lebench_sb.training.brain import TEST, VALID
from lebench_sb.training.data import as_dataset, audio_item
from lebench_sb.training.features import FeatureDataset

SIZES = {"channels": [16, 16, 16, 16, 48], "lin_neurons": 12, "se_channels": 8, "attention_channels": 8}


def embedder(seed=0):
    torch.manual_seed(seed)
    made = SpeakerEmbedder(6, **SIZES)
    made(torch.randn(4, 30, 6) * 3 + 1, torch.full((4,), 30))  # running statistics that are not 0 and 1
    return made.eval()


def test_padding_changes_no_embedding():
    """Whatever the others' lengths: SpeechBrain's own batch path fails this"""
    head, lens = embedder(), torch.tensor([40, 23, 39, 7, 23, 36])
    frames = torch.randn(6, 40, 6)
    alone = torch.cat([head(frames[k : k + 1, :n], lens[k : k + 1]) for k, n in enumerate(lens.tolist())])
    for padding in (0.0, 100.0):
        padded = frames.masked_fill(torch.arange(40)[None, :, None] >= lens[:, None, None], padding)
        torch.testing.assert_close(head(padded, lens), alone, rtol=1e-4, atol=1e-5)
    theirs = head.network(frames, (lens - 0.5) / 40)[:, 0]
    assert (theirs - alone).abs().max() > 1e-3
    torch.testing.assert_close(theirs[0], alone[0], rtol=1e-4, atol=1e-5)


def test_an_utterance_shorter_than_the_convolutions_reach_is_repeated():
    head = embedder()
    assert head.least_frames == 5  # 4 x (3 - 1) / 2 mirrored frames and one more
    frames = torch.randn(1, 1, 6)
    torch.testing.assert_close(
        head(frames, torch.tensor([1])), head(frames.expand(1, 5, 6), torch.tensor([5]))
    )
    longer, lens = repeat_pad(torch.arange(12.0).view(2, 6, 1), torch.tensor([2, 6]), 6)
    assert longer[:, :, 0].tolist() == [[0, 1, 0, 1, 0, 1], [6, 7, 8, 9, 10, 11]] and lens.tolist() == [6, 6]


def test_training_takes_chunks_of_one_length_at_once():
    head = embedder().train()
    frames, lens = torch.randn(3, 20, 6), torch.tensor([20, 20, 20])
    torch.testing.assert_close(head(frames, lens), head.network(frames)[:, 0])
    assert isinstance(head.network, ECAPA_TDNN)


@pytest.mark.parametrize("count, seconds", [(9, 12.0), (65, 96.0), (2, 6.0), (3, 7.0)])
def test_every_utterance_gives_one_chunk_a_pass_and_no_batch_is_one(count, seconds):
    plan = ChunkPlan(count, 3.0, seconds, seed=1)
    for epoch in (1, 2):
        batches = plan.batches(epoch)
        assert sorted(place for batch in batches for place, _ in batch) == list(range(count))
        assert all(2 <= len(batch) <= seconds // 3 + 1 for batch in batches)
    assert count == 2 or plan.batches(1) != plan.batches(2)


def test_chunks_have_one_length_and_change_from_pass_to_pass(tmp_path):
    rng = np.random.default_rng(0)
    found = []
    for name, seconds, rate in (("long", 5.0, 16000), ("short", 0.7, 16000), ("slow", 4.0, 8000)):
        soundfile.write(tmp_path / f"{name}.wav", 0.1 * rng.standard_normal(round(seconds * rate)), rate)
        found.append(Utterance(name, str(tmp_path / f"{name}.wav"), seconds, speaker=name))
    splits = {"train": found, "valid": found, "test": found}
    made = datasets(splits, {"chunk": 3.0, "seed": 1, "snorm_utterances": 1})
    for position in range(3):
        assert len(made["train"][position, 1]["sig"]) == 48000
    assert torch.equal(made["train"][0, 1]["sig"], made["train"][0, 1]["sig"])
    assert not torch.equal(made["train"][0, 1]["sig"], made["train"][0, 2]["sig"])
    short = made["train"][1, 1]["sig"]
    assert torch.equal(short[:11200], short[11200:22400])
    assert [len(made["test"][k]["sig"]) for k in range(3)] == [80000, 11200, 64000]
    assert len(repeat_pad_crop(0.1)(torch.zeros(1))) == 1600


def test_crops_of_frames_stay_inside_and_reach_both_ends():
    crops = {frame_crop(0, 30, "x", number, 40) for number in range(300)}
    assert {first for first, _ in crops} == set(range(11)) and all(b - a == 30 for a, b in crops)
    assert frame_crop(0, 30, "x", 1, 12) == (0, 12)


def test_a_chunk_is_cut_out_of_cached_frames():
    values = np.arange(40, dtype=np.float32)
    found = as_dataset(people("x", "a", 2), [audio_item], ["sig", "spk_id"])
    view = FeatureDataset(found, {"x-a-0": (values, 4, 6, [1, 2]), "x-a-1": (values, 20, 3, [1, 2])})
    whole = view[0, 1]["features"]
    assert whole.shape == (6, 1, 2) and whole.flatten().tolist() == list(range(4, 16))
    view.crop = partial(frame_crop, 0, 4)
    chunk = view[0, 1]["features"]
    first, last = frame_crop(0, 4, "x-a-0", 1, 6)
    assert torch.equal(chunk, whole[first:last]) and len(chunk) == 4
    assert len(view[1, 1]["features"]) == 3


def test_drops_keep_the_length():
    torch.manual_seed(0)
    wavs = torch.randn(3, 16000)
    changed, lens = Drops()(wavs.clone(), torch.ones(3))
    assert changed.shape == wavs.shape and not torch.equal(changed, wavs) and lens.tolist() == [1, 1, 1]


# ---- what is checked before anything is computed


def people(split, names, excerpts=2):
    return [
        Utterance(f"{split}-{name}-{k}", f"/x/{name}/{k}.wav", 1.0, speaker=name)
        for name in names for k in range(excerpts)
    ]  # fmt: skip


def splits(train="abc", valid="de", test="fg"):
    return {"train": people("train", train), "valid": people("valid", valid), "test": people("test", test)}


def test_test_speakers_must_be_new():
    assert check_speakers(splits(), False) == []
    assert check_speakers(splits(valid="ab"), False) == []  # valid may share speakers with train
    for found in (splits(test="fgc"), splits(test="fge")):
        with pytest.raises(
            DataError, match=r"test speakers heard in train or valid .*--allow_speaker_overlap"
        ):
            check_speakers(found, False)
    assert check_speakers(splits(test="fgce"), True) == ["c", "e"]


def test_training_needs_names_and_two_speakers():
    found = splits(train="a")
    found["train"].append(Utterance("nobody", "/x", 1.0))
    found["valid"].append(found["valid"][0])
    with pytest.raises(DataError) as error:
        check_speakers(found, False)
    for said in (
        "without spk_id (1): nobody",
        "fewer than two speakers to learn from (1): a",
        "valid manifests (1)",
    ):
        assert said in str(error.value)


def test_trial_lists(tmp_path):
    options = {"seed": 0, "valid_trials": 100, "trials": str(tmp_path / "t.txt"), "enrolment": ""}
    (tmp_path / "t.txt").write_text("1 test-f-0 test-f-1\n0 test-f-0 test-g-0\n")
    found = trial_lists(splits(), options)
    assert len(found[TEST]) == 2 and set(found[VALID].enrol) <= {u.id for u in splits()["valid"]}
    made = trial_lists(splits(), {**options, "trials": "made"})[TEST]
    assert made.targets.sum() == 2 and len(made) == 6
    with pytest.raises(DataError, match="valid: 1 utterances of 1 speakers make no trials"):
        trial_lists({**splits(), "valid": people("valid", "d", 1)}, options)


def test_debug_takes_a_target_and_a_non_target():
    class Data:
        data_ids = [f"u{k}" for k in range(9)]

    trials = Trials(["u1", "u2", "u3"], ["u4", "u5", "u6"], np.array([False, False, True]))
    assert [place for (batch) in FewPlan(Data(), trials).batches(1) for place, _ in batch] == [1, 3, 4, 6]


def test_only_trials_of_known_utterances():
    models = {"a+b": ["a", "b"], "a+z": ["a", "z"]}
    trials = Trials(
        ["a+b", "a+z", "c", "c"], ["c", "c", "a", "z"], np.array([True, False, False, True]), models
    )
    kept = only(trials, dict.fromkeys("abc"))
    assert (kept.enrol, kept.test, kept.targets.tolist()) == (["a+b", "c"], ["c", "a"], [True, False])
    assert kept.models == {"a+b": ["a", "b"]}


def test_rows_of_trials_and_cosines():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(4, 8)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    expected = [float(vectors[a].astype(float) @ vectors[b]) for a, b in ((0, 1), (2, 3))]
    assert cosines(vectors, np.array([0, 2]), np.array([1, 3])) == pytest.approx(expected, abs=1e-6)
    of = {n: {"spk_id": n.upper(), "gender": "F", "duration": 2.0} for n in "ab"}
    trials = Trials(["a", "a", "a"], ["b", "b", "a"], np.array([False, False, True]))
    rows = trial_rows(of, trials, [0.1, 0.1, 0.9])
    assert [row["ID"] for row in rows] == ["a b", "a b 2", "a a"]
    assert (rows[0]["spk_id"], rows[0]["spk_id_test"], rows[2]["reference"]) == ("A", "B", "target")
    assert [u.id for u in few_of_each(people("x", "ab", 3)[::-1], 2)] == ["x-a-0", "x-a-1", "x-b-0", "x-b-1"]


def test_det_curve(tmp_path):
    rng = np.random.default_rng(0)
    targets = np.arange(900) < 300
    systems = {
        name: (rng.normal(size=900) + gain * targets, targets) for name, gain in (("A", 3.0), ("B", 1.0))
    }
    path = plots.det_curve({**systems, "perfect": (targets.astype(float), targets)}, tmp_path / "det.png")
    assert path.read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ValueError, match="error rates need both"):
        plots.det_curve({"A": (np.zeros(3), np.ones(3, bool))}, tmp_path / "det.png")


# ---- the recipe


@pytest.fixture(scope="session")
def voices(tmp_path_factory):
    """Folder with train.csv (6 speakers), valid.csv (3) and test.csv (12) of tones, and trials.txt"""
    folder = tmp_path_factory.mktemp("voices")
    rng = np.random.default_rng(0)
    for split, count, excerpts in (("train", 6, 4), ("valid", 3, 3), ("test", 12, 2)):
        found = []
        for s in range(count):
            pitch = rng.uniform(80, 300)
            for k in range(excerpts):
                seconds = round(float(rng.uniform(0.4, 1.6)), 2)
                t = np.arange(round(16000 * seconds)) / 16000
                tones = sum(np.sin(2 * np.pi * pitch * h * t + rng.uniform(0, 6)) / h for h in range(1, 9))
                path = folder / f"{split}-{s}-{k}.wav"
                soundfile.write(path, 0.05 * tones + 0.01 * rng.standard_normal(len(t)), 16000)
                found.append(Utterance(path.stem, str(path), seconds, speaker=f"{split}{s}", gender="F"))
        write_manifest(folder / f"{split}.csv", found, folder, {})
    lines = [f"1 test-{s}-0 test-{s}-1" for s in range(12)]
    lines += [f"0 test-{s}-0 test-{o}-1" for s in range(12) for o in range(12) if o != s]
    (folder / "trials.txt").write_text("\n".join(lines) + "\n")
    return folder


def words(voices, output, *more):
    made = [
        "--data_folder",
        str(voices),
        "--output_folder",
        str(output),
        "--trials",
        str(voices / "trials.txt"),
    ]
    for split in ("train", "valid", "test"):
        made += [f"--{split}_csv", str(voices / f"{split}.csv")]
    made += ["--chunk", "0.5", "--max_batch_seconds", "4", "--number_of_epochs", "2", "--num_workers", "0"]
    made += [
        "--head={channels: [16, 16, 16, 16, 48], attention_channels: 8, se_channels: 8}",
        "--noprogressbar",
    ]
    return [*made, *more]


def run(root, arguments, processes=1):
    recipe = root / "recipes" / "ASV" / "Fabiole"
    python = []
    if processes > 1:
        python += ["-m", "torch.distributed.run", f"--nproc-per-node={processes}", "--master-port=29713"]
    argv = [*python, str(recipe / "train.py"), str(recipe / "hparams" / "ecapa.yaml"), *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(root)}
    return run_python(argv, env=environment)


def finished(root, voices, output, *more, **options):
    done = run(root, words(voices, output, *more), **options)
    assert done.returncode == 0, done.stderr[-3000:]
    return results.read_results(output), results.read_utterances(output)


FILTERBANK = ("--ssl_hub", "mel_filterbank", "--layer", "last")


@pytest.fixture(scope="session")
def filterbank(root, voices, tmp_path_factory):
    output = tmp_path_factory.mktemp("asv") / "filterbank"
    return output, *finished(root, voices, output, *FILTERBANK)


def test_a_run_on_ones_own_manifests(filterbank, voices):
    output, record, rows = filterbank
    assert len(rows) == 144 and {row["reference"] for row in rows} == {"target", "non-target"}
    scores = np.array([float(row["score"]) for row in rows])
    targets = np.array([row["reference"] == "target" for row in rows])
    eer = float(equal_error_rate(*Ranking(scores, targets).counts()))
    entry = record["metrics"]["EER"]
    assert entry["value"] == pytest.approx(eer) and entry["method"] == "bootstrap over the speakers of trials"
    assert (entry["n"], entry["n_units"]) == (144, 12) and entry["ci95"][0] <= eer <= entry["ci95"][1]
    assert record["metrics"]["minDCF_norm"]["unit"].startswith("Ptar 0.01, Cmiss 1, Cfa 1")
    assert record["caveats"] == ["one seed"] and record["parameters"]["encoder"] == 0
    assert (output / "det.png").stat().st_size > 1000
    assert "threshold" not in (output / "results.json").read_text()
    log = (output / "log.txt").read_text()
    assert log.index("144 trials, 12 target and 132 non-target") < log.index("epoch: 1")
    assert "valid loss" not in log  # no loss on speakers that training does not know
    blind = json.loads((output / "trivial_baseline.json").read_text())
    assert blind["EER"]["value"] == 50 and blind["minDCF_norm"]["value"] == pytest.approx(1)
    assert blind["EER"]["difference"] == pytest.approx(eer - 50)


@pytest.mark.full
def test_eight_voices_can_be_overfitted(root, voices, tmp_path):
    """Trials between the recordings that it was trained on, of six lengths and more"""
    heard = read_manifest(voices / "test.csv", voices)[:16]
    assert len({u.speaker for u in heard}) == 8 and len({u.duration for u in heard}) >= 3
    write_manifest(tmp_path / "heard.csv", heard, voices, {})
    arguments = ["--data_folder", str(voices), "--output_folder", str(tmp_path / "r"), "--trials", "made"]
    arguments += [w for s in ("train", "valid", "test") for w in (f"--{s}_csv", str(tmp_path / "heard.csv"))]
    arguments += ["--allow_shared_audio", "True"]
    arguments += ["--allow_speaker_overlap", "True", "--chunk", "0.5", "--max_batch_seconds", "4"]
    arguments += ["--number_of_epochs", "60", "--num_workers", "0", "--noprogressbar", *FILTERBANK]
    arguments += ["--head={channels: [32, 32, 32, 32, 96], attention_channels: 8, se_channels: 8}"]
    done = run(root, arguments)
    assert done.returncode == 0, done.stderr[-3000:]
    record = results.read_results(tmp_path / "r")
    assert record["metrics"]["EER"]["value"] <= 2.0 and "speaker overlap allowed" in record["caveats"]


def test_scores_do_not_depend_on_batches(root, voices, filterbank):
    output, _, rows = filterbank
    again = words(voices, output, *FILTERBANK, "--test_only", "--if_changed", "resume")
    again[again.index("--max_batch_seconds") + 1] = "1.5"
    done = run(root, again)
    assert done.returncode == 0, done.stderr[-3000:]
    changed = {row["ID"]: float(row["score"]) for row in results.read_utterances(output)}
    assert changed == pytest.approx({row["ID"]: float(row["score"]) for row in rows}, abs=1e-5)


@pytest.mark.slow
def test_two_processes_score_each_trial_once(root, voices, filterbank, tmp_path):
    record, shared = finished(root, voices, tmp_path / "r", *FILTERBANK, "--snorm_top", "4", processes=2)
    assert [row["ID"] for row in shared] == [row["ID"] for row in filterbank[2]]
    again = words(voices, tmp_path / "r", *FILTERBANK, "--snorm_top", "4", "--test_only")
    assert run(root, again).returncode == 0  # the checkpoint, in one process
    alone = {row["ID"]: float(row["score"]) for row in results.read_utterances(tmp_path / "r")}
    assert alone == pytest.approx({row["ID"]: float(row["score"]) for row in shared}, abs=1e-4)


def test_s_norm_takes_its_cohort_from_training(root, voices, filterbank, tmp_path):
    record, rows = finished(root, voices, tmp_path / "r", *FILTERBANK, "--snorm_top", "4")
    _, plain_record, plain = filterbank
    assert [row["ID"] for row in rows] == [row["ID"] for row in plain]
    assert record["metrics"]["EER"]["n"] == 144
    a, b = (np.array([float(row["score"]) for row in found]) for found in (rows, plain))
    assert abs(b).max() <= 1 + 1e-6 < abs(a).max() and not np.allclose(a, b)
    text = comparison.compare(tmp_path / "r", filterbank[0])
    assert "EER (%): A" in text and "144 trials of 12 speakers" in text
    assert "minDCF_norm (Ptar 0.01" in text


MISTAKES = [
    ("--test_csv", "train.csv", "DataError", "test speakers heard in train or valid"),
    ("--trials", "absent.txt", "FileNotFoundError", "absent.txt not found"),
    ("--trials", "bad.txt", "DataError", "unknown utterances (1): line 2 eve"),
    ("--max_batch_seconds", "0.9", "UsageError", "batch normalisation needs two"),
    ("--p_target", "1.5", "UsageError", "p_target must lie between 0 and 1"),
    ("--snorm_top", "1", "UsageError", "snorm_top is 1"),
    ("--key_metric", "accuracy", "UsageError", "where it shares speakers with train"),
    ("--snorm_top", "x", "UsageError", "a number is expected"),
]
SEVERAL = """
import importlib.util, json, sys
spec = importlib.util.spec_from_file_location("train", sys.argv[1])
train = importlib.util.module_from_spec(spec)
spec.loader.exec_module(train)
for argv in json.loads(sys.argv[2]):
    try:
        train.main(argv)
        print(json.dumps(["none", ""]))
    except Exception as error:
        print(json.dumps([type(error).__name__, str(error)]))
"""


def test_mistakes_stop_before_any_embedding(root, voices, tmp_path):
    (voices / "bad.txt").write_text("1 test-0-0 test-0-1\n0 test-0-0 eve\n")
    recipe, lines = root / "recipes" / "ASV" / "Fabiole", []
    for number, (key, value, *_) in enumerate(MISTAKES):
        given = str(voices / value) if value.endswith((".csv", ".txt")) else value
        arguments = words(voices, tmp_path / str(number), *FILTERBANK)
        if key in arguments:
            arguments[arguments.index(key) + 1] = given
        else:
            arguments += [key, given]
        lines.append([str(recipe / "hparams" / "ecapa.yaml"), *arguments])
    argv = ["-c", SEVERAL, str(recipe / "train.py"), json.dumps(lines)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(root)}
    done = run_python(argv, env=environment)
    answers = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('["')]
    for (kind, message), (*_, expected, said) in zip(answers, MISTAKES, strict=True):
        assert kind == expected and said in message
    assert not list(tmp_path.rglob("steps.jsonl"))


@pytest.mark.slow
def test_overlap_is_a_caveat(root, voices, tmp_path):
    found = read_manifest(voices / "train.csv", voices) + read_manifest(voices / "test.csv", voices)
    write_manifest(tmp_path / "both.csv", found, voices, {})
    allowed = ["--allow_speaker_overlap", "True", "--allow_shared_audio", "True"]
    arguments = words(voices, tmp_path / "r", *FILTERBANK, *allowed)
    arguments[arguments.index("--test_csv") + 1] = str(tmp_path / "both.csv")
    done = run(root, arguments)
    assert done.returncode == 0, done.stderr[-2000:]
    caveats = results.read_results(tmp_path / "r")["caveats"]
    expected = {"audio shared between splits", "speaker overlap allowed", "same speaker in train and test"}
    assert set(caveats) == {*expected, "one seed"}


@pytest.mark.slow
def test_every_mode(root, voices, tmp_path):
    """Frozen, untrained control, end to end, from a cache; --debug; bf16"""
    hub = str(write_wav2vec2(tmp_path / "tiny"))
    go = partial(finished, root, voices)
    frozen, _ = go(tmp_path / "frozen", "--ssl_hub", hub)
    control, _ = go(tmp_path / "random", "--ssl_hub", f"random:{hub}")
    trained, _ = go(tmp_path / "e2e", "--ssl_hub", hub, "--freeze", "False", "--encoder_warmup_steps", "1")
    cached, rows = go(
        tmp_path / "cached", "--ssl_hub", hub, "--feature_cache", str(tmp_path / "c"), "--snorm_top", "3"
    )
    assert len(rows) == 144
    assert (
        trained["parameters"]["trained"] > frozen["parameters"]["trained"] == control["parameters"]["trained"]
    )
    assert cached["parameters"] == frozen["parameters"]
    assert json.loads((tmp_path / "e2e" / "encoder" / "config.json").read_text())["model_type"] == "wav2vec2"
    go(tmp_path / "bf16", "--ssl_hub", hub, "--precision", "bf16", "--eval_precision", "bf16")
    done = run(root, words(voices, tmp_path / "d", *FILTERBANK, "--debug"))
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.slow
def test_the_recipe_runs_on_the_miniature_as_it_lies_on_disk(root, tmp_path):
    pytest.importorskip("espeakng_loader")
    pytest.importorskip("py_nanotts")
    from lebench_sb.corpora.miniature.build import build_miniature

    build_miniature(tmp_path / "data", scale=0.03, workers=1, corpora=("fabiole",))
    arguments = words(tmp_path, tmp_path / "r", *FILTERBANK)
    del arguments[4:12]  # trials and manifests: as prepared
    arguments[1] = str(tmp_path / "data")
    assert not [word for word in arguments if word.endswith((".csv", ".txt"))]
    done = run(root, arguments)
    assert done.returncode == 0, done.stderr[-2000:]
    record = results.read_results(tmp_path / "r")
    assert record["caveats"] == ["synthetic speech", "one seed"]
    assert record["metrics"]["EER"]["n_units"] == 10
    lines = (tmp_path / "data" / "fabiole" / "trials.txt").read_text().splitlines()
    assert len(results.read_utterances(tmp_path / "r")) == len(lines)


@pytest.mark.slow
def test_real_voices(root, shared_data, tmp_path):
    """100 readers of LibriSpeech: learnt on 40, tested on the trials of 50 others, better than chance"""
    pack = shared_data / "dev_pack"
    with open(pack / "manifest.csv", encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["corpus"].startswith("LibriSpeech")]
    found = [
        Utterance(
            r["ID"], str(pack / r["wav"]), float(r["duration"]), speaker=r["spk_id"], gender=r["gender"]
        )
        for r in rows
    ]
    names = sorted({u.speaker for u in found})
    parts = {"train": names[:40], "valid": names[40:50], "test": names[50:]}
    for split, part in parts.items():
        write_manifest(tmp_path / f"{split}.csv", [u for u in found if u.speaker in part], pack, {})
    tested = {u.id for u in found if u.speaker in parts["test"]}
    lines = (pack / "asv_trials_clean.txt").read_text().splitlines()
    kept = [line for line in lines if set(line.split()[1:]) <= tested]
    (tmp_path / "trials.txt").write_text("\n".join(kept) + "\n")
    arguments = words(tmp_path, tmp_path / "r", *FILTERBANK, "--data_folder", str(pack))
    del arguments[:2]
    for key, value in (("--chunk", "3.0"), ("--max_batch_seconds", "48"), ("--number_of_epochs", "15")):
        arguments[arguments.index(key) + 1] = value
    done = run(root, arguments)
    assert done.returncode == 0, done.stderr[-2000:]
    entry = results.read_results(tmp_path / "r")["metrics"]["EER"]
    assert entry["n_units"] == 50 and entry["value"] < 30 and entry["ci95"][1] < 50
    assert Path(tmp_path / "r" / "det.png").exists()
