"""`make demo`: the whole path on the embedded miniature, as a chain of the ordinary commands.

Build the miniature, pre-train the mini encoder on its hours without labels, recognise speech with its minutes
of labels in four ways, two at a time, print the leaderboard. What is finished is reused.
"""

import argparse
import os
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

from lebench_sb import results
from lebench_sb.benchmark.execute import CONSOLE
from lebench_sb.benchmark.plan import Plan, Step
from lebench_sb.benchmark.schedule import Lanes, cores, run_plan
from lebench_sb.plots import leaderboard_chart, learning_curves

ROOT = Path(__file__).parents[1]
PRETRAIN = "recipes/pretraining/wav2vec2/train.py recipes/pretraining/wav2vec2/hparams/mini.yaml"
ASR = "recipes/ASR/CommonVoice/train.py recipes/ASR/CommonVoice/hparams/ctc.yaml"
UPDATES = 800  # of the pre-training; more is better, and takes longer than the demo may
# Of all four ASR runs: small batches, many updates. The checkpoint is chosen by CER: while most words hold an
# error WER stays near 100 % and says nothing of the characters already learnt.
ASR_BUDGET = (
    "--number_of_epochs 10 --max_batch_seconds 20 --head_lr 0.003 --precision bf16 --key_metric CER "
    "--mask '{time_prob: 0.03, channel_prob: 0.03}'"
)
STAMPS = "[synthetic speech]"
FRAMES = "frames"  # of the frozen encoders, computed once; a gigabyte each, gone when the demo has finished


def systems(output):
    """The four rows, the longest run first: name -> overrides of the ASR recipe"""
    encoder, cache = f"{output}/pretraining/encoder", f"--feature_cache {output}/{FRAMES}"
    return {
        "pretrained_finetuned": f"--ssl_hub {encoder} --mode end-to-end --freeze False",
        "pretrained_frozen": f"--ssl_hub {encoder} --mode frozen {cache}",
        "random_frozen": f"--ssl_hub random:{encoder} --mode frozen {cache}",
        "mel_filterbank": "--ssl_hub mel_filterbank --layer last --mode filterbank",
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
        chain.append((name, folder, shlex.split(f"{words} {extra_asr or ASR_BUDGET}")))
    return chain


def run_chain(chain, at_once):
    """Runs steps that need nothing of each other, `at_once` of them, unless they have finished before; raises
    SystemExit if one fails. Small models gain little from threads: two runs on one core each are quicker."""
    plan = Plan({name: Step(name, folder, tuple(words)) for name, folder, words in chain}, (), ())
    outcomes = run_plan(plan, Lanes(at_once, max(1, cores() // at_once), show=True, gpus=[]))
    for name, outcome in outcomes.items():
        if not outcome.done:
            console = f"{plan.steps[name].folder}/{CONSOLE}"
            raise SystemExit(f"{name} failed: {outcome.reason}; {console} says more.")


def finish(output, chain):
    """Writes and prints the leaderboard, its picture, the curves, and the comparison that matters most"""
    shutil.rmtree(output / FRAMES, ignore_errors=True)
    folders = [Path(folder) for name, folder, _ in chain if name != "pretraining"]
    table = results.table(folders, format="md")
    (output / "leaderboard.md").write_text(table + "\n", encoding="utf-8")
    (output / "leaderboard.csv").write_text(results.table(folders, format="csv"), encoding="utf-8")
    leaderboard_chart([results.read_results(f) for f in folders], output / "leaderboard.png")
    learning_curves({f.name: f / "steps.jsonl" for f in folders}, output / "learning_curves_asr.png")
    print(f"\n{table}\n\nFrozen, pre-trained against untrained:")
    print(results.compare(output / "asr/pretrained_frozen", output / "asr/random_frozen"))


def show_in(readme, output):
    """Puts the leaderboard between the marks of a README, and its picture into docs/ beside it"""
    begin, end = "<!-- leaderboard: begin -->\n", "<!-- leaderboard: end -->"
    before, rest = readme.read_text(encoding="utf-8").split(begin)
    picture = "![WER of each system with its 95 % interval](docs/leaderboard.png)"
    table = (output / "leaderboard.md").read_text(encoding="utf-8").strip()
    shutil.copy(output / "leaderboard.png", readme.parent / "docs")
    text = f"{before}{begin}{table}\n\n{picture}\n\n{end}{rest.split(end)[1]}"
    readme.write_text(text, encoding="utf-8")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--output", default="results/demo", help="folder of data and results, under the repository"
    )
    parser.add_argument(
        "--scale", type=float, default=1.0, help="size of the miniature; 1 is two hours of speech"
    )
    parser.add_argument("--pretraining", default="", help="options of the pre-training, for its own")
    parser.add_argument("--asr", default="", help="options of the four ASR runs, for their own")
    parser.add_argument("--readme", type=Path, help="README whose leaderboard to replace by this one")
    options = parser.parse_args()
    started, readme = time.time(), options.readme and options.readme.resolve()
    os.chdir(ROOT)
    words = [
        "-m",
        "lebench_sb.corpora.miniature",
        "--output",
        f"{options.output}/data",
        "--scale",
        str(options.scale),
    ]
    code = subprocess.run([sys.executable, *words]).returncode
    if code:
        raise SystemExit(code)
    chain = commands(options.output, options.pretraining, options.asr)
    run_chain(chain[:1], 1)
    run_chain(chain[1:], min(2, cores()))
    finish(Path(options.output), chain)
    if readme:
        show_in(readme, Path(options.output))
    print(f"\nThe demo took {(time.time() - started) / 60:.1f} minutes; everything is in {options.output}.")


if __name__ == "__main__":
    main()
