"""Short pre-trainings of the mini model, one change from mini.yaml each, on equal hours of audio: a table.

    python benchmarks/pretraining_search.py results/real --data_folder ../shared/data --updates 300

FOLDER holds ssl/train.csv, ssl/valid.csv, fr/train.csv and fr/valid.csv, as `benchmarks/real_speech.py
--prepare_only` writes them. Each variant is two ordinary runs, of pre-training and of recognition on its
frozen encoder, two variants at once on a thread each, below --output; what has finished is not repeated.
Prints, in Markdown, what the last validation of each found on held-out speech, and the recogniser's error
rates on valid at its best epoch. Accuracy and loss can be compared where masks and negatives are the same;
the error rates always.
"""

import argparse
import json
import os
import shlex
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).parents[1]
PRETRAINING = ("recipes/pretraining/wav2vec2/train.py", "recipes/pretraining/wav2vec2/hparams/mini.yaml")
RECOGNITION = ("recipes/ASR/CommonVoice/train.py", "recipes/ASR/CommonVoice/hparams/ctc.yaml")
HEAD = {
    "number_of_epochs": 12, "max_batch_seconds": 20, "head_lr": 0.003, "key_metric": "CER",
    "mask": "{time_prob: 0.03, channel_prob: 0.03}",
}  # fmt: skip
VARIANTS = {  # what is changed: overrides; `share`: updates as a share of --updates, for equal audio
    "as it is": {},
    "mask length 10": {"mask_length": 10},
    "mask probability 0.5": {"mask_prob": 0.5},
    "diversity weight 1": {"diversity_weight": 1.0},
    "batch of 20 s, twice the updates": {"max_batch_seconds": 20.0, "share": 2.0},
    "batch of 80 s, half the updates": {"max_batch_seconds": 80.0, "share": 0.5},
    "rate 0.001": {"encoder_lr": 0.001},
    "rate 0.004": {"encoder_lr": 0.004},
    "warm-up over 30 %": {"schedule": "{warmup: 0.3}"},
    "extractor of four convolutions": {
        "config": "{conv_dim: [96, 128, 192, 192], conv_kernel: [320, 8, 4, 4], conv_stride: [20, 4, 2, 2]}"
    },
    "mask probability 0.35": {"mask_prob": 0.35},
    "diversity weight 0": {"diversity_weight": 0.0},
    "50 negatives": {"num_negatives": 50},
    "extractor 256, 256, 256": {"config": "{conv_dim: [256, 256, 256]}"},
}
COLUMNS = {  # of the table: (key of a validation's line in steps.jsonl, decimals)
    "accuracy %": ("accuracy", 1), "loss (nats)": ("contrastive", 2), "perplexity 1": ("perplexity_0", 0),
    "perplexity 2": ("perplexity_1", 0), "rank": ("rank", 0),
}  # fmt: skip
RATES = ("CER", "WER")


def commands(name, changes, options):
    """-> [(words after `python`, output folder)] of a variant: of pre-training, of recognition"""
    changes = dict(changes)
    updates = round(options.updates * changes.pop("share", 1.0))
    folder = options.output / name.replace(" ", "_").replace(",", "").replace("%", "percent")
    pretraining = {
        **manifests(options.folder / "ssl"), "data_folder": options.data_folder, "output_folder": folder,
        "number_of_updates": updates, "valid_every_updates": updates,
        "log_mel_updates": options.log_mel_updates, "precision": options.precision, **changes,
    }  # fmt: skip
    recognition = {
        **manifests(options.folder / "fr"), "test_csv": options.folder / "fr" / "valid.csv",
        "data_folder": options.data_folder, "output_folder": folder / "recognition",
        "ssl_hub": folder / "encoder", "feature_cache": folder / "frames", "precision": options.precision,
        **HEAD,
    }  # fmt: skip
    runs = ((PRETRAINING, pretraining), (RECOGNITION, recognition))
    return [
        ([*recipe, *typed(values), "--noprogressbar"], values["output_folder"]) for recipe, values in runs
    ]


def manifests(folder):
    return {f"{split}_csv": folder / f"{split}.csv" for split in ("train", "valid")}


def typed(values):
    return [word for key, value in values.items() for word in (f"--{key}", str(value))]


def run(name, changes, options):
    """Runs of a variant what has not finished -> its row of the table"""
    found = []
    for words, folder in commands(name, changes, options):
        if not (folder / "results.json").exists():
            print(f"{name}: python {shlex.join(words)}", file=sys.stderr, flush=True)
            done = subprocess.run(
                [sys.executable, *words], cwd=ROOT, capture_output=True, text=True,
                env={**os.environ, "OMP_NUM_THREADS": str(options.threads)},
            )  # fmt: skip
            if done.returncode:
                lines = done.stderr.strip().splitlines()
                return [name, f"failed: {lines[-1] if lines else done.returncode}"]
        lines = [json.loads(line) for line in (folder / "steps.jsonl").read_text().splitlines()]
        found.append([line for line in lines if line["stage"] == "valid"])
    last, best = found[0][-1], min(found[1], key=lambda line: line[RATES[0]])
    cells = [f"{last[key]:.{decimals}f}" for key, decimals in COLUMNS.values()]
    return [name, str(last["step"]), *cells, *(f"{best[rate]:.1f}" for rate in RATES)]


def main(argv):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--data_folder", default=".")
    parser.add_argument("--output", type=Path, default=Path("results/search"))
    parser.add_argument("--updates", type=int, default=300)
    parser.add_argument("--log_mel_updates", type=int, default=300)
    parser.add_argument("--precision", default="bf16")
    parser.add_argument("--parallel", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1, help="of each run")
    parser.add_argument("--only", help="variants to run, split at semicolons; otherwise all")
    options = parser.parse_args(argv)
    names = options.only.split(";") if options.only else list(VARIANTS)
    unknown = [name for name in names if name not in VARIANTS]
    if unknown:
        parser.error(f"--only {'; '.join(unknown)}: there are {'; '.join(VARIANTS)}")
    options.folder, options.output = options.folder.resolve(), options.output.resolve()
    options.data_folder = Path(options.data_folder).resolve()
    header = ["changed", "updates", *COLUMNS, *RATES]
    print("| " + " | ".join(header) + " |\n" + "|---" * len(header) + "|", flush=True)
    failed = False
    with ThreadPoolExecutor(options.parallel) as pool:
        for row in pool.map(lambda name: run(name, VARIANTS[name], options), names):
            print("| " + " | ".join(row) + " |", flush=True)
            failed |= row[1].startswith("failed")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
