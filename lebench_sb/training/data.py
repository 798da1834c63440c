"""From a manifest to padded batches. Letters: B utterances, T samples at 16 kHz."""

import hashlib
import logging
import random
import shutil
import warnings
from bisect import bisect_right
from collections import Counter
from functools import partial
from itertools import pairwise, repeat
from pathlib import Path

import numpy as np
import soxr
import torch
from speechbrain.dataio.batch import PaddedBatch
from speechbrain.dataio.dataset import DynamicItemDataset
from speechbrain.utils.data_pipeline import DataPipeline, DynamicItem

from lebench_sb.audio.sound import OVERSHOOT, open_sound
from lebench_sb.audio.waveforms import SAMPLE_RATE
from lebench_sb.core import signals
from lebench_sb.core.errors import DataError, UsageError
from lebench_sb.manifests.columns import RowsById, Utterances, durations_of, open_utterances
from lebench_sb.manifests.markers import manifest_hash, read_marker
from lebench_sb.manifests.member_names import manifest_paths
from lebench_sb.manifests.selection import select

logger = logging.getLogger(__name__)
SHARED_MEMORY = Path("/dev/shm")


def seed_of(*key):
    """Any values with a stable repr -> an int below 2**63, the same in every process and Python."""
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def seed_everything(*key):
    """Seeds Python, NumPy and torch (all devices) from `key`, so that a step needs no saved random state."""
    value = seed_of(*key)
    random.seed(value)
    np.random.seed(value % 2**32)
    torch.manual_seed(value)


def load_audio(path, start=None, stop=None, channel=""):
    """Any soundfile format and rate, a file or a member of a shard -> (T,) float32 tensor at 16 kHz, mono.

    `start` and `stop` are seconds; only that stretch is read. `channel` ("1", "2", ...) is the one to hear;
    without it several channels are averaged, with a warning.
    Raises DataError if the file cannot be decoded or is cut short, where the stretch ends over 0.1 s after
    the file, holds no sample, or holds NaN or infinity.
    """
    try:
        with open_sound(path, start is None and stop is None) as sound:
            rate, channels = sound.rate, sound.channels
            first, count = stretch(path, sound, start, stop)
            samples = sound.read(first, count)
    except OSError as error:
        raise DataError(f"{path}: cannot be decoded ({error}). Copy it again or leave it out.") from error
    if channel:
        samples = one_channel(path, samples, channel)
    elif channels > 1:
        warnings.warn(f"{path}: {channels} channels averaged to one (said once per place)", stacklevel=2)
    if len(samples) == 0:
        raise DataError(f"{path}: no audio between {start or 0} s and {stop or 'its end'}.")
    mono = samples[:, 0] if samples.shape[1] == 1 else samples.mean(axis=1)
    if not np.isfinite(mono).all():
        raise DataError(f"{path}: holds NaN or infinite samples. Repair it or leave it out.")
    if rate != SAMPLE_RATE:
        mono = soxr.resample(mono, rate, SAMPLE_RATE)
    return torch.from_numpy(np.ascontiguousarray(mono, dtype=np.float32))


def stretch(path, sound, start, stop):
    """Seconds inside an open Sound -> (first sample, number of samples, None to the end)"""
    if stop is None and sound.extent.fault:
        raise DataError(f"{path}: {sound.extent.fault}. Copy it again or leave it out.")
    first = round((start or 0.0) * sound.rate)
    if stop is None:
        return first, None
    if stop > sound.frames / sound.rate + OVERSHOOT and first < sound.frames:
        lasts = f"{sound.frames / sound.rate:.3f} s{', ' if sound.extent.fault else ''}{sound.extent.fault}"
        raise DataError(f"{path}: a stretch of it ends at {stop:.3f} s, but it lasts {lasts}.")
    return first, max(round(stop * sound.rate) - first, 0)


def one_channel(path, samples, channel):
    """samples (T, channels) -> (T, 1), the channel called "1", "2", ...; DataError if there is none such"""
    count = samples.shape[1]
    if channel not in map(str, range(1, count + 1)):
        raise DataError(f"{path}: no channel {channel!r}, it has {count}: write 1 to {count}, or nothing.")
    return samples[:, int(channel) - 1 : int(channel)]


# path, seconds and channel -> sig (T,), the whole utterance
audio_item = DynamicItem(["wav", "start", "stop", "channel"], load_audio, ["sig"])


