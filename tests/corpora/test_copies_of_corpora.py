"""Corpora as people's disks have them: suffixes in capitals, what macOS leaves beside every file, pipes."""

import os
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
import test_allosat
import test_cafe
import test_etape
import test_fabiole
import test_media
import test_mtedx
import test_orfeo
import test_recola
import test_rhapsodie

from lebench_sb.core.errors import DataError, exit_code, one_line
from lebench_sb.corpora.allosat import prepare_allosat
from lebench_sb.corpora.cafe import prepare_cafe
from lebench_sb.corpora.etape import prepare_etape
from lebench_sb.corpora.fabiole import prepare_fabiole
from lebench_sb.corpora.media import DATA, prepare_media
from lebench_sb.corpora.mtedx import prepare_mtedx
from lebench_sb.corpora.orfeo import prepare_orfeo
from lebench_sb.corpora.recola import prepare_recola
from lebench_sb.corpora.rhapsodie import prepare_rhapsodie
from lebench_sb.manifests.reading import read_manifest


def media(folder):
    data = folder / DATA
    (data / "semantizer_files").mkdir(parents=True)
    for name, number in test_media.LOTS.items():
        (data / f"{name}.xml").write_text(test_media.LOT.format(name=number), "iso-8859-1")
    (data / "semantizer_files" / "7_HC.xml").write_text(test_media.FLAT, "iso-8859-1")
    (folder / "S0272").mkdir()
    for number in range(1, 8):
        soundfile.write(folder / "S0272" / f"{number}.wav", np.full(40000, 0.1), 8000)
    (folder / "channels.csv").write_text(test_media.CHANNELS)


def fabiole(folder):
    test_fabiole.fabiole(folder / "fabiole")
    test_fabiole.training(folder / "learnt")


def prepare_both_of_fabiole(folder, manifests):
    (learnt,) = (folder / "learnt").rglob("*.csv")
    return prepare_fabiole(folder, manifests, str(learnt), str(folder / "learnt"))


CORPORA = {  # name: (writes one, prepares it, a file of its annotations)
    "allosat": (test_allosat.corpus, prepare_allosat, "annotations/labels/*.csv"),
    "cafe": (test_cafe.corpus, prepare_cafe, "CaFE_48k/J/01-*.wav"),
    "etape": (test_etape.corpus, prepare_etape, "train/*.trs"),
    "media": (media, lambda *folders: prepare_media(*folders, test2=True), f"{DATA}/media_lot1.xml"),
    "mtedx": (test_mtedx.corpus, prepare_mtedx, "fr-en/data/train/txt/train.yaml"),
    "orfeo": (test_orfeo.corpus, prepare_orfeo, "r0.orfeo"),
    "recola": (test_recola.corpus, prepare_recola, "ratings_gold_standard/arousal/*.arff"),
    "rhapsodie": (test_rhapsodie.corpus, prepare_rhapsodie, "*-train.conllu"),
    "fabiole": (fabiole, prepare_both_of_fabiole, "fabiole/trials.txt"),
}


def rows(folder, manifests, splits):
    """What manifests say, paths without suffixes, in lower case"""
    return [
        (
            split,
            u.id,
            u.duration,
            Path(u.wav).stem,
            u.speaker,
            {k: v for k, v in u.labels.items() if k != "trace"},
        )
        for split in splits
        for u in read_manifest(manifests / f"{split}.csv", folder)
    ]


@pytest.mark.parametrize("name", CORPORA)
def test_capitals_and_what_macos_leaves(tmp_path, name):
    write, prepare, _ = CORPORA[name]
    folder = tmp_path / "data"
    folder.mkdir()
    write(folder)
    expected = rows(folder, tmp_path / "a", prepare(folder, tmp_path / "a"))
    for path in [path for path in folder.rglob("*") if path.is_file() and "learnt" not in path.parts]:
        whole = path.rename(path.with_suffix(path.suffix.upper()))
        whole.with_name(f"._{whole.name}").write_bytes(b"Mac OS X")
        copy = folder / "__MACOSX" / whole.relative_to(folder)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.with_name(f"._{whole.name}").write_bytes(b"Mac OS X")
        copy.write_bytes(b"Mac OS X")
    assert rows(folder, tmp_path / "b", prepare(folder, tmp_path / "b")) == expected and expected


@pytest.mark.parametrize("kind", ["annotation", "recording"])
@pytest.mark.parametrize("name", CORPORA)
def test_a_pipe_is_told_and_not_waited_for(tmp_path, name, kind):
    write, prepare, annotation = CORPORA[name]
    folder = tmp_path / "data"
    folder.mkdir()
    write(folder)
    audio = sorted(p for p in folder.rglob("*") if p.suffix in (".wav", ".flac") and "learnt" not in p.parts)
    path = audio[0] if kind == "recording" else sorted(folder.glob(annotation))[0]
    path.unlink()
    os.mkfifo(path)
    began = time.monotonic()
    with pytest.raises((DataError, OSError)) as error:
        prepare(folder, tmp_path / "m")
    assert exit_code(error.value) in (2, 3) and path.name in one_line(error.value)
    assert time.monotonic() - began < 20
