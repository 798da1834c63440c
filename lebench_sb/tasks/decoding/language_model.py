"""Word n-grams: estimated from text, written as ARPA, read and scored by KenLM.

The estimate is interpolated modified Kneser-Ney (Chen & Goodman, 1999), the one of KenLM's `lmplz`, without
pruning: transcripts are small. Letters: n the order of an n-gram, N the highest.
"""

import bz2
import gzip
import hashlib
import logging
import lzma
import math
import re
import zlib
from collections import Counter, defaultdict
from pathlib import Path

from lebench_sb.core.errors import DataError, UsageError
from lebench_sb.core.files import write_atomically
from lebench_sb.core.guard import regular
from lebench_sb.manifests.tables import read_text

BEGIN, END, UNKNOWN = "<s>", "</s>", "<unk>"
SPECIAL = (BEGIN, END, UNKNOWN)
FALLBACK = (0.5, 1.0, 1.5)  # discounts where the counts of counts are too few, as `lmplz --discount_fallback`
NEVER = -99.0  # log10 probability of <s>, which nothing predicts
LN10 = math.log(10.0)
WARN_BELOW = 0.5  # of the training words: a model of another language, or of another spelling
KENLM = b"mmap lm http://kheafield.com/code"  # begins its binary
DATA = re.compile(rb"(?m)^(?:\xef\xbb\xbf)?\\data\\\s*$")  # begins an ARPA, after a few lines perhaps
COUNT = re.compile(rb"ngram\s+\d{1,2}\s*=\s*(\d{1,15})")
COMPRESSED = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ": lzma.open}  # as KenLM reads them
MODELS = (".arpa", ".bin", ".klm", ".binary")  # names that promise a model
logger = logging.getLogger(__name__)


class NGrams:
    """An estimated model: `log10` {n-gram (tuple of words): log10 probability of its last word after the
    others}, `backoff` {context: log10 weight of what it never saw}, `order`, `discounts` [(D1, D2, D3+)] by
    n."""

    def __init__(self, log10, backoff, order, discounts):
        self.log10, self.backoff, self.order, self.discounts = log10, backoff, order, discounts

    @property
    def vocabulary(self):
        """The words it can predict, `<unk>` and `</s>` among them, sorted"""
        return sorted(gram[0] for gram in self.log10 if len(gram) == 1 and gram[0] != BEGIN)

    def score(self, context, word):
        """log10 probability of `word` after `context` (words), as any reader of ARPA computes it"""
        words_known = {gram[0] for gram in ((word,), *((w,) for w in context)) if gram in self.log10}
        word = word if word in words_known else UNKNOWN
        context = [w if w in words_known else UNKNOWN for w in context]
        context = tuple(context[max(0, len(context) - self.order + 1) :])
        weight = 0.0
        while (*context, word) not in self.log10:
            weight += self.backoff.get(context, 0.0)
            context = context[1:]
        return weight + self.log10[(*context, word)]

    def arpa(self):
        """The model in the ARPA format, n-grams sorted"""
        by_order = defaultdict(list)
        for gram in sorted(self.log10):
            by_order[len(gram)].append(gram)
        lines = ["\\data\\", *(f"ngram {n}={len(by_order[n])}" for n in range(1, self.order + 1))]
        for n in range(1, self.order + 1):
            lines += ["", f"\\{n}-grams:"]
            for gram in by_order[n]:
                weight = f"\t{self.backoff[gram]:.7f}" if gram in self.backoff else ""
                lines.append(f"{self.log10[gram]:.7f}\t{' '.join(gram)}{weight}")
        return "\n".join([*lines, "", "\\end\\", ""])


def estimate(texts, order=3):
    """Texts (words between white space) -> NGrams. Raises UsageError for an order below 1, DataError for no
    words or for words that are the model's own marks."""
    if order < 1:
        raise UsageError(f"n-grams of order {order}: at least 1 is needed.")
    sentences = [words for text in texts if (words := text.split())]
    if not sentences:
        raise DataError("no text to estimate n-grams from.")
    marks = sorted({word for words in sentences for word in words if word in SPECIAL})
    if marks:
        raise DataError(f"the text for n-grams holds {', '.join(marks)}, marks of the model.")
    counts = adjusted_counts(sentences, order)
    vocabulary = sorted({word for (word,) in counts[1]} | {UNKNOWN})
    log10, backoff, discounts = {}, {}, []
    lower = {(): 1.0 / len(vocabulary)}  # probability of an n-gram's last word after all but the first
    for n in range(1, order + 1):
        discounts.append(discounts_of(counts[n]))
        probabilities, weights = interpolated(counts[n], discounts[-1], lower, vocabulary if n == 1 else ())
        log10 |= {gram: math.log10(p) for gram, p in probabilities.items()}
        backoff |= {context: math.log10(weight) for context, weight in weights.items() if context}
        lower = probabilities
    return NGrams({**log10, (BEGIN,): NEVER}, backoff, order, discounts)


