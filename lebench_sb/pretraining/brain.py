"""The loop of wav2vec 2.0 pre-training: crops, masks, loss per masked frame, health figures, export.

Letters: B utterances, T samples, F frames, M masked frames, G groups of V codes.
"""

import difflib
import logging
import time

import torch
from speechbrain.utils.distributed import ddp_barrier, if_main_process
from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2ForPreTraining

from lebench_sb import results
from lebench_sb.brain import TRAIN, VALID, SSLBrain
from lebench_sb.data import (
    EpochPlan,
    StreamPlan,
    as_dataset,
    cropped_audio_item,
    sample_lengths,
)
from lebench_sb.encoders import save_encoder
from lebench_sb.metrics.errors import mean, rate
from lebench_sb.plots import codebook_usage, learning_curves
from lebench_sb.pretraining.initialise import balance_codes, filterbank_start
from lebench_sb.pretraining.losses import perplexity
from lebench_sb.pretraining.masking import draw_masks, guessed
from lebench_sb.pretraining.model import PretrainingModel
from lebench_sb.pretraining.probes import Probe, effective_rank
from lebench_sb.pretraining.watch import Watch, facts_of

logger = logging.getLogger(__name__)
STARTS = {"random": lambda extractor: None, "filterbank": filterbank_start}
FRESH = ("quantizer.", "project_hid.", "project_q.", "wav2vec2.masked_spec_embed")


def make_config(**values):
    """Wav2Vec2Config that refuses names it does not know (transformers takes any)."""
    known = Wav2Vec2Config().to_dict()
    for name in values:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            raise ValueError(f"config: {name} is no setting of Wav2Vec2Config; did you mean {near}?")
    return Wav2Vec2Config(**values)


def build_model(config, init_from, feature_grad_mult, seed, start="random", do_normalize=None):
    """-> PretrainingModel with random weights (`init_from` empty) or those of a Hugging Face folder or id.

    A folder without quantiser, projections or mask embedding is accepted: the log says what starts fresh.
    Raises ValueError for any other missing weight, and when `do_normalize` is not what its
    preprocessor_config.json says. Of `config` a folder takes the mask alone: its shape and dropout are its
    own.
    """
    torch.manual_seed(seed)
    if not init_from:
        hf = Wav2Vec2ForPreTraining(config)
        STARTS[start](hf.wav2vec2.feature_extractor)
        return PretrainingModel(hf, feature_grad_mult)
    check_normalisation(init_from, do_normalize)
    stored = Wav2Vec2Config.from_pretrained(init_from)
    stored.mask_time_prob = config.mask_time_prob
    hf, report = Wav2Vec2ForPreTraining.from_pretrained(
        init_from, config=stored, dtype=torch.float32, output_loading_info=True, weights_only=True
    )
    missing = sorted(report["missing_keys"])
    lost = [name for name in missing if not name.startswith(FRESH)]
    if lost:
        raise ValueError(f"init_from {init_from}: {len(lost)} encoder weights are missing, first {lost[:5]}.")
    logger.info("init_from %s: weights that start fresh: %s", init_from, ", ".join(missing) or "none")
    return PretrainingModel(hf, feature_grad_mult)


def check_normalisation(init_from, do_normalize):
    """Raises ValueError if an encoder was trained on waveforms of another scale; one that does not say
    passes"""
    try:
        stored = Wav2Vec2FeatureExtractor.from_pretrained(init_from).do_normalize
    except OSError:
        return
    if do_normalize is not None and do_normalize != stored:
        raise ValueError(f"{init_from} was trained with do_normalize {stored}: --do_normalize {stored}.")


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


