"""Speech recognition by CTC over characters.

Letters: B utterances, F frames, V symbols (the CTC blank is number 0), L characters of a target.
"""

import csv
import io
import json
import logging
from dataclasses import replace

import torch
from speechbrain.utils.distributed import if_main_process
from torch.nn import functional as F

from lebench_sb.core.errors import DataError, UsageError
from lebench_sb.core.files import write_atomically
from lebench_sb.evaluation.metrics.errors import count_errors, rate
from lebench_sb.manifests.labels import check_texts, label_names
from lebench_sb.tasks.brain import TaskBrain
from lebench_sb.text.normaliser import UnreadableText
from lebench_sb.text.normaliser import normaliser as text_normaliser
from lebench_sb.text.subwords import check_size
from lebench_sb.training.brain import TRAIN
from lebench_sb.training.data import as_dataset, audio_item

logger = logging.getLogger(__name__)
RATES = {"WER": "word", "CER": "char"}
SHOWN = ("WER", "CER", "WER+LM", "CER+LM", "WER cased", "CER cased", "WER cased+LM", "CER cased+LM")
CASED = {"WER cased": "word", "CER cased": "char"}  # of the written text, where the model learns to write it
TRANSCRIPTS = "transcripts.csv"  # in the run folder: what utterances.csv has no column for


def columns(name):
    """Columns of a rate in utterances.csv: "WER" -> ("WER_errors", "WER_words")"""
    return f"{name}_errors", f"{name}_{'words' if 'WER' in name else 'chars'}"


COLUMNS = {name: columns(name) for name in RATES}


class Characters:
    """The symbols of CTC: number 0 is the blank, then the characters of the training transcripts, sorted."""

    column = "wrd"  # the label that holds the target text

    def __init__(self, symbols):
        self.symbols = list(symbols)
        self.number = {symbol: i for i, symbol in enumerate(self.symbols, 1)}

    @classmethod
    def of(cls, utterances):
        """From the target texts of Utterances; raises DataError if there is none."""
        symbols = sorted(set().union(*(cls.pieces(u.labels.get(cls.column, "")) for u in utterances)))
        if not symbols:
            raise DataError(f"train: no transcript (column {cls.column}) to learn from.")
        return cls(symbols)

    @staticmethod
    def pieces(text):
        """text -> the symbols that spell it"""
        return list(text)

    def __len__(self):
        return len(self.symbols) + 1

    def encode(self, text):
        """text -> numbers (L,) int64; characters that training never saw have none and are left out"""
        known = [self.number[c] for c in self.pieces(text) if c in self.number]
        return torch.tensor(known, dtype=torch.int64)

    def decode(self, numbers):
        """A CTC path (repeats and blanks in it) -> text"""
        kept = torch.unique_consecutive(numbers).tolist()
        return " ".join("".join(self.symbols[n - 1] for n in kept if n > 0).split())


def check_labels(splits, settings, findings):
    """Texts in the column `target` on which words can be scored, and subwords enough for their characters"""
    column = settings.get("target", "wrd")
    check_target(splits["train"], column)
    texts = check_texts(splits, column, settings, findings)
    if column != "wrd" and "test" in texts:
        normalise = text_normaliser(settings["normaliser"])
        if not any(readable(normalise, text) for text in texts["test"]):
            kind = f"test: {settings['normaliser']} leaves no word of {column}, no error rate is defined"
            findings.refuse(kind, settings["test_csv"])
    if "vocabulary_size" in settings:
        check_size(texts.get("train", ()), settings["vocabulary_size"], "vocabulary_size")


def check_target(training, target):
    """Raises UsageError where no training utterance has the label that was asked for"""
    labels = label_names(training)
    if target != "wrd" and target not in labels:
        raise UsageError(f"--target {target}: the training manifest has no such column; {', '.join(labels)}.")


def targets(utterances, target):
    """Utterances of each split -> the same with `wrd`, what the model learns to write, from label `target`.

    Raises UsageError where no training utterance has that label.
    """
    if target == "wrd":
        return utterances
    check_target(utterances["train"], target)
    return {
        split: [replace(u, labels={**u.labels, "wrd": u.labels.get(target, "")}) for u in found]
        for split, found in utterances.items()
    }


def datasets(utterances, column="wrd"):
    """Utterances of each split -> SpeechDataset with `sig` and `column`; training drops empty texts."""
    splits = {}
    for split, part in utterances.items():
        usable = [u for u in part if u.labels.get(column) or split != "train"]
        if len(usable) < len(part):
            logger.info("%s: %d utterances without transcript left out", split, len(part) - len(usable))
        splits[split] = as_dataset(usable, [audio_item], ["sig", column, "spk_id", "gender", "duration"])
    return splits


def readable(normalise, text):
    """`text` normalised, without the characters the normaliser has no reading for: a model may write any"""
    try:
        return normalise(text)
    except UnreadableText as error:
        return normalise("".join(" " if c in error.characters else c for c in text))


