"""A YAML as a tree of nodes: what is written in it, with lines, before anything is resolved or built."""

import importlib
import inspect
import re

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.nodes import MappingNode

from lebench_sb.core.errors import UsageError
from lebench_sb.core.guard import check_yaml, decode, read_small
from lebench_sb.core.tags import allowed as is_known

NAMING = ("!new:", "!name:", "!apply:", "!applyref:", "!module:")


def read(path):
    """The text of a YAML file; raises UsageError for what is no regular file, too large or not UTF-8"""
    return decode(read_small(path, UsageError), path, UsageError)


def compose_text(text, where):
    """YAML text -> its root node. Raises UsageError naming `where` for what does not parse or is too deep."""
    check_yaml(text, where, UsageError)
    try:
        return YAML().compose(text)
    except YAMLError as error:
        raise UsageError(f"{where}: {' '.join(str(error).split())}") from error


def compose_mapping(text, where):
    """As `compose_text`; raises UsageError for what is no mapping, too."""
    root = compose_text(text, where)
    if not isinstance(root, MappingNode):
        raise UsageError(f"{where}: not a mapping of keys to values.")
    return root


def keys_of(node):
    return {key.value: value for key, value in node.value} if isinstance(node, MappingNode) else {}


def argument_names(tag):
    """`!new:module.Class`, `!name:...`, `!apply:...` -> the names of its arguments"""
    match = re.match(r"!(?:new|name|apply):([\w.]+)\.(\w+)$", tag)
    if not match:
        return []
    target = getattr(importlib.import_module(match[1]), match[2])
    return [name for name in inspect.signature(target).parameters if name != "self"]


def names_inside(tag, known, folder):
    """The keys that a mapping may have: `known` ones, and the arguments of what its tag names; None where
    that is not looked up, as a check imports no module that a file names: the loading says what does not fit.

    folder: of the YAML, for `!include:`.
    """
    if tag.startswith(NAMING) and not is_known(tag):
        return None
    names = {*known, *argument_names(tag)}
    if tag.startswith("!include:"):
        path = folder / tag.removeprefix("!include:")
        included = compose_text(read(path), path)
        names |= {*keys_of(included), *argument_names(str(included.tag))}
    return names
