"""The Brain of wav2vec 2.0 pre-training: loss per masked frame, figures of an update, health.

Letters: B utterances, T samples, F frames, M masked frames, G groups of V codes.
"""

import logging
import time

import torch
from speechbrain.utils.distributed import ddp_broadcast, if_main_process

from lebench_sb.audio.waveforms import standardise_waveform
from lebench_sb.core.errors import UsageError
from lebench_sb.evaluation.metrics.errors import mean, rate
from lebench_sb.pretraining import log_mel
from lebench_sb.pretraining.batch import draw_batch
from lebench_sb.pretraining.batch_hours import describe_hours, seconds_per_batch
from lebench_sb.pretraining.initialise import init_quantizer
from lebench_sb.pretraining.losses import perplexity
from lebench_sb.pretraining.monitor.probes import Probe, effective_rank
from lebench_sb.pretraining.monitor.watch import Watch, facts_of
from lebench_sb.pretraining.optimizer_state import load_optimizer_state, name_parameters
from lebench_sb.pretraining.stream import datasets, training_plan, unchanged
from lebench_sb.training import sharding
from lebench_sb.training.brain import TRAIN, VALID, SSLBrain
from lebench_sb.training.data import (
    EpochPlan,
    PlannedLoader,
    StreamPlan,
    sample_lengths,
    send,
)

logger = logging.getLogger(__name__)
# summed over an update: seconds of waiting for data, masked frames, all frames, seconds of audio, frames that
# chance gets right; then over the masked frames
SUMS = (
    "waited", "masked", "frames", "seconds", "chance_hits", "contrastive", "correct", "diversity", "penalty",
)  # fmt: skip


def pretraining_brain(hparams, run_opts, utterances):
    """A loaded YAML -> (PretrainingBrain, datasets)"""
    brain = PretrainingBrain(hparams["modules"], hparams, run_opts, hparams["checkpointer"])
    return brain, datasets(utterances, hparams)


