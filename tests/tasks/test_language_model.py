"""The n-gram estimate against its definition, KenLM and probabilities that sum to one."""

import bz2
import gzip
import itertools
import lzma
import math
import os
import random
from collections import Counter

import pytest

from lebench_sb.core.errors import DataError, UsageError
from lebench_sb.tasks.decoding.language_model import (
    BEGIN,
    END,
    FALLBACK,
    UNKNOWN,
    LanguageModel,
    discounts_of,
    estimate,
    prepare_language_model,
)

SMALL = ["le chat dort", "le chien dort", "le chat mange le poisson", "un chien", "chat"]


def drawn(sentences=60, seed=0):
    """Texts with enough repetition for counts of 1, 2, 3 and 4 at every order"""
    rng = random.Random(seed)
    words = [f"m{n}" for n in range(12)]
    return [
        " ".join(rng.choices(words, weights=range(12, 0, -1), k=rng.randint(1, 6))) for _ in range(sentences)
    ]


def reference(texts, order, word, context):
    """Modified Kneser-Ney straight from the formula, every count made by searching all the text again"""
    grams = [tuple([BEGIN, *t.split(), END]) for t in texts]

    def count(gram):
        return sum(s[i : i + len(gram)] == gram for s in grams for i in range(len(s) - len(gram) + 1))

    def adjusted(gram):
        if len(gram) == order or gram[0] == BEGIN:
            return count(gram)
        before = {s[i - 1] for s in grams for i in range(1, len(s)) if s[i : i + len(gram)] == gram}
        return len(before)

    words = sorted({w for s in grams for w in s[1:]})
    seen = sorted({s[i : i + n] for s in grams for n in range(1, order + 1) for i in range(len(s) - n + 1)})
    discounts = {}
    for n in range(1, order + 1):
        t = Counter(adjusted(g) for g in seen if len(g) == n and g[-1] != BEGIN)
        y = t[1] / (t[1] + 2 * t[2]) if t[1] else 0
        good = all(t[k] for k in (1, 2, 3, 4))
        d = [k - (k + 1) * y * t[k + 1] / t[k] for k in (1, 2, 3)] if good else list(FALLBACK)
        discounts[n] = d if all(0 < v <= k for k, v in enumerate(d, 1)) else list(FALLBACK)

    def p(word, context):
        counts = {w: adjusted((*context, w)) for w in words}
        total = sum(counts.values())
        below = p(word, context[1:]) if context else 1 / (len(words) + 1)
        if not total:
            return below
        d = [0.0, *discounts[len(context) + 1]]
        removed = sum(d[min(c, 3)] for c in counts.values())
        c = counts.get(word, 0)
        return (c - d[min(c, 3)] + removed * below) / total

    known = [w if w in words or w == BEGIN else UNKNOWN for w in context]
    return p(word if word in words else UNKNOWN, tuple(known[max(0, len(known) - order + 1) :]))


@pytest.mark.parametrize("order, texts", [(1, SMALL), (2, SMALL), (3, SMALL), (3, drawn(25)), (2, drawn(25))])
def test_the_estimate_is_that_of_the_formula(order, texts):
    model = estimate(texts, order)
    rng = random.Random(1)
    words = [w for w in model.vocabulary if w != UNKNOWN]
    for _ in range(40):
        context = [rng.choice([*words, BEGIN, "inconnu"]) for _ in range(rng.randint(0, 3))]
        word = rng.choice([*words, "jamais"])
        expected = math.log10(reference(texts, order, word, context))
        assert model.score(context, word) == pytest.approx(expected, abs=1e-9), (context, word)


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_probabilities_sum_to_one_after_any_context(order):
    model = estimate(drawn(), order)
    words = [*model.vocabulary, BEGIN]
    contexts = [(), *((w,) for w in words), *itertools.islice(itertools.product(words, repeat=2), 60)]
    contexts += [g[:-1] for g in list(model.log10)[:300]]
    for context in contexts:
        total = sum(10 ** model.score(context, word) for word in model.vocabulary)
        assert total == pytest.approx(1.0, abs=1e-9), context


