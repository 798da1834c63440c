"""Dependency trees of spoken sentences: CoNLL-U files into trees over the words that are heard.

https://universaldependencies.org/format.html says what the ten columns hold. A file is read with `conllu`,
and checked for what that library lets pass: columns missing, numbers of tokens out of order, heads out of
range, cycles, no root or several. Letters: n words of a sentence, numbered from 1; head 0 is the root.
"""

import os
from dataclasses import dataclass
from functools import cache

import conllu
from conllu.exceptions import ParseException

from lebench_sb.core.errors import SHOWN, Problems, nearest, shorten
from lebench_sb.manifests.tables import read_text
from lebench_sb.text.normaliser import UnreadableText
from lebench_sb.text.normaliser import normaliser as text_normaliser

COLUMNS = ("id", "form", "lemma", "upos", "xpos", "feats", "head", "deprel", "deps", "misc")
PUNCTUATION = ("PUNCT", "PCT", "PONCT")  # not heard; the last two are names in French treebanks
INNER = "_"  # joins the pieces of a word that the normaliser cuts: "vingt-six" is one node, "vingt_six"
# in forms of French spoken treebanks: "vou~" was broken off, "parce#que" is one token; nobody hears them
MARKS = str.maketrans("~#" + INNER, "   ")


@dataclass(frozen=True)
class Tree:
    """Tuples (n,): words (no white space in them), upos, heads (0: root), relations with their subtypes."""

    words: tuple
    upos: tuple
    heads: tuple
    relations: tuple

    def __len__(self):
        return len(self.words)

    @property
    def text(self):
        return " ".join(self.words)


NOT_THERE = "sentence not in its file of trees, or faulty there"
NO_WORDS = Tree((), (), (), ())


@dataclass(frozen=True)
class Block:
    """One sentence of a file: where it begins (line from 1), its `# key = value` lines, its lines as dicts.

    tokens: {column: value}, `id` an int for a word, (first, "-", last) for a multiword token, (word, ".", k)
    for an empty node.
    """

    file: str
    line: int
    metadata: dict
    tokens: tuple

    @property
    def name(self):
        return self.metadata.get("sent_id") or ""

    @property
    def place(self):
        """`file, line n, sent_id x`, for messages"""
        return f"{self.file}, line {self.line}, sent_id {self.name or 'missing'}"

    @property
    def nodes(self):
        return [token for token in self.tokens if isinstance(token["id"], int)]

    @property
    def ranges(self):
        return [t for t in self.tokens if isinstance(t["id"], tuple) and t["id"][1] == "-"]


def read_blocks(path, problems, columns=COLUMNS, fewest=None):
    """Yields the Blocks of a CoNLL-U file whose lines and trees are sound; the others become problems.

    columns: names of the first columns, all of them and no others unless `fewest` says how many a line has at
    least; what stands beyond is not read. Raises FileNotFoundError, or DataError for a file that is not
    UTF-8.
    """
    for line, lines in sentences(read_text(path)):
        yield from parse_block(os.path.basename(path), line, lines, problems, columns, fewest)


def parse_block(file, line, lines, problems, columns=COLUMNS, fewest=None):
    """The lines of one sentence -> [Block], or [] with what is wrong added to `problems`, one thing a
    sentence"""
    bare = Block(file, line, metadata(lines), ())
    rows = [(line + k, text) for k, text in enumerate(lines) if not text.startswith("#")]
    if fault := _line_fault(rows, fewest or len(columns), fewest is not None):
        problems.add(fault[0], f"{file}, line {fault[1]}, sent_id {bare.name or 'missing'}")
        return []
    try:
        parsed = conllu.parse("\n".join(text for _, text in rows), fields=columns)
    except (ParseException, ValueError) as error:  # ValueError: numbers of thousands of digits
        problems.add(f"not CoNLL-U, {shorten(str(error), 200).rstrip('.')}", bare.place)
        return []
    block = Block(file, line, bare.metadata, tuple(parsed[0]))
    faults = [*_number_faults(block), *tree_faults([token["head"] for token in block.nodes])]
    if faults:
        problems.add(", ".join(faults), block.place)
    return [] if faults else [block]


def sentences(text):
    """Yields (line number, lines) of each run of lines between empty ones; comments alone are no sentence"""
    lines, first = [], 1
    for number, line in enumerate([*text.split("\n"), ""], 1):
        line = line.rstrip("\r")
        if line.strip():
            first = first if lines else number
            lines.append(line)
        elif lines:
            if not all(held.startswith("#") for held in lines):
                yield first, lines
            lines = []


