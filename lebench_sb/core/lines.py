"""JSON that every reader takes, and files that grow by lines, the last of which a kill may cut short."""

import json
import math
import os
from contextlib import contextmanager
from pathlib import Path


def finite(value):
    """A JSON value with None in place of NaN and the infinities, in dicts and lists too"""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def json_text(value, **options):
    """`value` as JSON proper, which has no NaN: null stands for it. options: those of json.dumps"""
    return json.dumps(finite(value), allow_nan=False, **options)


@contextmanager
def whole_or_not(path):
    """Inside, something is appended to a file; where that raises OSError (a full disk), the file becomes what
    it was"""
    path = Path(path)
    before = path.stat().st_size if path.exists() else None
    try:
        yield
    except OSError:
        if before is None:
            path.unlink(missing_ok=True)
        else:
            os.truncate(path, before)
        raise


def append_whole(path, text):
    """Appends `text`, on a line of its own also after one cut short. Raises OSError where the disk does not
    take it; the file is then as it was."""
    path = Path(path)
    with whole_or_not(path):
        cut = path.exists() and path.stat().st_size and last_byte(path) != b"\n"
        with open(path, "ab") as out:
            out.write((b"\n" if cut else b"") + text.encode())


def last_byte(path):
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1)


def read_records(path):
    """A file of JSON lines -> its dicts, in their order; [] where there is no file. Lines that are no JSON
    object, as a kill leaves them, are left out; NaN is read as it was written."""
    path = Path(path)
    text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    return [record for line in text.splitlines() if (record := record_of(line)) is not None]


def record_of(line):
    """A line -> its dict, None where it holds none"""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None
