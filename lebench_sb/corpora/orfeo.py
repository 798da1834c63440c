"""CEFC-Orféo: 150 h of spoken French with automatic dependency trees and the time of every word.

Each recording has a `NAME.orfeo`: CoNLL-U with at least twelve columns, of which the eleventh and twelfth
are the begin and end of the word in seconds, and a thirteenth, where there is one, its speaker. Tags and
relations are the corpus's own. One utterance is a sentence (`# sent_id`), cut out of `NAME.wav` (or .flac,
.mp3, .ogg) anywhere below data_folder. wav2tree and LeBenchmark 2.0 used 122.1 h / 11.57 h / 11.62 h with
158,778 / 15,000 / 15,000 trees; how they were drawn is not published: `prepare_orfeo` says what is done here.
https://repository.ortolang.fr/api/content/cefc-orfeo (Benzitoun, Debaisieux & Deulofeu 2016)
"""

import os
import re
from collections import Counter
from pathlib import Path

from lebench_sb.core.errors import SHOWN, DataError, Problems, nearest
from lebench_sb.core.paths import below, files_below
from lebench_sb.corpora._caveats import synthetic
from lebench_sb.corpora._prepare import THEIRS, corpus_folder, hashes, prepare
from lebench_sb.corpora._splits import drawn
from lebench_sb.corpora.formats.treebanks import TREES, Reader
from lebench_sb.manifests.tables import read_text
from lebench_sb.manifests.trees import metadata, parse_block, sentences
from lebench_sb.manifests.utterance import SECONDS

# names with a mark are read as text: what stands there need not follow Universal Dependencies
TIMED = (*"id form lemma upos xpos_ feats_ head deprel deps_ misc_".split(), "begin", "end")
SPEAKER = "speaker"
UNLISTED, NO_NAME = "in no list of a split", "names of no recording or sentence"
LAYOUT = (
    "data_folder must hold *.orfeo files (CoNLL-U with begin and end of each word) and their recordings; to "
    "choose the splits, also folders train/, dev/, test/ or lists train.txt, dev.txt, test.txt (a recording "
    "or a sent_id a line)."
)


def prepare_orfeo(
    data_folder, manifest_folder, normaliser="fr-1", ratios=(0.84, 0.08, 0.08), seed=1234, drop_bad=False,
    multiword="merge",
):  # fmt: skip
    """Writes train.csv, valid.csv and test.csv into `manifest_folder` and returns {split: marker}.

    data_folder: Orféo's, or one that holds it as orfeo/. The splits: lists `train.txt`, `dev.txt`, `test.txt`
    where they are; else folders `train/`, `dev/`, `test/`; else whole recordings are drawn with `seed` until
    each split has its share (`ratios` of train, valid, test) of the seconds. normaliser, multiword: as in
    trees.spoken_tree; drop_bad: leave faulty sentences out and count them in the markers, instead of
    stopping.

    A second call with the same parameters and unchanged text files returns at once. Raises FileNotFoundError,
    or DataError that lists what is wrong.
    """
    folder = corpus_folder(data_folder, "orfeo")
    files = _files(folder)
    parameters = {
        "corpus": "orfeo",
        "root": os.path.relpath(folder, data_folder),
        **{"normaliser": normaliser, "ratios": list(ratios), "seed": seed},
        **{"drop_bad": drop_bad, "multiword": multiword},
        "sha256": hashes([*files, *_lists(folder).values()], folder),
    }

    def read(left_out):
        reader = Reader(folder, folder, normaliser, multiword)
        sentences = reader.within_recordings(list(_utterances(files, reader)))
        return _split(folder, files, sentences, reader.finish(drop_bad), ratios, seed, left_out)

    return prepare(data_folder, manifest_folder, parameters, read, TREES, synthetic(data_folder))


def utterances(data_folder, normaliser="fr-1", multiword="merge"):
    """Yields the Utterances of all `*.orfeo`, file by file. Raises as prepare_orfeo does."""
    folder = corpus_folder(data_folder, "orfeo")
    reader = Reader(folder, folder, normaliser, multiword)
    found = reader.within_recordings(list(_utterances(_files(folder), reader)))
    reader.finish(drop_bad=False)
    yield from found


def _files(data_folder):
    files = files_below(data_folder, (".orfeo",))
    if not files:
        raise FileNotFoundError(f"{data_folder}: no *.orfeo file. {LAYOUT}")
    doubled = sorted(stem for stem, n in Counter(path.stem for path in files).items() if n > 1)
    if doubled:
        raise DataError(f"{data_folder}: keep one of the files named {', '.join(doubled[:5])}.orfeo.")
    return files


