"""Whether the audio of splits is what their manifests say: whole, heard nowhere twice, fit to learn from.

Every file is opened and its length taken from its bytes; samples are looked at in all files up to two hours
per split, in as many of a larger split, drawn by a seed, and in what may be a copy between splits. Verdicts
are kept (`audio.verdict`). Faults of valid and test are errors, and so are those that a move of the data or a
wrong manifest explains. Other faults leave an utterance out of train, up to `max_bad_fraction` of it. All
else is a warning.
"""

import hashlib
import os
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
from tqdm.auto import tqdm

from lebench_sb.audio.heads import MISSING, kind_of
from lebench_sb.audio.sound import OVERSHOOT, decoder_versions
from lebench_sb.audio.verdict import Verdicts
from lebench_sb.core.errors import DataError, Problems
from lebench_sb.manifests.columns import Utterances, durations_of
from lebench_sb.manifests.reading import expand

MAX_BAD_FRACTION = 0.01
BUDGET = 7200.0  # seconds of audio of a split that are decoded, whatever its size
SEED = 0  # of the files drawn from a larger split
READERS = 8  # threads: opening files waits on the disk or the network
CLIPPED = 1e-3  # share of samples at full scale that is told
OFFSET = 0.02  # mean of the samples that is told, full scale is 1
SAME = 0.5  # share of the longer of two stretches from which on they are the same audio; of the shorter: told
OFF = "duration over 5 % off"
LATE = "stop after the end of the file"
NEVER_LEFT_OUT = (MISSING, OFF, LATE)  # the data was moved or the manifest is wrong: more is wrong than this


@dataclass
class AudioReport:
    """What was found.

    bad: {split: {utterance id: reason in words}}; those of train are to be left out; errors: Problems that
    must stop a run; quarantined: Problems with what is left out of train; warned: Problems that are only
    told; counts: {name: JSON value} of what was checked; notes: sentences for results.json and the log.
    """

    bad: dict = field(default_factory=dict)
    errors: Problems = field(default_factory=lambda: Problems("audio"))
    quarantined: Problems = field(default_factory=lambda: Problems("left out of train"))
    warned: Problems = field(default_factory=lambda: Problems("audio, warnings"))
    counts: dict = field(default_factory=dict)
    notes: list = field(default_factory=list)

    @property
    def warnings(self):
        """Each kind of warning with its first items, a list of lines"""
        return [_line(kind, items) for kind, items in self.warned.found.items()]

    def findings(self):
        """[{"level", "kind", "item"}, ...]: the lines of validation.jsonl"""
        levels = ("error", self.errors), ("quarantine", self.quarantined), ("warning", self.warned)
        return [
            {"level": level, "kind": kind, "item": item}
            for level, problems in levels
            for kind, items in problems.found.items()
            for item in items
        ]


def _line(kind, items):
    problems = Problems("")
    problems.found[kind] = items
    return str(problems).removeprefix(": ")


def check_audio(
    splits, cache_folder=None, sample=None, max_bad_fraction=MAX_BAD_FRACTION, shows_progress=False
):
    """`survey_audio`, but raises DataError with all errors; the report is its attribute `report`."""
    report = survey_audio(splits, cache_folder, sample, max_bad_fraction, shows_progress)
    if report.errors:
        error = DataError(str(report.errors))
        error.report = report
        raise error
    return report


def survey_audio(
    splits,
    cache_folder=None,
    sample=None,
    max_bad_fraction=MAX_BAD_FRACTION,
    shows_progress=False,
    lenient=("train",),
):
    """{split: Utterances or list of Utterance} -> AudioReport.

    cache_folder: where verdicts are kept, None for nowhere; sample: number of files of each split that are
    decoded, drawn by a seed; None for two hours of them; "all"; lenient: splits out of which faults leave
    utterances, up to `max_bad_fraction` (0 to 1) of them.
    """
    parts = {name: Part(utterances) for name, utterances in splits.items()}
    verdicts, report = Verdicts(cache_folder), AudioReport()
    try:
        files = inspected(parts, verdicts, sample, shows_progress)
    finally:
        verdicts.save()
    bad = {name: faults_of(part, files, report, name) for name, part in parts.items()}
    compare_ids(parts, report)
    compare_audio(parts, files, report)
    tell_files(files, report)
    settle(parts, bad, report, max_bad_fraction, lenient)
    count(parts, files, verdicts, report)
    return report


