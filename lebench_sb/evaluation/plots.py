"""Pictures of a run and of a leaderboard, as PNG about 900 pixels wide, made from files that a run leaves.

matplotlib's figures are used without pyplot: no display, no global state.
"""

import io
import logging
import math
import re
from collections import defaultdict
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from scipy.special import ndtri

from lebench_sb.core import escape
from lebench_sb.core.files import write_atomically
from lebench_sb.core.guard import decode, parse_json, regular
from lebench_sb.evaluation.metrics.verification import Ranking, det_points, equal_error_rate
from lebench_sb.evaluation.tables import cell, show, system_name

logger = logging.getLogger(__name__)
COLOURS = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#56B4E9",
    "#E69F00",
    "#000000",
)  # Okabe and Ito (2008)
DASHES = ("-", "--", ":", "-.")
GREY = "#666666"
WIDTH, DPI = 9.0, 100  # inches, dots per inch
RUN, GAP = 0.24, 0.36  # inches of a leaderboard for a run, and more for each system
AXES = {
    "loss": "loss",
    "WER": "word error rate (%)",
    "CER": "character error rate (%)",
    "COER": "concept error rate (%)",
    "CVER": "concept-value error rate (%)",
    "ChER": "ChER (%)",
    "BLEU": "BLEU",
    "chrF2": "chrF2",
    "EER": "equal error rate (%)",
    "UAS": "UAS (%)",
    "LAS": "LAS (%)",
    "contrastive": "contrastive loss (nats)",
    "accuracy": "accuracy (%)",
    "UAR": "unweighted average recall (%)",
    "CCC": "CCC",
    "perplexity": "perplexity of the codes",
    "diversity": "diversity loss",
    "masked_share": "masked frames (%)",
    "grad_norm": "norm of the gradient",
    "lr": "learning rate",
    "temperature": "Gumbel temperature",
    "audio_per_s": "audio per second (s)",
}
DET_TICKS = (0.00001, 0.0001, 0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5)  # of both axes
SMOOTH = ("lr", "temperature")  # set by the run, not measured: no moving average
# panels drawn when the caller names none
USUAL = (
    "loss", "WER", "CER", "COER", "CVER", "ChER", "BLEU", "chrF2", "CCC", "UAR", "accuracy", "EER", "UAS",
    "LAS", "perplexity", "lr",
)  # fmt: skip


def attempt(draw, *arguments):
    """Calls one of the functions below. A picture that cannot be drawn or written costs a run a warning: its
    figures are in files of their own."""
    try:
        draw(*arguments)
    except (OSError, ValueError, RuntimeError) as error:
        logger.warning("%s: not drawn: %s", draw.__name__, error)


def learning_curves(step_files, output_png, keys=None):
    """{name of run: its steps.jsonl} -> PNG with one panel per key, one colour per run; returns its path.

    keys: of AXES or any other key of the lines; "perplexity" stands for perplexity_0, perplexity_1 ...
    Training is a thin line (and its moving average), validation a line with dots. A last line cut short is
    left out. Raises FileNotFoundError for a missing file and ValueError if no file holds a number for any
    key.
    """
    runs = {name: _read_steps(path) for name, path in step_files.items()}
    return _draw_curves(runs, output_png, keys, "update")


def learning_curve_from_train_log(train_log, output_png, keys=None):
    """SpeechBrain's train_log.txt (FileTrainLogger) -> PNG as `learning_curves`, a point per line."""
    lines = _read_train_log(train_log)
    axis = "update" if any(line["counted"] == "update" for line in lines) else "epoch"
    return _draw_curves({Path(train_log).parent.name: lines}, output_png, keys, axis)


