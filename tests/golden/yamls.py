"""What every recipe's YAML says, as a hash of each top-level key: `yamls.json` beside this file.

`python tests/golden/yamls.py` writes it anew, after a change that is meant; the commit says which.
Nested values, tags and which objects are shared are in it; comments and the order of keys are not.
"""

import hashlib
import json
from pathlib import Path

from ruamel.yaml import YAML
from ruamel.yaml.nodes import MappingNode, ScalarNode

from lebench_sb.core.yaml_tree import keys_of
from lebench_sb.core.yaml_values import compose, resolve

ROOT = Path(__file__).parents[2]
GOLDEN = Path(__file__).with_suffix(".json")
YAMLS = sorted(ROOT.glob("recipes/*/*/hparams/*.yaml"))


def hashes(path):
    """YAML -> {top-level key: hash of its value}; a placeholder's value is made up"""
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


if __name__ == "__main__":
    lines = [f"{json.dumps(name_of(path))}: {json.dumps(hashes(path))}" for path in YAMLS]
    GOLDEN.write_text("{\n" + ",\n".join(lines) + "\n}\n")
