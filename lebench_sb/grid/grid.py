"""GRID.yaml -> Grid, checked: every mistake is found before anything runs, and all are told at once.

```yaml
output: results/grid                # everything is written below
data_folder: data/miniature         # default of all tasks
encoders:
  filterbank: mel_filterbank        # runs in one mode, `filterbank`: the baseline
  ours:                             # trained by the grid first, once; or the folder or Hub id of one that is
    recipe: recipes/pretraining/wav2vec2
    hparams: mini.yaml
    slots: 2                        # its training has the cores of two runs
    overrides: {number_of_updates: 800}
  random: random:ours               # its architecture, untrained
tasks:
  ASR:
    recipe: recipes/ASR/CommonVoice
    hparams: ctc.yaml
    overrides: {number_of_epochs: 10}           # any key of the YAML
    modes: {end to end: {number_of_epochs: 4}}  # overrides of one mode; `hparams` for another YAML
    grid: {head_lr: [0.003, 0.001]}             # instead of the grid's own
  SLU:
    recipe: recipes/SLU/MEDIA
    hparams: ctc.yaml
    start_from: ASR                 # a curriculum: each run begins with the head of that task's run
modes: [frozen, continued SSL, ASR first, end to end]
seeds: [1, 2, 3]
grid: {head_lr: [0.003, 0.001]}     # every combination, on the first seed; the best on valid for the others
```

`modes` may also map a mode to its settings: `overrides` (of the tasks' runs in it), and for the two modes
that train an encoder first how they do it: `recipe`, `hparams`, `data_folder`, `step_overrides`; for `ASR
first` also `task`, the task of the grid whose end-to-end run it is (by default the one below recipes/ASR).
Continued SSL without a `data_folder` hears the training audio of the task.
Further keys: `extends` (a grid beside this one, whose keys hold where this one says nothing), `overrides`
(of all tasks' runs), `exclude` (cells left out: `{encoder: random, mode: [ASR first]}`), `options` (run
options of every recipe: `[--debug, --debug_persistently]`), `parallel` (steps at once), `threads` (of each),
`beats_trivial_baseline` (True: a task in which no encoder and no filterbank beats the trivial baseline, with
an interval that excludes it, is a failure; random encoders do not count).
"""

import re
from dataclasses import dataclass, field, replace
from pathlib import Path

from lebench_sb.core.errors import UsageError, nearest
from lebench_sb.core.guard import check_yaml, read_text, read_yaml
from lebench_sb.core.tags import foreign_tags
from lebench_sb.grid.words import slug, word, wrong_overrides

ROOT = Path(__file__).parents[2]  # recipes of the repository are found from anywhere
FROZEN, CONTINUED, ASR_FIRST, END_TO_END = MODES = ("frozen", "continued SSL", "ASR first", "end-to-end")
BASELINE, MEL = "filterbank", "mel_filterbank"
KEYS = (
    "output", "data_folder", "encoders", "tasks", "modes", "seeds", "grid", "overrides", "exclude", "options",
    "parallel", "threads", "beats_trivial_baseline",
)  # fmt: skip
RECIPE_KEYS = ("recipe", "hparams", "data_folder", "overrides")
TRAINED_KEYS = (*RECIPE_KEYS, "slots")
TASK_KEYS = (*RECIPE_KEYS, "modes", "grid", "start_from")
MODE_KEYS = {
    FROZEN: ("overrides", "grid"),
    END_TO_END: ("overrides", "grid"),
    CONTINUED: ("overrides", "grid", "recipe", "hparams", "data_folder", "step_overrides"),
    ASR_FIRST: ("overrides", "grid", "recipe", "hparams", "data_folder", "step_overrides", "task"),
}
OURS = ("output_folder", "seed", "mode", "freeze", "ssl_hub", "init_from", "data_folder")  # set by the grid
EXCLUDE_KEYS = ("encoder", "task", "mode")
KNOWN_YAMLS = (ROOT / "hparams", ROOT / "recipes")  # that an override may include
WAY_OUT = "a value is plain, or one of the tags of the repository's YAMLs; write it into a recipe's YAML"
MAX_COUNT = 4096  # of slots and threads
CONTINUE = {"recipe": "recipes/pretraining/wav2vec2", "hparams": "continued.yaml"}


@dataclass(frozen=True)
class Recipe:
    """train.py and YAML of a recipe, the data it runs on ("" if not given) and the overrides of its YAML"""

    train: str
    yaml: str
    data_folder: str = ""
    overrides: dict = field(default_factory=dict)


