"""FABIOLE: excerpts of French radio and television, to test speaker verification (Ajili et al., LREC 2016).

130 male speakers: 30 targets with 100 excerpts each, 100 impostors with one, of at least 30 s, from ten
shows. It is distributed by its authors; its files and its trial lists could not be seen for this recipe, so
what `prepare_fabiole` reads is a layout of ours, one folder a speaker, into which a copy is easily brought:

    fabiole/wav/<speaker>/**/<excerpt>.wav   (or .flac .mp3 .ogg .opus)
    fabiole/trials.txt                       `1 <speaker>/<excerpt>.wav <speaker>/<excerpt>.wav`, 0 for two
                                             speakers, or any other format of lebench_sb/manifests/trials.py
    fabiole/enrolment.txt                    `model <speaker>/<excerpt>.wav ...`, where trials name models of
                                             several excerpts; may be absent
    fabiole/speakers.csv                     `speaker,gender`; may be absent

FABIOLE is a test set: speakers are learnt from manifests of any other corpora whose `spk_id` is filled.
"""

import hashlib
import os
from pathlib import Path

from lebench_sb.core.errors import DataError, Problems, UsageError
from lebench_sb.core.files import write_atomically
from lebench_sb.core.paths import below, files_below
from lebench_sb.corpora._caveats import synthetic
from lebench_sb.corpora._prepare import corpus_folder, demand, hashes, prepare
from lebench_sb.corpora._splits import hold_out
from lebench_sb.corpora._text import gender as read_gender
from lebench_sb.manifests.durations import measure_durations
from lebench_sb.manifests.markers import manifest_hash, read_marker
from lebench_sb.manifests.reading import read_manifest
from lebench_sb.manifests.tables import read_table, read_text, separator
from lebench_sb.manifests.trials import read_trials, trials_csv
from lebench_sb.manifests.utterance import Utterance

SUFFIXES = (".wav", ".flac", ".mp3", ".ogg", ".opus")
LAYOUT = "data_folder must hold fabiole/ with wav/<speaker>/ and trials.txt."


def prepare_fabiole(data_folder, manifest_folder, training="", training_root=None, valid_share=0.1, seed=0):
    """Writes train.csv, valid.csv, test.csv and trials.csv into `manifest_folder`; returns {split: marker}.

    data_folder: holds fabiole/ (or is it), and below it lies the training audio too; training: manifests of
    the speakers to learn from, a path, a list or paths with commas; training_root: the folder their
    `$data_root` stands for, or one for each (default: data_folder); valid_share: share of the training
    speakers held out for valid, drawn with `seed`. The trial list is checked before anything is written. A
    second call on unchanged files returns at once. Raises FileNotFoundError, or DataError that lists what is
    wrong.
    """
    root, manifests = _root(data_folder), _paths(training)
    roots = _paths(training_root or data_folder)
    roots = roots * len(manifests) if len(roots) == 1 else roots
    parameters = _parameters(root, data_folder, manifests, roots, valid_share, seed)
    caveats = synthetic(root)

    def read(left_out):
        train, valid = hold_out(_training(manifests, roots), valid_share, seed)
        test = list(utterances(data_folder))
        _trials(root, test)
        caveats_heard = set(caveats).union(*(read_marker(path).get("caveats", []) for path in manifests))
        for split, names in (("train", caveats_heard), ("valid", caveats_heard), ("test", caveats)):
            left_out[split].caveats += sorted(names)
        return {"train": train, "valid": valid, "test": test}

    markers = prepare(data_folder, manifest_folder, parameters, read)
    test = read_manifest(Path(manifest_folder) / "test.csv", data_folder)
    write_atomically(Path(manifest_folder) / "trials.csv", trials_csv(_trials(root, test)))
    return markers


