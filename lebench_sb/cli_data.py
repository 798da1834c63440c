"""Behind `lebench stats` and `lebench validate`: what manifests hold, and whether their audio agrees."""

import hashlib
import re
from collections import Counter, defaultdict

from tabulate import tabulate

from lebench_sb.manifest import GENDERS, DataError, Problems, audio_fault, read_manifest
from lebench_sb.storage.members import open_audio

ORDER = ("M", "F", "U")  # LeBenchmark's order
SHORTEST = 0.025  # seconds: one window of a filterbank, one frame of wav2vec 2.0
LONGEST = 60.0  # seconds: longer ones are open microphones or uncut recordings
HEADER = (
    "manifest",
    "utterances",
    "M / F / U",
    "duration",
    "M / F / U",
    "speakers (M/F/U)",
    "mean s (M/F/U)",
    "s",
)


def statistics(manifests):
    """{name: utterances} -> a Markdown table with LeBenchmark's columns, and a last line for all.

    Utterances, hours:minutes, speakers, mean length, each also by gender (M, F, U); shortest and longest.
    """
    rows = [_row(name, utterances) for name, utterances in manifests.items()]
    if len(rows) > 1:
        rows.append(_row("all", [u for utterances in manifests.values() for u in utterances]))
    return tabulate(rows, HEADER, tablefmt="github", stralign="right")


def _row(name, utterances):
    groups = {gender: [u for u in utterances if u.gender == gender] for gender in ORDER}
    parts = list(groups.values())
    lengths = [u.duration for u in utterances]
    means = "/".join(_mean(part) for part in parts)
    speakers = [len({u.speaker for u in part if u.speaker}) for part in parts]
    known = len({u.speaker for u in utterances if u.speaker})
    return [
        name,
        f"{len(utterances):,}",
        " / ".join(f"{len(part):,}" if part else "-" for part in parts),
        _clock(utterances),
        " / ".join(_clock(part) for part in parts),
        f"{known} ({'/'.join(str(n) if n else '-' for n in speakers)})" if known else "unknown",
        f"{_mean(utterances)} ({means})",
        f"{min(lengths):.1f}-{max(lengths):.1f}",
    ]


def _mean(utterances):
    return f"{sum(u.duration for u in utterances) / len(utterances):.1f}" if utterances else "-"


def _clock(utterances):
    """Hours:minutes, rounded; "-" for none."""
    minutes = round(sum(u.duration for u in utterances) / 60)
    return f"{minutes // 60:,}:{minutes % 60:02d}" if utterances else "-"


def validate(paths, data_root, decode=False):
    """Manifests of one experiment -> (errors, warnings), each Problems. FileNotFoundError: no such manifest.

    Every audio file is opened: its length must fit the manifest within 5 %, segments must lie inside.
    decode=True reads all of it: broken streams, lengths over 1 % off the header's, NaN and digital silence,
    and files of other names with the same samples. Between manifests no ID and no piece of audio may be
    shared; shared speakers are a warning.
    """
    errors, warnings = Problems("errors"), Problems("warnings")
    manifests = {}
    for path in map(str, paths):
        try:
            manifests[path] = read_manifest(path, data_root)
        except DataError as error:
            errors.add("unreadable manifest", error)
    _check_between(manifests, errors, warnings)
    utterances = [u for each in manifests.values() for u in each]
    files = {wav: _inspect(wav, decode) for wav in sorted({u.wav for u in utterances})}
    for wav, found in files.items():
        for fault in found["faults"]:
            errors.add(fault, wav)
    for u in utterances:
        _check_utterance(u, files[u.wav], errors, warnings)
    _check_samples(manifests, files, errors, warnings)
    for kind, name in (("several sampling rates", "rate"), ("several numbers of channels", "channels")):
        counts = Counter(found[name] for found in files.values() if found[name])
        for value, count in sorted(counts.items()) if len(counts) > 1 else ():
            warnings.add(kind, f"{value} in {count} files")
    return errors, warnings


