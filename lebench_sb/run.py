"""Starting and finishing a recipe: the command line, the run folder, preparation, training, test, results."""

import errno
import fcntl
import json
import logging
import os
import platform
import shlex
import shutil
import socket
import sys
import time
from contextlib import contextmanager
from dataclasses import replace
from logging.handlers import MemoryHandler
from pathlib import Path

import speechbrain as sb
import torch
from hyperpyyaml import resolve_references
from speechbrain.core import DEFAULT_LOG_CONFIG
from speechbrain.utils.distributed import ddp_barrier, ddp_init_group, if_main_process, run_on_main

from lebench_sb import results
from lebench_sb.command_line import UsageError, load_yaml, parse
from lebench_sb.data import manifest_paths
from lebench_sb.features import FeatureCache

logger = logging.getLogger(__name__)
SPLITS = ("train", "valid", "test")
# log.txt is of level DEBUG: without these it is a search for fonts, thousands of lines long
QUIETER = {"speechbrain.utils.checkpoints": logging.ERROR, "matplotlib": logging.INFO}


def start(argv):
    """Command line of a recipe -> (hparams, run options), with the run folder made and the processes joined.

    argv: the YAML first, then run options and overrides (`--key value` or `--key=value`).
    hparams is the loaded YAML; `hparams["run"]` holds the command and the overrides.
    Raises UsageError with the nearest right name for anything that is neither a key nor an option.
    """
    path, run_opts, overrides = parse(argv)
    if not torch.distributed.is_initialized():
        ddp_init_group(run_opts)
    with logs_held():
        hparams = load_yaml(path, overrides)
        script = Path(sys.argv[0])
        command = shlex.join(["python", str(script), *argv])
        hparams["run"] = {"command": command, "overrides": dict(overrides), "yaml": str(path)}
        make_run_folder(hparams, path, overrides, script, run_opts)
        run_opts = settle_precision(hparams, run_opts)
    prepare(hparams)
    return hparams, run_opts


def settle_precision(hparams, run_opts):
    """-> run options: fp32 in place of bf16 (also in hparams) on a CPU that only emulates it, at a sixtieth
    of the speed"""
    device = run_opts.device or ("cuda" if torch.cuda.is_available() else "cpu")
    if torch.device(device).type != "cpu" or has_bf16_units():
        return run_opts
    for name in ("precision", "eval_precision"):
        typed = name in run_opts.overridden_args
        if (run_opts.get(name) if typed else hparams.get(name)) == "bf16":
            hparams[name] = "fp32"
            run_opts = replace(run_opts, **{name: "fp32"})
            logger.warning("%s: fp32 in place of bf16, which this CPU has no units for.", name)
    return run_opts


def has_bf16_units():
    """Whether this CPU multiplies bfloat16 matrices itself (AVX-512 BF16, AMX, ARM BF16)"""
    x86 = [getattr(torch.cpu, f"_is_{name}_supported", None) for name in ("avx512_bf16", "amx_tile")]
    known = [ask() for ask in x86 if ask is not None and platform.machine() in ("x86_64", "AMD64")]
    return any(known) if known else torch.ops.mkldnn._is_mkldnn_bf16_supported()


@contextmanager
def logs_held():
    """Keeps what is logged while the YAML makes the model, and says it where `log.txt` has begun by then"""
    root = logging.getLogger()
    level, held = root.level, MemoryHandler(capacity=10_000, flushLevel=logging.CRITICAL + 1)
    root.addHandler(held)
    root.setLevel(min(level, logging.INFO))
    try:
        yield
    finally:
        begun = held not in root.handlers  # setting up `log.txt` takes other handlers away
        if not begun:
            root.removeHandler(held)
            root.setLevel(level)
        for record in held.buffer:
            if root.handlers:
                logging.getLogger(record.name).handle(record)
            elif record.levelno >= logging.WARNING:
                logging.lastResort.handle(record)


def make_run_folder(hparams, path, overrides, script, run_opts):
    """Writes `hyperparams.yaml`, the script, `env.log`; starts `log.txt`; refuses a folder in use."""
    folder = Path(hparams["output_folder"])
    if if_main_process():
        folder.mkdir(parents=True, exist_ok=True)
        hparams["run"]["lock"] = lock(folder)
        with open(path, encoding="utf-8") as source:
            resolved = resolve_references(source, overrides).read()
        (folder / "hyperparams.yaml").write_text(f"# Resolved from {path}\n{resolved}", encoding="utf-8")
        if script.suffix == ".py" and script.is_file():
            shutil.copy(script, folder / script.name)
        log = {"handlers": {"file_handler": {"filename": str(folder / "log.txt")}}}
        sb.utils.logger.setup_logging(run_opts.log_config or DEFAULT_LOG_CONFIG, log)
        for name, level in QUIETER.items():
            logging.getLogger(name).setLevel(level)
        description = sb.utils.logger.get_environment_description()
        (folder / "env.log").write_text(description, encoding="utf-8")
        logger.info("Run folder: %s", folder)
    ddp_barrier()


