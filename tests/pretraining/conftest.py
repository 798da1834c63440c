"""A small labelled manifest for probes."""

import pytest

from lebench_sb.manifests.reading import read_manifest
from lebench_sb.manifests.utterance import Utterance
from lebench_sb.manifests.writing import write_manifest


@pytest.fixture
def labelled(corpus, tmp_path):
    """A manifest of two halves of a second of each recording, labelled so"""
    found = []
    for split in ("train", "valid"):
        for u in read_manifest(corpus / f"{split}.csv", corpus):
            for start in (0.0, 0.5):
                labels = {"half": "first" if start == 0 else "second", "one": "same"}
                name, stretch = f"{u.id}-{start}", (0.5, start, start + 0.5)
                found.append(Utterance(name, u.wav, *stretch, speaker=u.speaker, labels=labels))
    write_manifest(tmp_path / "probe.csv", found, corpus, {})
    return tmp_path / "probe.csv"