def metadata(lines):
    """{key: value} of the lines `# key = value`"""
    pairs = [line[1:].partition("=") for line in lines if line.startswith("#")]
    return {key.strip(): value.strip() for key, equals, value in pairs if equals}


def _line_fault(rows, width, more):
    """(fault, line number) of the first line without the columns it needs, or None"""
    for number, text in rows:
        fields = text.split("\t")
        if len(fields) < width or (len(fields) > width and not more):
            hint = ", separated by spaces instead of tabs?" if len(fields) == 1 else ""
            expected = f"{width} columns" + (" or more" if more else "")
            return f"lines without {expected}{hint}", f"{number} has {len(fields)}"
        if not fields[1].strip() or "  " in text:
            return "lines with an empty form or several spaces in a row", number
    return None


def _number_faults(block):
    """Numbers of words must be 1 to n, and a multiword token must cover words that exist."""
    numbers = [token["id"] for token in block.nodes]
    if not numbers:
        yield "sentence without words"
    elif numbers != list(range(1, len(numbers) + 1)):
        yield "words not numbered 1, 2, 3, ..."
    reached = 0
    for first, last in sorted((token["id"][0], token["id"][2]) for token in block.ranges):
        if not reached < first <= last <= len(numbers):
            yield "multiword tokens that overlap or cover words that are not there"
            return
        reached = last


def tree_faults(heads):
    """heads (n,), 0 for the root -> what keeps them from being a tree with one root, in words"""
    n = len(heads)
    if any(head is None or not 0 <= head <= n for head in heads):
        return [f"head missing or not from 0 to {n}" if n == 1 else "head missing or out of range"]
    faults, roots = [], sum(head == 0 for head in heads)
    if roots != 1:
        faults.append("no root" if roots == 0 else "more than one root")
    if None in _depths(heads):
        faults.append("cycle")
    return faults


def _depths(heads):
    """heads (n,) -> steps from each word to the root, None on a cycle or below one"""
    depths = {0: 0}
    for word in range(1, len(heads) + 1):
        path, seen = [], set()
        while word not in depths and word not in seen:
            seen.add(word)
            path.append(word)
            word = heads[word - 1]
        depth = depths.get(word)
        for below in reversed(path):
            depth = None if depth is None else depth + 1
            depths[below] = depth
    return [depths[word] for word in range(1, len(heads) + 1)]


# ---- from a treebank's tokens to the words that are heard


def spoken_tree(block, normalise, multiword="merge"):
    """A Block -> the Tree over its spoken words; NO_WORDS where there are only punctuation marks.

    - multiword "merge": the words of a multiword token ("au" = "à" + "le") become one, as heard; it takes the
      place in the tree of the word nearest to the root. "split" keeps the words.
    - A form is normalised alone; pieces the normaliser makes of it are joined by `_`.
    - Punctuation, and forms of which nothing remains, are left out; what hung on them goes to their head, or,
      where they were the root, to the first of what hung on them.
    - Empty nodes belong to enhanced graphs and are left out.

    Raises text.UnreadableText for a character the normaliser cannot read.
    """
    nodes = [(t["form"], t["upos"] or "_", t["head"], t["deprel"] or "_") for t in block.nodes]
    if multiword == "merge":
        nodes = _merged(nodes, block.ranges)
    forms = [INNER.join(normalise(form.translate(MARKS)).split()) for form, *_ in nodes]
    spoken = [n for n, (form, node) in enumerate(zip(forms, nodes, strict=True), 1)
            if form and node[1] not in PUNCTUATION]  # fmt: skip
    heads = _heads_among([node[2] for node in nodes], spoken)
    relations = [nodes[n - 1][3] for n in spoken]
    if spoken:
        relations[heads.index(0)] = "root"
    words, upos = [forms[n - 1] for n in spoken], [nodes[n - 1][1] for n in spoken]
    return Tree(tuple(words), tuple(upos), tuple(heads), tuple(relations))


def _merged(nodes, ranges):
    """nodes (form, upos, head, relation) with each multiword token as one node, renumbered"""
    depths, new, merged = _depths([node[2] for node in nodes]), {0: 0}, []
    starts = {token["id"][0]: token for token in ranges}
    number = 1
    while number <= len(nodes):
        last, form = number, nodes[number - 1][0]
        if number in starts:
            last, form = starts[number]["id"][2], starts[number]["form"]
        top = min(range(number, last + 1), key=lambda n: depths[n - 1])
        merged.append((form, *nodes[top - 1][1:]))
        new |= dict.fromkeys(range(number, last + 1), len(merged))
        number = last + 1
    return [(form, upos, new[head], relation) for form, upos, head, relation in merged]


