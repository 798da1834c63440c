"""The one place that checks the data of a run, before a model is built.

    checked = check_before_training(plain_settings(resolved, path), task)

`run.start` calls it when the manifests are written; `data.load_utterances` gives the recipe what is left.
All of a run's faults come in one error: files that are missing or damaged, utterances
too short for the encoder or too long to be heard whole, labels that the task cannot learn from or score.
What a task asks of its labels stands in its module, as `check_labels(splits, settings, findings)`.
"""

import importlib
import logging
import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from lebench_sb.audio.heads import MISSING
from lebench_sb.audio.waveforms import SAMPLE_RATE
from lebench_sb.core.errors import UsageError
from lebench_sb.encoders.encoder import geometry
from lebench_sb.manifests.audio_checks import MAX_BAD_FRACTION, NEVER_LEFT_OUT, survey_audio
from lebench_sb.manifests.columns import Utterances, durations_of
from lebench_sb.manifests.findings import Findings
from lebench_sb.manifests.labels import ids_of
from lebench_sb.manifests.member_names import manifest_paths
from lebench_sb.training.data import open_splits
from lebench_sb.training.processes import on_main

logger = logging.getLogger(__name__)
SHARED = "audio shared between splits"  # the caveat
LONGEST = 10  # utterances too long to be heard whole that are listed
# The module that says what a task asks of its labels. By name, as a YAML names them: a task builds on this.
TASKS = {
    "ASR": "lebench_sb.tasks.asr",
    "SLU": "lebench_sb.tasks.slu",
    "AST": "lebench_sb.tasks.ast",
    "ASV": "lebench_sb.tasks.asv",
    "SA": "lebench_sb.tasks.sa",
    "pretraining": "lebench_sb.pretraining.data_checks",
}


@dataclass
class Checked:
    """splits: {split: Utterances} that the run may use; details: {name: JSON value} and caveats for
    results.json; kept: what the check has made and a task would make again (on the main process alone)"""

    splits: dict
    details: dict = field(default_factory=dict)
    caveats: list = field(default_factory=list)
    kept: dict = field(default_factory=dict)


def check_before_training(settings, task):
    """Reads the manifests and checks them, on the main process; every process gets its verdict -> Checked.

    settings: the resolved YAML as plain values (yaml_values.plain_settings): data_folder, <split>_csv,
    min_duration, max_duration, gender, languages, ssl_hub, max_bad_fraction, max_seconds, and the keys of the
    task; task: the YAML's. Raises DataError with all that is wrong with the data, UsageError for a setting,
    FileNotFoundError for a manifest, folder or encoder that is not there.
    """
    share = settings.get("max_bad_fraction", MAX_BAD_FRACTION)
    if not isinstance(share, int | float) or not 0 <= share <= 1:
        raise UsageError(f"--max_bad_fraction {share}: a share of train from 0 to 1 is expected.")
    splits = open_splits(settings)
    findings = Findings()
    left_out, details, caveats = on_main(examine, splits, settings, task, findings)
    if left_out:
        splits = {**splits, "train": without(splits["train"], set(left_out))}
    return Checked(splits, details, caveats, findings.kept)


def examine(splits, settings, task, findings):
    """All checks -> ({ID of a training utterance to leave out: reason}, details, caveats); DataError"""
    if module := module_of(settings, task):
        importlib.import_module(module).check_labels(splits, settings, findings)
    if "asr_run" not in settings:  # a cascade reads texts: no audio is heard
        check_lengths(splits, settings, findings)
        check_audio(splits, settings, findings)
    findings.settle(len(splits["train"]), settings.get("max_bad_fraction", MAX_BAD_FRACTION))
    return findings.left_out, findings.details, findings.caveats


def module_of(settings, task):
    """The module of a task's labels; "" for a task of somebody else"""
    if task == "AER":
        kind = "continuous" if "trace_column" in settings else "categorical"
        return f"lebench_sb.tasks.emotion_{kind}"
    return TASKS.get(task, "")


def check_lengths(splits, settings, findings):
    """Utterances without a frame of the encoder, and those of valid and test over `max_seconds`"""
    least = geometry(settings["ssl_hub"])[0] if "ssl_hub" in settings else 0
    most = settings.get("max_seconds")
    for split, utterances in splits.items():
        seconds = durations_of(utterances)
        short = np.flatnonzero(np.round(seconds * SAMPLE_RATE) < least)
        if len(short):
            ids = ids_of(utterances)
            reason = f"shorter than one frame of {settings['ssl_hub']} ({least / SAMPLE_RATE:g} s)"
            findings.bad(split, reason, [f"{ids[k]}" for k in short])
        if most is not None and split != "train" and (seconds > most).any():
            ids, order = ids_of(utterances), np.argsort(-seconds, kind="stable")[:LONGEST]
            listed = ", ".join(f"{ids[k]} ({seconds[k]:g} s)" for k in order if seconds[k] > most)
            kind = f"{split}: {int((seconds > most).sum())} utterances over --max_seconds {most:g}, cut them"
            findings.refuse(f"{kind}; the longest", listed)


def check_audio(splits, settings, findings):
    """Files that are missing or damaged, lengths that are not the manifest's, audio that two splits share:
    see manifests/audio_checks.py"""
    folder, shown = cache_folder(settings), logger.isEnabledFor(logging.INFO)
    report = survey_audio(splits, folder, max_bad_fraction=1.0, shows_progress=shown)
    missing = {name for own in report.bad.values() for name, reason in own.items() if MISSING in reason}
    if len(missing) == sum(map(len, splits.values())):
        given, first = settings["data_folder"], next(iter(report.errors.found.values()))[0]
        count = report.counts["files"]
        findings.refuse(f"none of the {count} audio files is there (is --data_folder {given} right?)", first)
        return
    shared = {kind for kind in report.errors.found if kind.startswith("same ")}
    allowed = shared if settings.get("allow_shared_audio") else set()
    for kind, items in report.errors.found.items():
        for item in items if kind not in allowed else ():
            hint = " (--allow_shared_audio True caveats the result)" if kind in shared else ""
            findings.refuse(kind + hint, item)
    for name, reason in report.bad.get("train", {}).items():
        if not reason.startswith(NEVER_LEFT_OUT):
            findings.bad("train", reason.split(" (")[0], [name])
    for line in (*report.warnings, *report.notes):
        logger.warning("%s", line)
    findings.tell("shared_audio", sorted(allowed))
    findings.caveats += [SHARED] if allowed else []
    findings.tell("audio", {key: value for key, value in report.counts.items() if key != "from_cache"})


def cache_folder(settings):
    """Where verdicts are kept: beside the manifests, or in the run's folder where nobody may write there"""
    folder = manifest_paths(settings["train_csv"])[0].absolute().parent
    return folder if os.access(folder, os.W_OK) else Path(settings["output_folder"])


def without(utterances, names):
    """Utterances without those of these IDs"""
    if isinstance(utterances, Utterances):
        return utterances.where(np.array([name not in names for name in ids_of(utterances)]))
    return [u for u in utterances if u.id not in names]
