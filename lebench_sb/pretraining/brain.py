"""The loop of wav2vec 2.0 pre-training: crops, masks, loss per masked frame, health figures, export.

Letters: B utterances, T samples, F frames, M masked frames, G groups of V codes.
"""

import difflib
import logging
import time
from pathlib import Path

import torch
from speechbrain.utils.distributed import ddp_barrier, ddp_broadcast, if_main_process
from transformers import (
    Wav2Vec2Config,
    Wav2Vec2ConformerConfig,
    Wav2Vec2ConformerForPreTraining,
    Wav2Vec2ForPreTraining,
)

from lebench_sb.core.errors import DataError, UsageError
from lebench_sb.encoders.folders.settings import (
    architecture_of,
    check_preprocessor,
    config_of,
    find_preprocessor,
)
from lebench_sb.encoders.model_folders import check_size, load_model, locate, read_config, save_encoder
from lebench_sb.evaluation import results
from lebench_sb.evaluation.metrics.errors import mean, rate
from lebench_sb.evaluation.plots import attempt, learning_curves
from lebench_sb.pretraining import log_mel
from lebench_sb.pretraining.batch_hours import describe_hours, seconds_per_batch
from lebench_sb.pretraining.initialise import balance_codes, filterbank_start
from lebench_sb.pretraining.languages import BalancedPlan, check_exponent
from lebench_sb.pretraining.losses import perplexity
from lebench_sb.pretraining.masking import chance_hits, draw_masks
from lebench_sb.pretraining.model import PretrainingModel
from lebench_sb.pretraining.monitor.drawing import codebook_usage
from lebench_sb.pretraining.monitor.probes import Probe, effective_rank
from lebench_sb.pretraining.monitor.watch import Watch, facts_of
from lebench_sb.pretraining.optimizer_state import load_optimizer_state, name_parameters, read_optimizer_state
from lebench_sb.training import sharding
from lebench_sb.training.brain import TRAIN, VALID, SSLBrain
from lebench_sb.training.data import (
    EpochPlan,
    PlannedLoader,
    StreamPlan,
    as_dataset,
    cropped_audio_item,
    sample_lengths,
    send,
)
from lebench_sb.training.record import record_of

logger = logging.getLogger(__name__)
STARTS = {"random": lambda extractor: None, "filterbank": filterbank_start}
MODELS = {"wav2vec2": Wav2Vec2ForPreTraining, "wav2vec2-conformer": Wav2Vec2ConformerForPreTraining}
FRESH = ("quantizer.", "project_hid.", "project_q.")
# summed over an update: seconds of waiting for data, masked frames, all frames, seconds of audio, frames that
# chance gets right; then over the masked frames
SUMS = (
    "waited", "masked", "frames", "seconds", "chance_hits", "contrastive", "correct", "diversity", "penalty",
)  # fmt: skip


def make_config(**values):
    """Wav2Vec2Config that refuses names it does not know (transformers takes any)."""
    return checked_config(Wav2Vec2Config, values)


def make_conformer_config(**values):
    """The same of a Wav2Vec2ConformerConfig"""
    return checked_config(Wav2Vec2ConformerConfig, values)


def checked_config(kind, values):
    """Raises UsageError for a name that is no setting of the architecture, and a value out of its range"""
    known = architecture_of(kind)
    for name in values:
        if name not in known:
            near = difflib.get_close_matches(str(name), known, n=1)
            raise UsageError(f"config: {name} is no setting of {kind.__name__}; did you mean {near}?")
    return config_of(kind, values, "config", UsageError)


def stored_config(init_from, mask_time_prob):
    """Config of a Hugging Face folder, with another mask; UsageError for a model of another kind"""
    stored = read_config(Path(init_from))
    if stored.model_type not in MODELS:
        raise UsageError(
            f"init_from {init_from} is a {stored.model_type}: this recipe continues {' and '.join(MODELS)}."
        )
    stored.mask_time_prob = mask_time_prob
    return stored


