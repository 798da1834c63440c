"""What the result of a step depends on, as hashes: command, YAML, code, data, encoder.

- `command`: the words after `python`.
- `yaml`: the YAML with its includes, references and overrides resolved.
- `code`: the Python files of the recipe's folder, and those of lebench_sb that they or the YAML reach by
  import: work on another task leaves a finished step valid. Read from the files, not from git, so an
  installed package and a changed working tree count as what they are. Other packages are not in it
  (`results.json` has versions).
- `data`: of a data folder, the path, size and time of change of every file (hidden ones and `skip` left
  out); where the command names manifests, their content, and size and time of change of the files they list
  (recordings, shards, traces, trees). With it the content of every other file that a value names (a text for
  the language model, trials, another run's results).
  A folder is listed once per process.
- `encoder`: config, preprocessor and weights of the folder; of an id of the Hub, the commit in the cache; of
  random weights, what decides them: the config. With it the results of the run whose head it starts from.

Whether progress bars are shown is not in it.
"""

import ast
import hashlib
import json
import os
import re
from functools import lru_cache
from pathlib import Path

import yaml

import lebench_sb
from lebench_sb.core.command_line import parse
from lebench_sb.core.python_source import syntax_tree
from lebench_sb.core.yaml_values import resolve
from lebench_sb.manifests.member_names import files_in, manifest_paths, named_in_manifest, yaml_values

PACKAGE = Path(lebench_sb.__file__).parent
TAG = re.compile(r"!(?:new|name|apply|module):(lebench_sb[\w.]*)")
WEIGHTS = (".safetensors", ".bin", ".ckpt")
CONFIGS = ("config.json",)  # of the model, its preprocessor, its processor
ENCODER_KEYS = ("ssl_hub", "init_from")
NO_BARS = "--noprogressbar"
SPLITS = ("train", "valid", "test")
CSV_KEYS = tuple(f"{split}_csv" for split in SPLITS)
OWN_FOLDERS = ("output_folder", "save_folder", "feature_cache")  # what the run writes, and reads again
SMALL = 64 << 20  # bytes of a file whose content is hashed; of larger ones size and time of change
NAMES = {"command": "command", "yaml": "YAML", "code": "code", "data": "data", "encoder": "encoder"}


def fingerprint(words, skip=()):
    """Words after `python` (train.py and YAML first, or `-m lebench_sb.cli prepare`) -> {part: hash}.

    skip: folders below a data folder that are no data, such as that of the results.
    """
    if words[0] == "-m":
        folder = words[words.index("--data_folder") + 1]
        code = reached([], [f"lebench_sb.corpora.{words[3]}"])
        named = [[word, manifest_state(word, folder)] for word in words[4:] if os.path.isfile(word)]
        data = digest([listing(folder, skip), named])
        return {"command": digest(words), "code": code_hash(code), "data": data}
    words = [word for word in words if word != NO_BARS]
    path, _, overrides = parse(list(words[1:]))
    resolved = resolve(path, overrides)
    started_from = overrides.get("init_from_run", "none")
    encoders = [encoder_hash(overrides[key]) for key in ENCODER_KEYS if overrides.get(key)]
    encoders += [file_hash(Path(started_from) / "results.json")] if started_from != "none" else []
    code = reached(sorted(Path(words[0]).parent.rglob("*.py")), TAG.findall(resolved))
    return {
        "command": digest(words),
        "yaml": digest(resolved),
        "code": code_hash(code),
        "data": data_hash(overrides, resolved, skip),
        "encoder": digest(encoders),
    }


def changed(old, new):
    """Names of the parts that differ, the YAML only where the command does not explain it"""
    parts = [part for part in dict.fromkeys([*new, *old]) if old.get(part) != new.get(part)]
    if "command" in parts and "yaml" in parts:
        parts.remove("yaml")
    return [NAMES.get(part, part) for part in parts]


def digest(value):
    """sha256 (hex) of what JSON makes of a value"""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def forget():
    """Lists data folders again"""
    _listing.cache_clear()
    manifest_state.cache_clear()


# ---- code


def reached(files, modules):
    """Files and modules of lebench_sb -> they and every file of lebench_sb that they import, sorted"""
    waiting = [*map(Path, files), *(path for name in modules for path in module_files(name))]
    reached_files = set()
    while waiting:
        path = waiting.pop()
        if path not in reached_files:
            reached_files.add(path)
            waiting += [file for name in imported(path) for file in module_files(name)]
    return sorted(reached_files)


def imported(path):
    """Dotted names below lebench_sb that a file imports: modules, and what may be modules"""
    state = path.stat()
    return names_imported(path, state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=4096)  # a grid asks for each of its steps
def names_imported(path, changed, size):
    """`imported`, of a file of that time of change and size"""
    names = []
    for node in ast.walk(syntax_tree(path)):
        if isinstance(node, ast.Import):
            names += [name.name for name in node.names]
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if node.level and path.is_relative_to(PACKAGE):
                parts = ("lebench_sb", *path.relative_to(PACKAGE).parts)[: -node.level]
                module = ".".join([*parts, *filter(None, [module])])
            names += [module, *(f"{module}.{name.name}" for name in node.names)]
    return [name for name in names if name.split(".")[0] == "lebench_sb"]


def module_files(name):
    """The files that importing "lebench_sb.tasks.asr.ASRBrain" runs: packages on the way and the module"""
    files, path = [], PACKAGE
    for part in ["", *name.split(".")[1:]]:
        path = path / part
        if (path / "__init__.py").is_file():
            files.append(path / "__init__.py")
        elif path.with_suffix(".py").is_file():
            return [*files, path.with_suffix(".py")]
        else:
            break
    return files


