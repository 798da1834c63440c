"""Head, characters and augmentation of speech recognition; a recipe that learns eight utterances by heart."""

import csv
import json

import pytest
import torch
from python_process import run_python

from lebench_sb.audio.augment import Speeds, mask_frames, spans
from lebench_sb.core.errors import DataError
from lebench_sb.manifests.utterance import Utterance
from lebench_sb.tasks.asr import Characters
from lebench_sb.tasks.heads.common import RecurrentHead
from lebench_sb.training.schedules import cosine_decay, linear_decay, tri_stage


@pytest.mark.parametrize("rate, stack", [(50.0, 1), (49.0, 1), (100.0, 2), (25.0, 1)])
def test_the_head_gives_an_utterance_in_a_batch_what_it_gives_it_alone(rate, stack):
    torch.manual_seed(0)
    head = RecurrentHead(6, rate, 5, hidden=8).eval()
    assert head.stack == stack
    frames, lens = torch.randn(3, 21, 6), torch.tensor([21, 8, 1])
    frames = frames * (torch.arange(21)[None, :, None] < lens[:, None, None])
    together, steps = head(frames, lens)
    for k, n in enumerate(lens.tolist()):
        alone, own = head(frames[k : k + 1, :n], lens[k : k + 1])
        assert own[0] == steps[k] == -(-n // stack)
        torch.testing.assert_close(together[k, : steps[k]], alone[0, : own[0]])


def test_characters_decode_a_path_without_repeats_and_blanks():
    characters = Characters.of([Utterance("a", "a.wav", 1.0, labels={"wrd": "elle va"})])
    assert len(characters) == 6 and characters.symbols == [" ", "a", "e", "l", "v"]
    numbers = characters.encode("elle va")
    path = torch.cat([torch.tensor([n, n, 0]) for n in numbers.tolist()])
    assert characters.decode(path) == "elle va"
    assert characters.decode(torch.tensor([0, 0])) == ""
    assert characters.encode("élle").tolist() == characters.encode("lle").tolist()


def test_no_transcript_at_all_is_an_error():
    with pytest.raises(DataError, match="wrd"):
        Characters.of([Utterance("a", "a.wav", 1.0)])


def test_masks_stay_inside_valid_frames_and_hit_the_share_asked_for():
    torch.manual_seed(0)
    lens = torch.tensor([400, 100, 30])
    masked = torch.stack([spans(lens, 400, 0.1, 10) for _ in range(200)])
    assert not masked[:, 1, 100:].any() and not masked[:, 2, 30:].any()
    assert 0.08 < masked[:, 0].float().mean() < 0.11
    frames = torch.ones(3, 400, 64)
    zeroed = mask_frames(frames, lens)
    assert (frames == 1).all() and (zeroed == 0).any() and set(zeroed.unique().tolist()) == {0.0, 1.0}


def test_speed_changes_the_length_of_all_alike():
    torch.manual_seed(0)
    wavs, lens = torch.randn(2, 16000), torch.tensor([1.0, 0.5])
    lengths = {Speeds()(wavs, lens)[0].shape[1] for _ in range(20)}
    assert lengths >= {16000} and min(lengths) < 15400 and max(lengths) > 16600


@pytest.mark.parametrize("schedule", [linear_decay, cosine_decay, tri_stage])
def test_schedules_rise_then_fall(schedule):
    factors = [schedule(u, 1000) for u in range(1, 1001)]
    assert 0 < factors[0] <= 0.02 and max(factors) == pytest.approx(1.0) and factors[-1] <= 0.051
    peak = factors.index(max(factors))
    assert factors[: peak + 1] == sorted(factors[: peak + 1])
    assert factors[peak:] == sorted(factors[peak:], reverse=True)


def run(root, words):
    script = "recipes/ASR/CommonVoice/train.py", "recipes/ASR/CommonVoice/hparams/ctc.yaml"
    argv = [*(str(root / s) for s in script), *words, "--noprogressbar"]
    return run_python(argv)


def test_targets_longer_than_their_frames_are_refused(root, manifests, tmp_path):
    """A head that stacks frames to 1 per second has fewer steps than characters"""
    words = [
        *manifests,
        "--ssl_hub",
        "mel_filterbank",
        "--layer",
        "last",
        "--head={hidden: 4, max_rate: 1.0}",
    ]
    done = run(root, [*words, "--number_of_epochs", "1", "--output_folder", str(tmp_path / "r")])
    assert done.returncode == 3 and "Traceback" not in done.stderr, done.stderr[-2000:]
    assert "16 of 16 texts of wrd need more steps than their audio has" in done.stderr


@pytest.mark.slow
def test_eight_utterances_can_be_overfitted(root, corpus, tmp_path):
    """From files through decoder and scorer: at most 2 % of the words of what it was trained on are wrong"""
    rows = list(csv.reader((corpus / "train.csv").open(encoding="utf-8")))
    from lebench_sb.manifests.reading import read_manifest
    from lebench_sb.manifests.writing import write_manifest

    eight = read_manifest(corpus / "train.csv", corpus)[:8]
    assert len({u.duration for u in eight}) >= 3 and len(rows) == 17
    write_manifest(tmp_path / "eight.csv", eight, corpus, {})
    words = [
        "--data_folder",
        str(corpus),
        "--ssl_hub",
        "mel_filterbank",
        "--layer",
        "last",
        "--head={dropout: 0.0}",
        "--mask=!name:lebench_sb.audio.augment.no_mask",
    ]
    words += [w for s in ("train", "valid", "test") for w in (f"--{s}_csv", str(tmp_path / "eight.csv"))]
    words += ["--allow_shared_audio", "True"]
    done = run(
        root,
        [*words, "--num_workers", "0", "--number_of_epochs", "200", "--output_folder", str(tmp_path / "r")],
    )
    assert done.returncode == 0, done.stderr[-2000:]
    record = json.loads((tmp_path / "r" / "results.json").read_text())
    assert record["metrics"]["WER"]["value"] <= 2.0
    assert "same speaker in train and test" in record["caveats"]