class Part:
    """A split as columns (n,): codes into `paths`, durations, starts and stops in seconds (NaN: whole
    file)"""

    def __init__(self, utterances):
        self.utterances, self.durations = utterances, durations_of(utterances)
        if isinstance(utterances, Utterances):
            paths, self.codes = utterances.distinct("wav")
            self.paths = [expand(path, utterances.root) for path in paths]
            columns = (utterances.column(name).to_numpy(zero_copy_only=False) for name in ("start", "stop"))
        else:
            self.paths = sorted({u.wav for u in utterances})
            places = {path: k for k, path in enumerate(self.paths)}
            self.codes = np.array([places[u.wav] for u in utterances], dtype=np.int64)
            columns = ([getattr(u, name) for u in utterances] for name in ("start", "stop"))
        self.starts, self.stops = (np.array(column, dtype=np.float64) for column in columns)

    def __len__(self):
        return len(self.codes)

    def ids(self):
        """IDs (n,), a list"""
        if isinstance(self.utterances, Utterances):
            return self.utterances.column("ID").to_pylist()
        return [u.id for u in self.utterances]

    def has_channels(self):
        """Whether a label may choose a channel"""
        if isinstance(self.utterances, Utterances):
            return "channel" in self.utterances.labels
        return any(u.labels.get("channel") for u in self.utterances)


def inspected(parts, verdicts, sample, shows_progress):
    """{path: Verdict} of all files; samples are looked at as `sample` says"""
    paths = sorted(set().union(*(part.paths for part in parts.values())))
    files = pooled(lambda path: verdicts.of(path, False), paths, "headers of audio", shows_progress)
    chosen = sorted(set().union(*(drawn(part, files, sample) for part in parts.values())))
    chosen = sorted({*chosen, *alike(parts, files, verdicts, shows_progress)})
    return files | pooled(lambda path: verdicts.of(path, True), chosen, "samples of audio", shows_progress)


def alike(parts, files, verdicts, shows_progress):
    """Paths of different splits that may hold the same samples: as many, and the same in their middle"""
    paths = {path for part in parts.values() for path in part.paths if not files[path].fault}
    lengths = between_splits(parts, paths, lambda path: (files[path].samples, files[path].rate))
    sketches = pooled(verdicts.sketch_of, sorted(lengths), "copies of audio", shows_progress)
    return between_splits(parts, lengths, sketches.get)


def between_splits(parts, paths, key):
    """Those of `paths` whose key another path of another split has"""
    homes, keys = defaultdict(set), {path: key(path) for path in paths}
    for name, part in parts.items():
        for path in part.paths:
            if path in keys:
                homes[keys[path]].add((name, path))
    several = {
        key
        for key, places in homes.items()
        if len({name for name, _ in places}) > 1 and len({path for _, path in places}) > 1
    }
    return {path for path, value in keys.items() if value in several}


def pooled(function, paths, description, shows_progress):
    """{path: function(path)}, by a few threads"""
    if len(paths) < 2 * READERS:
        return {path: function(path) for path in paths}
    with ThreadPoolExecutor(READERS) as pool:
        results = pool.map(function, paths, chunksize=1)
        results = tqdm(results, total=len(paths), desc=description, disable=not shows_progress)
        return dict(zip(paths, results, strict=True))


def drawn(part, files, sample):
    """The paths of a split that are decoded, in an order that names of files alone decide"""
    sound = [path for path in part.paths if not files[path].fault]
    if sample == "all":
        return sound
    chosen, seconds = [], 0.0
    for path in sorted(sound, key=order_of):
        if len(chosen) >= sample if sample is not None else chosen and seconds >= BUDGET:
            break
        chosen.append(path)
        seconds += files[path].seconds
    return chosen


def order_of(path):
    return hashlib.blake2b(f"{SEED} {os.path.basename(path)}".encode(errors="surrogateescape")).digest()


def faults_of(part, files, report, name):
    """{position: (kind, detail)} of the utterances of a split that are bad; clipped ends are counted"""
    verdicts = [files[path] for path in part.paths]
    faults = {}
    for code, verdict in enumerate(verdicts):
        if verdict.fault:
            fault = kind_of(verdict.fault, part.paths[code])
            faults |= dict.fromkeys(np.flatnonzero(part.codes == code).tolist(), fault)
    seconds = np.array([v.seconds if not v.fault else np.nan for v in verdicts])[part.codes]
    add_lengths(part, seconds, faults, report, name)
    add_stretches(part, verdicts, faults)
    return faults