class PretrainingBrain(SSLBrain):
    """modules: {"model": PretrainingModel}. One unit of the loss is one masked frame."""

    @property
    def model(self):
        module = self.modules["model"]
        return module.module if hasattr(module, "module") else module

    def parameter_groups(self):
        rate, first = self.hparams.encoder_lr, self.hparams.targets_learn_after
        targets = [*self.model.hf.wav2vec2.feature_extractor.parameters()]
        targets += self.model.hf.quantizer.weight_proj.parameters()
        ids = set(map(id, targets))
        return [([p for p in self.modules.parameters() if id(p) not in ids], rate, 0), (targets, rate, first)]

    def plan(self, dataset, stage):
        """Durations as cropped; training is a stream of updates, cut where validation comes"""
        hparams = self.hparams
        durations = dataset.durations.clip(max=hparams.max_crop)
        if stage != TRAIN:
            return EpochPlan(durations, hparams.max_batch_seconds, hparams.seed, shuffle=False)
        return StreamPlan(
            durations,
            hparams.max_batch_seconds,
            hparams.seed,
            hparams.valid_every_updates,
            self.world * self.grad_accumulation_factor,
            hparams.number_of_updates,
        )

    def count_updates(self, loader):
        """What the YAML says: the stream has no end of its own"""
        return self.hparams.number_of_updates

    def temperature(self):
        """Of the Gumbel softmax at the coming update: exponential decay to a floor (wav2vec 2.0, 4.2)"""
        start, end, decay = self.hparams.gumbel_temperature
        return max(start * decay**self.optimizer_step, end)

    watch = None  # lebench_sb.pretraining.watch.Watch of the main process, from fit on
    probe = None  # lebench_sb.pretraining.probes.Probe, if the YAML asks for one

    # ---- its health

    def fit(self, train_set, valid_set):
        """As SSLBrain, and leaves the page however it ends"""
        state = "stopped"
        try:
            super().fit(train_set, valid_set)
            state = "finished"
        finally:
            if self.watch is not None:
                self.watch.write(state)

    def on_fit_start(self):
        super().on_fit_start()
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
            self.watch.add({"step": self.optimizer_step, "stage": stage.name.lower(), **values})

    def on_stage_end(self, stage, stage_loss, epoch=None):
        super().on_stage_end(stage, stage_loss, epoch)
        if stage == VALID and self.watch is not None:
            self.watch.codes = self.valid_sums["codes"].numpy()
            if self.optimizer_step < self.total_updates:
                self.watch.write("running")

    def representation(self):
        """Effective rank of the validation just run, and the probes of the encoder as it is now"""
        if self.world > 1:
            torch.distributed.all_reduce(self.gram)
        return {"rank": effective_rank(self.gram), **self.probed()}

    @torch.no_grad()
    def probed(self):
        """Scores of the probes on the last layer's frames, by every process alike"""
        if self.probe is None:
            return {}
        encoder = self.model.hf.wav2vec2.eval()
        with self.evaluation_ctx:
            return self.probe.scores(lambda wav: encoder(wav[None].to(self.device)).last_hidden_state[0])

    # ---- steps

    def on_stage_start(self, stage, epoch=None):
        self.sums = self.no_sums()
        if stage == TRAIN:
            self.clock, self.waited = time.time(), 0.0
        else:
            size = self.model.hf.config.hidden_size
            self.gram = torch.zeros(size, size, dtype=torch.float64, device=self.device)

    def compute_forward(self, batch, stage):
        """-> StepOutput. The masks of valid (step 0) are the same in every run with this seed."""
        wavs, _ = batch.sig
        sample_lens = sample_lengths(batch.sig).cpu()
        first = self.optimizer_step == 0 and self.step == 1
        if stage == TRAIN and first and self.hparams.balance_codes:
            balance_codes(self.model, wavs, sample_lens)
        frame_lens = self.model.frame_lengths(sample_lens)
        hparams = self.hparams
        mask, negatives = draw_masks(
            frame_lens, batch.id, hparams.seed, self.optimizer_step + 1 if stage == TRAIN else 0,
            hparams.mask_prob, hparams.mask_length, hparams.min_masks, hparams.num_negatives,
        )  # fmt: skip
        self.masked_per_utterance = mask.sum(dim=1).tolist()
        self.seen = {
            "frames": float(frame_lens.sum()), "seconds": float(sample_lens.sum()) / 16000,
            "guessed": guessed(self.masked_per_utterance, hparams.num_negatives),
        }  # fmt: skip
        return self.modules.model(wavs, sample_lens, mask, negatives.to(wavs.device), self.temperature())

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
        masked = float(out.num_masked)
        new = {
            "masked": masked, "contrastive": float(out.contrastive.detach()),
            "correct": float(out.correct.sum()), "diversity": float(out.diversity.detach()) * masked,
            "penalty": float(out.penalty.detach()) * masked,
            "codes": out.code_counts.double().cpu(), "probs": out.code_probs.double().cpu(), **self.seen,
        }  # fmt: skip
        self.sums = {key: self.sums[key] + value for key, value in new.items()}

    def no_sums(self):
        """Zeros, so that a process without a batch adds up with the others"""
        quantizer = self.model.hf.quantizer
        codes = torch.zeros(quantizer.num_groups, quantizer.num_vars, dtype=torch.float64)
        names = ("masked", "contrastive", "correct", "diversity", "penalty", "frames", "seconds", "guessed")
        return {**dict.fromkeys(names, 0.0), "codes": codes, "probs": codes}

    def score(self, batch, out):
        """One row per utterance with a mask: masked frames, how many are right, their summed loss"""
        counts = self.masked_per_utterance
        right, lost = out.correct.cpu().split(counts), out.frame_losses.float().cpu().split(counts)
        return [
            {
                "ID": batch.id[k], "spk_id": batch.spk_id[k], "gender": batch.gender[k],
                "duration": float(batch.duration[k]), "accuracy_correct": int(right[k].sum()),
                "accuracy_masked": n, "contrastive_sum": float(lost[k].sum()), "contrastive_masked": n,
            }
            for k, n in enumerate(counts) if n > 0
        ]  # fmt: skip

    def statistics(self, rows):
        """Held-out accuracy (%) and contrastive loss (nats) with what their intervals need"""
        accuracy = [(r["accuracy_correct"], r["accuracy_masked"]) for r in rows]
        contrastive = [(r["contrastive_sum"], r["contrastive_masked"]) for r in rows]
        return {
            "accuracy": (accuracy, rate, "%", "higher"),
            "contrastive": (contrastive, mean, "nats", "lower"),
        }

    def step_statistics(self):
        """Figures of the update over all its micro-batches and processes; starts the next sums"""
        self.sums["waited"] = self.waited
        sums, self.sums = self.total_of_sums(), self.no_sums()
        now = time.time()
        elapsed, self.clock, self.waited = max(now - self.clock, 1e-9), now, 0.0
        return {
            **summary(sums), "temperature": self.temperature(), "audio_s": round(sums["seconds"], 2),
            "audio_per_s": round(sums["seconds"] / elapsed, 2),
            "waiting_share": round(100 * sums["waited"] / (elapsed * self.world), 1),
        }  # fmt: skip

    def total_of_sums(self):
        """The sums over all processes, by one all-reduce"""
        if self.world == 1:
            return self.sums
        own = {k: torch.as_tensor(v, dtype=torch.float64) for k, v in sorted(self.sums.items())}
        flat = torch.cat([v.flatten() for v in own.values()]).to(self.device)
        torch.distributed.all_reduce(flat)
        parts = flat.cpu().split([v.numel() for v in own.values()])
        return {
            k: p.view(v.shape) if v.ndim else float(p) for (k, v), p in zip(own.items(), parts, strict=True)
        }

    def scores(self, rows):
        """Figures of the validation just run"""
        self.valid_sums = self.total_of_sums()
        return {**summary(self.valid_sums), **self.representation()}


