"""What may be written in a grid's YAML: keys, kinds and ranges, as pydantic models.

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
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import PydanticCustomError

from lebench_sb.core.errors import nearest
from lebench_sb.grid.cli_values import cli_value

FROZEN, CONTINUED, ASR_FIRST, END_TO_END = MODES = ("frozen", "continued SSL", "ASR first", "end-to-end")
BASELINE, MEL = "filterbank", "mel_filterbank"
OURS = ("output_folder", "seed", "mode", "freeze", "ssl_hub", "init_from", "data_folder")  # set by the grid
MAX_COUNT = 4096  # of slots and threads


def _not_ours(key):
    if key in OURS:
        raise ValueError("the grid sets it itself")
    return key


def _no_value_twice(values):
    if len({cli_value(value) for value in values}) < len(values):
        raise ValueError("a value stands there twice")
    return values


def _no_seed_twice(seeds):
    if len(set(seeds)) < len(seeds):
        raise PydanticCustomError("twice", "a seed stands there twice")
    return seeds


def _debug_stays(options):
    if "--debug" in options and "--debug_persistently" not in options:
        raise ValueError("--debug writes elsewhere; add --debug_persistently")
    return options


def _kind(kind, expectation, **limits):
    """A kind of value, with the sentence about a value of another kind"""
    return Annotated[kind, Field(description=expectation, **limits)]


Name = str | int | float
Key = Annotated[str, AfterValidator(_not_ours)]  # of a recipe's YAML
Values = Annotated[list[Any], Field(min_length=1), AfterValidator(_no_value_twice)]
Whole = Annotated[int, Field(ge=1, le=MAX_COUNT)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
SeedList = Annotated[list[Seed], Field(min_length=1), AfterValidator(_no_seed_twice)]
OptionList = Annotated[list[str | bool | int | float], AfterValidator(_debug_stays)]
MODE_LIST = f"a list of modes is expected, of {', '.join(MODES)}"

Output = _kind(str, "the path of a folder is expected", min_length=1)
Folder = _kind(str | None, "the path of a folder is expected")
Source = _kind(str, f"a folder, a Hub id or {MEL} is expected", min_length=1)
RecipeFolder = _kind(str, "no folder with a train.py: a path is expected", min_length=1)
Yaml = _kind(str, "the name of a YAML is expected", min_length=1)
TaskName = _kind(Name | None, "the name of a task is expected")
Overrides = _kind(dict[Key, Any] | None, "keys of the recipe's YAML and values are expected")
Rates = _kind(dict[Key, Values] | None, "lists of values are expected, as in {head_lr: [0.003, 0.001]}")
ByMode = _kind(dict[Name, dict[Key, Any] | None] | None, "a mapping of a mode to overrides is expected")
Named = _kind(dict[Name, Any], "a mapping of names is expected", min_length=1)
Modes = _kind(list[Name] | dict[Name, Any], MODE_LIST, min_length=1)
Seeds = _kind(SeedList, "a list of different whole numbers from 0 on is expected")
Count = _kind(Whole | Literal["auto"] | None, f"a whole number from 1 to {MAX_COUNT} is expected, or auto")
Switch = _kind(bool, "True or False is expected")
Options = _kind(OptionList | None, "a list of words is expected, as [--debug, --debug_persistently]")
Excluded = _kind(list[Any], "a list is expected, as [{encoder: random, mode: ASR first}]")
Names = _kind(Name | list[Name], "a name is expected, or a list of names")


class Written(BaseModel):
    """A mapping in a grid's YAML. Nothing that is written is converted; "" is a text that is not written."""

    model_config = ConfigDict(extra="forbid", strict=True, defer_build=True)


class GridFile(Written):
    output: Output
    data_folder: Folder = None
    encoders: Named
    tasks: Named
    modes: Modes = [FROZEN]
    seeds: Seeds = [1234]
    grid: Rates = None
    overrides: Overrides = None
    exclude: Excluded = []
    options: Options = None
    parallel: Count = None
    threads: Count = None
    beats_trivial_baseline: Switch = False


class Training(Written):
    """A recipe with its settings"""

    recipe: RecipeFolder = ""
    hparams: Yaml = ""
    data_folder: Folder = None
    overrides: Overrides = None


class Encoder(Training):
    """One that is there, with a source, or one that the grid trains"""

    source: Source = ""
    run_overrides: Overrides = None
    slots: Count = 1


class Task(Training):
    modes: ByMode = None
    grid: Rates = None
    start_from: TaskName = None


class Mode(Written):
    overrides: Overrides = None
    grid: Rates = None


class Continued(Mode, Training):
    step_overrides: Overrides = None


class ASRFirst(Continued):
    task: TaskName = None


class Exclusion(Written):
    """Cells left out"""

    encoder: Names = None
    task: Names = None
    mode: Names = None


SETTINGS = {FROZEN: Mode, CONTINUED: Continued, ASR_FIRST: ASRFirst, END_TO_END: Mode}  # of each mode


def canonical_mode(name):
    """The mode that "end to end" or "End-to-end" means; None for no mode"""
    plain = re.sub(r"[\s_-]+", " ", str(name)).strip().lower()
    return next((mode for mode in MODES if mode.replace("-", " ").lower() == plain), None)


def checked(model, written, where, problems):
    """What is written at `where` ("", "tasks.ASR.") as an object of the model; None if it is no mapping.

    What does not fit is added to `problems`, and the object has None in its place.
    """
    try:
        return model.model_validate(written)
    except ValidationError as error:
        faults = error.errors()
    problems += [_message(model, written, where, fault) for fault in faults]
    if not isinstance(written, dict):
        return None
    wrong = {fault["loc"][0] for fault in faults if fault["type"] != "value_error"}
    keys = model.model_fields.keys()
    right = {key: written[key] for key in keys & written.keys() - wrong}
    return model.model_construct(**right, **dict.fromkeys(keys & wrong))


def _message(model, written, where, fault):
    """One of pydantic's faults as a sentence of ours: the key, what is wrong with it and the way out"""
    path = [str(part) for part in fault["loc"] if part != "[key]"]
    known = list(model.model_fields)
    if not path:
        return f"{where}{written!r}: a mapping is expected, with {', '.join(known)}"
    if path[0] not in known:
        hint = nearest(path[0], known) or f"; there are {', '.join(known)}"
        return f"{where}{path[0]} is no key{hint}"
    if fault["type"] == "value_error":  # of a function above
        return f"{where}{'.'.join(path)}: {fault['ctx']['error']}"
    field, value = model.model_fields[path[0]], written.get(path[0])
    if field.is_required() and not value:
        return f"{where}{path[0]} is missing"
    return f"{where}{path[0]}: {field.description}, not {value!r}"
