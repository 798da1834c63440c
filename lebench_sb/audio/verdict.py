"""What is to be said of one audio file: its length, and after decoding its damage, silence, clipping, offset.

Verdicts are kept in a file, by path, size and time of change: a file is decoded once, not at every start.
"""

import hashlib
import json
import logging
import os
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

import numpy as np

from lebench_sb.audio import ogg
from lebench_sb.audio.extent import id3_size
from lebench_sb.audio.heads import MISSING, audio_fault
from lebench_sb.audio.members import file_of
from lebench_sb.audio.quiet import libmpg123_quiet
from lebench_sb.audio.sound import decoder_versions, open_sound
from lebench_sb.audio.source import open_source
from lebench_sb.core.errors import DataError, one_line
from lebench_sb.core.files import write_atomically

logger = logging.getLogger(__name__)
FORMAT = 1  # raised when what is looked for changes: older verdicts are made anew
NAME = "audio_checks.jsonl"
FULL_SCALE = 32767 / 32768
STEP = 0.01  # seconds: grain of the stretches without sound
RUNS = 1000  # stretches kept of one file


@dataclass
class Verdict:
    """One file. fault: what makes it unusable, "" for nothing; samples per channel, rate in Hz, channels.

    After decoding: peaks: largest absolute value per channel; clipped: share of samples at full scale;
    offset: largest mean of a channel; digest of rate and samples; silent, broken: [first, last] seconds of
    stretches of zeros and with NaN or infinite samples. sketch: digest of a quarter of a second in the
    middle.
    """

    fault: str = ""
    samples: int = 0
    rate: int = 0
    channels: int = 0
    format: str = ""
    decoded: bool = False
    peaks: list = field(default_factory=list)
    clipped: float = 0.0
    offset: float = 0.0
    digest: str = ""
    silent: list = field(default_factory=list)
    broken: list = field(default_factory=list)
    sketch: str = ""

    @property
    def seconds(self):
        return self.samples / self.rate if self.rate else float("nan")


def from_header(path):
    """The Verdict of a file by its bytes' structure; nothing is decoded"""
    fault = audio_fault(path)
    if fault:
        return Verdict(fault)
    try:
        with open_sound(path) as sound:
            fault = sound.extent.fault or ("" if sound.frames else "no audio (0 samples)")
            return Verdict(fault, sound.frames, sound.rate, sound.channels, f"{sound.format} {sound.subtype}")
    except FileNotFoundError:
        return Verdict(MISSING)
    except DataError as error:
        return Verdict(str(error).removeprefix(f"{path}: ").rstrip("."))


def from_samples(path):
    """The Verdict of a file that is decoded to its end"""
    verdict = from_header(path)
    verdict.decoded = True
    if verdict.fault:
        return verdict
    taken = Taken(verdict)
    try:
        with libmpg123_quiet(), open_sound(path, whole=True) as sound:
            for block in sound.blocks():
                taken.add(block)
    except DataError as error:
        seconds = taken.samples / verdict.rate
        verdict.fault = f"damaged: {seconds:.2f} s decode, then {str(error).removeprefix(f'{path}: ')}"
        return verdict
    taken.conclude(path)
    return verdict


