"""Checkpoints that survive a kill at any moment, a save included."""

import json
import logging
import os
import shutil
import zlib
from pathlib import Path

import torch
from ruamel.yaml import YAML
from speechbrain.utils.checkpoints import METAFNAME, Checkpointer
from speechbrain.utils.distributed import ddp_barrier, if_main_process

logger = logging.getLogger(__name__)
FILES = "files.json"
UNFINISHED = "unfinished-"


class SafeCheckpointer(Checkpointer):
    """SpeechBrain's Checkpointer, but a checkpoint exists entirely or not at all.

    It is written to a temporary folder, synced, described by `files.json` (size and CRC-32 of each file) and
    renamed. A folder without that description, or whose files differ from it, is passed over with a message;
    the newest valid one is used. Nothing invalid is deleted.
    """

    def save_checkpoint(self, meta={}, end_of_epoch=True, name=None, verbosity=logging.INFO):  # noqa: B006
        """As Checkpointer.save_checkpoint; `meta` must hold plain numbers and strings."""
        for key, value in meta.items():
            if not isinstance(value, (bool, int, float, str)):
                raise TypeError(f"meta[{key!r}] is a {type(value).__name__}: only scalars can be read back.")
        final = self._custom_checkpoint_dirpath(name) if name else self._new_checkpoint_dirpath()
        checkpoint = super().save_checkpoint(meta, end_of_epoch, UNFINISHED + final.name, verbosity)
        ddp_barrier()  # every process has written its part
        if if_main_process():
            describe(checkpoint.path)
            os.rename(checkpoint.path, final)
            sync(final.parent)
            paramfiles = {key: final / file.name for key, file in checkpoint.paramfiles.items()}
            checkpoint = checkpoint._replace(path=final, paramfiles=paramfiles)
        ddp_barrier()
        return checkpoint

    def _custom_checkpoint_dirpath(self, name):
        if name.startswith(UNFINISHED):
            path = self.checkpoints_dir / name
            shutil.rmtree(path, ignore_errors=True)  # what a kill left
            return path
        return super()._custom_checkpoint_dirpath(name)

    def _list_checkpoint_dirs(self):
        return [path for path in super()._list_checkpoint_dirs() if self._is_valid(path)]

    def _is_valid(self, path):
        problem = fault(path)
        if problem and problem not in self.__dict__.setdefault("_told", set()):
            self._told.add(problem)
            logger.warning("Checkpoint passed over: %s", problem)
        return not problem

    def load_checkpoint(self, checkpoint):
        """Loads it if its files have the content they were saved with; raises OSError if not."""
        problem = fault(checkpoint.path, content=True)
        if problem:
            raise OSError(f"{problem}. Remove this folder to go on from the checkpoint before it.")
        super().load_checkpoint(checkpoint)


def best_checkpoint(run_folder):
    """The folder of a run's checkpoint that is best on valid by the run's own key_metric.

    Raises FileNotFoundError for a folder that is no run, or has no checkpoint of a whole epoch.
    """
    run_folder = Path(run_folder)
    settings, saved = run_folder / "hyperparams.yaml", run_folder / "save"
    if not settings.is_file() or not saved.is_dir():
        raise FileNotFoundError(f"{run_folder} is not the folder of a run: no hyperparams.yaml and save/.")
    hparams = read_settings(run_folder)
    end = "min_key" if hparams["key_metric_is_better"] == "lower" else "max_key"
    found = SafeCheckpointer(saved).find_checkpoint(**{end: hparams["key_metric"]})
    if found is None:
        raise FileNotFoundError(f"{saved} holds no checkpoint of a whole epoch: train that run first.")
    return found.path


def read_settings(run_folder):
    """The resolved YAML of a run, nothing built"""
    return YAML().load((Path(run_folder) / "hyperparams.yaml").read_text(encoding="utf-8"))


def trained_state(module):
    """The state of a module without its frozen parameters, which come back with its source"""
    frozen = {name for name, parameter in module.named_parameters() if not parameter.requires_grad}
    return {name: value for name, value in module.state_dict().items() if name not in frozen}


def save_trained(module, path):
    """Save hook of a Checkpointer: see `trained_state`"""
    if if_main_process():
        torch.save(trained_state(module), path)


def load_trained(module, path, end_of_epoch):
    """Load hook for `save_trained`; raises KeyError naming a trained weight the file lacks or does not
    know."""
    put_trained(module, torch.load(path, map_location="cpu", weights_only=True), path)


def put_trained(module, state, where):
    """Loads a `trained_state`; raises KeyError naming `where` and a trained weight it lacks or does not
    know."""
    differing = sorted(set(state) ^ set(trained_state(module)))
    if differing:
        raise KeyError(
            f"{where} and this model train other weights, first {differing[:5]}: new output_folder?"
        )
    module.load_state_dict(state, strict=False)


def describe(folder):
    """Syncs the files of `folder` and writes their sizes and CRC-32 to `files.json`, last."""
    described = {}
    for path in sorted(Path(folder).iterdir()):
        described[path.name] = {"size": path.stat().st_size, "crc32": crc32(path)}
        sync(path)
    with open(folder / FILES, "w", encoding="utf-8") as out:
        json.dump(described, out, indent=1)
        out.flush()
        os.fsync(out.fileno())
    sync(folder)


def fault(folder, content=False):
    """What is wrong with a checkpoint folder, or "". content=True also compares CRC-32."""
    if not (folder / FILES).is_file():
        return f"{folder} has no {FILES}: its save did not finish"
    try:
        described = json.loads((folder / FILES).read_text(encoding="utf-8"))
    except ValueError:
        return f"{folder}/{FILES} cannot be read"
    if METAFNAME not in described:
        return f"{folder}/{FILES} does not list {METAFNAME}"
    for name, expected in described.items():
        path = folder / name
        if not path.is_file() or path.stat().st_size != expected["size"]:
            return f"{path} is missing or has another size than when it was saved"
        if content and crc32(path) != expected["crc32"]:
            return f"{path} has another content than when it was saved"
    return ""


def crc32(path):
    """CRC-32 of a file, read in pieces of 8 MiB"""
    value = 0
    with open(path, "rb") as file:
        while piece := file.read(1 << 23):
            value = zlib.crc32(piece, value)
    return value


def sync(path):
    """fsync of a file or a folder"""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
