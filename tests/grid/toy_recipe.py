"""A recipe folder that takes no time: what the grid sees of a recipe, with scores computed from its
options."""

import json
import sys
from pathlib import Path

RESULTS = Path(__file__).parents[1] / "evaluation"  # example_runs.py

YAML = """
seed: 1234
ssl_hub: !PLACEHOLDER
init_from: ""
init_from_run: none
beats: untold # or True, False: whether the run beats the trivial baseline
layer: weighted
freeze: True
data_folder: !PLACEHOLDER
mode: frozen
output_folder: results/toy
prepare: !name:lebench_sb.corpora.commonvoice.prepare_commonvoice
    data_folder: !ref <data_folder>
    manifest_folder: !ref <output_folder>/manifests
    normaliser: fr-1
train_csv: ""
valid_csv: ""
head_lr: 0.002
nested: {depth: 1}
key_metric: WER
key_metric_is_better: lower
seconds: 0.0 # that a run takes
fails_on: nothing # a run whose output_folder holds this text fails
"""

TRAIN = '''"""Writes what a recipe writes."""

import json
import os
import sys
import time
from pathlib import Path

sys.path.insert(0, RESULTS)


def log(folder, what):
    with open("runs.log", "a") as out:
        out.write(json.dumps([str(folder), what, dict(os.environ).get("OMP_NUM_THREADS"),
                              os.environ.get("CUDA_VISIBLE_DEVICES"), time.time()]) + "\\n")


def main(argv):
    arguments = [each for each in argv[1:] if each not in ("--noprogressbar", "--debug")]
    options = dict(zip((key[2:] for key in arguments[::2]), arguments[1::2]))
    options = {"layer": "weighted", "head_lr": "0.002", "freeze": "True", "seconds": "0", **options}
    folder = Path(options["output_folder"])
    folder.mkdir(parents=True, exist_ok=True)
    log(folder, "begun")
    print("a line of the console")
    if options.get("fails_on", "nothing") in str(folder):
        print("the last words of", folder, file=sys.stderr)
        sys.exit(int(options.get("seed", 1)))
    time.sleep(float(options["seconds"]))
    write(folder, options)
    log(folder, "ended")


def write(folder, options):
    from example_runs import make_record, make_rows
    from lebench_sb.evaluation.results import write_results

    rate, seed = float(options["head_lr"]), int(options.get("seed", 0))
    # best on valid at 0.003, better on test the lower it is
    scores = {1: 90.0, 2: 1e4 * abs(rate - 0.003)}
    lines = [json.dumps({"step": step, "stage": "valid", "WER": score}) for step, score in scores.items()]
    (folder / "steps.jsonl").write_text("\\n".join(lines))
    (folder / "hyperparams.yaml").write_text("key_metric: WER\\nkey_metric_is_better: lower\\n")
    if options["freeze"] == "False" or "init_from" in options:
        for name in ("encoder", "pretraining"):
            (folder / name).mkdir(exist_ok=True)
            (folder / name / "config.json").write_text("{}")
            (folder / name / "model.safetensors").write_text(f"{seed} {options.get('init_from')}")
    rows = make_rows(min(0.9, 10 * rate + 0.01 * seed), seed=seed, speakers=10, per_speaker=2)
    kept = {key: value for key, value in options.items()}
    record = make_record(rows, options.get("ssl_hub", str(folder)), seed, layer=options["layer"],
                         mode=options.get("mode", "pre-training"), overrides=kept)
    write_results(folder, record, rows)
    if "beats" in options:
        entry = {"system": "silence", "value": 100.0, "unit": "%", "difference": -3.0, "ci95": [-4.0, -2.0]}
        found = {"WER": {**entry, "beats": options["beats"] == "True"}}
        (folder / "trivial_baseline.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1:])
'''


def make_toy(folder):
    """Writes recipes/TOY/Corpus and recipes/PRE/toy, data/ and two encoders below `folder`"""
    for place in ("recipes/TOY/Corpus", "recipes/PRE/toy"):
        (folder / place / "hparams").mkdir(parents=True)
        (folder / place / "train.py").write_text(TRAIN.replace("RESULTS", repr(str(RESULTS)), 1))
        text = YAML.replace("ssl_hub: !PLACEHOLDER\n", "") if "PRE" in place else YAML
        (folder / place / "hparams" / "toy.yaml").write_text(text)
    (folder / "data").mkdir()
    (folder / "data" / "train.tsv").write_text("a\tb\n")
    for name in ("encoder", "other"):
        (folder / name).mkdir()
        (folder / name / "config.json").write_text(json.dumps({"name": name}))
        (folder / name / "model.safetensors").write_text(name)
    return folder


GRID = """
output: grid
data_folder: data
encoders: {filterbank: mel_filterbank, ours: encoder, random: "random:ours"}
tasks:
  TOY: {recipe: recipes/TOY/Corpus, hparams: toy.yaml, overrides: {seconds: 0}}
modes: [frozen, end to end]
seeds: [1, 2]
threads: 1
parallel: 2
"""


def runs(folder, what="begun"):
    """Output folders in the order in which their runs have begun (or ended)"""
    log = folder / "runs.log"
    lines = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    return [line[0] for line in lines if line[1] == what]


def lebench(*arguments):
    return [sys.executable, "-m", "lebench_sb.cli", *arguments]
