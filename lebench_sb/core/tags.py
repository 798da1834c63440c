"""Which YAML tags may build or call something in a file that came from elsewhere: a list, not a hope.

HyperPyYAML imports what `!new:`, `!name:`, `!apply:` and `!module:` name and follows attributes, so that
`!apply:lebench_sb.training.run.os.system` is a shell: a package in front proves nothing. What is allowed is
named by module and by what that module itself defines.
"""

import ast
import re
from functools import lru_cache
from pathlib import Path

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from lebench_sb.core.python_source import syntax_tree

PACKAGE = Path(__file__).parents[1]
PLAIN = re.compile(
    r"!ref|!copy|!tuple|!PLACEHOLDER|(!!|tag:yaml\.org,2002:)(int|float|str|bool|null|seq|map|merge)"
)
CALLED = {  # by !apply:, each by name: a function is run with any values
    "getattr",  # what HyperPyYAML makes of !ref <encoder.output_size>
    "speechbrain.utils.seed_everything",
    "lebench_sb.encoders.encoder.load_encoder",
    "lebench_sb.training.folders.run_folder",
    "lebench_sb.corpora.lebenchmark.manifests",
    "lebench_sb.pretraining.stream.virtual_epochs",
    "lebench_sb.pretraining.build.build_model",
    "lebench_sb.pretraining.build.make_config",
    "lebench_sb.pretraining.build.make_conformer_config",
    "lebench_sb.pretraining.distillation.load_teacher",
    "lebench_sb.pretraining.distillation.build_model",
}
OTHERS = re.compile(  # by !new: and !name:, of other packages: classes that compute
    r"torch\.(optim|optim\.lr_scheduler|nn)\.[A-Z]\w*"
    r"|speechbrain\.nnet\.\w+\.[A-Z]\w*"
    r"|speechbrain\.lobes\.models\.[A-Z]\w*\.[A-Z]\w*"
    r"|speechbrain\.utils\.(epoch_loop\.EpochCounter|train_logger\.FileTrainLogger)"
)
OURS = re.compile(  # and of this one, where the module defines it
    r"lebench_sb\.(audio\.augment|training\.schedules|tasks\.heads\.\w+)\.[A-Za-z]\w*"
    r"|lebench_sb\.(tasks|pretraining)\.\w+\.([A-Z]\w*|\w+_(brain|loss))"
    r"|lebench_sb\.corpora\.\w+\.prepare_\w+"
    r"|lebench_sb\.training\.checkpoints\.(SafeCheckpointer|save_trained|load_trained)"
)
TAG = re.compile(r"(?<!\w)!+<?!*[\w%][^\s,\[\]{}()\"']*")  # as it stands in the text of a value
NAMED = re.compile(r"!(new|name|apply|applyref|include):(.+)")


def foreign_tags(text, folders=(), base="."):
    """YAML text -> [(line, tag)]: the tags, of nodes and in their texts, that may not stand in a file that
    came from elsewhere, in the order of the file. [] for text that does not parse: its reader says why.

    folders: where files of `!include:` may lie, relative ones below `base`; they are to be checked in turn.
    Nothing is imported and nothing is built. A text of others first goes through guard.check_yaml. A YAML
    that the user himself names on the command line is his program, as with SpeechBrain; a grid, and what
    lies in folders of runs and models, is not.
    """
    foreign = []
    try:
        for event in YAML(typ="safe", pure=True).parse(text):
            written, tag = str(getattr(event, "value", None) or ""), getattr(event, "tag", None)
            tags = [*([str(tag)] if tag else []), *TAG.findall(written)]
            foreign += [(event.start_mark.line + 1, t) for t in tags if not allowed(t, folders, base)]
            if "!ref" in (str(tag), written[:4]) and re.search(r"\*\*|[\"']", written):
                foreign.append((event.start_mark.line + 1, f"!ref {written}"))  # 9 ** 9 ** 9 ends never
    except (YAMLError, RecursionError):
        return foreign
    return foreign


def foreign_in(value, folders=(), base="."):
    """The tags of `foreign_tags` in one text, as on a command line: [tag]"""
    return [tag for tag in TAG.findall(value) if not allowed(tag, folders, base)]


def allowed(tag, folders=(), base="."):
    """Whether a tag may stand in a file that came from elsewhere"""
    if PLAIN.fullmatch(tag):
        return True
    if not (match := NAMED.fullmatch(tag)):
        return False
    kind, target = match[1], match[2]
    if kind == "include":
        return any(_inside(Path(base) / target, folder) for folder in folders)
    if kind in ("apply", "applyref"):
        return target in CALLED
    return bool(OTHERS.fullmatch(target)) or bool(OURS.fullmatch(target)) and is_defined(target)


def _inside(path, folder):
    return path.resolve().is_relative_to(Path(folder).resolve())


def is_defined(target):
    """Whether the module of "lebench_sb.module.name" defines the name: as a class or a function"""
    *parts, name = target.split(".")[1:]
    path = PACKAGE.joinpath(*parts).with_suffix(".py")
    return path.is_file() and name in _definitions(path)


@lru_cache(None)
def _definitions(path):
    return {node.name for node in syntax_tree(path).body if isinstance(node, (ast.ClassDef, ast.FunctionDef))}