class PretrainingBrain(SSLBrain):
    """modules: {"model": PretrainingModel}. One unit of the loss is one masked frame."""

    @property
    def model(self):
        module = self.modules["model"]
        return module.module if hasattr(module, "module") else module

    def _compile(self):
        """`--compile`: see PretrainingModel.compile_blocks. The whole model would be compiled anew for the
        lengths of each batch."""
        if self.compile:
            self.model.compile_blocks(self.compile_mode)

    def parameter_groups(self):
        rate, first = self.hparams.encoder_lr, self.hparams.freeze_targets_updates
        model = self.model.hf.base_model
        targets = [*model.feature_extractor.parameters(), *model.feature_projection.layer_norm.parameters()]
        targets += self.model.hf.quantizer.weight_proj.parameters()
        ids = set(map(id, targets))
        return [([p for p in self.modules.parameters() if id(p) not in ids], rate, 0), (targets, rate, first)]

    def _wrap_distributed(self):
        """Several processes: DistributedDataParallel, or sharding with `fsdp`; see training/sharding.py"""
        if not (self.hparams.fsdp and self.world > 1):
            super()._wrap_distributed()
            return
        if self.hparams.init_quantizer or self.log_mel_updates():
            raise UsageError(
                "--fsdp True needs --init_quantizer False and --log_mel_updates 0: no process has all "
                "weights."
            )
        if self.scaler.is_enabled():
            raise UsageError("--fsdp True with --precision fp16: use bf16, which needs no loss scale.")
        sharding.shard(self.modules["model"], self.device)

    def init_optimizers(self):
        super().init_optimizers()
        if self.is_sharded:
            name_parameters(self.optimizer, self.modules)
            if self.checkpointer is not None:
                sharding.saves_whole(self.checkpointer)
        else:
            with self.unwrapped():
                name_parameters(self.optimizer, self.modules)
        if self.model.optimizer_state is not None:
            load_optimizer_state(self.optimizer, self.model.optimizer_state)
            self.model.optimizer_state = None

    def whole_model(self):
        """-> the transformers model with all its weights; under `fsdp` a copy, right on the main process
        alone, for which every process must call this"""
        if not self.is_sharded:
            return self.model.hf
        state, whole = sharding.whole_state(self.model.hf), type(self.model.hf)(self.model.hf.config)
        if if_main_process():
            whole.load_state_dict(state)
        return whole

    def plan(self, dataset, stage):
        """Durations as cropped; training is a stream of updates, cut where validation comes"""
        hparams = self.hparams
        durations = dataset.durations.clip(max=hparams.max_crop)
        if stage != TRAIN:
            return EpochPlan(durations, hparams.max_batch_seconds, hparams.seed, shuffle=False)
        stream = (
            durations,
            hparams.max_batch_seconds,
            hparams.seed,
            hparams.valid_every_updates,
            self.world * self.grad_accumulation_factor,
            hparams.number_of_updates,
        )
        plan = training_plan(dataset, float(hparams.language_exponent), stream)
        self.tell_hours(seconds_per_batch(plan))
        return plan

    def tell_hours(self, batch_seconds):
        """Logs the hours of audio per update, the recipe's (`hours_per_update`), and how to reach it"""
        target = float(self.hparams.hours_per_update or 0)
        logger.info(describe_hours(batch_seconds, self.world, self.grad_accumulation_factor, target))

    def count_updates(self, loader):
        """What the YAML says: the stream has no end of its own"""
        return self.hparams.number_of_updates

    def temperature(self, done=None):
        """Of the Gumbel softmax after `done` updates (default: so far): exponential decay to a floor (wav2vec
        2.0, 4.2)"""
        start, end, decay = self.hparams.gumbel_temperature
        return max(start * decay ** (self.optimizer_step if done is None else done), end)

    watch = None  # lebench_sb.pretraining.monitor.watch.Watch of the main process, from fit on
    probe = None  # lebench_sb.pretraining.monitor.probes.Probe, if the YAML asks for one
    balanced = True  # False until `init_quantizer` has fitted the quantiser, where it shall
    saved = (*SSLBrain.saved, "balanced")

    def log_mel_updates(self):
        """How many updates teach a model of random weights log-mel energies before its first one"""
        if self.hparams.init_from:
            return 0
        updates = int(vars(self.hparams).get("log_mel_updates", 0))
        return min(updates, self.debug_batches) if self.debug else updates

    def teach_log_mel(self, updates):
        """Once, at the start of a run; the first process's weights become everyone's"""
        started, hparams = time.time(), self.hparams
        if if_main_process():
            durations = self.train_set.durations.clip(max=hparams.max_crop)
            plan = StreamPlan(durations, hparams.log_mel_batch_seconds, hparams.seed, updates, 1, updates)
            loader = PlannedLoader(self.train_set, plan, num_workers=hparams.num_workers)
            log_mel.teach_log_mel(self.model, loader, updates, self.shows_progress)
        if self.world > 1:
            for parameter in log_mel.weights_of(self.model):
                torch.distributed.broadcast(parameter.data, 0)
        self.train_seconds += time.time() - started

    # ---- its health

    def fit(self, train_set, valid_set):
        """As SSLBrain, and leaves the dashboard however it ends"""
        state, self.train_set = "stopped", train_set
        try:
            super().fit(train_set, valid_set)
            state = "finished"
        finally:
            if self.watch is not None:
                self.watch.write(state)

    def on_fit_start(self):
        self.balanced = None
        super().on_fit_start()  # a checkpoint says whether the quantiser was fitted
        if self.balanced is None:
            wanted = self.hparams.init_quantizer and self.model.fresh_quantiser()
            self.balanced = not wanted or self.optimizer_step > 0
        if self.optimizer_step == 0 and (updates := self.log_mel_updates()):
            self.teach_log_mel(updates)
        hparams = vars(self.hparams)
        if if_main_process():
            self.watch = Watch(
                self.folder, facts_of(self.model.hf.config, hparams, self.grad_accumulation_factor),
                self.optimizer_step, hparams.get("reference_curves", ""), hparams.get("tensorboard", False),
            )  # fmt: skip
        if hparams.get("probe_csv"):
            normalise = standardise_waveform if hparams["do_normalize"] else unchanged
            self.probe = Probe(
                hparams["probe_csv"], hparams["probe_labels"], hparams["data_folder"], hparams["max_crop"],
                normalise,
            )  # fmt: skip
            if self.optimizer_step == 0:
                self.log_start(self.probed())

    def log_start(self, figures):
        """A line for update 0, unless a run that was killed before its first checkpoint has written it"""
        if self.watch is not None and not self.watch.monitor.latest["valid"]:
            self.log_step(VALID, **figures)

    def log_step(self, stage, **values):
        super().log_step(stage, **values)
        if self.watch is not None:
            self.watch.add({"step": self.optimizer_step, "stage": stage.name.lower()} | values)

    def on_stage_end(self, stage, stage_loss, epoch=None):
        super().on_stage_end(stage, stage_loss, epoch)
        if stage == VALID and self.watch is not None:
            what = f"validation at update {self.optimizer_step}"
            self.watch.show_codes(self.valid_sums["codes"].numpy(), what)
            if self.optimizer_step < self.total_updates:
                self.watch.write("running")

    @torch.no_grad()
    def probed(self):
        """Scores of the probes on the last layer's frames: each process computes the frames of some
        utterances, the first one the scores, which all have then"""
        if self.probe is None:
            return {}
        probe, size = self.probe, self.model.hf.config.hidden_size
        features = torch.zeros(len(probe.utterances), size, dtype=torch.float64, device=self.device)
        with self.unwrapped(), self.evaluation_ctx:
            encoder = self.model.hf.base_model.eval()
            frames_of = lambda wav: encoder(wav[None].to(self.device)).last_hidden_state[0]  # noqa: E731
            for row, mean_frame in probe.means(frames_of, self.rank, self.world).items():
                features[row] = mean_frame
        if self.world > 1:
            torch.distributed.all_reduce(features)
        return ddp_broadcast(probe.scored(features.cpu()) if self.rank == 0 else None)

    # ---- steps

    def on_stage_start(self, stage, epoch=None):
        self.sums = self.no_sums()
        if stage == TRAIN:
            self.clock, self.waited = time.time(), 0.0
        else:
            size = self.model.hf.config.hidden_size
            self.gram = torch.zeros(size, size, dtype=torch.float64, device=self.device)

    def on_host(self, batch, stage):
        """-> PretrainingBatch"""
        hparams = self.hparams
        masks = {
            "prob": hparams.mask_prob, "length": hparams.mask_length,
            "min_masks": hparams.min_masks, "num_negatives": hparams.num_negatives,
        }  # fmt: skip
        update = self.optimizer_step + 1 if stage == TRAIN else 0
        rows, lens = self.described(batch), sample_lengths(batch.sig)
        return draw_batch(batch, rows, lens, self.model, hparams.seed, update, masks)

    def compute_forward(self, batch, stage):
        """-> StepOutput"""
        if stage == TRAIN and not self.balanced:
            self.balanced = init_quantizer(self.model, batch.wavs, batch.sample_lens)
        return self.modules.model(batch.wavs, batch.layout, self.temperature())

    def compute_objectives(self, out, batch, stage):
        """Mean over masked frames of the contrastive loss, + diversity and penalty with their weights"""
        self.add_up(batch, out)
        if stage != TRAIN:
            self.rows += self.score(batch, out)
            contexts = out.contexts.double()
            self.gram += contexts.T @ contexts
        extra = (
            self.hparams.diversity_weight * out.diversity + self.hparams.feature_penalty_weight * out.penalty
        )
        return out.contrastive / max(out.num_masked, 1) + extra

    def units(self, out, batch):
        return out.num_masked

    def add_up(self, batch, out):
        """Adds a micro-batch to `self.sums`, on the device"""
        losses = [out.contrastive, out.correct.sum(), out.diversity * out.num_masked]
        losses = [value.detach().double() for value in (*losses, out.penalty * out.num_masked)]
        counts = [0.0, sum(batch.masked), batch.frames, batch.seconds, batch.chance_hits]
        counts = send(torch.tensor(counts, dtype=torch.float64), self.device)
        self.sums += torch.cat([counts, torch.stack(losses), out.code_counts.double().flatten()])

    def no_sums(self):
        """Zeros (len(SUMS) + G V), so that a process without a batch adds up with the others"""
        quantizer = self.model.hf.quantizer
        size = len(SUMS) + quantizer.num_groups * quantizer.num_vars
        return torch.zeros(size, dtype=torch.float64, device=self.device)

    def score(self, batch, out):
        """One row per utterance with a mask: masked frames, how many are right, their summed loss"""
        right, lost = (x.cpu().split(batch.masked) for x in (out.correct, out.frame_losses.float()))
        return [
            {
                **row, "accuracy_correct": int(right[k].sum()), "accuracy_masked": n,
                "contrastive_sum": float(lost[k].sum()), "contrastive_masked": n,
            }
            for k, (row, n) in enumerate(zip(batch.rows, batch.masked, strict=True)) if n > 0
        ]  # fmt: skip

    def statistics(self, rows):
        """Held-out accuracy (%) and contrastive loss (nats) with what their intervals need"""
        accuracy = [(r["accuracy_correct"], r["accuracy_masked"]) for r in rows]
        contrastive = [(r["contrastive_sum"], r["contrastive_masked"]) for r in rows]
        return {
            "accuracy": (accuracy, rate, "%", "higher"),
            "contrastive": (contrastive, mean, "nats", "lower"),
        }

    def step_sums(self):
        """The sums over the update's micro-batches in this process; starts the next ones"""
        sums, self.sums = self.sums, self.no_sums()
        sums[SUMS.index("waited")] += self.waited  # the first of every recipe's sums
        self.waited = 0.0
        return sums

    def step_statistics(self, sums, done):
        """Figures of an update from the sums over all its micro-batches and processes"""
        totals, now = self.named(sums), time.time()
        elapsed, self.clock = max(now - self.clock, 1e-9), now
        return {
            **summary(totals), "temperature": self.temperature(done), "audio_s": round(totals["seconds"], 2),
            "audio_per_s": round(totals["seconds"] / elapsed, 2),
            "waiting_share": round(100 * totals["waited"] / (elapsed * self.world), 1),
        }  # fmt: skip

    def named(self, sums):
        """(len(SUMS) + G V,) on the CPU -> {name: sum}, `codes` (G, V)"""
        groups = self.model.hf.quantizer.num_groups
        values = dict(zip(SUMS, sums[: len(SUMS)].tolist(), strict=True))
        return {**values, "codes": sums[len(SUMS) :].view(groups, -1)}

    def run_stage(self, loader, stage, epoch):
        """As SSLBrain; what all processes summed up of it is in `valid_sums` and `gram` then"""
        loss = super().run_stage(loader, stage, epoch)
        if self.world > 1:
            torch.distributed.all_reduce(self.sums)
            torch.distributed.all_reduce(self.gram)
        self.valid_sums = self.named(self.sums.cpu())
        return loss

    def scores(self, rows):
        """Figures of the validation just run, with its effective rank and the probes of the encoder"""
        return {**summary(self.valid_sums), "rank": effective_rank(self.gram), **self.probed()}


def summary(sums):
    """Sums over frames -> the figures of steps.jsonl; accuracy, chance accuracy and masked share in
    %, perplexities of codes
    chosen (out of V)"""
    masked = max(sums["masked"], 1.0)
    codes = sums["codes"] / masked
    return {
        "contrastive": sums["contrastive"] / masked,
        "diversity": sums["diversity"] / masked,
        "penalty": sums["penalty"] / masked,
        "accuracy": 100 * sums["correct"] / masked,
        "chance": 100 * sums["chance_hits"] / masked,
        "masked_share": 100 * sums["masked"] / max(sums["frames"], 1.0),
        **{f"perplexity_{g}": float(perplexity(codes[g])) for g in range(len(codes))},
    }
