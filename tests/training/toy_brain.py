"""A Brain of one weight on made-up waveforms: the whole loop in a fraction of a second."""

import math

import torch
from speechbrain.utils.data_pipeline import DynamicItem
from speechbrain.utils.epoch_loop import EpochCounter
from speechbrain.utils.train_logger import FileTrainLogger

from lebench_sb.evaluation.metrics.errors import mean
from lebench_sb.manifests.utterance import Utterance
from lebench_sb.training.brain import TRAIN, SSLBrain
from lebench_sb.training.checkpoints import SafeCheckpointer
from lebench_sb.training.data import as_dataset

SPLITS = {"train": 6, "valid": 3, "test": 4}
UPDATES = 3  # of an epoch


class ToyBrain(SSLBrain):
    """merits: the figure of each validation, the lower the better; broken: ids whose loss is NaN, and the
    stages in which it is"""

    merits, broken, broken_in = (3.0, 2.0, 1.0), (), (TRAIN,)

    def parameter_groups(self):
        return [(list(self.modules.parameters()), 0.1, 0)]

    def compute_forward(self, batch, stage):
        return self.modules.head(batch.sig.data[:, :1])

    def compute_objectives(self, predictions, batch, stage):
        loss = predictions.square().mean()
        if set(batch.id) & set(self.broken) and stage in self.broken_in:
            loss = loss * math.nan
        if stage != TRAIN:
            self.rows += [{**row, "merit_sum": 1.0, "merit_n": 1} for row in self.described(batch)]
        return loss

    def scores(self, rows):
        return {"merit": self.merits[self.hparams.epoch_counter.current - 1]}

    def statistics(self, rows):
        return {"merit": ([(row["merit_sum"], row["merit_n"]) for row in rows], mean, "", "lower")}

    def trivial_baseline(self, rows):
        return "nothing", rows


def toy_data():
    """{split: dataset} of utterances of a second"""
    wave = DynamicItem(["duration"], lambda seconds: torch.ones(160), ["sig"])
    return {split: as_dataset(utterances(split), [wave], ["sig", "spk_id", "gender", "duration"])
            for split in SPLITS}  # fmt: skip


def utterances(split):
    return [Utterance(f"{split}{k}", f"{split}{k}.wav", 1.0, speaker=f"s{k}", gender="F")
            for k in range(SPLITS[split])]  # fmt: skip


def toy(folder, epochs=3, key="merit", kind=ToyBrain, **options):
    """-> a ToyBrain in `folder`. options: those of a run, such as test_only"""
    torch.manual_seed(0)
    folder.mkdir(exist_ok=True)
    head, counter = torch.nn.Linear(1, 1), EpochCounter(epochs)
    hparams = {
        "output_folder": str(folder), "seed": 1, "task": "toy", "epoch_counter": counter,
        "energy_method": "estimate", "device_watts": 1.0, "pue": 1.0, "co2_g_per_kwh": 1.0,
        "max_batch_seconds": 2.0, "num_workers": 0, "checkpoint_every_updates": 0,
        "optimizer": torch.optim.SGD, "schedule": lambda update, total: 1.0,
        "train_logger": FileTrainLogger(str(folder / "train_log.txt")),
        "key_metric": key, "key_metric_is_better": "lower",
    }  # fmt: skip
    checkpointer = SafeCheckpointer(folder / "save", {"head": head, "counter": counter})
    run_opts = {"device": "cpu", "noprogressbar": True, **options}
    return kind({"head": head}, hparams, run_opts, checkpointer)


def trained(folder, **options):
    """-> (a ToyBrain after fit, its data)"""
    brain, data = toy(folder, **options), toy_data()
    brain.fit(data["train"], data["valid"])
    return brain, data
