"""Speech recognition by CTC over characters, decoded greedily and, if asked, with word n-grams.

Letters: B utterances, F frames, V symbols.
"""

import copy
import logging

import torch
from speechbrain.utils.distributed import if_main_process, run_on_main

from lebench_sb.core.errors import UsageError
from lebench_sb.core.files import write_atomically
from lebench_sb.core.lines import json_text
from lebench_sb.evaluation.metrics.errors import count_errors, rate
from lebench_sb.manifests.targets import check_targets
from lebench_sb.tasks.asr import ASRBrain, Characters, columns, datasets
from lebench_sb.tasks.brain import with_modules
from lebench_sb.tasks.decoding.ctc_search import Weights, search
from lebench_sb.tasks.decoding.language_model import LanguageModel, prepare_language_model
from lebench_sb.text.normaliser import normaliser as text_normaliser
from lebench_sb.training import processes
from lebench_sb.training.brain import TEST, VALID

logger = logging.getLogger(__name__)
NOTE = "language_model.json"  # in the run folder: which model, which weights, and how they were chosen


def ctc_brain(hparams, run_opts, utterances):
    """A loaded YAML -> (CTCBrain, datasets): its head sized for the characters of training, its n-grams
    estimated.

    Raises UsageError, DataError or FileNotFoundError for the keys `target`, `lm` and what they name.
    """
    characters = Characters.of(utterances["train"])
    head = hparams["head"](output_size=len(characters))
    check_targets(utterances, characters.column, characters.encode, head, hparams)
    modules = with_modules(hparams, head=head)
    brain = CTCBrain(modules, hparams, run_opts, hparams["checkpointer"], characters)
    brain.normalise = normalise_of(hparams)
    brain.lm = language_model_of(hparams, utterances["train"])
    return brain, datasets(utterances)


def normalise_of(hparams):
    """The function that makes the written texts comparable, None where the target is normalised already"""
    return None if hparams["target"] == "wrd" else text_normaliser(hparams["normaliser"])


def language_model_of(hparams, training):
    """The LanguageModel that the keys `lm` and `lm_order` name, or None"""
    source, order = str(hparams["lm"]), hparams["lm_order"]
    if source == "none":
        return None
    for key in ("lm_weights", "lm_word_bonuses"):
        if not hparams[key]:
            raise UsageError(f"--{key}: empty; at least one weight is needed.")
    texts = [u.labels["wrd"] for u in training]
    path = run_on_main(prepare_language_model, args=(source, order, texts, hparams["output_folder"]))
    return LanguageModel(path)


class CTCBrain(ASRBrain):
    """lm: a LanguageModel or None. With one, the test is decoded twice; its weights are those with the
    fewest word errors on valid, out of `lm_weights` x `lm_word_bonuses`."""

    lm, weights, valid_set = None, None, None

    def fit(self, train_set, valid_set):
        self.valid_set = valid_set
        super().fit(train_set, valid_set)

    def evaluate(self, test_set):
        if self.lm is not None:
            self.load_best()
            self.weights = self.tune()
        return super().evaluate(test_set)

    def rescored(self, batch, rows, log_probs, lens, stage):
        if self.lm is None or stage != TEST:
            return rows
        rescored_rows = self.score_texts(batch, self.decode(log_probs, lens, self.weights))
        rates = self.rates(rescored_rows)
        for row, decoded in zip(rows, rescored_rows, strict=True):
            for name in rates:
                named = zip(columns(f"{name}+LM"), columns(name), strict=True)
                row |= {theirs: decoded[ours] for theirs, ours in named}
            row["hypothesis_lm"] = decoded["hypothesis"]
            if self.normalise is not None:
                row["hypothesis_written_lm"] = decoded["hypothesis_written"]
        return rows

    def decode(self, log_probs, lens, weights):
        """log_probs (B, F, V), lens (B,) -> B texts"""
        arrays = [
            frames[:n].float().cpu().numpy() for frames, n in zip(log_probs, lens.tolist(), strict=True)
        ]
        beam, symbols = self.hparams.lm_beam, self.characters.symbols
        return [search(array, symbols, self.lm, weights, beam) for array in arrays]

    def tune(self):
        """The Weights with the lowest WER on up to `lm_tuning_utterances` of valid, noted in NOTE and log"""
        grid = [Weights(a, b) for a in self.hparams.lm_weights for b in self.hparams.lm_word_bonuses]
        chosen = some(self.valid_set, self.hparams.lm_tuning_utterances)
        sums = torch.zeros(len(grid), 2, dtype=torch.float64)
        with self.unwrapped(), torch.no_grad():
            self.modules.eval()
            for batch in self.loader(chosen, VALID).batches(1):
                batch = batch.to(self.device)
                with self.evaluation_ctx:
                    log_probs, lens = self.compute_forward(batch, VALID)
                for k, weights in enumerate(grid):
                    counts = count_errors(batch.wrd, self.decode(log_probs, lens, weights)).statistics
                    sums[k] += torch.from_numpy(counts).sum(0)
        totals = [[processes.total(float(x), self.device) for x in pair] for pair in sums]
        wers = [float(rate(pair)) for pair in totals]
        best = min(range(len(grid)), key=lambda k: (totals[k][0], k))
        self.note(grid, wers, best, len(chosen.data_ids))
        return grid[best]

    def note(self, grid, wers, best, utterances):
        tried = [{"weight": w.model, "word_bonus": w.word, "wer": e} for w, e in zip(grid, wers, strict=True)]
        said = {
            "source": str(self.hparams.lm),
            "file": str(self.lm.path),
            "sha256": self.lm.sha256,
            "order": self.lm.order,
            "beam": self.hparams.lm_beam,
            "chosen": tried[best],
            "tried": tried,
            "valid_utterances": utterances,
        }
        if if_main_process():
            content = json_text(said, indent=1, ensure_ascii=False) + "\n"
            write_atomically(self.folder / NOTE, content.encode())
        logger.info(
            "%d-gram: weight %g, word bonus %g chosen on %d utterances of valid (WER %.2f)",
            self.lm.order, grid[best].model, grid[best].word, utterances, wers[best],
        )  # fmt: skip


def some(dataset, count):
    """At most `count` utterances of a SpeechDataset, evenly spaced in the order of their ids"""
    ids = sorted(dataset.data_ids)
    count = min(count, len(ids))
    fewer = copy.copy(dataset)
    fewer.data_ids = [ids[k * len(ids) // count] for k in range(count)]
    return fewer
