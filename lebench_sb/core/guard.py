"""The guard at every door where files of others come in: size, depth, kind and place, before their use."""

import json
import os
import re
import stat
from pathlib import Path
from xml.etree import ElementTree
from xml.parsers import expat

import yaml
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from lebench_sb.core.errors import DataError, UsageError
from lebench_sb.core.tags import foreign_in, foreign_tags  # noqa: F401  (the guard of what a YAML may call)

MAX_BYTES = 64 << 20  # of a text file read whole (configuration, annotation); tables may be larger
MAX_DEPTH = 100  # of nested brackets or elements
MAX_NODES = 1_000_000  # of a YAML, with what its aliases stand for
STRINGS = re.compile(r'"(?:[^"\\]|\\.)*"', re.S)
# libyaml where it is compiled in: the guard must cost less than the parser behind it
EVENTS = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def regular(path, error=DataError):
    """`path`, unless it is a pipe, a socket or a device, which `open` would wait for. Raises `error` then,
    FileNotFoundError where there is nothing."""
    mode = os.stat(path).st_mode
    if not stat.S_ISREG(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "a pipe, a socket or a device"
        raise error(f"{path} is {kind}, not a file.")
    return Path(path)


def read_small(path, error=DataError, limit=MAX_BYTES):
    """The bytes of a regular file of at most `limit` bytes"""
    path = regular(path, error)
    if path.stat().st_size > limit:
        raise error(f"{path} has {path.stat().st_size} bytes: over the {limit} that such a file may have.")
    return path.read_bytes()


def read_text(path, error=DataError, limit=MAX_BYTES):
    """The text of a regular file of at most `limit` bytes; `error` with the line for what is not UTF-8"""
    return decode(read_small(path, error, limit), path, error)


def too_deep(text, limit=MAX_DEPTH):
    """Whether the brackets of a JSON text, those in its strings left out, are nested deeper than `limit`:
    counted before any parser that calls itself"""
    if text.count("[") + text.count("{") <= limit:
        return False
    return _depth_over(limit, STRINGS.sub("", text))


def _depth_over(limit, text):
    depth = 0
    for bracket in re.sub(r"[^\[\]{}]+", "", text):
        depth += 1 if bracket in "[{" else -1
        if depth > limit:
            return True
        depth = max(depth, 0)
    return False


def parse_json(text, where, error=DataError, kind=dict):
    """JSON text -> its value, of `kind` (None: any). Raises `error` naming `where`."""
    if too_deep(text):
        raise error(f"{where}: brackets nested over {MAX_DEPTH} deep.")
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as fault:
        raise error(f"{where} is not JSON: {fault}.") from None
    if kind is not None and not isinstance(value, kind):
        raise error(f"{where} holds a {type(value).__name__}, expected a {kind.__name__}.")
    return value


def read_json(path, error=DataError, kind=dict):
    """A JSON file -> its value, of `kind` (None: any). Raises `error` naming the file."""
    return parse_json(read_text(path, error), path, error, kind)


def decode(content, where, error=DataError):
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as fault:
        line = content[: fault.start].count(b"\n") + 1
        raise error(f"{where}: line {line} is not UTF-8.") from None


def check_yaml(text, where, error=UsageError):
    """Raises `error` for YAML nested over MAX_DEPTH deep, or grown over MAX_NODES by its aliases. What does
    not parse is left to the parser that reads it, which is told in its own words."""
    if _depth_over(10 * MAX_DEPTH, text):  # whose scanner takes the square of their number in time
        raise error(f"{where}: brackets nested over {MAX_DEPTH} deep.")
    try:
        _walk(yaml.parse(text, Loader=EVENTS), where, error)
    except (yaml.YAMLError, RecursionError):
        try:  # what libyaml does not read, the reader behind this may
            _walk(YAML(typ="safe", pure=True).parse(text), where, error)
        except (YAMLError, RecursionError) as fault:
            raise error(f"{where}: {' '.join(str(fault).split())}") from None


def _walk(events, where, error):
    """Follows the events of a YAML with the size and the height of every anchored node"""
    open_nodes, anchored = [[None, 0, 0]], {}  # of each: anchor, nodes below it, depth below it
    for event in events:
        kind, line = type(event).__name__, event.start_mark.line + 1
        anchor, size, height = getattr(event, "anchor", None), 0, 0
        if kind in ("SequenceStartEvent", "MappingStartEvent"):
            open_nodes.append([anchor, 0, 0])
        elif kind in ("SequenceEndEvent", "MappingEndEvent"):
            anchor, size, height = open_nodes.pop()
        elif kind == "AliasEvent":
            if anchor not in anchored:
                raise error(f"{where}: line {line}: the alias *{anchor} stands for nothing before it.")
            size, height = anchored[anchor]
        elif kind != "ScalarEvent":
            continue
        if not kind.endswith("StartEvent"):
            top = open_nodes[-1]
            anchored |= {anchor: (size, height)} if anchor and kind != "AliasEvent" else {}
            top[1], top[2] = top[1] + size + 1, max(top[2], height + 1)
        if len(open_nodes) + height > MAX_DEPTH + 1:
            raise error(f"{where}: line {line}: nested over {MAX_DEPTH} deep.")
        if open_nodes[-1][1] > MAX_NODES:
            raise error(f"{where}: line {line}: its aliases make over {MAX_NODES} values.")


def read_yaml(path, error=UsageError):
    """A YAML file of plain values -> its mapping. Raises `error` naming the file (and the line) for what is
    no regular file, too large, too deep, no YAML, no mapping or holds tags."""
    text = read_text(path, error)
    check_yaml(text, path, error)
    try:
        values = YAML(typ="safe").load(text)
    # the parser's own: dates that are none, numbers of 5,000 digits, tags around what they do not fit
    except (
        YAMLError,
        ValueError,
        TypeError,
        KeyError,
        AttributeError,
        OverflowError,
        RecursionError,
    ) as fault:
        raise error(f"{path}: {' '.join(str(fault).split())}") from None
    if not isinstance(values, dict):
        raise error(f"{path}: not a mapping of keys to values.")
    return values


def read_tree(path, error=UsageError):
    """A YAML file with tags -> its mapping, of which nothing is built: what a run folder holds. Raises
    `error` naming the file for what is no such file."""
    text = read_text(path, error)
    check_yaml(text, path, error)
    try:
        tree = YAML().load(text)
    except (YAMLError, ValueError, RecursionError) as fault:
        raise error(f"{path}: {' '.join(str(fault).split())}") from None
    if not isinstance(tree, dict):
        raise error(f"{path}: not a mapping of keys to values.")
    return tree


def read_xml(path, error=DataError):
    """An XML file -> its root element. Raises `error` for what does not parse, is nested over MAX_DEPTH deep
    or declares entities."""
    content = read_small(path, error)
    depth = 0

    def begins(name, attributes):
        nonlocal depth
        depth += 1
        if depth > MAX_DEPTH:
            raise error(f"{path}: elements nested over {MAX_DEPTH} deep.")

    def ends(name):
        nonlocal depth
        depth -= 1

    def entity(*told):
        raise error(f"{path}: XML with entities of its own is not read.")

    parser = expat.ParserCreate()
    parser.StartElementHandler, parser.EndElementHandler, parser.EntityDeclHandler = begins, ends, entity
    try:
        parser.Parse(content, True)
        return ElementTree.fromstring(content)
    except (expat.ExpatError, ElementTree.ParseError, LookupError) as fault:
        raise error(f"{path}: not XML: {fault}.") from None
    except ValueError as fault:
        if isinstance(fault, error):
            raise
        raise error(f"{path}: not XML: {fault}.") from None


def inside(path, folder):
    """Whether `path` lies in `folder`, links followed"""
    real, root = os.path.realpath(path), os.path.realpath(folder)
    return real == root or real.startswith(root.rstrip(os.sep) + os.sep)
