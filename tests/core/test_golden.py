"""Every recipe's YAML says what it said before YAMLs extended each other: tests/golden/resolved.json holds a
hash of each top-level key of each, resolved, nested values, tags and shared objects included.

`python tests/core/test_golden.py` writes that file anew, after a change that is meant; the commit says which.
"""

import hashlib
import json
from pathlib import Path

import pytest
from ruamel.yaml import YAML
from ruamel.yaml.nodes import MappingNode, ScalarNode

from lebench_sb.core.yaml_tree import keys_of
from lebench_sb.core.yaml_values import compose, resolve

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden" / "resolved.json"
YAMLS = sorted(ROOT.glob("recipes/*/*/hparams/*.yaml"))


def hashes(path):
    """YAML -> {top-level key: hash of its value}, in whatever order they stand; placeholders have one"""
    missing = [key for key, node in keys_of(compose(path)).items() if str(node.tag) == "!PLACEHOLDER"]
    top = keys_of(YAML().compose(resolve(path, {key: f"the_{key}" for key in missing})))
    names = {id(node): key for key, node in reversed(top.items()) if not isinstance(node, ScalarNode)}
    return {key: digest(shown(node, names, key)) for key, node in sorted(top.items())}


def shown(node, names, own=None):
    """A node as what JSON writes; one that is the value of another top-level key is that key's name"""
    if own is None and id(node) in names:
        return f"*{names[id(node)]}"
    if isinstance(node, ScalarNode):
        return [str(node.tag), node.value]
    if isinstance(node, MappingNode):
        return [str(node.tag), {key.value: shown(value, names) for key, value in node.value}]
    return [str(node.tag), [shown(value, names) for value in node.value]]


def digest(value):
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:8]


def name_of(path):
    return str(path.relative_to(ROOT / "recipes")).replace("/hparams/", "/").removesuffix(".yaml")


@pytest.mark.parametrize("path", YAMLS, ids=name_of)
def test_a_yaml_says_what_it_said(path):
    assert hashes(path) == json.loads(GOLDEN.read_text())[name_of(path)]


def test_no_yaml_is_missing():
    assert list(json.loads(GOLDEN.read_text())) == [name_of(path) for path in YAMLS]


if __name__ == "__main__":
    lines = [f"{json.dumps(name_of(path))}: {json.dumps(hashes(path))}" for path in YAMLS]
    GOLDEN.write_text("{\n" + ",\n".join(lines) + "\n}\n")