def _utterances(files, reader):
    for path in files:
        for line, lines in sentences(read_text(path)):
            reader.at(path.stem, metadata(lines).get("sent_id", ""))
            columns = (*TIMED, SPEAKER)
            for block in parse_block(path.name, line, lines, reader.problems, columns, len(TIMED)):
                u = _utterance(block, path.stem, reader)
                if u is not None:
                    yield u


def _utterance(block, stem, reader):
    """A Block of the recording `stem` -> Utterance, or None"""
    times = reader.times(block, _times)
    speaker = Counter(t.get(SPEAKER) or "_" for t in block.nodes).most_common(1)[0][0]
    return reader.utterance(block, (stem,), times, stem if speaker == "_" else f"{stem}-{speaker}")


def _times(token):
    """(begin, end) of a line, None where it has none; ValueError that says what stands there instead"""
    begin, end = token["begin"], token["end"]
    if begin == end == "_":
        return None
    if not (SECONDS.fullmatch(begin) and SECONDS.fullmatch(end)):
        raise ValueError(f"{begin!r} {end!r}")
    return float(begin), float(end)


# ---- splits


def _lists(data_folder):
    """{split: path} of the lists in data_folder; all or none"""
    paths = {split: below(data_folder, f"{name}.txt") for split, name in THEIRS.items()}
    there = [split for split, path in paths.items() if path.exists()]
    if there and len(there) < len(paths):
        missing = ", ".join(paths[split].name for split in paths if split not in there)
        raise DataError(f"{data_folder}: {missing} not found; lists of splits must be all three or none.")
    return paths if there else {}


def _split(data_folder, files, sentences, lost, ratios, seed, left_out):
    """{split: utterances}; lost: of `Reader.finish`, which `left_out` receives by split"""
    if lists := _lists(data_folder):
        choose = _by_lists(lists, files, sentences, lost)
    elif {_top(path, data_folder) for path in files} == set(THEIRS.values()):
        ours = {name: split for split, name in THEIRS.items()}
        split_of = {path.stem: ours[_top(path, data_folder)] for path in files}
        choose = lambda recording, sentence: split_of[recording]  # noqa: E731
    else:
        split_of = _drawn(data_folder, sentences, ratios, seed)
        choose = lambda recording, sentence: split_of.get(recording, "train")  # noqa: E731
    splits = {split: [] for split in THEIRS}
    for u in sentences:
        if split := choose(_stem(u), u.id):
            splits[split].append(u)
        else:
            left_out["train"][UNLISTED] += 1
    for recording, sentence, why in lost:
        if split := choose(recording, sentence):
            left_out[split][why] += 1
    return splits


def _top(path, data_folder):
    """The first folder on the way from data_folder to a file, in lower case"""
    return path.relative_to(os.path.abspath(data_folder)).parts[0].lower()


def _by_lists(lists, files, sentences, lost):
    """-> function (recording, sent_id) -> split, or "" where no list names either"""
    split_of, problems = {}, Problems("lists of splits")
    sentences_of = {(_stem(u), u.id) for u in sentences} | {(stem, name) for stem, name, _ in lost}
    names = {path.stem for path in files} | {name for _, name in sentences_of}
    for split, path in lists.items():
        for number, line in enumerate(read_text(path).splitlines(), 1):
            name = re.sub(r"\.orfeo$", "", line.strip(), flags=re.IGNORECASE)
            if name and name not in names:
                few = len(names) < 10_000 and len(problems.found.get(NO_NAME, ())) < SHOWN
                hint = nearest(name, names) if few else ""  # looking for it takes time, and nobody sees it
                problems.add(NO_NAME, f"{path.name}:{number} {name}{hint}")
            elif name and split_of.setdefault(name, split) != split:
                problems.add("names in two lists", f"{path.name}:{number} {name}")
    for stem, name in sorted(sentences_of):
        if len({split_of[key] for key in (name, stem) if key in split_of}) > 1:
            problems.add("sentences in one list, their recording in another", name)
    problems.raise_if_any()
    return lambda recording, sentence: split_of.get(sentence) or split_of.get(recording, "")


def _stem(u):
    return Path(u.wav).stem


def _drawn(data_folder, sentences, ratios, seed):
    """{recording: split} of those drawn for test and valid; train gets the others, at least one"""
    seconds = Counter()
    for u in sentences:
        seconds[_stem(u)] += u.duration
    if len(seconds) < len(THEIRS):
        raise DataError(f"{data_folder}: {len(seconds)} recordings for three splits. {LAYOUT}")
    return drawn(seconds, ratios, seed)
