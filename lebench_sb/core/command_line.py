"""Command line of a recipe: SpeechBrain's run options and overrides of the YAML, checked before use.

SpeechBrain reads a bare `lr=1` as part of the value before it, takes a misspelt nested key as a new one, and
answers a misspelt option with a traceback. Here each is one line with the nearest right name.
"""

import atexit
import contextlib
import difflib
import importlib
import inspect
import io
import json
import os
import re
import sys
import traceback
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from hyperpyyaml import load_hyperpyyaml, resolve_references
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.nodes import MappingNode, ScalarNode, SequenceNode
from ruamel.yaml.scalarbool import ScalarBoolean
from speechbrain.utils.run_opts import RunOptions

from lebench_sb.core import signals
from lebench_sb.core.errors import DataError, UsageError, exit_code, one_line, printable_output, shorten
from lebench_sb.core.guard import check_yaml, decode, read_small, too_deep
from lebench_sb.core.tags import allowed as is_known

# What to do with a run folder that began otherwise: see training/begun.py
REFUSE, BESIDE, RESUME = "refuse", "beside", "resume"
OWN_OPTIONS = {"--if_changed": (REFUSE, BESIDE, RESUME), "--reset_missing": ("True", "False")}
# Texts of the YAMLs that may be numbers, too
NUMBER_OR_TEXT = ("layer",)


def launch(main):
    """Runs a recipe's `main(argv)`.

    A user's mistake prints one line (once under torchrun) and ends with the code of core.errors.exit_code;
    LEBENCH_TRACEBACK=1 shows where it was raised. Anything else is a failed run: code 1. SIGTERM and SIGUSR1
    end it with signals.TRY_AGAIN, training with a checkpoint: the same command goes on.
    """
    signals.end_at_once()
    printable_output()
    code = 0
    try:
        main(sys.argv[1:])
    except KeyboardInterrupt:
        print("Stopped. The same command goes on from the last checkpoint.", file=sys.stderr)
        code = 1
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        code = 1 if isinstance(end.code, str) else end.code or 0
    except Exception as error:
        code = exit_code(error)
        if code is None or os.environ.get("LEBENCH_TRACEBACK") == "1":
            traceback.print_exc()
        elif os.environ.get("RANK", "0") == "0":
            print(f"error: {one_line(error)}", file=sys.stderr)
        code = 1 if code is None else code
    leave(code)


def leave(code):
    """Ends the process; one of several without taking the interpreter down.

    A thread of gloo that still holds a tensor at that moment aborts the process after all its work is done,
    with another code (https://github.com/pytorch/pytorch/issues/190489), even if the group is destroyed
    before: the reducer of DistributedDataParallel keeps it.
    """
    if not torch.distributed.is_initialized():
        sys.exit(code)
    if code == 0:  # a failed process may be the only one that is here
        torch.distributed.destroy_process_group()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def own_options(argv):
    """argv -> (the words that `parse` takes, {own option: value}). `--if_changed` says what to do with a
    folder that began otherwise (see training/begun.py), `--reset_missing` lets parts start anew that a
    checkpoint lacks. Raises UsageError for another value."""
    given, kept, words = {"if_changed": REFUSE, "reset_missing": False}, [], iter(argv)
    for word in words:
        name, equals, value = word.partition("=")
        if name not in OWN_OPTIONS:
            kept.append(word)
            continue
        key, allowed = name[2:], OWN_OPTIONS[name]
        value = value if equals else next(words, "")
        if value not in allowed:
            raise UsageError(f"{name} {value}: {', '.join(allowed)}.")
        given[key] = {"True": True, "False": False}.get(value, value)
    return kept, given