def adjusted_counts(sentences, order):
    """{n: {n-gram: count}}: how often for n = `order` and after `<s>`, else in how many different left
    contexts; no n-gram ends in `<s>`"""
    raw = {n: Counter() for n in range(1, order + 1)}
    for words in sentences:
        marked = (BEGIN, *words, END)
        for n in range(1, order + 1):
            raw[n].update(marked[i : i + n] for i in range(len(marked) - n + 1))
    adjusted = {order: raw[order]}
    for n in range(1, order):
        left = Counter(gram[1:] for gram in raw[n + 1])
        adjusted[n] = {gram: count if gram[0] == BEGIN else left[gram] for gram, count in raw[n].items()}
    return {n: {g: c for g, c in found.items() if g[-1] != BEGIN} for n, found in adjusted.items()}


def discounts_of(counts):
    """(D1, D2, D3+) from how many n-grams have count 1, 2, 3 and 4; FALLBACK where that is undefined"""
    of = Counter(counts.values())
    if not all(of[k] for k in (1, 2, 3, 4)):
        return FALLBACK
    share = of[1] / (of[1] + 2 * of[2])
    discounts = tuple(k - (k + 1) * share * of[k + 1] / of[k] for k in (1, 2, 3))
    return discounts if all(0 < d <= k for k, d in enumerate(discounts, 1)) else FALLBACK


def interpolated(counts, discounts, lower, everything):
    """Probabilities of the n-grams of one order, and of each context the weight of the lower order.

    lower: {n-gram without its first word: its probability}; everything: words that get a probability also
    without a count (unigrams; {}: none).
    """
    totals, removed = Counter(), Counter()
    for gram, count in counts.items():
        totals[gram[:-1]] += count
        removed[gram[:-1]] += discounts[min(count, 3) - 1]
    weights = {context: removed[context] / total for context, total in totals.items()}
    probabilities = {}
    for gram in [*counts, *((word,) for word in everything if (word,) not in counts)]:
        context, count = gram[:-1], counts.get(gram, 0)
        kept = count - discounts[min(count, 3) - 1] if count else 0.0
        below = lower[()] if everything else lower[gram[1:]]
        probabilities[gram] = kept / totals[context] + weights[context] * below
    return probabilities, weights


# ---- KenLM


def import_kenlm():
    """The module kenlm. Raises UsageError that says how to install it."""
    try:
        import kenlm
    except ImportError as error:
        hint = "pip install 'lebench_sb[lm]' compiles it (a C++ compiler and CMake are needed)"
        raise UsageError(f"lm: the package kenlm is not installed; {hint}.") from error
    return kenlm


class LanguageModel:
    """An ARPA or binary file as KenLM reads it. Scores are natural logarithms; a state is KenLM's."""

    def __init__(self, path):
        self.kenlm = import_kenlm()
        self.path = regular(path)
        check_counts(self.path)
        try:
            config = self.kenlm.Config()
            config.show_progress, config.arpa_complain = False, self.kenlm.ARPALoadComplain.NONE
            self.model = self.kenlm.Model(str(path), config)
        except (OSError, RuntimeError) as error:
            reason = " ".join(str(error).split())
            raise DataError(f"{path}: no n-gram model that KenLM reads ({reason}).") from error
        self.order = self.model.order
        self.sha256 = hashlib.sha256(self.path.read_bytes()).hexdigest()

    def knows(self, word):
        """Whether it can predict the word, other than as `<unk>`"""
        return word in self.model

    def begin(self):
        """The state before the first word of a sentence"""
        state = self.kenlm.State()
        self.model.BeginSentenceWrite(state)
        return state

    def follow(self, state, word):
        """-> ln probability of `word` (`</s>` ends the sentence) after `state`, the state after it"""
        after = self.kenlm.State()
        return self.model.BaseScore(state, word, after) * LN10, after


