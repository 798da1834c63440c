"""XML of annotators, with line numbers: MEDIA's dialogues, Transcriber's `.trs`.

What the first line declares is often not what the bytes are: a file may declare ISO-8859-1 and hold UTF-8
(or the other way round), or hold the characters that only Windows-1252 has (`œ`, `’`). The bytes decide where
they can; where they hold both, nobody can read them, which is an error with its line.
"""

import codecs
import re
from dataclasses import dataclass, field
from xml.parsers import expat

from lebench_sb.core.errors import DataError
from lebench_sb.core.guard import MAX_DEPTH, read_small

LIMIT = 512 << 20  # bytes of a file
DECLARED = re.compile(rb"<\?xml[^>]*?\bencoding\s*=\s*[\"']([\w.:-]+)[\"']")
# what UTF-8's two bytes of a letter give when they are read as one-byte letters: `Ã©` for é
TWICE = re.compile(
    "[\u00c2\u00c3][\u0080-\u00bf\u0152\u0153\u0160\u0161\u0178\u0192\u2013-\u203a\u20ac\u2122]"
)
OTHERS = ("iso8859-15", "mac-roman", "cp850")  # of one byte a letter, beside Windows-1252


@dataclass
class Node:
    """An element; `children` holds Nodes and texts in order."""

    tag: str
    attributes: dict
    line: int
    children: list = field(default_factory=list)

    def find(self, tag):
        """Every Node called `tag` below this one, in the order of the file"""
        for child in self.children:
            if isinstance(child, Node):
                if child.tag == tag:
                    yield child
                yield from child.find(tag)

    @property
    def nodes(self):
        """The Nodes right below this one"""
        return [child for child in self.children if isinstance(child, Node)]

    @property
    def words(self):
        """The text right below this one, not that of its elements, in one line"""
        return " ".join(" ".join(child for child in self.children if isinstance(child, str)).split())

    @property
    def all_words(self):
        """The text of this one and of all elements below it, in one line"""
        parts = [child.all_words if isinstance(child, Node) else child for child in self.children]
        return " ".join(" ".join(parts).split())


def read_xml(path):
    """XML file -> a Node without tag that holds its root.

    Raises FileNotFoundError, or DataError naming the line of what is not well formed, what is in no encoding,
    entities of its own, and elements nested over MAX_DEPTH deep.
    """
    content = read_small(path, limit=LIMIT)
    text = _text(content, path)
    parser = expat.ParserCreate("UTF-8")  # whatever the text declares: it is decoded
    stack = [Node("", {}, 0)]

    def start(tag, attributes):
        node = Node(tag, attributes, parser.CurrentLineNumber)
        stack[-1].children.append(node)
        stack.append(node)
        if len(stack) > MAX_DEPTH:
            raise DataError(f"{path}: line {node.line}: elements nested over {MAX_DEPTH} deep.")

    def entity(*declaration):
        line = parser.CurrentLineNumber
        raise DataError(f"{path}: line {line}: XML that declares entities of its own is not read.")

    parser.StartElementHandler, parser.EntityDeclHandler = start, entity
    parser.EndElementHandler = lambda tag: stack.pop()
    parser.CharacterDataHandler = lambda words: stack[-1].children.append(words)
    parser.buffer_text = True
    top = stack[0]
    try:
        parser.Parse(text.encode(), True)
    except expat.ExpatError as error:
        reason = expat.ErrorString(error.code)
        raise DataError(f"{path}: line {error.lineno}: not well-formed XML ({reason}).") from None
    return top


def _text(content, path):
    """The text of the bytes of an XML file. Raises DataError with the line that holds two encodings."""
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        text = _decoded(content, "utf-16", path)
    else:
        try:
            text = content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            text = _decoded(content, _one_byte(content), path)
            if TWICE.search(text):
                line = content[: error.start].count(b"\n") + 1
                raise DataError(f"{path}: line {line} is not UTF-8, though others are; mend it.") from None
    if (twice := TWICE.search(text)) is not None:
        line = text.count("\n", 0, twice.start()) + 1
        raise DataError(
            f"{path}: line {line}: {twice[0]!r} was UTF-8, read in another encoding and saved again; convert "
            "it back (`iconv -f UTF-8 -t WINDOWS-1252`)."
        )
    return text


def _decoded(content, encoding, path):
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise DataError(f"{path}: line {line} is neither UTF-8 nor {encoding}.") from None


def _one_byte(content):
    """The declared encoding of bytes that are not UTF-8 if it is one of OTHERS, else Windows-1252, of which
    ISO-8859-1 is a part"""
    declared = DECLARED.match(content[:1000])
    try:
        name = codecs.lookup(declared[1].decode()).name if declared else ""
    except LookupError:
        name = ""
    return name if name in OTHERS else "cp1252"