def parse(argv):
    """argv -> (YAML path, RunOptions, {key: value as written in YAML}), all names and kinds checked"""
    if not argv or argv[0] in ("-h", "--help"):
        RunOptions.from_command_line_args(["--help"])
    path = Path(argv[0])
    if not path.is_file():
        raise FileNotFoundError(f"{path} not found: the first word after the script is the recipe's YAML.")
    root = compose(path)
    option_words, overrides = split_words(argv[1:], [key.value for key, _ in root.value])
    if "--distributed_backend" not in option_words and not torch.cuda.is_available():
        option_words += ["--distributed_backend", "gloo"]  # SpeechBrain's default, nccl, needs GPUs
    run_opts = read_options(path, option_words)
    overrides = {key: as_text(key, value, keys_of(root)[key]) for key, value in overrides.items()}
    check_overrides(root, overrides, path)
    if run_opts.debug and not run_opts.debug_persistently and "output_folder" in keys_of(root):
        overrides["output_folder"] = str(Path(plain_value(path, overrides, "output_folder")) / "debug")
    return path, run_opts, overrides


def read_options(path, words):
    """Words of run options -> RunOptions; raises UsageError with what argparse has to say of a wrong
    value."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            run_opts = RunOptions.from_command_line_args([str(path), *words])[1]
    except SystemExit as stop:
        raise UsageError(said.getvalue().strip().splitlines()[-1].split("error: ")[-1]) from stop
    limit = run_opts.optimizer_step_limit  # SpeechBrain leaves it a string
    if limit is not None and not str(limit).isdigit():
        raise UsageError(f"--optimizer_step_limit {limit}: a number of updates is expected.")
    return run_opts if limit is None else replace(run_opts, optimizer_step_limit=int(limit))


def split_words(words, yaml_keys):
    """Words after the YAML -> (words of run options, {key: value} of overrides)"""
    actions = RunOptions._create_parser()._actions
    kinds = {option: action for action in actions for option in action.option_strings}
    option_words, overrides, position = [], {}, 0
    while position < len(words):
        word = words[position]
        if not word.startswith("--"):
            raise UsageError(stray(word))
        name, equals, value = word[2:].partition("=")
        option = kinds.get(f"--{name}")
        if option is None and name not in yaml_keys:
            known = [*kinds, *OWN_OPTIONS, *(f"--{key}" for key in yaml_keys)]
            raise UsageError(unknown(f"--{name}", known))
        values, position = following(words, position, option, value if equals else None)
        if option is not None:
            option_words += [f"--{name}", *values]
        elif name in overrides:
            raise UsageError(f"--{name} is given twice.")
        else:
            overrides[name] = values[0]
    return option_words, overrides


def stray(word):
    if "=" in word:
        return f"{word}: an option starts with two dashes: --{word.lstrip('-')}"
    return f"{word}: a value without its option; write --key value."


def following(words, position, option, inline):
    """The values of the option at `position` and the position after them"""
    if option is not None and option.nargs == 0:
        if inline is not None:
            raise UsageError(f"{words[position]}: this option takes no value.")
        return [], position + 1
    if inline is not None:
        return [inline], position + 1
    end = position + 1
    limit = len(words) if option is not None and option.nargs == "*" else position + 2
    while end < min(limit, len(words)) and not words[end].startswith("--"):
        end += 1
    if end == position + 1:
        raise UsageError(f"{words[position]} needs a value.")
    return words[position + 1 : end], end


def unknown(name, known):
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}?" if near else "the YAML lists the keys, --help the run options."
    return f"{name}: no such option or key; {hint}"


# ---- the YAML as a tree


def compose(path):
    """YAML file -> its root node; raises UsageError with file and line for a YAML that does not parse."""
    root = compose_any(path)
    if not isinstance(root, MappingNode):
        raise UsageError(f"{path}: not a mapping of keys to values.")
    return root


def compose_any(path):
    """YAML file -> its root node of any kind"""
    return compose_text(decode(read_small(path, UsageError), path, UsageError), path)


def compose_text(text, where):
    """YAML text -> its root node. Raises UsageError naming `where` for what does not parse or is too deep."""
    check_yaml(text, where, UsageError)
    try:
        return YAML().compose(text)
    except YAMLError as error:
        raise UsageError(f"{where}: {' '.join(str(error).split())}") from error


def keys_of(node):
    return {key.value: value for key, value in node.value} if isinstance(node, MappingNode) else {}


def check_overrides(root, overrides, path):
    """Raises UsageError for placeholders left, wrong kinds of values and unknown nested keys."""
    nodes = keys_of(root)
    for key, value in overrides.items():
        check_kind(key, value, nodes[key])
        written = compose_text(value, f"--{key}") if value.lstrip().startswith(("{", "[")) else None
        if isinstance(written, MappingNode):
            check_nested(f"--{key}", written, nodes[key], path.parent)
    for key, node in nodes.items():
        if str(node.tag) == "!PLACEHOLDER" and key not in overrides:
            raise UsageError(f"--{key} is missing: {path} needs it.")


def is_text(key, node):
    """Whether the value of a key is text: what the user types for it is no number, whatever it looks like"""
    tag = str(node.tag)
    if isinstance(node, ScalarNode):
        return key not in NUMBER_OR_TEXT and (tag.endswith(":str") or tag in ("!PLACEHOLDER", "!ref"))
    return tag.startswith("!applyref:")


def as_text(key, value, node):
    """An override as YAML reads it: text stays text (`--mode 12`), `~` at its beginning is the user's home"""
    if not is_text(key, node) or value.lstrip().startswith(("!", "[", "{")):
        return value
    value = os.path.expanduser(value) if value.startswith("~") else value
    if not is_one_value(value):  # `as_yaml` puts it into quotation marks
        return value
    read = YAML().compose(f"key: {value}\n").value[0][1]
    return value if str(read.tag).endswith(":str") else quoted(value)


