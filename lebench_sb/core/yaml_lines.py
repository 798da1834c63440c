"""A YAML as lines that belong to keys: what is changed in it leaves comments and order as they are."""

import re
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path

from ruamel.yaml.nodes import MappingNode, Node, ScalarNode

from lebench_sb.core.errors import UsageError
from lebench_sb.core.yaml_tree import compose_mapping, compose_text

INDENT = "    "


@dataclass
class Entry:
    """A key as it is written, its lines without the indentation that it stands in"""

    key: str
    line: int
    node: Node  # of the value
    above: list  # lines of comments, and empty ones, that lead up to it
    head: str  # the key and its colon
    rest: str  # what follows on the line; of a block mapping the tag alone
    comment: str = ""  # of a block mapping
    body: list = field(default_factory=list)  # further lines of any other value
    inside: list = None  # entries of a block mapping

    @property
    def tag(self):
        match = re.match(r"\s*(?:&\S+\s+)?(![^\s]*)", self.rest)
        return match[1] if match else ""


@dataclass
class Document:
    """A YAML file: its root node, and its lines before the first key, of the keys and after the last one"""

    path: Path
    root: MappingNode
    header: list
    entries: list
    tail: list

    def text(self):
        lines = [*self.header, *written(self.entries), *self.tail]
        return "\n".join(lines).strip("\n") + "\n"

    def line_of(self, key):
        return next(entry.line for entry in self.entries if entry.key == key)


@lru_cache(64)  # many recipes extend the same few; nothing changes an entry
def parsed(path, text):
    """The text of a YAML file -> Document"""
    root, lines = compose_mapping(text, path), text.splitlines()
    if root.flow_style or not root.value:
        raise UsageError(f"{path}: a YAML that extends another, or is extended, has keys on their own lines.")
    first = root.value[0][0].start_mark.line
    header = [line for line in lines[:first] if line.strip() != "---"]
    entries, tail = read_entries(path, root, lines, first, len(lines))
    return Document(path, root, header, entries, tail)


def read_entries(path, node, lines, start, end):
    """The entries of a block mapping, which takes the lines from `start` to `end`; the remarks after them"""
    starts = [key.start_mark.line for key, _ in node.value]
    entries, above = {}, [line for line in lines[start : starts[0]] if is_remark(line)]
    for (key, value), begin, last in zip(node.value, starts, [*starts[1:], end], strict=True):
        where, line, column = f"{path}: line {begin + 1}", lines[begin], key.start_mark.column
        if not isinstance(key, ScalarNode) or line[:column].strip() or key.end_mark.line != begin:
            raise UsageError(f"{where}: a plain key on its own line is expected.")
        if key.value in entries:
            raise UsageError(f"{where}: {key.value} stands on line {entries[key.value].line}, too.")
        least, until = column if ends_in_block(value) else None, last
        while until > begin + 1 and is_remark(lines[until - 1], least):
            until -= 1
        colon = line.index(":", key.end_mark.column) + 1
        entry = Entry(key.value, begin + 1, value, cut(above, column), line[column:colon], line[colon:])
        if isinstance(value, MappingNode) and value.value and not value.flow_style:
            first = value.value[0][0].start_mark.line
            tag, mark, comment = entry.rest.partition(" #")
            tags = [line.strip() for line in lines[begin + 1 : first] if not is_remark(line)]
            entry.rest, entry.comment = " ".join([tag.rstrip(), *tags]), mark + comment
            entry.inside, _ = read_entries(path, value, lines, begin + 1, until)
        else:
            entry.body = cut(lines[begin + 1 : until], column)
        entries[key.value], above = entry, lines[until:last]
    return list(entries.values()), above


def ends_in_block(node):
    """Whether the last value of a node is a block of text, whose lines may look like comments"""
    while not isinstance(node, ScalarNode) and node.value:
        node = node.value[-1][1] if isinstance(node, MappingNode) else node.value[-1]
    return getattr(node, "style", None) in ("|", ">")


def is_remark(line, column=None):
    """Whether a line is empty or a comment; given a column: a comment that begins no further right"""
    if column is None:
        return not line.strip() or line.lstrip().startswith("#")
    return line.lstrip().startswith("#") and len(line) - len(line.lstrip()) <= column


def cut(lines, column):
    """Lines without the indentation of the key they belong to"""
    return [line.lstrip() if line[:column].strip() else line[column:] for line in lines]


def written(entries, depth=0):
    """Entries -> their lines"""
    lines = []
    for entry in entries:
        own = [*entry.above, entry.head + entry.rest + entry.comment, *entry.body]
        lines += [INDENT * depth + line if line.strip() else "" for line in own]
        lines += written(entry.inside or [], depth + 1)
    return lines


def opened(entry, path):
    """An entry whose value is a mapping in braces with its keys on lines of their own"""
    if entry.inside is not None or not isinstance(entry.node, MappingNode) or not entry.node.value:
        return entry
    match = re.fullmatch(r"(\s*[^{\s]*)\s*(\{.*\})\s*?(\s#.*)?", entry.rest)
    if not match or entry.body:
        raise UsageError(
            f"{path}: line {entry.line}: {entry.key}: braces that end on their line are expected."
        )
    text, pairs = match[2], compose_text(match[2], path).value
    cuts = [[text[part.start_mark.index : part.end_mark.index] for part in pair] for pair in pairs]
    inside = [
        Entry(key.value, entry.line, value, [], f"{names[0]}:", f" {names[1]}")
        for (key, value), names in zip(pairs, cuts, strict=True)
    ]
    return replace(entry, rest=match[1].rstrip(), comment=match[3] or "", inside=inside)
