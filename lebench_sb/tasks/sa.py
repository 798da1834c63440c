"""Syntactic analysis of speech: words by CTC, and the dependency tree over them (wav2tree).

Letters: B utterances, F frames, V characters, W words, R relations, P parts of speech.
"""

import json
import logging
from collections import Counter
from dataclasses import dataclass, replace

import torch
from speechbrain.utils.distributed import if_main_process

from lebench_sb.core.files import write_atomically
from lebench_sb.core.masks import valid_mask
from lebench_sb.evaluation.metrics.errors import rate
from lebench_sb.evaluation.metrics.parsing import SCORES, count_parses
from lebench_sb.manifests.labels import check_texts, require
from lebench_sb.manifests.targets import check_targets
from lebench_sb.manifests.trees import NO_WORDS, Tree, as_conllu, trees_of
from lebench_sb.tasks.asr import COLUMNS, ASRBrain, Characters
from lebench_sb.tasks.brain import with_modules
from lebench_sb.tasks.heads.parser import best_heads, reference_path, words_of_path
from lebench_sb.training.brain import TRAIN
from lebench_sb.training.data import as_dataset, audio_item, load_utterances

logger = logging.getLogger(__name__)
UNKNOWN = -1  # number of a part of speech or relation that training never saw: no loss, always an error


@dataclass(frozen=True)
class Symbols:
    """What the model may say: Characters of the words, parts of speech and relations of training's trees.

    roots: for each relation, whether the root's words have it in training; others: whether others' do.
    commonest: in training, part of speech, relation of the root's words, relation of other words.
    """

    characters: Characters
    upos: tuple
    relations: tuple
    roots: tuple
    others: tuple
    commonest: tuple

    @classmethod
    def of(cls, utterances):
        """From Utterances whose label `tree` is a Tree"""
        trees = [u.labels["tree"] for u in utterances]
        pairs = Counter((r, h == 0) for t in trees for r, h in zip(t.relations, t.heads, strict=True))
        tags = Counter(tag for tree in trees for tag in tree.upos)
        by_place = [Counter({r: n for (r, at), n in pairs.items() if at == place}) for place in (True, False)]
        relations = tuple(sorted({relation for relation, _ in pairs}))
        upos = tuple(sorted(tags))
        commonest = tuple(first(counts) or first(by_place[0]) for counts in (tags, *by_place))
        roots, others = (tuple((r, at_root) in pairs for r in relations) for at_root in (True, False))
        characters = Characters.of(utterances)
        if " " not in characters.number:
            characters = Characters([" ", *characters.symbols])
        return cls(characters, upos, relations, roots, others if any(others) else roots, commonest)


def first(counts):
    """The commonest key of a Counter, of several the first in the alphabet; "" without any"""
    return min(counts, key=lambda key: (-counts[key], key), default="")


def right_branching(words, commonest):
    """The Tree in which every word hangs from the one before it, with the commonest labels of training"""
    tag, root, other = commonest
    n = len(words)
    return Tree(words, (tag,) * n, tuple(range(n)), ((root,) + (other,) * n)[:n])


def check_labels(splits, settings, findings):
    """A sound tree for every utterance, whose words are those of wrd"""
    if len(require(splits, "tree", settings, findings)) < len(splits):
        return
    sentences = findings.collect(with_trees, splits, settings)
    if sentences is not None:
        check_texts(sentences, "wrd", settings, findings)
        findings.kept["sentences"] = sentences


def load_sentences(hparams):
    """`data.load_utterances`, with the label `tree` as a Tree and `wrd` as its words, for every split.

    Raises DataError for trees that are missing or faulty.
    """
    utterances = load_utterances(hparams)
    sentences = hparams["checked"].kept.get("sentences") if "checked" in hparams else None
    if sentences is None:
        sentences = with_trees(utterances, hparams)
    ids = {split: {u.id for u in part} for split, part in utterances.items()}
    sentences = {split: [u for u in part if u.id in ids[split]] for split, part in sentences.items()}
    warn_of_unseen(sentences)
    return sentences


def with_trees(splits, settings):
    """Utterances of each split -> the same with the label `tree` as a Tree and `wrd` as its words"""
    splits_with_trees = {}
    for split, utterances in splits.items():
        where = str(settings[f"{split}_csv"])
        trees = trees_of(
            utterances, settings["data_folder"], settings["normaliser"], settings["multiword"], where
        )
        labels = [{**u.labels, "tree": trees[u.id], "wrd": trees[u.id].text} for u in utterances]
        splits_with_trees[split] = [replace(u, labels=own) for u, own in zip(utterances, labels, strict=True)]
    return splits_with_trees


def warn_of_unseen(sentences):
    """Logs the parts of speech and relations of valid and test that training never saw"""
    names = {split: {name for u in found for name in (*u.labels["tree"].upos, *u.labels["tree"].relations)}
             for split, found in sentences.items()}  # fmt: skip
    for split in ("valid", "test"):
        if unseen := names.get(split, set()) - names["train"]:
            logger.warning("%s: labels unseen in train, always an error: %s", split, " ".join(sorted(unseen)))


