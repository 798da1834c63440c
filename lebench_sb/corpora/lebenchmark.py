"""The corpora that LeBenchmark pre-trained on, each in a folder of manifests of its own.

1K: MLS French; 2.7K: with EPAC; 3K: eleven corpora; 7K: fifteen; 14K: all seventeen. They were used whole,
every split. Here MLS's own validation set stays out, to choose the best checkpoint with: which recordings the
originals validated on is not known.
"""

import importlib
from pathlib import Path

from lebench_sb.core.errors import UsageError, nearest

# name: manifests of its folder that are trained on; corpora with official splits have several
TRAINED_ON = {
    "mls": ("train", "test"),
    "epac": ("train",),
    "african_accented_french": ("train", "valid", "test"),
    "att_hack": ("train",),
    "cafe": ("train", "valid", "test"),
    "cfpp2000": ("train",),
    "eslo2": ("train",),
    "gemep": ("train",),
    "mpf": ("train",),
    "portmedia": ("train",),
    "tcof": ("train",),
    "mass": ("train",),
    "nccfr": ("train",),
    "voxpopuli_unlabelled": ("train",),
    "voxpopuli": ("train", "valid", "test"),
    "audiocite": ("train", "valid", "test"),
    "niger_mali": ("train",),
}
HINT = (
    "`lebench prepare own --output {folder}/CORPUS` makes them from any table of recordings; --corpora "
    "leaves out what you do not have."
)


def manifests(manifest_folder, corpora):
    """Paths of the manifests to train on, <manifest_folder>/<corpus>/<split>.csv, in the order of `corpora`
    (a list, or a string with commas). Raises UsageError for a corpus that is none of the seventeen."""
    return [
        str(Path(manifest_folder) / name / f"{split}.csv")
        for name in listed(corpora)
        for split in TRAINED_ON[name]
    ]


def prepare_lebenchmark(data_folder, manifest_folder, corpora):
    """Writes the manifests that are missing, of the corpora this library can prepare.

    data_folder: the data_root of all manifests, below which the corpora lie. The manifests of MLS are always
    among them: one of them is the validation set. Raises FileNotFoundError that names all manifests that
    nothing here can make.
    """
    folder, missing = Path(manifest_folder), []
    for name in dict.fromkeys(["mls", *listed(corpora)]):
        wanted = [folder / name / f"{split}.csv" for split in (*TRAINED_ON[name], *VALID.get(name, ()))]
        absent = [path for path in wanted if not path.is_file()]
        if absent and (Path(__file__).parent / f"{name}.py").is_file():
            module = importlib.import_module(f"lebench_sb.corpora.{name}")
            getattr(module, f"prepare_{name}")(str(data_folder), str(folder / name))
        else:
            missing += absent
    if missing:
        paths = ", ".join(str(path.relative_to(folder)) for path in missing)
        raise FileNotFoundError(f"{folder} lacks {paths}. {HINT.format(folder=folder)}")


VALID = {"mls": ("valid",)}


def listed(corpora):
    """A list or a string with commas -> list of names, checked"""
    names = [name.strip() for name in (corpora.split(",") if isinstance(corpora, str) else corpora)]
    for name in names:
        if name not in TRAINED_ON:
            hint = nearest(name, TRAINED_ON, ", did you mean {}?")
            raise UsageError(
                f"corpora: {name!r} is none of LeBenchmark's{hint or ': ' + ', '.join(TRAINED_ON)}"
            )
    return names
