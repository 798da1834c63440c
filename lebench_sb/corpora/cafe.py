"""CaFE: six sentences played by twelve actors of Quebec in six emotions at two intensities, and neutrally.

936 recordings at 48 kHz in `CaFE_48k/<emotion>/<intensity>/AA-E-I-S.wav` (neutral ones without the folder of
the intensity). AA is the actor, odd numbers men and even ones women; E the emotion: C (colère), D (dégoût),
J (joie), N (neutre), P (peur), S (surprise), T (tristesse); I the intensity, 1 weak and 2 strong; S the
sentence, 1 to 6. The names say everything: folders, whose accents many unzip programs break, are not read.
CC BY-NC-SA 4.0, https://zenodo.org/record/1478765 (Gournay et al., 2018). It has no official split: see
`prepare_cafe`.
"""

import os
import re

from lebench_sb.core.errors import Problems
from lebench_sb.core.paths import files_below
from lebench_sb.corpora._caveats import synthetic_emotion
from lebench_sb.corpora._prepare import SPLITS, corpus_folder, prepare, sizes
from lebench_sb.corpora._splits import deal
from lebench_sb.manifests.durations import measure_durations
from lebench_sb.manifests.utterance import Utterance

EMOTIONS = {
    "C": "anger", "D": "disgust", "J": "happiness", "N": "neutral", "P": "fear", "S": "surprise",
    "T": "sadness",
}  # fmt: skip
NAME = re.compile(r"(\d\d)-([CDJNPST])-([0-2])-([1-6])")
LAYOUT = (
    "data_folder must hold CaFE_48k/ (or CaFE_192k/) with recordings named AA-E-I-S.wav, as 01-C-1-1.wav."
)


def prepare_cafe(data_folder, manifest_folder, fold=1, folds=6):
    """Writes train.csv, valid.csv and test.csv of one fold into `manifest_folder`; returns {split: marker}.

    The actors are dealt out to `folds` groups, men and women apart, so that every group has both; group
    `fold` (from 1) is the test set, the next one valid, the others train. No speaker is in two of them. Each
    fold needs a manifest_folder of its own, or is prepared again. A second call with the same parameters and
    files returns at once. Raises UsageError (fold, folds), FileNotFoundError, or DataError that lists names
    and files that are wrong.
    """
    parameters = {
        "corpus": "cafe",
        "fold": fold,
        "folds": folds,
        "files": sizes(_wavs(data_folder), data_folder),
    }

    def read(left_out):
        utterances_found = utterances(data_folder)
        groups = deal({(u.speaker, u.gender) for u in utterances_found}, fold, folds)
        return {split: [u for u in utterances_found if u.speaker in groups[split]] for split in SPLITS}

    caveats = synthetic_emotion(data_folder)
    return prepare(data_folder, manifest_folder, parameters, read, ("emotion",), caveats)


def utterances(data_folder):
    """All Utterances, sorted by name, with the labels emotion, intensity and sentence.

    Raises FileNotFoundError, or DataError that lists names that are none of CaFE's and files that do not
    decode.
    """
    wavs, problems = _wavs(data_folder), Problems(data_folder)
    for wav in wavs:
        if not NAME.fullmatch(wav.stem):
            problems.add("names that are not AA-E-I-S.wav (move other recordings away)", wav.name)
    problems.raise_if_any()
    seconds = measure_durations(map(os.path.abspath, wavs), data_folder)
    utterances_found = []
    for wav in sorted(wavs, key=lambda wav: wav.stem):
        actor, code, intensity, sentence = NAME.fullmatch(wav.stem).groups()
        labels = {"emotion": EMOTIONS[code], "intensity": intensity, "sentence": sentence}
        gender = "M" if int(actor) % 2 else "F"
        path = os.path.abspath(wav)
        utterances_found.append(
            Utterance(wav.stem, path, seconds[path], None, None, actor, gender, "fr", labels)
        )
    return utterances_found


def _wavs(data_folder):
    """Every wav below the corpus's folder"""
    wavs = files_below(corpus_folder(data_folder, "CaFE_48k", "CaFE_192k"), (".wav",))
    if not wavs:
        raise FileNotFoundError(f"{data_folder}: no wav. {LAYOUT}")
    return wavs