@dataclass(frozen=True)
class Encoder:
    name: str
    source: str = ""  # of --ssl_hub, if it is not trained by the grid
    training: Recipe | None = None
    overrides: dict = field(default_factory=dict)  # of the tasks' runs on it
    slots: int = 1  # that its training takes


@dataclass(frozen=True)
class Task:
    name: str
    recipe: Recipe
    modes: dict  # mode -> overrides
    grid: dict | None  # key -> values; None: the grid's own
    yamls: dict = field(default_factory=dict)  # mode -> its YAML, where it is another than the recipe's
    start_from: str = ""  # the task whose runs its heads start from

    def recipe_in(self, mode):
        return replace(self.recipe, yaml=self.yamls.get(mode, self.recipe.yaml))


@dataclass(frozen=True)
class Mode:
    name: str
    overrides: dict = field(default_factory=dict)
    step: Recipe | None = None  # how the encoder is trained first
    task: str = ""  # of ASR first: the task whose end-to-end run does so
    grid: dict | None = None  # key -> values, before those of the task and the grid


@dataclass(frozen=True)
class Grid:
    path: str
    output: str
    encoders: dict
    tasks: dict
    modes: dict
    seeds: tuple
    grid: dict
    overrides: dict
    exclude: tuple
    options: tuple
    parallel: int | None
    threads: int | None
    beats_trivial_baseline: bool


def read_grid(path):
    """GRID.yaml -> Grid; raises UsageError that lists everything wrong with its keys and names.

    What needs the recipes' YAMLs (keys of overrides) is checked by `plan.check`.
    """
    found, problems = raw_grid(path), []
    _check_keys(found, KEYS, "", problems)
    for key in ("output", "encoders", "tasks"):
        if not found.get(key):
            problems.append(f"{key} is missing")
    data_folder = _folder(found, "", problems)
    encoders = _named(found, "encoders", problems, lambda *a: _encoder(*a, data_folder, problems))
    tasks = _named(found, "tasks", problems, lambda *a: _task(*a, data_folder, problems))
    modes = _modes(found.get("modes", [FROZEN]), tasks, problems)
    grid = Grid(
        str(path), str(found.get("output", "")), encoders, tasks, modes, _seeds(found, problems),
        _rates(found.get("grid"), "grid", problems) or {}, _overrides(found, "", problems),
        _exclude(found.get("exclude", []), encoders, tasks, modes, problems),
        _options(found, problems), _count(found, "parallel", problems), _count(found, "threads", problems),
        _switch(found, "beats_trivial_baseline", problems),
    )  # fmt: skip
    _check_starts(grid, problems)
    _check_sources(grid, problems)
    _check_overrides(grid, problems)
    stop_at(path, problems)
    return grid


def stop_at(path, problems):
    """Raises UsageError with all problems, if there are any"""
    if problems := [problem.rstrip(".") for problem in dict.fromkeys(problems)]:
        counted = f" ({len(problems)} problems)" if len(problems) > 1 else ""
        raise UsageError(f"{path}{counted}: {'; '.join(problems)}.")


def canonical_mode(name):
    """The mode that "end to end" or "End-to-end" means; None for no mode"""
    plain = re.sub(r"[\s_-]+", " ", str(name)).strip().lower()
    return next((mode for mode in MODES if mode.replace("-", " ").lower() == plain), None)


def raw_grid(path, above=()):
    """GRID.yaml -> what is written in it and in the grids it extends, unchecked but for what its values would
    run: a grid may come from anybody, and reading it imports and builds nothing"""
    text = read_text(path, UsageError)
    check_yaml(text, path)
    tags = foreign_tags(text, KNOWN_YAMLS)
    not_run = [f"line {line}: {tag.split(' ')[0]} is not run from a grid" for line, tag in tags]
    stop_at(path, [f"{problem}: {WAY_OUT}" for problem in not_run])
    found = read_yaml(path)
    stop_at(path, [f"{text[:40]!r}: no value has a zero byte" for text in _texts(found) if "\0" in text])
    if not (extended := found.pop("extends", None)):
        return found
    other = Path(path).parent / str(extended)
    if other.resolve() in {Path(p).resolve() for p in (path, *above)}:
        raise UsageError(f"{path}: extends {extended} goes round in a circle.")
    if not other.is_file():
        raise UsageError(f"{path}: extends {extended}: no such file beside it.")
    return _merged(raw_grid(other, (path, *above)), found)


