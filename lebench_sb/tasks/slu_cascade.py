"""A cascade for spoken language understanding: what a recognition run wrote, then concepts from its text.

A tagger of words learns from the reference transcripts of train, is chosen on those of valid, and reads the
hypotheses of the recognition run (`utterances.csv`) in test. No audio is heard.

Letters: B utterances, W words, V labels, G letter trigrams.
"""

import zlib
from dataclasses import replace

import torch
from torch import nn
from torch.nn import functional as F

from lebench_sb.evaluation import results, tables
from lebench_sb.manifests.utterance import CLOSE
from lebench_sb.tasks.brain import with_modules
from lebench_sb.tasks.slu import OUTSIDE, SLUBrain, check_concepts, labelled, spoken_words, without_tags
from lebench_sb.training.brain import TEST, TRAIN
from lebench_sb.training.data import as_dataset

UNKNOWN = 0  # number of a word train does not hold
FORGOTTEN = 0.1  # share of training words read as unknown, so that unknown words are known


class NoEncoder(nn.Module):
    """What stands for an encoder where no audio is heard."""

    source, layer, num_layers, frozen, output_size = "cascade", "last", 0, True, 0
    frame_norm = "none"

    def pretrained_parameters(self):
        return iter(())


class WordLabels:
    """Words of train and their labels: O, `B<concept>` for the first word of a concept, `I<concept>` for the
    others. `symbols` lists the labels."""

    column = "semantics"

    def __init__(self, texts):
        pairs = [pair for text in texts for pair in labelled(text)]
        self.symbols = [OUTSIDE, *sorted({label for _, label in pairs} - {OUTSIDE})]
        self.number = {label: i for i, label in enumerate(self.symbols)}
        self.words = {word: i for i, word in enumerate(sorted({word for word, _ in pairs}), UNKNOWN + 1)}

    def encode(self, text):
        """tagged text of train or valid -> numbers of its labels (W,); a label train lacks is O"""
        found = [self.number.get(label, self.number[OUTSIDE]) for _, label in labelled(text)]
        return torch.tensor(found, dtype=torch.int64)

    def tagged(self, words, numbers):
        """words and the numbers of their labels -> tagged text"""
        pieces, inside = [], None
        for word, number in zip(words, numbers, strict=True):
            kind, tag = self.symbols[number][0], self.symbols[number][1:]
            begins = kind != OUTSIDE and (kind == "B" or tag != inside)
            if inside and (begins or kind == OUTSIDE):
                pieces.append(CLOSE)
            pieces += [tag, word] if begins else [word]
            inside = tag if kind != OUTSIDE else None
        return " ".join([*pieces, CLOSE] if inside else pieces)


def trigrams(word, buckets):
    """word -> numbers of its letter trigrams, the ends marked; the same in every process"""
    marked = f"^{word}$"
    return [zlib.crc32(marked[i : i + 3].encode()) % buckets for i in range(max(1, len(marked) - 2))]


class CascadeBrain(SLUBrain):
    """modules: encoder (none) and head (a WordTagger); `characters` is a WordLabels."""

    def compute_forward(self, batch, stage):
        """-> log-probabilities (B, W, V), numbers of words (B,)"""
        texts = [text.split() for text in batch.words]
        lens = torch.tensor([len(words) for words in texts], device=self.device)
        head = self.modules.head
        buckets = getattr(head, "module", head).buckets
        numbers = torch.full((len(texts), max(1, int(lens.max()))), UNKNOWN)
        grams, offsets = [], []
        for row, words in enumerate(texts):
            numbers[row, : len(words)] = torch.tensor([self.characters.words.get(w, UNKNOWN) for w in words])
            for column in range(numbers.shape[1]):
                offsets.append(len(grams))
                grams += trigrams(words[column], buckets) if column < len(words) else [0]
        numbers = numbers.to(self.device)
        if stage == TRAIN:
            forgotten = torch.rand(numbers.shape, device=self.device) < FORGOTTEN
            numbers = numbers.masked_fill(forgotten, UNKNOWN)
        grams, offsets = (torch.tensor(list_, device=self.device) for list_ in (grams, offsets))
        return head(numbers, grams, offsets, lens), lens

    def compute_objectives(self, predictions, batch, stage):
        """Cross-entropy, mean over words and utterances (none in test: what was heard has no labels); on
        valid and test also the rows of the scores"""
        log_probs, lens = predictions
        if stage != TRAIN:
            paths = log_probs.argmax(-1).tolist()
            words = [text.split() for text in batch.words]
            tagged = [self.characters.tagged(w, p[: len(w)]) for w, p in zip(words, paths, strict=True)]
            self.rows += self.score_texts(batch, tagged)
        if stage == TEST:
            return log_probs.new_zeros(())
        targets = [self.characters.encode(text) for text in self.texts(batch)]
        targets = nn.utils.rnn.pad_sequence(targets, batch_first=True, padding_value=-100).to(self.device)
        losses = F.nll_loss(log_probs.transpose(1, 2), targets, reduction="none", ignore_index=-100)
        return (losses.sum(1) / lens.clamp(min=1)).mean()


def cascade_brain(hparams, run_opts, utterances):
    """A loaded YAML -> (CascadeBrain, datasets); `asr_run` is the folder of a finished recognition run on the
    same test manifest. Layer, mode and caveats of the record are that run's."""
    check_concepts(hparams, utterances)
    record = results.read_results(hparams["asr_run"])
    heard = results.hypotheses(hparams["asr_run"], utterances["test"], spoken_words)
    again = ("one seed", "same speaker in train and test")  # said of every run where they hold
    caveats = [*hparams["caveats"], *(caveat for caveat in record["caveats"] if caveat not in again)]
    hparams = {
        **hparams, "ssl_hub": f"cascade: {tables.system_name(record['system'])}",
        "layer": record["layer"], "mode": record["mode"], "caveats": list(dict.fromkeys(caveats)),
    }  # fmt: skip
    labels = WordLabels([u.labels["semantics"] for u in utterances["train"]])
    head = hparams["head"](words=len(labels.words) + 1, output_size=len(labels.symbols))
    modules = with_modules(hparams, head=head)
    brain = CascadeBrain(modules, hparams, run_opts, hparams["checkpointer"], labels)
    return brain, {split: texts(split, part, heard) for split, part in utterances.items()}


def texts(split, utterances, hypotheses):
    """Utterances -> dataset of `words` (what the tagger reads) and `semantics`; train without empty texts"""
    tagged = []
    for u in utterances:
        words = hypotheses[u.id] if split == "test" else without_tags(u.labels["semantics"])
        if words or split != "train":
            tagged.append(replace(u, labels={"semantics": u.labels["semantics"], "words": words}))
    return as_dataset(tagged, [], ["words", "semantics", "spk_id", "gender", "duration"])
