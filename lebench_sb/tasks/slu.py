"""Spoken language understanding by CTC over characters and concept tags.

The target is the tagged text of the column `semantics`: an opening tag is one symbol, `>` closes. A tag
implies the spaces around it, so they are no symbols of their own. Letters: see lebench_sb.tasks.asr.
"""

import re
from collections import Counter
from pathlib import Path

from lebench_sb.core.errors import DataError, Problems, UsageError, nearest
from lebench_sb.evaluation import results
from lebench_sb.evaluation.metrics.concepts import COLUMNS, concepts, count_all, symbols
from lebench_sb.evaluation.metrics.errors import count_edits
from lebench_sb.manifests.labels import check_texts
from lebench_sb.manifests.member_names import manifest_paths
from lebench_sb.manifests.tables import read_table
from lebench_sb.manifests.targets import check_targets
from lebench_sb.manifests.utterance import CLOSE, TAG
from lebench_sb.tasks.asr import ASRBrain, Characters, datasets
from lebench_sb.tasks.brain import with_modules
from lebench_sb.tasks.curriculum import start_from_run

AROUND_TAGS = re.compile(rf" *({TAG.pattern}|>) *")
SILENT = dict(COLUMNS[name] for name in ("CVER", "ChER"))  # errors: reference length
TRIED = 30  # sequences of concepts that the trivial baseline may say
OUTSIDE = "O"  # the label of a word of no concept
COUNT, REFUSED = "count", "error"  # values of `unseen_concepts`


class TaggedCharacters(Characters):
    """The characters of the training texts and their opening tags, one symbol each, and `>`."""

    column = "semantics"

    @staticmethod
    def pieces(text):
        """tagged text -> its symbols, without the spaces around tags"""
        return symbols(AROUND_TAGS.sub(r"\1", " ".join(text.split())))

    def decode(self, numbers):
        """A CTC path (repeats and blanks in it) -> tagged text, each tag between spaces"""
        return " ".join(AROUND_TAGS.sub(r" \1 ", super().decode(numbers)).split())


class SLUBrain(ASRBrain):
    """modules: encoder and head, as for recognition; rates of concepts, concepts and values, symbols."""

    columns_of = staticmethod(COLUMNS.get)

    def rates(self, rows):
        return list(COLUMNS)

    def score_texts(self, batch, texts):
        """Tagged hypotheses (B) -> one row per utterance: errors, reference lengths, reference, hypothesis"""
        references = self.texts(batch)
        rows = [{**row, "reference": r, "hypothesis": t}
                for row, r, t in zip(self.described(batch), references, texts, strict=True)]  # fmt: skip
        for name, found in count_all(references, texts).items():
            for row, pair in zip(rows, found.statistics, strict=True):
                row |= {column: int(value) for column, value in zip(COLUMNS[name], pair, strict=True)}
        return rows

    def trivial_baseline(self, rows):
        """Always the same concepts without words: of the references' commonest sequences and their single
        concepts the one with the least COER on these very references; nothing said for the other rates"""
        references = [row["reference"] for row in rows]
        tags = [tuple(concepts(text)) for text in references]
        singles = Counter((tag,) for sequence in tags for tag in sequence)
        commonest = [
            sequence for counts in (Counter(tags), singles) for sequence, _ in counts.most_common(TRIED)
        ]
        counts = {sequence: count_edits(tags, [sequence] * len(tags)).errors for sequence in ((), *commonest)}
        best = min(counts, key=lambda sequence: (counts[sequence].sum(), sequence))
        baseline = [
            {**row, "COER_errors": int(errors), **{n: row[length] for n, length in SILENT.items()}}
            for row, errors in zip(rows, counts[best], strict=True)
        ]
        return f"saying always {' '.join(best)}" if best else "saying nothing", baseline


def check_labels(splits, settings, findings):
    """Tagged texts in the column semantics whose concepts train holds; for a cascade (`asr_run`), the
    recognition run that heard the test set"""
    cascade = "asr_run" in settings
    texts = check_texts(splits, TaggedCharacters.column, settings, findings, None if cascade else letters)
    if len(texts) == len(splits):
        findings.collect(check_concepts, settings, splits)
        tell_unseen(texts, findings)
    if cascade:
        if not Path(settings["asr_run"]).is_dir():
            raise UsageError(f"--asr_run {settings['asr_run']}: no such folder of a recognition run.")
        findings.collect(results.hypotheses, settings["asr_run"], splits["test"], spoken_words)