def det_curve(systems, output_png):
    """{name: (scores (n,), targets (n,) bool)} of verification -> PNG of their DET curves; its path.

    Both axes are normal deviates (Martin et al. 1997, "The DET curve in assessment of detection task
    performance"): a line for scores that are normal for both kinds of trials. The dot is the EER. No
    threshold is drawn or chosen. Raises ValueError as metrics.verification.Ranking does.
    """
    figure = Figure(figsize=(0.72 * WIDTH, 0.72 * WIDTH), dpi=DPI, layout="constrained")
    axes = figure.subplots()
    rates = {name: det_points(*system) for name, system in systems.items()}
    inside = np.concatenate([np.ravel(pair) for pair in rates.values()])
    inside = inside[(inside > 0) & (inside < 1)]
    low, high = (inside.min() / 2 if inside.size else 0.01), 0.7
    for number, (name, (false_alarms, misses)) in enumerate(rates.items()):
        eer = float(equal_error_rate(*Ranking(*systems[name]).counts()))
        colour = COLOURS[number % len(COLOURS)]
        points = [ndtri(np.clip(rate, low / 2, 1 - low / 2)) for rate in (false_alarms, misses)]
        axes.plot(*points, color=colour, linewidth=1.8, label=f"{escape.label(name)}, EER {eer:.1f} %")
        axes.plot(*[ndtri(np.clip(eer / 100, low, high))] * 2, "o", color=colour, markersize=6)
    ticks = [t for t in DET_TICKS if low <= t <= high]
    limits = ndtri([low, high])
    axes.plot(limits, limits, color=GREY, linewidth=0.8, linestyle=":")
    for axis, name in ((axes.xaxis, "false alarm rate (%)"), (axes.yaxis, "miss rate (%)")):
        axis.set_ticks(ndtri(ticks), [f"{100 * tick:g}" for tick in ticks])
        axis.set_label_text(name)
    axes.set(xlim=limits, ylim=limits, aspect="equal")
    axes.grid(color="#E5E5E5", linewidth=0.7)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(frameon=False, loc="outside upper center")
    return save_png(figure, output_png)


def leaderboard_chart(records, output_png, metric=None):
    """Records of results.json -> PNG: per task, corpus and split a panel with one line per system; its path.

    A point per run with its 95 % interval, best system on top, the seeds of one system together. metric: of
    all panels, or {task: metric}; by default the first of each panel's first record. Raises ValueError if no
    record has the metric.
    """
    groups = defaultdict(list)
    for record in records:
        wanted = metric.get(record["task"]) if isinstance(metric, dict) else metric
        if wanted is None or wanted in record["metrics"]:
            group = record["task"], record["corpus"], record["split"]
            groups[group].append((record, wanted or next(iter(record["metrics"]))))
    if not groups:
        raise ValueError(f"no record has the metric {metric}." if records else "no records to draw.")
    names = {group: members[0][1] for group, members in groups.items()}
    groups = {group: [record for record, _ in members] for group, members in groups.items()}
    systems = {group: _by_system(members, names[group]) for group, members in groups.items()}
    heights = [0.8 + sum(GAP + RUN * len(runs) for runs in systems[group]) for group in sorted(systems)]
    figure = Figure(figsize=(WIDTH, sum(heights)), dpi=DPI, layout="constrained")
    panels = figure.subplots(len(heights), 1, squeeze=False, height_ratios=heights)[:, 0]
    for axes, (group, members) in zip(panels, sorted(systems.items()), strict=True):
        _draw_systems(axes, members, names[group])
        axes.set_title(escape.label(", ".join(group)), loc="left", fontsize=11, fontweight="bold")
    return save_png(figure, output_png)


def confusion_matrix(matrix, classes, output_png, title=""):
    """matrix (C, C), counts with a line per reference and a column per answer, names of the classes -> PNG;
    its path.

    A cell's colour and first number are the share of its line in %, so that the diagonal holds the recalls;
    the second is the count. A class without reference has an empty line. Raises ValueError for another shape
    or negative counts.
    """
    matrix = np.asarray(matrix, dtype=float)
    if matrix.shape != (len(classes), len(classes)) or not len(classes) or (matrix < 0).any():
        raise ValueError(f"matrix of shape {matrix.shape} for {len(classes)} classes, or counts below 0.")
    totals = matrix.sum(axis=1, keepdims=True)
    shares = 100 * np.divide(matrix, totals, out=np.zeros_like(matrix), where=totals > 0)
    side = min(WIDTH, max(4.5, 1.8 + 0.75 * len(classes)))
    figure = Figure(figsize=(side + 0.6, 0.88 * side), dpi=DPI, layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=100)
    numbers, classes = range(len(classes)), [escape.label(name) for name in classes]
    axes.set_xticks(numbers, classes, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(numbers, [f"{classes[i]} ({totals[i, 0]:g})" for i in numbers])
    axes.set(xlabel="answer", ylabel="reference (utterances)")
    axes.set_title(escape.label(title), fontsize=11)
    edges = np.arange(len(classes) + 1) - 0.5
    axes.set_xticks(edges, minor=True)
    axes.set_yticks(edges, minor=True)
    axes.grid(which="minor", color="white", linewidth=1.5)
    axes.tick_params(which="both", length=0)
    axes.spines[:].set_visible(False)
    size = 9 if len(classes) <= 12 else 6
    for row, column in zip(*np.nonzero(matrix), strict=True):
        share = shares[row, column]
        colour = "white" if share > 55 else "black"
        text = f"{share:.0f} %\n{matrix[row, column]:g}"
        axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=size)
    figure.colorbar(image, ax=axes, label="share of the reference's line (%)", shrink=0.8)
    return save_png(figure, output_png)


