"""The command `lebench`: thin, each command calls one function of the library.

Exit codes: 0 done; 1 the run failed; 2 usage (option, missing path); 3 content of the data. A user's mistake
prints one line and no traceback; LEBENCH_TRACEBACK=1 shows it. Whatever imports torch is imported inside its
command.
"""

import importlib
import inspect
import json
import os
import sys
import traceback
from pathlib import Path
from typing import Annotated

import typer

import lebench_sb
from lebench_sb.core.errors import (
    DataError,
    UsageError,
    exit_code,
    nearest,
    one_line,
    printable_output,
    shorten,
)
from lebench_sb.core.files import write_atomically
from lebench_sb.core.guard import parse_json
from lebench_sb.manifests.markers import read_marker
from lebench_sb.manifests.reading import read_manifest
from lebench_sb.text import normaliser as text

CORPORA = Path(__file__).parent / "corpora"
CHANGED = 12  # characters that the normaliser changed are shown; the marker has all

PATH_OPTIONS = (
    "--output", "--data_root", "--data-root", "--data_folder", "--data-folder", "--csv", "--report",
    "--config",
)  # fmt: skip
SETTINGS = {"token_normalize_func": lambda name: name.replace("-", "_")}  # --data-root is --data_root
STYLE = {"add_completion": False, "rich_markup_mode": None, "pretty_exceptions_enable": False}
app = typer.Typer(
    help="French speech benchmark: prepare data, check it, compare results; recipes: python train.py.",
    context_settings=SETTINGS,
    no_args_is_help=True,
    **STYLE,
)
prepare = typer.Typer(help="Write the manifests of a corpus.", no_args_is_help=True, **STYLE)
app.add_typer(prepare, name="prepare")

Output = Annotated[Path, typer.Option("--output", help="folder to write into")]
DataRoot = Annotated[Path, typer.Option("--data_root", help="folder above all audio files")]
Manifests = Annotated[list[Path], typer.Argument(help="train.csv, ...")]


def main(argv=None):
    """Runs the command line and ends the process with its exit code."""
    sys.exit(run(argv))


def run(argv=None):
    """Runs the command line `argv` (default: the process's) and returns the exit code."""
    printable_output()
    command = typer.main.get_command(app)
    try:
        _refuse_empty(sys.argv[1:] if argv is None else argv)
        result = command.main(args=argv, prog_name="lebench", standalone_mode=False)
        return result if isinstance(result, int) else 0
    except BrokenPipeError:  # `lebench stats ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (KeyboardInterrupt, typer.Abort):
        return _fail("interrupted", 1)
    except Exception as error:
        return _explain(error)


def _refuse_empty(words):
    """Raises UsageError for an empty path, as `--output "$UNSET"` gives it: it would be the working folder"""
    for before, word in zip(["", *words], words, strict=False):
        option, equals, value = word.partition("=")
        empty = before if not word else option if equals and not value else None
        if empty is not None and (empty in PATH_OPTIONS or not empty.startswith("--")):
            raise UsageError(f"{empty or 'the first word'}: an empty word where a path is expected.")


def _explain(error):
    """Prints what went wrong and returns the exit code: one line for a user's mistake, else a traceback."""
    if hasattr(error, "format_message"):  # typer's own: options, arguments, commands
        if type(error).__name__ == "NoArgsIsHelpError":
            typer.echo(error.format_message())
            return 2
        return _fail(error.format_message(), 2)
    code = exit_code(error)
    if code is not None:
        return _fail(one_line(error), code)
    traceback.print_exc()
    return 1


def _fail(message, code):
    if os.environ.get("LEBENCH_TRACEBACK") == "1" and sys.exc_info()[0]:
        traceback.print_exc()
    typer.echo(f"error: {shorten(' '.join(str(message).split()))}", err=True)
    return code


def _version(wanted: bool):
    if wanted:
        typer.echo(f"lebench {lebench_sb.__version__}")
        raise typer.Exit()


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="print it")
    ] = False,
):
    pass