def quoted(text):
    """A text in YAML's double quotation marks"""
    return json.dumps(text, ensure_ascii=False)


def check_kind(key, value, node):
    """A number stays a number, a truth value one, a list a list, unless the override is a YAML tag"""
    begins, value = value.lstrip()[:1], shorten(value, 80)
    if isinstance(node, SequenceNode) and str(node.tag).endswith(":seq") and begins not in ("[", "!"):
        raise UsageError(f"--{key} {value}: a list is expected, such as [{value}].")
    if isinstance(node, MappingNode) and begins not in ("{", "!"):
        raise UsageError(f"--{key} {value}: settings in braces are expected, such as {{name: value}}.")
    if not isinstance(node, ScalarNode) or begins in ("!", "{", "["):
        return
    tag = str(node.tag)
    if tag.endswith((":int", ":float")) and not is_number(value):
        raise UsageError(f"--{key} {value}: a number is expected, such as {node.value}.")
    if tag.endswith(":bool") and value.lower() not in ("true", "false"):
        raise UsageError(f"--{key} {value}: True or False is expected.")


def is_number(text):
    try:
        float(text)
    except ValueError:
        return text.lower() in ("null", "none")
    return True


def check_nested(name, written, node, folder):
    """Keys of a mapping on the command line against those of the YAML and of the object it makes"""
    known = keys_of(node)
    tag = str(node.tag)
    if tag.startswith(NAMING) and not is_known(tag):
        return  # a check imports no module that a file names; the loading says what does not fit
    allowed = set(known) | set(argument_names(tag))
    if tag.startswith("!include:"):
        included = compose_any(folder / tag.removeprefix("!include:"))
        allowed |= set(keys_of(included)) | set(argument_names(str(included.tag)))
    for key, value in keys_of(written).items():
        if key not in allowed:
            raise UsageError(f"{name}: {unknown(key, sorted(allowed))}")
        if isinstance(value, MappingNode) and key in known:
            check_nested(f"{name}.{key}", value, known[key], folder)


NAMING = ("!new:", "!name:", "!apply:", "!applyref:", "!module:")


def argument_names(tag):
    """`!new:module.Class`, `!name:...`, `!apply:...` -> the names of its arguments"""
    match = re.match(r"!(?:new|name|apply):([\w.]+)\.(\w+)$", tag)
    if not match:
        return []
    target = getattr(importlib.import_module(match[1]), match[2])
    return [name for name in inspect.signature(target).parameters if name != "self"]


