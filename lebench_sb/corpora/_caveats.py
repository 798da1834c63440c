"""The caveats that weaken a score: speakers in train and test, and what preparations say of the miniature."""

from pathlib import Path

MINIATURE = "miniature.done.json"  # the marker that the miniature's build leaves beside its corpora
SAME_SPEAKER = "same speaker in train and test"


def synthetic(folder, above=1):
    """["synthetic speech"] if the miniature's marker lies in `folder` or in one of `above` folders over it"""
    folder = Path(folder).absolute()
    places = [folder, *folder.parents][: above + 1]
    return ["synthetic speech"] if any((place / MINIATURE).exists() for place in places) else []


def synthetic_emotion(folder):
    """The same of emotions, which the miniature only imitates"""
    caveats = synthetic(folder)
    return [*caveats, "emotion by prosody presets: plumbing check"] if caveats else []