@prepare.command(
    "own", help="Your own recordings: one CSV or TSV with any header becomes train, valid and test."
)
def prepare_own(
    csv: Annotated[Path, typer.Option("--csv", help="your table; comma, semicolon or tab")],
    columns: Annotated[list[str], typer.Option("--columns", help="ID=id,wav=path,wrd=text,spk_id=speaker")],
    data_root: DataRoot,
    output: Output,
    where: Annotated[
        list[str], typer.Option("--where", help="language=fr, split!=test, tasks~asr; repeatable")
    ] = [],  # noqa: B006
    split: Annotated[str, typer.Option("--split", help="your column of train, valid or dev, test")] = None,
    ratios: Annotated[str, typer.Option("--ratios", help="train,valid,test without --split")] = "0.8,0.1,0.1",
    seed: Annotated[int, typer.Option("--seed", help="of the drawn splits")] = 0,
    normaliser: Annotated[str, typer.Option("--normaliser", help="of the transcripts")] = "fr-1",
    language: Annotated[str, typer.Option("--language", help="of rows that name none")] = "fr",
):
    from lebench_sb.corpora.own import prepare_own as own

    mapping, parts = _mapping(columns), _ratios(ratios)
    report = own(csv, mapping, data_root, output, where, split, parts, seed, normaliser, language)
    for note in [*report["notes"], *(["already prepared"] if report["reused"] else [])]:
        typer.echo(note)
    _show_manifests(output)


def _mapping(columns):
    """["ID=id,wav=path", "wrd=text"] -> {"ID": "id", "wav": "path", "wrd": "text"}"""
    mapping = {}
    for pair in ",".join(columns).split(","):
        name, equals, column = (part.strip() for part in pair.partition("="))
        if not (name and equals and column):
            raise UsageError(
                f"--columns {pair!r}: write MANIFEST_COLUMN=YOUR_COLUMN, as in wav=path,wrd=text."
            )
        if name in mapping:
            raise UsageError(f"--columns names {name} twice.")
        mapping[name] = column
    return mapping


def _ratios(written):
    try:
        return tuple(float(part) for part in written.replace(",", " ").split())
    except ValueError:
        raise UsageError(f"--ratios {written!r}: write three numbers, as in 0.8,0.1,0.1.") from None


def _counted(number, noun):
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _show_manifests(folder):
    """One line per manifest in `folder`, read from its marker."""
    for name in ("train.csv", "valid.csv", "test.csv"):
        if marker := read_marker(folder / name):
            dropped = "".join(f", {count} dropped: {reason}" for reason, count in marker["dropped"].items())
            counts = [_counted(marker[f"{noun}s"], noun) for noun in ("utterance", "speaker")]
            size = ", ".join([*counts, f"{marker['hours']:.2f} h"])
            typer.echo(f"{folder / name}: {size}{dropped}")
            if changed := marker.get("changed"):
                first = ", ".join(f"{c} {count}" for c, count in list(changed.items())[:CHANGED])
                more = f" and {len(changed) - CHANGED} other characters" if len(changed) > CHANGED else ""
                typer.echo(f"  the normaliser changed: {first}{more}")


@prepare.command("miniature", help="Build the synthetic French miniature that the demo runs on.")
def prepare_miniature(
    output: Output,
    seed: Annotated[int, typer.Option("--seed", help="decides every word and every sample")] = 0,
    scale: Annotated[float, typer.Option("--scale", min=0.001, max=1000, help="times about two hours")] = 1.0,
    workers: Annotated[
        int, typer.Option("--workers", min=1, max=4096, help="processes; the result is the same")
    ] = None,
    corpora: Annotated[
        str, typer.Option("--corpora", help="what to imitate, comma-separated, or all")
    ] = "commonvoice,mls",
):
    from lebench_sb.corpora.miniature.build import build_miniature
    from lebench_sb.corpora.miniature.layouts import names

    wanted = names() if corpora == "all" else corpora.split(",")
    try:
        folders = build_miniature(output, seed, scale, workers, wanted)
    except DataError:
        raise
    except ValueError as error:  # no such corpus, or the folder holds a build of other parameters
        raise UsageError(str(error)) from error
    except RuntimeError as error:  # voices missing, or a worker that failed
        raise typer.Exit(_fail(error, 1)) from error
    verb = "already built" if folders["reused"] else "built"
    size = f"{folders['hours']:.2f} h, {folders['utterances']} utterances"
    typer.echo(f"{output}: {verb}: {', '.join(folders['corpora'])}: {size}")


