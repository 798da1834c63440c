"""Frames of a frozen encoder, computed once and read in every epoch, by every head, seed and process.

They lie below the cache's folder in one folder per (encoder, layer, precision, utterances), cut into shards.
A process computes the shards that nobody has finished and nobody is computing, each under a lock that dies
with it; a shard's index is written after its frames. So several processes share the work, and one killed
half-way loses a shard. The index holds a digest of the frames and of itself: a shard that is no longer what
was written is named and computed again.

Letters: B utterances, F frames, K hidden states (1, or all layers for a learned sum), D features.
"""

import copy
import hashlib
import json
import logging
import math
import os
import time
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from speechbrain.dataio.batch import PaddedBatch
from tqdm.auto import tqdm

from lebench_sb.audio.members import file_of, place_of
from lebench_sb.core.errors import DataError, UsageError
from lebench_sb.core.files import new_file, remove_leftovers, write_atomically
from lebench_sb.core.guard import read_json
from lebench_sb.core.locks import Taken, take
from lebench_sb.manifests.digests import digest_of
from lebench_sb.training.data import EpochPlan, SpeechDataset

logger = logging.getLogger(__name__)
FORMAT = 1  # raised when frames change their meaning
INDEX_FORMAT = 2  # raised when files change: a shard of another format is computed again
SHARD_SECONDS = 600.0  # of audio: what is lost when a process is killed
BATCH_SECONDS = 60.0  # padded seconds computed at once
IDLE = 600.0  # seconds without a write, after which a half-written file is taken for that of a killed process
DTYPES = {"float32": np.float32, "float16": np.float16}


