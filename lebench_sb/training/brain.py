"""The loop every recipe shares: exact resumption, global clipping, each utterance scored once.

Letters: B utterances, T samples.
"""

import errno
import logging
import math
import signal
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import speechbrain as sb
import torch
import yaml
from speechbrain.core import INTRA_EPOCH_CKPT_FLAG
from speechbrain.utils.checkpoints import mark_as_loader, mark_as_saver, register_checkpoint_hooks
from speechbrain.utils.distributed import MainProcessContext, if_main_process
from torch.nn.parallel import DistributedDataParallel
from tqdm.auto import tqdm

from lebench_sb.core import signals
from lebench_sb.core.errors import UsageError
from lebench_sb.core.files import remove_unfinished, write_atomically
from lebench_sb.core.lines import append_whole, json_text, read_records, whole_or_not
from lebench_sb.evaluation import results
from lebench_sb.evaluation.metrics.bootstrap import interval, paired_interval
from lebench_sb.evaluation.provenance import describe_run
from lebench_sb.training import energy, sharding
from lebench_sb.training.checkpoints import state_bytes
from lebench_sb.training.data import (
    EpochPlan,
    PlannedLoader,
    describe_split,
    left_out,
    manifest_stamps,
    sample_lengths,
    seed_everything,
    send,
    speakers_of,
)
from lebench_sb.training.updates import Later, Update

logger = logging.getLogger(__name__)
TRAIN, VALID, TEST = sb.Stage.TRAIN, sb.Stage.VALID, sb.Stage.TEST


