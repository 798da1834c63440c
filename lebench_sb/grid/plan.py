"""Grid -> the steps that fill it, each an ordinary command, and the cells of its table.

A step is `lebench prepare`, the training of an encoder, or a task's run; it knows which steps come before it.
Cells that need the same encoder share the step that trains it. Below the grid's `output`:

    TASK/ENCODER/MODE/seed1/                 a run
    TASK/ENCODER/MODE/seed1/head_lr=0.003/   a run, where learning rates are tried
    encoders/MODE/ENCODER/[CORPUS-HASH/]     a run that trains an encoder for others
    encoders/data/CORPUS-HASH/               manifests for it
"""

import json
import re
import shlex
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path

from lebench_sb.core.command_line import parse
from lebench_sb.core.errors import UsageError
from lebench_sb.core.guard import read_json
from lebench_sb.core.tags import foreign_in
from lebench_sb.core.yaml_tree import keys_of
from lebench_sb.core.yaml_values import compose, plain_value
from lebench_sb.grid.checks import ROOT, stop_at
from lebench_sb.grid.cli_values import MISTAKES, cli_arguments, cli_value, slug
from lebench_sb.grid.grid import CONTINUE, KNOWN_YAMLS, WAY_OUT
from lebench_sb.grid.schema import ASR_FIRST, BASELINE, CONTINUED, END_TO_END, MEL, OURS
from lebench_sb.training.fingerprint import NO_BARS, digest

RUN = "results.json"  # a recipe writes it last
# Those of pretraining.build.MODELS, which imports transformers
CONTINUED_KINDS = ("wav2vec2", "wav2vec2-conformer")
PREPARED = "prepared.json"  # for `lebench prepare`, whose manifests have no order, it is written for it


@dataclass(frozen=True)
class Step:
    """arguments: after `python`. after: names of steps that must have succeeded. choice: (task, encoder,
    mode) whose learning rates, chosen when its first seed has run, complete the arguments and the folder.
    slots: that it takes of the machine."""

    name: str
    folder: str
    arguments: tuple
    after: tuple = ()
    choice: tuple = ()
    marker: str = RUN
    slots: int = 1

    @property
    def command(self):
        if self.arguments[:2] == ("-m", "lebench_sb.cli"):
            return shlex.join(["lebench", *self.arguments[2:]])
        return shlex.join(["python", *self.arguments])

    def with_point(self, point):
        """The step with the chosen values, {key: value}"""
        folder = f"{self.folder}/{point_name(point)}"
        arguments = [*self.arguments, "--output_folder", folder, *cli_arguments(point)]
        return replace(self, folder=folder, arguments=tuple(arguments), choice=())


@dataclass(frozen=True)
class Cell:
    """One row of the table. tries: {point name: (point, step name)} on the first seed, more than one if
    learning rates are chosen; steps: {seed: step name} of its runs, without the first seed if they are."""

    task: str
    encoder: str
    mode: str
    tries: dict = field(default_factory=dict)
    steps: dict = field(default_factory=dict)

    @property
    def key(self):
        return self.task, self.encoder, self.mode

    @property
    def name(self):
        return "/".join(map(slug, self.key))

    @property
    def names(self):
        """Of all its steps"""
        return list(dict.fromkeys([name for _, name in self.tries.values()] + list(self.steps.values())))


@dataclass(frozen=True)
class Plan:
    steps: dict  # name -> Step, each after those it needs
    cells: tuple
    left_out: tuple  # (encoder, task, mode, why)


def point_name(point):
    return ",".join(f"{key}={slug(cli_value(value))}" for key, value in point.items())


def make_plan(grid):
    """Grid -> Plan; raises UsageError that lists every override the recipes' YAMLs do not know."""
    plan = _Planner(grid).plan()
    check(grid, plan)
    return plan


