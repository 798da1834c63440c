"""GRID.yaml -> Grid, checked: every mistake is found before anything runs, and all are told at once.

`schema` says what may be written in it.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path

from lebench_sb.core.errors import UsageError, nearest
from lebench_sb.core.guard import check_yaml, read_text, read_yaml
from lebench_sb.core.tags import foreign_tags
from lebench_sb.grid import checks, schema
from lebench_sb.grid.checks import ROOT, find_folder, find_mode, find_recipe, stop_at
from lebench_sb.grid.schema import ASR_FIRST, BASELINE, CONTINUED, canonical_mode, checked

KNOWN_YAMLS = (ROOT / "hparams", ROOT / "recipes")  # that an override may include
WAY_OUT = "a value is plain, or one of the tags of the repository's YAMLs; write it into a recipe's YAML"
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
    recipe: Recipe | None = None  # None: not found
    modes: dict = field(default_factory=dict)  # mode -> overrides
    grid: dict | None = None  # key -> values; None: the grid's own
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

    def rates(self, task, mode):
        """{key: values to try} in the cells of a task and a mode (its name)"""
        own = self.modes[mode].grid if mode in self.modes else None
        return next(rates for rates in (own, task.grid, self.grid) if rates is not None)

    def given(self, task, mode):
        """Everything that may be overridden in the cells of a task and a mode, as mappings"""
        of_mode = self.modes[mode].overrides if mode in self.modes else {}
        of_encoders = [encoder.overrides for encoder in self.encoders.values()]
        own = [task.recipe.overrides, task.modes.get(mode, {}), self.rates(task, mode)]
        return [self.overrides, of_mode, *own, *of_encoders]


def read_grid(path):
    """GRID.yaml -> Grid; raises UsageError that lists everything wrong with its keys and names.

    What needs the steps (nested keys of overrides) is checked by `plan.check`.
    """
    reader = _Reader()
    grid = reader.grid(path, raw_grid(path))
    checks.check_grid(grid, reader.problems)
    stop_at(path, reader.problems)
    return grid


def raw_grid(path, above=()):
    """GRID.yaml -> what is written in it and in the grids it extends, unchecked but for what its values would
    run: a grid may come from anybody, and reading it imports and builds nothing"""
    text = read_text(path, UsageError)
    check_yaml(text, path)
    tags = foreign_tags(text, KNOWN_YAMLS)
    not_run = [f"line {line}: {tag.split(' ')[0]} is not run from a grid" for line, tag in tags]
    stop_at(path, [f"{problem}: {WAY_OUT}" for problem in not_run])
    raw = read_yaml(path)
    stop_at(path, [f"{text[:40]!r}: no value has a zero byte" for text in _texts(raw) if "\0" in text])
    if not (extended := raw.pop("extends", None)):
        return raw
    other = Path(path).parent / str(extended)
    if other.resolve() in {Path(p).resolve() for p in (path, *above)}:
        raise UsageError(f"{path}: extends {extended} goes round in a circle.")
    if not other.is_file():
        raise UsageError(f"{path}: extends {extended}: no such file beside it.")
    return _merged(raw_grid(other, (path, *above)), raw)


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


class _Reader:
    """What is written -> parts of a Grid; what is wrong with it is added to `problems`"""

    def __init__(self):
        self.problems, self.data_folder = [], ""

    def grid(self, path, raw):
        written = checked(schema.GridFile, raw, "", self.problems)
        self.data_folder = find_folder(written.data_folder, "", self.problems)
        encoders = self.named("encoders", written.encoders, self.encoder)
        tasks = self.named("tasks", written.tasks, self.task)
        modes = self.modes(written.modes or {}, tasks)
        return Grid(
            str(path), written.output, encoders, tasks, modes, tuple(written.seeds or ()),
            _rates(written.grid) or {}, written.overrides or {}, self.exclude(written.exclude or ()),
            tuple(map(str, written.options or ())), _count(written.parallel), _count(written.threads),
            written.beats_trivial_baseline,
        )  # fmt: skip

    def named(self, section, entries, make):
        """A section that maps names to entries -> {name: what `make` makes of it}"""
        entries = entries or {}
        checks.check_folders(section, map(str, entries), self.problems)
        return {str(name): make(str(name), entry) for name, entry in entries.items()}

    def encoder(self, name, entry):
        entry, where = {"source": entry} if isinstance(entry, str) else entry, f"encoders.{name}."
        written = checked(schema.Encoder, entry, where, self.problems)
        if written is None or written.source is None:
            return Encoder(name)
        if written.source:
            trained = written.model_fields_set - {"source", "run_overrides"}
            wrong = [f"{where}{key}: an encoder with a source is not trained" for key in sorted(trained)]
            self.problems += wrong
            return Encoder(name, written.source, None, written.run_overrides or {})
        training = self.recipe(written, where, written.overrides, self.data_folder)
        return Encoder(name, "", training, written.run_overrides or {}, _count(written.slots) or 1)

    def task(self, name, entry):
        where = f"tasks.{name}."
        written = checked(schema.Task, entry, where, self.problems)
        if written is None:
            return Task(name)
        recipe = self.recipe(written, where, written.overrides, self.data_folder)
        modes, yamls = self.modes_of_task(written, where, recipe)
        start_from = "" if written.start_from is None else str(written.start_from)
        return Task(name, recipe, modes, _rates(written.grid), yamls, start_from)

    def modes_of_task(self, written, where, recipe):
        """A schema.Task -> {mode: overrides}, {mode: YAML}"""
        modes, yamls = {}, {}
        for name, overrides in (written.modes or {}).items():
            mode = find_mode(name, f"{where}modes.", self.problems, [BASELINE])
            if mode is None:
                continue
            modes[mode] = dict(overrides or {})
            hparams = modes[mode].pop("hparams", None)
            if hparams and recipe:
                files = find_recipe(written.recipe, str(hparams), f"{where}modes.{name}.", self.problems)
                yamls |= {mode: files[1]} if files else {}
        return modes, yamls

    def recipe(self, written, where, overrides, data_folder=""):
        """A schema.Training -> Recipe; None if it is not there"""
        folder = find_folder(written.data_folder, where, self.problems) or data_folder
        files = find_recipe(written.recipe, written.hparams, where, self.problems)
        return Recipe(*files, folder, overrides or {}) if files else None

    def modes(self, written, tasks):
        """A list of modes, or a mapping to their settings -> {mode: Mode}"""
        settings, modes = written if isinstance(written, dict) else dict.fromkeys(written), {}
        for name, entry in settings.items():
            if mode := find_mode(name, "modes: ", self.problems):
                where = f"modes.{name}."
                entry = checked(schema.SETTINGS[mode], {} if entry is None else entry, where, self.problems)
                modes |= {mode: self.mode(mode, entry, where, tasks)} if entry else {}
        return modes

    def mode(self, name, written, where, tasks):
        step, task = None, ""
        if name == CONTINUED and written.recipe == "":
            unwritten = {key: value for key, value in CONTINUE.items() if getattr(written, key) == ""}
            written = written.model_copy(update=unwritten)
        if name == CONTINUED or (name == ASR_FIRST and written.recipe != ""):
            step = self.recipe(written, where, written.step_overrides)
        elif name == ASR_FIRST:
            task = self.asr_task(written, where, tasks)
        return Mode(name, written.overrides or {}, step, task, _rates(written.grid))

    def asr_task(self, written, where, tasks):
        """The task of the grid whose end-to-end run ASR first is"""
        task = _only_asr(tasks) if written.task is None else str(written.task)
        if task not in tasks:
            hint = nearest(task, tasks) if task else ": give its recipe, hparams and data_folder, or the task"
            missing = "is missing, and there is not one ASR task"
            self.problems.append(f"{where}task {task or missing}{hint}")
        for key in ("hparams", "data_folder", "step_overrides"):
            if key in written.model_fields_set:
                self.problems.append(
                    f"{where}{key} needs a recipe; with a task, the task's own settings hold"
                )
        return task

    def exclude(self, entries):
        """[{encoder: a or [a, b], task: ..., mode: ...}] -> tuple of {key: set of names}"""
        excluded = []
        for entry in entries:
            if written := checked(schema.Exclusion, entry, "exclude: ", self.problems):
                pairs = [(key, value) for key, value in written if value is not None]
                sets = {k: set(map(str, v if isinstance(v, list) else [v])) for k, v in pairs}
                if "mode" in sets:
                    sets["mode"] = {canonical_mode(name) or name for name in sets["mode"]}
                excluded.append(sets)
        return tuple(excluded)


def _rates(written):
    """{key: [value, ...]} -> {key: (value, ...)}; None if there is none"""
    return None if written is None else {key: tuple(values) for key, values in written.items()}


def _count(written):
    return None if written == "auto" else written


def _only_asr(tasks):
    names = [n for n, task in tasks.items() if task.recipe and "/ASR/" in Path(task.recipe.train).as_posix()]
    return names[0] if len(names) == 1 else ""
