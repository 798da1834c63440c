"""What the folder of a run began with: kept in `inputs.json`, compared before a run writes there again.

A folder that holds checkpoints or results belongs to the settings, encoders, files and speech it began with.
The same go on; others are refused with what differs, or the earlier folder is moved aside, or, where the user
says so, taken up with the change written down. Recipes, pre-training and grids all keep their parts of the
record here:

- `settings`: {key of the resolved YAML, dotted: value}, paths of the run and of the data apart (recipes)
- `encoders`: {ssl_hub, init_from, teacher: hash of config, preprocessor and weights} (recipes)
- `files`: {path that a setting names: hash} (recipes)
- `speech`: {split: hashes of its manifests and of what they list} (recipes, once the manifests are there)
- `command`, `yaml`, `code`, `data`, `encoder`: see `fingerprint` (grids)
- `debug`: whether it was made by `--debug`, and may be thrown away
- `version`: commit and version of the code, for information
- `changes`: what was changed on the way, by whom `--if_changed resume` was given
"""

import json
import operator
import shutil
import time
from itertools import count
from pathlib import Path

from ruamel.yaml import YAML
from ruamel.yaml.nodes import MappingNode, ScalarNode, SequenceNode

from lebench_sb.core.command_line import BESIDE, RESUME
from lebench_sb.core.errors import UsageError
from lebench_sb.core.files import write_atomically
from lebench_sb.core.guard import check_yaml, read_json, read_text
from lebench_sb.training.fingerprint import encoder_hash
from lebench_sb.training.speech import content_of

INPUTS, SETTINGS = "inputs.json", "hyperparams.yaml"
ENCODERS = ("ssl_hub", "init_from", "teacher")
SPLITS = ("train", "valid", "test")
# They leave the result the same: where things lie, how fast and how often, what is shown besides
NEUTRAL = {
    "output_folder", "save_folder", "data_folder", *(f"{split}_csv" for split in SPLITS), *ENCODERS,
    "num_workers", "feature_cache", "energy_method", "device_watts", "pue", "co2_g_per_kwh",
    "checkpoint_every_updates", "tensorboard", "reference_curves", "train_logger", "checkpointer",
}  # fmt: skip
ACCUMULATED = "grad_accumulation_factor"
# SpeechBrain's run options that decide what is learned; the others say where and how a run goes
DECISIVE = (
    "precision", "eval_precision", "max_grad_norm", ACCUMULATED, "remove_vector_weight_decay",
)  # fmt: skip
PER_UPDATE = "micro-batches per update"  # accumulated ones x processes: one may stand for the other
PARTS = ("settings", "encoders", "files", "speech")
MOST = 20_000  # values of a YAML: aliases of aliases have no end
SHOWN = 6


def flat(text):
    """The text of a resolved YAML -> {dotted key: value as text}. Raises UsageError for one without end."""
    root, values, seen = YAML().compose(text), {}, {}
    waiting = [("", root)]
    while waiting:
        name, node = waiting.pop()
        if len(values) > MOST:
            raise UsageError(f"{SETTINGS}: over {MOST} values.")
        if id(node) in seen and not isinstance(node, ScalarNode):
            values[name] = f"*{seen[id(node)]}"
            continue
        seen[id(node)] = name
        tag = str(node.tag) if str(node.tag).startswith("!") else ""
        if isinstance(node, ScalarNode):
            values[name] = f"{tag} {node.value}".strip() if tag else canonical(node)
        elif not node.value or tag:
            values[name] = tag or ("{}" if isinstance(node, MappingNode) else "[]")
        if isinstance(node, MappingNode):
            waiting += [(f"{name}.{key.value}".lstrip("."), value) for key, value in node.value]
        elif isinstance(node, SequenceNode):
            waiting += [(f"{name}.{number}", value) for number, value in enumerate(node.value)]
    return values


