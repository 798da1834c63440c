"""Starting and finishing a recipe: the command line, the run folder, preparation, training, test, results."""

import logging
import os
import platform
import shlex
import shutil
import sys
import time
from contextlib import contextmanager
from dataclasses import replace
from logging.handlers import MemoryHandler
from pathlib import Path

import speechbrain as sb
import torch
from speechbrain.core import DEFAULT_LOG_CONFIG
from speechbrain.utils.distributed import ddp_barrier, ddp_init_group, if_main_process

from lebench_sb.core.command_line import BESIDE, REFUSE, own_options, parse
from lebench_sb.core.errors import UsageError
from lebench_sb.core.files import refuse_links, temporary_name, write_atomically
from lebench_sb.core.lines import json_text
from lebench_sb.core.locks import take_or_refuse
from lebench_sb.core.yaml_values import build, plain_settings, plain_values, resolve
from lebench_sb.evaluation import provenance, results, schema, tables
from lebench_sb.manifests.markers import marker_path
from lebench_sb.manifests.member_names import manifest_paths
from lebench_sb.manifests.named import NOT_KNOWN, text_of
from lebench_sb.text.normaliser import normaliser
from lebench_sb.training import inputs
from lebench_sb.training.before_training import check_before_training
from lebench_sb.training.features import FeatureCache
from lebench_sb.training.processes import on_main, processes
from lebench_sb.training.record import record_of
from lebench_sb.training.speech import speech_of

logger = logging.getLogger(__name__)
SPLITS = ("train", "valid", "test")
# log.txt is of level DEBUG: without these it is a search for fonts, thousands of lines long
QUIETER = {"speechbrain.utils.checkpoints": logging.ERROR, "matplotlib": logging.INFO}


def start(argv):
    """Command line of a recipe -> (hparams, run options), with the run folder made and the processes joined.

    argv: the YAML first, then run options and overrides (`--key value` or `--key=value`).
    hparams is the loaded YAML; `hparams["run"]` holds the command, the overrides, and what has changed since
    the folder began. Nothing is built, and nothing written, before the settings are checked and compared with
    those the folder began with; no model before the data is there.
    Raises UsageError with the nearest right name for anything that is neither a key nor an option, and for a
    folder that began otherwise.
    """
    words, options = own_options(argv)
    path, run_opts, overrides = parse(words)
    resolved = resolve(path, overrides)
    if not torch.distributed.is_initialized():
        ddp_init_group(run_opts)
    check_settings(plain_values(resolved), path)
    with logs_held():
        run = RunFolder(resolved, path, overrides, run_opts, options["if_changed"])
        run.enter()
        settings = plain_settings(resolved, path)
        texts = run.texts(settings)
        checked = check_before_training(settings, settings["task"])
        hparams = build(resolved, path)
        hparams["checked"] = checked
        run.note_encoders()
        hparams["checkpointer"].reset_missing = options["reset_missing"]
        command = shlex.join(["python", sys.argv[0], *argv])
        hparams["run"] = {
            "command": command, "overrides": dict(overrides), "yaml": str(path), "lock": run.handle,
            "changes": run.changes, "text_normaliser": texts, **options,
        }  # fmt: skip
        hparams["normaliser"] = normaliser_of(texts, settings["normaliser"])
        run_opts = settle_precision(hparams, run_opts)
    return hparams, run_opts


def normaliser_of(texts, wanted):
    """The normaliser of a run: what the texts of its manifests went through, the YAML's where nobody knows"""
    if texts in (wanted, NOT_KNOWN):
        return wanted
    logger.info("The manifests were prepared with normaliser %s, which holds for this run.", texts)
    return texts


def check_settings(values, path):
    """Raises UsageError for a folder that is no text, and for what results.json will refuse"""
    for key in ("output_folder", "save_folder", "data_folder"):
        if key in values and not isinstance(values[key], str):
            raise UsageError(f"{path}: {key}: {values[key]!r}: a text is expected, in quotation marks.")
    schema.check_begin(values)
    if "normaliser" in values:
        normaliser(values["normaliser"])  # raises for a name that is none


