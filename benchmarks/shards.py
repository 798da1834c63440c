"""Many small files against tar shards: utterances read per second.

    python benchmarks/shards.py --folder /tmp/shards --files 2000 --rounds 5

Writes clips of 2 to 8 s as single files and packs them with `lebench shard`; then reads all of them in a
random order with `lebench_sb.training.data.load_audio`, whole or a crop of 2 s, files and shards in turn, in
one process. Both must give the same samples, or the exit code is 1. "cold": what the page cache holds of the
audio is dropped before each round; inodes and directories stay cached, which flatters the single files.
"""

import argparse
import os
import statistics
import sys
import time
from pathlib import Path

import numpy as np
import soundfile
import torch
from tqdm.auto import tqdm

from lebench_sb.audio.members import file_of
from lebench_sb.manifests.reading import read_manifest
from lebench_sb.manifests.shards import make_shards
from lebench_sb.manifests.utterance import Utterance
from lebench_sb.manifests.writing import write_manifest
from lebench_sb.training.data import load_audio

CROP = 2.0  # seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--folder", required=True, type=Path)
    parser.add_argument("--files", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    same = True
    print(f"{options.files} clips, {options.rounds} rounds, utterances per second: median [lowest, highest]")
    print("and CPU milliseconds per utterance, medians\n")
    print(f"{'format':7} {'read':6} {'cache':5} {'files':>22} {'shards':>22} {'ratio':>6} {'CPU ms':>12}")
    for suffix in ("wav", "flac"):
        sources = prepared(options.folder / suffix, suffix, options.files)
        same = same and all(
            torch.equal(load_audio(a.wav), load_audio(b.wav)) for a, b in zip(*sources, strict=True)
        )
        for crop in (False, True):
            for cold in (False, True):
                compare(sources, suffix, crop, cold, options.rounds)
    sys.exit(0 if same else "error: files and shards differ")


def prepared(folder, suffix, count):
    """(Utterances in files, the same in shards)"""
    files, packed = folder / "files", folder / "shards"
    if not (files / "all.csv").exists():
        files.mkdir(parents=True, exist_ok=True)
        made = [clip(files / f"{k // 100:03d}", k, suffix) for k in tqdm(range(count), desc=suffix)]
        write_manifest(files / "all.csv", made, files, {})
    make_shards([files / "all.csv"], files, packed, "100MB")
    os.sync()
    return read_manifest(files / "all.csv", files), read_manifest(packed / "all.csv", packed)


def clip(folder, number, suffix):
    """Tones that change every 0.1 s, with noise"""
    folder.mkdir(exist_ok=True)
    rng, path = np.random.default_rng(number), folder / f"{number:06d}.{suffix}"
    pitches = rng.choice([110, 220, 330, 440, 880], int(rng.uniform(2.0, 8.0) * 10))
    t = np.arange(1600) / 16000
    sig = 0.3 * np.sin(2 * np.pi * pitches[:, None] * t).ravel()
    soundfile.write(path, sig + 0.02 * rng.standard_normal(len(sig)), 16000)
    return Utterance(path.stem, str(path), len(sig) / 16000)


def compare(sources, suffix, crop, cold, rounds):
    """One line of the table"""
    found = ([], [])
    for number in range(rounds):
        order = np.random.default_rng(number).permutation(len(sources[0])).tolist()
        for speeds, utterances in zip(found, sources, strict=True):
            if cold:
                drop(utterances)
            speeds.append(speed([utterances[k] for k in order], crop))
    walls = [[wall for wall, _ in speeds] for speeds in found]
    cpu = "{:.2f} {:.2f}".format(*(statistics.median(used for _, used in speeds) for speeds in found))
    shown = [f"{statistics.median(s):,.0f} [{min(s):,.0f}, {max(s):,.0f}]" for s in walls]
    ratio = statistics.median(walls[1]) / statistics.median(walls[0])
    read, cache = "crop" if crop else "whole", "cold" if cold else "warm"
    print(f"{suffix:7} {read:6} {cache:5} {shown[0]:>22} {shown[1]:>22} {ratio:6.2f} {cpu:>12}", flush=True)


def drop(utterances):
    """Takes the audio out of the page cache"""
    for path in sorted({file_of(u.wav) for u in utterances}):
        handle = os.open(path, os.O_RDONLY)
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(handle)


def speed(utterances, crop):
    """(utterances per second, CPU milliseconds per utterance)"""
    started, used = time.perf_counter(), time.process_time()
    for u in utterances:
        start = (u.duration - CROP) / 2 if crop else None
        load_audio(u.wav, start, None if start is None else start + CROP)
    used = 1000 * (time.process_time() - used)
    return len(utterances) / (time.perf_counter() - started), used / len(utterances)


if __name__ == "__main__":
    main()