def is_model(path):
    """Whether a file holds n-grams, by its content: KenLM's binary, or ARPA, compressed or not. Raises
    DataError for a compressed text."""
    head = head_of(path)
    if head.startswith(KENLM) or DATA.search(head):
        return True
    if opener_of(path) is not open:
        raise DataError(f"lm: {path} is compressed and no ARPA: unpack the text.")
    if path.suffix.lower() in MODELS:
        raise DataError(f"lm: {path} is named like one, but is no ARPA (\\data\\) and no binary of KenLM.")
    return False


def opener_of(path):
    """The function that opens a file's text, by its first bytes: `open`, or that of gzip, bzip2 or xz"""
    with open(path, "rb") as file:
        first = file.read(6)
    return next((opener for magic, opener in COMPRESSED.items() if first.startswith(magic)), open)


def head_of(path):
    """The first bytes of a file, unpacked where it is compressed. DataError where it does not unpack."""
    try:
        with opener_of(path)(path, "rb") as file:
            return file.read(1 << 16)
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise DataError(f"lm: {path} does not unpack ({error}).") from error


def check_counts(path):
    """Raises DataError for an ARPA whose header counts what its file cannot hold: KenLM crashes at some"""
    head = head_of(path)
    if head.startswith(KENLM) or not (begin := DATA.search(head)):
        return
    room = path.stat().st_size if opener_of(path) is open else 1 << 40
    for line in head[begin.end() :].split(b"\n\\")[0].splitlines():
        if line.strip() and not ((found := COUNT.fullmatch(line.strip())) and int(found[1]) < room):
            raise DataError(f"lm: {path}: its header counts {line.decode('utf-8', 'replace').strip()!r}.")


def tell_known(model, source, transcripts):
    """Logs which share of the training words (each as often as it is said) a model of `source` knows; warns
    below WARN_BELOW. Raises DataError where it knows none: it would write none."""
    words = Counter(word for text in transcripts for word in text.split())
    share = share_known(model, words)
    if not words:
        return
    if not share:
        upper = share_known(model, Counter({word.upper(): n for word, n in words.items()}))
        hint = "it is in capitals" if upper else f"they are written like {next(iter(words))!r}"
        raise DataError(f"lm: {source} knows none of the training words: {hint}. Normalise its text so.")
    level = logging.WARNING if share < WARN_BELOW else logging.INFO
    logger.log(level, "lm: %s knows %.1f %% of the training words", source, 100 * share)


def share_known(model, words):
    """Counter of words -> share of its sum that the model knows, 0 for none"""
    return sum(n for word, n in words.items() if model.knows(word)) / max(1, words.total())


def prepare_language_model(source, order, transcripts, folder):
    """-> path of the model of `source`: `train` (n-grams of the `transcripts`), a text file (a sentence in
    each line, normalised as the transcripts are), or a model of KenLM: ARPA, compressed or not, or its
    binary. Which of them a file is, its content says.

    What is estimated is written into `folder` as `<order>-gram.arpa`. The log tells which share of the words
    of the transcripts the model of a file knows. Raises UsageError, DataError (also for a model that knows
    none) or FileNotFoundError.
    """
    import_kenlm()
    if source == "train":
        return estimated(transcripts, order, folder)
    if not Path(source).exists():
        raise FileNotFoundError(f"lm: {source} not found; it is none, train, a text file or an n-gram model.")
    path = regular(source)
    if not is_model(path):
        try:
            path = estimated(read_text(source).splitlines(), order, folder)
        except DataError as error:
            raise DataError(f"lm: {source}: {error}") from error
    model = LanguageModel(path)
    tell_known(model, source, transcripts)
    return model.path


def estimated(texts, order, folder):
    """-> path of the n-grams of the texts, written into `folder`"""
    path, model = Path(folder) / f"{order}-gram.arpa", estimate(texts, order)
    write_atomically(path, model.arpa().encode())
    sizes = Counter(len(gram) for gram in model.log10)
    logger.info("%s: %s n-grams of orders 1 to %d", path, [sizes[n + 1] for n in range(order)], order)
    return path
