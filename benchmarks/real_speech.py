"""Five tasks on real speech: filterbank, untrained encoder, ours frozen and end to end.

    python benchmarks/real_speech.py ../shared/data --output results/real --updates 3700

PACKS holds `dev_pack/` and `extra_ssl_pack/`, collections of freely available recordings with a manifest.csv
each (no part of the project). Their rows become manifests by `lebench prepare own`; the encoder is
pre-trained on all of them but the clips that any task tests, a tenth of the speakers held out; then `lebench
benchmark` runs the grid that is written to OUTPUT/grid.yaml, learning rates chosen on valid. Stopped at any
moment, the same command goes on. Afterwards, `--layers` asks which hidden state of the encoder serves French
recognition best: OUTPUT/layers.yaml.
"""

import argparse
import csv
import json
import random
import sys
from pathlib import Path

from ruamel.yaml import YAML

from lebench_sb.core.errors import UsageError
from lebench_sb.corpora.own import prepare_own
from lebench_sb.grid.command import benchmark

CORPORA = {
    "fr": ["asterisk-core-sounds-fr"],
    "mdw": ["mboshi-french-parallel-corpus"],
    "slu": ["Picovoice speech-to-intent"],
    "aer": ["RAVDESS"],
    "asv": ["LibriSpeech train-clean-100 (via Resemblyzer repo)", "RAVDESS", "EmoDB-2s"],
}
CTC = ("ASR/CommonVoice", "ctc.yaml")
TRANSLATION = ("AST/mTEDx", "transformer.yaml")
LIBRISPEECH = CORPORA["asv"][0]
COLUMNS = ("ID", "wav", "spk_id", "gender", "language", "duration")
LABELS = {
    "fr": ("wrd", "translation_en"), "mdw": ("wrd", "translation_fr"), "slu": ("semantics",),
    "aer": ("emotion",), "asv": (), "ssl": (),
}  # fmt: skip