def _heads_among(heads, spoken):
    """heads (n,) of a tree -> heads of the words `spoken` (their numbers, rising), numbered anew"""
    new, heads_among = {0: 0} | {n: k for k, n in enumerate(spoken, 1)}, []
    for word in spoken:
        head, path = heads[word - 1], []
        while head not in new:
            path.append(head)
            head = heads[head - 1]
        new |= dict.fromkeys(path, new[head])  # those who hang on them need not climb again
        heads_among.append(new[head])
    roots = [k for k, head in enumerate(heads_among, 1) if head == 0]
    return [0 if k == roots[0] else roots[0] if head == 0 else head for k, head in enumerate(heads_among, 1)]


# ---- trees of utterances


def as_conllu(tree, name=None):
    """A Tree as the lines of CoNLL-U, without a newline at the end; name: its sent_id"""
    lines = [] if name is None else [f"# sent_id = {name}", f"# text = {tree.text}"]
    rows = zip(tree.words, tree.upos, tree.heads, tree.relations, strict=True)
    for number, (word, upos, head, relation) in enumerate(rows, 1):
        lines.append(f"{number}\t{word}\t_\t{upos}\t_\t_\t{head}\t{relation}\t_\t_")
    return "\n".join(lines)


def trees_of(utterances, data_folder, normaliser, multiword="merge", where="tree"):
    """{ID: Tree} of Utterances by their label `tree`: CoNLL-U text, `file.conllu` (the sentence whose sent_id
    is the ID) or `file.conllu#sent_id`; a file is absolute or relative to data_folder.

    Raises DataError, naming `where`, that lists what is wrong: no tree, no such file or sentence, faults of
    trees, and trees whose words are not those of the transcript `wrd` where there is one.
    """
    problems, normalise, trees = Problems(where), text_normaliser(normaliser), {}

    @cache
    def sentences(path):
        return {block.name: block for block in read_blocks(path, problems)}

    for u in utterances:
        block = _block_of(u, data_folder, sentences, problems)
        tree = None if block is None else normalised(block, normalise, multiword, problems)
        if tree is None:
            continue
        if not tree:
            problems.add("trees without a spoken word", u.id)
        elif bare(u.labels.get("wrd", "")) not in ("", bare(tree.text)):
            both = f"{u.id}: {u.labels['wrd'][:40]!r}, {tree.text[:40]!r}"
            problems.add("words of wrd and of the tree that differ", both)
        trees[u.id] = tree
    problems.raise_if_any()
    return trees


def normalised(block, normalise, multiword, problems):
    """`spoken_tree`; None, with a problem noted, where the normaliser cannot read a form"""
    try:
        return spoken_tree(block, normalise, multiword)
    except UnreadableText as error:
        kind = "characters the normaliser cannot read (normaliser: none keeps them)"
        problems.add(kind, f"{block.place} {' '.join(error.characters)}")
        return None


def bare(text):
    """`text` in lower case without the marks between words and pieces of words"""
    return text.lower().replace(" ", "").replace(INNER, "")


def _block_of(u, data_folder, sentences, problems):
    """The Block an Utterance's label `tree` names or holds; None, with a problem noted, if there is none"""
    value = u.labels.get("tree", "").strip()
    if not value:
        problems.add("no tree", u.id)
        return None
    if "\t" in value or "\n" in value:
        return next(iter(parse_block(u.id, 1, value.splitlines(), problems)), None)
    path, name = _file_and_key(os.path.join(data_folder, value), u.id)
    if not os.path.isfile(path):
        problems.add("file of trees not found", f"{u.id}: {path}")
        return None
    blocks = sentences(path)
    if name not in blocks:
        few = len(problems.found.get(NOT_THERE, ())) < SHOWN  # a search takes time; more are not shown
        problems.add(NOT_THERE, f"{name}{nearest(name, blocks) if few else ''}")
    return blocks.get(name)


def _file_and_key(value, name):
    """`file.conllu#key` -> (file, key); without key (or where the whole is a file's name) the ID"""
    path, mark, key = value.rpartition("#")
    return (path, key) if mark and not os.path.isfile(value) else (value, name)
