"""The logs of a run, `steps.jsonl` and `train_log.txt`: whole lines, and a full disk stops no training."""

import errno
import logging
import math

from speechbrain.utils.distributed import MainProcessContext

from lebench_sb.core.files import write_atomically
from lebench_sb.core.lines import append_whole, json_text, read_records, whole_or_not

logger = logging.getLogger(__name__)


class StepLog:
    """`steps.jsonl`: a line of JSON per update and validation. What a full disk refuses is written later"""

    def __init__(self, path):
        self.path, self.unwritten = path, ""

    def add(self, record):
        self.unwritten += json_text(record) + "\n"
        try:
            append_whole(self.path, self.unwritten)
        except OSError as error:
            warn_if_full(error)
        else:
            self.unwritten = ""

    def forget_after(self, update):
        """Drops the lines after `update`, and those cut short: a resumed run writes them again."""
        if self.path.exists():
            before = [record for record in read_records(self.path) if record.get("step", math.inf) <= update]
            write_atomically(self.path, "".join(json_text(record) + "\n" for record in before))


def log_epoch(train_logger, meta, train_stats=None, valid_stats=None, test_stats=None):
    """A line of SpeechBrain's train logger; main process only"""
    try:
        # SpeechBrain's loggers would wait for the other processes
        with MainProcessContext(), whole_or_not(train_logger.save_file):
            train_logger.log_stats(meta, train_stats, valid_stats, test_stats)
    except OSError as error:
        warn_if_full(error)


def warn_if_full(error):
    """Training goes on while the disk is full (its checkpoints say when it no longer can); raises any other
    error"""
    if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        raise error
    logger.warning("%s: not written: %s", error.filename or "log", error.strerror)
