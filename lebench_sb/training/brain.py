"""The loop every recipe shares: exact resumption, global clipping, each utterance scored once.

Letters: B utterances, T samples.
"""

import logging
import math
import time
from contextlib import contextmanager
from pathlib import Path

import speechbrain as sb
import torch
from speechbrain.utils.checkpoints import mark_as_loader, mark_as_saver, register_checkpoint_hooks
from speechbrain.utils.distributed import if_main_process
from tqdm.auto import tqdm

from lebench_sb.core import signals
from lebench_sb.core.files import remove_unfinished
from lebench_sb.training import checks, energy, logs, processes, sharding, state, stopping, updates, wrapping
from lebench_sb.training.checkpoints import state_bytes
from lebench_sb.training.data import PlannedLoader, seed_everything
from lebench_sb.training.hooks import Hooks

logger = logging.getLogger(__name__)
TRAIN, VALID, TEST = sb.Stage.TRAIN, sb.Stage.VALID, sb.Stage.TEST


@register_checkpoint_hooks
class SSLBrain(Hooks, sb.Brain):
    """SpeechBrain's Brain with our loop; what a recipe writes is in training/hooks.py.

    - Random numbers of a micro-batch depend on (seed, epoch, its place in the epoch) alone: a resumed run
      needs no saved random state and repeats an uninterrupted one exactly, and k processes draw what one that
      accumulates k micro-batches draws.
    - Learning rates are functions of the update (`hparams.schedule(update, total)`): nothing to save.
    - The counters `saved` are in every checkpoint: see `training/state.py`.
    """

    saved = (
        "step", "optimizer_step", "avg_train_loss", "train_seconds", "batches_per_update", "left_out",
        "nonfinite_count",
    )  # fmt: skip

    def __init__(self, modules, hparams, run_opts, checkpointer):
        super().__init__(modules, None, hparams, run_opts, checkpointer)
        self.world = processes.processes()
        self.rank = torch.distributed.get_rank() if self.world > 1 else 0
        self.on_gpu = torch.device(self.device).type == "cuda"
        self.folder = Path(self.hparams.output_folder)
        self.stop, self.cpu_group = signals.Stop(), stopping.cpu_group(self.world)
        self.updates, self.step_log = updates.Updates(self), logs.StepLog(self.folder / "steps.jsonl")
        self.rows = []
        self.train_seconds = 0.0
        self.elsewhere = 0.0  # device seconds of training beyond `train_seconds` x today's processes
        self.waited = 0.0  # seconds without work until a batch was there, since a task set it to 0
        self.left_out, self.nonfinite_count = 0, 0  # of the epoch's updates: without loss, without gradient
        self.tested = "best on valid"  # whose weights `load_best` loads, in words
        self.meter = energy.Meter(
            self.folder, self.device, self.rank, self.world, self.hparams.energy_method,
            self.hparams.device_watts, self.hparams.pue, self.hparams.co2_g_per_kwh,
        )  # fmt: skip
        self.cache = None  # lebench_sb.training.features.FeatureCache, or None: frames are computed each time

    # ---- fit

    def fit(self, train_set, valid_set):
        """Trains up to the counter's limit, validating after each epoch; resumes from the last checkpoint.

        SIGTERM, SIGUSR1 and Ctrl-C end the process, with a checkpoint: see training/stopping.py.
        """
        self.meter.start()
        if if_main_process():
            remove_unfinished(self.folder)
        if self.test_only:
            logger.info("Test only: training is left out.")
            state.load(self, modules=False)
            return
        train, valid = self.loader(train_set, TRAIN), self.loader(valid_set, VALID)
        self.total_updates = self.count_updates(train)
        self.check_length()
        self.on_fit_start()
        if self.checkpointer is not None:
            self.checkpointer.check_space(state_bytes(self.checkpointer, self.hparams.optimizer))
        if if_main_process():
            self.step_log.forget_after(self.optimizer_step)
        bar = tqdm(
            total=self.total_updates, initial=self.optimizer_step, disable=not self.shows_progress,
            dynamic_ncols=True, unit="update", desc=self.bar_name, mininterval=1.0,
        )  # fmt: skip
        with bar, signals.noted() as self.stop:
            for epoch in self.hparams.epoch_counter:
                bar.set_description(f"{self.bar_name}, epoch {epoch}", refresh=False)
                self._fit_train(train, epoch, bar)
                self._fit_valid(valid, epoch)
                if self.is_last(epoch):
                    break
        if self.checkpointer is not None:
            self.checkpointer.require_saved()

    @property
    def shows_progress(self):
        return if_main_process() and not self.noprogressbar

    def is_last(self, epoch):
        return (self.debug and epoch >= self.debug_epochs) or self._optimizer_step_limit_exceeded

    def loader(self, dataset, stage):
        plan, workers = self.plan(dataset, stage), self.hparams.num_workers
        return PlannedLoader(dataset, plan, self.rank, self.world, workers, even=stage == TRAIN)

    def count_updates(self, loader):
        """Updates of the whole run, as the schedule sees them"""
        epochs = range(1, self.hparams.epoch_counter.limit + 1)
        return sum(math.ceil(len(loader.share(e)) / self.grad_accumulation_factor) for e in epochs)

    def check_length(self):
        """Refuses settings that do not go with the number of updates"""
        checks.check_updates(self)
        if not self.debug:
            checks.check_warmup(self)

    def init_optimizers(self):
        groups, self.peaks = updates.optimizer_groups(
            self.parameter_groups(), vectors_decay=not self.remove_vector_weight_decay
        )
        self.optimizer = self.hparams.optimizer(groups)
        self.optimizers_dict = {"optimizer": self.optimizer}
        if self.checkpointer is not None:
            self.checkpointer.add_recoverable("optimizer", self.optimizer)

    def _wrap_distributed(self):
        """As SpeechBrain, but on CPUs batch normalisation stays each process's own"""
        if self.distributed_launch and torch.device(self.device).type == "cpu":
            wrapping.wrap_on_cpus(self.modules, self.find_unused_parameters)
        else:
            super()._wrap_distributed()

    def _fit_train(self, loader, epoch, bar):
        self.on_stage_start(TRAIN, epoch)
        self.modules.train()
        self.zero_grad(set_to_none=True)
        self.nonfinite_count = self.nonfinite_count if self.step else 0
        self.batches_in_epoch = len(loader.share(epoch))
        checks.check_micro_batches(self)
        last_save = time.time()
        if self.profiler is not None:
            self.profiler.start()
        for batch in self.timed(loader.batches(epoch, self.step)):
            if self._optimizer_step_limit_exceeded:
                break
            started = time.time()
            self.step += 1
            place = (self.step - 1) * self.world + self.rank + 1
            seed_everything(self.hparams.seed, epoch, place, 0)
            self.fit_batch(batch)
            self.updates.flush(leave=1 if self.on_gpu else 0)
            self.train_seconds += time.time() - started
            self.profile_step()
            if self.debug and self.step >= self.debug_batches:
                break
            if self.ends_update():
                bar.update(self.optimizer_step - bar.n)
                bar.set_postfix(loss=f"{self.avg_train_loss:.3f}", refresh=False)
                if asked := stopping.stop_asked(self):
                    stopping.leave(self, asked)
                if state.save_is_due(self, last_save):
                    self.updates.flush()
                    state.save_inside_epoch(self)
                    last_save = time.time()
        self.updates.flush()
        self.zero_grad(set_to_none=True)
        self.ended = self.step, self.avg_train_loss, self.left_out
        self.train_loss = updates.mean_loss(self, epoch)
        self.step, self.avg_train_loss, self.left_out = 0, 0.0, 0
        self.on_stage_end(TRAIN, self.train_loss, epoch)

    def timed(self, batches):
        """The batches of a loader; adds to `self.waited` the time until each came, if the device had nothing
        left to do by then"""
        batches = iter(batches)
        while True:
            asked = time.time()
            batch = next(batches, None)
            if batch is None:
                return
            if not self.on_gpu or torch.cuda.current_stream().query():
                self.waited += time.time() - asked
            yield batch

    def ends_update(self):
        """Whether the micro-batch `self.step` is the last of its update (an epoch's rest is one too)"""
        return self.step % self.grad_accumulation_factor == 0 or self.step == self.batches_in_epoch

    def fit_batch(self, batch):
        """One micro-batch forward and backward; the last of an update also steps. No value is read back from
        the device (tasks may do so): its statistics come with `updates.flush`."""
        last = self.ends_update() or (self.debug and self.step >= self.debug_batches)
        batch = self.on_host(batch, TRAIN).to(self.device, non_blocking=True)
        self.on_fit_batch_start(batch, last)
        with self.no_sync(not last):
            with self.training_ctx:
                predictions = self.compute_forward(batch, TRAIN)
                loss = self.compute_objectives(predictions, batch, TRAIN)
            units = float(self.units(predictions, batch))
            self.scaler.scale(loss * units).backward()
        self.updates.add(list(batch.id), loss, units)
        if last:
            self.updates.step()
        self.on_fit_batch_end(batch, predictions, loss, last)

    @property
    def is_sharded(self):
        return any(map(sharding.is_sharded, self.modules.values()))

    @contextmanager
    def no_sync(self, use=True):
        """As SpeechBrain's, and for sharded modules"""
        for module in filter(sharding.is_sharded, self.modules.values()):
            module.set_requires_gradient_sync(not use)
        with super().no_sync(use):
            yield

    def profile_step(self):
        if self.profiler is None:
            return
        self.profiler.step()
        if self.profiler.step_num > self.tot_prof_steps:
            self.profiler.stop()
            raise SystemExit("The profiler finished: training is stopped.")

    # ---- valid and test

    def _fit_valid(self, loader, epoch):
        try:
            loss = self.run_stage(loader, VALID, epoch)
        except stopping.Stopped as stopped:
            # saved as the end of the epoch's training, where a resumed run validates at once
            self.step, self.avg_train_loss, self.left_out = self.ended
            stopping.leave(self, stopped.number)
        self.on_stage_end(VALID, loss, epoch)
        if asked := stopping.stop_asked(self):
            stopping.leave(self, asked, save=False)

    def run_stage(self, loader, stage, epoch):
        """Scores the loader's utterances, in the batches of epoch 1 always; returns the mean loss, NaN where
        one is not finite: the log says of which utterances."""
        self.on_stage_start(stage, epoch)
        self.rows, broken = [], []
        total = units = 0.0
        hidden, name = not self.shows_progress, stage.name.lower()
        everyones = loader.everyones(1)
        bar = tqdm(loader.batches(1), desc=name, leave=False, disable=hidden, dynamic_ncols=True)
        with self.unwrapped(), torch.no_grad():
            self.modules.eval()
            for number, batch in enumerate(bar, 1):
                batch = self.on_host(batch, stage).to(self.device)
                with self.evaluation_ctx:
                    predictions = self.compute_forward(batch, stage)
                    loss = self.compute_objectives(predictions, batch, stage)
                count = float(self.units(predictions, batch))
                total, units = total + float(loss) * count, units + count
                if not math.isfinite(loss):
                    broken += batch.id
                if number <= everyones and (asked := stopping.stop_asked(self)):
                    raise stopping.Stopped(asked)
                if self.debug and number >= self.debug_batches:
                    break
        self.rows = sorted(processes.gather(self.rows), key=lambda row: row["ID"])
        if broken := sorted(processes.gather(broken)):
            logger.warning(
                "%s, update %d: the loss of these utterances' batches is not finite, nor is the mean: %s",
                stage.name.lower(), self.optimizer_step, updates.some_of(broken),
            )  # fmt: skip
        energy.note(self)
        total, units = (processes.total(value, self.device) for value in (total, units))
        return total / max(units, 1.0)

    def evaluate(self, test_set):
        """Scores the test set with the checkpoint best on valid -> one row per utterance, sorted by ID"""
        self.load_best()
        loss = self.run_stage(self.loader(test_set, TEST), TEST, None)
        scored = [row["ID"] for row in self.rows]
        if not self.debug and sorted(scored) != sorted(test_set.data_ids):
            raise RuntimeError(f"{len(scored)} scores for {len(test_set)} test utterances")
        scores = {**loss_score(loss), **self.scores(self.rows)}
        self.log_epoch({"test": self.tested}, test_stats=scores)
        return self.rows

    def load_best(self):
        """Loads the weights to test, and returns what their checkpoint says: see `state.load_best`"""
        return state.load_best(self)

    def unwrapped(self):
        """A context: modules without DDP, and with all their weights"""
        return wrapping.unwrapped(self.modules)

    def on_stage_end(self, stage, stage_loss, epoch=None):
        if stage != VALID:
            return
        scores = {**loss_score(stage_loss), **self.scores(self.rows)}
        self.log_step(VALID, epoch=epoch, train_loss=self.train_loss, **scores)
        self.log_epoch({"epoch": epoch, "update": self.optimizer_step}, {"loss": self.train_loss}, scores)
        key, lower = self.hparams.key_metric, self.hparams.key_metric_is_better == "lower"
        scores = {name: value for name, value in scores.items() if math.isfinite(value)}
        if key not in scores:
            logger.warning("Epoch %d: no finite %s on valid; its weights cannot be the best.", epoch, key)
        self.checkpointer.save_and_keep_only(
            meta={**scores, "epoch": epoch, "update": self.optimizer_step},
            min_keys=[key] if lower else [], max_keys=[] if lower else [key],
            importance_keys=[], num_to_keep=1, verbosity=logging.DEBUG,
        )  # fmt: skip

    # ---- what is written of a run

    @property
    def device_seconds(self):
        """Seconds x processes of the whole run: of training, and of computing frames that were not cached"""
        return self.trained_device_seconds + energy.cache_device_seconds(self.folder)

    @property
    def trained_device_seconds(self):
        return self.elsewhere + self.train_seconds * self.world

    @property
    def bar_name(self):
        """What tells this run's progress bar from those of others: task, and the end of its folder's name"""
        return " ".join([self.hparams.task, *self.folder.parts[-3:]])

    def log_step(self, stage, **values):
        """Appends a line to `steps.jsonl` (main process only)"""
        if if_main_process():
            self.step_log.add({"step": self.optimizer_step, "stage": stage.name.lower()} | values)

    def log_epoch(self, meta, train_stats=None, valid_stats=None, test_stats=None):
        if if_main_process():
            logs.log_epoch(self.hparams.train_logger, meta, train_stats, valid_stats, test_stats)

    @mark_as_saver
    def _save(self, path):
        if if_main_process():
            state.save(self, path)

    @mark_as_loader
    def _recover(self, path, end_of_epoch):
        state.recover(self, path)


def loss_score(loss):
    """{"loss": number}, or nothing where a task has no loss on a stage (None)"""
    return {} if loss is None else {"loss": float(loss)}
