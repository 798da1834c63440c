"""`make demo`: the whole path on the embedded miniature, as a grid of the ordinary commands.

Build the miniature, pre-train the mini encoder on its hours without labels, run six tasks on it and on the
baselines, two runs at a time, print the leaderboard. What is finished is reused. It fails if a run fails, or
if a task of which nothing beats the trivial baseline.
"""

import argparse
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from lebench_sb.core.errors import exit_code, one_line, printable_output
from lebench_sb.core.files import write_atomically
from lebench_sb.evaluation import comparison, results, tables
from lebench_sb.evaluation.plots import leaderboard_chart, learning_curves
from lebench_sb.grid.command import benchmark
from lebench_sb.grid.grid import raw_grid
from lebench_sb.grid.report import against_filterbank, name_of, read_cells, summary, trivial_baseline
from lebench_sb.grid.schema import FROZEN

ROOT = Path(__file__).parents[2]
GRID = "recipes/grids/demo.yaml"
CORPORA = "commonvoice,mls,media,mtedx,recola,fabiole,orfeo"
FRAMES = "frames"  # of the frozen encoders, computed once; gone when the demo has finished


def finish(output):
    """Writes the leaderboard, its picture and learning curves, and prints the comparison that matters most.

    Returns the leaderboard's first part: every task and system in one table, and the paired differences from
    filterbanks."""
    shutil.rmtree(output / FRAMES, ignore_errors=True)
    cells = read_cells(output)
    folders = [Path(run["folder"]) for cell in cells for run in cell["runs"]]
    if not folders:
        return ""
    overview = "\n\n".join(filter(None, [summary(cells), against_filterbank(cells)]))
    text = f"{overview}\n\n{tables.table(folders, format='md')}"
    write_atomically(output / "leaderboard.md", text)
    write_atomically(output / "leaderboard.csv", tables.table(folders, format="csv"))
    draw(cells, output / "leaderboard.png")
    for task in dict.fromkeys(cell["task"] for cell in cells):
        ran = [cell for cell in cells if cell["task"] == task and cell["runs"]]
        files = {name_of(cell): Path(cell["runs"][0]["folder"]) / "steps.jsonl" for cell in ran}
        if files:  # not where all runs of a task failed
            learning_curves(files, output / f"learning_curves_{task}.png")
    frozen = {(c["task"], c["encoder"]): c["runs"] for c in cells if c["mode"] == FROZEN}
    for (task, encoder), runs in frozen.items():
        if encoder == "random" and runs and (ours := frozen.get((task, "ours"))):
            print(f"\n{task}, frozen, pre-trained against untrained:")
            print(comparison.compare(ours[0]["folder"], runs[0]["folder"]))
    return overview


def draw(cells, output_png):
    """The leaderboard of the cells under the names of the grid's encoders, each task by the metric that chose
    its checkpoints"""
    records, metrics = [], {}
    for cell in cells:
        for run in cell["runs"]:
            record = results.read_results(run["folder"]) | {"system": cell["encoder"]}
            metrics[record["task"]] = next(iter(trivial_baseline(cell)), None)
            records.append(record)
    leaderboard_chart(records, output_png, metrics)


def show_in(readme, overview, output):
    """Puts the overview between the marks of a README, and the leaderboard's picture into docs/ beside it"""
    begin, end = "<!-- leaderboard: begin -->\n", "<!-- leaderboard: end -->"
    before, rest = readme.read_text(encoding="utf-8").split(begin)
    picture = "![Scores of each system with their 95 % intervals](docs/leaderboard.png)"
    shutil.copy(output / "leaderboard.png", readme.parent / "docs")
    text = f"{before}{begin}{overview}\n\n{picture}\n\n{end}{rest.split(end)[1]}"
    write_atomically(readme, text)


def main():
    printable_output()
    try:
        run()
    except Exception as error:
        if (code := exit_code(error)) is None:
            raise
        print(f"error: {one_line(error)}", file=sys.stderr)
        raise SystemExit(code) from None


def run():
    """Parses the command line and ends the process with the grid's exit code"""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("grid", nargs="?", default=GRID, help="on the miniature, in its data_folder")
    parser.add_argument(
        "--scale", type=float, default=1.0, help="size of the miniature; 1 is about four hours of speech"
    )
    parser.add_argument("--corpora", default=CORPORA, help="of the miniature, that the grid's tasks need")
    parser.add_argument("--readme", type=Path, help="README whose leaderboard to replace by this one")
    options = parser.parse_args()
    started, readme = time.time(), options.readme and options.readme.resolve()
    os.chdir(ROOT)
    grid = {"output": "results/demo", "data_folder": "results/demo/data", **raw_grid(options.grid)}
    data_folder, output = str(grid["data_folder"]), Path(str(grid["output"]))
    arguments = ["--output", data_folder, "--scale", str(options.scale), "--corpora", options.corpora]
    built = subprocess.run([sys.executable, "-m", "lebench_sb.corpora.miniature", *arguments])
    code = built.returncode or benchmark(options.grid, show=True)
    cells = output / "cells.json"
    if not cells.exists() or cells.stat().st_mtime < started:  # the miniature failed, or Ctrl-C
        raise SystemExit(code)
    overview = finish(output)
    if readme and not code:
        show_in(readme, overview, output)
    print(f"\nThe demo took {(time.time() - started) / 60:.1f} minutes; everything is in {output}.")
    raise SystemExit(code)


if __name__ == "__main__":
    main()
