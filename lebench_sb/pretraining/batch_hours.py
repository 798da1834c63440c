"""How much audio an update sees, and how to see as much as a recipe did with other devices.

The size of a pre-training batch is counted in hours of audio: processes x accumulated batches x their audio.
"""


def seconds_per_batch(plan):
    """Mean seconds of audio, without padding, in a batch of a StreamPlan (a pass is as long as its data)"""
    return float(plan.durations.sum()) / len(plan.whole_pass(1))


def describe_hours(batch_seconds, world, accumulation, target):
    """-> one line for the log.

    batch_seconds: audio of one process's batch; world: processes; accumulation: batches of a process per
    update; target: hours per update of the recipe, 0 where it has none. The factor named is the whole number
    that comes nearest to the target in proportion, at least 1.
    """
    hours = world * accumulation * batch_seconds / 3600
    processes = f"{world} process" if world == 1 else f"{world} processes"
    made_of = f"{processes} x grad_accumulation_factor {accumulation} x {batch_seconds:.1f} s"
    line = f"Audio per update: {hours:.4g} h ({made_of})"
    if not target:
        return f"{line}; the recipe names no other."
    factor, reached = nearest_factor(batch_seconds, world, target)
    line += f"; the recipe's: {target:.4g} h, {100 * hours / target:.3g} % of it here"
    if factor == accumulation:
        return f"{line}; no other --grad_accumulation_factor comes nearer."
    return f"{line}; --grad_accumulation_factor {factor} gives {reached:.4g} h."


def nearest_factor(batch_seconds, world, target):
    """-> (factor, hours per update with it): the one whose ratio to `target` hours is nearest to 1"""
    one = world * batch_seconds / 3600
    low = max(int(target / one), 1)
    factor = min((low, low + 1), key=lambda f: max(f * one / target, target / (f * one)))
    return factor, factor * one