def cropped_audio_item(seed, max_duration, finish):
    """Returns the dynamic item whose sig (T,) lasts at most `max_duration` seconds, passed through `finish`.

    Where the crop lies depends on (seed, pass over the data, utterance id) alone: any number of processes
    and a resumed run cut the same stretch. The file is read by seeking.
    """
    needed = ["id", "pass_number", "wav", "start", "stop", "duration", "channel"]
    return DynamicItem(needed, partial(_cropped, seed, max_duration, finish), ["sig"])


def _cropped(seed, max_duration, finish, id, pass_number, wav, start, stop, duration, channel):
    first, last = crop_limits(id, pass_number, start, duration, seed, max_duration)
    return finish(load_audio(wav, first, stop if last is None else last, channel))


def crop_limits(id, pass_number, start, duration, seed, max_duration):
    """(first, last) second of the crop inside the file; last is None where nothing is cut."""
    if duration <= max_duration:
        return start, None
    share = random.Random(seed_of("crop", seed, pass_number, id)).random()
    first = (start or 0.0) + share * (duration - max_duration)
    return first, first + max_duration


def send(tensor, device):
    """CPU tensor -> the same on `device`; a GPU gets it while the processor goes on"""
    if torch.device(device).type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


class SpeechDataset(DynamicItemDataset):
    """A DynamicItemDataset whose index may be (position, pass): items may take `pass_number`."""

    def __getitem__(self, index):
        position, pass_number = index if isinstance(index, tuple) else (index, 0)
        return self.pipeline.compute_outputs({**self.row(position), "pass_number": pass_number})

    def row(self, position):
        """{column: value} of an utterance"""
        utterance_id = self.data_ids[position]
        return {"id": utterance_id, **self.data[utterance_id]}

    @property
    def durations(self):
        """seconds per utterance (n,), in the order of the data"""
        return np.array([self.data[i]["duration"] for i in self.data_ids])

    @property
    def languages(self):
        """language of each utterance (n,), in the order of the data"""
        return np.array([self.data[i]["language"] for i in self.data_ids])


class ColumnDataset(SpeechDataset):
    """The same over columnar Utterances: rows are made when a worker asks for them.

    `data` and `data_ids` are for code that looks utterances up by name: they gather all ids.
    """

    def __init__(self, utterances, items, output_keys):
        self.utterances = utterances
        self.data = RowsById(utterances, columns_of)
        self.pipeline = DataPipeline(["id", *columns_of(utterances[0]), *utterances.labels], items)
        self.set_output_keys(output_keys)

    def __len__(self):
        return len(self.utterances)

    def row(self, position):
        u = self.utterances[position]
        return {"id": u.id, **columns_of(u)}

    @property
    def data_ids(self):
        return list(self.data)

    @property
    def durations(self):
        return self.utterances.durations

    @property
    def languages(self):
        values, codes = self.utterances.distinct("language")
        return np.array(values)[codes]


def columns_of(u):
    """An Utterance -> {column: value}; the labels become columns of the same name."""
    return {
        "wav": u.wav, "start": u.start, "stop": u.stop, "duration": u.duration,
        "spk_id": u.speaker, "gender": u.gender, "language": u.language, "pass_number": 0,
        "channel": "", **u.labels,
    }  # fmt: skip


def as_dataset(utterances, items, output_keys):
    """Utterances, a list or columnar -> SpeechDataset"""
    if isinstance(utterances, Utterances):
        return ColumnDataset(utterances, items, ["id", *output_keys])
    data = {u.id: columns_of(u) for u in utterances}
    return SpeechDataset(data, dynamic_items=items, output_keys=["id", *output_keys])


def load_utterances(hparams):
    """Utterances of each split, {"train": [Utterance, ...], ...}, of a loaded YAML: those that `run.start`
    checked (`checked`: manifests.before_training.Checked), or as `open_splits` reads them"""
    return hparams["checked"].splits if "checked" in hparams else open_splits(hparams)


def open_splits(settings):
    """Reads the manifests named by `<split>_csv` (one path or a list) -> {"train": [Utterance, ...], ...}.

    Large ones are opened as columns (`storage.columns`), sequences of Utterances that cost no memory.
    Training utterances outside [min_duration, max_duration] are left out, counted and logged; those of valid
    and test never are. `gender` and `languages` choose utterances before that (`selection.select`). A split
    whose key is absent from the YAML is absent here (pre-training has no test).
    Raises DataError for a split without utterances, UsageError for a gender that is none.
    """
    splits = {}
    for split in ("train", "valid", "test"):
        if f"{split}_csv" in settings:
            paths = manifest_paths(settings[f"{split}_csv"])
            splits[split] = open_utterances(paths, settings["data_folder"])
    splits = select(splits, settings.get("gender"), settings.get("languages"))
    splits["train"] = keep_durations(splits["train"], settings["min_duration"], settings["max_duration"])
    for split, utterances in splits.items():
        if not len(utterances):
            raise DataError(f"{settings[split + '_csv']}: no utterance left for {split}.")
    return splits


