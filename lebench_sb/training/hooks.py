"""What a recipe's Brain writes or may override of the loop in training/brain.py.

A recipe writes `compute_forward(batch, stage)`, `compute_objectives(predictions, batch, stage)`, `scores`,
`statistics`:

- `compute_objectives` returns the mean loss over `units(predictions, batch)` units (utterances by default).
  An update is normalised by the units of the whole accumulated, distributed batch.
- On valid and test it appends one dict per utterance to `self.rows` (`described` and the statistics of its
  scores); `scores(rows)` turns them into {metric: value}.
"""

import torch
from speechbrain import Stage

from lebench_sb.evaluation import intervals
from lebench_sb.training.data import EpochPlan


class Hooks:
    """Each has a default, except where a recipe must write it"""

    caveats = ()  # of these data, which a reader of the figures must know; they go to results.json

    def units(self, predictions, batch):
        """How many things the loss of this micro-batch is a mean over"""
        return len(batch)

    def parameter_groups(self):
        """[(parameters, peak learning rate, first update that changes them)]"""
        raise NotImplementedError

    def scores(self, rows):
        """Rows of all utterances of a stage -> {metric: value}; the loss alone by default"""
        return {}

    def statistics(self, rows):
        """{metric: (statistics of the rows, score of their sums, unit, better)}: evaluation/intervals.py"""
        raise NotImplementedError

    def step_sums(self):
        """Sums over the micro-batches of the update in this process, (n,) float64 on the device"""
        return torch.zeros(0, dtype=torch.float64, device=self.device)

    def step_statistics(self, sums, done):
        """What `steps.jsonl` says of an update besides loss and learning rate: from `step_sums` over all
        processes, (n,) on the CPU, and the updates before it"""
        return {}

    def plan(self, dataset, stage):
        """Which utterances form which batch"""
        seconds = self.hparams.max_batch_seconds
        return EpochPlan(dataset.durations, seconds, self.hparams.seed, shuffle=stage == Stage.TRAIN)

    def on_host(self, batch, stage):
        """The batch as it goes to the device, after what is drawn or counted on the host"""
        return batch

    def details(self):
        """What results.json says of this task alone: {name: JSON value}"""
        return {}

    def intervals(self, rows):
        """The metrics of results.json: what `statistics(rows)` names, each with its 95 % interval"""
        speakers = [row["spk_id"] for row in rows]
        return intervals.metric_entries(self.statistics(rows), speakers, self.hparams.seed)

    def draw(self, rows):
        """Pictures of the test from what `evaluate` returned, on the main process, after results.json"""

    @staticmethod
    def described(batch):
        """One dict per utterance of the batch with what every row of `utterances.csv` begins with"""
        columns = zip(batch.id, batch.spk_id, batch.gender, batch.duration, strict=True)
        return [
            {"ID": name, "spk_id": speaker, "gender": gender, "duration": float(duration)}
            for name, speaker, gender, duration in columns
        ]