def datasets(utterances):
    """Utterances of each split -> SpeechDataset with `sig`, `wrd` and `tree`"""
    keys = ["sig", "wrd", "tree", "spk_id", "gender", "duration"]
    return {split: as_dataset(found, [audio_item], keys) for split, found in utterances.items()}


def tree_brain(hparams, run_opts, sentences):
    """A loaded YAML -> (SABrain, datasets): `recogniser` and `parser` for the symbols of the training trees.

    Raises DataError for sentences whose words need more steps than their audio has.
    """
    symbols = Symbols.of(sentences["train"])
    recogniser = hparams["recogniser"](output_size=len(symbols.characters))
    check_targets(sentences, "wrd", symbols.characters.encode, recogniser, hparams)
    parser = hparams["parser"](
        input_size=recogniser.output_size, relations=len(symbols.relations), upos=len(symbols.upos)
    )
    modules = with_modules(hparams, recogniser=recogniser, parser=parser)
    return SABrain(modules, hparams, run_opts, hparams["checkpointer"], symbols), datasets(sentences)


class SABrain(ASRBrain):
    """modules: encoder, recogniser (frames -> states, log-probabilities), parser (words' frames -> scores).

    The parser learns on the words of the reference, whose frames are those of the likeliest CTC path that
    says them; at test time on the words of the greedy path.
    """

    def __init__(self, modules, hparams, run_opts, checkpointer, symbols):
        super().__init__(modules, hparams, run_opts, checkpointer, symbols.characters)
        self.symbols = symbols
        self.upos_number = {tag: k for k, tag in enumerate(symbols.upos)}
        self.relation_number = {relation: k for k, relation in enumerate(symbols.relations)}
        content = {key: value for key, value in vars(symbols).items() if key != "characters"}
        if if_main_process():
            text = json.dumps(content, ensure_ascii=False)
            write_atomically(self.folder / "symbols.json", text)

    def compute_forward(self, batch, stage):
        """-> states (B, F, H), log-probabilities (B, F, V), numbers of frames (B,), scores on the reference's
        words (`Parser.forward`)"""
        states, log_probs, lens = self.modules.recogniser(*self.encode(batch, stage))
        # alignment steps through frames one by one: on the CPU, and copied there once
        known = zip(log_probs.detach().float().cpu(), lens.tolist(), batch.wrd, strict=True)
        spans = [self.reference_spans(*found) for found in known]
        gold = padded([tree.heads if own else () for tree, own in zip(batch.tree, spans, strict=True)])
        gold = gold.to(states.device)
        scored = self.modules.parser(states, spans, lambda arcs, words: gold)
        return states, log_probs, lens, scored

    def reference_spans(self, log_probs, n, text):
        """Frames of each word of `text` in log-probabilities (F, V), of which n are valid; [] where the text
        does not fit or a word has no character that training saw"""
        target = self.characters.encode(text)
        needed = len(target) + int((target[1:] == target[:-1]).sum())
        if needed > n or not all(len(self.characters.encode(word)) for word in text.split()):
            return []
        return self.spans(reference_path(log_probs[:n], target))

    def words(self, path):
        """CTC path -> [(text, first frame, stop), ...]"""
        found = words_of_path(path, self.characters.number[" "], self.hparams.word_margin)
        return [("".join(self.characters.symbols[s - 1] for s in own), *span) for own, *span in found]

    def spans(self, path):
        return [(first, stop) for _, first, stop in self.words(path)]

    def compute_objectives(self, predictions, batch, stage):
        """Weighted sum of the CTC loss per character and the losses per word of heads, relations and parts of
        speech, mean over the utterances; on valid and test also the rows of the scores"""
        states, log_probs, lens, scored = predictions
        weights, trees = self.hparams.loss_weights, batch.tree
        targets = [self.characters.encode(text) for text in batch.wrd]
        fits = self.check_targets(batch, targets, lens)
        losses = weights["ctc"] * self.ctc(log_probs, targets, lens)
        arcs, heads, labels, upos, words = scored
        reference_trees = [t if n else NO_WORDS for t, n in zip(trees, words.tolist(), strict=True)]
        losses = losses + weights["arc"] * nll(arcs, heads, words)
        numbers = padded(
            [[self.relation_number.get(r, UNKNOWN) for r in t.relations] for t in reference_trees]
        )
        losses = losses + weights["label"] * nll(labels, numbers, words)
        numbers = padded([[self.upos_number.get(tag, UNKNOWN) for tag in t.upos] for t in reference_trees])
        losses = losses + weights["upos"] * nll(upos, numbers, words)
        if stage != TRAIN:
            self.rows += self.score_trees(batch, states, log_probs, lens)
        return losses.sum() / max(int(fits.sum()), 1)

    @staticmethod
    def ctc(log_probs, targets, lens):
        """CTC loss per character (B,), 0 for a target that does not fit"""
        sizes = torch.tensor([len(t) for t in targets], device=lens.device)
        losses = torch.nn.functional.ctc_loss(
            log_probs.transpose(0, 1), torch.cat(targets).to(log_probs.device), lens, sizes,
            reduction="none", zero_infinity=True,
        )  # fmt: skip
        return losses / sizes.clamp(min=1)

    def score_trees(self, batch, states, log_probs, lens):
        """Greedy words and their best trees -> rows with the sums of every score, and the tree as CoNLL-U"""
        paths = log_probs.argmax(-1).cpu()
        words = [self.words(path[:n].tolist()) for path, n in zip(paths, lens.tolist(), strict=True)]
        spans = [[(first, stop) for _, first, stop in of_utterance] for of_utterance in words]
        found = self.modules.parser(states, spans, best_heads)
        trees = self.trees([[text for text, _, _ in of_utterance] for of_utterance in words], *found)
        counts = count_parses(batch.tree, trees, self.hparams.root_quirk)
        chains = [right_branching(tree.words, self.symbols.commonest) for tree in trees]
        chained = count_parses(batch.tree, chains, self.hparams.root_quirk)
        rows = self.score_texts(batch, [tree.text for tree in trees])
        counted = zip(rows, trees, counts.tolist(), chained.tolist(), strict=True)
        for row, tree, (*hits, pairs), (*chain, _) in counted:
            row |= {key: value for name, n in zip(SCORES, hits, strict=True)
                    for key, value in zip(parse_columns(name), (n, pairs), strict=True)}  # fmt: skip
            row["tree"] = as_conllu(tree, row["ID"]) if tree else ""
            row["chain"] = chain
        return rows

    def trees(self, words, arcs, heads, labels, upos, lens):
        """Words of each utterance and what the parser gave -> Trees; a root gets a relation of roots, another
        word a relation of other words"""
        allowed = torch.tensor([self.symbols.others, self.symbols.roots], device=labels.device)
        labels = labels.masked_fill(~allowed[(heads == 0).long()], -torch.inf).argmax(-1).tolist()
        heads, upos, made = heads.tolist(), upos.argmax(-1).tolist(), []
        for b, own in enumerate(words):
            n = len(own)
            tags = tuple(self.symbols.upos[k] for k in upos[b][:n])
            relations = tuple(self.symbols.relations[k] for k in labels[b][:n])
            made.append(Tree(tuple(own), tags, tuple(heads[b][:n]), relations))
        return made

    def scores(self, rows):
        """Rows -> {"WER", "CER", "UPOS", "UAS", "LAS": %}"""
        return super().scores(rows) | parse_scores(rows)

    def statistics(self, rows):
        """{metric: (statistics (n, 2), score function, unit, better)} for the intervals"""
        return word_statistics(rows) | parse_statistics(rows)

    def trivial_baseline(self, rows):
        """Saying nothing, for the words; for the trees, the words that were recognised, each hanging from the
        one before it, with the commonest labels of training"""
        what, silent = super().trivial_baseline(rows)
        for row, hits in zip(silent, self.chains, strict=True):
            row |= {parse_columns(name)[0]: hit for name, hit in zip(SCORES, hits, strict=True)}
        return f"{what}, its trees right-branching ones over the words heard", silent

    def evaluate(self, test_set):
        """Rows of the test set; the recognised words' trees go to `trees.conllu`, where there are words"""
        rows = super().evaluate(test_set)
        blocks = [block for row in rows if (block := row.pop("tree"))]
        self.chains = [row.pop("chain") for row in rows]
        if if_main_process():
            text = "".join(block + "\n\n" for block in blocks)
            write_atomically(self.folder / "trees.conllu", text)
        return rows