def speakers_of(utterances):
    """The set of known speakers"""
    if isinstance(utterances, Utterances):
        return set(utterances.distinct("spk_id")[0]) - {""}
    return {u.speaker for u in utterances if u.speaker}


def keep_durations(utterances, low, high):
    """Utterances of `low` to `high` seconds; how many were left out is logged."""
    durations = durations_of(utterances)
    inside = (durations >= low) & (durations <= high)
    if isinstance(utterances, Utterances):
        inside_limits = utterances.where(inside)
    else:
        inside_limits = [u for u, keep in zip(utterances, inside.tolist(), strict=True) if keep]
    short = int((durations < low).sum())
    long = len(utterances) - len(inside_limits) - short
    if short or long:
        logger.info(
            "train: %d utterances shorter than %g s and %d longer than %g s left out, %d kept",
            short, low, long, high, len(inside_limits),
        )  # fmt: skip
    return inside_limits


def describe_split(csv_value, utterances):
    """What results.json says of a split: hash of its manifests, utterances, hours."""
    hashes = [manifest_hash(path) for path in manifest_paths(csv_value)]
    sha256 = hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest()
    hours = float(durations_of(utterances).sum()) / 3600
    return {"sha256": sha256, "utterances": len(utterances), "hours": round(hours, 4)}


def manifest_caveats(csv_value):
    """What the markers of a split's manifests say weakens a score on them, in their order"""
    return [caveat for path in manifest_paths(csv_value) for caveat in read_marker(path).get("caveats", [])]


def left_out(csv_values):
    """{split: csv value} -> {"dropped": {split: {reason: count}}} of the utterances that the preparation left
    out, by the markers; {} where none was"""
    dropped = {}
    for split, value in csv_values.items():
        counts = Counter()
        for path in manifest_paths(value):
            counts.update(read_marker(path).get("dropped", {}))
        dropped |= {split: dict(counts)} if counts else {}
    return {"dropped": dropped} if dropped else {}


class EpochPlan:
    """One pass over the data per epoch, in batches of similar length that depend on (seed, epoch) alone.

    durations: (n,) seconds; max_batch_seconds: largest padded batch, number of utterances x longest;
    shuffle False keeps the order longest first (memory fails early, not late).
    """

    def __init__(self, durations, max_batch_seconds, seed, shuffle=True):
        self.durations = np.asarray(durations, dtype=np.float64)
        self.max_batch_seconds, self.seed, self.shuffle = max_batch_seconds, seed, shuffle

    def batches(self, epoch):
        """epoch (from 1) -> list of batches, each a list of (position, epoch)"""
        return numbered(self.one_pass(epoch), epoch)

    def one_pass(self, number):
        """pass over the data (from 1) -> list of batches, each of positions"""
        rng = np.random.default_rng([self.seed % 2**32, number])
        return arrange(self.durations, self.max_batch_seconds, rng, self.shuffle)


class StreamPlan(EpochPlan):
    """Endless passes cut into epochs of `updates_per_epoch` updates, for runs counted in updates.

    batches_per_update: processes x accumulated batches. The last epoch ends at `number_of_updates`.
    """

    def __init__(
        self, durations, max_batch_seconds, seed, updates_per_epoch, batches_per_update, number_of_updates
    ):
        super().__init__(durations, max_batch_seconds, seed)
        self.updates_per_epoch, self.batches_per_update = updates_per_epoch, batches_per_update
        self.number_of_updates = number_of_updates
        self.ends = [0]  # [k]: batches of the first k passes, as far as they have been counted
        self.last = 0, []  # number and batches of the pass that was made last

    def batches(self, epoch):
        first = (epoch - 1) * self.updates_per_epoch
        last = min(epoch * self.updates_per_epoch, self.number_of_updates)
        low, high = first * self.batches_per_update, last * self.batches_per_update
        while self.ends[-1] <= low < high:
            self.ends.append(self.ends[-1] + len(self.whole_pass(len(self.ends))))
        number = bisect_right(self.ends, low)  # the pass that holds batch `low`
        batches, seen = [], self.ends[number - 1]
        while seen < high:
            one = self.whole_pass(number)
            inside = one[max(low - seen, 0) : high - seen]
            batches += self.indexed(inside, number)
            seen, number = seen + len(one), number + 1
            if number > len(self.ends):
                self.ends.append(seen)
        return batches

    def whole_pass(self, number):
        """As `one_pass`, made once where it reaches from one epoch into the next"""
        if self.last[0] != number:
            self.last = number, self.one_pass(number)
        return self.last[1]

    def indexed(self, batches, number):
        """Batches of `one_pass(number)` -> lists of (position, pass that decides the crop)"""
        return numbered(batches, number)