class FeatureCache:
    """The frames of one encoder under `folder`.

    encoder: frozen (UsageError otherwise); dtype: float32, or float16 for half the disk (error of at most
    0.05 % of a value); `seconds`: spent computing frames, `bytes`: on disk of what was opened.
    """

    def __init__(self, folder, encoder, dtype="float32"):
        if not encoder.frozen:
            raise UsageError("feature_cache needs an encoder that stays as it is: --freeze True or no cache.")
        if dtype not in DTYPES:
            raise UsageError(f"feature_cache_dtype {dtype!r}: it must be one of {', '.join(DTYPES)}.")
        self.folder, self.encoder, self.dtype = Path(folder), encoder, dtype
        self.fingerprint = fingerprint(encoder)
        self.seconds, self.bytes = 0.0, 0
        # (K, D) of a frame
        self.frame = [encoder.num_layers + 1 if encoder.layer == "weighted" else 1, encoder.output_size]

    def summary(self):
        """(megabytes on disk that were opened, folder, seconds spent computing)"""
        return self.bytes / 1e6, self.folder, self.seconds

    def view(self, dataset, context, precision, device, shows_progress=False):
        """A dataset like `dataset` with `features` (F, K, D) in place of `sig`, all of them on disk.

        context: the autocast of this stage; precision: its name; device: where to compute.
        """
        folder = self.folder / self.fingerprint / f"{precision}-{self.dtype}-{described(dataset)}"
        folder.mkdir(parents=True, exist_ok=True)
        started, names = time.time(), dataset.data_ids
        shards = [(positions, [names[k] for k in positions]) for positions in cut(dataset)]
        total = float(dataset.durations.sum())
        with tqdm(
            total=round(total), unit="s", desc="features", disable=not shows_progress, dynamic_ncols=True
        ) as bar:
            waiting = list(enumerate(shards))
            while waiting:
                left = [shard for shard in waiting if not self.make(folder, *shard, dataset, context, device)]
                bar.update(round(total * (1 - len(left) / len(shards))) - bar.n)
                if len(left) == len(waiting):
                    time.sleep(0.5)  # others compute what is left
                waiting = left
        self.seconds += time.time() - started
        return self.opened(folder, [names for _, names in shards], dataset)

    def make(self, folder, number, shard, dataset, context, device):
        """Computes a shard (positions, ids) unless it is there, whole; False if another process is at it."""
        path, (positions, names) = folder / f"{number:05d}.bin", shard
        if self.index_of(path, names):
            return True
        with locked(path.with_suffix(".lock")) as mine:
            if not mine:
                return False
            if not self.index_of(path, names, warns=True):
                for file in (path, path.with_suffix(".json")):
                    remove_leftovers(file, IDLE)
                self.write(path, self.compute(dataset, positions, context, device))
        return True

    def index_of(self, path, names, warns=False):
        """The index of the shard `path` with the frames of the utterances `names`, None where it has to be
        computed; warns: says why, where there is one."""
        try:
            return checked_index(path, names, self.frame, DTYPES[self.dtype])
        except FileNotFoundError:
            return None
        except DataError as fault:
            if warns:
                logger.warning("%s Computed again.", fault)
            return None

    def compute(self, dataset, positions, context, device):
        """{utterance id: frames (F, K, D) on the CPU}"""
        frames = {}
        plan = EpochPlan(dataset.durations[positions], BATCH_SECONDS, 0, shuffle=False)
        for batch in plan.one_pass(1):
            rows = [dataset[positions[i]] for i in batch]
            padded = PaddedBatch([{"id": row["id"], "sig": row["sig"]} for row in rows]).to(device)
            with torch.no_grad(), context:
                states, lens = self.encoder.states(*padded.sig)
            for name, state, count in zip(padded.id, states.float().cpu(), lens.tolist(), strict=True):
                frames[name] = self.cast(state[:count].numpy(), name)
        return frames

    def cast(self, frames, name):
        """frames as the dtype on disk; DataError if float16 is too narrow for one of them"""
        with np.errstate(over="ignore"):
            cast = frames.astype(DTYPES[self.dtype])
        if not np.isfinite(cast).all():
            raise DataError(f"{name}: not finite in {self.dtype}: --feature_cache_dtype float32.")
        return cast

    def write(self, path, frames):
        """The frames one after the other, then the index: {id: [first value, F]} and the shape of a frame"""
        where, at = {}, 0
        with new_file(path) as temporary, open(temporary, "w+b") as file:
            for name, states in frames.items():
                where[name] = [at, len(states)]
                at += states.size
                states.tofile(file)
            file.flush()
            digest = digest_of(np.memmap(file, mode="r"))
        content = {
            "format": INDEX_FORMAT,
            "frame": self.frame,
            "values": at,
            "digest": digest,
            "where": where,
        }
        write_atomically(path.with_suffix(".json"), json.dumps(content | {"self": own_digest(content)}))

    def opened(self, folder, shards, dataset):
        """The view: every shard mapped into memory, read where an item is asked for"""
        places = {}
        for number, names in enumerate(shards):
            path = folder / f"{number:05d}.bin"
            index = checked_index(path, names, self.frame, DTYPES[self.dtype])
            values = np.memmap(path, dtype=DTYPES[self.dtype], mode="r", shape=(index["values"],))
            self.bytes += values.nbytes
            places |= {name: (values, *place, index["frame"]) for name, place in index["where"].items()}
        return FeatureDataset(dataset, places)


def checked_index(path, names, frame, dtype):
    """The index of the shard `path`: {"frame", "values", "where", ...}, after all checks.

    names: ids whose frames it must hold; frame: [K, D]. The bytes are compared with their digest once per
    process and file. Raises FileNotFoundError where a file is missing, DataError that names what is wrong.
    """
    index = path.with_suffix(".json")
    states = tuple((s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns) for s in map(os.stat, (path, index)))
    content = _intact_index(path, index, states)
    size, where = math.prod(frame), content["where"]
    if content["frame"] != frame:
        raise DataError(f"{index}: frames of shape {content['frame']}, this encoder's have {frame}.")
    if set(where) != set(names):
        other = sorted(set(where) ^ set(names))
        raise DataError(f"{index}: its utterances are not those of the shard, {other[0]} differs.")
    if states[0][1] != content["values"] * np.dtype(dtype).itemsize:
        raise DataError(f"{path} has {states[0][1]} bytes, by its index {content['values']} values.")
    for name, (first, count) in where.items():
        if first < 0 or count < 0 or first + count * size > content["values"]:
            raise DataError(f"{index}: the frames of {name} lie outside {path.name}.")
    return content


