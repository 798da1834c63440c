"""What a folder says of who wrote it, so that only what we wrote is ever replaced."""

import hashlib
import json
import logging
import os
import re
from pathlib import Path

from lebench_sb.core import guard
from lebench_sb.core.errors import DataError, UsageError

logger = logging.getLogger(__name__)

MARK = "lebench_sb.json"  # {"written_by": WRITER, "files": {name: sha256}}
WRITER = "lebench_sb"
RUN = "hyperparams.yaml"  # beside the folders that a run exports
EXPORTED = ("encoder", "pretraining")
# what a run exported before there was a MARK
BEFORE = re.compile(
    r"config\.json|preprocessor_config\.json|model(-\d+-of-\d+)?\.safetensors|model\.safetensors\.index\.json"
    r"|CHECKPOINT\.txt|source\.json"
)


def mark(folder):
    """Writes MARK into a folder whose files are all ours"""
    files = {path.name: sha256(path) for path in sorted(folder.iterdir())}
    text = json.dumps({"written_by": WRITER, "files": files}, indent=1) + "\n"
    (folder / MARK).write_text(text, encoding="utf-8")


def check_replaceable(folder):
    """Raises FileExistsError or UsageError unless `folder` is nothing, is empty or was written by us"""
    folder = Path(folder)
    if folder.is_symlink():
        raise UsageError(
            f"{folder} is a symbolic link to {os.readlink(folder)}: remove it, or give another folder."
        )
    if not folder.exists():
        return
    if not folder.is_dir():
        raise FileExistsError(f"{folder} is a file: give another folder.")
    if any(folder.iterdir()) and not ours(folder):
        raise FileExistsError(
            f"{folder} exists and is not a Hugging Face folder that {WRITER} wrote: not replaced. Give "
            "another folder, or move it away."
        )


def ours(folder):
    """Whether we wrote a folder: it has our MARK, or is where a run exports"""
    return marked(folder) is not None or (folder.name in EXPORTED and (folder.parent / RUN).is_file())


def marked(folder):
    """{name: sha256} of what we wrote into a folder, None without a readable MARK"""
    path = folder / MARK
    if not path.is_file() or path.is_symlink():
        return None
    try:
        values = guard.read_json(path)
    except DataError:  # somebody else's file of that name
        return None
    files = values.get("files")
    return files if values.get("written_by") == WRITER and isinstance(files, dict) else None


def foreign(folder):
    """Names in a folder of ours that are not as we wrote them: added or changed since"""
    files = marked(folder)
    names = [path.name for path in sorted(folder.iterdir()) if path.name != MARK or files is None]
    if files is None:
        return [name for name in names if not BEFORE.fullmatch(name) or not (folder / name).is_file()]
    return [name for name in names if not unchanged(folder / name, files.get(name))]


def unchanged(path, digest):
    return path.is_file() and not path.is_symlink() and sha256(path) == digest


def move_aside(folder):
    """Renames a folder of ours that holds what we did not write, to `NAME.kept-N`; says so"""
    others = foreign(folder) if folder.is_dir() else []
    if not others:
        return
    number = 1
    while os.path.lexists(kept := folder.with_name(f"{folder.name}.kept-{number}")):
        number += 1
    folder.rename(kept)
    logger.warning(
        "%s held what %s did not write (%s): it is now %s", folder, WRITER, ", ".join(others[:5]), kept
    )


def sha256(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
