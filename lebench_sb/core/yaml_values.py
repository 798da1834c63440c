"""A recipe's YAML, whole, with overrides and references resolved: as text, as plain values, as objects."""

import io
import json
import re
import traceback
from collections.abc import Mapping
from pathlib import Path

from hyperpyyaml import load_hyperpyyaml, resolve_references
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.scalarbool import ScalarBoolean

from lebench_sb.core.errors import DataError, UsageError
from lebench_sb.core.extends import whole
from lebench_sb.core.guard import too_deep
from lebench_sb.core.yaml_tree import compose_mapping


def compose(path):
    """YAML file, with what it extends -> its root node; raises UsageError with file and line for a YAML that
    does not parse."""
    return compose_mapping(whole(path), path)


def as_yaml(overrides):
    """{key: value as typed} -> YAML text; a value that YAML would not read as one value is quoted"""
    lines = []
    for key, value in overrides.items():
        text = absolute_include(value)
        lines.append(f"{key}: {text if is_one_value(text) else quoted(text)}")
    return "\n".join(lines)


def is_one_value(text):
    """Whether YAML reads a text as the one value that it looks like"""
    if too_deep(text) or re.search(r"[\r\n]|\s#", text):
        return False
    try:
        return len(YAML().compose(f"key: {text}\n").value) == 1
    except YAMLError:
        return False


def absolute_include(value):
    """Paths on the command line are relative to the shell, also those of `!include:`"""
    match = re.match(r"\s*!include:(\S+)", value)
    if match and Path(match[1]).is_file():
        return value.replace(match[1], str(Path(match[1]).resolve()), 1)
    return value


def quoted(text):
    """A text in YAML's double quotation marks"""
    return json.dumps(text, ensure_ascii=False)


def resolve(path, overrides):
    """The text of a YAML with what it extends and includes, its references and overrides resolved; nothing is
    built. Raises UsageError naming the file for what does not resolve."""
    try:
        text = io.StringIO(whole(path))
        text.name = str(path)  # what it includes lies beside it
        return resolve_references(text, as_yaml(overrides)).read()
    except Exception as error:
        if (fault := explained(path, error)) is error:
            raise
        raise fault from error


def plain_values(resolved):
    """{top-level key: value} of a resolved YAML, without building any object"""
    return YAML().load(resolved)


def plain_value(path, overrides, key):
    """One resolved value of the YAML, without building any object"""
    return plain_values(resolve(path, overrides))[key]


def load_yaml(path, overrides):
    """Loads the YAML with its overrides; raises UsageError naming the file for what cannot be built."""
    return build(resolve(path, overrides), path)


def build(resolved, path, only=None):
    """The text of a resolved YAML -> {key: value}, its objects built; only: some of its keys.

    Raises UsageError naming the file `path` where the YAML names what is not there or gives an argument that
    is not taken; what goes wrong inside an object that is built stays as it is.
    """
    if only is not None:
        values, part = plain_values(resolved), io.StringIO()
        YAML().dump({key: values[key] for key in only}, part)
        resolved = part.getvalue()
    try:
        return load_hyperpyyaml(resolved)
    except Exception as error:
        if (fault := explained(path, error)) is error:
            raise
        raise fault from error


def explained(path, error):
    """What to raise for an error of reading a YAML: a UsageError naming the file where the YAML is wrong, the
    message of a ValueError of ours, and the error itself where the fault is in the code"""
    if isinstance(error, DataError | UsageError | OSError):
        return error
    if isinstance(error, YAMLError) or raised_in_hyperpyyaml(error):
        return UsageError(f"{path}: {' '.join(' '.join(map(str, error.args or [error])).split())}")
    if isinstance(error, ValueError):
        # one of ours names what is wrong, and the YAML may be innocent
        return UsageError(str(error) if raised_in(error, ("lebench_sb",)) else f"{path}: {error}")
    return error


READERS_OF_YAML = ("hyperpyyaml", "ruamel", "inspect.py", "importlib", "pydoc.py")


def raised_in_hyperpyyaml(error):
    return raised_in(error, READERS_OF_YAML)


def raised_in(error, places):
    """Whether the innermost frame of an error lies in one of these packages or files"""
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and any(place in frames[-1].filename for place in places)


def plain_settings(resolved, path):
    """The text of a resolved YAML -> {key: plain value}, its manifests alone built (`<split>_csv`, which may
    be a function's value).

    What the YAML would make (`!new:`, `!name:`, `!apply:`) is the mapping or list of its arguments.
    """
    values = {str(key): plain(value) for key, value in plain_values(resolved).items()}
    return values | build(resolved, path, only=[key for key in values if key.endswith("_csv")])


def plain(value):
    """A value as ruamel.yaml gives it -> mapping, list, text, number, truth value or None"""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, ScalarBoolean):
        return bool(value)
    kind = next((kind for kind in (int, float) if isinstance(value, kind)), None)
    return kind(value) if kind else str(value)
