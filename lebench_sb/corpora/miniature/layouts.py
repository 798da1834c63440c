"""The layouts of the miniature: `layout_<corpus>.py` each writes one corpus as it is distributed.

A layout holds, and may leave out what has a default:

- `PARTS`: {"train": Part(...), "dev": ..., "test": ...}, its minutes and speakers; `WORDS` and `SAID`, which
  words and patterns are drawn; `utterance(source, speaker, rng)`, the sentences of one recording (one);
  or `clips(seed, scale)`, the whole plan.
- `SECONDS`: shortest and longest recording.
- `turns(clip)`: what is spoken, piece by piece with its prosody (the clip's text at once).
- `path(clip)`: of the recording below the build's folder; `store(path, wave)`: how it is written (by suffix).
- `write(folder, clips, recordings)`: the corpus's text files.
"""

import importlib
import pkgutil

from lebench_sb.core.errors import nearest
from lebench_sb.corpora import miniature

PREFIX = "layout_"


def names():
    """The corpora that the miniature can imitate, sorted"""
    found = [module.name for module in pkgutil.iter_modules(miniature.__path__)]
    return sorted(name.removeprefix(PREFIX) for name in found if name.startswith(PREFIX))


def layout(corpus):
    """The module of a corpus. Raises ValueError with the nearest name for one that is not imitated."""
    if corpus not in names():
        hint = nearest(corpus, names())
        raise ValueError(f"the miniature has no {corpus!r}{hint}; it has {', '.join(names())}.")
    return importlib.import_module(f"{miniature.__name__}.{PREFIX}{corpus}")