def sketch(path, verdict):
    """A digest of a quarter of a second in the middle of a file: copies have the same, whatever the format"""
    try:
        with open_sound(path) as sound:
            samples = sound.read(verdict.samples // 2, verdict.rate // 4)
    except DataError as error:  # its middle is damaged, which only decoding all of it may tell
        return f"none: {error}"
    return hashlib.blake2b(samples.tobytes(), digest_size=16).hexdigest()


class Taken:
    """Sums over the blocks of a file, for its Verdict"""

    def __init__(self, verdict):
        self.verdict, self.samples, self.clipped = verdict, 0, 0
        self.peaks, self.sums = np.zeros(verdict.channels), np.zeros(verdict.channels)
        start = f"{verdict.rate} {verdict.channels}".encode()
        self.digest, self.md5 = hashlib.blake2b(start, digest_size=16), hashlib.md5(usedforsecurity=False)
        self.bits = {"FLAC PCM_16": 16, "FLAC PCM_24": 24}.get(verdict.format, 0)
        self.silent, self.broken = [], []

    def add(self, block):
        """block (n, channels) float32"""
        verdict = self.verdict
        self.digest.update(block.tobytes())
        if self.bits:
            self.md5.update(integers(block, self.bits))
        size = np.abs(block)
        finite = np.isfinite(size)
        whole = bool(finite.all())
        sound = block if whole else np.where(finite, block, 0)
        size = size if whole else np.abs(sound)
        self.peaks = np.maximum(self.peaks, size.max(axis=0))
        self.sums += sound.sum(axis=0, dtype=np.float64)
        self.clipped += int((size.max(axis=1) >= FULL_SCALE).sum())
        step = max(1, round(STEP * verdict.rate))
        if not whole:
            extend(self.broken, steps(~finite.all(axis=1), step), self.samples, verdict.rate, step)
        audible = (size > 0).any(axis=1) if whole else (size > 0).any(axis=1) | ~finite.all(axis=1)
        if not audible.all():
            extend(self.silent, ~steps(audible, step), self.samples, verdict.rate, step)
        self.samples += len(block)

    def conclude(self, path):
        verdict = self.verdict
        missing = verdict.samples - self.samples
        if missing > 0.01 * verdict.samples or missing > 0.1 * verdict.rate:
            verdict.fault = f"damaged: {self.samples} of {verdict.samples} samples decode"
        elif self.bits and not self.has_sum(path):
            verdict.fault = "damaged: samples are not those that FLAC's checksum was made of"
        elif verdict.format.startswith("OGG") and bad_pages(path):
            verdict.fault = "damaged: pages of Ogg are not what was written (checksum)"
        if not self.samples:
            verdict.fault = verdict.fault or "no audio (0 samples)"
            return
        verdict.samples, verdict.peaks = self.samples, self.peaks.tolist()
        verdict.clipped, verdict.offset = (
            self.clipped / self.samples,
            float(np.abs(self.sums / self.samples).max()),
        )
        verdict.digest, verdict.silent, verdict.broken = self.digest.hexdigest(), self.silent, self.broken

    def has_sum(self, path):
        """Whether the samples have the MD5 of STREAMINFO; writers to a pipe leave it open"""
        with open_source(path) as source:
            start = id3_size(source)
            stated = source.read(start + 26, 16) if source.read(start, 4) == b"fLaC" else b""
        return not any(stated) or stated == self.md5.digest()


def bad_pages(path):
    with open_source(path) as source:
        return ogg.damaged_pages(source)


def integers(block, bits):
    """float32 samples of a FLAC as the bytes that its MD5 is made of"""
    if bits == 16:
        return np.rint(block * 32768.0).astype("<i2").tobytes()
    values = np.rint(block.astype(np.float64) * 8388608.0).astype("<i4")
    return np.ascontiguousarray(values.reshape(-1, 1).view(np.uint8)[:, :3]).tobytes()


def steps(mask, step):
    """mask (n,) -> (n / step,): whether any of a step is true"""
    full = np.zeros(-(-len(mask) // step) * step, dtype=bool)
    full[: len(mask)] = mask
    return full.reshape(-1, step).any(axis=1)


def extend(runs, mask, first, rate, step):
    """Adds the stretches where mask (steps,) is true to runs [[first, last] in seconds]; first: sample of the
    block"""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], mask.view(np.int8), [0]])))
    for low, high in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
        start, stop = (first + low * step) / rate, (first + high * step) / rate
        if runs and start - runs[-1][1] < STEP / 2:
            runs[-1][1] = stop
        elif len(runs) < RUNS:
            runs.append([start, stop])


class Verdicts:
    """The verdicts of files, kept in `folder`/audio_checks.jsonl; folder None keeps them in memory alone."""

    def __init__(self, folder=None):
        self.path = Path(folder) / NAME if folder else None
        self.maker = {"format": FORMAT, **decoder_versions()}
        self.known = self.read() if self.path else {}
        self.reused, self.made = 0, 0

    def read(self):
        """{path: (size, time, Verdict)} of the file; what is no line of ours is left out and made anew"""
        if not self.path.is_file():
            return {}
        verdicts, odd, names = {}, 0, {f.name for f in fields(Verdict)}
        for line in self.path.read_text(encoding="utf-8", errors="replace").splitlines():
            entry = parsed(line)
            verdict = entry.get("verdict") if isinstance(entry, dict) else None
            if not isinstance(verdict, dict) or entry.get("maker") != self.maker or set(verdict) - names:
                odd += 1
                continue
            verdicts[entry.get("path")] = entry.get("size"), entry.get("mtime_ns"), Verdict(**verdict)
        if odd:
            logger.info("%s: %d verdicts of other versions or damaged, made anew", self.path, odd)
        return verdicts

    def of(self, path, decoded):
        """The Verdict of a file, kept or new; decoded: whether its samples must have been looked at"""
        key = state(path)
        size, changed, verdict = self.known.get(path, (None, None, None))
        if verdict and key == (size, changed) and (verdict.decoded or not decoded):
            self.reused += 1
            return verdict
        kept = verdict.sketch if verdict and key == (size, changed) else ""
        verdict = from_samples(path) if decoded else from_header(path)
        verdict.sketch = kept
        if key != (None, None):
            self.known[path] = (*key, verdict)
        self.made += 1
        return verdict

    def sketch_of(self, path):
        """The sketch of a file without fault that is known"""
        found = self.known[path][2]
        if not found.sketch:
            found.sketch = sketch(path, found)
            self.made += 1
        return found.sketch

    def save(self):
        """Writes all verdicts, and those that another process has written meanwhile"""
        if self.path is None or not self.made:
            return
        everything = self.read() | self.known
        lines = (
            {"path": path, "size": size, "mtime_ns": changed, "maker": self.maker, "verdict": plain(verdict)}
            for path, (size, changed, verdict) in everything.items()
        )
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(self.path, "".join(json.dumps(line) + "\n" for line in lines))
        except OSError as error:  # the next start looks again: no reason to stop this one
            logger.warning("%s: verdicts on audio are not kept", one_line(error))
        self.made = 0


def plain(verdict):
    """A Verdict without what is as it always is"""
    usual = asdict(Verdict())
    return {name: value for name, value in asdict(verdict).items() if value != usual[name]}


def parsed(line):
    """The value of a JSON line, None for a damaged one"""
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def state(path):
    """(bytes, time of change in ns) of the file that holds the audio; (None, None) where there is none"""
    try:
        stat = os.stat(file_of(path))
    except (OSError, ValueError):  # said by its verdict
        return None, None
    return stat.st_size, stat.st_mtime_ns