class TranscriptionBrain(TaskBrain):
    """Scores of recognised texts. `batch.wrd` is what the model learns to write.

    normalise: None where that is normalised already, else the function; WER and CER are then of the
    normalised texts, and WER cased and CER cased of the texts as they are.

    What a task with another target text and other rates overrides: `texts`, `score_texts`, `rates` and
    `columns_of`.
    """

    normalise = None
    columns_of = staticmethod(columns)  # metric -> the columns of utterances.csv with its two sums

    def texts(self, batch):
        """The target texts of a batch"""
        return batch.wrd

    def score_texts(self, batch, texts):
        """Hypotheses (B) -> one row per utterance: errors, reference lengths, reference, hypothesis"""
        references, written = batch.wrd, texts
        rows = [{} for _ in texts]
        if self.normalise is not None:
            add_counts(rows, batch.wrd, written, CASED)
            references, texts = ([readable(self.normalise, t) for t in kind] for kind in (batch.wrd, texts))
        add_counts(rows, references, texts, RATES)
        for k, row in enumerate(rows):
            row |= {"reference": references[k], "hypothesis": texts[k]}
            if self.normalise is not None:
                row |= {"reference_written": batch.wrd[k], "hypothesis_written": written[k]}
        return [{**said, **row} for said, row in zip(self.described(batch), rows, strict=True)]

    def rates(self, rows):
        """The error rates that the rows hold, in order of importance"""
        return [name for name in SHOWN if rows and self.columns_of(name)[0] in rows[0]]

    def trivial_baseline(self, rows):
        """The best of saying nothing: every reference word and character is an error"""
        lengths = dict(map(self.columns_of, self.rates(rows)))
        silent = [{**row, **{errors: row[length] for errors, length in lengths.items()}} for row in rows]
        return "saying nothing", silent

    def scores(self, rows):
        """Rows -> {"WER": %, "CER": %, ...} pooled over utterances"""
        pairs = {name: self.columns_of(name) for name in self.rates(rows)}
        return {name: float(rate([sum(r[c] for r in rows) for c in own])) for name, own in pairs.items()}

    def statistics(self, rows):
        """{metric: (statistics (n, 2), score function, unit, better)} for the intervals"""
        return {
            name: ([[r[c] for c in self.columns_of(name)] for r in rows], rate, "%", "lower")
            for name in self.rates(rows)
        }

    def evaluate(self, test_set):
        """As TaskBrain; texts that utterances.csv has no column for go to TRANSCRIPTS"""
        rows = super().evaluate(test_set)
        extra = [key for key in (rows[0] if rows else ()) if key.endswith(("_written", "_lm"))]
        if extra and if_main_process():
            write_transcripts(self.folder / TRANSCRIPTS, rows, ["ID", "reference", "hypothesis", *extra])
        return [{key: value for key, value in row.items() if key not in extra} for row in rows]


def add_counts(rows, references, hypotheses, rates):
    """Adds to B rows the errors and reference lengths of each of `rates` ({name: unit})"""
    for name, unit in rates.items():
        counts = count_errors(references, hypotheses, unit).statistics
        for row, pair in zip(rows, counts, strict=True):
            row |= {column: int(value) for column, value in zip(columns(name), pair, strict=True)}


def write_transcripts(path, rows, names):
    """The texts of the test utterances as CSV, each column of `names`"""
    table = io.StringIO()
    writer = csv.DictWriter(table, names, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(path, table.getvalue().encode())


class ASRBrain(TranscriptionBrain):
    """modules: encoder (see encoders/encoder.py) and head (frames -> log-probabilities)."""

    def __init__(self, modules, hparams, run_opts, checkpointer, characters):
        super().__init__(modules, hparams, run_opts, checkpointer)
        self.characters, self.too_long, self.unseen = characters, set(), set()
        if if_main_process():
            text = json.dumps(characters.symbols, ensure_ascii=False)
            write_atomically(self.folder / "characters.json", text)

    def compute_forward(self, batch, stage):
        """-> log-probabilities (B, F, V), their numbers of frames (B,)"""
        return self.modules.head(*self.encode(batch, stage))

    def compute_objectives(self, predictions, batch, stage):
        """CTC loss per utterance, mean over the batch; on valid and test also the rows of the scores"""
        log_probs, lens = predictions
        targets = [self.characters.encode(text) for text in self.texts(batch)]
        fits = self.check_targets(batch, targets, lens)
        losses = F.ctc_loss(
            log_probs.transpose(0, 1), torch.cat(targets).to(log_probs.device), lens,
            torch.tensor([len(t) for t in targets], device=lens.device), reduction="none", zero_infinity=True,
        )  # fmt: skip
        if stage != TRAIN:
            rows = self.score_texts(batch, self.decoded(log_probs, lens))
            self.rows += self.rescored(batch, rows, log_probs, lens, stage)
        return losses.sum() / max(int(fits.sum()), 1)

    def rescored(self, batch, rows, log_probs, lens, stage):
        """The rows of greedy decoding, with what another decoder adds to them"""
        return rows

    def check_targets(self, batch, targets, lens):
        """-> (B,) bool, False where a target needs more frames than there are: counted and listed, no loss"""
        needed = torch.tensor([len(t) + int((t[1:] == t[:-1]).sum()) for t in targets])
        fits = needed <= lens.cpu()
        self.too_long.update(i for i, fit in zip(batch.id, fits.tolist(), strict=True) if not fit)
        pieces = [c for text in self.texts(batch) for c in self.characters.pieces(text)]
        self.unseen.update(c for c in pieces if c not in self.characters.number)
        return fits

    def units(self, predictions, batch):
        """Utterances whose target fits; computed again from what `check_targets` found"""
        return sum(i not in self.too_long for i in batch.id)

    def on_stage_end(self, stage, stage_loss, epoch=None):
        if self.too_long:
            first = ", ".join(sorted(self.too_long)[:5])
            logger.warning(
                "%d targets longer than their frames give no loss: %s ...", len(self.too_long), first
            )
            self.too_long = set()
        if self.unseen:
            logger.warning("Characters unseen in train, always an error: %s", " ".join(sorted(self.unseen)))
            self.unseen = set()
        super().on_stage_end(stage, stage_loss, epoch)

    def decoded(self, log_probs, lens):
        """log-probabilities (B, F, V), lens (B,) -> the texts of the most probable paths"""
        paths = log_probs.argmax(-1).cpu()
        return [self.characters.decode(path[:n]) for path, n in zip(paths, lens.tolist(), strict=True)]

    def texts(self, batch):
        return getattr(batch, self.characters.column)
