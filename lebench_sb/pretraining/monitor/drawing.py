"""Pictures of a pre-training run's health: its curves, and how often each code is chosen."""

import base64
import io
import math
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from lebench_sb.core.files import write_atomically
from lebench_sb.evaluation.plots import COLOURS, DASHES, GREY, moving_average, new_panels, save_png
from lebench_sb.pretraining.losses import perplexity
from lebench_sb.pretraining.monitor.health import COLLAPSED, STARVED

LIGHT = "#B5B5B5"  # of the reference, behind the run's own curves
STAGE = {"train": COLOURS[0], "valid": COLOURS[1]}
LAST = "last validation"  # whose choice of codes is shown, where nothing else is said


@dataclass(frozen=True)
class Panel:
    """One pair of axes: curves of `key` and `key_...`, and what a reader should look for.

    lines: Facts -> [(y, what it is)], drawn dotted; scale: a factor on the values.
    """

    title: str
    key: str
    label: str
    note: str
    lines: object = lambda facts: []
    scale: float = 1.0
    log: bool = False
    from_zero: bool = True  # the axis, so that a small change looks small


PANELS = (
    Panel(
        "Contrastive accuracy", "accuracy", "accuracy (%)",
        "How often the true frame wins against the negatives. It should leave the dotted line of chance "
        "within the first few per cent of the run and rise slowly ever after; held-out follows training.",
        lambda f: [(f.chance, "chance")],
    ),
    Panel(
        "Contrastive loss", "contrastive", "loss (nats per masked frame)",
        "Begins near the dotted line (chance) and falls. A sudden fall towards 0 is a collapse.",
        lambda f: [(math.log(1 + f.num_negatives), "chance")], from_zero=False,
    ),
    Panel(
        "Codes in use", "perplexity", "perplexity (codes)",
        "To how many equally used codes the choice in each group amounts. Below the lower dotted line the "
        "codes have collapsed.",
        lambda f: [(f.num_codes, "all codes"), (COLLAPSED * f.num_codes, "collapse")],
    ),
    Panel(
        "Representation rank", "rank", "effective rank (dimensions)",
        "RankMe of the context network's frames on valid: how many dimensions they fill. A steady fall means "
        "that the representation collapses, even if the loss looks well.",
        lambda f: [(f.hidden_size, "all dimensions")],
    ),
    Panel(
        "Probes", "probe", "unweighted average recall (%)",
        "A linear classifier on the mean of each utterance's frames, cross-validated; dotted: chance. "
        "Update 0 is the encoder as it started.",
    ),
    Panel(
        "Norm of the gradient", "grad_norm", "norm before clipping",
        "Smooth after the first updates. Growth by orders of magnitude announces divergence: lower the rate.",
        log=True,
    ),
    Panel("Learning rate", "lr", "learning rate", "Rises during warm-up, then decays to the end of the run."),
    Panel(
        "Gumbel temperature", "temperature", "temperature",
        "Decays to its floor: the choice of codes becomes less random.",
    ),
    Panel(
        "Masked frames", "masked_share", "masked frames (%)",
        "Constant but for chance: about 49 % with mask_prob 0.65 and mask_length 10.",
    ),
    Panel(
        "Audio per update", "audio_s", "audio (hours per update)",
        "Of all devices and accumulated batches, after cropping; dotted: the recipe's.",
        lambda f: [(f.hours_per_update, "recipe")] if f.hours_per_update else [], scale=1 / 3600,
    ),
    Panel(
        "Throughput", "audio_per_s", "audio per second (s)",
        "Seconds of audio trained on per second of time. A step down is a slower disk or a busy machine.",
    ),
    Panel(
        "Waiting for data", "waiting_share", "share of the time (%)",
        "Time in which training stood still until audio was read. Above the dotted line more workers or a "
        "faster disk pay.",
        lambda f: [(STARVED, "alarm")],
    ),
)  # fmt: skip


def drawn_panels(monitor):
    """The panels for which the run has a figure"""
    stages = monitor.curves.stages
    return [p for p in PANELS if any(monitor.curves.matching(stage, p.key) for stage in stages)]