def code_hash(files):
    """Of the files' content and names; the package may lie anywhere"""
    hashes = {}
    for path in files:
        inside = path.is_relative_to(PACKAGE)
        name = f"lebench_sb/{path.relative_to(PACKAGE)}" if inside else f"{path.parent.name}/{path.name}"
        hashes.setdefault(name, []).append(file_hash(path))
    return digest(hashes)


# ---- data and encoder


def data_hash(overrides, resolved, skip):
    """Of the manifests the command names and the files they list, else of the whole data folder; and of every
    other file that a value of the YAML or of the command names.

    resolved: text of the YAML, overrides included. What lies in the run's own folders is its result.
    """
    values = {keys[0]: value for keys, value in yaml_values(resolved) if len(keys) == 1} | overrides
    root, given = values.get("data_folder", ""), [key for key in CSV_KEYS if key in overrides]
    manifests = [str(path) for key in given for path in named_paths(overrides[key])]
    states = [manifest_state(path, root) for path in manifests]
    hashed = {*OWN_FOLDERS, "data_folder", *(key for key in ENCODER_KEYS if key in overrides)}
    for key, paths in sorted(files_in(resolved).items()):
        # where the command names a manifest nothing is prepared: another one that is there is read as it is
        own = [] if given and key in CSV_KEYS else [values[k] for k in OWN_FOLDERS if values.get(k)]
        others = [path for path in paths if path not in manifests and not _below(path, own)]
        states += [[key, Path(path).name, named_state(path, root)] for path in others if key not in hashed]
    if not given and (root and "data_folder" in overrides or os.path.isdir(root)):
        states.append(listing(root, [*skip, *filter(None, [values.get("feature_cache")])]))
    return digest(states)


def _below(path, folders):
    """Whether a path lies in one of the folders, by its name"""
    return any(Path(os.path.abspath(path)).is_relative_to(os.path.abspath(folder)) for folder in folders)


def named_paths(written):
    """The value of a *_csv key as typed, one path or a YAML list -> paths"""
    value = yaml.safe_load(written) if written.lstrip().startswith("[") else written
    return manifest_paths(value)


def named_state(path, root):
    """What decides the result of reading a file or folder that a value names"""
    if os.path.isdir(path):
        return folder_state(path)
    if os.path.getsize(path) > SMALL:
        return state(path)
    return manifest_state(str(path), root)


def folder_state(path):
    """Of a run, its results; of a model, what encoder_hash reads, by size and time; None for other folders"""
    results = Path(path) / "results.json"
    if results.is_file():
        return file_hash(results)
    if not (Path(path) / "config.json").is_file():
        return None
    names = (*CONFIGS, *WEIGHTS)
    files = sorted(file for file in Path(path).iterdir() if file.name.endswith(names) and file.is_file())
    return [[file.name, state(file)] for file in files]


@lru_cache(None)
def manifest_state(path, root):
    """Content of a file; where it is a manifest, also size and time of change of each file it names (None for
    one that is missing), and of the shard where that lies inside one"""
    named = named_in_manifest(path, root)
    return [file_hash(path), digest([[Path(name).name, state(name)] for name in named or []])]


def state(path):
    try:
        stat = os.stat(path)
    except (OSError, ValueError):  # ValueError: NUL in a path; the run that reads it says what is wrong
        return None
    return [stat.st_size, stat.st_mtime_ns]


def listing(folder, skip=()):
    """Of path, size and time of change of every file below a folder"""
    return _listing(str(folder), tuple(sorted(str(Path(path).resolve()) for path in skip)))


@lru_cache(None)
def _listing(folder, skip):
    if not os.path.isdir(folder):
        raise FileNotFoundError(f"data_folder {folder} is not a folder.")
    files, seen = [], set(skip)
    for place, folders, names in os.walk(folder, followlinks=True):
        seen.add(os.path.realpath(place))
        reals = {name: os.path.realpath(os.path.join(place, name)) for name in sorted(folders)}
        folders[:] = [f for f, real in reals.items() if not f.startswith(".") and real not in seen]
        paths = [os.path.join(place, name) for name in sorted(names) if not name.startswith(".")]
        files += [(os.path.relpath(path, folder), state(path)) for path in paths]
    return digest(files)


def encoder_hash(source):
    """A value of --ssl_hub or --init_from -> what decides its weights, as a text"""
    random, _, name = source.rpartition("random:")
    folder = Path(name).expanduser()
    if not folder.is_dir():
        return f"{source} {cached_commit(name)}"
    names = CONFIGS if "random:" in source else (*CONFIGS, ".index.json", *WEIGHTS)
    files = sorted(path for path in folder.iterdir() if path.name.endswith(names) and path.is_file())
    return digest([[path.name, file_hash(path)] for path in files])


def cached_commit(hub_id):
    """The commit of an id of the Hub in the cache, "" if it is not there (or no id, as mel_filterbank)"""
    if "/" not in hub_id:
        return ""
    from huggingface_hub import try_to_load_from_cache

    config = try_to_load_from_cache(hub_id, "config.json") if hub_id.count("/") == 1 else None
    return Path(config).parent.name if isinstance(config, str) else ""


def file_hash(path):
    stat = os.stat(path)
    return _file_hash(str(path), stat.st_size, stat.st_mtime_ns)


@lru_cache(None)
def _file_hash(path, size, changed_at):
    """sha256 (hex) of a file; read again when its size or time of change is another"""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
