"""What the checks of a run's data found: faults that stop it, utterances it goes without, facts it tells."""

import logging
from collections import Counter

from lebench_sb.core.errors import SHOWN, DataError, Problems

logger = logging.getLogger(__name__)


class Findings:
    """Filled by the checks, then settled.

    errors: what stops the run; left_out: {ID of a training utterance: reason}; details, {name: JSON value},
    and caveats: what results.json tells; kept: what a check has made and a task would make again.
    """

    def __init__(self):
        self.errors, self.said = Problems("data"), []
        self.left_out, self.details, self.caveats, self.kept = {}, {}, [], {}

    def refuse(self, kind, item):
        """One fault: its kind in words, and the id, file or path it is of"""
        self.errors.add(kind, item)

    def collect(self, check, *values):
        """check(*values) -> its value, or None where it raised a DataError, which becomes a fault"""
        try:
            return check(*values)
        except DataError as error:
            self.said.append(str(error).rstrip("."))
            return None

    def bad(self, split, reason, names):
        """Utterances (IDs) of a split that cannot be used: of train they are left out, of others a fault"""
        for name in names:
            if split == "train":
                self.left_out.setdefault(name, reason)
            else:
                self.refuse(f"{split}: {reason}", name)

    def tell(self, name, value, message=""):
        """A fact for results.json (nothing where it is empty); message: what the log says of it"""
        if value:
            self.details[name] = value
            if message:
                logger.warning("%s", message)

    def settle(self, training, max_bad_fraction):
        """Raises DataError with all faults. training: number of training utterances, of which at most the
        share `max_bad_fraction` is left out: counted in log and details"""
        counts = Counter(self.left_out.values())
        if len(self.left_out) > max_bad_fraction * training:
            for name, reason in self.left_out.items():
                kind = f"train: {reason}"
                self.refuse(kind, name)
            self.said.append(
                f"{len(self.left_out)} of {training} training utterances cannot be used, over the share "
                f"max_bad_fraction {max_bad_fraction:g}: repair them, or raise --max_bad_fraction"
            )
        if self.errors or self.said:
            parts = ([str(self.errors)] if self.errors else []) + self.said
            raise DataError("; ".join(parts) + ".")
        for reason, count in sorted(counts.items()):
            names = [name for name, own in self.left_out.items() if own == reason]
            more = ", ..." if count > SHOWN else ""
            shown = ", ".join(names[:SHOWN]) + more
            logger.warning("train: %d utterances left out, %s: %s", count, reason, shown)
        self.tell("left_out", dict(sorted(counts.items())))
