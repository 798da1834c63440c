"""`make demo`: the whole path on the embedded miniature, as a chain of the ordinary commands.

Build the miniature, pre-train the mini encoder on its hours without labels, recognise speech with its minutes
of labels in four ways, print the leaderboard. What is finished is reused.
"""

import argparse
import hashlib
import json
import shlex
import subprocess
import sys
import time
from pathlib import Path

from lebench_sb import results
from lebench_sb.plots import leaderboard_chart, learning_curves

ROOT = Path(__file__).parents[1]
PRETRAIN = "recipes/pretraining/wav2vec2/train.py recipes/pretraining/wav2vec2/hparams/mini.yaml"
ASR = "recipes/ASR/CommonVoice/train.py recipes/ASR/CommonVoice/hparams/ctc.yaml"
UPDATES = 500  # of the pre-training; more is better, and takes longer than the demo may
STAMPS = "[synthetic speech]"


def systems(output):
    """The four rows: name -> overrides of the ASR recipe"""
    encoder = f"{output}/pretraining/encoder"
    return {
        "mel_filterbank": "--ssl_hub mel_filterbank --layer last --mode filterbank",
        "random_frozen": f"--ssl_hub random:{encoder} --mode frozen",
        "pretrained_frozen": f"--ssl_hub {encoder} --mode frozen",
        "pretrained_finetuned": f"--ssl_hub {encoder} --mode end-to-end --freeze False --precision bf16",
    }


def commands(output, extra_pretraining="", extra_asr=""):
    """The whole chain -> [(name, folder that ends with results.json, words after `python`)]"""
    data = f"{output}/data"
    stamps = f"--stamps {shlex.quote(STAMPS)}"
    budget = extra_pretraining or f"--number_of_updates {UPDATES}"
    words = f"{PRETRAIN} --data_folder {data} --output_folder {output}/pretraining {stamps} {budget}"
    chain = [("pretraining", f"{output}/pretraining", shlex.split(words))]
    for name, overrides in systems(output).items():
        folder = f"{output}/asr/{name}"
        words = f"{ASR} --data_folder {data} --output_folder {folder} {stamps} {overrides}"
        chain.append((name, folder, shlex.split(f"{words} {extra_asr}")))
    return chain


def run_once(name, folder, words):
    """Runs `python words`, unless the same words over the same YAML have finished; raises SystemExit if it
    fails."""
    done = Path(folder) / "finished.json"
    yaml = hashlib.sha256((ROOT / words[1]).read_bytes()).hexdigest()
    record = {"words": words, "yaml_sha256": yaml}
    if done.exists() and json.loads(done.read_text()) == record and (done.parent / "results.json").exists():
        print(f"{name}: finished before, reused ({folder})", flush=True)
        return
    print(f"\n{name}: python {shlex.join(words)}", flush=True)
    code = subprocess.run([sys.executable, *words], cwd=ROOT).returncode
    if code:
        raise SystemExit(f"{name} failed with exit code {code}; run the line above again to see why.")
    done.write_text(json.dumps(record))


def finish(output, chain):
    """Writes and prints the leaderboard, its picture, the curves, and the comparison that matters most"""
    folders = [Path(folder) for name, folder, _ in chain if name != "pretraining"]
    table = results.table(folders, format="md")
    (output / "leaderboard.md").write_text(table + "\n", encoding="utf-8")
    (output / "leaderboard.csv").write_text(results.table(folders, format="csv"), encoding="utf-8")
    leaderboard_chart([results.read_results(f) for f in folders], output / "leaderboard.png")
    learning_curves({f.name: f / "steps.jsonl" for f in folders}, output / "learning_curves_asr.png")
    print(f"\n{table}\n\nFrozen, pre-trained against untrained:")
    print(results.compare(output / "asr/pretrained_frozen", output / "asr/random_frozen"))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--output", default="results/demo", help="folder of data and results, under the repository"
    )
    parser.add_argument(
        "--scale", type=float, default=1.0, help="size of the miniature; 1 is two hours of speech"
    )
    parser.add_argument("--pretraining", default="", help="options of the pre-training, for its own")
    parser.add_argument("--asr", default="", help="more options for the four ASR runs")
    options = parser.parse_args()
    started = time.time()
    words = [
        "-m",
        "lebench_sb.corpora.miniature",
        "--output",
        f"{options.output}/data",
        "--scale",
        str(options.scale),
    ]
    code = subprocess.run([sys.executable, *words], cwd=ROOT).returncode
    if code:
        raise SystemExit(code)
    chain = commands(options.output, options.pretraining, options.asr)
    for name, folder, words in chain:
        run_once(name, ROOT / folder, words)
    finish(ROOT / options.output, [(name, ROOT / folder, words) for name, folder, words in chain])
    print(f"\nThe demo took {(time.time() - started) / 60:.1f} minutes; everything is in {options.output}.")


if __name__ == "__main__":
    main()
