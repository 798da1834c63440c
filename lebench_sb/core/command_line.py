"""Command line of a recipe: SpeechBrain's run options and overrides of the YAML, checked before use.

SpeechBrain reads a bare `lr=1` as part of the value before it, takes a misspelt nested key as a new one, and
answers a misspelt option with a traceback. Here each is one line with the nearest right name.
"""

import atexit
import contextlib
import difflib
import io
import os
import sys
import traceback
from dataclasses import replace
from pathlib import Path

import torch
from ruamel.yaml import YAML
from ruamel.yaml.nodes import MappingNode, ScalarNode, SequenceNode
from speechbrain.utils.run_opts import RunOptions

from lebench_sb.core import signals
from lebench_sb.core.errors import UsageError, exit_code, one_line, printable_output, shorten
from lebench_sb.core.extends import complete
from lebench_sb.core.yaml_tree import compose_text, keys_of, names_inside
from lebench_sb.core.yaml_values import as_yaml, compose, is_one_value, plain_value, quoted

# What to do with a run folder that began otherwise: see training/inputs.py
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
    folder that began otherwise (see training/inputs.py), `--reset_missing` lets parts start anew that a
    checkpoint lacks. Raises UsageError for another value."""
    given, others, words = {"if_changed": REFUSE, "reset_missing": False}, [], iter(argv)
    for word in words:
        name, equals, value = word.partition("=")
        if name not in OWN_OPTIONS:
            others.append(word)
            continue
        key, allowed = name[2:], OWN_OPTIONS[name]
        value = value if equals else next(words, "")
        if value not in allowed:
            raise UsageError(f"{name} {value}: {', '.join(allowed)}.")
        given[key] = {"True": True, "False": False}.get(value, value)
    return others, given


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
    overrides = checked(root, overrides, path)
    for key, node in keys_of(root).items():
        if str(node.tag) == "!PLACEHOLDER" and key not in overrides:
            raise UsageError(f"--{key} is missing: {path} needs it.")
    if run_opts.debug and not run_opts.debug_persistently and "output_folder" in keys_of(root):
        overrides["output_folder"] = str(Path(plain_value(path, overrides, "output_folder")) / "debug")
    return path, run_opts, overrides


def shown(path, words):
    """A recipe's YAML and overrides as on its command line -> the text of one YAML that says all of it.

    References and placeholders stay, so that the text is a recipe's YAML, too. Raises UsageError as `parse`.
    """
    root = compose(path)
    options, overrides = split_words(words, list(keys_of(root)))
    if options:
        raise UsageError(f"{options[0]}: an option of a run is not in its YAML.")
    return complete(path, as_yaml(checked(root, overrides, path)))


def read_options(path, words):
    """Words of run options -> RunOptions; raises UsageError with what argparse has to say of a wrong
    value."""
    printed = io.StringIO()
    try:
        with contextlib.redirect_stderr(printed):
            run_opts = RunOptions.from_command_line_args([str(path), *words])[1]
    except SystemExit as stop:
        raise UsageError(printed.getvalue().strip().splitlines()[-1].split("error: ")[-1]) from stop
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


def unknown(name, names):
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}?" if near else "the YAML lists the keys, --help the run options."
    return f"{name}: no such option or key; {hint}"


# ---- overrides


def checked(root, overrides, path):
    """Overrides as typed -> as YAML reads them; raises UsageError for wrong kinds of values and for
    unknown nested keys."""
    nodes = keys_of(root)
    overrides = {key: as_text(key, value, nodes[key]) for key, value in overrides.items()}
    for key, value in overrides.items():
        check_kind(key, value, nodes[key])
        written = compose_text(value, f"--{key}") if value.lstrip().startswith(("{", "[")) else None
        if isinstance(written, MappingNode):
            check_nested(f"--{key}", written, nodes[key], path.parent)
    return overrides


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
    keys = keys_of(node)
    allowed = names_inside(str(node.tag), keys, folder)
    if allowed is None:
        return
    for key, value in keys_of(written).items():
        if key not in allowed:
            raise UsageError(f"{name}: {unknown(key, sorted(allowed))}")
        if isinstance(value, MappingNode) and key in keys:
            check_nested(f"{name}.{key}", value, keys[key], folder)