@register_checkpoint_hooks
class SSLBrain(sb.Brain):
    """SpeechBrain's Brain with our loop. A task writes `compute_forward`, `compute_objectives`, `scores`.

    - `compute_objectives` returns the mean loss over `units(predictions, batch)` units (utterances by
      default). An update is normalised by the units of the whole accumulated, distributed batch.
    - On valid and test it appends one dict per utterance to `self.rows` (`ID` and the statistics of its
      scores); `scores(rows)` turns them into {metric: value}.
    - Random numbers of a micro-batch depend on (seed, epoch, its place in the epoch) alone: a resumed run
      needs no saved random state and repeats an uninterrupted one exactly, and k processes draw what one that
      accumulates k micro-batches draws.
    - Learning rates are functions of the update (`hparams.schedule(update, total)`): nothing to save.
    - A checkpoint holds weights and the state of the run (its clock and counters, `kept`). A run goes on from
      both; what is tested is weights alone: the clock stays that of the whole run.
    """

    kept = (
        "step", "optimizer_step", "avg_train_loss", "train_seconds", "batches_per_update", "left_out",
        "nonfinite_count",
    )  # fmt: skip

    def __init__(self, modules, hparams, run_opts, checkpointer):
        super().__init__(modules, None, hparams, run_opts, checkpointer)
        self.world = torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1
        self.rank = torch.distributed.get_rank() if self.world > 1 else 0
        self.folder = Path(self.hparams.output_folder)
        self.stop, self.on_cpus = signals.Stop(), None  # asked to stop; the processes' group for CPU tensors
        if self.world > 1 and torch.distributed.get_backend() != "gloo":
            self.on_cpus = torch.distributed.new_group(backend="gloo")
        self.train_seconds, self.rows, self.unwritten = 0.0, [], ""
        self.elsewhere = 0.0  # device seconds of training beyond `train_seconds` x today's processes
        self.left_out, self.nonfinite_count = 0, 0  # of the epoch's updates: without loss, without gradient
        self.waited = 0.0  # seconds without work until a batch was there, since a task set it to 0
        self.on_gpu = torch.device(self.device).type == "cuda"
        # of the update at hand, and those not yet in `steps.jsonl`
        self.update_batches, self.update_units, self.unsettled = [], 0.0, []
        self.tested = "best on valid"  # whose weights `load_best` loads, in words
        self.meter = energy.Meter(
            self.folder, self.device, self.rank, self.world, self.hparams.energy_method,
            self.hparams.device_watts, self.hparams.pue, self.hparams.co2_g_per_kwh,
        )  # fmt: skip
        self.cache = (
            None  # lebench_sb.training.features.FeatureCache, or None: frames are computed in every epoch
        )

    # ---- what a task may override

    def units(self, predictions, batch):
        """How many things the loss of this micro-batch is a mean over"""
        return len(batch)

    def parameter_groups(self):
        """[(parameters, peak learning rate, first update that changes them)]"""
        head = ([], self.hparams.head_lr, 0)
        # a debug run is too short for a warm-up, and is there to show that everything works
        encoder = ([], self.hparams.encoder_lr, 0 if self.debug else self.hparams.encoder_warmup_steps)
        for name, module in self.modules.items():
            pretrained = set(map(id, pretrained_parameters(module))) if name == "encoder" else set()
            for parameter in module.parameters():
                (encoder if id(parameter) in pretrained else head)[0].append(parameter)
        return [head, encoder]

    def scores(self, rows):
        """Rows of all utterances of a stage -> {metric: value}; the loss alone by default"""
        return {}

    def trivial(self, rows):
        """(what it does, its rows) of a system that hears nothing: like `rows`, with other statistics"""
        raise NotImplementedError(f"{type(self).__name__} says nothing of a trivial system to compare with.")

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
        return EpochPlan(dataset.durations, seconds, self.hparams.seed, shuffle=stage == TRAIN)

    # ---- what tasks share

    def encode(self, batch, stage):
        """batch.sig -> frames (B, F, D), frame_lens (B,): of augmented waveforms if the encoder is trained,
        and in training masked by `hparams.mask`"""
        if self.cache is not None:
            wavs, wav_lens = batch.features.data, sample_lengths(batch.features)  # states, frame_lens
        else:
            wavs, wav_lens = batch.sig
        if stage == TRAIN and self.trains_encoder:
            # A frozen encoder hears the recording as it is, so that its frames may be computed once.
            wavs, wav_lens = self.hparams.augment(wavs, wav_lens)
        frames, frame_lens = self.modules.encoder(wavs, wav_lens)
        return (self.hparams.mask(frames, frame_lens) if stage == TRAIN else frames), frame_lens

    @staticmethod
    def described(batch):
        """One dict per utterance of the batch with what every row of `utterances.csv` begins with"""
        return [
            {"ID": name, "spk_id": speaker, "gender": gender, "duration": float(duration)}
            for name, speaker, gender, duration in zip(
                batch.id, batch.spk_id, batch.gender, batch.duration, strict=True
            )
        ]

    # ---- fit

    def fit(self, train_set, valid_set):
        """Trains up to the counter's limit, validating after each epoch; resumes from the last checkpoint.

        SIGTERM, SIGUSR1 and Ctrl-C end the process, with a checkpoint: see `leave`.
        """
        self.meter.start()
        if if_main_process():
            remove_unfinished(self.folder)
        if self.test_only:
            logger.info("Test only: training is left out.")
            self.load(modules=False)
            return
        train, valid = self.loader(train_set, TRAIN), self.loader(valid_set, VALID)
        self.total_updates = self.count_updates(train)
        self.check_length()
        if not self.debug:
            self.check_warmup()
        self.on_fit_start()
        if self.checkpointer is not None:
            self.checkpointer.check_space(state_bytes(self.checkpointer, self.hparams.optimizer))
        if if_main_process():
            forget_steps_after(self.folder / "steps.jsonl", self.optimizer_step)
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
        if self.cache is not None:
            context = self.training_ctx if stage == TRAIN else self.evaluation_ctx
            precision = self.precision if stage == TRAIN else self.eval_precision
            dataset = self.cache.view(dataset, context, precision, self.device, self.shows_progress)
        plan, workers = self.plan(dataset, stage), self.hparams.num_workers
        return PlannedLoader(dataset, plan, self.rank, self.world, workers, even=stage == TRAIN)

    def count_updates(self, loader):
        """Updates of the whole run, as the schedule sees them"""
        epochs = range(1, self.hparams.epoch_counter.limit + 1)
        return sum(math.ceil(len(loader.share(e)) / self.grad_accumulation_factor) for e in epochs)

    def check_length(self):
        """Raises UsageError for a run without an update: there would be nothing to test"""
        if self.total_updates < 1:
            raise UsageError(
                "The run has no update (number_of_epochs or number_of_updates is 0): ask for one at least, "
                "or for the test alone of what is trained (--test_only)."
            )

    def check_warmup(self):
        """Warns of a learning rate that only rises. Raises UsageError if an encoder that shall be trained
        would stay as it is: no run is called end-to-end that was frozen"""
        total, schedule = self.total_updates, self.hparams.schedule
        if schedule(total, total) > schedule(max(total // 2, 1), total):
            logger.warning(
                "The learning rate still rises when the run ends, at %.2g of its peak: it has a warm-up as "
                "long as the %d updates. Give a shorter one (--schedule '{warmup: ...}') or train longer.",
                schedule(total, total),
                total,
            )
        warmup = getattr(self.hparams, "encoder_warmup_steps", 0)  # pre-training has none
        updates = min(total, self.optimizer_step_limit or total)
        if warmup >= updates > 0 and self.trains_encoder:
            raise UsageError(
                f"encoder_warmup_steps {warmup}: the run has {updates} updates, so the encoder "
                "would never be trained: fewer (--encoder_warmup_steps 0), more epochs, or --freeze True."
            )

    def init_optimizers(self):
        groups = [g for g in self.parameter_groups() if any(p.requires_grad for p in g[0])]
        self.peaks = [(peak, first) for _, peak, first in groups]
        trained = [{"params": [p for p in g[0] if p.requires_grad], "lr": g[1]} for g in groups]
        if self.remove_vector_weight_decay:
            trained, self.peaks = without_vector_decay(trained, self.peaks)
        self.optimizer = self.hparams.optimizer(trained)
        self.optimizers_dict = {"optimizer": self.optimizer}
        if self.checkpointer is not None:
            self.checkpointer.add_recoverable("optimizer", self.optimizer)

    def _wrap_distributed(self):
        """As SpeechBrain, but on CPUs batch normalisation stays each process's own: only GPUs can share it"""
        if not self.distributed_launch or torch.device(self.device).type != "cpu":
            super()._wrap_distributed()
            return
        for name, module in self.modules.items():
            if any(p.requires_grad for p in module.parameters()):
                self.modules[name] = DistributedDataParallel(
                    module, find_unused_parameters=self.find_unused_parameters
                )

    def _fit_train(self, loader, epoch, bar):
        self.on_stage_start(TRAIN, epoch)
        self.modules.train()
        self.zero_grad(set_to_none=True)
        self.nonfinite_count = self.nonfinite_count if self.step else 0
        self.batches_in_epoch = len(loader.share(epoch))
        self.check_batch()
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
            self.settle(leave=1 if self.on_gpu else 0)
            self.train_seconds += time.time() - started
            self.profile_step()
            if self.debug and self.step >= self.debug_batches:
                break
            if self.ends_update():
                bar.update(self.optimizer_step - bar.n)
                bar.set_postfix(loss=f"{self.avg_train_loss:.3f}", refresh=False)
                if asked := self.stop_asked():
                    self.leave(asked)
                last_save = self.save_inside_epoch(last_save)
        self.settle()
        self.zero_grad(set_to_none=True)
        self.ended = self.step, self.avg_train_loss, self.left_out
        self.train_loss = self.epoch_loss(epoch)
        self.step, self.avg_train_loss, self.left_out = 0, 0.0, 0
        self.on_stage_end(TRAIN, self.train_loss, epoch)

    def epoch_loss(self, epoch):
        """Mean training loss of the updates that had one, NaN where none had; the log counts the others"""
        updates = math.ceil(self.step / self.grad_accumulation_factor)
        if self.left_out:
            logger.warning(
                "Epoch %d: %d of %d updates had no finite loss; its mean training loss leaves them out.",
                epoch, self.left_out, updates,
            )  # fmt: skip
        return self.avg_train_loss if self.left_out < max(updates, 1) else math.nan

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
        the device (tasks may do so): its figures come with `settle`."""
        last = self.ends_update() or (self.debug and self.step >= self.debug_batches)
        self.on_host(batch, TRAIN)
        batch = batch.to(self.device, non_blocking=True)
        self.on_fit_batch_start(batch, last)
        with self.no_sync(not last):
            with self.training_ctx:
                predictions = self.compute_forward(batch, TRAIN)
                loss = self.compute_objectives(predictions, batch, TRAIN)
            units = float(self.units(predictions, batch))
            self.scaler.scale(loss * units).backward()
        self.update_batches.append((list(batch.id), loss.detach().double(), units))
        self.update_units += units
        if last:
            self.optimizers_step()
        self.on_fit_batch_end(batch, predictions, loss, last)

    def on_host(self, batch, stage):
        """What a task wants to know of a batch before it goes to the device"""

    def optimizers_step(self):
        """Normalises, clips over all parameters together, steps; a gradient not finite changes nothing."""
        rates = self.set_rates()
        self.scaler.unscale_(self.optimizer)
        groups = self.optimizer.param_groups
        parameters = [p for group in groups for p in group["params"] if p.grad is not None]
        units = send(torch.tensor([self.update_units], dtype=torch.float64), self.device)
        losses = torch.stack([loss for _, loss, _ in self.update_batches])
        weights = torch.tensor([own for *_, own in self.update_batches], dtype=torch.float64)
        loss = (losses * send(weights, self.device)).sum()
        sums = torch.cat([units, loss[None], self.step_sums()])
        if self.world > 1:
            torch.distributed.all_reduce(sums)
        # DDP has averaged the gradients over processes: x world gives their sum, / units the mean per unit.
        scale = (self.world / sums[0].clamp(min=1.0)).float()
        gradients = [sharding.own_part(p.grad) for p in parameters]
        torch._foreach_mul_(gradients, scale)
        norm = sharding.clip(gradients, self.max_grad_norm, self.is_sharded)
        self.step_if_finite(norm)
        self.optimizer.zero_grad(set_to_none=True)
        self.optimizer_step += 1
        ids = [names for names, *_ in self.update_batches]
        figures = Later(sums, losses, norm.double()[None])
        self.unsettled.append(Update(self.optimizer_step, self.step, max(rates), ids, figures))
        self.update_batches, self.update_units = [], 0.0

    def step_if_finite(self, norm):
        """Lets the optimizer step, unless the norm of the gradient is not finite; fused optimizers and fp16's
        scaler see to that on the device"""
        if self.scaler.is_enabled():
            self.scaler.step(self.optimizer)
            self.scaler.update()
        elif getattr(self.optimizer, "_step_supports_amp_scaling", False) and not self.is_sharded:
            self.optimizer.found_inf = (~norm.isfinite()).float()
            self.optimizer.step()
            del self.optimizer.found_inf
        elif math.isfinite(norm):
            self.optimizer.step()

    def settle(self, leave=0):
        """Logs the updates whose figures have not been read yet, but the last `leave`; the steps of a GPU are
        still running then"""
        while len(self.unsettled) > leave:
            update = self.unsettled.pop(0)
            (units, loss, *_), norm = update.figures.sums, float(update.figures.norm)
            loss = float(loss / max(units, 1.0))
            refused = {} if math.isfinite(norm) else {"refused": self.refuse_update(update)}
            if math.isfinite(loss):
                count = math.ceil(update.step / self.grad_accumulation_factor) - self.left_out
                self.avg_train_loss += (loss - self.avg_train_loss) / count
            else:
                self.left_out += 1
            known = {"loss": loss, "lr": update.lr, "grad_norm": norm}
            more = self.step_statistics(update.figures.sums[2:], update.number - 1)
            self.log_step(TRAIN, step=update.number, **known, **more, **refused)

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

    def set_rates(self):
        """Sets each group's learning rate for the coming update and returns them"""
        update = self.optimizer_step + 1
        factor = self.hparams.schedule(update, self.total_updates)
        for group, (peak, first) in zip(self.optimizer.param_groups, self.peaks, strict=True):
            group["lr"] = peak * factor if update > first else 0.0
            for p in group["params"] if update <= first else []:
                p.grad = None  # not updated at all: no change of the optimizer state, no weight decay
        return [group["lr"] for group in self.optimizer.param_groups]

    def refuse_update(self, update):
        """A loss or gradient that is not finite: the update was left out, and too many stop the run. Returns
        the ids of its utterances; none for those that fp16's scale, too high at first, is allowed."""
        self.nonfinite_count += 1
        allowed = HALVINGS if self.scaler.is_enabled() else 0
        names = self.suspects(update)
        told = ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")
        logger.warning(
            "Update %d left out: its gradient is not finite. Its utterances: %s", update.number, told
        )
        if self.nonfinite_count > self.nonfinite_patience + allowed:
            raise ValueError(
                f"{self.nonfinite_count} updates of this epoch had no finite gradient (--nonfinite_patience "
                f"{self.nonfinite_patience}), the last with the utterances {told}. Lower head_lr or "
                "encoder_lr, use --precision fp32, or leave these utterances out."
            )
        return names if self.nonfinite_count > allowed else []

    def suspects(self, update):
        """Sorted ids of the utterances of the micro-batches of an update whose loss is not finite, or of all
        if every loss is; of all processes"""
        losses = update.figures.losses.isfinite().tolist()
        found = list(zip(update.ids, losses, strict=True))
        if self.world > 1:
            shares = [None] * self.world
            torch.distributed.all_gather_object(shares, found)
            found = [pair for share in shares for pair in share]
        guilty = [ids for ids, finite in found if not finite] or [ids for ids, _ in found]
        return sorted(name for ids in guilty for name in ids)

    def save_inside_epoch(self, last_save):
        """Saves if a number of updates or minutes asks for it; returns when it last did."""
        every = self.ckpt_interval_steps or self.hparams.checkpoint_every_updates
        due = every > 0 and self.optimizer_step % every == 0
        if self.ckpt_interval_minutes > 0:
            late = time.time() - last_save > 60 * self.ckpt_interval_minutes
            due = bool(self.total(float(if_main_process() and late)))  # the main process decides for all
        if due and self.checkpointer is not None and self.step < self.batches_in_epoch:
            self.settle()
            self._save_intra_epoch_ckpt()
            return time.time()
        return last_save

    def _save_intra_epoch_ckpt(self):
        self.note_energy()
        self.checkpointer.save_and_keep_only(
            meta={INTRA_EPOCH_CKPT_FLAG: True}, end_of_epoch=False, num_to_keep=1, importance_keys=[],
            ckpt_predicate=lambda c: INTRA_EPOCH_CKPT_FLAG in c.meta, verbosity=logging.DEBUG,
        )  # fmt: skip

    def note_energy(self):
        try:
            self.meter.write(self.total, 0.0 if self.cache is None else self.cache.seconds)
        except OSError as error:
            warn_if_full(error)

    # ---- signals

    def stop_asked(self):
        """The signal that asks some process to stop, 0 for none; every process says the same. Called after
        each update: the processes' CPUs wait for each other there, their GPUs do not."""
        if self.world == 1:
            return self.stop.number
        asked = torch.tensor([self.stop.number])
        torch.distributed.all_reduce(asked, torch.distributed.ReduceOp.MAX, group=self.on_cpus)
        return int(asked)

    def leave(self, number, save=True):
        """Ends the process after signal `number`, with a checkpoint of the last update unless it has one.

        Raises KeyboardInterrupt after Ctrl-C, else SystemExit with signals.TRY_AGAIN.
        """
        self.settle()
        if save and self.checkpointer is not None:
            self._save_intra_epoch_ckpt()
        logger.warning("Stopped by signal %d after update %d.", number, self.optimizer_step)
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(signals.TRY_AGAIN)

    def check_batch(self):
        """Raises UsageError if the epoch was begun with another number of micro-batches per update"""
        now = self.world * self.grad_accumulation_factor
        if self.step and self.batches_per_update != now:
            raise UsageError(
                f"The checkpoint is inside an epoch of {self.batches_per_update} micro-batches per update "
                f"(processes x --grad_accumulation_factor), now {now}: go on with as many, or start a new "
                "--output_folder."
            )
        self.batches_per_update = now

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
        except Stopped as stopped:
            # saved as the end of the epoch's training, where a resumed run validates at once
            self.step, self.avg_train_loss, self.left_out = self.ended
            self.leave(stopped.number)
        self.on_stage_end(VALID, loss, epoch)
        if asked := self.stop_asked():
            self.leave(asked, save=False)

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
                self.on_host(batch, stage)
                batch = batch.to(self.device)
                with self.evaluation_ctx:
                    predictions = self.compute_forward(batch, stage)
                    loss = self.compute_objectives(predictions, batch, stage)
                count = float(self.units(predictions, batch))
                total, units = total + float(loss) * count, units + count
                if not math.isfinite(loss):
                    broken += [{"ID": name} for name in batch.id]
                if number <= everyones and (asked := self.stop_asked()):
                    raise Stopped(asked)
                if self.debug and number >= self.debug_batches:
                    break
        self.rows = self.gather(self.rows)
        if self.total(len(broken)):
            self.tell_broken(stage, [row["ID"] for row in self.gather(broken)])
        self.note_energy()
        return self.total(total) / max(self.total(units), 1.0)

    def tell_broken(self, stage, names):
        """Says which utterances' batches had no finite loss in a validation or test"""
        told = ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")
        logger.warning(
            "%s, update %d: the loss of these utterances' batches is not finite, nor is the mean: %s",
            stage.name.lower(), self.optimizer_step, told,
        )  # fmt: skip

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

    def draw(self, rows):
        """Pictures of the test from what `evaluate` returned, on the main process, after results.json"""

    def record(self, utterances, rows, split, system):
        """What results.json holds. utterances: {split: Utterances}; rows: of the utterances of `split`."""
        hparams = vars(self.hparams)
        unused = {"train": {}, "valid": {}, "test": {}}
        data = {s: describe_split(hparams[f"{s}_csv"], found) for s, found in utterances.items()}
        told = [stamp for s in utterances for stamp in manifest_stamps(hparams[f"{s}_csv"])]
        changed = ["settings changed after the start"] if hparams["run"].get("changes") else []
        checked = [] if "checked" not in hparams else hparams["checked"].stamps
        stamps = [*hparams["stamps"], *told, *checked, *shared_speakers(utterances), *changed, "one seed"]
        return {
            "task": hparams["task"],
            "corpus": hparams["corpus"],
            "split": split,
            "system": system,
            "layer": hparams["layer"],
            "mode": hparams["mode"],
            "metrics": self.intervals(rows),
            "data": {**unused, **data},
            "text_normaliser": hparams["run"].get("text_normaliser", hparams["normaliser"]),
            "details": {**self.details(), **left_out({s: hparams[f"{s}_csv"] for s in utterances})},
            "parameters": self.parameter_counts(),
            "stamps": list(dict.fromkeys(stamps)),
            "time": {
                "train_s": round(self.train_seconds, 1),
                "device_h": round(self.device_seconds / 3600, 4),
            },
            **describe_run(hparams["seed"], hparams["run"]["overrides"], hparams["run"]["command"]),
            "energy": energy.of_run(self.folder),
        }

    def details(self):
        """What results.json says of this task alone: {name: JSON value}"""
        found = {"tested": self.tested}
        if changes := self.hparams.run.get("changes"):
            found["changes"] = changes
        if "checked" in vars(self.hparams):  # by `run.start`
            found["data"] = self.hparams.checked.details
        if "encoder" in self.modules:  # pre-training has none
            found["frame_norm"] = without_ddp(self.modules["encoder"]).frame_norm
        return found

    @property
    def device_seconds(self):
        """Seconds x processes of the whole run: of training, and of computing frames that were not cached"""
        return self.trained_device_seconds + energy.cache_device_seconds(self.folder)

    @property
    def trained_device_seconds(self):
        return self.elsewhere + self.train_seconds * self.world

    def intervals(self, rows):
        """The metrics of results.json: what `statistics(rows)` names, each with its 95 % interval"""
        speakers, entries = [row["spk_id"] for row in rows], {}
        for name, (sums, score, unit, better) in self.statistics(rows).items():
            found = interval(sums, score, speakers, seed=self.hparams.seed)
            entries |= results.metric_entry(name, found.value, unit, found, better)
        return entries

    def against_trivial(self, rows):
        """{metric: score of the trivial system, this one minus it with its 95 % interval, which is better}

        Paired over the same speakers or utterances; `beats` is None without interval.
        """
        what, trivial = self.trivial(rows)
        speakers, theirs, found = [row["spk_id"] for row in rows], self.statistics(trivial), {}
        for name, (sums, score, unit, better) in self.statistics(rows).items():
            pair = paired_interval(sums, theirs[name][0], score, speakers, seed=self.hparams.seed)
            beats = None if pair.low is None else (pair.high < 0 if better == "lower" else pair.low > 0)
            value = float(score(np.asarray(theirs[name][0], dtype=float).sum(axis=0)))
            found[name] = {
                "system": what, "value": value, "unit": unit, "difference": pair.value,
                "ci95": None if pair.low is None else [pair.low, pair.high], "beats": beats,
            }  # fmt: skip
        return found

    def parameter_counts(self):
        """Parameters of the encoder, and those that are trained (encoder or not)"""
        encoder = self.modules["encoder"] if "encoder" in self.modules else self.modules
        trained = sum(p.numel() for p in self.modules.parameters() if p.requires_grad)
        return {"encoder": sum(p.numel() for p in encoder.parameters()), "trained": trained}

    @property
    def bar_name(self):
        """What tells this run's progress bar from those of others: task, and the end of its folder's name"""
        return " ".join([self.hparams.task, *self.folder.parts[-3:]])

    @property
    def trains_encoder(self):
        """Whether this run changes the encoder's own weights"""
        return any(p.requires_grad for p in pretrained_parameters(self.modules["encoder"]))

    def load_best(self):
        """Loads the weights of the checkpoint that is best by `key_metric` on valid and returns its metadata.

        Raises UsageError where no validation had a finite `key_metric`, FileNotFoundError for --test_only
        where nothing was trained.
        """
        if self.checkpointer is None:
            return {}
        lower, key = self.hparams.key_metric_is_better == "lower", self.hparams.key_metric
        found = self.load(modules=True, **{"min_key" if lower else "max_key": key})
        if found is not None:
            return found.meta
        if self.optimizer_step:
            raise UsageError(
                f"{self.checkpointer.checkpoints_dir}: no checkpoint has a finite {key} on valid, so none is "
                "the best. log.txt names the utterances; lower the learning rate, or leave them out."
            )
        if self.test_only:
            raise FileNotFoundError(f"{self.checkpointer.checkpoints_dir}: no checkpoint; train first.")
        return {}

    def load(self, modules, **order):
        """Of the first checkpoint in `order` (the newest by default) loads the modules' weights alone, or the
        state of the run alone -> it, or None where there is none"""
        if self.checkpointer is None:
            return None
        everything = self.checkpointer.recoverables
        chosen = {n: held for n, held in everything.items() if isinstance(held, torch.nn.Module) == modules}
        self.checkpointer.recoverables = chosen
        try:
            return self.checkpointer.recover_if_possible(**order)
        finally:
            self.checkpointer.recoverables = everything

    @contextmanager
    def unwrapped(self):
        """Modules without DDP, and with all their weights: processes may score different numbers of batches,
        waiting for nobody."""
        wrapped = dict(self.modules.items())
        sharded = [module for module in wrapped.values() if sharding.is_sharded(module)]
        for module in sharded:
            module.unshard()
        for name, module in wrapped.items():
            self.modules[name] = without_ddp(module)
        try:
            yield
        finally:
            for name, module in wrapped.items():
                self.modules[name] = module
            for module in sharded:
                module.reshard()

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

    # ---- between processes, and logs

    def total(self, value):
        """Sum of a number over the processes"""
        if self.world == 1:
            return value
        tensor = torch.tensor([value], dtype=torch.float64, device=self.device)
        torch.distributed.all_reduce(tensor)
        return float(tensor)

    def gather(self, rows):
        """Rows of all processes, sorted by ID, on every process"""
        if self.world > 1:
            shares = [None] * self.world
            torch.distributed.all_gather_object(shares, rows)
            rows = [row for share in shares for row in share]
        return sorted(rows, key=lambda row: row["ID"])

    def log_step(self, stage, **values):
        """Appends a line to `steps.jsonl` (main process only)"""
        if not if_main_process():
            return
        line = {"step": self.optimizer_step, "stage": stage.name.lower()} | values
        self.unwritten += json_text(line) + "\n"
        if append(self.folder / "steps.jsonl", self.unwritten):
            self.unwritten = ""

    def log_epoch(self, meta, train_stats=None, valid_stats=None, test_stats=None):
        if not if_main_process():
            return
        log = self.hparams.train_logger
        try:
            # SpeechBrain's loggers would wait for the other processes
            with MainProcessContext(), whole_or_not(log.save_file):
                log.log_stats(meta, train_stats, valid_stats, test_stats)
        except OSError as error:
            warn_if_full(error)

    @mark_as_saver
    def _save(self, path):
        if if_main_process():
            state = {name: getattr(self, name) for name in self.kept} | {"world": self.world}
            state["device_seconds"] = self.trained_device_seconds
            Path(path).write_text(yaml.safe_dump(state), encoding="utf-8")

    @mark_as_loader
    def _recover(self, path, end_of_epoch):
        state = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        world, seconds = state.pop("world"), state["train_seconds"]
        state["step"] = state["step"] * world // self.world  # of each of today's processes
        self.elsewhere = state.pop("device_seconds", seconds * world) - seconds * self.world
        for name in [name for name in self.kept if name in state]:  # one of before may say less
            setattr(self, name, state[name])


HALVINGS = 16  # from GradScaler's first scale, 2 ** 16, to 1


class Stopped(Exception):
    """A validation given up after a signal, of this number"""

    def __init__(self, number):
        super().__init__(number)
        self.number = number


def append(path, text):
    """Appends `text` to a file, whole or not at all -> whether it did; a full disk costs a warning"""
    try:
        append_whole(path, text)
    except OSError as error:
        warn_if_full(error)
        return False
    return True


def warn_if_full(error):
    """Training goes on while the disk is full (its checkpoints say when it no longer can); raises any other
    error"""
    if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        raise error
    logger.warning("%s: not written: %s", error.filename or "log", error.strerror)


def forget_steps_after(path, update):
    """Drops the lines of `steps.jsonl` after `update`, and those cut short: a resumed run
    writes them again."""
    if path.exists():
        kept = [record for record in read_records(path) if record.get("step", math.inf) <= update]
        write_atomically(path, "".join(json_text(record) + "\n" for record in kept))


def loss_score(loss):
    """{"loss": number}, or nothing where a task has no loss on a stage (None)"""
    return {} if loss is None else {"loss": float(loss)}


def shared_speakers(utterances):
    """The stamp for a test set whose speakers the system has heard, if it is one"""
    heard, tested = speakers_of(utterances["train"]), speakers_of(utterances.get("test", []))
    return ["same speaker in train and test"] if heard & tested else []


def pretrained_parameters(encoder):
    """The parameters of an encoder that came with its checkpoint: all but the learned sum over layers"""
    return without_ddp(encoder).pretrained_parameters()


def without_ddp(module):
    return module.module if isinstance(module, DistributedDataParallel) else module


def without_vector_decay(groups, peaks):
    """Splits each optimiser group in matrices and vectors, the vectors without weight decay"""
    split, new_peaks = [], []
    for group, peak in zip(groups, peaks, strict=True):
        for is_vector in (False, True):
            params = [p for p in group["params"] if (p.ndim <= 1) == is_vector]
            if params:
                decay = {"weight_decay": 0.0} if is_vector else {}
                split.append({"params": params, "lr": group["lr"], **decay})
                new_peaks.append(peak)
    return split, new_peaks