class RunFolder:
    """The folder of a run: compared with what it began with, then written.

    resolved: text of the YAML; policy: what to do where it began otherwise (see training/inputs.py).
    """

    def __init__(self, resolved, path, overrides, run_opts, policy):
        self.resolved, self.path, self.overrides, self.policy = resolved, path, overrides, policy
        self.values, self.log_config = plain_values(resolved), run_opts.log_config
        self.folder = Path(self.values["output_folder"])
        self.saved = Path(self.values.get("save_folder", self.folder / "save"))
        self.debug = bool(run_opts.debug and not run_opts.debug_persistently)
        self.test_only = run_opts.test_only
        self.typed = {name: getattr(run_opts, name) for name in run_opts.overridden_args}
        self.changes, self.handle, self.old, self.speech = [], None, {}, None
        self.named = [f"{split}_csv" for split in SPLITS if f"{split}_csv" in overrides]

    @property
    def homes(self):
        """Where the record of what began lies: beside the checkpoints, too, if these lie elsewhere"""
        return [self.folder] if self.saved.is_relative_to(self.folder) else [self.folder, self.saved]

    def enter(self):
        """Compares, writes `hyperparams.yaml`, the script, `env.log`, starts `log.txt`, prepares the
        manifests; holds the folder's lock from then on"""
        on_main(self.lock)
        first = on_main(self.compare)
        for step in (self.write, self.prepare) if first else (self.prepare_anew, self.write):
            on_main(step)
        self.changes = on_main(self.note_speech)

    def lock(self):
        """Refuses links out of the folder, makes it, and holds its lock. Main process only, as all below"""
        for home in self.homes:
            if home.is_dir():
                refuse_links(home, sorted(path.name for path in home.iterdir() if path.is_symlink()))
            home.mkdir(parents=True, exist_ok=True)
        self.handle = lock(self.folder)

    def compare(self):
        """Compares settings, encoders and files with those of the folder -> whether there is no speech to
        compare: the folder is new, or does not say"""
        trains = None if self.test_only else processes()
        self.record = inputs.record_of(self.resolved, self.values, self.typed, trains)
        self.record["debug"] = self.debug
        if not inputs.has_begun(self.folder, self.saved):
            return True
        records = [inputs.read(home) for home in self.homes]
        self.old = next((record for record in records if record), {})
        found = [line for record in records for line in inputs.differences(record, self.record)]
        self.settle(list(dict.fromkeys(found)))
        return not self.old.get("speech")

    def settle(self, differing):
        """Does what the policy says where something differs"""
        if not differing:
            return
        if self.debug and self.old.get("debug"):
            inputs.throw_away(self.homes)
            self.old = {}
            self.lock()
        elif self.policy == REFUSE:
            raise inputs.refusal(self.folder, differing)
        elif self.policy == BESIDE:
            aside = inputs.move_aside(self.homes)
            logger.warning("%s: the earlier run is now %s", self.folder, ", ".join(map(str, aside)))
            self.old = {}
            self.lock()
        else:
            logger.warning("%s goes on with changes: %s", self.folder, "; ".join(differing))
            self.old = inputs.changed(self.old, differing)

    def write(self):
        """Writes what repeats the run, starts `log.txt`"""
        folder, script = self.folder, Path(sys.argv[0])
        write_atomically(folder / "hyperparams.yaml", f"# Resolved from {self.path}\n{self.resolved}")
        if script.suffix == ".py" and script.is_file():
            write_atomically(folder / script.name, script.read_bytes())
        log = {"handlers": {"file_handler": {"filename": str(folder / "log.txt")}}}
        sb.utils.logger.setup_logging(self.log_config or DEFAULT_LOG_CONFIG, log)
        for name, level in QUIETER.items():
            logging.getLogger(name).setLevel(level)
        write_atomically(folder / "env.log", provenance.environment() + accelerators())
        logger.info("Run folder: %s", folder)
        self.note_inputs()

    def note_inputs(self):
        """Writes `inputs.json`: what is known by now"""
        version = provenance.code_version()
        if (then := self.old.get("version", version)) != version:
            logger.warning("The code is another than when the folder began: %s, now %s", then, version)
        record = {**self.record, "version": version, "changes": self.old.get("changes", [])}
        if "speech" in self.old:
            record["speech"] = self.old["speech"]
        if self.test_only:  # which says nothing of the updates that were made
            record["settings"] = {**self.old.get("settings", {}), **record["settings"]}
        inputs.write(self.homes, record, anew=not self.old)

    def prepare(self):
        """Writes the manifests, unless the command line names manifests itself, made as it says"""
        prepare = build(self.resolved, self.path, only=["prepare"])["prepare"]
        if self.named:
            logger.info("Preparation is left out: the command line gives %s.", ", ".join(self.named))
        else:
            prepare()
        for split, paths in self.manifests().items():
            for path in paths:
                if not path.is_file():
                    raise FileNotFoundError(f"{path} not found: give --{split}_csv, or no _csv key at all.")
        everything = [path for paths in self.manifests().values() for path in paths]
        text_of(everything, prepare, self.values.get("normaliser", "none"), self.overrides, self.named)

    def prepare_anew(self):
        """As `prepare`, in a folder whose run goes on: manifests that turn out to be of other speech give way
        to those that were there"""
        written = [] if self.named else [path for paths in self.manifests().values() for path in paths]
        with kept_aside(written) as restore:
            self.prepare()
            self.speech = self.hear()
            differing = inputs.differences({"speech": self.old["speech"]}, {"speech": self.speech})
            if differing and (self.policy == BESIDE or self.debug):
                restore()
            self.settle(differing)
        if differing and not self.old:
            self.prepare()

    def texts(self, settings):
        """What results.json says of the normaliser that the texts of the manifests went through. Raises
        UsageError where the command line asks for another. settings: plain values of the YAML"""
        paths = [path for found in self.manifests().values() for path in found]
        prepare, wanted = build(self.resolved, self.path, only=["prepare"])["prepare"], settings["normaliser"]
        return text_of(paths, prepare, wanted, self.overrides, self.named) or wanted

    def note_speech(self):
        """Writes down which speech the run began with, where nothing says it yet -> the changes so far"""
        inputs.write(self.homes, {"speech": self.speech or self.hear()})
        return self.old.get("changes", [])

    def note_encoders(self):
        """Writes down which encoders the run began with, now that those of the Hub are here"""
        if if_main_process():
            inputs.write(self.homes, {"encoders": inputs.encoders_of(self.values)})

    def manifests(self):
        """{split: paths} of the splits that the YAML has"""
        keys = {split: f"{split}_csv" for split in SPLITS if f"{split}_csv" in self.values}
        found = build(self.resolved, self.path, only=keys.values())  # LeBenchmark's models ask for theirs
        return {split: manifest_paths(found[key]) for split, key in keys.items()}

    def hear(self):
        return speech_of(self.manifests(), self.values["data_folder"])