def _texts(value):
    """Every text in a value, keys of mappings too"""
    if isinstance(value, dict):
        return [text for pair in value.items() for item in pair for text in _texts(item)]
    if isinstance(value, (list, tuple, set)):
        return [text for item in value for text in _texts(item)]
    return [value] if isinstance(value, str) else []


def _merged(below, above):
    """Two mappings as one: `above` wins, what is a mapping in both is merged, an empty value is none"""
    both = {key: below[key] for key in above if isinstance(below.get(key), dict)}
    nested = {k: _merged(v, above[k]) for k, v in both.items() if isinstance(above[k], dict)}
    return {**below, **{k: nested.get(k, v) for k, v in above.items() if v is not None or k not in below}}


def _check_keys(found, known, where, problems):
    """Complains of keys that are none; True if `found` is a mapping"""
    if not isinstance(found, dict):
        problems.append(f"{where}{found!r}: a mapping is expected, with {', '.join(known)}")
        return False
    for key in found:
        if key not in known:
            hint = nearest(str(key), known) or f"; there are {', '.join(known)}"
            problems.append(f"{where}{key} is no key{hint}")
    return True


def _named(found, section, problems, make):
    """A section that maps names to things -> {name: thing}; the names make different folders"""
    entries = found.get(section) or {}
    if not isinstance(entries, dict):
        problems.append(f"{section}: a mapping of names is expected")
        return {}
    folders = {}
    for name in map(str, entries):
        if slug(name) in folders:
            problems.append(f"{section}: {name} and {folders[slug(name)]} would share a folder")
        folders[slug(name)] = name
    made = {str(name): make(str(name), entry) for name, entry in entries.items()}
    return {name: thing for name, thing in made.items() if thing is not None}


def _encoder(name, entry, data_folder, problems):
    if isinstance(entry, str):
        return Encoder(name, entry)
    where = f"encoders.{name}."
    if not _check_keys(entry, ("source", "run_overrides", *TRAINED_KEYS), where, problems):
        return None
    run_overrides = _overrides({"overrides": entry.get("run_overrides")}, f"{where}run_", problems)
    if "source" not in entry:
        slots = _count(entry, "slots", problems, where) or 1
        return Encoder(name, "", _recipe(entry, where, data_folder, problems), run_overrides, slots)
    for key in TRAINED_KEYS:
        if key in entry:
            problems.append(f"{where}{key}: an encoder with a source is not trained")
    return Encoder(name, str(entry["source"]), None, run_overrides)


def _task(name, entry, data_folder, problems):
    where = f"tasks.{name}."
    if not _check_keys(entry, TASK_KEYS, where, problems):
        return None
    recipe, modes, yamls = _recipe(entry, where, data_folder, problems), {}, {}
    by_mode = entry.get("modes") or {}
    if not isinstance(by_mode, dict):
        problems.append(f"{where}modes: a mapping of a mode to overrides is expected")
        by_mode = {}
    for mode, overrides in by_mode.items():
        known = BASELINE if mode == BASELINE else canonical_mode(mode)
        if known is None:
            problems.append(f"{where}modes.{mode} is no mode{_nearest_mode(mode)}")
        modes[known] = _overrides({"overrides": overrides}, f"{where}modes.{mode}: ", problems)
        if chosen := modes[known].pop("hparams", None):
            other = _recipe({**entry, "hparams": chosen}, f"{where}modes.{mode}.", data_folder, problems)
            yamls |= {known: other.yaml} if other else {}
    rates = _rates(entry.get("grid"), f"{where}grid", problems)
    return Task(name, recipe, modes, rates, yamls, str(entry.get("start_from") or ""))


def _nearest_mode(name):
    return nearest(str(name), (*MODES, BASELINE)) or f"; there are {', '.join(MODES)}"


def _recipe(entry, where, data_folder, problems):
    """recipe (folder), hparams (file in it), data_folder, overrides -> Recipe; None if it is not found"""
    overrides, folder = _overrides(entry, where, problems), _folder(entry, where, problems) or data_folder
    named = str(entry.get("recipe") or "")
    place = named and next((p for p in (Path(named), ROOT / named) if (p / "train.py").is_file()), None)
    if not place:
        there = sorted(str(p.parent.relative_to(ROOT)) for p in ROOT.glob("recipes/*/*/train.py"))
        wrong = f" {named}: no folder with a train.py{nearest(named, there)}" if named else " is missing"
        problems.append(f"{where}recipe{wrong}")
        return None
    yamls = sorted(p.name for p in (place / "hparams").glob("*.yaml"))
    chosen = str(entry.get("hparams", yamls[0] if len(yamls) == 1 else ""))
    if chosen not in yamls:
        hint = nearest(chosen, yamls) or f"; there are {', '.join(yamls) or 'none'}"
        problems.append(f"{where}hparams {chosen or 'is missing'}: no YAML of {place}/hparams{hint}")
        return None
    return Recipe(str(place / "train.py"), str(place / "hparams" / chosen), folder, overrides)


