"""Speech recognition by CTC over characters.

Letters: B utterances, F frames, V symbols (the CTC blank is number 0), L characters of a target.
"""

import json
import logging

import torch
from torch.nn import functional as F

from lebench_sb.brain import TRAIN, SSLBrain
from lebench_sb.data import as_dataset, audio_item
from lebench_sb.manifest import DataError
from lebench_sb.metrics.errors import count_errors, rate

logger = logging.getLogger(__name__)
RATES = {"WER": "word", "CER": "char"}
COLUMNS = {"WER": ("WER_errors", "WER_words"), "CER": ("CER_errors", "CER_chars")}


class Characters:
    """The symbols of CTC: number 0 is the blank, then the characters of the training transcripts, sorted."""

    def __init__(self, symbols):
        self.symbols = list(symbols)
        self.number = {symbol: i for i, symbol in enumerate(self.symbols, 1)}

    @classmethod
    def of(cls, utterances):
        """From the transcripts (`wrd`) of Utterances; raises DataError if there is none."""
        symbols = sorted(set().union(*(u.labels.get("wrd", "") for u in utterances)))
        if not symbols:
            raise DataError("train: no transcript (column wrd) to learn from.")
        return cls(symbols)

    def __len__(self):
        return len(self.symbols) + 1

    def encode(self, text):
        """text -> numbers (L,) int64; characters that training never saw have none and are left out"""
        return torch.tensor([self.number[c] for c in text if c in self.number], dtype=torch.int64)

    def decode(self, numbers):
        """A CTC path (repeats and blanks in it) -> text"""
        kept = torch.unique_consecutive(numbers).tolist()
        return " ".join("".join(self.symbols[n - 1] for n in kept if n > 0).split())


def datasets(utterances):
    """Utterances of each split -> SpeechDataset with `sig` and `wrd`; training drops empty transcripts."""
    made = {}
    for split, found in utterances.items():
        kept = [u for u in found if u.labels.get("wrd") or split != "train"]
        if len(kept) < len(found):
            logger.info("%s: %d utterances without transcript left out", split, len(found) - len(kept))
        made[split] = as_dataset(kept, [audio_item], ["sig", "wrd", "spk_id", "gender", "duration"])
    return made


class ASRBrain(SSLBrain):
    """modules: encoder (the contract of lebench_sb.encoders) and head (frames -> log-probabilities)."""

    def __init__(self, modules, hparams, run_opts, checkpointer, characters):
        super().__init__(modules, hparams, run_opts, checkpointer)
        self.characters, self.too_long, self.unseen = characters, set(), set()
        text = json.dumps(characters.symbols, ensure_ascii=False)
        (self.folder / "characters.json").write_text(text, encoding="utf-8")

    def compute_forward(self, batch, stage):
        """-> log-probabilities (B, F, V), their numbers of frames (B,)"""
        return self.modules.head(*self.encode(batch, stage))

    def compute_objectives(self, predictions, batch, stage):
        """CTC loss per utterance, mean over the batch; on valid and test also the rows of the scores"""
        log_probs, lens = predictions
        targets = [self.characters.encode(text) for text in batch.wrd]
        fits = self.check_targets(batch, targets, lens)
        losses = F.ctc_loss(
            log_probs.transpose(0, 1), torch.cat(targets).to(log_probs.device), lens,
            torch.tensor([len(t) for t in targets], device=lens.device), reduction="none", zero_infinity=True,
        )  # fmt: skip
        if stage != TRAIN:
            self.rows += self.score(batch, log_probs.argmax(-1).cpu(), lens.tolist())
        return losses.sum() / max(int(fits.sum()), 1)

    def check_targets(self, batch, targets, lens):
        """-> (B,) bool, False where a target needs more frames than there are: counted and listed, no loss"""
        needed = torch.tensor([len(t) + int((t[1:] == t[:-1]).sum()) for t in targets])
        fits = needed <= lens.cpu()
        self.too_long.update(i for i, fit in zip(batch.id, fits.tolist(), strict=True) if not fit)
        self.unseen.update(c for text in batch.wrd for c in text if c not in self.characters.number)
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

    def score(self, batch, paths, lens):
        """Greedy decoding -> one row per utterance: errors, reference lengths, reference, hypothesis"""
        texts = [self.characters.decode(path[:n]) for path, n in zip(paths, lens, strict=True)]
        counts = {name: count_errors(batch.wrd, texts, unit).statistics for name, unit in RATES.items()}
        rows = []
        for k, row in enumerate(self.described(batch)):
            for name, (errors, length) in COLUMNS.items():
                row[errors], row[length] = (int(x) for x in counts[name][k])
            rows.append({**row, "reference": batch.wrd[k], "hypothesis": texts[k]})
        return rows

    def trivial(self, rows):
        """The best of saying nothing: every reference word and character is an error"""
        lengths = {errors: length for errors, length in COLUMNS.values()}
        silent = [{**row, **{errors: row[length] for errors, length in lengths.items()}} for row in rows]
        return "saying nothing", silent

    def scores(self, rows):
        """Rows -> {"WER": %, "CER": %} pooled over utterances"""
        return {name: float(rate([sum(r[c] for r in rows) for c in COLUMNS[name]])) for name in RATES}

    def statistics(self, rows):
        """{metric: (statistics (n, 2), score function, unit, better)} for the intervals"""
        return {name: ([[r[c] for c in COLUMNS[name]] for r in rows], rate, "%", "lower") for name in RATES}