def _by_system(records, metric):
    """Records with the metric -> lists of runs that differ in their seed only, the best list last"""
    systems = defaultdict(list)
    for record in records:
        if metric in record["metrics"]:
            systems[cell(record)].append(record)
    sign = -1 if records[0]["metrics"][metric]["better"] == "lower" else 1
    return sorted(systems.values(), key=lambda runs: sign * _mean_value(runs, metric))


def _mean_value(runs, metric):
    return float(np.mean([run["metrics"][metric]["value"] for run in runs]))


def _draw_systems(axes, systems, metric):
    """systems: lists of runs, the lowest first; y in inches"""
    y, middles = 0.0, []
    for runs in systems:
        y += GAP
        middles.append(y + RUN * (len(runs) - 1) / 2)
        for run in runs:
            _draw_entry(axes, run["metrics"][metric], y)
            y += RUN
    entry = systems[0][0]["metrics"][metric]
    axes.set_yticks(middles, [_label(runs[0]) for runs in systems], fontsize=9)
    axes.set_ylim(GAP - 0.3, y - RUN + 0.3)
    unit = "" if entry["unit"] in ("", metric) else f" ({entry['unit']})"
    axes.set_xlabel(f"{escape.label(metric + unit)}, {entry['better']} is better; bars are 95 % intervals")
    axes.margins(x=0.08)
    axes.grid(axis="x", color="#DDDDDD", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)


def _draw_entry(axes, entry, y):
    """A point, its interval, its value to the right"""
    low, high = entry["ci95"] or (entry["value"], entry["value"])
    axes.plot([low, high], [y, y], color=COLOURS[0], linewidth=3, solid_capstyle="butt", alpha=0.5)
    axes.plot(entry["value"], y, "o", color=COLOURS[0], markersize=7)
    place = {"xytext": (9, 0), "textcoords": "offset points", "va": "center"}
    axes.annotate(show(entry, bounds=False), (high, y), fontsize=9, **place)


def _label(record):
    """Two lines: the system, shortened in its middle, then how it was used"""
    name = system_name(record["system"])
    name = name if len(name) <= 42 else f"{name[:10]}…{name[-31:]}"
    used = "" if record["mode"] == name else f"\n{record['mode']}, layer {record['layer']}"
    return escape.label(name + used)


def _read_steps(path):
    """steps.jsonl -> list of dicts; the last line may be cut short by a killed run"""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} not found: a run writes it while it trains.")
    lines = decode(regular(path).read_bytes(), path).splitlines()
    if lines and not lines[-1].endswith("}"):
        lines.pop()
    return [parse_json(line, f"{path}, line {number}") for number, line in enumerate(lines, 1)]


def _read_train_log(path):
    """train_log.txt -> dicts like the lines of steps.jsonl: stage, step (update, else epoch), numbers"""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} not found: a run writes it after its first validation.")
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines():
        counters = dict(re.findall(r"\b(epoch|update): (\d+)", line.split(" - ")[0]))
        if not counters:  # the test line has no place on the axis
            continue
        counted = "update" if "update" in counters else "epoch"
        for stage in ("train", "valid"):
            numbers = re.findall(rf"\b{stage} (\w+): ([-+.\de]+|nan|inf)", line)
            step = {"stage": stage, "step": int(counters[counted]), "counted": counted}
            lines.append(step | {name: float(number) for name, number in numbers})
    return lines


