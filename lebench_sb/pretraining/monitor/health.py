"""Whether a pre-training run lives: what its figures are compared with, and the alarms they raise.

Pure Python on the lines of `steps.jsonl`: nothing here computes on a device or reads a file but `read_lines`.

Curves for others to draw:

    python -m lebench_sb.pretraining.monitor.health results/mini/steps.jsonl thinned.jsonl
"""

import math
import statistics
import sys
from collections import defaultdict, deque
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from lebench_sb.core.files import write_atomically
from lebench_sb.core.lines import json_text, read_records

POINTS = 300  # a curve keeps fewer than twice as many
THINNED = 50  # the same, of a file of curves
CLOCKED = ("audio_per_s", "waiting_share")  # say more of the machine than of the run
WINDOW = 50  # updates an alarm looks back on
PATIENCE = 200, 2000  # updates before learning may be asked for: a quarter of the run, within these
COLLAPSED = 0.1  # of the codes of a group
PERFECT = 95.0  # contrastive accuracy (%) that no published model comes near
SMALL = 0.5  # of the recipe's hours per update
STARVED = 25.0  # % of the time
SHOWN = 5


@dataclass(frozen=True)
class Facts:
    """What a run's figures are compared with"""

    num_groups: int  # G groups of codes
    num_codes: int  # V codes per group
    num_negatives: int  # negatives
    number_of_updates: int
    hidden_size: int  # D of the context network, the largest effective rank
    hours_per_update: float = 0.0  # of audio, the recipe's; 0: the recipe does not say
    accumulation: int = 1  # micro-batches per update and process

    @property
    def chance(self):
        """Contrastive accuracy (%) at chance: 1 / (1 + negatives). Lines of `steps.jsonl`
        have their own, as short utterances have fewer frames to draw negatives from."""
        return 100 / (1 + self.num_negatives)

    @property
    def patience(self):
        """Updates before a run must have left chance; 2 % of a very long one"""
        least, most = PATIENCE
        return max(least, min(self.number_of_updates // 4, most), self.number_of_updates // 50)


@dataclass
class Alarm:
    """`text` says what is seen, `advice` what to do; it held first and last at these updates"""

    name: str
    first: int
    last: int
    text: str
    advice: str

    def __str__(self):
        return f"{self.name}, update {self.first}: {self.text} {self.advice}"


class Curve:
    """Values of growing steps, as less than 2 x `points` averages of equally many neighbours: a run of a
    month takes no more memory than one of an hour."""

    def __init__(self, points=POINTS):
        self.steps, self.values, self.points = [], [], points
        self.width, self.begun = 1, []  # values per average; those of the average not yet complete

    def add(self, step, value):
        self.begun.append((step, value))
        if len(self.begun) < self.width:
            return
        self.steps.append(sum(s for s, _ in self.begun) / self.width)
        self.values.append(sum(v for _, v in self.begun) / self.width)
        self.begun = []
        if len(self.steps) == 2 * self.points:
            self.steps, self.values = joined(self.steps), joined(self.values)
            self.width *= 2


def joined(numbers):
    """Means of pairs of neighbours; an even number of numbers"""
    return [(a + b) / 2 for a, b in zip(numbers[::2], numbers[1::2], strict=True)]


class Curves:
    """stages["train" or "valid"][key]: Curve of lines of `steps.jsonl`; values not finite are left out"""

    def __init__(self, points=POINTS):
        self.stages = {stage: defaultdict(partial(Curve, points)) for stage in ("train", "valid")}

    def add(self, record):
        for key, value in record.items():
            if key not in ("step", "stage", "epoch") and is_number(value) and math.isfinite(value):
                self.stages[record["stage"]][key].add(record["step"], value)

    def matching(self, stage, key):
        """[(name, Curve)] of `key` itself and of `key_0`, `key_1`, ... or `key_<word>`, sorted by name"""
        of_stage = self.stages[stage]
        return [(k, of_stage[k]) for k in sorted(of_stage) if k == key or k.startswith(f"{key}_")]


def is_number(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool)


class Monitor:
    """Fed with the lines of `steps.jsonl` in their order; keeps curves, alarms and the updates left out."""

    def __init__(self, facts):
        self.facts = facts
        self.curves, self.alarms, self.refused = Curves(), {}, []
        self.latest = {"train": {}, "valid": {}}
        self.window, self.steady = deque(maxlen=WINDOW), deque(maxlen=WINDOW)
        self.starting = True  # the next update waits for its data to start, which is no starvation

    def add(self, record):
        """record: {"step", "stage", figures} -> alarms raised for the first time"""
        self.curves.add(record)
        stage = record["stage"]
        # a figure that was not finite is not known, and the one before it is not the latest
        known = {key: value for key, value in record.items() if not is_number(value) or math.isfinite(value)}
        kept = {key: value for key, value in self.latest[stage].items() if key not in record}
        self.latest[stage] = kept | {key: value for key, value in known.items() if value is not None}
        if stage == "valid":
            self.starting = True
        else:
            self.window.append(record)
            if not self.starting:
                self.steady.append(record)
            self.starting = False
            if record.get("refused"):
                self.refused.append((record["step"], record["refused"]))
        return self.judge(record["step"])

    def judge(self, step):
        """Alarms raised at `step` for the first time"""
        new = []
        for name, (rule, advice) in RULES.items():
            text = rule(self)
            if not text:
                continue
            if name in self.alarms:
                self.alarms[name].last = step
            else:
                self.alarms[name] = Alarm(name, step, step, text, advice(self.facts))
                new.append(self.alarms[name])
        return new

    def figures(self, key, window=None):
        """Finite values of `key` in the last updates"""
        values = [r[key] for r in (self.window if window is None else window) if is_number(r.get(key))]
        return [v for v in values if math.isfinite(v)]

    def average(self, key):
        """Mean of `key` over a full window, None before there is one"""
        values = self.figures(key)
        return statistics.fmean(values) if len(values) == WINDOW else None


# ---- rules: Monitor -> what is wrong, in words, or None


def collapsed(monitor):
    """Few codes win: as drawn in training (with noise) or as chosen on valid (without)"""
    facts = monitor.facts
    for group in range(facts.num_groups):
        drawn = monitor.figures(f"perplexity_{group}")
        if len(drawn) < WINDOW:
            continue
        chosen = monitor.latest["valid"].get(f"perplexity_{group}", math.inf)
        lowest = min(statistics.median(drawn), chosen)
        if lowest < COLLAPSED * facts.num_codes:
            where = "on valid" if lowest == chosen else f"in the last {WINDOW} updates"
            return (
                f"the {facts.num_codes} codes of group {group + 1} are worth {lowest:.1f} used equally often "
                f"(perplexity {where}); below {COLLAPSED * facts.num_codes:g} the targets hardly differ."
            )
    return None


def at_chance(monitor):
    """Nothing has been learnt: less than 1 % of the way from chance to perfect"""
    accuracy, chance, facts = monitor.average("accuracy"), monitor.average("chance"), monitor.facts
    if accuracy is None or monitor.latest["train"]["step"] < facts.patience:
        return None
    chance = facts.chance if chance is None else chance
    least = chance + (100 - chance) / 100
    if accuracy >= least:
        return None
    return (
        f"the true frame was found among {facts.num_negatives} negatives in {accuracy:.2f} % of the last "
        f"{WINDOW} updates' masked frames; chance gives {chance:.2f} %, less than {least:.2f} % is not "
        "learning."
    )


def too_perfect(monitor):
    """Too good to have been learnt from speech, in training or on valid"""
    drawn = monitor.average("accuracy")
    if drawn is None:
        return None
    held_out = monitor.latest["valid"].get("accuracy", 0.0)
    if max(drawn, held_out) <= PERFECT:
        return None
    where = "masked frames of valid" if held_out > drawn else f"masked frames of the last {WINDOW} updates"
    return (
        f"the true frame was found among the negatives in {max(drawn, held_out):.1f} % of the {where}; "
        "speech is not that predictable."
    )


def not_finite(monitor):
    """An update was left out because its gradient was NaN or infinite"""
    if not monitor.refused:
        return None
    step, names = monitor.refused[-1]
    return f"update {step} was left out, its gradient was NaN or infinite. Its utterances: {listed(names)}."


def small_batch(monitor):
    """Much less audio per update than the recipe's learning rate and schedule were made for"""
    hours, wanted = heard(monitor), monitor.facts.hours_per_update
    if hours is None or hours >= SMALL * wanted:
        return None
    factor = math.ceil(monitor.facts.accumulation * wanted / max(hours, 1e-9))
    return (
        f"an update hears {hours:.4g} h of audio, the recipe {wanted:.4g} h. "
        f"--grad_accumulation_factor {factor} (now {monitor.facts.accumulation}) would reach it."
    )


def heard(monitor):
    """Mean hours of audio per update, None in the first ten"""
    seconds = monitor.figures("audio_s")
    return statistics.fmean(seconds) / 3600 if len(seconds) >= 10 else None


def starved(monitor):
    """The device waits for audio"""
    share = waiting(monitor)
    if share is None or share <= STARVED:
        return None
    return f"{share:.0f} % of the time of the last {WINDOW} updates went by waiting for audio to be read."


def waiting(monitor):
    """Share (%) of the time of a full window spent waiting for data, without updates after a start"""
    timed = [r for r in monitor.steady if r.get("audio_per_s") and "waiting_share" in r]
    if len(timed) < WINDOW:
        return None
    seconds = [r["audio_s"] / r["audio_per_s"] for r in timed]
    return sum(s * r["waiting_share"] for s, r in zip(seconds, timed, strict=True)) / sum(seconds)


def listed(names):
    """The first few ids, and how many there are"""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


RULES = {
    "Codebook collapse": (
        collapsed,
        lambda facts: (
            "Raise diversity_weight or lower encoder_lr; or keep the targets as they start (init_quantizer: "
            "True, feature_grad_mult: 0, a large freeze_targets_updates), as mini.yaml does."
        ),
    ),
    "Accuracy at chance": (
        at_chance,
        lambda facts: (
            "Look at the learning rate (0, or so high that the gradient norm explodes?) and at the audio "
            "(silence, noise, wrong sampling rate?). With little speech start: filterbank, log_mel_updates "
            "and init_quantizer: True leave chance soonest."
        ),
    ),
    "Accuracy suspiciously perfect": (
        too_perfect,
        lambda facts: (
            "Usually the codes have collapsed, so that negatives equal the target and do not count; or the "
            "audio repeats itself (tones, hum, the same clip), or mask_prob or mask_length is so small that "
            "a frame is copied from its neighbours."
        ),
    ),
    "Update not finite": (
        not_finite,
        lambda facts: (
            "One such update is harmless; --nonfinite_patience says how many stop the run. Listen to these "
            "utterances, lower encoder_lr, or use --precision fp32."
        ),
    ),
    "Batch far below the recipe's": (
        small_batch,
        lambda facts: (
            "Or use more devices. With a smaller batch the schedule of the recipe is not tested: lower "
            "encoder_lr and expect more updates."
        ),
    ),
    "Waiting for data": (
        starved,
        lambda facts: (
            "Raise num_workers up to the number of processor cores, put the audio on a local disk, and "
            "prefer 16 kHz wav or flac."
        ),
    ),
}


# ---- files


def read_lines(path):
    """steps.jsonl -> its records; lines cut short by a kill are left out. Raises FileNotFoundError."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path} not found: a run writes it while it trains.")
    return [record for record in read_records(path) if is_number(record.get("step")) and "stage" in record]


def thin(path, output):
    """Writes the curves of a `steps.jsonl` in its own format: averages of neighbours, four digits, without
    what depends on the machine"""
    curves = Curves(THINNED)
    for record in read_lines(path):
        curves.add(record)
    rows = defaultdict(dict)
    for stage, found in curves.stages.items():
        for key, curve in found.items():
            if key in CLOCKED:
                continue
            for step, value in zip(curve.steps, curve.values, strict=True):
                rows[step, stage][key] = float(f"{value:.4g}")
    lines = [{"step": step, "stage": stage, **rows[step, stage]} for step, stage in sorted(rows)]
    write_atomically(output, "".join(json_text(line) + "\n" for line in lines))


if __name__ == "__main__":
    thin(*sys.argv[1:])