def add_lengths(part, seconds, faults, report, name):
    """Adds durations and segments that do not fit the seconds (n,) of their files, NaN for unusable ones"""
    whole = np.isnan(part.starts)
    off = whole & (np.abs(part.durations - seconds) > np.maximum(0.05 * seconds, 0.02))
    for k in np.flatnonzero(off).tolist():
        faults[k] = OFF, f"says {part.durations[k]:.3f}, the file has {seconds[k]:.3f} s"
    late = part.stops > seconds + OVERSHOOT
    for k in np.flatnonzero(late).tolist():
        faults[k] = LATE, f"{part.stops[k]:.3f} of {seconds[k]:.3f} s"
    for k in np.flatnonzero(~late & (part.starts >= seconds)).tolist():
        faults[k] = "no audio (0 samples)", f"starts at {part.starts[k]:.3f} of {seconds[k]:.3f} s"
    # a time rounded to 1 ms is no cut
    clipped = int((~late & (part.stops > seconds + 0.001)).sum())
    report.counts.setdefault("ends_clipped", {})[name] = clipped
    if clipped:
        report.notes.append(f"{name}: {clipped} segments end up to {OVERSHOOT} s after their file: clipped")


def add_stretches(part, verdicts, stretches):
    """Adds utterances of silence, with NaN or infinity, or of a channel that is not there"""
    chooses = part.has_channels()
    odd = np.array(
        [bool(v.silent or v.broken or (v.peaks and min(v.peaks) == 0)) or chooses for v in verdicts]
    )
    for k in np.flatnonzero(odd[part.codes]).tolist() if len(odd) else []:
        verdict = verdicts[part.codes[k]]
        channel = part.utterances[k].labels.get("channel", "") if chooses else ""
        fault = "" if verdict.fault else stretch_fault(verdict, part.starts[k], part.stops[k], channel)
        if fault:
            stretches.setdefault(k, (fault, part.paths[part.codes[k]]))


def stretch_fault(verdict, start, stop, channel):
    """The fault of a stretch (seconds, NaN for the whole file) of a file, "" for none"""
    if channel and not (channel.isdecimal() and 1 <= int(channel) <= verdict.channels):
        return f"no channel {channel!r}"
    if not verdict.decoded:
        return ""
    start, stop = (0.0, verdict.seconds) if np.isnan(start) else (start, min(stop, verdict.seconds))
    if any(low < stop and high > start for low, high in verdict.broken):
        return "NaN or infinite samples"
    peak = verdict.peaks[int(channel) - 1] if channel else max(verdict.peaks)
    # a stretch of zeros is known to a hundredth of a second
    inside = any(low <= start + 0.011 and high >= stop - 0.011 for low, high in verdict.silent)
    return "digital silence" if peak == 0 or inside and stop - start > 0.022 else ""


def compare_ids(parts, report):
    """Adds IDs that two splits share"""
    names, seen = list(parts), {}
    for name in names if len(names) > 1 else []:
        for utterance_id in parts[name].ids():
            first = seen.setdefault(utterance_id, name)
            if first != name:
                report.errors.add(f"same ID in {first} and {name}", utterance_id)


def compare_audio(parts, files, report):
    """Adds audio that comes twice: between splits an error; under two names in one split, a warning"""
    stretches = defaultdict(list)  # {audio: [(start, stop, channel, split, position), ...]}
    homes = defaultdict(set)
    for name, part in parts.items():
        for path in part.paths:
            homes[files[path].digest or path].add((name, path))
    shared = {key for key, places in homes.items() if len(places) > 1}
    for name, part in parts.items():
        wanted = np.array([(files[path].digest or path) in shared for path in part.paths], dtype=bool)
        for k in np.flatnonzero(wanted[part.codes]).tolist() if len(wanted) else []:
            path = part.paths[part.codes[k]]
            start, stop = part.starts[k], part.stops[k]
            if np.isnan(start):
                start, stop = 0.0, part.durations[k]
            stretches[files[path].digest or path].append((start, stop, name, k, path))
    for found in stretches.values():
        compare_stretches(sorted(found), parts, files, report)


def compare_stretches(stretches, parts, files, report):
    """stretches: sorted (start, stop, split, position, path) of one piece of audio"""
    going_on = {}  # one for all that name the same stretch of the same file in the same split
    chooses = {name: part.has_channels() for name, part in parts.items()}
    for new in stretches:
        going_on = {key: old for key, old in going_on.items() if old[1] > new[0]}
        for old in going_on.values():
            common = min(old[1], new[1]) - new[0]
            shorter, longer = sorted((old[1] - old[0], new[1] - new[0]))
            if common > SAME * shorter:
                tell_same(old, new, parts, files, report, common > SAME * longer)
        start, stop, name, position, path = new
        going_on[start, stop, name, path, position if chooses[name] else None] = new