def _draw_curves(runs, output_png, keys, axis):
    """{name: list of dicts with step, stage and numbers} -> PNG"""
    wanted = USUAL if keys is None else tuple(keys)
    drawn = {key: _series(runs, key) for key in wanted}
    drawn = {key: series for key, series in drawn.items() if series}
    if not drawn:
        raise ValueError(f"{', '.join(runs)}: no line has a finite number for {', '.join(wanted)}.")
    figure, panels = new_panels(len(drawn), columns=min(2, len(drawn)), height=2.7)
    colours = {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(runs)}
    for axes, (key, series) in zip(panels, drawn.items(), strict=True):
        _draw_panel(axes, series, colours, averaged=key not in SMOOTH)
        axes.set(xlabel=axis, ylabel=AXES.get(key, escape.label(key)))
    stages = {stage for series in drawn.values() for _, _, stage, _, _ in series}
    figure.legend(handles=_legend(colours, stages), loc="outside upper center", ncols=4, frameon=False)
    return save_png(figure, output_png)


def _series(runs, key):
    """[(run, number of the group, stage, steps (n,), values (n,))] of a panel, finite values only"""
    series = []
    for name, lines in runs.items():
        numbered = {k for line in lines for k in line if re.fullmatch(rf"{re.escape(key)}_\d+", k)}
        for group, column in enumerate(sorted(numbered) or [key]):
            for stage in ("train", "valid"):
                points = [(line["step"], line[column]) for line in lines if _has_number(line, stage, column)]
                if points:
                    series.append((name, group, stage, *np.array(points, dtype=float).T))
    return series


def _has_number(line, stage, column):
    value = line.get(column)
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return line["stage"] == stage and number and math.isfinite(value)


def _draw_panel(axes, series, colours, averaged):
    """Training thin under its moving average, validation with dots; groups of codes differ in their dashes"""
    for name, group, stage, steps, values in series:
        style = {"color": colours[name], "linestyle": DASHES[group % len(DASHES)]}
        if stage == "valid":
            dots = {"marker": "o", "markersize": 4} if len(steps) <= 40 else {}
            axes.plot(steps, values, linewidth=1.8, **style, **dots)
            continue
        axes.plot(
            steps, values, **({"linewidth": 0.6, "alpha": 0.25} if averaged else {"linewidth": 1.2}), **style
        )
        if averaged:
            axes.plot(steps, moving_average(values, len(values) // 50), linewidth=1.0, alpha=0.7, **style)
    values = np.concatenate([values for *_, values in series])
    if values.min() > 0 and values.max() > 30 * np.median(values):  # the first updates would flatten the rest
        axes.set_yscale("log")
    else:
        axes.ticklabel_format(axis="y", scilimits=(-3, 5))
    _name_groups(axes, 1 + max(group for _, group, *_ in series))
    axes.grid(color="#E5E5E5", linewidth=0.7)
    axes.spines[["top", "right"]].set_visible(False)


def _name_groups(axes, number):
    """A legend of dashes where a panel shows several groups of codes"""
    if number > 1:
        dashes = [DASHES[group % len(DASHES)] for group in range(number)]
        lines = [Line2D([], [], color=GREY, linestyle=d, label=f"group {g}") for g, d in enumerate(dashes, 1)]
        axes.legend(handles=lines, frameon=False, fontsize=9)


def moving_average(values, half):
    """values (n,) -> (n,): mean over at most 2 x half + 1 neighbours, fewer at the ends"""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    places = np.arange(len(values))
    left, right = np.maximum(places - half, 0), np.minimum(places + half + 1, len(values))
    return (sums[right] - sums[left]) / (right - left)


def _legend(colours, stages):
    """One entry per run, then how training and validation are drawn"""
    named = {escape.label(name): colour for name, colour in colours.items()}
    handles = [Line2D([], [], color=colour, linewidth=2.5, label=name) for name, colour in named.items()]
    looks = {"train": {"linewidth": 1.0}, "valid": {"linewidth": 1.8, "marker": "o", "markersize": 4}}
    shown = [stage for stage in looks if stage in stages]
    return handles + [Line2D([], [], color=GREY, label=stage, **looks[stage]) for stage in shown]


def new_panels(number, columns, height):
    """Figure with `number` panels in rows of `columns`, and the list of their axes"""
    rows = -(-number // columns)
    figure = Figure(figsize=(WIDTH, height * rows + 0.4), dpi=DPI, layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for unused in axes[number:]:
        unused.remove()
    return figure, axes[:number]


def save_png(figure, path):
    """Writes the PNG, whole or not at all; returns its path"""
    path, out = Path(path), io.BytesIO()
    figure.savefig(out, format="png")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, out.getvalue())
    return path
