"""All steps of a plan, each after those it needs: several at once here, or as jobs on SLURM.

A step that fails stops only the steps that need it.
"""

import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from queue import SimpleQueue
from statistics import fmean

from tqdm import tqdm

from lebench_sb.core.errors import UsageError, nearest
from lebench_sb.grid.choice import NothingToChoose, choose
from lebench_sb.grid.execute import FAILED, NOT_RUN, REUSED, Outcome, run_step, say, stop_running
from lebench_sb.training import fingerprint

COMMON = ("timeout_min", "mem_gb", "nodes", "cpus_per_task", "gpus_per_node", "tasks_per_node", "name")


def run_plan(plan, pool, poll=0.05):
    """Runs every step -> {name: Outcome}, and the steps as they were run (chosen values put in).

    pool: has `submit(step)`, whose result has `done()` and `result()`, `width(step)`, the slots it takes, and
    `holds(slots)`, whether there are so many, as Slots and Slurm have.
    """
    fingerprint.forget()
    progress, outcomes, running = Progress(plan, pool), {}, {}
    waiting = dict(plan.steps)
    try:
        while waiting or running:
            for name in [n for n, step in waiting.items() if all(a in outcomes for a in step.after)]:
                taken = sum(pool.width(other) for other, _ in running.values())
                if not pool.holds(taken + pool.width(waiting[name])):
                    break
                step = waiting.pop(name)
                begin(step, plan, outcomes, running, pool, progress)
            for name in [n for n, (_, job) in running.items() if job.done()]:
                step, job = running.pop(name)
                outcomes[name] = result_of(job)
                progress.ended(step, outcomes[name])
            time.sleep(poll if running else 0)
    except BaseException:
        pool.stop([job for _, job in running.values()])
        raise
    finally:
        progress.close()
    return outcomes


def begin(step, plan, outcomes, running, pool, progress):
    """Submits a step whose predecessors have ended, or notes why it is not run"""
    try:
        if step.choice:
            cell = next(cell for cell in plan.cells if cell.key == step.choice)
            step = step.with_point(choose(cell, plan.steps, outcomes).point)
            needed = [name for name in step.after if name not in [n for _, n in cell.tries.values()]]
        else:
            needed = step.after
        missing = [name for name in needed if not outcomes[name].done]
        if missing:
            raise NothingToChoose(f"needs {', '.join(missing)}")
    except NothingToChoose as error:
        outcomes[step.name] = Outcome(NOT_RUN, reason=str(error))
        progress.ended(step, outcomes[step.name])
        return
    plan.steps[step.name] = step
    progress.begun(step)
    running[step.name] = (step, pool.submit(step))


def result_of(job):
    """The Outcome of a job; of one that was lost (a node, a time limit, an error of ours), a failure"""
    try:
        return job.result()
    except Exception as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        return Outcome(FAILED, reason=lines[0], tail="\n".join(lines[-12:]))


class Progress:
    """Lines on the screen, and a bar with the time left if it is a terminal"""

    def __init__(self, plan, pool):
        self.pool, self.total, self.waiting = pool, len(plan.steps), set(plan.steps)
        self.taken = {True: [], False: []}  # slots x seconds of the steps that trained an encoder, and others
        hidden = pool.shows or None  # None: hidden where there is no terminal
        self.bar = tqdm(total=self.total, unit="step", desc="grid", dynamic_ncols=True, disable=hidden)
        say(f"{self.total} steps, {pool.describe()}")

    def begun(self, step):
        say(f"{step.name}: {step.command}")

    def ended(self, step, outcome):
        self.waiting.discard(step.name)
        if outcome.status in (REUSED, NOT_RUN):
            if not self.bar.disable:
                self.bar.initial += 1  # so that the bar's rate is that of steps that took time
            said = "finished before, reused" if outcome.status == REUSED else f"not run: {outcome.reason}"
        else:
            self.taken[trains_encoder(step.name)].append(self.pool.width(step) * outcome.seconds)
            said = f"finished in {span(outcome.seconds)}" if outcome.done else f"FAILED: {outcome.reason}"
        self.bar.update(1)
        ended = self.total - len(self.waiting)
        say(f"[{ended}/{self.total}] {step.name}: {said}{self.left()}")

    def left(self):
        """Time left with every slot busy, if steps of each kind that waits have run"""
        kinds = [trains_encoder(name) for name in self.waiting]
        if not kinds or not all(self.taken[kind] for kind in kinds):
            return ""
        work = sum(fmean(self.taken[kind]) for kind in kinds)
        return f"; about {span(work / min(len(kinds), self.pool.parallel or len(kinds)))} left"

    def close(self):
        self.bar.close()


def trains_encoder(step_name):
    """Whether a step trains an encoder for others: its time says nothing of a task's"""
    return step_name.startswith("encoders/")


