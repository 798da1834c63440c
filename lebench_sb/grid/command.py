"""What `lebench benchmark` does, from the grid's YAML to the exit code."""

import io
import os
from pathlib import Path

import typer
from ruamel.yaml import YAML

from lebench_sb.core.errors import UsageError
from lebench_sb.core.files import write_atomically
from lebench_sb.core.locks import take_or_refuse
from lebench_sb.grid.grid import raw_grid, read_grid
from lebench_sb.grid.plan import make_plan
from lebench_sb.grid.report import beaten_by_trivial_baseline, preview, write_report
from lebench_sb.grid.schedule import Slots, Slurm, run_plan

LOCK = ".lock"
WRITTEN = ("cells.json", "grid.yaml", "table.csv", "table.md")  # into the output folder


def benchmark(path, dry_run=False, slurm=None, parallel=None, show=False):
    """Runs the grid -> exit code: 0, or 1 if a step failed or `beats_trivial_baseline` does not hold.

    show: leave the progress bars of the steps on the screen. Raises UsageError before anything has run.
    """
    grid = read_grid(path)
    plan = make_plan(grid)
    if dry_run:
        typer.echo(preview(grid, plan))
        return 0
    output = Path(grid.output)
    output.mkdir(parents=True, exist_ok=True)
    check_ours(output)
    with only_one(output):
        written = io.StringIO()
        YAML().dump(raw_grid(path), written)
        write_atomically(output / "grid.yaml", written.getvalue())
        parallel = parallel or grid.parallel
        if slurm is None:
            pool = Slots(parallel, grid.threads, show, skip=(grid.output,))
        else:
            pool = Slurm(output / "jobs", slurm, parallel, skip=(grid.output,))
        try:
            outcomes = run_plan(plan, pool, poll=0.05 if slurm is None else 1.0)
        except KeyboardInterrupt:
            typer.echo("interrupted; the same command goes on", err=True)
            return 1
        typer.echo(f"\n{write_report(grid, plan, outcomes)}\n\n{output / 'table.md'}")
    done = all(outcome.done for outcome in outcomes.values())
    beaten = beaten_by_trivial_baseline(output) if done and grid.beats_trivial_baseline else []
    for task in beaten:
        typer.echo(f"FAILED {task}: nothing beats the trivial baseline")
    return 0 if done and not beaten else 1


def check_ours(output):
    """Raises UsageError where a file that this command would replace is not one of its own"""
    others = [name for name in WRITTEN if os.path.lexists(output / name)]
    if others and not (output / LOCK).exists():
        raise UsageError(
            f"{output} holds {', '.join(others)}, which no `lebench benchmark` wrote: give another output."
        )


def only_one(output):
    """One grid at a time in a folder"""
    refusal = lambda holder: f"{output}: another `lebench benchmark` runs this grid ({holder})."  # noqa: E731
    return take_or_refuse(output / LOCK, "see that nobody else runs this grid", refusal)
