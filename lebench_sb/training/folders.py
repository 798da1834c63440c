"""Where runs lie unless the user says otherwise."""

import hashlib
import re

LONGEST = 60  # characters of a name made from a path


def run_folder(*parts):
    """("results/ASR/CommonVoice/ctc", encoder, mode, 1) -> "results/ASR/CommonVoice/ctc/encoder/mode/seed1"

    Each part after the first becomes one folder: a path or Hub id its characters that any file system takes,
    a number `seed<number>`. YAMLs name it by `!applyref:`, so that two encoders never share a folder.
    """
    first, *others = parts
    return "/".join([str(first), *(name_of(part) for part in others if part != "")])


def name_of(part):
    """One folder's name for a value: letters, digits and `.-_`, a long one cut, with a hash of all of it"""
    if isinstance(part, int):
        return f"seed{part}"
    name = re.sub(r"[^\w.-]+", "_", str(part)).strip("._") or "none"
    if len(name) <= LONGEST:
        return name
    return f"{name[-LONGEST:].lstrip('._')}-{hashlib.sha256(str(part).encode()).hexdigest()[:6]}"
