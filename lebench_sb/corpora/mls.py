"""Multilingual LibriSpeech, French: LibriVox volunteers reading books (CC BY 4.0), 1,097 h, 178 speakers.

Each utterance of 10 to 20 s is cut out of a chapter:
`mls_french/{train,dev,test}/audio/SPEAKER/BOOK/SPEAKER_BOOK_nnnnnn.flac` (`.opus` in the compressed
`mls_french_opus/`), `transcripts.txt` (id, text) and `segments.txt` (id, url of the chapter, start, end in
seconds), tab-separated, and `mls_french/metainfo.txt`, a table with `|` of speakers, genders and books.
LeBenchmark's smallest models (1K) were trained on it: every split, no length filter. The gender is the
speaker's from metainfo.txt; the duration is end - start.
`limited_supervision/` is not used. https://www.openslr.org/94/ (Pratap et al., Interspeech 2020)
"""

import os
from pathlib import Path

from lebench_sb.audio.heads import MISSING
from lebench_sb.core.errors import Problems
from lebench_sb.core.paths import Finder
from lebench_sb.corpora._caveats import synthetic
from lebench_sb.corpora._prepare import THEIRS, by_split, check_split, corpus_folder, demand, hashes, prepare
from lebench_sb.corpora._text import readable
from lebench_sb.manifests.markers import LeftOut
from lebench_sb.manifests.tables import read_text
from lebench_sb.manifests.utterance import SECONDS, Utterance

LAYOUT = (
    "data_folder must hold mls_french/ (or mls_french_opus/) with metainfo.txt and train/, dev/, test/, "
    "each with transcripts.txt, segments.txt and audio/."
)


def prepare_mls(data_folder, manifest_folder, normaliser="fr-1"):
    """Writes train.csv, valid.csv and test.csv into `manifest_folder` and returns {split: marker}.

    data_folder: mls_french/ or the folder that holds it; normaliser: of the label `wrd`. Of train, up to 1 %
    of texts that the normaliser cannot read and of files without audio are left out, counted in the marker.
    A second call with the same parameters and unchanged text and audio files returns at once. Raises
    FileNotFoundError, DataError that lists what is wrong, and UsageError for files in `manifest_folder` that
    are not ours.
    """
    root = _root(data_folder)
    parameters = {"corpus": "mls", "normaliser": normaliser, "root": os.path.relpath(root, data_folder)}
    parameters["sha256"] = hashes(_tables(root), root)
    read = by_split(lambda split, left_out: utterances(data_folder, split, normaliser, left_out))
    return prepare(data_folder, manifest_folder, parameters, read, caveats=synthetic(root))


def utterances(data_folder, split, normaliser="fr-1", dropped=None):
    """Yields the Utterances of `split` (train, valid, test) in the order of segments.txt.

    dropped: the split's LeftOut, which receives {reason: count} of the utterances left out. Raises as
    prepare_mls does.
    """
    check_split(split, "MLS")
    root = _root(data_folder)
    folder = root / THEIRS[split]
    genders, problems = _genders(root / "metainfo.txt"), Problems(folder)
    transcripts = dict(_fields(folder / "transcripts.txt", 2, problems))
    utterances_found, finder = [], Finder(folder / "audio")
    for name, _, start, end in _fields(folder / "segments.txt", 4, problems):
        u = _utterance(finder, name, start, end, problems)
        if name not in transcripts:
            problems.add("in segments.txt, not in transcripts.txt", name)
        elif u is not None:
            utterances_found.append(u)
    left_out = LeftOut(split) if dropped is None else dropped
    texts = readable([(u.id, transcripts[u.id]) for u in utterances_found], normaliser, left_out, problems)
    problems.raise_if_any()
    for u, text in zip(utterances_found, texts, strict=True):
        if text is not None:
            gender = genders.get(u.speaker, "U")
            yield Utterance(u.id, u.wav, u.duration, None, None, u.speaker, gender, "fr", {"wrd": text})


def _utterance(finder, name, start, end, problems):
    """One line of segments.txt as an Utterance without gender and text; None, with a problem noted, for a bad
    line."""
    parts = name.split("_")
    if (
        len(parts) != 3
        or not (SECONDS.fullmatch(start) and SECONDS.fullmatch(end))
        or float(end) <= float(start)
    ):
        problems.add(
            "segments that are not SPEAKER_BOOK_nnnnnn, url, start < end in seconds", f"{name} {start} {end}"
        )
        return None
    path = f"{parts[0]}/{parts[1]}/{name}.flac"
    wav, fault = finder.find(path)  # .opus too
    if fault and fault != MISSING:
        problems.add(fault, path)
    wav = wav or os.path.join(finder.folder, path)
    return Utterance(name, wav, round(float(end) - float(start), 3), speaker=parts[0], labels={})


def _root(data_folder):
    root = corpus_folder(data_folder, "mls_french", "mls_french_opus")
    demand(_tables(root), LAYOUT, Path.is_file)
    return root


def _tables(root):
    names = ("transcripts.txt", "segments.txt")
    return [root / "metainfo.txt", *(root / split / name for split in THEIRS.values() for name in names)]


def _fields(path, width, problems):
    """The tab-separated fields of each line, of which the last may hold tabs where it is a text (width 2);
    lines of another width become problems. Quotation marks are text."""
    for number, line in enumerate(read_text(path).split("\n"), 1):
        fields = line.rstrip("\r").split("\t", 1 if width == 2 else -1)
        if len(fields) == width:
            yield fields
        elif line.strip():
            problems.add(
                f"lines of {path.name} without {width} tab-separated fields", f"line {number} {line[:60]!r}"
            )


def _genders(path):
    """{speaker: F or M} from metainfo.txt; a speaker it gives both genders is left out."""
    found = {}
    for line in read_text(path).splitlines()[1:]:
        fields = [field.strip() for field in line.split("|")]
        if len(fields) > 1 and fields[1] in ("F", "M"):
            found.setdefault(fields[0], set()).add(fields[1])
    return {speaker: genders.pop() for speaker, genders in found.items() if len(genders) == 1}
