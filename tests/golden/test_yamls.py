"""Every recipe's YAML says what it said when `yamls.json` was made, whatever it extends."""

import json
from dataclasses import replace

import pytest
from yamls import GOLDEN, YAMLS, hashes, name_of

from lebench_sb.core.extends import chain, complete, moved, whole
from lebench_sb.core.yaml_lines import parsed, written
from lebench_sb.core.yaml_tree import read

PRINTED = ("3K-large", "14K-xlarge", "crdnn", "gru", "cascade", "ecapa")


@pytest.mark.parametrize("path", YAMLS, ids=name_of)
def test_a_yaml_says_what_it_said(path):
    assert hashes(path) == json.loads(GOLDEN.read_text())[name_of(path)]


@pytest.mark.parametrize("path", [path for path in YAMLS if path.stem in PRINTED], ids=name_of)
def test_a_printed_yaml_says_the_same_wherever_it_lies(path, tmp_path):
    (tmp_path / "printed.yaml").write_text(complete(path))
    assert hashes(tmp_path / "printed.yaml") == json.loads(GOLDEN.read_text())[name_of(path)]


@pytest.mark.parametrize("path", YAMLS, ids=name_of)
def test_a_yaml_says_only_what_differs(path):
    own, *others = chain(path, read(path))
    assert others, "it extends another"
    known = {entry.key: entry for entry in joined_text(own.path.parent, others).entries}
    repeated = [e.key for e in own.entries if e.key in known and lines_of(e) == lines_of(known[e.key])]
    assert repeated == []


def joined_text(folder, documents):
    """What a chain of documents says together, for a YAML in a folder"""
    path = documents[0].path
    return parsed(path, moved(whole(path), path.parent, folder))


def lines_of(entry):
    return written([replace(entry, above=[])])


def test_no_yaml_is_missing():
    assert list(json.loads(GOLDEN.read_text())) == [name_of(path) for path in YAMLS]
