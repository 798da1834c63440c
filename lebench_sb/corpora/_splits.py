"""How corpora without official splits are split: with a seed, and no speaker or recording on two sides."""

import random
from collections import defaultdict

from lebench_sb.core.errors import DataError, UsageError


def deal(speakers, fold, folds):
    """{(speaker, gender)} -> {split: set of speakers} of a fold; UsageError for a fold that cannot be"""
    by_gender = {gender: sorted(name for name, g in speakers if g == gender) for gender in "FM"}
    most = min(map(len, by_gender.values()))
    if not 3 <= folds <= most:
        counts = f"{len(by_gender['F'])} women and {len(by_gender['M'])} men"
        raise UsageError(f"folds is {folds}: with {counts}, 3 to {most} folds have both in each.")
    if not 1 <= fold <= folds:
        raise UsageError(f"fold is {fold}: it must be 1 to {folds} (folds).")
    groups = [{name for names in by_gender.values() for name in names[k::folds]} for k in range(folds)]
    test, valid = groups[fold - 1], groups[fold % folds]
    return {"train": set().union(*groups) - test - valid, "valid": valid, "test": test}


def hold_out(utterances, share, seed):
    """Utterances -> (those of train, those of valid): `share` of the speakers, at least two, are held out.

    Only speakers with two utterances or more are: valid needs pairs of one speaker. Which ones depends on
    `seed` and the names alone. Raises DataError when fewer than two speakers would be left on either side.
    """
    of_speaker = defaultdict(int)
    for u in utterances:
        of_speaker[u.speaker] += 1
    several = sorted(name for name, count in of_speaker.items() if count > 1)
    wanted = max(2, round(share * len(of_speaker)))
    if not 0 < share < 1 or len(several) < 2 or len(of_speaker) - wanted < 2:
        raise DataError(
            f"valid: {share} of {len(of_speaker)} training speakers, {len(several)} of them with two "
            "utterances or more, leaves fewer than two for valid or for train. Give more speakers, or "
            "--train_csv, --valid_csv, --test_csv and --trials."
        )
    held = set(random.Random(f"valid-{seed}").sample(several, min(wanted, len(several))))
    return [u for u in utterances if u.speaker not in held], [u for u in utterances if u.speaker in held]


def drawn(seconds, ratios, seed):
    """{recording: seconds} -> {recording: split} of those drawn for test and valid, until each has its share
    (`ratios` of train, valid, test) of the seconds; the others, at least one, are train's"""
    order = sorted(seconds)
    random.Random(seed).shuffle(order)
    total, split_of = sum(seconds.values()), {}
    for split, ratio, reserved in (("test", ratios[2], 2), ("valid", ratios[1], 1)):
        share = 0.0
        while len(order) > reserved and (share == 0 or share + seconds[order[-1]] / 2 < ratio * total):
            share += seconds[order[-1]]
            split_of[order.pop()] = split
    return split_of


def draw_groups(utterances, ratios, seed, key):
    """{split: utterances}; no group (`key` of an utterance) is in two splits, none stays empty if it can."""
    groups = {}
    for u in sorted(utterances, key=lambda u: u.id):
        groups.setdefault(key(u), []).append(u)
    seconds = {name: sum(u.duration for u in group) for name, group in groups.items()}
    order = sorted(groups)
    random.Random(seed).shuffle(order)
    splits, total = {}, sum(seconds.values())
    for name, ratio in (("test", ratios[2]), ("valid", ratios[1])):
        # train, and valid while test is drawn, get a group each
        spare = len(order) - 1 - (name == "test" and ratios[1] > 0)
        taken = _take(order, seconds, ratio * total, spare) if ratio and spare > 0 else []
        order = [group for group in order if group not in taken]
        splits[name] = [u for group in taken for u in groups[group]]
    return {"train": [u for group in order for u in groups[group]], **splits}


def _take(order, seconds, target, most):
    """One to `most` groups, in order, that each bring the sum of seconds nearer to the target."""
    taken, total = [], 0.0
    for group in order:
        if len(taken) < most and abs(total + seconds[group] - target) < abs(total - target):
            taken.append(group)
            total += seconds[group]
    return taken or [min(order, key=lambda group: seconds[group])]
