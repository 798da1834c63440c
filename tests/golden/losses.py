"""Losses of short runs of every task, as numbers that a change of structure must not change.

    python tests/golden/losses.py            prints what differs from losses.json; exit code 1 if any does
    python tests/golden/losses.py --write    makes losses.json anew, after a change that is meant

A run is one epoch of a recipe on the miniature with a tiny untrained encoder, in training mode (dropout,
masks), or eight updates of pre-training. All losses of `steps.jsonl` are kept, with the processor and the
version of torch: there they are equal to the last bit, elsewhere to within rounding.
"""

import argparse
import json
import platform
import re
import sys
import tempfile
from pathlib import Path

import torch

ROOT = Path(__file__).parents[2]
GOLDEN = Path(__file__).with_name("losses.json")
sys.path.insert(0, str(ROOT / "tests"))
from python_process import run_python  # noqa: E402
from tiny import write_wav2vec2  # noqa: E402

ROUNDING = 0.01  # what a few updates make of the last bits of other kernels
CORPORA = ("commonvoice", "mls", "media", "mtedx", "recola", "cafe", "fabiole", "orfeo")
TINY = {"max_batch_seconds": 20, "num_workers": 0, "precision": "fp32", "eval_precision": "fp32"}
TASK = {**TINY, "number_of_epochs": 1, "max_bad_fraction": 0.5}
SMALL_PRETRAINING = {
    **TINY, "number_of_updates": 8, "valid_every_updates": 8, "max_crop": 3.0,
    "config": "{conv_dim: [16, 16, 16], conv_kernel: [10, 8, 4], conv_stride: [5, 8, 8], hidden_size: 16, "
    "num_hidden_layers: 2, num_attention_heads: 2, intermediate_size: 32, num_conv_pos_embeddings: 8, "
    "num_conv_pos_embedding_groups: 2, codevector_dim: 8, proj_codevector_dim: 8, "
    "num_codevectors_per_group: 20}",
}  # fmt: skip
RUNS = {  # name: (recipe's folder, YAML, folder of the data, options)
    "wav2vec2": ("pretraining/wav2vec2", "mini", "", SMALL_PRETRAINING),
    "ASR": ("ASR/CommonVoice", "ctc", "", TASK),
    "SLU": ("SLU/MEDIA", "ctc", "", TASK),
    "AST": ("AST/mTEDx", "transformer", "", {**TASK, "subwords": 60, "average_checkpoints": 1}),
    "AER, RECOLA": ("AER/RECOLA", "lintanh", "", TASK),
    "AER, CaFE": ("AER/CaFE", "mean_pool", "", {**TASK, "folds": 3}),
    "ASV": ("ASV/Fabiole", "ecapa", "", TASK),
    "SA": ("SA/ORFEO", "wav2tree", "orfeo", TASK),
}


def machine():
    """Where losses are equal to the last bit: {what: its name}"""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    facts = dict(re.split(r"\s*:\s*", line, maxsplit=1) for line in lines if ":" in line)
    names = [facts.get(key, "") for key in ("model name", "cpu family", "model", "stepping")]
    return {"processor": " ".join(names) or platform.processor(), "torch": torch.__version__}


def prepare(folder):
    """The miniature and a tiny encoder in `folder`"""
    words = ["--output", str(folder / "data"), "--scale", "0.015", "--corpora", ",".join(CORPORA)]
    execute(["-m", "lebench_sb.corpora.miniature", *words])
    write_wav2vec2(folder / "encoder")


def execute(words):
    done = run_python(words, cwd=ROOT)
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)}\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}")


def losses(name, folder):
    """Runs RUNS[name] on what `prepare` made -> its losses in order, {"stage step": loss}"""
    recipe, yaml, place, options = RUNS[name]
    output = folder / "runs" / name
    script = [f"recipes/{recipe}/train.py", f"recipes/{recipe}/hparams/{yaml}.yaml"]
    words = ["--data_folder", str(folder / "data" / place), "--output_folder", str(output)]
    if name != "wav2vec2":
        words += ["--ssl_hub", str(folder / "encoder")]
    words += [f"--{key}={value}" for key, value in options.items()]
    execute([*script, *words, "--noprogressbar"])
    found = {}
    for path in sorted(output.rglob("steps.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            step = json.loads(line)
            fold = "" if path.parent == output else f"{path.parent.relative_to(output)} "
            found[f"{fold}{step['stage']} {step['step']}"] = step.get("loss")
    return found


def differences(known, found, exact):
    """Lines that say where two {"stage step": loss} differ, to the last bit or by more than rounding does"""
    lines = [f"{step}: in one of them alone" for step in sorted(known.keys() ^ found.keys())]
    for step in [step for step in known if step in found]:
        one, other = known[step], found[step]
        if one != other and (exact or None in (one, other) or abs(one - other) > ROUNDING * abs(one)):
            lines.append(f"{step}: {one!r}, now {other!r}")
    return lines


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--write", action="store_true", help="make losses.json anew")
    parser.add_argument("--only", nargs="+", default=list(RUNS), choices=list(RUNS), help="these runs")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        prepare(Path(folder))
        found = {name: losses(name, Path(folder)) for name in options.only}
    known = json.loads(GOLDEN.read_text()) if GOLDEN.exists() else {"machine": {}, "losses": {}}
    if options.write:
        record = {"machine": machine(), "losses": {**known["losses"], **found}}
        GOLDEN.write_text(json.dumps(record, indent=1) + "\n")
        return
    exact, lines = known["machine"] == machine(), []
    for name in options.only:
        told = differences(known["losses"].get(name, {}), found[name], exact)
        lines += [f"{name}: {line}" for line in told]
    print("\n".join(lines) or f"equal{' to the last bit' if exact else ', but for rounding'}")
    raise SystemExit(bool(lines))


if __name__ == "__main__":
    main()
