"""Learning-rate factors as functions of (update, total updates): nothing to save, nothing to resume."""

import math


def linear_decay(update, total, warmup=0.1):
    """update from 1 to `total` -> factor in [0, 1]: linear warm-up over the share `warmup` of the updates,
    then linear decay to 0 (fairseq `polynomial_decay` with power 1)."""
    rise = max(warmup * total, 1.0)
    return min(update / rise, 1.0) if update <= rise else max(total - update, 0) / max(total - rise, 1e-9)


def linear_decay_from(update, total, start, warmup):
    """The last `total` updates of a `linear_decay` that has run for `start` updates already, `warmup` of
    them its rise: what a run restored with its step counter continues with. start 0: all of it."""
    return linear_decay(start + update, start + total, warmup / (start + total))


def cosine_decay(update, total, warmup=0.1, final=0.0):
    """As `linear_decay`, falling along half a cosine to `final`."""
    rise = max(warmup * total, 1.0)
    if update <= rise:
        return update / rise
    share = min((update - rise) / max(total - rise, 1e-9), 1.0)
    return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * share))


def tri_stage(update, total, warmup=0.1, hold=0.4, final=0.05):
    """Warm-up, constant, exponential decay to `final` (fairseq `tri_stage`; wav2vec 2.0, section 4.3)."""
    rise, fall = max(warmup * total, 1.0), (warmup + hold) * total
    if update <= rise:
        return update / rise
    if update <= fall:
        return 1.0
    return final ** min((update - fall) / max(total - fall, 1e-9), 1.0)


def inverse_sqrt(update, total, warmup=10000):
    """Linear warm-up over `warmup` updates (a number of them, whatever the total), then the factor falls with
    the square root of the update (fairseq `inverse_sqrt`; Vaswani et al., 2017, section 5.3)."""
    return min(update / max(warmup, 1), math.sqrt(max(warmup, 1) / update))
