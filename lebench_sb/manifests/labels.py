"""Labels of utterances, a list or columnar, and the checks that every task with texts shares."""

import re
from collections import Counter

import numpy as np

from lebench_sb.core.errors import nearest
from lebench_sb.manifests.columns import Utterances, durations_of
from lebench_sb.manifests.utterance import COLUMNS

CONTROL = re.compile("[\x00-\x08\x0e-\x1f\x7f]")  # none of them is white space
FASTEST = 100  # characters a second (and as many at once): nobody reads five times as fast as French is read
UNREADABLE = 0.5  # share of a split's characters that train lacks, from which on a model is another script's


def label_names(utterances):
    """Sorted names of the labels that some utterance has"""
    if isinstance(utterances, Utterances):
        return sorted(utterances.labels)
    return sorted({name for u in utterances for name in u.labels})


def values_of(utterances, name):
    """A label of all utterances, "" where one lacks it -> list (n,); None where all lack the column"""
    if name not in label_names(utterances):
        return None
    if isinstance(utterances, Utterances):
        return utterances.column(name).fill_null("").to_pylist()
    return [u.labels.get(name, "") for u in utterances]


def ids_of(utterances):
    """IDs (n,), a list"""
    if isinstance(utterances, Utterances):
        return utterances.column("ID").to_pylist()
    return [u.id for u in utterances]


def require(splits, column, settings, findings):
    """{split: values of `column`}; a split without such a column is a fault that names its manifest"""
    values = {split: values_of(utterances, column) for split, utterances in splits.items()}
    for split in [split for split, texts in values.items() if texts is None]:
        names = label_names(splits[split])
        there = f"it has {', '.join(names)}" if names else f"it has {', '.join(COLUMNS)} and no label"
        kind = f"{split}: no column {column}{nearest(column, names)}, {there}"
        findings.refuse(kind, settings[f"{split}_csv"])
    return {split: texts for split, texts in values.items() if texts is not None}


def check_texts(splits, column, settings, findings, pieces=list):
    """What a model that writes texts needs -> {split: texts} of the splits that have the column.

    Faults are: no column; no text at all (nothing to learn, or an error rate without a reference); control
    characters; a text nobody can say in its time (of train: left out); over half of the characters of valid
    or test unseen in train. Empty texts and rarer unseen characters are told. pieces: text -> its symbols;
    None: symbols are not compared.
    """
    texts = require(splits, column, settings, findings)
    for split, of_split in texts.items():
        empty = sum(not text.strip() for text in of_split)
        if empty == len(of_split):
            why = "nothing to learn from" if split == "train" else "no error rate is defined"
            findings.refuse(f"{split}: every {column} is empty, {why}", settings[f"{split}_csv"])
        check_characters(split, splits[split], of_split, column, findings)
    empty = {split: sum(not text.strip() for text in of_split) for split, of_split in texts.items()}
    findings.tell("empty_texts", {split: count for split, count in empty.items() if count})
    if pieces is not None and "train" in texts:
        compare(texts, column, findings, pieces)
    return texts


def check_characters(split, utterances, texts, column, findings):
    """Texts (n,) with control characters, or too long for the seconds they are said in"""
    odd = [k for k, text in enumerate(texts) if CONTROL.search(text)]
    sizes = np.array([len(text) for text in texts])
    long = np.flatnonzero(sizes > FASTEST * (1 + durations_of(utterances)))
    if not odd and not len(long):
        return
    ids = ids_of(utterances)
    for k in odd:
        findings.refuse(
            f"{split}: control characters in {column}", f"{ids[k]} {CONTROL.findall(texts[k])[:3]}"
        )
    findings.bad(split, f"{column} over {FASTEST} characters per second", [ids[k] for k in long])


def compare(texts, column, findings, pieces):
    """Symbols of valid and test that train lacks: no model of these texts can write them"""
    counts = {split: symbols_of(of_split, pieces) for split, of_split in texts.items()}
    in_train, told = counts.pop("train"), {}
    for split, of_split in counts.items():
        unseen = {symbol: count for symbol, count in of_split.items() if symbol not in in_train}
        total, missed = sum(of_split.values()), sum(unseen.values())
        if not unseen:
            continue
        listed = sorted(unseen, key=lambda symbol: (-unseen[symbol], symbol))
        shown = " ".join(map(repr, listed[:20])) + (" ..." if len(listed) > 20 else "")
        if in_train and missed > UNREADABLE * total:
            kind = f"{split}: {missed} of {total} characters of {column} are unseen in train"
            findings.refuse(f"{kind} (other case, normaliser or script?)", shown)
        told[split] = {"count": missed, "of": total, "characters": {s: unseen[s] for s in listed}}
        said = f"{split}: {missed} of {total} characters are unseen in train, always an error: {shown}"
        findings.tell("unseen_characters", told, said)


def symbols_of(texts, pieces):
    """Texts -> {symbol: occurrences}; white space is no symbol of its own"""
    if pieces is list:
        counts = Counter("".join(texts))
    else:
        counts = Counter(piece for text in texts for piece in pieces(text))
    return {symbol: count for symbol, count in counts.items() if symbol.strip()}
