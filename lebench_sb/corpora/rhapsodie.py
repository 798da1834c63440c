"""UD_French-Rhapsodie: spoken French with gold Universal Dependencies trees (CC BY-SA 4.0).

`fr_rhapsodie-ud-{train,dev,test}.conllu` (1,288, 1,081 and 840 sentences): CoNLL-U whose tenth column gives
the time of each word in milliseconds (`AlignBegin=`, `AlignEnd=`) and whose `# sound_url` names the
recording. The treebank holds no audio: the recordings (https://rhapsodie.modyco.fr) are brought by the user,
under the name of the URL, anywhere below data_folder. The splits are the treebank's own.
https://universaldependencies.org/treebanks/fr_rhapsodie/ (Lacheret-Dujour, Kahane & Pietrandrea 2019)
"""

import hashlib
import os
import re
from collections import Counter
from pathlib import Path
from urllib.parse import unquote, urlsplit

from lebench_sb.core.guard import regular
from lebench_sb.core.paths import files_below
from lebench_sb.corpora._text import gender as read_gender
from lebench_sb.corpora._treebanks import NAMES, Reader, write_splits
from lebench_sb.manifests.markers import prepared
from lebench_sb.manifests.trees import read_blocks

FILE = "_rhapsodie-ud-{}.conllu"
MILLISECONDS = re.compile("[0-9]{1,12}")
LAYOUT = "data_folder must hold fr_rhapsodie-ud-{train,dev,test}.conllu and the recordings of # sound_url."


def prepare_rhapsodie(data_folder, manifest_folder, normaliser="fr-1", drop_bad=False, multiword="merge"):
    """Writes train.csv, valid.csv and test.csv into `manifest_folder` and returns {split: marker}.

    normaliser, multiword: as in trees.spoken_tree; drop_bad: leave faulty sentences out and count them in the
    markers, instead of stopping. A second call with the same parameters and unchanged text files returns at
    once. Raises FileNotFoundError, or DataError that lists what is wrong.
    """
    files = {split: _file(data_folder, split) for split in NAMES}
    parameters = {
        "corpus": "rhapsodie",
        **{"normaliser": normaliser, "drop_bad": drop_bad, "multiword": multiword},
        "sha256": {
            os.path.relpath(path, data_folder): hashlib.sha256(regular(path).read_bytes()).hexdigest()
            for path in files.values()
        },
    }
    manifests = {split: Path(manifest_folder) / f"{split}.csv" for split in NAMES}
    if done := prepared(manifests, parameters, data_folder):
        return done
    splits, dropped = {}, {}
    for split, path in files.items():
        splits[split], dropped[split] = _read(path, data_folder, normaliser, multiword, drop_bad)
    return write_splits(manifests, splits, dropped, data_folder, parameters)


def utterances(data_folder, split, normaliser="fr-1", multiword="merge"):
    """Yields the Utterances of `split` (train, valid, test) in file order. Raises as prepare_rhapsodie
    does."""
    if split not in NAMES:
        raise ValueError(f"No split {split!r} in Rhapsodie: {', '.join(NAMES)}.")
    yield from _read(_file(data_folder, split), data_folder, normaliser, multiword, False)[0]


def _file(data_folder, split):
    ending = FILE.format(NAMES[split])
    found = [p for p in files_below(data_folder, (".conllu",)) if p.name.lower().endswith(ending)]
    if len(found) != 1:
        what = "not found" if not found else f"there {len(found)} times"
        raise FileNotFoundError(f"{data_folder}: fr_rhapsodie-ud-{NAMES[split]}.conllu {what}. {LAYOUT}")
    return found[0]


def _read(path, data_folder, normaliser, multiword, drop_bad):
    """-> utterances, {why something is left out: how often}"""
    reader, found = Reader(path, data_folder, normaliser, multiword), []
    for block in read_blocks(path, reader.problems):
        times = reader.times(block, _times)
        speaker = next((block.metadata[k] for k in ("speaker_id", "speaker") if block.metadata.get(k)), "")
        gender = read_gender(block.metadata.get("speaker_sex", "")) or "U"
        found.append(reader.utterance(block, recording_names(block), times, speaker, gender))
    kept = reader.within_recordings([u for u in found if u is not None])
    return kept, Counter(why for *_, why in reader.finish(drop_bad))


def recording_names(block):
    """Names the recording may have: that of the URL, without its suffix, and the sent_id's without the
    sentence's number"""
    url = os.path.basename(unquote(urlsplit(block.metadata.get("sound_url", "")).path))
    names = (url, os.path.splitext(url)[0], re.sub(r"[-_]\d+[a-z]?$", "", block.name))
    return tuple(name for name in names if name) or (block.name,)


def _times(token):
    """(begin, end) in seconds of a line, None where it has none; ValueError that says what stands there"""
    misc = token["misc"] or {}
    begin, end = misc.get("AlignBegin"), misc.get("AlignEnd")
    if begin is None and end is None:
        return None
    if not (MILLISECONDS.fullmatch(begin or "") and MILLISECONDS.fullmatch(end or "")):
        raise ValueError(f"AlignBegin={begin} AlignEnd={end}")
    return int(begin) / 1000, int(end) / 1000