def arrange(durations, max_batch_seconds, rng, shuffle):
    """(n,) seconds -> batches of similar length, each a list of positions; in random order if `shuffle`"""
    # A jitter of 10 % mixes who is batched with whom from one pass to the next, and costs little padding.
    jitter = rng.uniform(0.9, 1.1, len(durations)) if shuffle else 1.0
    order = np.argsort(-durations * jitter, kind="stable")
    batches = pack(durations, order, max_batch_seconds)
    return [batches[i] for i in rng.permutation(len(batches))] if shuffle else batches


def numbered(batches, number):
    """Batches of positions -> lists of (position, number of the pass)"""
    return [list(zip(np.asarray(batch).tolist(), repeat(number))) for batch in batches]  # noqa: B905


def pack(durations, order, max_batch_seconds):
    """Greedy batches along `order` (n,): a batch closes before utterances x longest passes
    `max_batch_seconds`. -> list of arrays of positions"""
    bounds, longest, first = [], 0.0, 0
    for place, duration in enumerate(durations[order].tolist()):  # floats of Python: five times faster here
        longest = max(longest, duration)
        if place > first and longest * (place - first + 1) > max_batch_seconds:
            bounds.append(place)
            first, longest = place, duration
    bounds = [0, *bounds, len(order)]
    return [order[start:stop] for start, stop in pairwise(bounds)] if len(order) else []


class PlannedLoader:
    """The batches of one process out of `world`: batch k of the plan goes to process k modulo world.

    even=True (training) repeats the first batches so that all processes get equally many; False scores each
    utterance exactly once.
    """

    def __init__(self, dataset, plan, rank=0, world=1, num_workers=0, even=True, collate=PaddedBatch):
        self.dataset, self.plan, self.rank, self.world = dataset, plan, rank, world
        self.num_workers, self.even, self.collate = num_workers, even, collate
        self.planned = None  # of the epoch asked for last: its number, its batches of all, its share

    def share(self, epoch):
        """This process's batches of the epoch"""
        return self.plan_epoch(epoch)[2]

    def everyones(self, epoch):
        """Batches of the epoch that each process has at least"""
        return self.plan_epoch(epoch)[1] // self.world

    def plan_epoch(self, epoch):
        """-> (epoch, number of batches of all processes, share of this one). Made once: of much data it takes
        long."""
        if self.planned is None or self.planned[0] != epoch:
            batches = self.plan.batches(epoch)
            self.planned = epoch, len(batches), self.own(batches)
        return self.planned

    def own(self, batches):
        """The batches of all processes -> those of this one"""
        missing = -len(batches) % self.world if self.even else 0
        while missing > 0:
            batches, missing = batches + batches[:missing], missing - min(missing, len(batches))
        return batches[self.rank :: self.world]

    def batches(self, epoch, start=0):
        """DataLoader over the share of this process, from batch number `start` on"""
        return torch.utils.data.DataLoader(
            self.dataset,
            batch_sampler=self.share(epoch)[start:],
            num_workers=self.num_workers,
            collate_fn=partial(handed_over, self.collate),
            worker_init_fn=signals.shield,
            pin_memory=torch.cuda.is_available(),
            generator=torch.Generator().manual_seed(seed_of("loader", epoch)),
        )


def handed_over(collate, examples):
    """collate(examples), which a worker leaves in shared memory for the main process. Raises UsageError where
    it does not fit there: torch loses such a batch, and the main process waits for it for ever."""
    batch = collate(examples)
    if torch.utils.data.get_worker_info() is not None and SHARED_MEMORY.is_dir():
        parts = [getattr(value, "data", value) for value in vars(batch).values()]
        needed = sum(part.nbytes for part in parts if torch.is_tensor(part))
        free = shutil.disk_usage(SHARED_MEMORY).free
        if free < needed:
            raise UsageError(
                f"{SHARED_MEMORY} has {free / 1e6:.1f} MB left and this batch takes {needed / 1e6:.1f}: "
                "enlarge it (docker run --shm-size 8g), or load without workers (--num_workers 0), or lower "
                "max_batch_seconds."
            )
    return batch


def sample_lengths(padded):
    """PaddedData of a (B, T) tensor -> (B,) int64 numbers of samples"""
    return (padded.lengths.double() * padded.data.shape[1]).round().long()