def _check_between(manifests, errors, warnings):
    """Adds IDs, audio and speakers that two manifests share."""
    ids, audio, speakers = {}, {}, defaultdict(list)
    for path, utterances in manifests.items():
        for u in utterances:
            for kind, seen, key in (("same ID", ids, u.id), ("same audio", audio, (u.wav, u.start))):
                if seen.setdefault(key, path) != path:
                    errors.add(f"{kind} in {seen[key]} and {path}", u.id)
        for speaker in sorted({u.speaker for u in utterances if u.speaker}):
            speakers[speaker].append(path)
    for speaker, shared in sorted(speakers.items()):
        if len(shared) > 1:
            warnings.add(f"same speaker in {' and '.join(shared)}", speaker)


def _check_samples(manifests, files, errors, warnings):
    """Adds recordings that come again under another name: between manifests an error, within one a warning"""
    seen = {}
    for path, utterances in manifests.items():
        for u in utterances:
            if (digest := files[u.wav]["digest"]) is None:
                continue
            place, first = seen.setdefault((digest, u.start, u.stop), (path, u))
            if first.wav == u.wav:
                continue
            if place == path:
                warnings.add("same samples twice", f"{first.id} and {u.id}")
            else:
                errors.add(f"same samples in {place} and {path}", f"{first.id} and {u.id}")


def _check_utterance(u, found, errors, warnings):
    """Adds what is wrong or odd with one utterance; found: what `_inspect` said of its file."""
    if not u.duration >= SHORTEST:
        warnings.add("shorter than 25 ms", f"{u.id} {u.duration:.3f} s")
    if u.duration > LONGEST:
        warnings.add("longer than a minute", f"{u.id} {u.duration:.0f} s")
    if not u.labels.get("wrd", "-").strip():
        warnings.add("empty wrd", u.id)
    if re.search(r"\d", u.labels.get("wrd", "")):
        warnings.add("digits in wrd", u.id)
    if u.speaker and u.gender not in GENDERS[:2]:
        warnings.add("gender not known", u.id)
    if found["seconds"] is None:
        return
    if u.start is None and abs(u.duration - found["seconds"]) > max(0.05 * found["seconds"], 0.02):
        errors.add(
            "duration over 5 % off", f"{u.id} says {u.duration:.3f}, the file has {found['seconds']:.3f} s"
        )
    if u.stop is not None and u.stop > found["seconds"] + 0.1:
        errors.add("stop after the end of the file", f"{u.id} {u.stop:.3f} of {found['seconds']:.3f} s")


def _inspect(path, decode):
    """{"seconds", "rate", "channels", "digest", "faults"} of an audio file; None where it cannot be read, the
    digest of its samples also where it is not to be decoded."""
    import soundfile

    found = {"seconds": None, "rate": None, "channels": None, "digest": None, "faults": []}
    if fault := audio_fault(path):
        return found | {"faults": [fault]}
    try:
        with open_audio(path, whole=decode) as source, soundfile.SoundFile(source) as file:
            samples, faults, digest = file.frames, [], None
            # headers of variable-rate MP3 lie
            if decode or file.format == "MP3":
                samples, faults, digest = _decode(file)
            if not samples:
                faults = ["no audio (0 samples)"]
            found |= {
                "rate": file.samplerate,
                "channels": file.channels,
                "seconds": samples / file.samplerate,
                "digest": digest if decode and not faults else None,
            }
    except (soundfile.SoundFileError, RuntimeError, OSError) as error:
        return found | {"faults": [f"not readable as audio ({str(error).split(': ')[-1].strip(' .')})"]}
    return found | {"faults": faults}


def _decode(file):
    """(samples that decode, faults in words, digest of rate and samples) of an open soundfile."""
    import numpy

    samples, peak, finite = 0, 0.0, True
    digest = hashlib.blake2b(f"{file.samplerate} {file.channels}".encode(), digest_size=16)
    while len(block := file.read(1 << 18, dtype="float32")):
        digest.update(block.tobytes())
        samples += len(block)
        finite = finite and bool(numpy.isfinite(block).all())
        peak = max(peak, float(numpy.abs(block).max()))
    faults = ["truncated: over 1 % shorter than its header says"] if samples < 0.99 * file.frames else []
    if not finite:
        faults.append("NaN or infinite samples")
    elif not peak:
        faults.append("digital silence")
    return samples, faults, digest.digest()
