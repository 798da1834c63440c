"""Values as a command line takes them, names as a path does, and what is wrong with overrides."""

import json
import re
from pathlib import Path

import yaml

from lebench_sb.core.command_line import RunOptions, check_kind, split_words
from lebench_sb.core.errors import UsageError
from lebench_sb.core.yaml_tree import keys_of
from lebench_sb.core.yaml_values import compose

MISTAKES = (UsageError, FileNotFoundError)


def slug(name):
    """A name as part of a path"""
    return re.sub(r"[^\w.=,+-]+", "_", str(name)).strip("._") or "_"


def cli_value(value):
    """A value of an override as YAML reads it back on a command line: 5e-05 -> "5.0e-05", lists in
    brackets"""
    if isinstance(value, bool):
        return str(value)
    if value is None:
        return "null"
    if isinstance(value, float):
        return re.sub(r"^(-?\d+)e", r"\1.0e", repr(value))
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_inner(key)}: {_inner(item)}" for key, item in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_inner, value)) + "]"
    return str(value)


def _inner(value):
    """As `cli_value`, inside brackets: a text that YAML would split or read as something else is quoted"""
    if isinstance(value, str) and not value.startswith("!"):
        plain = re.fullmatch(r"[A-Za-z_./][\w ./<>-]*", value)
        plain = plain and yaml.safe_load(f"[{value}]") == [value]
        return value if plain else json.dumps(value, ensure_ascii=False)
    return cli_value(value)


def cli_arguments(values):
    """{key: value} -> ["--key", "value", ...]"""
    return [argument for key, value in values.items() for argument in (f"--{key}", cli_value(value))]


def wrong_overrides(path, pairs):
    """What is wrong with each (key, value) for a recipe's YAML: no such key, another kind of value"""
    try:
        nodes = keys_of(compose(Path(path)))
    except MISTAKES as error:
        return [str(error)]
    options = {o for action in RunOptions._create_parser()._actions for o in action.option_strings}
    problems = []
    for key, value in pairs:
        try:
            split_words([f"--{key}={cli_value(value)}"], list(nodes))
            if f"--{key}" not in options:
                check_kind(key, cli_value(value), nodes[key])
        except UsageError as error:
            problems.append(str(error).rstrip("."))
    return problems
