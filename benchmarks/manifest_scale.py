"""A manifest of 14,000 hours: how long it takes to open, to plan batches of, and what that costs in memory.

    python benchmarks/manifest_scale.py --folder /tmp/scale

Writes a manifest of LeBenchmark's 14K size (2,669,869 utterances; lengths and paths drawn by a seed, no
audio) and measures, each in a process of its own:

- columns: the first opening of a manifest that no preparation wrote, which checks every row and makes the
  columnar copy; a later opening with the training limits applied; the batch plan of one pass; workers that
  read rows, forked and spawned;
- dicts: the same manifest as the list of checked Utterances and dict of dicts that small ones are held in;
- speechbrain: `DynamicItemDataset.from_csv`, which checks nothing, and `DynamicBatchSampler`.

Seconds are of the clock and, in brackets, of the processor. Memory is the resident set, of workers the part
that is theirs alone. Everything imported beforehand (torch, speechbrain) is in the figures and printed as
"imports". The exit code is 1 where a later opening takes 10 s or 1.5 GB, or a plan 20 s.
"""

import argparse
import json
import multiprocessing
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from lebench_sb.manifests.utterance import COLUMNS

UTTERANCES = 2_669_869
LIMITS = {"seconds": 10.0, "megabytes": 1500.0, "plan": 20.0}
BATCH_SECONDS, SHORTEST, LONGEST = 87.5, 1.0, 30.0
READ = 20_000  # rows that a worker reads
WORKERS = 2


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--folder", required=True, type=Path, help="for the manifest, about 800 MB")
    parser.add_argument("--utterances", type=int, default=UTTERANCES)
    parser.add_argument("--rounds", type=int, default=3, help="later openings")
    parser.add_argument("--only", choices=MEASURES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    path = options.folder / f"manifest_{options.utterances}.csv"
    if options.only:
        print(json.dumps(MEASURES[options.only](path)))
        return
    if not path.exists():
        write(path, options.utterances)
    print(f"{path}: {options.utterances} utterances, {path.stat().st_size / 1e6:.0f} MB")
    Path(f"{path}.arrow").unlink(missing_ok=True)
    runs = ["first", *["columns"] * options.rounds, "dicts", "speechbrain"]
    found = [(name, measured(name, options)) for name in runs]
    sys.exit(0 if all(within(figures) for name, figures in found if name == "columns") else 1)


def measured(name, options):
    """The figures of one process, printed"""
    words = [sys.executable, __file__, "--folder", options.folder, "--utterances", options.utterances]
    done = subprocess.run([*map(str, words), "--only", name], stdout=subprocess.PIPE, check=True, text=True)
    figures = json.loads(done.stdout.splitlines()[-1])
    print(f"{name:12} " + ", ".join(map(shown, figures.items())), flush=True)
    return figures


def shown(figure):
    """ "open s 1.20 (1.10)", or "rows 20,000" """
    name, value = figure
    return f"{name} {value[0]:.2f} ({value[1]:.2f})" if isinstance(value, list) else f"{name} {value:,.0f}"


def within(figures):
    return (
        figures["open s"][0] < LIMITS["seconds"]
        and figures["main MB"] < LIMITS["megabytes"]
        and figures.get("plan s", [0.0])[0] < LIMITS["plan"]
    )


def clock():
    """Seconds of (the clock, the processor)"""
    return time.time(), time.process_time()


def since(start):
    return [now - then for now, then in zip(clock(), start, strict=True)]


def write(path, count, block=100_000):
    """A manifest of `count` rows: 14,000 hours in the mean, eight corpora, some with transcripts"""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    with open(temporary, "w", encoding="utf-8") as file:
        file.write(",".join([*COLUMNS, "wrd"]) + "\n")
        for first in tqdm(range(0, count, block), desc="manifest", unit="block"):
            file.writelines(lines(first, min(block, count - first)))
    temporary.replace(path)


def lines(first, count):
    """Rows `first` to `first + count`"""
    rng = np.random.default_rng([0, first])
    durations = np.clip(rng.lognormal(2.8, 0.55, count), 0.5, 40.0).round(3)
    corpora, speakers = rng.integers(8, size=count).tolist(), rng.integers(9000, size=count).tolist()
    durations, hashes = durations.tolist(), rng.integers(1 << 48, size=count).tolist()
    for k in range(count):
        name, place = f"{hashes[k]:012x}{first + k:07d}", f"corpus{corpora[k]}/{speakers[k]:04d}"
        text = "une phrase, lue à voix haute" if corpora[k] < 4 else ""
        yield (
            f"{name},{durations[k]},$data_root/{place}/{name}.flac,,,s{speakers[k]},"
            f'{"FMU"[speakers[k] % 3]},fr,"{text}"\n'
        )


# ---- what is measured, each in its own process


def first(path):
    from lebench_sb.manifests.columns import open_utterances

    imports, started = resident(), clock()
    utterances = open_utterances([path], path.parent)
    return {
        "open s": since(started), "main MB": resident(), "peak MB": peak(), "imports MB": imports,
        "rows": len(utterances), "copy MB": Path(f"{path}.arrow").stat().st_size / 1e6,
    }  # fmt: skip


def columns(path):
    from lebench_sb.training.data import EpochPlan, as_dataset, load_utterances

    hparams = {"train_csv": str(path), "data_folder": str(path.parent)}
    imports, started = resident(), clock()
    utterances = load_utterances({**hparams, "min_duration": SHORTEST, "max_duration": LONGEST})["train"]
    dataset = as_dataset(utterances, [], ["wav", "duration"])
    opened, opened_mb, started = since(started), resident(), clock()
    plan = EpochPlan(dataset.durations, BATCH_SECONDS, 0)
    batches = plan.batches(1)
    figures = {
        "open s": opened, "opened MB": opened_mb, "plan s": since(started), "batches": len(batches),
        "rows": len(dataset),
        "main MB": resident(), "peak MB": peak(), "imports MB": imports,
    }  # fmt: skip
    del batches
    return figures | {f"{m} worker own MB": workers(dataset, m) for m in ("fork", "spawn")} | reading(dataset)


def dicts(path):
    from lebench_sb.manifests.reading import read_manifest
    from lebench_sb.training.data import EpochPlan, SpeechDataset, columns_of

    imports, started = resident(), clock()
    utterances = read_manifest(path, path.parent)
    kept = [u for u in utterances if SHORTEST <= u.duration <= LONGEST]
    dataset = SpeechDataset({u.id: columns_of(u) for u in kept}, output_keys=["id", "wav", "duration"])
    opened, opened_mb, started = since(started), resident(), clock()
    plan = EpochPlan(dataset.durations, BATCH_SECONDS, 0).batches(1)
    return {
        "open s": opened, "opened MB": opened_mb, "plan s": since(started), "batches": len(plan),
        "rows": len(dataset), "main MB": resident(), "peak MB": peak(), "imports MB": imports,
        "fork worker own MB": workers(dataset, "fork"), **reading(dataset),
    }  # fmt: skip


def speechbrain(path):
    from speechbrain.dataio.dataset import DynamicItemDataset
    from speechbrain.dataio.sampler import DynamicBatchSampler

    imports, started = resident(), clock()
    dataset = DynamicItemDataset.from_csv(path, {"data_root": path.parent}, output_keys=["id", "wav"])
    limits = {"key_min_value": {"duration": SHORTEST}, "key_max_value": {"duration": LONGEST}}
    kept = dataset.filtered_sorted(sort_key="duration", **limits)
    opened, opened_mb, started = since(started), resident(), clock()
    lengths = [kept.data[name]["duration"] for name in kept.data_ids]
    sampler = DynamicBatchSampler(kept, BATCH_SECONDS, num_buckets=200, lengths_list=lengths)
    return {
        "open s": opened, "opened MB": opened_mb, "plan s": since(started), "batches": len(sampler),
        "rows": len(kept), "main MB": resident(), "peak MB": peak(), "imports MB": imports,
        "fork worker own MB": workers(kept, "fork"), **reading(kept),
    }  # fmt: skip


MEASURES = {"first": first, "columns": columns, "dicts": dicts, "speechbrain": speechbrain}


def reading(dataset):
    """Random rows per second in this process"""
    positions = np.random.default_rng(1).integers(len(dataset), size=READ).tolist()
    started = time.time()
    for position in positions:
        dataset[position]
    return {"random rows per s": READ / (time.time() - started)}


def workers(dataset, method):
    """Megabytes of its own that a worker has after reading rows, the largest of WORKERS"""
    context = multiprocessing.get_context(method)
    queue = context.Queue()
    started = [context.Process(target=work, args=(dataset, seed, queue)) for seed in range(WORKERS)]
    for process in started:
        process.start()
    found = [queue.get() for _ in started]
    for process in started:
        process.join()
    return max(found)


def work(dataset, seed, queue):
    before = own()
    reading(dataset)
    for position in np.random.default_rng(seed).integers(len(dataset), size=READ).tolist():
        dataset[position]
    queue.put(own() - before)


def _megabytes(fields, file):
    lines = (line.split() for line in Path(f"/proc/self/{file}").read_text().splitlines())
    return sum(int(words[1]) for words in lines if words[0].rstrip(":") in fields) / 1024


def resident():
    """Megabytes of this process that are in memory, mapped pages of files included"""
    return _megabytes({"VmRSS"}, "status")


def own():
    """Megabytes of this process that no other shares"""
    return _megabytes({"Private_Dirty"}, "smaps_rollup")


def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
