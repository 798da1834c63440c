"""Speech translation: subwords of the target text, a Transformer decoder, beam search, BLEU and chrF2.

Letters: B utterances, F frames, S states the decoder attends to, L subwords of a text, V subwords there are.
"""

import logging
import random
from dataclasses import replace

import numpy as np
from speechbrain.utils.checkpoints import average_checkpoints
from speechbrain.utils.distributed import run_on_main
from torch.nn import functional

from lebench_sb.core.errors import DataError, nearest
from lebench_sb.evaluation.metrics import translation
from lebench_sb.manifests.labels import check_texts
from lebench_sb.tasks.brain import TaskBrain, with_modules
from lebench_sb.text.subwords import check_size, learn, load
from lebench_sb.training.brain import TEST, TRAIN, VALID
from lebench_sb.training.checkpoints import SafeCheckpointer, fault, load_trained, put_trained, save_trained
from lebench_sb.training.data import as_dataset, audio_item

logger = logging.getLogger(__name__)


def label(language):
    """The manifest's column with the texts in a language"""
    return f"translation_{language}"


def check_labels(splits, settings, findings):
    """Translations into `target_language`; room for their characters among the subwords"""
    texts = check_texts(splits, label(settings["target_language"]), settings, findings)
    check_size(texts.get("train", ()), settings["subwords"], "subwords")


def datasets(utterances, language):
    """Utterances of each split (`with_targets`) -> SpeechDataset with `sig` and the text in `language`"""
    keys = ["sig", label(language), "spk_id", "gender", "duration"]
    return {split: as_dataset(found, [audio_item], keys) for split, found in utterances.items()}


def with_targets(utterances, language):
    """{split: Utterances}: train without those whose translation is empty, which the log counts; valid and
    test keep theirs. Raises DataError where a split lacks the column or every text in it is empty."""
    usable = {}
    for split, part in utterances.items():
        names = sorted({name for u in part for name in u.labels})
        if label(language) not in names:
            hint = nearest(label(language), names)
            raise DataError(f"{split}: no column {label(language)!r}{hint}; it has {', '.join(names)}.")
        # of several manifests one may lack the column
        part = [replace(u, labels={label(language): "", **u.labels}) for u in part]
        full = [u for u in part if u.labels[label(language)].strip()]
        if len(full) < len(part):
            what = "left out" if split == "train" else "kept: whatever is said of them lowers the score"
            logger.warning("%s: %d utterances without translation %s", split, len(part) - len(full), what)
        usable[split] = full if split == "train" else part
        if not full:
            raise DataError(f"{split}: every {label(language)} is empty.")
    return usable


def targets(utterances, hparams):
    """The training texts"""
    return [u.labels[label(hparams["target_language"])] for u in utterances["train"]]


def learn_subwords(texts, hparams):
    """Subwords of the training texts, learnt on the main process and kept in the run folder"""
    run_on_main(learn, [texts, hparams["subwords"], hparams["output_folder"]])
    return load(hparams["output_folder"])


def best_constant(texts, seed, candidates=100, judges=300):
    """Of some of the texts the one that, said of everything, has the highest BLEU on some of the texts"""
    rng = random.Random(seed)
    said = rng.sample(sorted(set(texts)), min(candidates, len(set(texts))))
    references = rng.sample(texts, min(judges, len(texts)))
    return max(said, key=lambda text: translation.score("BLEU", references, [text] * len(references)))


def translation_brain(hparams, run_opts, utterances):
    """A loaded YAML and Utterances (`with_targets`) -> (ASTBrain, datasets): subwords learnt from the
    training texts, the head sized for them"""
    texts = targets(utterances, hparams)
    subwords = learn_subwords(texts, hparams)
    modules = with_modules(hparams, head=hparams["head"](output_size=len(subwords)))
    brain = ASTBrain(modules, hparams, run_opts, hparams["checkpointer"], subwords, texts)
    return brain, datasets(utterances, hparams["target_language"])