def lock(folder):
    """Holds `<folder>/.lock` until the process ends; raises UsageError if another run holds it, on this host
    or, where NFS hands locks to its server, on another. The file says who."""
    handle = open(folder / ".lock", "a+", encoding="utf-8")  # closed, and so released, with the process
    try:
        # lockf, not flock: forked data-loading workers that outlive a killed run must not hold it
        fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError) as error:
        handle.seek(0)
        raise UsageError(
            f"{folder}: another run writes here ({handle.read().strip() or 'just started'}); give another "
            "--output_folder."
        ) from error
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
            raise
        logger.warning("%s: this file system has no locks; see that no other run writes here.", folder)
        return handle
    handle.truncate(0)
    handle.write(f"process {os.getpid()} on {socket.gethostname()}\n")
    handle.flush()
    return handle


def prepare(hparams):
    """Writes the manifests on the main process, unless the command line names manifests itself."""
    named = [f"{split}_csv" for split in SPLITS if f"{split}_csv" in hparams["run"]["overrides"]]
    if named:
        logger.info("Preparation is left out: the command line gives %s.", ", ".join(named))
    else:
        run_on_main(hparams["prepare"])
    for split in SPLITS:
        for path in manifest_paths(hparams.get(f"{split}_csv", [])):
            if not path.is_file():
                raise FileNotFoundError(f"{path} not found: give --{split}_csv, or no _csv key at all.")


def fit_and_test(brain, utterances, datasets):
    """Trains, tests the checkpoint that is best on valid, writes `results.json`, exports a trained encoder.

    utterances, datasets: {"train": ..., "valid": ..., "test": ...}, the Utterances and the SpeechDatasets.
    """
    started = time.time()
    brain.meter.start()
    brain.cache = feature_cache(brain)
    brain.fit(datasets["train"], datasets["valid"])
    rows = brain.evaluate(datasets["test"])
    if brain.cache is not None:
        logger.info("Frames: %.0f MB in %s, %.1f s to compute", *brain.cache.summary())
    if brain.trains_encoder:
        export_encoder(brain)
    if if_main_process():
        record = brain.record(utterances, rows, "test", str(brain.hparams.ssl_hub))
        results.write_results(brain.folder, record, rows)
        for name, entry in record["metrics"].items():
            logger.info("test %s: %s", name, results.show(entry))
        tell_trivial(brain, rows)
    ddp_barrier()
    logger.info("Finished in %.0f s; results in %s", time.time() - started, brain.folder)


def tell_trivial(brain, rows):
    """Logs, and writes to `trivial.json`, how the run does against a system that hears nothing"""
    found = brain.against_trivial(rows)
    for name, entry in found.items():
        digits = results.digits_of(entry["unit"])
        value, difference = f"{entry['value']:.{digits}f}", f"{entry['difference']:+.{digits}f}"
        verdict = "without interval"
        if entry["ci95"] is not None:
            low, high = (f"{bound:+.{digits}f}" for bound in entry["ci95"])
            verdict = f"[{low}, {high}], {'better' if entry['beats'] else 'NOT better'}"
        logger.info("%s of %s: %s; minus it: %s %s", name, entry["system"], value, difference, verdict)
    (brain.folder / "trivial.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def feature_cache(brain):
    """The FeatureCache that the YAML asks for (`feature_cache`, a folder), or None"""
    folder, encoder = brain.hparams.feature_cache, brain.hparams.encoder
    if folder and encoder.num_layers == 0:
        logger.info("feature_cache: unused, %s is quicker to compute than to read.", encoder.source)
    if not folder or encoder.num_layers == 0:
        return None
    return FeatureCache(folder, encoder, brain.hparams.feature_cache_dtype)


def export_encoder(brain):
    """Writes `encoder/`, a Hugging Face folder with the weights now loaded (those best on valid)."""
    if if_main_process():
        with brain.unwrapped():
            brain.modules.encoder.export(brain.folder / "encoder")
    ddp_barrier()