def draw_panel(axes, panel, monitor, reference):
    """Reference light and behind, training thin under its moving average, held-out with dots"""
    for number, (stage, group, _, curve) in enumerate(curves_of(reference, panel)):
        label = "reference" if number == 0 else None
        values = smoothed(np.array(curve.values) * panel.scale, stage)
        style = {"linestyle": DASHES[group % len(DASHES)], "zorder": 1}
        axes.plot(curve.steps, values, color=LIGHT, linewidth=1.6, label=label, **style)
    groups = set()
    for stage, group, name, curve in curves_of(monitor.curves, panel):
        groups.add((group, name))
        values = np.array(curve.values) * panel.scale
        draw_curve(axes, stage, DASHES[group % len(DASHES)], curve.steps, values)
        draw_chance(axes, monitor.curves.stages[stage].get(f"{name}_chance"), group)
    for y, name in panel.lines(monitor.facts):
        axes.axhline(y, color=GREY, linewidth=1.0, linestyle=":", zorder=1)
        axes.annotate(name, (1, y), xycoords=("axes fraction", "data"), ha="right", va="bottom", fontsize=8,
                      color=GREY)  # fmt: skip
    finish_axes(axes, panel, groups)


def curves_of(curves, panel):
    """[(stage, number of the group, name, Curve)] of a panel"""
    curves_drawn = []
    for stage, of_stage in curves.stages.items():
        names = [name for name, _ in curves.matching(stage, panel.key) if not name.endswith("_chance")]
        curves_drawn += [
            (stage, group, name, of_stage[name]) for group, name in enumerate(names) if of_stage[name].steps
        ]
    return curves_drawn


def draw_curve(axes, stage, dashes, steps, values):
    style = {"color": STAGE[stage], "linestyle": dashes}
    if stage == "valid":
        dots = {"marker": "o", "markersize": 3.5} if len(steps) <= 40 else {}
        axes.plot(steps, values, linewidth=1.7, zorder=4, **style, **dots)
        return
    axes.plot(steps, values, linewidth=0.6, alpha=0.35, zorder=2, **style)
    axes.plot(steps, smoothed(values, stage), linewidth=1.4, zorder=3, **style)


def smoothed(values, stage):
    return values if stage == "valid" else moving_average(values, len(values) // 40)


def draw_chance(axes, curve, group):
    if curve is not None and curve.values:
        axes.axhline(curve.values[-1], color=GREY, linewidth=1.0, linestyle=":", zorder=1)


def finish_axes(axes, panel, groups):
    """Labels, grid, and a legend of dashes where a panel has several groups"""
    axes.set(xlabel="update", ylabel=panel.label)
    axes.set_xlim(left=0)
    if panel.log:
        axes.set_yscale("log")
    else:
        axes.yaxis.set_major_formatter("{x:g}")  # an exponent above the axis would meet the title
        axes.set_ylim(bottom=0 if panel.from_zero else None)
    named = [(group, name) for group, name in sorted(groups) if name != panel.key]
    if named:
        lines = [
            Line2D([], [], color=GREY, linestyle=DASHES[group % len(DASHES)], label=readable(name, panel.key))
            for group, name in named
        ]
        axes.legend(handles=lines, frameon=False, fontsize=8, loc="best")
    axes.grid(color="#E8E8E8", linewidth=0.7, zorder=0)
    axes.spines[["top", "right"]].set_visible(False)


def readable(name, key):
    """perplexity_0 -> group 1; probe_emotion -> emotion"""
    rest = name.removeprefix(f"{key}_")
    return f"group {int(rest) + 1}" if rest.isdigit() else rest


def draw_usage(axes, row, group, what):
    """row (V,): how often each code of a group was chosen on valid by `what`"""
    total = max(row.sum(), 1.0)
    axes.stairs(100 * np.sort(row)[::-1] / total, np.arange(len(row) + 1) + 0.5, fill=True, color=COLOURS[1])
    axes.axhline(100 / len(row), color=GREY, linewidth=1.0, linestyle=":")
    axes.annotate("all used alike", (1, 100 / len(row)), xycoords=("axes fraction", "data"), ha="right",
                  va="bottom", fontsize=8, color=GREY)  # fmt: skip
    axes.annotate(what, (1, 1), xycoords="axes fraction", ha="right", va="top", fontsize=8, color=GREY)
    axes.set(xlabel=f"codes of group {group}, most used first", ylabel="share of frames (%)")
    axes.set_xlim(0.5, len(row) + 0.5)
    axes.spines[["top", "right"]].set_visible(False)


def usage_note(row, what):
    unused = int(np.count_nonzero(row == 0))
    worth = perplexity_of(row) if row.sum() else 0.0
    return f"{what[:1].upper()}{what[1:]}: perplexity {worth:.1f} of {len(row)}, {unused} codes never chosen."


def pictures(monitor, reference, codes, what):
    """[(title, note, function that draws it on axes)] of everything there is to see. codes (G, V): how often
    each was chosen on valid by `what`, in words"""
    drawn = []
    for panel in drawn_panels(monitor):
        drawn.append((panel.title, panel.note, lambda axes, p=panel: draw_panel(axes, p, monitor, reference)))
        if panel.key == "perplexity" and codes is not None:
            for group, row in enumerate(codes, 1):
                draw = lambda axes, r=row, g=group: draw_usage(axes, r, g, what)  # noqa: E731
                drawn.append((f"Codebook usage, group {group}", usage_note(row, what), draw))
    return drawn


def svg(draw):
    """-> data URI of a picture; `draw` fills its axes"""
    figure = Figure(figsize=(5.2, 2.9))
    draw(figure.add_axes((0.17, 0.17, 0.80, 0.76)))  # a layout computed for each picture takes twice the time
    out = io.BytesIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "lebench_sb"}):
        figure.savefig(out, format="svg", metadata={"Date": None})
    return "data:image/svg+xml;base64," + base64.b64encode(out.getvalue()).decode()


