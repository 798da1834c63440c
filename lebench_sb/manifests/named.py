"""Manifests that a command line names: were they made as it says? Nothing prepares them again."""

import csv
import logging
from itertools import islice

from lebench_sb.core.errors import UsageError
from lebench_sb.manifests.markers import plain, read_marker
from lebench_sb.text.normaliser import UnreadableText
from lebench_sb.text.normaliser import normaliser as text_normaliser

NOT_KNOWN = "not known"
ROWS = 20_000  # of a manifest without marker are looked at
logger = logging.getLogger(__name__)


def made_with(path):
    """The parameters that a manifest was prepared with, {} where no marker tells; of a sharded one, those of
    the manifest that was sharded"""
    parameters = read_marker(path).get("parameters", {})
    return parameters.get("source", parameters)


def text_of(paths, prepare, wanted, asked, on_command_line):
    """What results.json says of the texts of manifests, the name of a normaliser or NOT_KNOWN; None where the
    recipe uses no texts. Raises UsageError as the checks below do.

    prepare: the recipe's preparation, a partial; wanted: its normaliser; asked: {name: value} of the command
    line; on_command_line: whether that names the manifests.
    """
    options = getattr(prepare, "keywords", {})
    if on_command_line:
        check_options(paths, options, asked)
    if "normaliser" not in options and "normaliser" not in asked:
        return None
    return check_normaliser(paths, wanted, "normaliser" in asked)


def check_normaliser(paths, wanted, asked):
    """The name of the normaliser that the texts of manifests went through.

    The markers tell it. A manifest without one has texts as the normaliser leaves them (`wrd`, the first
    ROWS rows), or it is not known (NOT_KNOWN). wanted: of the YAML or the command line; asked: the command
    line gives it. Raises UsageError where markers say two, where they say another than is asked for, and
    where the texts of a manifest without marker are not as the one asked for leaves them.
    """
    text_normaliser(wanted)
    normalisers = {path: made_with(path).get("normaliser") for path in paths}
    names = {name: path for path, name in normalisers.items() if name is not None}
    if len(names) > 1:
        (one, first), (other, second), *_ = names.items()
        raise UsageError(
            f"{first} was prepared with --normaliser {one}, {second} with {other}: prepare both alike."
        )
    name, path = next(iter(names.items()), (wanted, None))
    if name != wanted and asked:
        raise UsageError(
            f"{path} was prepared with --normaliser {name}, {wanted} is asked for: the texts of a manifest "
            f"are not normalised again. Prepare it with {wanted}, or give --normaliser {name}."
        )
    for path in [path for path in paths if normalisers[path] is None]:
        odd = not_in_form(path, name)
        if odd and (asked or names):
            raise UsageError(
                f"{path}: {odd}, not as --normaliser {name} leaves it, and no marker tells how it was "
                "prepared. `lebench prepare own` normalises; --normaliser none takes texts as they are."
            )
        if odd:
            logger.warning("%s: %s, not as %s leaves it: results say %s.", path, odd, name, NOT_KNOWN)
            return NOT_KNOWN
    return name


def not_in_form(path, name):
    """The first row, in words, whose `wrd` the normaliser would change, or "" """
    normalise = text_normaliser(name)
    with open(path, encoding="utf-8-sig", newline="", errors="replace") as file:
        for row in islice(csv.DictReader(file), ROWS):
            text = (row.get("wrd") or "").replace("_", " ")  # treebanks join the pieces of a word
            try:
                same = normalise(text) == " ".join(text.split())
            except UnreadableText:
                same = False
            if not same:
                return f"{row.get('ID')} says {text[:60]!r}"
    return ""


def check_options(paths, options, asked):
    """Raises UsageError where the command line asks for another preparation than that of the manifests it
    names; an option that no marker knows is said to have no effect.

    options: {name: value} of the preparation; asked: names that the command line gives.
    """
    for name in sorted(set(options) & set(asked) - {"normaliser", "seed", "data_folder", "manifest_folder"}):
        values = {path: made_with(path).get(name) for path in paths}
        if all(value is None for value in values.values()):
            logger.warning("--%s has no effect on manifests that the command line names.", name)
        for path, value in values.items():
            if isinstance(value, (str, int, float)) and value != plain(options[name]):
                raise UsageError(
                    f"{path} was prepared with --{name} {value}, {options[name]} is asked for: prepare it "
                    f"again, or give --{name} {value}."
                )
