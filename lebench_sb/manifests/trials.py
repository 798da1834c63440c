"""Trial lists of speaker verification: three formats, one reader that says all that is wrong at once.

A line compares two utterances. Read are, with any of comma, semicolon, tab or spaces between the fields:

- `1 a.wav b.wav`, `0 a.wav c.wav` (VoxCeleb);
- `a b target`, `a c nontarget` (Kaldi, NIST);
- columns named by a header: `enrol`, `test` and `label` (or the names in HEADER).

An utterance is named by its ID, or by the end of its path, with or without suffix (`S01/0003.wav`), where
only one utterance has it; where none is written so, another suffix of audio, backslashes, another letter case
and folders that all names of the list share (`/other/disk/S01/0003.flac`) are looked through. The enrolment
side may be a model of several utterances of one speaker: `a+b`, or a name that an enrolment file explains
(`model a b` a line, Kaldi's spk2utt). Cosines are symmetric: `a b` and `b a` are one comparison.
"""

import csv
import io
import logging
import math
import os
import random
import re
import unicodedata
from bisect import bisect_right
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import PurePath, PurePosixPath

import numpy as np

from lebench_sb.core.errors import DataError, Problems
from lebench_sb.core.paths import AUDIO
from lebench_sb.manifests.tables import read_text

logger = logging.getLogger(__name__)
LABELS = {
    "1": True, "0": False, "target": True, "nontarget": False, "non-target": False, "imp": False,
    "impostor": False, "imposter": False, "true": True, "false": False, "same": True, "different": False,
    "tgt": True, "non": False,
}  # fmt: skip
HEADER = {
    "enrol": "enrol", "enroll": "enrol", "enrolment": "enrol", "enrollment": "enrol", "enrol_id": "enrol",
    "model": "enrol", "id1": "enrol", "utt1": "enrol", "file1": "enrol", "wav1": "enrol",
    "test": "test", "test_id": "test", "segment": "test", "id2": "test", "utt2": "test", "file2": "test",
    "wav2": "test", "label": "label", "target": "label", "key": "label", "class": "label", "same": "label",
}  # fmt: skip
FORMATS = "`1 a b`, `a b target`, or a header with enrol, test, label"


@dataclass(frozen=True)
class Trials:
    """n trials: both sides (lists of n) and targets (n,) bool, True for the same speaker.

    A test side is the ID of an utterance; an enrolment side too, or a key of models: {`a+b`: [a, b]}.
    """

    enrol: list
    test: list
    targets: np.ndarray
    models: dict = field(default_factory=dict)

    def __len__(self):
        return len(self.enrol)


def read_trials(path, utterances, enrolment=""):
    """Reads the list `path` and compares it with the Utterances it names, before anything is computed.

    enrolment: file that says which utterances a model is made of, or "" where trials name utterances.
    Returns Trials with IDs and logs their numbers. A comparison that is listed several times is kept as often
    and logged: a published list is scored as it is. Raises FileNotFoundError, or DataError that lists all of:
    lines in no known format (a header without known names is one), labels that are none, unknown or
    ambiguous names, models of two speakers, trials of an utterance with itself, comparisons listed with both
    labels, labels that contradict the speakers of the manifest, no target or no non-target.
    """
    problems = Problems(path)
    lines = _lines(path, problems)
    shared = _shared_folders({name for _, enrol, test, _ in lines for name in (*enrol.split("+"), test)})
    resolve, trials, models = _resolver(utterances, shared), [], {}
    named = _read_models(enrolment, resolve, problems) if enrolment else {}
    for number, enrol, test, label in lines:
        sides = [_enrolled(resolve, enrol, number, problems, named)]
        sides.append(_utterance(resolve, test, number, problems))
        if label.lower() not in LABELS:
            problems.add("labels that are neither target nor non-target", f"line {number} {label!r}")
        elif None not in sides:
            key = "+".join(sides[0])
            models.setdefault(key, sides[0])
            trials.append((number, key, sides[1], LABELS[label.lower()]))
    _check(trials, models, {u.id: u.speaker for u in utterances}, problems)
    problems.raise_if_any()
    enrol, test, targets = ([trial[column] for trial in trials] for column in (1, 2, 3))
    models = {key: ids for key, ids in models.items() if len(ids) > 1}
    made = Trials(enrol, test, np.array(targets, dtype=bool), models)
    _describe(path, made, utterances)
    return made