def canonical(node):
    """A scalar as text, numbers and truth values in one spelling"""
    kind, value = str(node.tag).rpartition(":")[2], node.value
    if kind == "float" or (kind == "int" and value.lstrip("+-").isdigit()):
        number = float(value.replace("_", "")) if kind == "float" else int(value)
        return repr(int(number) if kind == "float" and number.is_integer() else number)
    return value.lower() if kind in ("bool", "null") else value


def settings_of(text, typed=(), processes=None):
    """The text of a resolved YAML -> {dotted key: value} of what decides the result.

    typed: {run option: value} of the command line, which win over the YAML's; processes: how many there are,
    None where nobody knows any more. Folders of the run and of the
    data are written `<output_folder>` and `<data_folder>`, wherever they lie.
    """
    values = flat(text)
    places = {name: values.get(name, "") for name in ("output_folder", "data_folder")}
    decisive = {key: shown_place(value, places) for key, value in values.items() if is_decisive(key)}
    decisive |= {key: spelt(value) for key, value in dict(typed).items() if key in DECISIVE}
    accumulated = decisive.pop(ACCUMULATED, "1")
    return decisive | ({PER_UPDATE: str(int(accumulated) * processes)} if processes else {})


def is_decisive(key):
    """Whether a dotted key of a YAML decides the result"""
    first = key.split(".")[0]
    source = first in ("prepare", "encoder", "model", "teacher_encoder") and key.rpartition(".")[2]
    return bool(key) and first not in NEUTRAL and source not in ("source", "data_folder", *ENCODERS)


def spelt(value):
    """The value of a run option in the spelling of `canonical`"""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return str(value).lower()
    return repr(int(number) if number.is_integer() else number)


def shown_place(value, places):
    for name, place in places.items():
        if place and (value == place or value.startswith(f"{place}/")):
            return f"<{name}>{value[len(place) :]}"
    return value


def record_of(text, values, typed=(), processes=1):
    """What a run is about to begin with: its settings, encoders and files, before any manifest is there.

    text: the resolved YAML; values: {top-level key: value} of it; typed, processes: see `settings_of`. Raises
    FileNotFoundError for an encoder that is not there.
    """
    settings = settings_of(text, typed, processes)
    return {"settings": settings, "encoders": encoders_of(values), "files": files_named(settings)}


def encoders_of(values):
    """{key: [encoder as the YAML names it, hash of what decides its frames, "" where nothing is known]}"""
    sources = {key: str(values[key]) for key in ENCODERS if values.get(key)}
    hashes = {key: encoder_hash(name) for key, name in sources.items()}
    # of an id of the Hub that is not here yet, and of filterbanks, only the name is known
    return {key: [name, "" if hashes[key].endswith(" ") else hashes[key]] for key, name in sources.items()}


def files_named(settings):
    """{path: hash} of the files, and of the results of the runs, that settings name"""
    files = {}
    for key, value in settings.items():
        path = Path(value) if "/" in value or "." in value else None
        if path is None or value.startswith(("!", "<", "*")) or len(value) > 4096 or "\0" in value:
            continue
        if path.is_dir() and key.endswith("_run"):
            path = path / "results.json"
        if path.is_file():
            files[value] = content_of([str(path)])
    return files


# ---- the folder


def read(folder):
    """The record of a folder, {} where nothing says what it began with; a run without
    `inputs.json` says its settings in hyperparams.yaml. Raises UsageError for a file that is no record."""
    folder = Path(folder)
    record = stored(folder)
    if "settings" not in record and (folder / SETTINGS).is_file():
        text = read_text(folder / SETTINGS, UsageError)
        check_yaml(text, folder / SETTINGS)
        names = flat(text)
        record["settings"] = settings_of(text)
        record["encoders"] = {key: [names[key], ""] for key in ENCODERS if names.get(key)}
    return record


def stored(folder):
    """What `inputs.json` of a folder holds, {} where there is none. Raises UsageError for a file that is no
    record."""
    path = folder / INPUTS
    return read_json(path, UsageError) if path.is_file() else {}