def build_model(
    config, init_from, feature_grad_mult, seed, start="random", do_normalize=None,
    activation_checkpointing=False, init_optimizer=False,
):  # fmt: skip
    """-> PretrainingModel with random weights (`init_from` empty) or those of a Hugging Face folder or id.

    A folder without quantiser, projections or mask embedding is accepted: the log says what starts fresh.
    Raises DataError for any other missing weight and one that does not fit or is not finite, UsageError when
    `do_normalize` is not what its preprocessor_config.json says. Of `config` a folder takes the mask alone:
    its shape and dropout are its own. init_optimizer: the optimiser's state beside `init_from` goes on as
    well (see `read_optimizer_state`; UsageError where there is none).
    """
    torch.manual_seed(seed)
    if init_optimizer and not init_from:
        raise UsageError("init_optimizer True needs --init_from, with an optimiser's state beside it.")
    if not init_from:
        check_size(MODELS[config.model_type], config, UsageError, "config")
        hf = MODELS[config.model_type](config)
        STARTS[start](hf.base_model.feature_extractor)
        return PretrainingModel(hf, feature_grad_mult, activation_checkpointing)
    folder = locate(init_from, with_weights=True)
    stored = stored_config(folder, config.mask_time_prob)
    check_normalisation(folder, do_normalize)
    hf, missing = load_model(MODELS[stored.model_type], folder, stored)
    missing = sorted(missing)
    fresh = (*FRESH, f"{hf.base_model_prefix}.masked_spec_embed")
    lost = [name for name in missing if not name.startswith(fresh)]
    if lost:
        raise DataError(f"init_from {init_from}: {len(lost)} encoder weights are missing, first {lost[:5]}.")
    logger.info("init_from %s: weights that start fresh: %s", init_from, ", ".join(missing) or "none")
    model = PretrainingModel(hf, feature_grad_mult, activation_checkpointing)
    model.fresh = frozenset(missing)
    if init_optimizer:
        model.optimizer_state = read_optimizer_state(init_from, model)
    return model


def check_normalisation(init_from, do_normalize):
    """Raises UsageError if the encoder in a folder was trained on waveforms of another scale; one that does
    not say passes"""
    values, where = find_preprocessor(Path(init_from))
    if values is None:
        return
    values = check_preprocessor(values, read_config(Path(init_from)), where)
    check_same_scale(init_from, values.get("do_normalize", True), do_normalize)


def check_same_scale(source, stored, do_normalize):
    if do_normalize is not None and do_normalize != stored:
        raise UsageError(f"{source} was trained with do_normalize {stored}: --do_normalize {stored}.")


def datasets(utterances, hparams):
    """Utterances of each split -> SpeechDataset with `sig` (T,): crops of at most `max_crop` seconds, in
    valid always the same ones; each of mean 0 and variance 1 if `do_normalize`."""
    normalise = standardise if hparams["do_normalize"] else unchanged
    made = {}
    for split in ("train", "valid"):
        item = cropped_audio_item(hparams["seed"], hparams["max_crop"], normalise)
        made[split] = as_dataset(utterances[split], [item], ["sig", "spk_id", "gender", "duration"])
    return made


def standardise(sig):
    """sig (T,) -> mean 0, variance 1, as Wav2Vec2FeatureExtractor does"""
    return (sig - sig.mean()) / torch.sqrt(sig.var(unbiased=False) + 1e-7)


def unchanged(sig):
    return sig