def tell_same(old, new, parts, files, report, is_all):
    """Adds two stretches of the same audio; is_all: not merely one inside the other"""
    between = old[2] != new[2]
    if not between and (old[4] == new[4] or not is_all):
        return  # people who talk at once
    if list(parts).index(old[2]) > list(parts).index(new[2]):
        old, new = new, old
    first, second = (parts[one[2]].utterances[one[3]] for one in (old, new))
    silent = files[old[4]].decoded and not any(files[old[4]].peaks)
    if silent or first.labels.get("channel", "") != second.labels.get("channel", ""):
        return
    what = "audio" if old[4] == new[4] else "samples"
    kind = f"same {what} in {old[2]} and {new[2]}" if between else "same samples twice"
    kind += "" if is_all else ", one inside the other"
    (report.errors if between and is_all else report.warned).add(kind, f"{first.id} and {second.id}")


def tell_files(files, report):
    """Adds warnings of files: clipping, offset, several rates and numbers of channels"""
    for path, verdict in files.items():
        if verdict.clipped > CLIPPED:
            report.warned.add("clipping", f"{path} ({verdict.clipped:.1%} of samples at full scale)")
        if verdict.offset > OFFSET:
            report.warned.add("DC offset", f"{path} ({verdict.offset:.3f} of full scale)")
    for kind, name in (("several sampling rates", "rate"), ("several numbers of channels", "channels")):
        counts = Counter(getattr(verdict, name) for verdict in files.values() if verdict.rate)
        for value, number in sorted(counts.items()) if len(counts) > 1 else ():
            report.warned.add(kind, f"{value} in {number} files")


def settle(parts, bad, report, max_bad_fraction, lenient):
    """Decides for each bad utterance whether it stops the run or is left out"""
    for name, faults in bad.items():
        ids = parts[name].ids() if faults else []
        report.bad[name] = {ids[k]: f"{kind} ({detail})" for k, (kind, detail) in faults.items()}
        left_out = {k for k, (kind, _) in faults.items() if kind not in NEVER_LEFT_OUT}
        over = name in lenient and len(left_out) > max_bad_fraction * len(parts[name])
        if over:
            share = f"{len(left_out)} of {len(parts[name])} utterances"
            report.errors.add(f"{name}: over max_bad_fraction {max_bad_fraction:g} are unusable", share)
        for k, (kind, detail) in sorted(faults.items()):
            quarantine = name in lenient and not over and k in left_out
            problems = report.quarantined if quarantine else report.errors
            problems.add(f"{name}: {kind}", f"{ids[k]} {detail}")


def count(parts, files, verdicts, report):
    """Fills `counts` and the sentences of `notes`"""
    usable = [verdict for verdict in files.values() if verdict.rate]
    decoded = [verdict for verdict in usable if verdict.decoded]
    rates = Counter(verdict.rate for verdict in usable)
    report.counts |= {
        "files": len(files),
        "decoded_files": len(decoded),
        "decoded_hours": round(sum(v.seconds for v in decoded) / 3600, 4),
        "from_cache": verdicts.reused,
        "original_rates": {str(rate): number for rate, number in sorted(rates.items())},
        "clipping_files": sum(v.clipped > CLIPPED for v in usable),
        "dc_offset_files": sum(v.offset > OFFSET for v in usable),
        "bad": {name: reasons(found) for name, found in report.bad.items() if found},
        "decoder": decoder_versions(),
    }
    if len(decoded) < len(usable):
        hours = report.counts["decoded_hours"]
        drawn_by = f"drawn by seed {SEED}, `lebench validate --decode` reads all"
        told = f"samples of {len(decoded)} of {len(files)} files looked at ({hours} h; {drawn_by})"
        report.notes.append(told)
    if set(rates) - {16000}:
        listed = ", ".join(f"{number} files of {rate} Hz" for rate, number in sorted(rates.items()))
        report.notes.append(f"resampled to 16000 Hz: {listed}")


def reasons(faults):
    """{id: "kind (detail)"} -> {kind: number}"""
    return dict(sorted(Counter(text.split(" (")[0] for text in faults.values()).items()))