def draw_png(folder, monitor, reference, codes=None, what=LAST):
    """`health.png`: all pictures of the dashboard in one; nothing before the first figure"""
    drawn = pictures(monitor, reference, codes, what)
    if not drawn:
        return
    columns = 3
    rows = -(-len(drawn) // columns)
    figure = Figure(figsize=(13.5, 3 * rows), dpi=100)
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    figure.subplots_adjust(0.05, 0.15 / rows, 0.99, 1 - 0.2 / rows, wspace=0.22, hspace=0.35)
    for unused in axes[len(drawn) :]:
        unused.remove()
    for one, (title, _, draw) in zip(axes, drawn, strict=False):
        draw(one)
        one.set_title(title, fontsize=10, loc="left", fontweight="bold")
    handles = [Line2D([], [], color=c, label=name) for name, c in legend(monitor, reference)]
    figure.legend(handles=handles, loc="upper center", ncols=3, frameon=False)
    out = io.BytesIO()
    figure.savefig(out, format="png")
    write_atomically(Path(folder) / "health.png", out.getvalue())


def legend(monitor, reference):
    """[(what, colour)] of the curves"""
    known = [("training", STAGE["train"]), ("held out (valid)", STAGE["valid"])]
    return known + ([("reference", LIGHT)] if any(reference.stages.values()) else [])


def perplexity_of(row):
    """row (V,): how often each code was chosen -> number of codes, used equally, that it amounts to"""
    return float(perplexity(torch.as_tensor(row, dtype=torch.float64)[None] / row.sum()))


def codebook_usage(counts, output_png, what=""):
    """counts (G, V): how often each code was chosen by `what` -> PNG, one panel per group, codes sorted by
    use; its path.

    The title gives the perplexity exp(entropy), at most V (wav2vec 2.0, section 3.2, uses it as diversity).
    Raises ValueError for another shape, negative or not finite counts, or a group that was never used.
    """
    counts = np.asarray(counts, dtype=float)
    if counts.ndim != 2 or not counts.size:
        raise ValueError(f"counts have shape {counts.shape}, expected (groups, codes).")
    if not (np.isfinite(counts).all() and (counts >= 0).all() and (counts.sum(axis=1) > 0).all()):
        raise ValueError("counts must be finite, not negative, and not all 0 in any group.")
    figure, panels = new_panels(len(counts), columns=min(2, len(counts)), height=3.0)
    for group, (axes, row) in enumerate(zip(panels, counts, strict=True), 1):
        shares = 100 * np.sort(row / row.sum())[::-1]
        axes.stairs(shares, np.arange(len(row) + 1) + 0.5, fill=True, color=COLOURS[0])
        axes.axhline(100 / len(row), color=COLOURS[1], linewidth=1.2, linestyle="--", label="all used alike")
        unused = np.count_nonzero(row == 0)
        title = f"group {group}: perplexity {perplexity_of(row):.1f} of {len(row)}, {unused} unused"
        axes.set_title(title, fontsize=11)
        axes.set(xlabel="codes, most used first", ylabel="share of frames (%)", xlim=(0.5, len(row) + 0.5))
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
    if what:
        figure.suptitle(f"Held out, {what}", fontsize=11)
    return save_png(figure, output_png)
