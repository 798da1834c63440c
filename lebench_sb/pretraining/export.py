"""What a pre-training run leaves: folders of the best checkpoint, results.json, pictures."""

import logging

from speechbrain.utils.distributed import ddp_barrier, if_main_process

from lebench_sb.encoders.model_folders import save_encoder
from lebench_sb.evaluation import results
from lebench_sb.evaluation.plots import attempt, learning_curves
from lebench_sb.pretraining.monitor.drawing import codebook_usage
from lebench_sb.training.brain import VALID
from lebench_sb.training.record import record_of

logger = logging.getLogger(__name__)


def pretrain_and_export(brain, utterances, datasets):
    """Trains; from the checkpoint with the lowest validation loss writes `pretraining/`, `encoder/`,
    results.json and the plots.

    All of it is made of that checkpoint and of files: a run stopped here finishes with the same command.
    """
    brain.fit(datasets["train"], datasets["valid"])
    best = brain.load_best()
    brain.run_stage(brain.loader(datasets["valid"], VALID), VALID, None)
    whole = brain.whole_model()
    if if_main_process():
        export(brain, whole, best)
        record = record_of(brain, utterances, brain.rows, "valid", str(brain.folder / "encoder"))
        results.write_results(brain.folder, record, brain.rows)
        plot(brain, best)
        logger.info("Encoder of update %s in %s", best["update"], brain.folder / "encoder")
    ddp_barrier()


def export(brain, hf, best):
    """`pretraining/` with all heads and `encoder/` without, each saying which update it is"""
    normalise = brain.hparams.do_normalize
    story = story_of(brain, best)
    save_encoder(hf, brain.folder / "pretraining", normalise, story)
    save_encoder(hf.base_model, brain.folder / "encoder", normalise, story)


def story_of(brain, best):
    """{file: text} that says which checkpoint is exported; best: its metadata"""
    key = brain.hparams.key_metric
    best_is = "Lowest" if brain.hparams.key_metric_is_better == "lower" else "Highest"
    return {"CHECKPOINT.txt": f"{best_is} validation {key}: {best[key]:.4f} at update {best['update']}.\n"}


def plot(brain, best):
    """Learning curves, and how often the exported weights choose each code on valid, also on the dashboard"""
    codes, what = brain.valid_sums["codes"].numpy(), f"exported checkpoint, update {best['update']}"
    if brain.watch is not None:
        brain.watch.show_codes(codes, what)
        brain.watch.write("finished")
    curves = {"pre-training": brain.folder / "steps.jsonl"}
    attempt(learning_curves, curves, brain.folder / "learning_curves.png")
    attempt(codebook_usage, codes, brain.folder / "codebook_usage.png", what)
