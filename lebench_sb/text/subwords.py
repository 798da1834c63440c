"""Subword units learnt from the texts of a training set: SentencePiece, unigram model.

Its own normalisation applies (NFKC, spaces as one): an ellipsis sign is said as three dots.
"""

import hashlib
import io
import json
import logging
from pathlib import Path

import sentencepiece
import torch

from lebench_sb.core.errors import DataError, UsageError
from lebench_sb.core.files import write_atomically
from lebench_sb.core.guard import read_json

logger = logging.getLogger(__name__)
MARKS = 4  # pieces for the space, the unknown, the start and the end
MODEL, NOTE = "subwords.model", "subwords.json"  # in the run folder


class Subwords:
    """Text <-> numbers of subwords. `start` and `end` are the numbers around a text, `sha256` the model's.

    model: bytes of a SentencePiece model with pieces for both.
    """

    def __init__(self, model):
        self.processor = sentencepiece.SentencePieceProcessor(model_proto=model)
        self.start, self.end = self.processor.bos_id(), self.processor.eos_id()
        self.sha256 = hashlib.sha256(model).hexdigest()

    def __len__(self):
        return self.processor.vocab_size()

    def encode(self, text):
        """text -> numbers, a list"""
        return self.processor.encode(text)

    def decode(self, numbers):
        """List of numbers -> text without the marks of SentencePiece"""
        return self.processor.decode(numbers)

    def batch(self, texts):
        """B texts -> what a decoder reads (B, L), starting with `start`, and what it should say (B, L),
        ending with `end`, then -100"""
        numbers = [self.encode(text) for text in texts]
        width = 1 + max(map(len, numbers))
        decoder_inputs = torch.full((len(texts), width), self.end)
        labels = torch.full((len(texts), width), -100)
        for row, ids in enumerate(numbers):
            decoder_inputs[row, : len(ids) + 1] = torch.tensor([self.start, *ids])
            labels[row, : len(ids) + 1] = torch.tensor([*ids, self.end])
        return decoder_inputs, labels


def check_size(texts, size, key):
    """Raises UsageError where `size` pieces (the YAML's `key`) cannot hold each character of the texts and
    the marks beside them"""
    count = len(set("".join(texts)) - {" "})
    if not isinstance(size, int) or size < count + MARKS:
        raise UsageError(
            f"--{key} {size}: the training texts have {count} different characters: {count + MARKS} or more."
        )


def train(texts, size):
    """List of texts -> bytes of a unigram model of `size` pieces, or of as many as the texts allow.

    Every character of the texts has a piece. One thread, so that the same texts give the same model on every
    machine. Raises DataError without text, UsageError if the characters alone are more than `size`.
    """
    texts = [text for text in texts if text.strip()]
    if not texts:
        raise DataError("train: no text to learn subwords from.")
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(texts),
            model_writer=model,
            vocab_size=size,
            model_type="unigram",
            character_coverage=1.0,
            normalization_rule_name="identity",  # its own would turn … into ... and ½ into 1/2
            hard_vocab_limit=False,  # fewer pieces where the texts are too few for `size`
            max_sentence_length=max(10, *(len(text.encode()) + 1 for text in texts)),  # none is passed over
            num_threads=1,
            minloglevel=2,
        )
    except RuntimeError as error:
        characters = len(set("".join(texts)))
        raise UsageError(
            f"subwords: SentencePiece makes no model of {size} pieces out of {len(texts)} texts with "
            f"{characters} different characters: {' '.join(str(error).split())}"
        ) from error
    return model.getvalue()


def learn(texts, size, folder):
    """Texts -> Subwords, kept in `folder` and logged; a resumed run reads what its first start wrote.

    Raises UsageError if the folder's model was learnt from other texts or for another size.
    """
    folder = Path(folder)
    digest = hashlib.sha256("\n".join(texts).encode()).hexdigest()
    if (folder / NOTE).is_file():
        note = read_json(folder / NOTE)
        if (note.get("texts_sha256"), note.get("asked")) != (digest, size):
            raise UsageError(f"{folder / MODEL} was learnt from other texts or for another size: new folder?")
        return load(folder)
    model = train(texts, size)
    subwords = Subwords(model)
    if len(subwords) < size:
        logger.warning("Subwords: %d, the texts allow no more (%d asked for)", len(subwords), size)
    note = {"texts_sha256": digest, "asked": size, "size": len(subwords), "sha256": subwords.sha256}
    write_atomically(folder / MODEL, model)
    write_atomically(folder / NOTE, (json.dumps(note, indent=1) + "\n").encode())
    return subwords


def load(folder):
    """Subwords from the folder of a run"""
    return Subwords((Path(folder) / MODEL).read_bytes())