def labelled(text):
    """tagged text -> [(word, label)]; a concept without words leaves no trace"""
    pairs, current, first = [], None, False
    for token in text.split():
        if TAG.fullmatch(token):
            current, first = token, True
        elif token == CLOSE:
            current = None
        else:
            pairs.append((token, f"{'B' if first else 'I'}{current}" if current else OUTSIDE))
            first = False
    return pairs


def without_tags(text):
    """tagged text -> its words"""
    return " ".join(word for word, _ in labelled(text))


def spoken_words(utterance):
    """What a recogniser should say of an utterance: its tagged text without the tags"""
    return without_tags(utterance.labels["semantics"])


def letters(text):
    """tagged text -> its characters without the tags, which are compared as concepts"""
    return list(AROUND_TAGS.sub(" ", text))


def tell_unseen(texts, findings):
    """Concepts of valid and test that train lacks, each an error of the scores"""
    counts = {
        split: Counter(tag for text in counted for tag in concepts(text)) for split, counted in texts.items()
    }
    unseen = {split: {tag: n for tag, n in sorted(counted.items()) if tag not in counts["train"]}
              for split, counted in counts.items()}  # fmt: skip
    findings.tell("unseen_concepts", {split: counted for split, counted in unseen.items() if counted})


def concepts_brain(hparams, run_opts, utterances):
    """A loaded YAML -> (SLUBrain, datasets), targets from `semantics`; DataError for concepts that cannot be
    learned"""
    check_concepts(hparams, utterances)
    return characters_brain(SLUBrain, TaggedCharacters, hparams, run_opts, utterances)


def words_brain(hparams, run_opts, utterances):
    """A loaded YAML -> (ASRBrain, datasets), targets from `wrd`: the first step of the curriculum"""
    return characters_brain(ASRBrain, Characters, hparams, run_opts, utterances)


def characters_brain(brain_class, symbols_class, hparams, run_opts, utterances):
    """Symbols from the training texts, a head of that size, started from `init_from_run` if it names a run"""
    characters = symbols_class.of(utterances["train"])
    encoder, head = hparams["modules"]["encoder"], hparams["head"](output_size=len(characters))
    check_targets(utterances, characters.column, characters.encode, head, hparams)
    start_from_run(hparams["init_from_run"], encoder, head, characters, hparams["ssl_hub"])
    modules = with_modules(hparams, head=head)
    brain = brain_class(modules, hparams, run_opts, hparams["checkpointer"], characters)
    return brain, datasets(utterances, symbols_class.column)


def check_concepts(hparams, utterances):
    """Raises DataError for a split without concepts, or concepts of valid and test that train lacks.

    The latter are named with the lines of their manifests, unless `unseen_concepts` is "count".
    """
    found = {
        split: {tag for u in part for tag in concepts(u.labels.get("semantics", ""))}
        for split, part in utterances.items()
    }
    for split, tags in found.items():
        if not tags:
            hint = "its column semantics holds texts like `je vais à <ville> nice >`"
            raise DataError(f"{hparams[split + '_csv']}: no concept in {split}; {hint}.")
    if str(hparams["unseen_concepts"]) not in (COUNT, REFUSED):
        raise UsageError(f"--unseen_concepts {hparams['unseen_concepts']}: {REFUSED} or {COUNT}.")
    unseen = set().union(*found.values()) - found["train"]
    if unseen and str(hparams["unseen_concepts"]) != COUNT:
        paths = [path for split in ("valid", "test") for path in manifest_paths(hparams[f"{split}_csv"])]
        raise DataError("; ".join(filter(None, (where_unseen(p, unseen, found["train"]) for p in paths))))


def where_unseen(path, unseen, concepts_of_train):
    """The lines of a manifest with concepts that train lacks, in words; "" if there are none"""
    header, rows = read_table(path, ",")
    problems, column = Problems(path), header.index("semantics")
    kind = "concepts that train lacks (misspelt? --unseen_concepts count scores them as errors)"
    for line, fields in rows:
        for tag in unseen.intersection(concepts(fields[column])):
            problems.add(kind, f"line {line} {tag}{nearest(tag, concepts_of_train)}")
    return str(problems) if problems else ""
