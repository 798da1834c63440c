"""Every recipe's YAML says what it said when `yamls.json` was made, whatever it extends."""

import json

import pytest
from yamls import GOLDEN, YAMLS, hashes, name_of

from lebench_sb.core.extends import complete

PRINTED = ("3K-large", "14K-xlarge", "crdnn", "gru", "cascade", "ecapa")


@pytest.mark.parametrize("path", YAMLS, ids=name_of)
def test_a_yaml_says_what_it_said(path):
    assert hashes(path) == json.loads(GOLDEN.read_text())[name_of(path)]


@pytest.mark.parametrize("path", [path for path in YAMLS if path.stem in PRINTED], ids=name_of)
def test_a_printed_yaml_says_the_same_wherever_it_lies(path, tmp_path):
    (tmp_path / "printed.yaml").write_text(complete(path))
    assert hashes(tmp_path / "printed.yaml") == json.loads(GOLDEN.read_text())[name_of(path)]


def test_no_yaml_is_missing():
    assert list(json.loads(GOLDEN.read_text())) == [name_of(path) for path in YAMLS]
