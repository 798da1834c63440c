"""`extends: other.yaml`: a YAML that says what differs from another, made whole before anything reads it.

Works on lines, so that comments and order stay: a comment goes with its value, a new key stands in its
section behind the key before it. CONTRIBUTING.md has the rules for whoever writes such a YAML.
"""

import difflib
import os
import re
from dataclasses import dataclass, replace
from pathlib import Path

from ruamel.yaml.nodes import MappingNode, ScalarNode, SequenceNode

from lebench_sb.core.errors import UsageError
from lebench_sb.core.yaml_lines import Document, opened, parsed
from lebench_sb.core.yaml_tree import NAMING, compose_text, keys_of, names_inside, read

EXTENDS, ADDS = "extends", "adds"
INCLUDE = re.compile(r"(!include:)([^\s,\]}#]+)")


def whole(path):
    """YAML file -> its text, that of the files it extends in it. Raises UsageError with file and line."""
    path = Path(path)
    text = read(path)
    if not re.search(rf"^[\"']?{EXTENDS}\b", text, re.M):
        return text
    *variants, document = chain(path, text)
    for own in reversed(variants):
        document = joined(document, own, path.parent)
    return document.text()


def complete(path, changes=""):
    """YAML file -> its text with all that it extends and includes, and with `changes`, the text of a YAML"""
    path = Path(path)
    document = parsed(path, whole(path))
    if changes:
        document = joined(document, parsed(path, changes), path.parent)
    entries = [included(entry, path.parent) for entry in document.entries]
    return replace(document, entries=entries).text()


def included(entry, folder):
    """An entry with the mapping that it includes, if it does, in it; `folder`: of its YAML"""
    match = INCLUDE.fullmatch(entry.tag)
    if not match:
        return entry
    path = folder / match[2]
    text = moved(read(path), path.parent, folder)
    if not isinstance(root := compose_text(text, path), MappingNode):
        return entry
    own, inside = opened(entry, path).inside or [], parsed(path, text).entries
    comment = entry.comment or entry.rest.partition(entry.tag)[2]
    inside = merged(inside, own, "", "", Rules(path, path, {e.key for e in own}, folder))
    return replace(entry, rest=f" {root.tag}", comment=comment, body=[], inside=inside)


def chain(path, text):
    """Documents from `path` on: each extending the next; their includes as from the folder of the first"""
    documents, seen, folder = [], [], path.parent
    while True:
        seen.append(path.resolve())
        documents.append(parsed(path, moved(text, path.parent, folder)))
        node = keys_of(documents[-1].root).get(EXTENDS)
        if node is None:
            return documents
        where = f"{path}: line {documents[-1].line_of(EXTENDS)}: {EXTENDS}"
        if not isinstance(node, ScalarNode) or not node.value:
            raise UsageError(f"{where}: the path of one YAML is expected.")
        path = Path(os.path.normpath(path.parent / node.value))
        if not path.exists():
            raise UsageError(f"{where} {node.value}: no such file; the path starts at the file it stands in.")
        if path.resolve() in seen:
            raise UsageError(f"{where} {node.value}: a circle.")
        text = read(path)


def moved(text, old, new):
    """The text of a YAML from one folder for another one: paths of includes are relative"""
    return INCLUDE.sub(lambda match: match[1] + os.path.relpath(old / match[2], new), text)


# ---- joining


@dataclass
class Rules:
    """What the file at `path` may say of what it extends, `base`"""

    path: Path
    base: Path
    adds: set  # dotted names of keys that are declared new
    folder: Path  # from where includes are read

    def check(self, name, entry, names):
        """Raises UsageError for a key that is neither one of `names` (None: any) nor declared"""
        if name in self.adds or names is None or entry.key in names:
            return
        near = difflib.get_close_matches(entry.key, names, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]}?" if near else "a new key is named in `adds`."
        raise UsageError(f"{self.path}: line {entry.line}: {name}: {self.base} has no such key; {hint}")