def _folder(entry, where, problems):
    """The data_folder of an entry, "" if there is none; complains of one that does not exist"""
    folder = str(entry.get("data_folder") or "")
    if folder and not Path(folder).is_dir():
        problems.append(f"{where}data_folder {folder}: no such folder")
    return folder


def _overrides(entry, where, problems):
    found = entry.get("overrides") or {}
    if not isinstance(found, dict):
        problems.append(f"{where}overrides: keys of the recipe's YAML and values are expected, not {found!r}")
        return {}
    for key in found:
        if key in OURS:
            problems.append(f"{where}overrides.{key}: the grid sets it itself")
    return {str(key): value for key, value in found.items()}


def _rates(found, where, problems):
    """A grid section -> {key: (value, ...)}, None if there is none"""
    if found is None:
        return None
    if not isinstance(found, dict) or not all(isinstance(v, list) and v for v in found.values()):
        problems.append(f"{where}: lists of values are expected, as in {{head_lr: [0.003, 0.001]}}")
        return None
    for key, values in found.items():
        if len({word(value) for value in values}) < len(values):
            problems.append(f"{where}.{key}: a value stands there twice")
        if key in OURS:
            problems.append(f"{where}.{key}: the grid sets it itself")
    return {str(key): tuple(values) for key, values in found.items()}


def _modes(found, tasks, problems):
    """A list of modes, or a mapping to their settings -> {mode: Mode}"""
    if not isinstance(found, (dict, list)) or not found:
        problems.append(f"modes: a list of modes is expected, of {', '.join(MODES)}")
        return {}
    settings = found if isinstance(found, dict) else dict.fromkeys(map(str, found))
    modes = {}
    for written, entry in settings.items():
        name = canonical_mode(written)
        if name is None:
            problems.append(f"modes: {written} is no mode{_nearest_mode(written)}")
        elif _check_keys(entry or {}, MODE_KEYS[name], f"modes.{written}.", problems):
            modes[name] = _mode(name, entry or {}, f"modes.{written}.", tasks, problems)
    return modes


def _mode(name, entry, where, tasks, problems):
    overrides, step, task = _overrides(entry, where, problems), None, ""
    own = {**entry, "overrides": entry.get("step_overrides")}
    if name == CONTINUED:
        step = _recipe({**({} if "recipe" in entry else CONTINUE), **own}, where, "", problems)
    elif name == ASR_FIRST and "recipe" in entry:
        step = _recipe(own, where, "", problems)
    elif name == ASR_FIRST:
        task = str(entry.get("task") or _only_asr(tasks))
        if task not in tasks:
            hint = nearest(task, tasks) if task else ": give its recipe, hparams and data_folder, or the task"
            problems.append(f"{where}task {task or 'is missing, and there is not one ASR task'}{hint}")
        for key in ("hparams", "data_folder", "step_overrides"):
            if key in entry:
                problems.append(f"{where}{key} needs a recipe; with a task, the task's own settings hold")
    return Mode(name, overrides, step, task, _rates(entry.get("grid"), f"{where}grid", problems))


def _only_asr(tasks):
    found = [n for n, task in tasks.items() if task.recipe and "/ASR/" in Path(task.recipe.train).as_posix()]
    return found[0] if len(found) == 1 else ""


def _seeds(found, problems):
    seeds = found.get("seeds", [1234])
    whole = isinstance(seeds, list) and seeds and all(type(seed) is int for seed in seeds)
    if not whole or len(set(seeds)) < len(seeds) or not all(0 <= seed < 2**32 for seed in seeds):
        problems.append(f"seeds: a list of different whole numbers from 0 on is expected, not {seeds!r}")
        return (1234,)
    return tuple(seeds)


def _count(found, key, problems, where=""):
    value = found.get(key)
    if value in (None, "auto"):
        return None
    if type(value) is not int or not 1 <= value <= MAX_COUNT:
        what = f"a whole number from 1 to {MAX_COUNT} is expected, or auto"
        problems.append(f"{where}{key}: {what}, not {value!r}")
        return None
    return value


