"""Settings that contradict each other, told once the number of updates is known and before the first one."""

import logging

from lebench_sb.core.errors import UsageError

logger = logging.getLogger(__name__)


def check_updates(brain):
    """Raises UsageError for a run without an update: there would be nothing to test"""
    if brain.total_updates < 1:
        raise UsageError(
            "The run has no update (number_of_epochs or number_of_updates is 0): ask for one at least, "
            "or for the test alone of what is trained (--test_only)."
        )


def check_micro_batches(brain):
    """Raises UsageError if the epoch was begun with another number of micro-batches per update"""
    now = brain.world * brain.grad_accumulation_factor
    if brain.step and brain.batches_per_update != now:
        raise UsageError(
            f"The checkpoint is inside an epoch of {brain.batches_per_update} micro-batches per update "
            f"(processes x --grad_accumulation_factor), now {now}: go on with as many, or start a new "
            "--output_folder."
        )
    brain.batches_per_update = now


def check_warmup(brain):
    """Warns of a learning rate that only rises"""
    total, schedule = brain.total_updates, brain.hparams.schedule
    if schedule(total, total) > schedule(max(total // 2, 1), total):
        logger.warning(
            "The learning rate still rises when the run ends, at %.2g of its peak: it has a warm-up as "
            "long as the %d updates. Give a shorter one (--schedule '{warmup: ...}') or train longer.",
            schedule(total, total),
            total,
        )


def check_encoder_is_trained(brain):
    """Raises UsageError if an encoder that shall be trained would stay as it is: no run is called end-to-end
    that was frozen"""
    warmup = brain.hparams.encoder_warmup_steps
    updates = min(brain.total_updates, brain.optimizer_step_limit or brain.total_updates)
    if warmup >= updates > 0 and brain.trains_encoder:
        raise UsageError(
            f"encoder_warmup_steps {warmup}: the run has {updates} updates, so the encoder "
            "would never be trained: fewer (--encoder_warmup_steps 0), more epochs, or --freeze True."
        )