def write(folders, record, anew=False):
    """Writes the parts of `record` into the folders' records, whose other parts stay; anew: those that an
    earlier run left there, a grid's apart, do not"""
    for folder in map(Path, folders):
        folder.mkdir(parents=True, exist_ok=True)
        record_before = stored(folder)
        if anew:
            record_before = {
                part: value for part, value in record_before.items() if part not in (*PARTS, "changes")
            }
        text = json.dumps({**record_before, **record}, indent=1, ensure_ascii=False)
        write_atomically(folder / INPUTS, text + "\n")


def agrees(old, record):
    """Whether what a folder began with holds all parts of `record`"""
    return all(old.get(part) == value for part, value in record.items())


def has_begun(folder, saved):
    """Whether a folder holds what another run must not mix with: results, exported encoders, checkpoints"""
    names = ("results.json", "encoder", "pretraining")
    if any((Path(folder) / name).exists() for name in names):
        return True
    return saved.is_dir() and any(path.name.startswith("CKPT") for path in saved.iterdir())


def differences(old, new):
    """What differs between two records, as lines; parts that one of them does not know are left out"""
    lines = []
    for part in PARTS:
        if part not in old or part not in new:
            continue
        then, now = old[part], new[part]
        alike = same_encoder if part == "encoders" else operator.eq
        known = [key for key in dict.fromkeys([*now, *then]) if is_known(part, key, then, now)]
        differing = [key for key in known if not alike(then.get(key), now.get(key))]
        first = [key for key in differing if "." not in key or part != "settings"]
        told = {(then.get(key), now.get(key)) for key in first} if part == "settings" else set()
        derived = [key for key in differing if key not in first and (then.get(key), now.get(key)) not in told]
        lines += [difference(part, key, then.get(key), now.get(key)) for key in [*first, *derived]]
    return lines


def is_known(part, key, then, now):
    """Whether a key may be compared: an earlier record may lack a run option that nobody typed, and a run
    that only tests has no updates"""
    if part != "settings" or key in then and key in now:
        return True
    return key != PER_UPDATE and (key in then or key not in DECISIVE)


def same_encoder(then, now):
    """Whether two entries of `encoders_of` are the same: by their hashes, by names where one has none"""
    if not then or not now:
        return then == now
    return then[1] == now[1] if then[1] and now[1] else then[0] == now[0]


def difference(part, key, then, now):
    if part == "encoders":
        names = [pair[0] if pair else None for pair in (then, now)]
        if names[0] == names[1]:
            return f"{key}: {names[0]} holds another encoder now"
        then, now = names
    if part in ("settings", "encoders"):
        return f"{key}: {absent(then)} then, {absent(now)} now"
    if part == "files":
        return f"{key}: another content"
    return f"{key}: other data"


def absent(value):
    return "absent" if value is None else (value or '""')


def refusal(folder, differing):
    """The UsageError for a folder that began otherwise"""
    more = f" and {len(differing) - SHOWN} more" if len(differing) > SHOWN else ""
    return UsageError(
        f"{folder} holds a run that began otherwise: {'; '.join(differing[:SHOWN])}{more}. Nothing was "
        "changed. Give another --output_folder, or the settings it began with; or "
        f"--if_changed {BESIDE}, which moves the earlier run to {free_name(folder).name} and starts anew, or "
        f"--if_changed {RESUME}, which goes on from its checkpoints with what is new and says so in "
        "results.json."
    )


def free_name(folder):
    """The first of folder.old1, folder.old2, ... that is not there"""
    folder = Path(folder)
    return next(p for n in count(1) if not (p := folder.with_name(f"{folder.name}.old{n}")).exists())


def move_aside(folders):
    """Renames folders to their `free_name`s -> where they are now"""
    moved = []
    for folder in map(Path, folders):
        moved.append(free_name(folder))
        folder.rename(moved[-1])
    return moved


def throw_away(folders):
    """Empties folders that `--debug` made"""
    for folder in map(Path, folders):
        shutil.rmtree(folder)


def changed(old, differing):
    """The record of a run that goes on although these lines differ"""
    entry = {"when": time.strftime("%Y-%m-%d %H:%M:%S"), "differences": differing}
    return {**old, "changes": [*old.get("changes", []), entry]}