class _Planner:
    def __init__(self, grid):
        self.grid, self.steps, self.left_out, self.problems = grid, {}, [], []

    def plan(self):
        cells = [
            self.cell(task, encoder, mode)
            for task in self.grid.tasks.values()
            for encoder in self.grid.encoders.values()
            for mode in self.modes(task, encoder)
        ]
        stop_at(self.grid.path, self.problems)
        if not cells:
            raise UsageError(f"{self.grid.path}: no cell is left; see modes and exclude.")
        return Plan(self.steps, tuple(cells), tuple(self.left_out))

    def modes(self, task, encoder):
        """Names of the modes in which an encoder is run on a task"""
        wanted = [BASELINE] if encoder.source == MEL else list(self.grid.modes)
        for mode in wanted:
            cell = {"encoder": encoder.name, "task": task.name, "mode": mode}
            if any(all(cell[key] in names for key, names in entry.items()) for entry in self.grid.exclude):
                self.left_out.append((*cell.values(), "excluded"))
            elif mode == CONTINUED and encoder.source.startswith("random:"):
                self.left_out.append((*cell.values(), "random weights have nothing to continue"))
            else:
                yield mode

    def cell(self, task, encoder, mode):
        points = self.points(task, mode)
        first, *others = self.grid.seeds
        tries = {point_name(p): (p, self.run(task, encoder, mode, first, p)) for p in points}
        if len(points) == 1:
            steps = {seed: self.run(task, encoder, mode, seed, points[0]) for seed in self.grid.seeds}
        else:
            steps = {seed: self.run_chosen(task, encoder, mode, seed, tries) for seed in others}
        return Cell(task.name, encoder.name, mode, tries, steps)

    def points(self, task, mode):
        """Every combination of the rates to try; one without anything if there are none"""
        rates = self.grid.rates(task, mode)
        return [dict(zip(rates, values, strict=True)) for values in product(*rates.values())]

    def run(self, task, encoder, mode, seed, point):
        """Adds a task's run (once) and returns its name"""
        parts = [*map(slug, (task.name, encoder.name, mode)), f"seed{seed}"]
        parts += [point_name(point)] if point else []
        arguments, after = self.arguments(task, encoder, mode, seed, point)
        folder = "/".join([self.grid.output, *parts])
        return self.add(Step("/".join(parts), folder, (*arguments, "--output_folder", folder), after))

    def run_chosen(self, task, encoder, mode, seed, tries):
        """Adds a run whose point is chosen among `tries`, and returns its name"""
        parts = [*map(slug, (task.name, encoder.name, mode)), f"seed{seed}"]
        point = next(iter(tries.values()))[0]
        arguments, after = self.arguments(task, encoder, mode, seed, point, chosen=True)
        after = (*after, *(name for _, name in tries.values()))
        choice = (task.name, encoder.name, mode)
        return self.add(Step("/".join(parts), "/".join([self.grid.output, *parts]), arguments, after, choice))

    def arguments(self, task, encoder, mode, seed, point, chosen=False):
        """Command of a task's run but for its output_folder (and its point, if that is chosen later)"""
        source, after = self.source(task, encoder, mode)
        start, source, after = self.start(task, encoder, mode, seed, source, after)
        settings = self.grid.modes.get(mode)
        forced = {
            "ssl_hub": source, "mode": mode, "freeze": mode != END_TO_END, "seed": seed,
            **({"layer": "last"} if mode == BASELINE else {}), **start,
        }  # fmt: skip
        values = {
            **self.grid.overrides, **(settings.overrides if settings else {}), **task.recipe.overrides,
            **task.modes.get(mode, {}), **encoder.overrides, **forced, **point,
        }  # fmt: skip
        if chosen:
            values = {key: value for key, value in values.items() if key not in point}
        return self.command(task.recipe_in(mode), values), after

    def start(self, task, encoder, mode, seed, source, after):
        """-> overrides that start the head from the run of the task's `start_from`, --ssl_hub, steps before.

        Continued SSL starts fresh: there every task has an encoder of its own.
        """
        if not task.start_from or mode == CONTINUED:
            return {}, source, after
        other = self.grid.tasks[task.start_from]
        if mode == ASR_FIRST and self.grid.modes[mode].task == other.name:
            name = self.asr_first(encoder)
        elif len(points := self.points(other, mode)) > 1:
            what = f"{other.name} tries {len(points)} rates; give it one, by grid: {{}}"
            self.problems.append(f"tasks.{task.name}.start_from: {what}")
            return {}, source, after
        else:
            name = self.run(other, encoder, mode, seed, points[0])
        folder = self.steps[name].folder
        source = f"{folder}/encoder" if mode == END_TO_END else source
        return {"init_from_run": folder}, source, (*after, name)

    def command(self, recipe, values):
        """Arguments after `python`: the grid's own keys first"""
        ordered = [*(key for key in OURS if key in values), *(key for key in values if key not in OURS)]
        arguments = [recipe.train, recipe.yaml]
        arguments += ["--data_folder", recipe.data_folder] if recipe.data_folder else []
        return (*arguments, *cli_arguments({k: values[k] for k in ordered}), NO_BARS, *self.grid.options)

    def add(self, step):
        self.steps.setdefault(step.name, step)
        return step.name

    # ---- encoders

    def source(self, task, encoder, mode):
        """What --ssl_hub names in a cell, and the steps that make it"""
        if mode == CONTINUED:
            name = self.continued(task, encoder)
        elif mode == ASR_FIRST:
            name = self.asr_first(encoder)
        else:
            return self.own_source(encoder)
        return f"{self.steps[name].folder}/encoder", (name,)

    def own_source(self, encoder):
        """An encoder as it comes: its folder or id, or what the grid trains first"""
        if encoder.training:
            name = self.trained(encoder)
            return f"{self.steps[name].folder}/encoder", (name,)
        random, _, other = encoder.source.rpartition("random:")
        if "random:" in encoder.source and other in self.grid.encoders:
            source, after = self.own_source(self.grid.encoders[other])
            return f"random:{source}", after
        return encoder.source, ()

    def trained(self, encoder):
        if leaves_frozen(encoder.training):
            self.problems.append(
                f"encoders.{encoder.name}: {encoder.training.yaml} leaves its encoder frozen and writes no "
                "encoder/; name a recipe of recipes/pretraining, or the mode ASR first"
            )
        name = f"encoders/pretraining/{slug(encoder.name)}"
        folder = f"{self.grid.output}/{name}"
        values = {**encoder.training.overrides, "output_folder": folder}
        return self.add(Step(name, folder, self.command(encoder.training, values), slots=encoder.slots))

    def continued(self, task, encoder):
        """Continues the pre-training of an encoder, once per corpus"""
        recipe = self.grid.modes[CONTINUED].step
        after, values, corpus = (), {}, ""
        if not recipe.data_folder:
            prepared = self.prepared(task)
            after, corpus = (prepared,), "/" + Path(prepared).name
            manifests = self.steps[prepared].folder if prepared in self.steps else ""
            values = {f"{split}_csv": f"{manifests}/{split}.csv" for split in ("train", "valid")}
            recipe = replace(recipe, data_folder=task.recipe.data_folder)
            if not prepared:
                values, after = self.own_manifests(task), ()
                corpus = "/" + slug(f"{task.name}-{digest(sorted(values.items()))[:6]}")
        source, before = self.own_source(encoder)
        begun_from = self.continued_from(encoder, source)
        if wrong := cannot_continue(begun_from, recipe):
            self.problems.append(f"encoders.{encoder.name}: {wrong}; exclude {{mode: {CONTINUED}}} for it")
        name = f"encoders/continued_SSL/{slug(encoder.name)}{corpus}"
        folder = f"{self.grid.output}/{name}"
        values |= {**recipe.overrides, "init_from": begun_from, "output_folder": folder}
        values["seed"] = self.grid.seeds[0]
        return self.add(Step(name, folder, self.command(recipe, values), (*before, *after)))

    def continued_from(self, encoder, source):
        """What --init_from names: of an encoder that the grid trains, what its recipe will have written"""
        if not encoder.training:
            return continued_from(source)
        exports_all = "init_from" in keys_of(compose(Path(encoder.training.yaml)))
        return str(Path(source).with_name("pretraining")) if exports_all else source

    def own_manifests(self, task):
        """The manifests that a task's overrides name"""
        overrides = {**self.grid.overrides, **task.recipe.overrides}
        return {key: cli_value(overrides[key]) for key in ("train_csv", "valid_csv") if key in overrides}

    def prepared(self, task):
        """Adds `lebench prepare` of the corpus of a task; "" if its overrides name manifests"""
        overrides = {**self.grid.overrides, **task.recipe.overrides}
        if "train_csv" in overrides:
            return ""
        typed = {key: cli_value(value) for key, value in overrides.items()}
        typed |= {"data_folder": task.recipe.data_folder, "output_folder": "OUTPUT", "ssl_hub": MEL}
        try:
            function = plain_value(task.recipe.yaml, typed, "prepare")
        except (*MISTAKES, ValueError) as error:
            self.problems.append(f"tasks.{task.name}: {error}")
            return ""
        module, _, name = str(function.tag.value).partition(":")[2].rpartition(".")
        corpus = module.rpartition(".")[2]
        if module != f"lebench_sb.corpora.{corpus}" or name != f"prepare_{corpus}":
            self.problems.append(
                f"tasks.{task.name}: continued SSL needs manifests, and {module}.{name} is not one of "
                "lebench_sb.corpora; give modes.continued SSL a data_folder"
            )
            return ""
        kept = {k: v for k, v in function.items() if k not in ("data_folder", "manifest_folder")}
        arguments = ["-m", "lebench_sb.cli", "prepare", corpus, "--data_folder", task.recipe.data_folder]
        arguments += [argument for key, value in kept.items() for argument in (f"--{key}", as_json(value))]
        name = f"encoders/data/{corpus}-{digest(arguments)[:6]}"
        folder = f"{self.grid.output}/{name}"
        return self.add(Step(name, folder, (*arguments, "--output", folder), marker=PREPARED))

    def asr_first(self, encoder):
        """The end-to-end run of speech recognition on an encoder, which exports what it made of it"""
        mode = self.grid.modes[ASR_FIRST]
        if mode.task:
            return self.run(self.grid.tasks[mode.task], encoder, END_TO_END, self.grid.seeds[0], {})
        source, after = self.own_source(encoder)
        name = f"encoders/ASR_first/{slug(encoder.name)}"
        folder = f"{self.grid.output}/{name}"
        values = {
            **mode.step.overrides, "ssl_hub": source, "mode": END_TO_END, "freeze": False,
            "seed": self.grid.seeds[0], "output_folder": folder,
        }  # fmt: skip
        return self.add(Step(name, folder, self.command(mode.step, values), after))


