"""What must be there for a grid to run: recipes, YAMLs, folders, names it refers to, keys it overrides.

Each function adds what is wrong to the list `problems`.
"""

import re
from pathlib import Path

from lebench_sb.core.errors import UsageError, nearest
from lebench_sb.grid.cli_values import slug, wrong_overrides
from lebench_sb.grid.schema import BASELINE, MEL, MODES, OURS, canonical_mode

ROOT = Path(__file__).parents[2]  # recipes of the repository are found from anywhere


def stop_at(path, problems):
    """Raises UsageError with all problems, if there are any"""
    if problems := [problem.rstrip(".") for problem in dict.fromkeys(problems)]:
        counted = f" ({len(problems)} problems)" if len(problems) > 1 else ""
        raise UsageError(f"{path}{counted}: {'; '.join(problems)}.")


def find_recipe(recipe, hparams, where, problems):
    """Folder of a recipe and name of a YAML in it ("": the only one) -> (train.py, YAML); None if one is not
    there, or was None, which is a problem already"""
    if recipe is None or hparams is None:
        return None
    place = recipe and next((p for p in (Path(recipe), ROOT / recipe) if (p / "train.py").is_file()), None)
    if not place:
        there = sorted(str(p.parent.relative_to(ROOT)) for p in ROOT.glob("recipes/*/*/train.py"))
        wrong = f" {recipe}: no folder with a train.py{nearest(recipe, there)}" if recipe else " is missing"
        problems.append(f"{where}recipe{wrong}")
        return None
    yamls = sorted(path.name for path in (place / "hparams").glob("*.yaml"))
    chosen = hparams or (yamls[0] if len(yamls) == 1 else "")
    if chosen not in yamls:
        hint = nearest(chosen, yamls) or f"; there are {', '.join(yamls) or 'none'}"
        problems.append(f"{where}hparams {chosen or 'is missing'}: no YAML of {place}/hparams{hint}")
        return None
    return str(place / "train.py"), str(place / "hparams" / chosen)


def find_folder(data_folder, where, problems):
    """The data_folder as it is written, "" if there is none"""
    if data_folder and not Path(data_folder).is_dir():
        problems.append(f"{where}data_folder {data_folder}: no such folder")
    return data_folder or ""


def find_mode(written, where, problems, others=()):
    """The mode (or one of `others`) that a name means; None for no mode"""
    mode = written if written in others else canonical_mode(written)
    if mode is None:
        hint = nearest(str(written), (*MODES, *others)) or f"; there are {', '.join((*MODES, *others))}"
        problems.append(f"{where}{written} is no mode{hint}")
    return mode


def check_folders(section, names, problems):
    """Names of a section make different folders"""
    folders = {}
    for name in names:
        if slug(name) in folders:
            problems.append(f"{section}: {name} and {folders[slug(name)]} would share a folder")
        folders[slug(name)] = name


def check_grid(grid, problems):
    """All that its parts must find in one another, or in the recipes' YAMLs"""
    _check_exclude(grid, problems)
    _check_starts(grid, problems)
    _check_sources(grid, problems)
    _check_overrides(grid, problems)


def _check_exclude(grid, problems):
    known = {"encoder": list(grid.encoders), "task": list(grid.tasks), "mode": [*grid.modes, BASELINE]}
    for key, names in (pair for entry in grid.exclude for pair in entry.items()):
        for name in sorted(names - set(known[key])):
            hint = nearest(name, known[key]) or f"; there are {', '.join(known[key])}"
            problems.append(f"exclude: {name} is no {key} of this grid{hint}")


def _check_starts(grid, problems):
    """A task starts from one that comes before it"""
    before = []
    for task in grid.tasks.values():
        if task.start_from and task.start_from not in before:
            hint = nearest(task.start_from, before) or f"; before it come {', '.join(before) or 'none'}"
            problems.append(f"tasks.{task.name}.start_from: {task.start_from} is no task before it{hint}")
        before.append(task.name)


def _check_sources(grid, problems):
    """Encoders are folders of Hugging Face, ids of the Hub, or others of the grid"""
    for encoder in grid.encoders.values():
        source = encoder.source.removeprefix("random:")
        of_another = encoder.source != source and source in grid.encoders
        if not encoder.source or encoder.source == MEL or of_another:
            continue
        where = f"encoders.{encoder.name}: {encoder.source}"
        if Path(source).expanduser().is_dir():
            if not (Path(source).expanduser() / "config.json").is_file():
                problems.append(f"{where} holds no config.json: it is not a Hugging Face folder")
        elif not _is_hub_id(source):
            hint = nearest(source, [MEL, *grid.encoders])
            problems.append(f"{where} is no folder, no Hub id (organisation/name) and not {MEL}{hint}")


def _is_hub_id(source):
    """As encoders.is_hub_id, which imports transformers"""
    return bool(re.fullmatch(r"\w[\w.-]*/[\w.-]+", source)) and not Path(source).parent.exists()


def _check_overrides(grid, problems):
    """Overrides are known to the YAML of their recipe"""
    given = [
        (f"encoders.{encoder.name}.", encoder.training, [encoder.training.overrides])
        for encoder in grid.encoders.values() if encoder.training
    ]  # fmt: skip
    given += [(f"modes.{m.name}.step_", m.step, [m.step.overrides]) for m in grid.modes.values() if m.step]
    modes = [*grid.modes, *([BASELINE] if any(e.source == MEL for e in grid.encoders.values()) else [])]
    for task in (task for task in grid.tasks.values() if task.recipe):
        for mode in modes:
            given.append((f"tasks.{task.name}.", task.recipe_in(mode), grid.given(task, mode)))
    for where, recipe, mappings in given:
        pairs = [pair for mapping in mappings for pair in mapping.items() if pair[0] not in OURS]
        pairs = [(k, one) for k, value in pairs for one in (value if isinstance(value, tuple) else [value])]
        problems += [f"{where}overrides: {problem}" for problem in wrong_overrides(recipe.yaml, pairs)]
