"""The dashboard of a pre-training run: one HTML file that needs no other, nor a network; and a PNG."""

import html
import math
import time
from pathlib import Path
from string import Template

from lebench_sb.core.files import write_atomically
from lebench_sb.pretraining.monitor.drawing import LAST, legend, pictures, svg
from lebench_sb.pretraining.monitor.health import SHOWN, STARVED, heard, listed, waiting

TEMPLATE = Path(__file__).with_name("dashboard.html")
STATES = ("running", "finished", "stopped")
REFRESH = 60  # seconds after which an open one is read again while its run goes on


def write_dashboard(folder, monitor, reference, codes=None, what=LAST, state="running"):
    """`health.html` of the run folder. codes (G, V): how often each was chosen on valid by `what`"""
    folder = Path(folder)
    steps = [record.get("step", 0) for record in monitor.latest.values()]
    figures = "".join(
        f'<figure><figcaption>{html.escape(title)}</figcaption><img alt="{html.escape(title)}: '
        f'{html.escape(note)}" src="{svg(draw)}"><p>{html.escape(note)}</p></figure>\n'
        for title, note, draw in pictures(monitor, reference, codes, what)
    )
    key = "".join(
        f'<span><i style="background:{colour}"></i>{name}</span>'
        for name, colour in legend(monitor, reference)
    )
    template = Template(TEMPLATE.read_text(encoding="utf-8"))
    text = template.substitute(
        refresh=f'<meta http-equiv="refresh" content="{REFRESH}">' if state == "running" else "",
        name=html.escape(folder.resolve().name), folder=html.escape(str(folder)), state=state,
        update=max(steps), total=monitor.facts.number_of_updates,
        written=time.strftime("%Y-%m-%d %H:%M:%S %Z"), alarms=alarm_list(monitor), table=now_table(monitor),
        refused=refused_table(monitor), key=key, figures=figures,
    )  # fmt: skip
    write_atomically(folder / "health.html", text)


def alarm_list(monitor):
    """A box per alarm, or one that says there is none"""
    if not monitor.alarms:
        return '<div class="box good"><b>No alarm.</b> Nothing that is watched has gone wrong so far.</div>'
    now = max(record.get("step", 0) for record in monitor.latest.values())
    boxes = []
    for alarm in monitor.alarms.values():
        since = f"updates {alarm.first} to {alarm.last}"
        since = f"since update {alarm.first}" if alarm.last == now else since
        text = alarm.text[:1].upper() + alarm.text[1:]
        boxes.append(
            f'<div class="box bad"><b>{html.escape(alarm.name)}</b> <small>{since}</small><br>'
            f"{html.escape(text)}<br><em>{html.escape(alarm.advice)}</em></div>"
        )
    return "\n".join(boxes)


def refused_table(monitor):
    """The updates that were left out, with their utterances"""
    if not monitor.refused:
        return ""
    rows = "".join(f"<tr><td>{step}</td><td>{html.escape(listed(ids))}</td></tr>" for step, ids in
                   monitor.refused[-4 * SHOWN :])  # fmt: skip
    head = "<tr><th>update</th><th>utterances of the batches whose loss was not finite</th></tr>"
    return f"<h2>Updates left out, their gradient was not finite</h2><table>{head}{rows}</table>"


def now_table(monitor):
    """The last figures, beside what they are compared with"""
    rows = "".join(f"<tr><th>{name}</th><td>{value}</td><td>{beside}</td></tr>" for name, value, beside in
                   now_rows(monitor))  # fmt: skip
    return f"<table>{rows}</table>" if rows else ""


def now_rows(monitor):
    """[(what, value, comparison)] of the last training window and the last validation"""
    facts, valid, rows = monitor.facts, monitor.latest["valid"], []
    if "accuracy" in valid:
        chance = valid.get("chance", facts.chance)
        rows.append(("held-out accuracy", f"{valid['accuracy']:.2f} %", f"chance: {chance:.2f} %"))
    if "contrastive" in valid:
        chance_loss = f"chance: {math.log(1 + facts.num_negatives):.3f}"
        rows.append(("held-out contrastive loss", f"{valid['contrastive']:.3f} nats", chance_loss))
    groups = [valid[name] for g in range(facts.num_groups) if (name := f"perplexity_{g}") in valid]
    if groups:
        used = ", ".join(f"{perplexity:.0f}" for perplexity in groups)
        rows.append(("codes in use, per group", used, f"of {facts.num_codes}"))
    if "rank" in valid:
        rows.append(("representation rank", f"{valid['rank']:.1f}", f"of {facts.hidden_size} dimensions"))
    for key in sorted(k for k in valid if k.startswith("probe_") and f"{k}_chance" in valid):
        name = f"probe: {html.escape(key.removeprefix('probe_'))}"
        rows.append((name, f"{valid[key]:.1f} %", f"chance: {valid[f'{key}_chance']:.1f} %"))
    hours, share = heard(monitor), waiting(monitor)
    if hours is not None:
        wanted = f"recipe: {facts.hours_per_update:.4g} h" if facts.hours_per_update else ""
        rows.append(("audio per update", f"{hours:.4g} h", wanted))
    if "audio_per_s" in monitor.latest["train"]:
        rows.append(("audio per second", f"{monitor.latest['train']['audio_per_s']:.1f} s", ""))
    if share is not None:
        rows.append(("waiting for data", f"{share:.0f} % of the time", f"alarm above {STARVED:.0f} %"))
    return rows