class ASTBrain(TaskBrain):
    """modules: encoder (the contract of lebench_sb.encoders.encoder) and head (heads.translation.Translator).
    texts: the training texts, of which `subwords` were learnt."""

    def __init__(self, modules, hparams, run_opts, checkpointer, subwords, texts):
        learnt = {name: modules[name] for name in ("encoder", "head")}
        super().__init__(modules, hparams, run_opts, checkpointer)
        self.subwords, self.texts, self.column = subwords, texts, label(hparams["target_language"])
        self.epochs = LastEpochs(learnt, self.checkpointer, hparams["average_checkpoints"])

    def compute_forward(self, batch, stage):
        """-> logits (B, L, V), what the decoder should say (B, L), states (B, S, d), their numbers (B,)"""
        frames, frame_lens = self.encode(batch, stage)
        decoder_inputs, labels = self.subwords.batch(getattr(batch, self.column))
        logits, states, lens = self.modules.head(frames, frame_lens, decoder_inputs.to(frames.device))
        return logits, labels.to(frames.device), states, lens

    def compute_objectives(self, predictions, batch, stage):
        """Cross-entropy per subword, with label smoothing in training; on valid and test also the rows"""
        logits, labels, states, lens = predictions
        smoothing = self.hparams.label_smoothing if stage == TRAIN else 0.0
        loss = functional.cross_entropy(
            logits.flatten(0, 1), labels.flatten(), reduction="sum", label_smoothing=smoothing
        )
        if stage != TRAIN:
            self.rows += self.score(batch, states, lens, stage)
        return loss / self.units(predictions, batch)

    def units(self, predictions, batch):
        """Subwords of the targets and their ends"""
        return int((predictions[1] >= 0).sum())

    def score(self, batch, states, lens, stage):
        """Beam search -> one row per utterance: what BLEU and chrF2 sum, reference, hypothesis"""
        found = self.modules.head.translate(
            states, lens, self.subwords.start, self.subwords.end,
            beam=self.hparams.beam if stage == TEST else self.hparams.valid_beam,
            max_length=self.hparams.max_length, length_penalty=self.hparams.length_penalty,
        )  # fmt: skip
        said = [self.subwords.decode(hypothesis.tokens) for hypothesis in found]
        return rows_of(self.described(batch), list(getattr(batch, self.column)), said)

    def trivial_baseline(self, rows):
        """One training text for every utterance"""
        text = best_constant(self.texts, self.hparams.seed)
        return f"always saying {text!r}", rows_of(
            rows, [row["reference"] for row in rows], [text] * len(rows)
        )

    def scores(self, rows):
        """Rows -> {"BLEU", "chrF2"}: sacrebleu's corpus scores"""
        return {name: float(score(counts(rows, name).sum(0))) for name, score in translation.SCORES.items()}

    def statistics(self, rows):
        """{metric: (statistics (n, k), score function, unit, better)} for the intervals"""
        scores = translation.SCORES.items()
        return {name: (counts(rows, name), score, name, "higher") for name, score in scores}

    def intervals(self, rows):
        """Each metric with our interval, sacrebleu's signature and sacrebleu's own +/-"""
        entries = super().intervals(rows)
        for name, entry in entries.items():
            of_sacrebleu = translation.sacrebleu_interval(name, counts(rows, name))
            entry["signature"] = translation.signature(name)
            entry["sacrebleu"] = {
                "plus_minus": of_sacrebleu.half_width,
                "mean": of_sacrebleu.mean,
                "signature": translation.signature(name, confidence=True),
            }
        return entries

    def details(self):
        known = {"target_language": self.hparams.target_language, "beam": self.hparams.beam}
        subwords = {"subwords": len(self.subwords), "subwords_sha256": self.subwords.sha256}
        return {**known, **subwords}

    def on_stage_end(self, stage, stage_loss, epoch=None):
        if stage == VALID:
            self.epochs.keep(epoch)
        super().on_stage_end(stage, stage_loss, epoch)

    def load_best(self):
        """Loads the mean of the last epochs' weights, or the checkpoint best on valid if none are kept"""
        epochs = self.epochs.load()
        if not epochs:
            return super().load_best()
        self.tested = (
            f"average of epochs {epochs[0]} to {epochs[-1]}" if len(epochs) > 1 else f"epoch {epochs[0]}"
        )
        logger.info("Tested: %s", self.tested)
        return {"epoch": epochs[-1]}


def rows_of(described, references, hypotheses):
    """Rows with what BLEU and chrF2 sum, reference, hypothesis"""
    rows = [dict(row) for row in described]
    for name, columns in translation.COLUMNS.items():
        for row, numbers in zip(
            rows, translation.statistics(name, references, hypotheses).tolist(), strict=True
        ):
            row.update(zip(columns, numbers, strict=True))
    for row, reference, hypothesis in zip(rows, references, hypotheses, strict=True):
        row.update(reference=reference, hypothesis=hypothesis)
    return rows


def counts(rows, name):
    """Rows -> what a metric sums (n, k)"""
    return np.array([[row[column] for column in translation.COLUMNS[name]] for row in rows])


class LastEpochs:
    """The trained weights of the last `number` epochs, whose mean is tested (0: none are kept).

    They lie beside the checkpoints, in `save/epochs`, without optimiser state. A run killed after it has kept
    an epoch and before its own checkpoint trains this epoch again and keeps it again.
    """

    def __init__(self, modules, checkpointer, number):
        self.modules, self.number = modules, number
        self.kept = None
        if checkpointer is not None and number > 0:
            self.kept = SafeCheckpointer(
                checkpointer.checkpoints_dir / "epochs",
                modules,
                custom_save_hooks=dict.fromkeys(modules, save_trained),
                custom_load_hooks=dict.fromkeys(modules, load_trained),
            )

    def keep(self, epoch):
        """Saves the weights as those of `epoch` and forgets all but the last"""
        if self.kept is None:
            return
        quiet = {"importance_keys": [number_of], "verbosity": logging.DEBUG}
        self.kept.delete_checkpoints(
            num_to_keep=0, ckpt_predicate=lambda found: number_of(found) >= epoch, **quiet
        )
        self.kept.save_and_keep_only(
            meta={"epoch": epoch}, num_to_keep=self.number, keep_recent=False, **quiet
        )

    def load(self):
        """Puts the mean into the modules -> the epochs' numbers, sorted; [] where none are kept"""
        if self.kept is None:
            return []
        checkpoints = self.kept.find_checkpoints(importance_key=number_of, max_num_checkpoints=self.number)
        for checkpoint in checkpoints:
            if problem := fault(checkpoint.path, content=True):
                raise OSError(f"{problem}. Remove this folder to leave the epoch out of the average.")
        for name, module in self.modules.items():
            if checkpoints:
                put_trained(module, average_checkpoints(checkpoints, name), self.kept.checkpoints_dir)
        return sorted(map(number_of, checkpoints))


def number_of(checkpoint):
    """The epoch of a kept checkpoint"""
    return checkpoint.meta["epoch"]
