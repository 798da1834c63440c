"""Manifests that a command line names: what results.json says of them is how they were prepared."""

import functools
import logging

import pytest

from lebench_sb.core.errors import UsageError
from lebench_sb.manifests.markers import LeftOut
from lebench_sb.manifests.named import NOT_KNOWN, check_normaliser, text_of
from lebench_sb.manifests.shards import make_shards
from lebench_sb.manifests.utterance import Utterance
from lebench_sb.manifests.writing import write_manifest
from lebench_sb.training.data import left_out
from lebench_sb.training.run import check_settings, normaliser_of

RAW, READ = "L'été !", "l' été"


def manifest(folder, name="train", text=READ, parameters=None, dropped=None):
    (folder / "a.wav").write_bytes(b"RIFF")
    path = folder / f"{name}.csv"
    found = [Utterance("a", str(folder / "a.wav"), 0.1, labels={"wrd": text})]
    write_manifest(path, found, folder, parameters or {}, dropped=dropped)
    return path


def hparams(paths, overrides, normaliser="fr-1", **options):
    """A recipe's hparams whose command line names manifests; its preparation must not be called"""
    keywords = {"normaliser": normaliser, **options}
    return {
        **{f"{path.stem}_csv": str(path) for path in paths},
        "normaliser": normaliser,
        "prepare": functools.partial(pytest.fail, **keywords),
        "run": {"overrides": {f"{path.stem}_csv": str(path) for path in paths} | overrides},
    }


def prepare(hparams):
    """What `run.start` does with the texts of manifests that the command line names"""
    check_settings({"normaliser": hparams["normaliser"]}, "x.yaml")
    named = [key for key in hparams if key.endswith("_csv")]
    wanted, asked = hparams["normaliser"], hparams["run"]["overrides"]
    texts = text_of([hparams[key] for key in named], hparams["prepare"], wanted, asked, named) or wanted
    hparams["run"]["text_normaliser"] = texts
    hparams["normaliser"] = normaliser_of(texts, wanted)


# (normaliser of the marker or None, text, given on the command line, of the YAML or command line): recorded
CASES = [
    ("fr-1", READ, False, "fr-1", "fr-1"),
    ("none", RAW, False, "fr-1", "none"),
    ("none", READ, True, "none", "none"),
    ("none", RAW, True, "fr-1", "prepared with --normaliser none, fr-1 is asked for"),
    ("fr-1", READ, True, "none", "prepared with --normaliser fr-1, none is asked for"),
    (None, READ, False, "fr-1", "fr-1"),
    (None, READ, True, "fr-1", "fr-1"),
    (None, RAW, True, "none", "none"),
    (None, RAW, False, "fr-1", NOT_KNOWN),
    (None, RAW, True, "fr-1", r"""a says "L'été !", not as --normaliser fr-1 leaves it"""),
    (None, "[rire]", True, "fr-1", "not as --normaliser fr-1 leaves it"),
    ("none", RAW, True, "fr1", "unknown text normaliser 'fr1'. Did you mean fr-1"),
    (None, RAW, False, "fr1", "unknown text normaliser 'fr1'. Did you mean fr-1"),
]


@pytest.mark.parametrize("of_marker, text, asked, wanted, expected", CASES)
def test_the_normaliser_that_results_name_is_that_of_the_texts(
    tmp_path, of_marker, text, asked, wanted, expected
):
    parameters = {} if of_marker is None else {"normaliser": of_marker}
    path = manifest(tmp_path, text=text, parameters=parameters)
    run = hparams([path], {"normaliser": wanted} if asked else {}, wanted)
    if " " in expected and expected != NOT_KNOWN:
        with pytest.raises(UsageError, match=expected):
            prepare(run)
        return
    prepare(run)
    assert run["run"]["text_normaliser"] == expected
    assert run["normaliser"] == (wanted if expected == NOT_KNOWN else expected)


def test_manifests_of_two_normalisers_are_no_experiment(tmp_path):
    one = manifest(tmp_path, "train", parameters={"normaliser": "none"})
    two = manifest(tmp_path, "test", parameters={"normaliser": "fr-1"})
    with pytest.raises(UsageError, match=r"train.csv .*--normaliser none, .*test.csv with fr-1"):
        prepare(hparams([one, two], {}))


def test_a_recipe_without_texts_takes_any_manifest(tmp_path):
    run = hparams([manifest(tmp_path, parameters={"normaliser": "fr-1"})], {}, "none")
    run["prepare"] = pytest.fail
    prepare(run)
    assert run["normaliser"] == "none" and run["run"]["text_normaliser"] == "none"


@pytest.mark.parametrize("asked", [True, False])
@pytest.mark.parametrize(
    "options", [{"concepts": "relax"}, {"test2": True}, {"target_language": "es"}, {"ratios": [1, 0, 0]}]
)
def test_other_options_of_the_preparation_are_not_pretended_either(tmp_path, options, asked):
    made = {"normaliser": "fr-1", "concepts": "full", "test2": False, "target_language": "en", "seed": 1}
    path = manifest(tmp_path, parameters=made)
    (name,) = options
    run = hparams([path], dict.fromkeys(options, "x") if asked else {}, seed=2, **options)
    if asked and name in made:
        with pytest.raises(UsageError, match=f"with --{name} {made[name]}, {options[name]} is asked"):
            prepare(run)
    else:
        prepare(run)


def test_an_option_that_no_marker_knows_is_said_to_have_no_effect(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        prepare(hparams([manifest(tmp_path)], {"concepts": "relax"}, concepts="relax"))
    assert "--concepts has no effect" in caplog.text


def test_shards_remember_how_their_manifests_were_prepared(tmp_path):
    path = manifest(tmp_path, parameters={"normaliser": "none"}, dropped={"no words": 2})
    make_shards([path], tmp_path, tmp_path / "packed")
    packed = tmp_path / "packed" / "train.csv"
    assert check_normaliser([packed], "fr-1", asked=False) == "none"
    assert left_out({"train": str(packed)}) == {"dropped": {"train": {"no words": 2}}}


def test_results_tell_what_the_preparation_left_out(tmp_path):
    told = LeftOut("test")
    told.leave_out("x", [("no words", 1), ("no words", 2), ("several speakers", 3)])
    paths = {
        "train": manifest(tmp_path, "train"),
        "test": manifest(tmp_path, "test", dropped=told),
        "more": manifest(tmp_path, "more", dropped={"no words": 1}),
    }
    csv = {"train": str(paths["train"]), "test": f"{paths['test']},{paths['more']}"}
    assert left_out(csv) == {"dropped": {"test": {"no words": 3, "several speakers": 1}}}
    assert left_out({"train": csv["train"]}) == {}