def rows_of(packs):
    """-> rows of both packs, with absolute `wav`, `wrd`, `semantics` and `split`"""
    rows = []
    for pack in ("dev_pack", "extra_ssl_pack"):
        with open(packs / pack / "manifest.csv", encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                row["wav"] = str((packs / pack / row["wav"]).resolve())
                row["wrd"] = row.get("transcript_norm") or row.get("transcript") or ""
                row["semantics"] = tagged(row.get("slots") or "")
                row["split"] = row.get("split") or "train"
                rows.append(row)
    return rows


def tagged(slots):
    """JSON of slots -> "<name> words > <name> words >" """
    return " ".join(f"<{name}> {value} >" for name, value in json.loads(slots or "{}").items())


def part(rows, name, seed=0):
    """The rows of one task, each with its split"""
    if name == "ssl":
        kept = [dict(row) for row in rows if row["split"] != "test"]
        return hold_out(kept, share=0.1, seed=seed)
    kept = [dict(row) for row in rows if row["corpus"] in CORPORA[name]]
    if name == "asv":  # LibriSpeech is tested; of its training speakers some are valid, the rest only teaches
        test = [row for row in kept if row["corpus"] == LIBRISPEECH and row["split"] == "test"]
        heard = [row for row in kept if row["corpus"] == LIBRISPEECH and row["split"] != "test"]
        more = [row for row in kept if row["corpus"] != LIBRISPEECH and row["split"] != "test"]
        return test + hold_out(heard, share=0.2, seed=seed) + [row | {"split": "train"} for row in more]
    if name == "slu":  # two of its rows are valid: too few to choose anything on
        test = [row for row in kept if row["split"] == "test"]
        return test + hold_out([row for row in kept if row["split"] != "test"], share=0.15, seed=seed)
    return kept


def hold_out(rows, share, seed):
    """Rows with `split` valid for a share of the speakers, train for the others"""
    speakers = sorted({row["spk_id"] for row in rows})
    random.Random(seed).shuffle(speakers)
    held = set(speakers[: round(share * len(speakers))])
    return [row | {"split": "valid" if row["spk_id"] in held else "train"} for row in rows]


def prepare(rows, packs, output):
    """Writes the manifests of every part -> {part: folder}"""
    folders = {}
    for name, labels in LABELS.items():
        found, fields = part(rows, name), (*COLUMNS, *labels, "split")
        found = [row for row in found if all(row[label] for label in labels if label != "translation_en")]
        found = [row for row in found if "translation_en" not in labels or row["translation_en"]]
        table, folders[name] = output / f"{name}.csv", output / name
        with open(table, "w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, fields, extrasaction="ignore")
            writer.writeheader()
            writer.writerows(found)
        columns = {label: label for label in (*COLUMNS, *labels)}
        report = prepare_own(table, columns, packs, folders[name], split="split", normaliser="none")
        print(f"{name}:", {split: marker["utterances"] for split, marker in report["splits"].items()})
    return folders


def task(recipe, hparams, folder, rates, modes=None, **overrides):
    manifests = {f"{split}_csv": str(folder / f"{split}.csv") for split in ("train", "valid", "test")}
    return {
        "recipe": f"recipes/{recipe}", "hparams": hparams, "grid": {"head_lr": rates},
        "modes": modes or {}, "overrides": manifests | overrides,
    }  # fmt: skip


def grid(folders, packs, output, encoder, exclude):
    """The grid as a mapping; budgets are equal within a task.

    encoder: a folder or Hub id, or the number of updates of pre-training; exclude: cells left out for now
    """
    asr = {
        "number_of_epochs": 15, "max_batch_seconds": 20, "key_metric": "CER",
        "mask": {"time_prob": 0.03, "channel_prob": 0.03},
    }  # fmt: skip
    source = {"project": 256, "layers": 2, "channels": 256, "size": 128, "hidden": 512, "dropout": 0.1}
    # 25 states a second of 50 frames by one convolution, of the filterbank's 100 by the two that are usual
    once = dict.fromkeys(("frozen", "end to end"), {"source": source | {"kernels": [5]}})
    ast = {
        "layer": "weighted", "number_of_epochs": 20, "max_batch_seconds": 20, "grad_accumulation_factor": 1,
        "schedule": {"warmup": 100}, "average_checkpoints": 3, "max_length": 40, "subwords": 200,
        "source": source, "head": {"layers": 2, "hidden": 512, "dropout": 0.1},
    }  # fmt: skip
    slu = {"number_of_epochs": 20, "max_batch_seconds": 20, "key_metric": "ChER"}
    aer = {"number_of_epochs": 10, "max_batch_seconds": 24}  # at the YAML's 100 s: 129 updates, too few
    asv = {
        "number_of_epochs": 15, "trials": "made",
        "head": {"channels": [128] * 4 + [384], "attention_channels": 64},
    }  # fmt: skip
    fr, mdw = folders["fr"], folders["mdw"]
    pretraining = {f"{split}_csv": str(folders["ssl"] / f"{split}.csv") for split in ("train", "valid")}
    ours = {
        "recipe": "recipes/pretraining/wav2vec2", "hparams": "mini.yaml", "slots": 2,
        "overrides": pretraining | {"number_of_updates": encoder, "precision": "bf16"},
    }  # fmt: skip
    return {
        "output": str(output / "grid"),
        "data_folder": str(packs),
        "encoders": {
            "ours": encoder if isinstance(encoder, str) else ours,
            "filterbank": "mel_filterbank",
            "random": "random:ours",
        },
        "tasks": {
            "ASR-fr": task(*CTC, fr, [0.003, 0.001], **asr),
            "AER": task("AER/CaFE", "conv_pool.yaml", folders["aer"], [0.001, 0.0003], **aer),
            "ASV": task("ASV/Fabiole", "ecapa.yaml", folders["asv"], [0.001, 0.0003], **asv),
            "SLU": task("SLU/MEDIA", "ctc.yaml", folders["slu"], [0.003, 0.001], **slu),
            "AST-fr-en": task(*TRANSLATION, fr, [0.002, 0.0007], once, target_language="en", **ast),
            "ASR-mdw": task(*CTC, mdw, [0.003, 0.001], **asr | {"number_of_epochs": 4}),
            "AST-mdw-fr": task(
                *TRANSLATION, mdw, [0.002, 0.0007], once,
                target_language="fr", **ast | {"number_of_epochs": 2},  # nearly the updates of fr-en
            ),
        },
        "modes": {
            "frozen": {"overrides": {"feature_cache": str(output / "frames")}},
            "end to end": {"overrides": {"encoder_lr": 0.0001}},
        },
        "exclude": [{"encoder": "random", "mode": ["end to end"]}, *exclude],
        "seeds": [1234],
        "overrides": {"precision": "bf16", "frame_norm": "cmvn"},  # as the filterbank's frames are
    }  # fmt: skip


def layers(whole, output):
    """The grid of the hidden states of `ours` one by one, frozen, on French recognition; whole: the grid"""
    given = whole["encoders"]["ours"]
    own = output / "grid" / "encoders" / "pretraining" / "ours" / "encoder"
    encoder = Path(given) if isinstance(given, str) else own
    if not (encoder / "config.json").is_file():
        raise UsageError(f"--layers: {encoder} is not there; run without it first.")
    count = 1 + json.loads((encoder / "config.json").read_text(encoding="utf-8"))["num_hidden_layers"]
    return whole | {
        "output": str(output / "layers"),
        "encoders": {
            f"layer {k}": {"source": str(encoder), "run_overrides": {"layer": k}} for k in range(count)
        },
        "tasks": {"ASR-fr": whole["tasks"]["ASR-fr"] | {"grid": {"head_lr": [0.003]}}},
        "exclude": [{"mode": ["end to end"]}],
    }


def chosen(whole, names):
    """The grid with these tasks alone; UsageError for one that it does not have"""
    for name in names:
        if name not in whole["tasks"]:
            raise UsageError(f"--tasks {name}: there are {', '.join(whole['tasks'])}.")
    return whole | {"tasks": {name: whole["tasks"][name] for name in names}}


def main(argv):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("packs", type=Path)
    parser.add_argument("--output", type=Path, default=Path("results/real"))
    parser.add_argument("--updates", type=int, default=3700, help="of pre-training")
    parser.add_argument("--encoder", help="folder or Hub id of one that is there, instead of pre-training")
    parser.add_argument("--layers", action="store_true", help="the encoder's layers one by one instead")
    parser.add_argument("--tasks", help="some of them, for now: ASR-fr,AER")
    parser.add_argument("--frozen_only", action="store_true", help="leave out end to end, for now")
    parser.add_argument(
        "--prepare_only", action="store_true", help="write manifests and grid.yaml, run nothing"
    )
    options = parser.parse_args(argv)
    packs, output = options.packs.resolve(), options.output.resolve()
    output.mkdir(parents=True, exist_ok=True)
    folders = prepare(rows_of(packs), packs, output)
    later = [{"mode": ["end to end"]}] if options.frozen_only else []
    whole = grid(folders, packs, output, options.encoder or options.updates, later)
    name = "grid.yaml"
    try:
        if options.layers:
            whole, name = layers(whole, output), "layers.yaml"
        elif options.tasks:
            whole = chosen(whole, options.tasks.split(","))
        with open(output / name, "w", encoding="utf-8") as file:
            YAML().dump(whole, file)
        return 0 if options.prepare_only else benchmark(output / name, show=True)
    except UsageError as error:
        raise SystemExit(f"error: {error}") from None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