def utterances(data_folder):
    """Yields the Utterances of FABIOLE, sorted by path; the ID is the path below wav/ with `--` for `/`.

    Raises FileNotFoundError, or DataError for unreadable audio and a speakers.csv that is none.
    """
    root = _root(data_folder)
    genders = _genders(below(root, "speakers.csv"))
    wavs = _wavs(root)
    seconds = measure_durations(wavs, root)
    for wav in wavs:
        parts = wav.relative_to((root / "wav").absolute()).with_suffix("").parts
        path = os.path.abspath(wav)
        yield Utterance(
            "--".join(parts), path, seconds[str(wav)], speaker=parts[0], gender=genders.get(parts[0], "U")
        )


def _root(data_folder):
    root = corpus_folder(data_folder, "fabiole")
    demand([root / "wav"], LAYOUT, Path.is_dir)
    demand([below(root, "trials.txt")], LAYOUT)
    return root


def _wavs(root):
    """The audio of every speaker's folder, sorted. Files beside the folders are an error: whose are they?"""
    wavs = files_below(root / "wav", SUFFIXES)
    problems = Problems(root / "wav")
    for path in wavs:
        if path.parent == (root / "wav").absolute():
            problems.add("audio in no speaker's folder", path.name)
    if not wavs:
        problems.add("no audio", f"looked for <speaker>/**/*{{{','.join(SUFFIXES)}}}")
    problems.raise_if_any()
    return wavs


def _genders(path):
    """{speaker: F, M or U} of speakers.csv; {} when there is none"""
    if not path.exists():
        return {}
    used = separator(read_text(path).split("\n", 1)[0])
    header, rows = read_table(path, used)
    names = [name.strip().lower() for name in header]
    if "speaker" not in names or "gender" not in names:
        raise DataError(f"{path}: its columns are {', '.join(header)}; it needs speaker and gender.")
    genders, problems = {}, Problems(path)
    for line, fields in rows:
        speaker, gender = (fields[names.index(name)].strip() for name in ("speaker", "gender"))
        if read_gender(gender) is None:
            problems.add("genders that are not F, M or U", f"line {line} {gender!r}")
        if speaker in genders:
            problems.add("speakers listed twice", f"line {line} {speaker}")
        genders[speaker] = read_gender(gender) or "U"
    problems.raise_if_any()
    return genders


def _paths(value):
    """One path, several with commas, or a list -> list of Paths"""
    if isinstance(value, (list, tuple)):
        return [Path(path) for path in value]
    return [Path(path.strip()) for path in str(value).split(",") if path.strip()]


def _parameters(root, data_folder, manifests, roots, valid_share, seed):
    """Everything the manifests depend on. Raises what is wrong with the arguments."""
    if not manifests or len(roots) != len(manifests):
        raise UsageError(
            f"training: {len(manifests)} manifests and {len(roots)} roots. Give manifests with spk_id, as "
            "`lebench prepare` writes them, and one root for all or one for each."
        )
    for path in manifests:
        if not path.is_file():
            raise FileNotFoundError(
                f"{path} not found: --training names manifests with spk_id to learn speakers from."
            )
    listing = "".join(f"{p.relative_to(root.absolute())} {p.stat().st_size}\n" for p in _wavs(root))
    named = (below(root, name) for name in ("trials.txt", "enrolment.txt", "speakers.csv"))
    return {
        "corpus": "fabiole",
        "root": os.path.relpath(root, data_folder),
        "wav": hashlib.sha256(listing.encode(errors="surrogateescape")).hexdigest(),
        "sha256": hashes(path for path in named if path.exists()),
        "training": [manifest_hash(path) for path in manifests],
        "training_roots": [os.path.relpath(path, data_folder) for path in roots],
        "valid_share": valid_share,
        "seed": seed,
    }


def _training(manifests, roots):
    """The Utterances of all training manifests; DataError for those without a speaker"""
    utterances = [u for path, root in zip(manifests, roots, strict=True) for u in read_manifest(path, root)]
    problems = Problems(", ".join(map(str, manifests)))
    for u in utterances:
        if not u.speaker:
            problems.add("utterances without spk_id: nothing to learn from them", u.id)
    problems.raise_if_any()
    return utterances


def _trials(root, test):
    """The list, checked against the Utterances of the test set"""
    enrolment = below(root, "enrolment.txt")
    return read_trials(below(root, "trials.txt"), test, enrolment if enrolment.exists() else "")