@contextmanager
def kept_aside(manifests):
    """Copies manifests and their markers for the length of the block; yields the function that puts them
    back, which an error does, too"""
    files = [file for path in manifests for file in (path, marker_path(path)) if file.is_file()]
    copies = {file: temporary_name(file) for file in files}
    for file, copy in copies.items():
        shutil.copy2(file, copy)

    def restore():
        for file, copy in copies.items():
            os.replace(copy, file)

    try:
        yield restore
    except BaseException:
        restore()
        raise
    finally:
        for copy in copies.values():
            copy.unlink(missing_ok=True)


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


def accelerators():
    """A line for `env.log`: the devices that torch sees"""
    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    built = torch.version.cuda or torch.version.hip or "no CUDA"
    return f"\nDevices ({built}): {', '.join(names) or 'CPU'}\n"


def has_bf16_units():
    """Whether this CPU multiplies bfloat16 matrices itself (AVX-512 BF16, AMX, ARM BF16)"""
    x86 = [getattr(torch.cpu, f"_is_{name}_supported", None) for name in ("avx512_bf16", "amx_tile")]
    answers = [ask() for ask in x86 if ask is not None and platform.machine() in ("x86_64", "AMD64")]
    return any(answers) if answers else torch.ops.mkldnn._is_mkldnn_bf16_supported()


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


def lock(folder):
    """Holds `<folder>/.lock` until the process ends; raises UsageError if another run holds it"""
    return take_or_refuse(
        folder / ".lock",
        "see that no other run writes here",
        lambda holder: f"{folder}: another run writes here ({holder}); give another --output_folder.",
    )


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
        record = record_of(brain, utterances, rows, "test", str(brain.hparams.ssl_hub))
        results.write_results(brain.folder, record, rows)
        for name, entry in record["metrics"].items():
            logger.info("test %s: %s", name, tables.show(entry))
        tell_trivial_baseline(brain, rows)
        brain.draw(rows)
    ddp_barrier()
    logger.info("Finished in %.0f s; results in %s", time.time() - started, brain.folder)


def tell_trivial_baseline(brain, rows):
    """Logs, and writes to `trivial_baseline.json`, how the run does against the trivial baseline"""
    entries = brain.against_trivial_baseline(rows)
    for name, entry in entries.items():
        digits = tables.digits_of(entry["unit"])
        value, difference = f"{entry['value']:.{digits}f}", f"{entry['difference']:+.{digits}f}"
        verdict = "without interval"
        if entry["ci95"] is not None:
            low, high = (f"{bound:+.{digits}f}" for bound in entry["ci95"])
            verdict = f"[{low}, {high}], {'better' if entry['beats'] else 'NOT better'}"
        logger.info("%s of %s: %s; minus it: %s %s", name, entry["system"], value, difference, verdict)
    write_atomically(brain.folder / "trivial_baseline.json", json_text(entries, indent=1) + "\n")


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