def _read_models(path, resolve, problems):
    """{model: sorted IDs} of an enrolment file"""
    models = {}
    for number, line in enumerate(read_text(path).splitlines(), 1):
        model, *names = _split(line) if line.strip() else [""]
        where = f"{number} of {PurePath(path).name}"
        if model and not names:
            problems.add("models without utterances", f"line {where} {model}")
        if model in models:
            problems.add("models listed twice", f"line {where} {model}")
        if model:
            models[model] = _all(resolve, [name.strip() for name in names], where, problems)
    return models


def _enrolled(resolve, name, number, problems, models):
    """Sorted IDs of the enrolment side `name`, or None with a problem noted"""
    if name in models:
        return models[name] or None
    if "+" in name and not resolve(name):
        return _all(resolve, name.split("+"), number, problems)
    utterance = _utterance(resolve, name, number, problems)
    return None if utterance is None else [utterance]


def _all(resolve, names, number, problems):
    """Sorted IDs of `names`, or None where one is unknown, with a problem noted"""
    names_found = [_utterance(resolve, name, number, problems) for name in names]
    return None if None in names_found else sorted(set(names_found))


def _lines(path, problems):
    """[(line number, enrol, test, label)] of a list in any of the formats"""
    rows = [
        (number, [field.strip() for field in _split(line)])
        for number, line in enumerate(read_text(path).splitlines(), 1)
        if line.strip()
    ]
    if not rows:
        raise DataError(f"{path}: empty trial list. Its lines look like {FORMATS}.")
    header = _columns(rows[0][1])
    order = header or _order(rows)
    if order is None:
        shown = " ".join(rows[0][1])[:80]
        raise DataError(
            f"{path}: no line is a trial; line {rows[0][0]} is {shown!r}. Lines look like {FORMATS}."
        )
    lines = []
    for number, fields in rows[1:] if header else rows:
        if header is None and number == rows[0][0] and not _labelled(fields, order):
            problems.add("header line (name its columns enrol, test, label or delete it)", " ".join(fields))
        elif len(fields) <= max(order) or (header is None and len(fields) != 3):
            problems.add(f"lines in no known format ({FORMATS})", f"line {number} {' '.join(fields)[:60]!r}")
        else:
            lines.append((number, *(fields[column] for column in order)))
    return lines


def _split(line):
    """Fields of a line: by comma, semicolon or tab where there is one, else by spaces"""
    used = max(",;\t", key=line.count)
    try:
        return next(csv.reader([line], delimiter=used)) if used in line else line.split()
    except csv.Error:  # a field of over 131,072 characters
        return [line]


def _columns(fields):
    """Positions of (enrol, test, label) in a header with known names, else None"""
    names = [HEADER.get(re.sub(r"\W+", "_", field.lower())) for field in fields]
    wanted = ("enrol", "test", "label")
    return tuple(names.index(w) for w in wanted) if all(names.count(w) == 1 for w in wanted) else None


def _order(rows):
    """Positions of (enrol, test, label) by where most of the first lines have a label; None if none has"""
    votes = Counter()
    for _, fields in rows[:1000]:
        for order in ((1, 2, 0), (0, 1, 2)):
            votes[order] += len(fields) == 3 and _labelled(fields, order)
    (order, number), *_ = votes.most_common(1) or [(None, 0)]
    return order if number else None


def _labelled(fields, order):
    return len(fields) > order[2] and fields[order[2]].lower() in LABELS


def _resolver(utterances, shared=0):
    """-> function name -> set of IDs that may be meant; shared: leading folders that may be left out"""
    places, ids_of = {}, {u.id: {u.id} for u in utterances}

    def resolve(name):
        if name not in ids_of:
            if not places:  # every path, only when some name is no ID
                places.update(_places(utterances))
            ids_of[name] = _meant(name, places, shared)
        return ids_of[name]

    return resolve


def _places(utterances):
    """{last part of a path or ID, without suffix, plainly written: [(its parts, same without suffix, ID)]}"""
    places = defaultdict(list)
    for u in utterances:
        path, name = PurePath(u.wav.replace("::", "/")), PurePosixPath(u.id)
        for each, bare in ((path.parts, path.with_suffix("").parts), (name.parts, name.parts)):
            if each:
                places[_plain(bare[-1])].append((each, bare, u.id))
    return places