def as_yaml(overrides):
    """{key: value as typed} -> YAML text; a value that YAML would not read as one value is quoted"""
    lines = []
    for key, value in overrides.items():
        text = absolute_include(value)
        lines.append(f"{key}: {text if is_one_value(text) else quoted(text)}")
    return "\n".join(lines)


def is_one_value(text):
    """Whether YAML reads a text as the one value that it looks like"""
    if too_deep(text) or re.search(r"[\r\n]|\s#", text):
        return False
    try:
        return len(YAML().compose(f"key: {text}\n").value) == 1
    except YAMLError:
        return False


def absolute_include(value):
    """Paths on the command line are relative to the shell, also those of `!include:`"""
    match = re.match(r"\s*!include:(\S+)", value)
    if match and Path(match[1]).is_file():
        return value.replace(match[1], str(Path(match[1]).resolve()), 1)
    return value


def resolve(path, overrides):
    """The text of a YAML with includes, references and overrides resolved; nothing is built. Raises
    UsageError naming the file for what does not resolve."""
    try:
        with open(path, encoding="utf-8") as file:
            return resolve_references(file, as_yaml(overrides)).read()
    except Exception as error:
        if (fault := explained(path, error)) is error:
            raise
        raise fault from error


def plain_values(resolved):
    """{top-level key: value} of a resolved YAML, without building any object"""
    return YAML().load(resolved)


def plain_value(path, overrides, key):
    """One resolved value of the YAML, without building any object"""
    return plain_values(resolve(path, overrides))[key]


def load_yaml(path, overrides):
    """Loads the YAML with its overrides; raises UsageError naming the file for what cannot be built."""
    return build(resolve(path, overrides), path)


def build(resolved, path, only=None):
    """The text of a resolved YAML -> {key: value}, its objects built; only: some of its keys.

    Raises UsageError naming the file `path` where the YAML names what is not there or gives an argument that
    is not taken; what goes wrong inside an object that is built stays as it is.
    """
    if only is not None:
        values, part = plain_values(resolved), io.StringIO()
        YAML().dump({key: values[key] for key in only}, part)
        resolved = part.getvalue()
    try:
        return load_hyperpyyaml(resolved)
    except Exception as error:
        if (fault := explained(path, error)) is error:
            raise
        raise fault from error


def explained(path, error):
    """What to raise for an error of reading a YAML: a UsageError naming the file where the YAML is wrong, the
    message of a ValueError of ours, and the error itself where the fault is in the code"""
    if isinstance(error, DataError | UsageError | OSError):
        return error
    if isinstance(error, YAMLError) or raised_in_hyperpyyaml(error):
        return UsageError(f"{path}: {' '.join(' '.join(map(str, error.args or [error])).split())}")
    if isinstance(error, ValueError):
        # one of ours names what is wrong, and the YAML may be innocent
        return UsageError(str(error) if raised_in(error, ("lebench_sb",)) else f"{path}: {error}")
    return error


READERS_OF_YAML = ("hyperpyyaml", "ruamel", "inspect.py", "importlib", "pydoc.py")


def raised_in_hyperpyyaml(error):
    return raised_in(error, READERS_OF_YAML)


def raised_in(error, places):
    """Whether the innermost frame of an error lies in one of these packages or files"""
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and any(place in frames[-1].filename for place in places)


def plain_settings(resolved, path):
    """The text of a resolved YAML -> {key: plain value}, its manifests alone built (`<split>_csv`, which may
    be a function's value).

    What the YAML would make (`!new:`, `!name:`, `!apply:`) is the mapping or list of its arguments.
    """
    values = {str(key): plain(value) for key, value in plain_values(resolved).items()}
    return values | build(resolved, path, only=[key for key in values if key.endswith("_csv")])


def plain(value):
    """A value as ruamel.yaml gives it -> mapping, list, text, number, truth value or None"""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, ScalarBoolean):
        return bool(value)
    kind = next((kind for kind in (int, float) if isinstance(value, kind)), None)
    return kind(value) if kind else str(value)