def continued_from(source):
    """The folder of --init_from: of an encoder that a run here exported, the one with the quantiser beside
    it, where the run has written one (distillation has none)"""
    path = Path(source)
    beside = path.with_name("pretraining") if path.name else path
    return str(beside) if path.name == "encoder" and (beside / "config.json").exists() else source


def cannot_continue(source, recipe):
    """Why the recipe cannot continue the pre-training of an encoder, "" if nothing speaks against it (of an
    id of the Hub that is not in the cache, nothing is known)"""
    if Path(recipe.train).resolve() != (ROOT / CONTINUE["recipe"] / "train.py").resolve():
        return ""
    if (config := config_of(source)) is None:
        return ""
    kind = read_json(config, UsageError).get("model_type")
    if kind not in CONTINUED_KINDS:
        known = " and ".join(CONTINUED_KINDS)
        return f"{CONTINUED} goes on with {known}, and {source} is of the kind {kind or 'unknown'}"
    beside = config.with_name("preprocessor_config.json")
    stored = read_json(beside, UsageError).get("do_normalize") if beside.is_file() else None
    wanted = recipe.overrides.get("do_normalize", keys_of(compose(Path(recipe.yaml)))["do_normalize"].value)
    wanted = str(wanted).lower()
    if stored is None or wanted not in ("true", "false") or str(stored).lower() == wanted:
        return ""
    return f"{source} was trained with do_normalize {stored}: step_overrides: {{do_normalize: {stored}}}"


