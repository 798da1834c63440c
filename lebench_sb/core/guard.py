"""The guard at every door where files of others come in: size, depth, kind and place, before their use."""

import json
import os
import stat
from pathlib import Path
from xml.etree import ElementTree

import yaml

from lebench_sb.core.errors import DataError

MAX_BYTES = 64 << 20  # of a text file read whole (configuration, annotation); tables may be larger
MAX_DEPTH = 100  # of nested brackets or elements


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


def too_deep(text, limit=MAX_DEPTH):
    """Whether brackets are nested deeper than `limit`, strings not looked into: counted before any parser
    that calls itself"""
    depth = 0
    for character in text:
        if character in "[{":
            depth += 1
            if depth > limit:
                return True
        elif character in "]}":
            depth = max(depth - 1, 0)
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
    return parse_json(decode(read_small(path, error), path, error), path, error, kind)


def decode(content, where, error=DataError):
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as fault:
        line = content[: fault.start].count(b"\n") + 1
        raise error(f"{where}: line {line} is not UTF-8.") from None


def check_yaml(text, where, error=DataError, loader=yaml.SafeLoader):
    """Raises `error` for YAML nested over MAX_DEPTH deep or with aliases (which can grow without end)"""
    depth = 0
    try:
        for event in yaml.parse(text, Loader=loader):
            if isinstance(event, yaml.AliasEvent):
                line = event.start_mark.line + 1
                raise error(f"{where}: line {line}: an alias (*{event.anchor}) is not read.")
            opens = isinstance(event, (yaml.SequenceStartEvent, yaml.MappingStartEvent))
            closes = isinstance(event, (yaml.SequenceEndEvent, yaml.MappingEndEvent))
            depth += opens - closes
            if depth > MAX_DEPTH:
                raise error(f"{where}: line {event.start_mark.line + 1}: nested over {MAX_DEPTH} deep.")
    except (yaml.YAMLError, RecursionError) as fault:
        raise error(f"{where}: {' '.join(str(fault).split())}") from None


def read_xml(path, error=DataError):
    """An XML file -> its root element. Raises `error` for what does not parse, is nested over MAX_DEPTH deep
    or declares entities."""
    depth = 0
    content = read_small(path, error)
    if b"<!ENTITY" in content:
        raise error(f"{path}: XML with entities of its own is not read.")
    parser = ElementTree.XMLPullParser(("start", "end"))
    root = None
    try:
        for at in range(0, len(content), 1 << 16):
            parser.feed(content[at : at + (1 << 16)])
            for kind, element in parser.read_events():
                root = element if root is None else root
                depth += 1 if kind == "start" else -1
                if depth > MAX_DEPTH:
                    raise error(f"{path}: elements nested over {MAX_DEPTH} deep.")
        parser.close()
    except (ElementTree.ParseError, LookupError, ValueError) as fault:
        if isinstance(fault, error):
            raise
        raise error(f"{path}: not XML: {fault}.") from None
    if root is None:
        raise error(f"{path}: no XML element.")
    return root


def inside(path, folder):
    """Whether `path` lies in `folder`, links followed"""
    real, root = os.path.realpath(path), os.path.realpath(folder)
    return real == root or real.startswith(root.rstrip(os.sep) + os.sep)
