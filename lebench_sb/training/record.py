"""What results.json holds of a run, put together from its Brain, its manifests and its settings."""

from lebench_sb.evaluation.provenance import describe_run
from lebench_sb.training import energy
from lebench_sb.training.data import describe_split, left_out, manifest_caveats, speakers_of
from lebench_sb.training.wrapping import without_ddp


def record_of(brain, utterances, rows, split, system):
    """-> the record. utterances: {split: Utterances}; rows: of the utterances of `split`."""
    hparams = vars(brain.hparams)
    unused = {"train": {}, "valid": {}, "test": {}}
    data = {s: describe_split(hparams[f"{s}_csv"], found) for s, found in utterances.items()}
    return {
        "task": hparams["task"],
        "corpus": hparams["corpus"],
        "split": split,
        "system": system,
        "layer": hparams["layer"],
        "mode": hparams["mode"],
        "metrics": brain.intervals(rows),
        "data": {**unused, **data},
        "text_normaliser": hparams["run"].get("text_normaliser", hparams["normaliser"]),
        "details": details_of(brain, utterances),
        "parameters": parameter_counts(brain.modules),
        "caveats": caveats_of(brain, utterances),
        "time": {
            "train_s": round(brain.train_seconds, 1),
            "device_h": round(brain.device_seconds / 3600, 4),
        },
        **describe_run(hparams["seed"], hparams["run"]["overrides"], hparams["run"]["command"]),
        "energy": energy.of_run(brain.folder),
    }


def details_of(brain, utterances):
    """{name: JSON value}: which weights were tested, changes on the way, what the checks before training
    found, how frames were normalised, what the task adds, utterances left out at preparation"""
    hparams, details = vars(brain.hparams), {"tested": brain.tested}
    if changes := hparams["run"].get("changes"):
        details["changes"] = changes
    if "checked" in hparams:  # by `run.start`
        details["data"] = hparams["checked"].details
    if "encoder" in brain.modules:  # pre-training has none
        details["frame_norm"] = without_ddp(brain.modules["encoder"]).frame_norm
    return {**details, **brain.details(), **left_out({s: hparams[f"{s}_csv"] for s in utterances})}


def caveats_of(brain, utterances):
    """What a reader of the figures must know, each once"""
    hparams = vars(brain.hparams)
    caveats = [*brain.caveats, *hparams["caveats"]]
    caveats += [caveat for split in utterances for caveat in manifest_caveats(hparams[f"{split}_csv"])]
    caveats += hparams["checked"].caveats if "checked" in hparams else []
    if speakers_of(utterances["train"]) & speakers_of(utterances.get("test", [])):
        caveats.append("same speaker in train and test")
    caveats += ["settings changed after the start"] if hparams["run"].get("changes") else []
    return list(dict.fromkeys([*caveats, "one seed"]))


def parameter_counts(modules):
    """Parameters of the encoder, and those that are trained (encoder or not)"""
    encoder = modules["encoder"] if "encoder" in modules else modules
    trained = sum(p.numel() for p in modules.parameters() if p.requires_grad)
    return {"encoder": sum(p.numel() for p in encoder.parameters()), "trained": trained}