def _meant(name, places, shared):
    """IDs of the utterances whose path or ID ends as `name` does"""
    written = tuple(part for part in name.replace("\\", "/").split("/") if part not in ("", "."))
    for left_out in range(min(shared, max(len(written) - 1, 0)) + 1):
        if written and (found := _ending_so(written[left_out:], places)):
            return found
    return set()


def _ending_so(parts, places):
    """IDs of the utterances whose path or ID ends in `parts`, by the way of reading that first finds any: as
    written, with any suffix of audio, in any letter case"""
    stem, suffix = os.path.splitext(parts[-1])
    bare = (*parts[:-1], stem) if suffix.lower() in AUDIO else parts
    near = [place for key in {_plain(parts[-1]), _plain(stem)} for place in places.get(key, [])]
    ways = (
        lambda path, short: _ends(path, parts) or _ends(short, parts),
        lambda path, short: _ends(short, bare),
        lambda path, short: _ends(list(map(_plain, short)), list(map(_plain, bare))),
    )
    for way in ways:
        if found := {number for path, short, number in near if way(path, short)}:
            return found
    return set()


def _ends(whole, end):
    return tuple(whole[-len(end) :]) == tuple(end)


def _plain(text):
    """A name as one writes it who cares neither for composition nor for case"""
    return unicodedata.normalize("NFC", text).casefold()


def _shared_folders(names):
    """How many leading folders all names of a list have in common"""
    split = [[p for p in name.replace("\\", "/").split("/") if p][:-1] for name in names]
    return len(os.path.commonprefix(split)) if split else 0


def _utterance(resolve, name, number, problems):
    """The ID that `name` means, or None with a problem noted"""
    matching = resolve(name)
    if len(matching) == 1:
        return next(iter(matching))
    kind = "names of several utterances (use IDs)" if matching else "unknown utterances"
    problems.add(kind, f"line {number} {name}")
    return None


def _check(trials, models, speakers, problems):
    """Adds what is wrong with the trials as a whole.

    trials: (line, enrolment key, test, target); models: {key: IDs}; speakers: {ID: name}.
    """
    labels, voices = {}, {key: {speakers[name] for name in ids} - {""} for key, ids in models.items()}
    for key, of_model in voices.items():
        if len(of_model) > 1:
            problems.add("models of several speakers", f"{key}: {' '.join(sorted(of_model))}")
    for number, enrol, test, target in trials:
        if test in models[enrol]:
            problems.add("trials of an utterance with itself", f"line {number} {test}")
        pair = (enrol, test) if enrol < test else (test, enrol)
        if labels.setdefault(pair, target) != target:
            problems.add("comparisons listed as target and as non-target", f"line {number} {enrol} {test}")
        of_model, b = voices[enrol], speakers[test]
        if len(of_model) == 1 and b and (b in of_model) != target:
            said = f"{'target' if target else 'non-target'} {' '.join(of_model)} {b}"
            problems.add("labels that contradict the manifest's speakers", f"line {number} {said}")
    targets = sum(target for *_, target in trials)
    if trials and targets in (0, len(trials)):
        kind = "no target trial" if not targets else "no non-target trial"
        problems.add(f"{kind}: error rates need both", f"{len(trials)} trials")
    if not trials and not problems:
        problems.add("no trial", "0 lines")


def _describe(path, trials, utterances):
    """Logs the numbers of a list, and what is odd but scored"""
    speakers = {u.id: u.speaker for u in utterances}
    in_trials = {*trials.test}.union(*(trials.models.get(key, [key]) for key in set(trials.enrol)))
    voices = {speakers[name] for name in in_trials}
    targets = int(trials.targets.sum())
    logger.info(
        "%s: %d trials, %d target and %d non-target, of %d speakers and %d utterances",
        path, len(trials), targets, len(trials) - targets, len(voices - {""}), len(in_trials),
    )  # fmt: skip
    if "" in voices:
        logger.warning("%s: speakers unknown of some utterances: labels cannot be checked", path)
    if len(utterances) > len(in_trials):
        logger.info("%s: %d test utterances are in no trial", path, len(utterances) - len(in_trials))
    pairs = Counter(tuple(sorted(pair)) for pair in zip(trials.enrol, trials.test, strict=True))
    repeated = [pair for pair, count in pairs.items() if count > 1]
    if repeated:
        shown = ", ".join(" ".join(pair) for pair in repeated[:5])
        logger.warning(
            "%s: %d comparisons are listed more than once (%d lines in excess, mirrored ones included) and "
            "count as often: %s", path, len(repeated), len(trials) - len(pairs), shown,
        )  # fmt: skip