def summary(sums):
    """Sums over frames -> the figures of steps.jsonl; accuracy, that of guessing and masked share in
    %, perplexities of codes
    chosen (out of V)"""
    masked = max(sums["masked"], 1.0)
    codes = sums["codes"] / masked
    return {
        "contrastive": sums["contrastive"] / masked,
        "diversity": sums["diversity"] / masked,
        "penalty": sums["penalty"] / masked,
        "accuracy": 100 * sums["correct"] / masked,
        "chance": 100 * sums["guessed"] / masked,
        "masked_share": 100 * sums["masked"] / max(sums["frames"], 1.0),
        **{f"perplexity_{g}": float(perplexity(codes[g])) for g in range(len(codes))},
    }


def virtual_epochs(number_of_updates, valid_every_updates):
    """Stretches between validations, the last one possibly shorter"""
    return -(-int(number_of_updates) // int(valid_every_updates))


def pretrain_and_export(brain, utterances, made):
    """Trains; from the checkpoint with the lowest validation loss writes `pretraining/`, `encoder/`, the
    plots and results.json."""
    brain.fit(made["train"], made["valid"])
    best = brain.load_best()
    brain.run_stage(brain.loader(made["valid"], VALID), VALID, None)
    if if_main_process():
        export(brain, best)
        plot(brain)
        record = brain.record(utterances, brain.rows, "valid", str(brain.folder / "encoder"))
        results.write_results(brain.folder, record, brain.rows)
        logger.info("Encoder of update %s in %s", best["update"], brain.folder / "encoder")
    ddp_barrier()


def export(brain, best):
    """`pretraining/` with all heads and `encoder/` without, each saying which update it is"""
    hf, normalise = brain.model.hf, brain.hparams.do_normalize
    story = {"CHECKPOINT.txt": f"Lowest validation loss: {best['loss']:.4f} at update {best['update']}.\n"}
    save_encoder(hf, brain.folder / "pretraining", normalise, story)
    save_encoder(hf.wav2vec2, brain.folder / "encoder", normalise, story)


def plot(brain):
    """Learning curves, and how often each code was chosen on valid"""
    curves = {"pre-training": brain.folder / "steps.jsonl"}
    learning_curves(curves, brain.folder / "learning_curves.png")
    codebook_usage(brain.valid_sums["codes"].numpy(), brain.folder / "codebook_usage.png")
