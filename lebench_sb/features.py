"""Frames of a frozen encoder, computed once and read in every epoch, by every head, seed and process.

They lie below the cache's folder in one folder per (encoder, layer, precision, utterances), cut into shards.
A process computes the shards that nobody has finished and nobody is computing, each under a lock that dies
with it; a shard's index is written after its frames. So several processes share the work, and one killed
half-way loses a shard.

Letters: B utterances, F frames, K hidden states (1, or all layers for a learned sum), D features.
"""

import copy
import fcntl
import hashlib
import json
import math
import os
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from speechbrain.dataio.batch import PaddedBatch
from tqdm.auto import tqdm

from lebench_sb.data import EpochPlan, SpeechDataset
from lebench_sb.manifest import DataError, UsageError, write_atomically
from lebench_sb.storage.members import file_of

FORMAT = 1  # raised when frames or files change their meaning
SHARD_SECONDS = 600.0  # of audio: what is lost when a process is killed
BATCH_SECONDS = 60.0  # padded seconds computed at once
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

    def summary(self):
        """(megabytes on disk that were opened, folder, seconds spent computing)"""
        return self.bytes / 1e6, self.folder, self.seconds

    def view(self, dataset, context, precision, device, shows_progress=False):
        """A dataset like `dataset` with `features` (F, K, D) in place of `sig`, all of them on disk.

        context: the autocast of this stage; precision: its name; device: where to compute.
        """
        folder = self.folder / self.fingerprint / f"{precision}-{self.dtype}-{described(dataset)}"
        folder.mkdir(parents=True, exist_ok=True)
        started, shards = time.time(), cut(dataset)
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
        return self.opened(folder, len(shards), dataset)

    def make(self, folder, number, positions, dataset, context, device):
        """Computes a shard unless it is there; False if another process is at it."""
        index = folder / f"{number:05d}.json"
        if index.exists():
            return True
        with locked(folder / f"{number:05d}.lock") as mine:
            if not mine:
                return False
            if not index.exists():
                frames = self.compute(dataset, positions, context, device)
                self.write(folder / f"{number:05d}.bin", index, frames)
        return True

    def compute(self, dataset, positions, context, device):
        """{utterance id: frames (F, K, D) on the CPU}"""
        found = {}
        plan = EpochPlan(dataset.durations[positions], BATCH_SECONDS, 0, shuffle=False)
        for batch in plan.one_pass(1):
            rows = [dataset[positions[i]] for i in batch]
            padded = PaddedBatch([{"id": row["id"], "sig": row["sig"]} for row in rows]).to(device)
            with torch.no_grad(), context:
                states, lens = self.encoder.states(*padded.sig)
            for name, state, count in zip(padded.id, states.float().cpu(), lens.tolist(), strict=True):
                found[name] = self.cast(state[:count].numpy(), name)
        return found

    def cast(self, frames, name):
        """frames as the dtype on disk; DataError if float16 is too narrow for one of them"""
        with np.errstate(over="ignore"):
            cast = frames.astype(DTYPES[self.dtype])
        if not np.isfinite(cast).all():
            raise DataError(f"{name}: not finite in {self.dtype}: --feature_cache_dtype float32.")
        return cast

    def write(self, path, index, frames):
        """The frames one after the other, then the index: {id: [first value, F]} and the shape of a frame"""
        temporary = path.with_suffix(".tmp")
        where, at = {}, 0
        with open(temporary, "wb") as file:
            for name, states in frames.items():
                where[name] = [at, len(states)]
                at += states.size
                states.tofile(file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        shape = list(next(iter(frames.values())).shape[1:])
        write_atomically(index, json.dumps({"frame": shape, "values": at, "where": where}).encode())

    def opened(self, folder, count, dataset):
        """The view: every shard mapped into memory, read where an item is asked for"""
        places = {}
        for number in range(count):
            index = json.loads((folder / f"{number:05d}.json").read_text(encoding="utf-8"))
            path = folder / f"{number:05d}.bin"
            values = np.memmap(path, dtype=DTYPES[self.dtype], mode="r", shape=(index["values"],))
            self.bytes += values.nbytes
            places |= {name: (values, *place, index["frame"]) for name, place in index["where"].items()}
        return FeatureDataset(dataset, places)


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
        return row | {"features": torch.from_numpy(stretch.reshape(stop - start, *frame).copy())}


@contextmanager
def locked(path):
    """Holds the lock file `path` if nobody else does; yields whether it does"""
    with open(path, "a+", encoding="utf-8") as handle:
        try:
            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            yield False
        else:
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
        state = os.stat(file_of(row["wav"]))
        stretch = [row["start"], row["stop"], row["channel"]]
        told = [name, row["wav"], *stretch, state.st_size, state.st_mtime_ns]
        digest.update(json.dumps(told).encode())
    return digest.hexdigest()[:16]


def cut(dataset):
    """Positions of the dataset in shards of about SHARD_SECONDS of audio, neighbours in length together"""
    order = np.argsort(-dataset.durations, kind="stable")
    ends = np.cumsum(dataset.durations[order]) // SHARD_SECONDS
    return [order[ends == number].tolist() for number in np.unique(ends)]