def _switch(found, key, problems):
    value = found.get(key, False)
    if not isinstance(value, bool):
        problems.append(f"{key}: True or False is expected, not {value!r}")
    return bool(value)


def _options(found, problems):
    options = found.get("options") or []
    if not isinstance(options, list) or not all(isinstance(option, (str, int, float)) for option in options):
        problems.append("options: a list of words is expected, as [--debug, --debug_persistently]")
        return ()
    if "--debug" in options and "--debug_persistently" not in options:
        problems.append("options: --debug writes elsewhere; add --debug_persistently")
    return tuple(map(str, options))


def _exclude(found, encoders, tasks, modes, problems):
    """[{encoder: a or [a, b], task: ..., mode: ...}] -> tuple of {key: set of names}"""
    if not isinstance(found, list):
        problems.append("exclude: a list is expected, as [{encoder: random, mode: ASR first}]")
        return ()
    known = {"encoder": list(encoders), "task": list(tasks), "mode": [*modes, BASELINE]}
    entries = []
    for entry in found:
        if not _check_keys(entry, EXCLUDE_KEYS, "exclude: ", problems):
            continue
        sets = {k: set(map(str, v if isinstance(v, list) else [v])) for k, v in entry.items() if k in known}
        if "mode" in sets:
            sets["mode"] = {canonical_mode(name) or name for name in sets["mode"]}
        for key, names in sets.items():
            for name in sorted(names - set(known[key])):
                hint = nearest(name, known[key]) or f"; there are {', '.join(known[key])}"
                problems.append(f"exclude: {name} is no {key} of this grid{hint}")
        entries.append(sets)
    return tuple(entries)


def _check_starts(grid, problems):
    """Complains of tasks that start from none that comes before them"""
    before = []
    for task in grid.tasks.values():
        if task.start_from and task.start_from not in before:
            hint = nearest(task.start_from, before) or f"; before it come {', '.join(before) or 'none'}"
            problems.append(f"tasks.{task.name}.start_from: {task.start_from} is no task before it{hint}")
        before.append(task.name)


def _check_sources(grid, problems):
    """Complains of encoders that are not there"""
    for encoder in grid.encoders.values():
        source = encoder.source.removeprefix("random:")
        of_another = encoder.source != source and source in grid.encoders
        if encoder.training or encoder.source == MEL or of_another:
            continue
        where = f"encoders.{encoder.name}: {encoder.source or 'nothing'}"
        if Path(source).expanduser().is_dir():
            if not (Path(source).expanduser() / "config.json").is_file():
                problems.append(f"{where} holds no config.json: it is not a Hugging Face folder")
        elif not _is_hub_id(source):
            hint = nearest(source, [MEL, *grid.encoders])
            problems.append(f"{where} is no folder, no Hub id (organisation/name) and not {MEL}{hint}")


def _check_overrides(grid, problems):
    """Complains of overrides that the YAML of their recipe does not know"""
    given = [(f"encoders.{e.name}.", e.training, [e.training.overrides]) for e in _trained(grid)]
    given += [(f"modes.{m.name}.step_", m.step, [m.step.overrides]) for m in grid.modes.values() if m.step]
    baseline = [Mode(BASELINE)] if any(e.source == MEL for e in grid.encoders.values()) else []
    for task in (task for task in grid.tasks.values() if task.recipe):
        for mode in [*grid.modes.values(), *baseline]:
            rates = next(g for g in (mode.grid, task.grid, grid.grid) if g is not None)
            mappings = [
                grid.overrides,
                mode.overrides,
                task.recipe.overrides,
                task.modes.get(mode.name, {}),
                rates,
            ]
            mappings += [encoder.overrides for encoder in grid.encoders.values()]
            given.append((f"tasks.{task.name}.", task.recipe_in(mode.name), mappings))
    for where, recipe, mappings in given:
        pairs = [pair for mapping in mappings for pair in mapping.items() if pair[0] not in OURS]
        pairs = [(k, one) for k, value in pairs for one in (value if isinstance(value, tuple) else [value])]
        problems += [f"{where}overrides: {problem}" for problem in wrong_overrides(recipe.yaml, pairs)]


def _trained(grid):
    return [encoder for encoder in grid.encoders.values() if encoder.training]


def _is_hub_id(source):
    """As encoders.is_hub_id, which imports transformers"""
    return bool(re.fullmatch(r"\w[\w.-]*/[\w.-]+", source)) and not Path(source).parent.exists()