def joined(base, changes, folder):
    """Two documents, the second extending the first -> one"""
    node = keys_of(changes.root).get(ADDS)
    if node is not None and not isinstance(node, SequenceNode):
        raise UsageError(f"{changes.path}: line {changes.line_of(ADDS)}: {ADDS}: a list of keys is expected.")
    adds = [item.value for item in node.value] if node is not None else []
    entries = [entry for entry in changes.entries if entry.key not in (EXTENDS, ADDS)]
    for name in adds:
        is_known, new = name in names_of(base), name in names_of(changes)
        if is_known or not new:
            what = f"{base.path} has that key" if is_known else "no such key in this file"
            raise UsageError(f"{changes.path}: line {changes.line_of(ADDS)}: {ADDS}: {name}: {what}.")
    rules = Rules(changes.path, base.path, set(adds), folder)
    header = changes.header if any(map(str.strip, changes.header)) else base.header
    return Document(changes.path, base.root, header, merged(base.entries, entries, "", "", rules), base.tail)


def names_of(document):
    """The dotted names of all keys"""
    names, waiting = set(), [("", document.entries)]
    while waiting:
        prefix, entries = waiting.pop()
        names |= {prefix + entry.key for entry in entries}
        inner = [opened(e, document.path) for e in entries if isinstance(e.node, MappingNode)]
        waiting += [(f"{prefix}{entry.key}.", entry.inside or []) for entry in inner]
    return names


def merged(old, new, prefix, tag, rules):
    """Entries of one mapping and what differs from them -> entries. tag: of the mapping"""
    entries, remarks = {entry.key: entry for entry in old}, {line for entry in old for line in entry.above}
    sections, places = sections_of(new), []
    for entry in new:
        own = [line for line in entry.above if line.strip() and line not in remarks]
        if entry.key in entries:
            above = entries[entry.key].above + own
            entries[entry.key] = replace(overlaid(entries[entry.key], entry, prefix, rules), above=above)
        else:
            names = names_inside(tag, entries, rules.folder) if tag else entries
            rules.check(prefix + entry.key, entry, names)
            places.append(replace(entry, above=own))
    result = list(entries.values())
    for entry in places:
        insert(result, entry, new, sections)
    return result


def overlaid(old, new, prefix, rules):
    """An entry and what another file says of it: mappings of one tag become one, else the new value stands"""
    old, new = opened(old, rules.base), opened(new, rules.path)
    bare = (
        isinstance(old.node, ScalarNode) and not old.node.value and old.tag.startswith((*NAMING, "!include:"))
    )
    if new.inside is None or (old.inside is None and not bare) or new.tag not in ("", old.tag):
        return new
    tag, mark, comment = old.rest.partition(" #") if bare else (old.rest, "", old.comment)
    inside = merged(old.inside or [], new.inside, f"{prefix}{new.key}.", old.tag, rules)
    return replace(old, rest=tag.rstrip(), comment=new.comment or mark + comment, inside=inside)


def sections_of(entries):
    """{key: the heading, a comment under an empty line, of the section it stands in}"""
    sections, heading = {}, ""
    for entry in entries:
        above = entry.above
        heads = [b for a, b in zip(above, above[1:], strict=False) if not a.strip() and b.startswith("#")]
        heading = heads[-1] if heads else heading
        sections[entry.key] = heading
    return sections


def insert(result, entry, new, sections):
    """Puts a new key behind the one before it in its file, or before the next known one of its section; else
    at the end of that section"""
    keys, place_of, heading = [e.key for e in new], [e.key for e in result], sections[entry.key]
    position = keys.index(entry.key)
    before = keys[position - 1] if position else None
    if before is not None and sections[before] == heading:
        result.insert(place_of.index(before) + 1, entry)
        return
    after = [key for key in keys[position + 1 :] if key in place_of and sections[key] == heading]
    if after:
        place = place_of.index(after[0])
        entry.above, result[place] = result[place].above + entry.above, replace(result[place], above=[])
        result.insert(place, entry)
        return
    same = [place for place, e in enumerate(result) if sections_of(result)[e.key] == heading]
    if heading and not same:
        entry.above = ["", *entry.above]
    result.insert(same[-1] + 1 if same else len(result), entry)
