"""Watches a run: alarms into the log, figures to TensorBoard, and the dashboard, written anew as it goes."""

import logging
from pathlib import Path

from lebench_sb.core.errors import UsageError
from lebench_sb.pretraining.monitor.dashboard import write_dashboard
from lebench_sb.pretraining.monitor.drawing import draw_png
from lebench_sb.pretraining.monitor.health import Curves, Facts, Monitor, read_lines

logger = logging.getLogger(__name__)
OWN_CURVES = Path(__file__).with_name("miniature.jsonl")  # of mini.yaml on the miniature


class Watch:
    """Of the main process. Takes up what `steps.jsonl` says up to update `resumed`, ringing nothing again.

    reference: "miniature", the `steps.jsonl` of another run, or "" for no curves behind the run's own.
    Raises UsageError for a reference that is absent, and for `tensorboard` where the package is.
    """

    def __init__(self, folder, facts, resumed, reference="", tensorboard=False):
        self.folder, self.codes, self.codes_of = Path(folder), None, ""
        self.monitor, self.reference = Monitor(facts), read_reference(reference)
        self.writer = scalar_writer(self.folder, resumed) if tensorboard else None
        steps = self.folder / "steps.jsonl"
        for record in read_lines(steps) if steps.exists() else []:
            if record["step"] <= resumed:
                self.monitor.add(record)
        self.monitor.starting = True

    def add(self, record):
        """record: what was just appended to `steps.jsonl`"""
        if self.writer is not None:
            write_scalars(self.writer, record)
        for alarm in self.monitor.add(record):
            logger.warning("%s", alarm)

    def show_codes(self, codes, what):
        """codes (G, V): how often each was chosen on valid by `what`, such as "validation at update 300" """
        self.codes, self.codes_of = codes, what

    def write(self, state):
        """`health.html`, and after the run `health.png`; state: one of dashboard.STATES. One that cannot be
        written is no reason to stop a run: the log says so."""
        seen = self.folder, self.monitor, self.reference, self.codes, self.codes_of
        try:
            if self.writer is not None:
                self.writer.flush()
            write_dashboard(*seen, state)
            if state != "running":
                draw_png(*seen)
        except OSError as error:
            logger.warning("health.html not written, the run goes on: %s", error)


def facts_of(config, hparams, accumulation):
    """config: Wav2Vec2Config; hparams: dict of a recipe; accumulation: micro-batches per update -> Facts"""
    return Facts(
        num_groups=config.num_codevector_groups,
        num_codes=config.num_codevectors_per_group,
        num_negatives=hparams["num_negatives"],
        number_of_updates=hparams["number_of_updates"],
        hidden_size=config.hidden_size,
        hours_per_update=hparams.get("hours_per_update") or 0.0,
        accumulation=accumulation,
    )


def read_reference(reference):
    """-> Curves, of no line if `reference` is empty"""
    curves = Curves()
    if not reference:
        return curves
    path = OWN_CURVES if reference == "miniature" else Path(reference)
    if not path.is_file():
        raise UsageError(
            f"reference_curves {reference} not found. Give the steps.jsonl of a run, 'miniature', or nothing."
        )
    for record in read_lines(path):
        curves.add(record)
    return curves


def scalar_writer(folder, resumed):
    """TensorBoard's writer into `<folder>/tensorboard`; what a killed run wrote after `resumed` is hidden"""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise UsageError(
            "tensorboard: the package is not installed. pip install 'lebench_sb[tensorboard]', or leave "
            "--tensorboard at False: steps.jsonl holds the same figures."
        ) from error
    return SummaryWriter(str(folder / "tensorboard"), purge_step=resumed + 1)


def write_scalars(writer, record):
    """The numbers of a line of `steps.jsonl`, as train/loss, valid/loss, ..."""
    for key, value in record.items():
        if key not in ("step", "stage", "epoch") and isinstance(value, (int, float)):
            writer.add_scalar(f"{record['stage']}/{key}", value, record["step"])