def span(seconds):
    """Seconds -> "34 s", "12 min", "3.4 h" """
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def cores():
    """Processor cores that this process may use"""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def devices():
    """GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them"""
    import torch

    if "CUDA_VISIBLE_DEVICES" in os.environ:
        return [name for name in os.environ["CUDA_VISIBLE_DEVICES"].split(",") if name]
    return [str(number) for number in range(torch.cuda.device_count())]


@dataclass
class Slots:
    """Steps on this machine, `parallel` at once: one per GPU, else one per `threads` cores.

    threads: of each step; by default OMP_NUM_THREADS, else up to four, but leaving room for a second step:
    small models gain little from threads. A step of several slots has the threads of all. Lane k has the GPU
    k (round robin); there each step has one.
    """

    parallel: int | None = None
    threads: int | None = None
    show: bool = False
    skip: tuple = ()
    gpus: list = field(default_factory=devices)

    def __post_init__(self):
        written = os.environ.get("OMP_NUM_THREADS", "")
        usual = int(written) if written.isdigit() and int(written) else max(1, min(4, cores() // 2))
        self.threads = self.threads or usual
        self.parallel = self.parallel or len(self.gpus) or max(1, cores() // self.threads)
        self.slots = SimpleQueue()
        for slot in range(self.parallel):
            self.slots.put(slot)
        self.pool = ThreadPoolExecutor(self.parallel)

    @property
    def shows(self):
        """Whether the steps' own progress bars are on the screen"""
        return self.show

    def describe(self):
        gpus = f", GPUs {', '.join(self.gpus)}" if self.gpus else ""
        return f"{self.parallel} at once, {self.threads} threads each{gpus}"

    def width(self, step):
        return 1 if self.gpus else min(step.slots, self.parallel)

    def holds(self, slots):
        return slots <= self.parallel

    def submit(self, step):
        return self.pool.submit(self.run, step)

    def run(self, step):
        slots = [self.slots.get() for _ in range(self.width(step))]
        threads = self.threads * len(slots)
        environment = {"OMP_NUM_THREADS": str(threads), "TQDM_POSITION": str(slots[0])}
        if self.gpus:
            environment["CUDA_VISIBLE_DEVICES"] = self.gpus[slots[0] % len(self.gpus)]
        try:
            return run_step(step, self.skip, environment, self.show)
        finally:
            for slot in slots:
                self.slots.put(slot)

    def stop(self, jobs):
        for job in jobs:
            job.cancel()
        stop_running()
        self.pool.shutdown()


class Slurm:
    """Steps as jobs, through submitit. A job that SLURM ends at its time limit is queued again and goes
    on."""

    def __init__(self, folder, settings, parallel=None, skip=()):
        """settings: "partition=gpu,gpus_per_node=1,timeout_min=600": submitit's common parameters, and
        SLURM's own. cluster=local runs the jobs here, cluster=debug inside this process."""
        try:
            import submitit
        except ImportError:
            raise UsageError("--slurm needs submitit: pip install 'lebench_sb[slurm]'.") from None
        self.parallel, self.skip, given = parallel, tuple(skip), parameters(settings)
        cluster = given.pop("cluster", None)
        try:
            self.executor = submitit.AutoExecutor(folder=folder, cluster=cluster)
            known = {key if key in COMMON else f"slurm_{key}": value for key, value in given.items()}
            self.executor.update_parameters(**{"name": "lebench", **known})
        except (RuntimeError, TypeError, ValueError, NameError) as error:
            hint = next((nearest(key, COMMON) for key in given if nearest(key, COMMON)), "")
            raise UsageError(f"--slurm {settings}: {' '.join(str(error).split())}{hint}") from None

    shows = False

    def describe(self):
        limit = f", {self.parallel} at once" if self.parallel else ""
        return f"as jobs of {self.executor.cluster}{limit}"

    def width(self, step):
        return 1

    def holds(self, slots):
        return self.parallel is None or slots <= self.parallel

    def submit(self, step):
        return self.executor.submit(Job(self.skip), step)

    def stop(self, jobs):
        for job in jobs:
            job.cancel()


@dataclass(frozen=True)
class Job:
    """What a job runs"""

    skip: tuple

    def __call__(self, step):
        return run_step(step, self.skip)

    def checkpoint(self, step):
        """submitit asks for this before the time limit: queue the step again; it goes on from its
        checkpoints"""
        import submitit

        stop_running()
        return submitit.helpers.DelayedSubmission(self, step)


def parameters(settings):
    """The {key: value} of "partition=gpu,timeout_min=60"; whole numbers are numbers"""
    found = {}
    for part in filter(None, map(str.strip, settings.split(","))):
        key, equals, value = part.partition("=")
        if not equals or not key or not value:
            raise UsageError(f"--slurm {part!r}: write key=value, as in partition=gpu,timeout_min=600.")
        found[key.strip()] = int(value) if value.strip().isdigit() else value.strip()
    return found