def _corpus_command(name):
    """Adds `lebench prepare NAME`: corpora/NAME.py with prepare_NAME(data_folder, manifest_folder, ...)."""

    def command(
        context: typer.Context,
        data_folder: Annotated[
            Path, typer.Option("--data_folder", help="the corpus as its publisher packs it")
        ],
        output: Output,
    ):
        function = getattr(importlib.import_module(f"lebench_sb.corpora.{name}"), f"prepare_{name}")
        parameters = _parameters(context.args, function)
        if not data_folder.is_dir():
            raise FileNotFoundError(f"data_folder {data_folder} is not a folder.")
        _check_normaliser(parameters.get("normaliser", "none"))
        function(str(data_folder), str(output), **parameters)
        _show_manifests(output)

    prepare.command(
        name,
        help=f"Manifests of {name}; other --parameter value go to lebench_sb.corpora.{name}.prepare_{name}.",
        context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
    )(command)


def _check_normaliser(name):
    try:
        text.normaliser(name)
    except ValueError as error:
        raise UsageError(str(error)) from None


for _path in sorted(CORPORA.glob("[a-z]*.py")):
    if _path.stem != "own":
        _corpus_command(_path.stem)


def _parameters(words, function):
    """["--normaliser", "none", "--seed=1"] -> {"normaliser": "none", "seed": 1}, as `function` knows them."""
    signature = dict(list(inspect.signature(function).parameters.items())[2:])
    names = list(signature)
    words = [part for word in words for part in (word.split("=", 1) if word.startswith("--") else [word])]
    parameters = {}
    while words:
        word = words.pop(0)
        name = word.removeprefix("--").replace("-", "_")
        if not word.startswith("--") or name not in names:
            there = ", ".join(f"--{each}" for each in ["data_folder", "output", *names])
            hint = nearest(name, ["data_folder", "output", *names], " (did you mean --{}?)")
            raise UsageError(f"{word}: no such option{hint}; there are {there}.")
        if not words:
            raise UsageError(f"{word} needs a value.")
        parameters[name] = _value(word, words.pop(0), signature[name].default)
    required = [name for name, each in signature.items() if each.default is each.empty]
    needed = [name for name in required if name not in parameters]
    if needed:
        raise UsageError(f"{', '.join(f'--{name}' for name in needed)} needed.")
    return parameters


def _value(option, written, default):
    """Numbers, lists, true, false and null as JSON writes them (True and False too); all else is text. Raises
    UsageError for another kind than that of the parameter's default."""
    literal = {"True": "true", "False": "false", "None": "null"}.get(written, written)
    try:
        value = parse_json(literal, option, UsageError, None)
    except UsageError:
        if literal[:1] in ("[", "{"):
            raise
        value = written
    for kind, words in ((bool, "True or False"), (int, "a whole number"), (float, "a number")):
        if isinstance(default, kind):
            fits = isinstance(value, (int, float) if kind is float else kind)
            if not fits or isinstance(value, bool) != (kind is bool):
                raise UsageError(f"{option} {written[:80]}: {words} is expected.")
            return value
    return written if isinstance(default, str) and not isinstance(value, (list, dict)) else value


@app.command(help="Sizes of manifests, as LeBenchmark's table gives them.")
def stats(manifests: Manifests):
    from lebench_sb.manifests.commands import statistics

    typer.echo(statistics({str(path): read_manifest(path, path.parent) for path in manifests}))


@app.command(help="Check manifests of one experiment against their audio and against each other.")
def validate(
    manifests: Manifests,
    data_root: DataRoot,
    decode: Annotated[
        bool, typer.Option("--decode", help="read every file to its end (slow), not two hours of each")
    ] = False,
    report: Annotated[
        Path, typer.Option("--report", help="one JSON per finding; default: validation.jsonl beside them")
    ] = None,
):
    from lebench_sb.manifests.commands import cache_folder, survey

    cache = cache_folder(manifests[0])
    survey_result = survey(manifests, data_root, decode, cache, sys.stderr.isatty())
    findings = survey_result.findings()
    if findings or report:
        target = report or cache / "validation.jsonl"
        lines = "".join(json.dumps(f, ensure_ascii=False) + "\n" for f in findings)
        write_atomically(target, lines.encode(errors="surrogateescape"))
        typer.echo(f"{target}: {_counted(len(findings), 'finding')}")
    for problems in (survey_result.warned, survey_result.quarantined):
        if problems:
            typer.echo(problems)
    for note in survey_result.notes:
        typer.echo(note)
    survey_result.errors.raise_if_any()
    typer.echo(f"no errors in {_counted(len(manifests), 'manifest')}")