def training_plan(dataset, exponent, stream):
    """stream: the arguments of StreamPlan -> one, or a BalancedPlan where `exponent` changes the shares"""
    check_exponent(exponent)
    if exponent == 1:
        return StreamPlan(*stream)
    plan = BalancedPlan(dataset.languages, exponent, *stream)
    plan.tell()
    return plan


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
        rate, first = self.hparams.encoder_lr, self.hparams.targets_learn_after
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
        if self.hparams.balance_codes or self.log_mel_updates():
            raise UsageError(
                "--fsdp True needs --balance_codes False and --log_mel_updates 0: no process has all weights."
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
    balanced = True  # False until `balance_codes` has fitted the quantiser, where it shall
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
            wanted = self.hparams.balance_codes and self.model.fresh_quantiser()
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
            normalise = standardise if hparams["do_normalize"] else unchanged
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
        """Draws masks and negatives. Those of valid (step 0) are the same in every run with this seed."""
        self.sample_lens = sample_lens = sample_lengths(batch.sig)
        frame_lens = self.model.frame_lengths(sample_lens)
        hparams = self.hparams
        mask, negatives = draw_masks(
            frame_lens, batch.id, hparams.seed, self.optimizer_step + 1 if stage == TRAIN else 0,
            hparams.mask_prob, hparams.mask_length, hparams.min_masks, hparams.num_negatives,
        )  # fmt: skip
        self.masked_per_utterance = mask.sum(dim=1).tolist()
        seconds = float(sample_lens.sum()) / 16000
        chance = chance_hits(self.masked_per_utterance, hparams.num_negatives)
        self.seen = [0.0, float(mask.sum()), float(frame_lens.sum()), seconds, float(chance)]
        self.layout = self.model.layout(sample_lens, mask, negatives)

    def compute_forward(self, batch, stage):
        """-> StepOutput"""
        wavs, _ = batch.sig
        if stage == TRAIN and not self.balanced:
            self.balanced = balance_codes(self.model, wavs, self.sample_lens)
        return self.modules.model(wavs, self.layout, self.temperature())

    def compute_objectives(self, out, batch, stage):
        """Mean over masked frames of the contrastive loss, + diversity and penalty with their weights"""
        self.add_up(out)
        if stage != TRAIN:
            self.rows += self.score(batch, out)
            contexts = out.contexts.double()
            self.gram += contexts.T @ contexts
        extra = self.hparams.diversity_weight * out.diversity + self.hparams.penalty_weight * out.penalty
        return out.contrastive / max(out.num_masked, 1) + extra

    def units(self, out, batch):
        return out.num_masked

    def add_up(self, out):
        """Adds a micro-batch to `self.sums`, on the device"""
        losses = [out.contrastive, out.correct.sum(), out.diversity * out.num_masked]
        losses = [value.detach().double() for value in (*losses, out.penalty * out.num_masked)]
        seen = send(torch.tensor(self.seen, dtype=torch.float64), self.device)
        self.sums += torch.cat([seen, torch.stack(losses), out.code_counts.double().flatten()])

    def no_sums(self):
        """Zeros (len(SUMS) + G V), so that a process without a batch adds up with the others"""
        quantizer = self.model.hf.quantizer
        size = len(SUMS) + quantizer.num_groups * quantizer.num_vars
        return torch.zeros(size, dtype=torch.float64, device=self.device)

    def score(self, batch, out):
        """One row per utterance with a mask: masked frames, how many are right, their summed loss"""
        counts = self.masked_per_utterance
        right, lost = out.correct.cpu().split(counts), out.frame_losses.float().cpu().split(counts)
        return [
            {
                **row, "accuracy_correct": int(right[k].sum()), "accuracy_masked": n,
                "contrastive_sum": float(lost[k].sum()), "contrastive_masked": n,
            }
            for k, (row, n) in enumerate(zip(self.described(batch), counts, strict=True)) if n > 0
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
        named, now = self.named(sums), time.time()
        elapsed, self.clock = max(now - self.clock, 1e-9), now
        return {
            **summary(named), "temperature": self.temperature(done), "audio_s": round(named["seconds"], 2),
            "audio_per_s": round(named["seconds"] / elapsed, 2),
            "waiting_share": round(100 * named["waited"] / (elapsed * self.world), 1),
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


def virtual_epochs(number_of_updates, valid_every_updates):
    """Stretches between validations, the last one possibly shorter; UsageError for less than one update"""
    updates, every = int(number_of_updates), int(valid_every_updates)
    if updates < 1 or every < 1:
        raise UsageError(f"number_of_updates {updates}, valid_every_updates {every}: 1 is the least of each.")
    return -(-updates // every)


def pretrain_and_export(brain, utterances, made):
    """Trains; from the checkpoint with the lowest validation loss writes `pretraining/`, `encoder/`,
    results.json and the plots.

    All of it is made of that checkpoint and of files: a run stopped here finishes with the same command.
    """
    brain.fit(made["train"], made["valid"])
    best = brain.load_best()
    brain.run_stage(brain.loader(made["valid"], VALID), VALID, None)
    whole = brain.whole_model()
    if if_main_process():
        export(brain, whole, best)
        record = record_of(brain, utterances, brain.rows, "valid", str(brain.folder / "encoder"))
        results.write_results(brain.folder, record, brain.rows)
        plot(brain, best)
        logger.info("Encoder of update %s in %s", best["update"], brain.folder / "encoder")
    ddp_barrier()


def export(brain, hf, best):
    """`pretraining/` with all heads and `encoder/` without, each saying which update it is"""
    normalise = brain.hparams.do_normalize
    story = story_of(brain, best)
    save_encoder(hf, brain.folder / "pretraining", normalise, story)
    save_encoder(hf.base_model, brain.folder / "encoder", normalise, story)


def story_of(brain, best):
    """{file: text} that says which checkpoint is exported; best: its metadata"""
    key = brain.hparams.key_metric
    best_is = "Lowest" if brain.hparams.key_metric_is_better == "lower" else "Highest"
    return {"CHECKPOINT.txt": f"{best_is} validation {key}: {best[key]:.4f} at update {best['update']}.\n"}


def plot(brain, best):
    """Learning curves, and how often the exported weights choose each code on valid, also on the dashboard"""
    codes, what = brain.valid_sums["codes"].numpy(), f"exported checkpoint, update {best['update']}"
    if brain.watch is not None:
        brain.watch.show_codes(codes, what)
        brain.watch.write("finished")
    curves = {"pre-training": brain.folder / "steps.jsonl"}
    attempt(learning_curves, curves, brain.folder / "learning_curves.png")
    attempt(codebook_usage, codes, brain.folder / "codebook_usage.png", what)