def parse_columns(name):
    """Names in `utterances.csv` of a score's hits and aligned words"""
    return f"{name}_correct", f"{name}_words"


def parse_scores(rows):
    """Rows -> {"UPOS", "UAS", "LAS": %} pooled over utterances"""
    return {name: float(rate([sum(r[c] for r in rows) for c in parse_columns(name)])) for name in SCORES}


def word_statistics(rows):
    """What an interval of each error rate needs"""
    return {name: ([[r[c] for c in own] for r in rows], rate, "%", "lower") for name, own in COLUMNS.items()}


def parse_statistics(rows):
    """What an interval of each score of trees needs"""
    return {name: ([[r[c] for c in parse_columns(name)] for r in rows], rate, "%", "higher")
            for name in SCORES}  # fmt: skip


def padded(numbers):
    """B sequences of numbers -> (B, longest, at least 1) int64, zeros beyond each"""
    table = torch.zeros(len(numbers), max(1, max(map(len, numbers))), dtype=torch.int64)
    for row, own in zip(table, numbers, strict=True):
        row[: len(own)] = torch.tensor(own, dtype=torch.int64)
    return table


def nll(log_probs, numbers, lens):
    """log-probabilities (B, W, K), right answers (B, W), numbers of words (B,) -> mean over words (B,)

    Words whose answer is UNKNOWN, and utterances without words, give 0.
    """
    numbers = numbers.to(log_probs.device)
    valid = valid_mask(lens, numbers.shape[1])
    valid = valid & (numbers != UNKNOWN)
    chosen = log_probs.gather(2, numbers.clamp(min=0)[:, :, None])[:, :, 0]
    return -chosen.masked_fill(~valid, 0.0).sum(1) / valid.sum(1).clamp(min=1)