def make_trials(utterances, seed, most=20_000):
    """Trials out of speaker-labelled Utterances: pairs of one speaker, and ten times as many of two.

    At most `most` trials; which ones depends on the seed and the IDs alone. No list of all pairs is made: an
    hour of speech and a hundred hours take as long. Raises DataError if some speaker is unknown, or if there
    are no two utterances of one speaker, or no two speakers.
    """
    ordered = sorted(utterances, key=lambda u: u.id)
    unknown = [u.id for u in ordered if not u.speaker]
    if unknown:
        raise DataError(f"no spk_id for {len(unknown)} utterances: {', '.join(unknown[:5])}.")
    of_speaker = defaultdict(list)
    for u in ordered:
        of_speaker[u.speaker].append(u.id)
    rng = random.Random(f"trials-{seed}")
    groups = list(of_speaker.values())
    ends = list(accumulate(len(ids) * (len(ids) - 1) // 2 for ids in groups))
    if not groups or not ends[-1] or len(groups) < 2:
        raise DataError(
            f"{len(ordered)} utterances of {len(groups)} speakers make no trials: it takes two speakers, "
            "and two utterances of one of them."
        )
    numbers = rng.sample(range(ends[-1]), min(ends[-1], max(1, most // 11)))
    pairs = sorted(_pair_of_one(groups, ends, number) for number in numbers)
    others = _of_two_speakers(ordered, groups, rng, min(10 * len(pairs), most - len(pairs)))
    enrol, test = zip(*pairs, *others, strict=True)
    return Trials(list(enrol), list(test), np.arange(len(enrol)) < len(pairs))


def _pair_of_one(groups, ends, number):
    """The pair of IDs `number` (from 0) of all pairs within groups, of which ends[g] lie in groups 0 to g: in
    each group (0, 1), (0, 2), (1, 2), (0, 3), ..."""
    group = bisect_right(ends, number)
    number -= ends[group - 1] if group else 0
    second = (1 + math.isqrt(1 + 8 * number)) // 2
    return groups[group][number - second * (second - 1) // 2], groups[group][second]


def _pair_of_two(groups, ends, starts, number):
    """The pair of IDs `number` (from 0) of all pairs of different groups: each ID with every ID of the groups
    before its own, of which there are starts[g]; ends[g] pairs lie in groups 0 to g"""
    group = bisect_right(ends, number)
    own, other = divmod(number - (ends[group - 1] if group else 0), starts[group])
    before = bisect_right(starts, other) - 1
    a, b = groups[before][other - starts[before]], groups[group][own]
    return min(a, b), max(a, b)


def _of_two_speakers(ordered, groups, rng, wanted):
    """Up to `wanted` different pairs of IDs of two speakers, sorted; all pairs are as likely"""
    speakers = {u.id: u.speaker for u in ordered}
    ids, pairs = list(speakers), set()
    if len(ids) < 400:  # few enough to list
        every = [(a, b) for k, b in enumerate(ids) for a in ids[:k] if speakers[a] != speakers[b]]
        return sorted(rng.sample(every, min(len(every), max(1, wanted))))
    for _ in range(20 * wanted):
        a, b = rng.sample(ids, 2)
        if speakers[a] != speakers[b]:
            pairs.add((min(a, b), max(a, b)))
        if len(pairs) == wanted:
            return sorted(pairs)
    # nearly all of one speaker: two that are drawn are rarely of two, so pairs are drawn instead
    starts = [0, *accumulate(map(len, groups))][:-1]
    ends = list(accumulate(len(ids) * start for ids, start in zip(groups, starts, strict=True)))
    numbers = rng.sample(range(ends[-1]), min(ends[-1], max(1, wanted)))
    return sorted(_pair_of_two(groups, ends, starts, number) for number in numbers)


def trials_csv(trials):
    """Trials -> the text of a list with a header, IDs and labels 1 and 0"""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["enrol", "test", "label"])
    writer.writerows(zip(trials.enrol, trials.test, trials.targets.astype(int).tolist(), strict=True))
    return text.getvalue()