def config_of(source):
    """The config.json of a folder, or in the cache of an id of the Hub; None where there is none yet"""
    local = Path(source).expanduser() / "config.json"
    if local.is_file():
        return local
    if re.fullmatch(r"[\w.-]+/[\w.-]+", source):
        from huggingface_hub import try_to_load_from_cache

        found = try_to_load_from_cache(source, "config.json")
        return Path(found) if isinstance(found, str) else None
    return None


def leaves_frozen(recipe):
    """Whether a run of the recipe trains a head alone, so that there is no encoder to hand on"""
    nodes = keys_of(compose(Path(recipe.yaml)))
    if not {"freeze", "ssl_hub"} <= set(nodes):  # a pre-training
        return False
    return str(recipe.overrides.get("freeze", nodes["freeze"].value)).lower() == "true"


def as_json(value):
    """A value of a resolved YAML as `lebench prepare` reads it"""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def check(grid, plan):
    """Raises UsageError listing what `command_line.parse` says of the steps (nested keys, keys still missing)
    and arguments that would run something: the pieces of a grid are harmless each, and so must be their sum
    """
    problems, seen = [], set()
    for step in plan.steps.values():
        yaml, arguments = step.arguments[1], list(step.arguments[2:])
        differing = {"--output_folder", "--seed", "--ssl_hub", "--init_from"}
        pairs = zip(["", *arguments], arguments, strict=False)
        shape = (yaml, *(argument for before, argument in pairs if before not in differing))
        tags = [tag for argument in arguments for tag in foreign_in(argument, KNOWN_YAMLS)]
        problems += [f"{step.name}: {tag} is not run from a grid: {WAY_OUT}" for tag in tags]
        if step.arguments[0] == "-m" or shape in seen or tags:
            continue
        seen.add(shape)
        try:
            parse([yaml, *arguments])
        except MISTAKES as error:
            problems.append(f"{yaml}: {str(error).rstrip('.')}")
    stop_at(grid.path, problems)