@app.command(help="Pack the audio of manifests into tar shards, with manifests that point into them.")
def shard(
    manifests: Manifests,
    data_root: DataRoot,
    output: Output,
    size: Annotated[str, typer.Option("--size", help="of a shard at most: KB, MB, GB or TB")] = "4GB",
):
    from lebench_sb.manifests.shards import make_shards

    count = make_shards(manifests, data_root, output, size)
    typer.echo(f"{output}: {_counted(count, 'shard')}; use its manifests with --data_folder {output}")


@app.command(help="Table of all results below folders.")
def table(
    results: Annotated[list[Path], typer.Argument(help="results.json files or folders above them")],
    format: Annotated[str, typer.Option("--format", help="md, csv or latex")] = "md",
    over_seeds: Annotated[bool, typer.Option("--over_seeds", help="one row for all seeds")] = False,
):
    if format not in ("md", "csv", "latex"):
        raise UsageError(f"--format {format}: md, csv or latex.")
    if over_seeds and format == "csv":
        raise UsageError("--over_seeds: md or latex; csv has mean and standard deviation in every row.")
    from lebench_sb.evaluation import tables

    _show(tables.seeds_table if over_seeds else tables.table, results, format)


@app.command(
    "yaml",
    help="Print a recipe's YAML with all that it extends and includes; --key value changes it.",
    context_settings={"ignore_unknown_options": True, "token_normalize_func": None},
)
def show_yaml(
    file: Annotated[Path, typer.Argument(help="recipes/TASK/Corpus/hparams/x.yaml")],
    overrides: Annotated[list[str], typer.Argument(help="--key value, as for the recipe")] = None,
):
    from lebench_sb.core.command_line import shown

    typer.echo(shown(file, overrides or []).rstrip("\n"))


@app.command(help="Run a grid of encoders x tasks x modes x seeds; what has finished is reused.")
def benchmark(
    grid: Annotated[Path, typer.Argument(help="YAML of the grid; recipes/grids/miniature.yaml is one")],
    dry_run: Annotated[bool, typer.Option("--dry_run", help="show cells and commands, run nothing")] = False,
    parallel: Annotated[int, typer.Option("--parallel", min=1, max=4096, help="steps at once")] = None,
    slurm: Annotated[
        str, typer.Option("--slurm", help="as jobs: partition=gpu,gpus_per_node=1,timeout_min=600")
    ] = None,
):
    from lebench_sb.grid.command import benchmark as run_grid

    return run_grid(grid, dry_run, slurm, parallel)


@app.command(help="Difference of two runs on one test set, with a 95 % interval.")
def compare(
    a: Annotated[Path, typer.Argument(help="results.json or its folder")],
    b: Annotated[Path, typer.Argument(help="results.json or its folder")],
    metric: Annotated[str, typer.Option("--metric", help="only this one")] = None,
):
    from lebench_sb.evaluation import comparison

    _show(comparison.compare, a, b, metric)


def _show(function, *arguments):
    """Prints the text a function makes of results; its ValueErrors tell of the files' content"""
    try:
        typer.echo(function(*arguments).rstrip("\n"))
    except ValueError as error:
        raise DataError(str(error)) from error


@app.command(help="Energy and CO2 of runs, beside the published figures of the LeBenchmark models.")
def energy(
    runs: Annotated[list[Path], typer.Argument(help="folders of runs, finished or not, or folders above")],
):
    from lebench_sb.training.energy import report

    typer.echo(report(runs))


@app.command("import", help="Make Hugging Face folders of a SpeechBrain or fairseq wav2vec 2.0 checkpoint.")
def import_checkpoint(
    source: Annotated[
        str, typer.Argument(help="file, folder with wav2vec2.ckpt or checkpoint_best.pt, or Hub id")
    ],
    output: Output,
    config: Annotated[str, typer.Option("--config", help="config.json of the architecture")] = None,
):
    from lebench_sb.encoders.importing.command import import_checkpoint as run_import

    try:
        folders = run_import(source, config, output)
    except ValueError as error:  # weights and config do not fit
        raise DataError(str(error)) from error
    for folder in folders:
        typer.echo(folder)


if __name__ == "__main__":
    main()