def test_discounts_of_chen_and_goodman_and_where_they_are_undefined():
    counts = dict(enumerate([1] * 8 + [2] * 4 + [3] * 2 + [4]))
    y = 8 / 16
    assert discounts_of(counts) == pytest.approx((1 - 2 * y * 4 / 8, 2 - 3 * y * 2 / 4, 3 - 4 * y * 1 / 2))
    assert discounts_of({"a": 1, "b": 1}) == FALLBACK


def test_kenlm_reads_the_file_and_gives_the_same_scores(tmp_path):
    pytest.importorskip("kenlm")
    texts = drawn()
    ours = estimate(texts, 3)
    theirs = LanguageModel(prepare_language_model("train", 3, texts, tmp_path))
    assert theirs.order == 3 and theirs.path == tmp_path / "3-gram.arpa"
    rng = random.Random(2)
    for _ in range(50):
        words = [rng.choice([*ours.vocabulary[2:], "inconnu"]) for _ in range(rng.randint(0, 6))]
        state, context, total = theirs.begin(), [BEGIN], 0.0
        for word in [*words, END]:
            value, state = theirs.follow(state, word)
            assert value / math.log(10) == pytest.approx(ours.score(context, word), abs=1e-5)
            context.append(word)
            total += value / math.log(10)
        assert theirs.model.score(" ".join(words)) == pytest.approx(total, abs=1e-4)


def test_a_held_out_sentence_is_likelier_than_its_words_in_disorder():
    model = estimate([f"le {n} mange un {m}" for n in ("chat", "chien", "rat") for m in ("os", "pain")], 3)

    def total(words):
        return sum(model.score([BEGIN, *words[:i]], w) for i, w in enumerate([*words, END]))

    assert total("le rat mange un chat".split()) > total("mange chat le un rat".split()) + 1


def test_sources_and_what_is_wrong_with_them(tmp_path):
    pytest.importorskip("kenlm")
    (tmp_path / "lines.txt").write_text("bonjour à tous\n\nbonsoir\n", encoding="utf-8")
    model = LanguageModel(prepare_language_model(str(tmp_path / "lines.txt"), 2, [], tmp_path))
    assert model.follow(model.begin(), "bonjour")[0] > model.follow(model.begin(), "tous")[0]
    assert LanguageModel(tmp_path / "2-gram.arpa").sha256 == model.sha256
    again = prepare_language_model(str(tmp_path / "2-gram.arpa"), 9, [], tmp_path)
    assert LanguageModel(again).order == 2
    with pytest.raises(FileNotFoundError, match="none, train, a text file or an n-gram model"):
        prepare_language_model("trian", 3, SMALL, tmp_path)
    with pytest.raises(FileNotFoundError, match="absent.arpa not found"):
        prepare_language_model("absent.arpa", 3, SMALL, tmp_path)
    (tmp_path / "bad.arpa").write_text("not a model\n")
    with pytest.raises(DataError, match="bad.arpa: no n-gram model that KenLM reads"):
        LanguageModel(tmp_path / "bad.arpa")


def test_texts_that_give_no_model():
    with pytest.raises(DataError, match="no text"):
        estimate(["", "  "], 3)
    with pytest.raises(DataError, match="<s>, marks of the model"):
        estimate(["le <s> chat"], 3)
    with pytest.raises(UsageError, match="order 0"):
        estimate(SMALL, 0)


# ---- files of others


def arpa(texts=SMALL):
    return estimate(texts, 2).arpa()


CAPITALS = arpa([text.upper() for text in SMALL])
MODEL = arpa()
SAME = {
    "x.lm": MODEL.encode(), "x.arpa.gz": gzip.compress(MODEL.encode()), "x": MODEL.encode(),
    "x.txt": bz2.compress(MODEL.encode()), "x.bin": lzma.compress(MODEL.encode()),
    "x.TXT": MODEL.replace("\n", "\r\n").encode(),
}  # fmt: skip


