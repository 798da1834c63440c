"""What every preparation writes on a small miniature, as hashes: `manifests.json` beside this file.

`python tests/golden/manifests.py [FOLDER]` writes it anew, which only a change of what manifests hold
justifies. FOLDER: where the miniature of SCALE is, or is built (100 s); a temporary one by default.
"""

import hashlib
import importlib
import json
import sys
import tempfile
from pathlib import Path

from lebench_sb.corpora.miniature.build import build_miniature
from lebench_sb.corpora.miniature.layouts import names
from lebench_sb.manifests.markers import read_marker

SCALE = 0.02
GOLDEN = Path(__file__).with_suffix(".json")
MOVES = ("audio", "data_root", "parameters")  # of a marker: times, folders, and what parameters_sha256 hashes
# the corpus, "with" and what differs from the defaults; `{}` is the miniature's folder
OPTIONS = {
    "fabiole": {"training": "{}/fabiole_training/train.csv"},
    "fabiole with seed": {"training": "{}/fabiole_training/train.csv", "valid_share": 0.4, "seed": 3},
    "cafe": {"folds": 3},  # the miniature has six actors
    "cafe with fold": {"fold": 2, "folds": 3},
    "commonvoice with normaliser": {"normaliser": "none"},
    "etape with normaliser": {"normaliser": "none"},
    "media with relax": {"concepts": "relax", "normaliser": "none"},
    "mtedx with es": {"target_language": "es"},
    "orfeo with multiword": {"drop_bad": True, "multiword": "first"},
    "recola with valence": {"dimension": "valence"},
    "rhapsodie with normaliser": {"normaliser": "none", "drop_bad": True},
}
COLUMNS = {"wav": "path", "wrd": "sentence", "spk_id": "client_id", "gender": "gender"}


def prepared_hashes(miniature, output):
    """{preparation: {split: what its manifest and marker say}} of the miniature in a folder"""
    found = {}
    for named in sorted({*names(), *OPTIONS}):
        corpus, folder = named.split()[0], Path(output) / named
        prepare = getattr(importlib.import_module(f"lebench_sb.corpora.{corpus}"), f"prepare_{corpus}")
        options = OPTIONS.get(named, {})
        options = {key: _filled(value, miniature) for key, value in options.items()}
        markers = prepare(str(miniature), str(folder), **options)
        assert prepare(str(miniature), str(folder), **options) == markers, f"{named}: not reused"
        found[named] = _told(folder)
    return found | {"own": own_hashes(miniature, Path(output) / "own")}


def own_hashes(miniature, output):
    """The same of a table that names its columns in its own words; its parameters hold a folder, so that
    their hash is left out"""
    from lebench_sb.corpora.own import prepare_own

    clips = str(Path(miniature) / "fr" / "clips")
    prepare_own(
        Path(miniature) / "fr" / "train.tsv", COLUMNS, clips, output, ratios=(0.5, 0.25, 0.25), seed=1
    )
    told = _told(output)
    return {
        split: {k: v for k, v in each.items() if k != "parameters_sha256"} for split, each in told.items()
    }


def _filled(value, miniature):
    return value.replace("{}", str(miniature)) if isinstance(value, str) else value


def _told(folder):
    """{split: its marker but for MOVES, and sha256 of the manifest's bytes}"""
    told = {}
    for path in sorted(folder.glob("*.csv")):
        marker = {key: value for key, value in read_marker(path).items() if key not in MOVES}
        told[path.stem] = marker | {"sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    return told


def main(argv):
    with tempfile.TemporaryDirectory() as temporary:
        miniature = Path(argv[0] if argv else f"{temporary}/miniature")
        build_miniature(miniature, scale=SCALE, corpora=names())
        found = prepared_hashes(miniature, Path(temporary) / "manifests")
    GOLDEN.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