@lru_cache(None)
def _intact_index(path, index, states):
    """The content of an index whose digests are right; states: what tells that the files are the same"""
    content = read_json(index)
    if content.get("format") != INDEX_FORMAT:
        raise DataError(f"{index} is of another version.")
    if content.pop("self", None) != own_digest(content):
        raise DataError(f"{index} is damaged: its digest is another.")
    if not states[0][1] or digest_of(np.memmap(path, mode="r")) != content["digest"]:
        raise DataError(f"{path} is damaged: its bytes are not those that were written.")
    return content


def own_digest(content):
    """sha256 (hex) of the content of an index"""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


class FeatureDataset(SpeechDataset):
    """A dataset that gives `features` (F, K, D) in place of `sig`, and reads no audio.

    places: {utterance id: (mapped values, first value, F, [K, D])}; crop: None, or a function (utterance id,
    pass over the data, F) -> (first, last) frame to read, for tasks that train on chunks.
    """

    crop = None

    def __init__(self, dataset, places):
        self.data, self.data_ids, self.places = dataset.data, dataset.data_ids, places
        self.pipeline = copy.copy(dataset.pipeline)
        self.pipeline.set_output_keys([key for key in dataset.pipeline.output_mapping if key != "sig"])

    def __getitem__(self, index):
        row = super().__getitem__(index)
        values, first, count, frame = self.places[row["id"]]
        start, stop = (0, count) if self.crop is None else self.crop(row["id"], index[1], count)
        size = math.prod(frame)
        stretch = values[first + start * size : first + stop * size]
        if not np.isfinite(stretch).all():
            raise DataError(f"{values.filename}: frames of {row['id']} are not finite; remove it, and the "
                            "same command computes it again.")  # fmt: skip
        return row | {"features": torch.from_numpy(stretch.reshape(stop - start, *frame).copy())}


@contextmanager
def locked(path):
    """Holds the lock file `path` if nobody else does; yields whether it does"""
    try:  # without locks, at worst two processes compute the same, each into a file of its own
        lock = take(path, "other processes may compute the same frames")
    except Taken:
        yield False
        return
    with lock:
        yield True


def fingerprint(encoder):
    """Hash (hex, 16 digits) of an encoder's weights, its configuration and the layer taken"""
    digest = hashlib.sha256(json.dumps([FORMAT, encoder.description()], sort_keys=True).encode())
    for name, weight in encoder.model.state_dict().items():
        digest.update(name.encode())
        digest.update(weight.detach().cpu().contiguous().view(torch.uint8).numpy())
    return digest.hexdigest()[:16]


def described(dataset):
    """Hash (hex, 16 digits) of the stretches of audio of a dataset, their files' sizes and times included"""
    digest = hashlib.sha256()
    for name in dataset.data_ids:
        row = dataset.data[name]
        state, place = os.stat(file_of(row["wav"])), place_in_shard(row["wav"])
        stretch = [row["start"], row["stop"], row["channel"]]
        told = [name, row["wav"], *stretch, state.st_size, state.st_mtime_ns, *place]
        digest.update(json.dumps(told).encode())
    return digest.hexdigest()[:16]


def place_in_shard(path):
    """(first byte, bytes, CRC-32) of a recording inside a tar shard, () for a file of its own. Raises
    DataError."""
    try:
        return place_of(path)
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}. Copy it again or leave it out.") from error


def cut(dataset):
    """Positions of the dataset in shards of about SHARD_SECONDS of audio, neighbours in length together"""
    order = np.argsort(-dataset.durations, kind="stable")
    ends = np.cumsum(dataset.durations[order]) // SHARD_SECONDS
    return [order[ends == number].tolist() for number in np.unique(ends)]