@pytest.mark.parametrize("name, content", SAME.items(), ids=SAME)
def test_a_model_is_known_by_its_content_and_not_by_its_name(tmp_path, name, content):
    pytest.importorskip("kenlm")
    (tmp_path / name).write_bytes(content)
    path = prepare_language_model(str(tmp_path / name), 3, SMALL, tmp_path / "run")
    assert path == tmp_path / name and LanguageModel(path).order == 2


DAMAGED = {
    "in capitals": (CAPITALS, "knows none of the training words: it is in capitals"),
    "another language": (arpa(["the cat sleeps"]), "knows none of the training words: they are written like"),
    "a text in capitals": ("LE CHAT DORT\n", "knows none of the training words: it is in capitals"),
    "an empty text": ("", "no text"), "blanks": (" \n\n", "no text"),
    "marks": ("le <s> chat", "marks of the model"),
    "Latin-1": ("le ch\xe9t".encode("latin-1"), "line 1 is not UTF-8"),
    "half an ARPA": (MODEL[: len(MODEL) // 2], "no n-gram model that KenLM reads"),
    "no end": (MODEL.replace("\\end\\", ""), "no n-gram model that KenLM reads"),
    "too many": (MODEL.replace("ngram 1=", "ngram 1=9"), "no n-gram model|counts"),
    "a negative count": (MODEL.replace("ngram 1=", "ngram 1=-"), "its header counts 'ngram 1=-"),
    "a giant count": (MODEL.replace("ngram 1=", "ngram 1=99999999999"), "its header counts"),
    "a word for a count": (MODEL.replace("ngram 1=", "ngram 1=x"), "its header counts"),
    "commas": (MODEL.replace("-0.", "-0,"), "no n-gram model that KenLM reads"),
    "a BOM": ("\ufeff" + MODEL, "no n-gram model that KenLM reads"),
    "a line before": ("hello\n" + MODEL, "no n-gram model that KenLM reads"),
    "half a gzip": (gzip.compress(MODEL.encode())[:40], "does not unpack"),
    "a compressed text": (gzip.compress(b"le chat"), "unpack the text"),
    "a binary of KenLM alone by its name": (b"mmap lm http://kheafield.com/code format", "no n-gram model"),
}  # fmt: skip


@pytest.mark.parametrize("content, words", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_or_foreign_model_is_one_line_before_the_training(tmp_path, content, words):
    pytest.importorskip("kenlm")
    path = tmp_path / "x.lm"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match=words) as error:
        prepare_language_model(str(path), 3, SMALL, tmp_path)
    assert str(path) in str(error.value)


def test_a_pipe_a_folder_and_a_name_that_promises_a_model(tmp_path):
    pytest.importorskip("kenlm")
    os.mkfifo(tmp_path / "x.arpa")
    (tmp_path / "y.arpa").write_text("le chat dort\n")
    found = {tmp_path / "x.arpa": "a pipe", tmp_path: "a folder", tmp_path / "y.arpa": "named like one"}
    for source, words in found.items():
        with pytest.raises(DataError, match=words):
            prepare_language_model(str(source), 3, SMALL, tmp_path)


def test_the_share_of_known_words_is_told_and_a_small_one_warned_of(tmp_path, caplog):
    pytest.importorskip("kenlm")
    caplog.set_level("INFO")
    (tmp_path / "x.arpa").write_text(MODEL)
    prepare_language_model(str(tmp_path / "x.arpa"), 3, ["le chat dort", "un zèbre"], tmp_path)
    assert "knows 80.0 % of the training words" in caplog.text
    caplog.clear()
    prepare_language_model(str(tmp_path / "x.arpa"), 3, ["le zèbre broute"], tmp_path)
    assert "knows 33.3 %" in caplog.text and caplog.records[-1].levelname == "WARNING"
