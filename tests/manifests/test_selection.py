"""`gender` and `languages` choose utterances of any manifest, in every recipe."""

import logging
import re
from pathlib import Path

import pytest

from lebench_sb.core.errors import DataError, UsageError
from lebench_sb.core.extends import whole
from lebench_sb.manifests import columns
from lebench_sb.manifests.utterance import Utterance
from lebench_sb.manifests.writing import write_manifest
from lebench_sb.training.data import load_utterances

ROOT = Path(__file__).parents[2]
# id: gender, language
TRAIN = {"a": ("F", "fr"), "b": ("M", "fr"), "c": ("F", "de"), "d": ("U", "de"), "e": ("M", "it")}
TEST = {"v": ("M", "fr"), "w": ("F", "de")}


@pytest.fixture(params=["list", "columns"])
def hparams(request, tmp_path, monkeypatch):
    """A YAML's keys over three manifests, small ones or held as large ones are; valid has the speakers of
    train"""
    if request.param == "columns":
        monkeypatch.setattr(columns, "LARGE", 0)
    keys = {"data_folder": str(tmp_path), "min_duration": 0.1, "max_duration": 9.0}
    for split, people in (("train", TRAIN), ("valid", TRAIN), ("test", TEST)):
        found = []
        for name, (gender, language) in people.items():
            wav = tmp_path / f"{name}.wav"
            wav.write_bytes(b"RIFF, not heard here")
            found.append(Utterance(f"{split}{name}", str(wav), 1.5, gender=gender, language=language))
        path = tmp_path / f"{split}.csv"
        write_manifest(path, found, tmp_path, {})
        keys[f"{split}_csv"] = str(path)
    return keys


def heard(hparams, **keys):
    """-> {split: letters of the utterances}"""
    return {s: "".join(u.id[-1] for u in found) for s, found in load_utterances(hparams | keys).items()}


@pytest.mark.parametrize("nothing", [{}, {"gender": "", "languages": ""}, {"gender": None, "languages": []}])
def test_nothing_asked_for_is_everything(hparams, nothing):
    assert heard(hparams, **nothing) == {"train": "abcde", "valid": "abcde", "test": "vw"}


@pytest.mark.parametrize(
    ("gender", "letters"),
    [("F", "ac"), ("M", "be"), ("U", "d"), ("F,M", "abce"), ("F, U", "acd"), (["M", "U"], "bde")],
)
def test_gender_cuts_train_and_valid_and_leaves_test_whole(hparams, gender, letters):
    assert heard(hparams, gender=gender) == {"train": letters, "valid": letters, "test": "vw"}


def test_languages_cut_every_split(hparams):
    assert heard(hparams, languages="fr") == {"train": "ab", "valid": "ab", "test": "v"}
    assert heard(hparams, languages="de,fr", gender="F") == {"train": "ac", "valid": "ac", "test": "vw"}


def test_what_is_left_is_counted_in_the_log(hparams, caplog):
    with caplog.at_level(logging.INFO):
        heard(hparams, gender="F")
    assert "train: 2 of 5 utterances kept (0.00 of 0.00 h), gender F" in caplog.text


@pytest.mark.parametrize("wrong", ["f", "female", "X", "F;M", ["F", "W"]])
def test_another_gender_is_a_usage_mistake(hparams, wrong):
    with pytest.raises(UsageError, match="--gender .*: F, M or U"):
        heard(hparams, gender=wrong)


def test_a_selection_that_leaves_nothing_says_what_there_is(hparams):
    with pytest.raises(DataError, match="test: no utterance of language it; it has de: 1, fr: 1"):
        heard(hparams, languages="it")
    with pytest.raises(DataError, match="train: no utterance of language it; it has de: 1"):
        heard(hparams, languages="it", gender="U")


def test_a_subset_without_valid_speakers_says_so(hparams, tmp_path):
    hparams["valid_csv"] = hparams["test_csv"]
    with pytest.raises(DataError, match="valid: no utterance of gender U; it has F: 1, M: 1"):
        heard(hparams, gender="U")


@pytest.mark.parametrize("path", sorted((ROOT / "recipes").rglob("hparams/*.yaml")), ids=lambda p: p.stem)
def test_every_recipe_takes_both_keys(path):
    text = whole(path)
    assert re.search('^gender: ""', text, re.M) and re.search('^languages: ""', text, re.M)
