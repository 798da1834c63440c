"""Word n-grams: estimated from text, written as ARPA, read and scored by KenLM.

The estimate is interpolated modified Kneser-Ney (Chen & Goodman, 1999), the one of KenLM's `lmplz`, without
pruning: transcripts are small. Letters: n the order of an n-gram, N the highest.
"""

import hashlib
import logging
import math
from collections import Counter, defaultdict
from pathlib import Path

from lebench_sb.manifest import DataError, UsageError, read_text, write_atomically

BEGIN, END, UNKNOWN = "<s>", "</s>", "<unk>"
SPECIAL = (BEGIN, END, UNKNOWN)
FALLBACK = (0.5, 1.0, 1.5)  # discounts where the counts of counts are too few, as `lmplz --discount_fallback`
NEVER = -99.0  # log10 probability of <s>, which nothing predicts
LN10 = math.log(10.0)
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
        known = {gram[0] for gram in ((word,), *((w,) for w in context)) if gram in self.log10}
        word = word if word in known else UNKNOWN
        context = [w if w in known else UNKNOWN for w in context]
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
    found = tuple(k - (k + 1) * share * of[k + 1] / of[k] for k in (1, 2, 3))
    return found if all(0 < d <= k for k, d in enumerate(found, 1)) else FALLBACK


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
        self.path = Path(path)
        if not self.path.is_file():
            raise FileNotFoundError(f"lm: {path} not found.")
        try:
            config = self.kenlm.Config()
            config.show_progress, config.arpa_complain = False, self.kenlm.ARPALoadComplain.NONE
            self.model = self.kenlm.Model(str(path), config)
        except (OSError, RuntimeError) as error:
            reason = " ".join(str(error).split())
            raise DataError(f"{path}: no n-gram model that KenLM reads ({reason}).") from error
        self.order = self.model.order
        self.sha256 = hashlib.sha256(self.path.read_bytes()).hexdigest()

    def begin(self):
        """The state before the first word of a sentence"""
        state = self.kenlm.State()
        self.model.BeginSentenceWrite(state)
        return state

    def follow(self, state, word):
        """-> ln probability of `word` (`</s>` ends the sentence) after `state`, the state after it"""
        after = self.kenlm.State()
        return self.model.BaseScore(state, word, after) * LN10, after


def model_file(source, order, folder):
    """Where the model of `source` is or will be: see prepare_language_model"""
    is_model = Path(source).suffix.lower() in (".arpa", ".bin", ".klm", ".binary")
    return Path(source) if is_model else Path(folder) / f"{order}-gram.arpa"


def prepare_language_model(source, order, transcripts, folder):
    """-> path of the model of `source`: `train` (n-grams of the `transcripts`), a text file (a sentence in
    each line, normalised as the transcripts are), or a model of KenLM (.arpa, .bin, .klm).

    What is estimated is written into `folder` as `<order>-gram.arpa`. Raises UsageError, DataError or
    FileNotFoundError.
    """
    import_kenlm()
    path = model_file(source, order, folder)
    if path == Path(source):
        return LanguageModel(path).path
    if source != "train" and not Path(source).is_file():
        raise FileNotFoundError(f"lm: {source} not found; it is none, train, a text file or an .arpa.")
    model = estimate(transcripts if source == "train" else read_text(source).splitlines(), order)
    write_atomically(path, model.arpa().encode())
    sizes = Counter(len(gram) for gram in model.log10)
    logger.info("%s: %s n-grams of orders 1 to %d", path, [sizes[n + 1] for n in range(order)], order)
    return path
