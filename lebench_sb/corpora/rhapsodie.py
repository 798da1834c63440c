"""UD_French-Rhapsodie: spoken French with gold Universal Dependencies trees (CC BY-SA 4.0).

`fr_rhapsodie-ud-{train,dev,test}.conllu` (1,288, 1,081 and 840 sentences): CoNLL-U whose tenth column gives
the time of each word in milliseconds (`AlignBegin=`, `AlignEnd=`) and whose `# sound_url` names the
recording. The treebank holds no audio: the recordings (https://rhapsodie.modyco.fr) are brought by the user,
under the name of the URL, anywhere below data_folder. The splits are the treebank's own.
https://universaldependencies.org/treebanks/fr_rhapsodie/ (Lacheret-Dujour, Kahane & Pietrandrea 2019)
"""

from lebench_sb.core.paths import files_below
from lebench_sb.corpora._caveats import synthetic
from lebench_sb.corpora._prepare import THEIRS, by_split, check_split, hashes, prepare
from lebench_sb.corpora.formats.treebanks import TREES, read_aligned

LAYOUT = "data_folder must hold fr_rhapsodie-ud-{train,dev,test}.conllu and the recordings of # sound_url."


def prepare_rhapsodie(data_folder, manifest_folder, normaliser="fr-1", drop_bad=False, multiword="merge"):
    """Writes train.csv, valid.csv and test.csv into `manifest_folder` and returns {split: marker}.

    normaliser, multiword: as in trees.spoken_tree; drop_bad: leave faulty sentences out and count them in the
    markers, instead of stopping. A second call with the same parameters and unchanged text files returns at
    once. Raises FileNotFoundError, or DataError that lists what is wrong.
    """
    files = {split: _file(data_folder, split) for split in THEIRS}
    parameters = {"corpus": "rhapsodie", "sha256": hashes(files.values(), data_folder)}
    parameters |= {"normaliser": normaliser, "drop_bad": drop_bad, "multiword": multiword}

    def read(split, left_out):
        return read_aligned(files[split], data_folder, normaliser, multiword, drop_bad, left_out)

    caveats = synthetic(data_folder)
    return prepare(data_folder, manifest_folder, parameters, by_split(read), TREES, caveats)


def utterances(data_folder, split, normaliser="fr-1", multiword="merge"):
    """Yields the Utterances of `split` (train, valid, test) in file order. Raises as prepare_rhapsodie
    does."""
    check_split(split, "Rhapsodie")
    yield from read_aligned(_file(data_folder, split), data_folder, normaliser, multiword)


def _file(data_folder, split):
    ending = f"_rhapsodie-ud-{THEIRS[split]}.conllu"
    files = [p for p in files_below(data_folder, (".conllu",)) if p.name.lower().endswith(ending)]
    if len(files) != 1:
        what = "not found" if not files else f"there {len(files)} times"
        raise FileNotFoundError(f"{data_folder}: fr{ending} {what}. {LAYOUT}")
    return files[0]
