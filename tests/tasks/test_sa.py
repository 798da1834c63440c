"""Speech parsing: words and their frames, the parser's modules, the best tree, and the recipe on own data."""

import csv
import itertools
import json

import numpy as np
import pytest
import torch
from python_process import run_python
from tiny import write_wav2vec2

from lebench_sb.core.errors import DataError
from lebench_sb.corpora.own import prepare_own
from lebench_sb.evaluation.metrics.parsing import count_parses
from lebench_sb.manifests.reading import read_manifest
from lebench_sb.manifests.trees import NO_WORDS, Tree, as_conllu, read_blocks, tree_faults
from lebench_sb.manifests.utterance import Utterance
from lebench_sb.manifests.writing import write_manifest
from lebench_sb.tasks.heads.parser import (
    Parser,
    Recogniser,
    best_heads,
    impossible,
    maximum_tree,
    reference_path,
    words_of_path,
)
from lebench_sb.tasks.sa import UNKNOWN, Symbols, load_sentences, nll, padded, right_branching

# ---- the tree of a system that hears words and parses nothing


def test_a_right_branching_tree_has_the_commonest_labels_of_training():
    tree = Tree(("il", "la", "voit"), ("PRON", "PRON", "VERB"), (3, 3, 0), ("nsubj", "obj", "root"))
    more = Tree(("il", "dort"), ("PRON", "VERB"), (2, 0), ("nsubj", "root"))
    utterances = [Utterance(t.text, "a.wav", 1.0, labels={"tree": t, "wrd": t.text}) for t in (tree, more)]
    symbols = Symbols.of(utterances)
    assert symbols.commonest == ("PRON", "root", "nsubj")
    chain = right_branching(("elle", "te", "voit"), symbols.commonest)
    assert chain == Tree(("elle", "te", "voit"), ("PRON",) * 3, (0, 1, 2), ("root", "nsubj", "nsubj"))
    assert tree_faults(chain.heads) == [] and right_branching((), symbols.commonest) == NO_WORDS
    gold = Tree(("elle", "te", "voit"), ("PRON", "PRON", "VERB"), (0, 1, 1), ("root", "obj", "nsubj"))
    assert count_parses([gold], [chain]).tolist() == [[2, 2, 1, 3]]
    alone = Tree(("oui",), ("INTJ",), (0,), ("root",))
    only = Symbols.of([Utterance("a", "a.wav", 1.0, labels={"tree": alone, "wrd": "oui"})])
    assert only.commonest == ("INTJ", "root", "root")


# ---- the best tree


def every_tree(n):
    """All (n,) heads that are a tree with one root"""
    return [heads for heads in itertools.product(range(n + 1), repeat=n) if not tree_faults(heads)]


def total(scores, heads):
    return sum(scores[word, head] for word, head in enumerate(heads))


@pytest.mark.parametrize("n, tries", [(1, 3), (2, 20), (3, 40), (4, 40), (5, 20), (6, 4)])
def test_the_best_tree_is_the_best_of_all_trees(n, tries):
    trees = every_tree(n)
    assert len(trees) == n ** (n - 1)  # Cayley: rooted trees over n numbered words
    rng = np.random.default_rng(n)
    for number in range(tries):
        scores = rng.normal(size=(n, n + 1))
        if number % 3 == 1:
            scores[:, 0] += 5.0  # every word would like to be the root
        if number % 3 == 2:
            scores = rng.integers(-2, 2, size=(n, n + 1)).astype(float)  # ties
        found = maximum_tree(scores)
        assert tree_faults(found.tolist()) == []
        assert total(scores, found) == pytest.approx(max(total(scores, heads) for heads in trees))
        np.testing.assert_array_equal(found, maximum_tree(scores))


def test_the_best_tree_of_long_sentences_is_that_of_networkx():
    networkx = pytest.importorskip("networkx")
    rng = np.random.default_rng(0)
    for n in (12, 25):
        scores = rng.normal(size=(n, n + 1))
        best = -np.inf
        for root in range(n):
            graph = networkx.DiGraph()
            pairs = itertools.permutations(range(n), 2)
            graph.add_weighted_edges_from((h, w, scores[w, h + 1]) for h, w in pairs if w != root)
            tree = networkx.maximum_spanning_arborescence(graph)
            best = max(best, scores[root, 0] + sum(d["weight"] for _, _, d in tree.edges(data=True)))
        assert total(scores, maximum_tree(scores)) == pytest.approx(best)


def test_scores_that_are_not_finite_still_give_a_tree():
    assert maximum_tree(np.zeros((0, 1))).tolist() == []
    assert tree_faults(maximum_tree(np.full((4, 5), np.nan)).tolist()) == []
    scores = np.array([[-np.inf, -np.inf, 1.5, 0.0], [0.0, 2.0, -np.inf, 0.0], [0.0, -np.inf, 1.0, -np.inf]])
    # the cycle 1 - 2 must be broken, and word 1 cannot be the root
    assert maximum_tree(scores).tolist() == [2, 0, 2]


# ---- words and their frames


def test_words_lie_between_spaces_with_a_margin_of_silence():
    a, b, space = 1, 2, 3
    path = [0, 0, 0, a, a, 0, b, 0, space, 0, 0, b, b, 0, b, 0, 0, 0]
    assert words_of_path(path, space, 9) == [([a, b], 0, 8), ([b, b], 9, 18)]
    assert words_of_path(path, space, 1) == [([a, b], 2, 8), ([b, b], 10, 16)]
    assert words_of_path(path, space, 0) == [([a, b], 3, 7), ([b, b], 11, 15)]
    assert words_of_path([space, 0, space, space, a, space], space, 5) == [([a], 4, 5)]
    assert words_of_path([], space, 5) == words_of_path([0, space, 0], space, 5) == []
    # the same symbol on both sides of a space is two symbols
    assert words_of_path([a, space, a], space, 0) == [([a], 0, 1), ([a], 2, 3)]


def test_the_path_of_a_reference_is_the_likeliest_that_says_it():
    torch.manual_seed(0)
    for target in ([1, 2], [1, 1], [2, 3, 2], [1], []):
        log_probs = (3 * torch.randn(5, 4)).log_softmax(-1)
        paths = {}
        for path in itertools.product(range(4), repeat=5):
            said = [s for k, s in enumerate(path) if s and (k == 0 or path[k - 1] != s)]
            if said == target:
                paths[path] = sum(float(log_probs[f, s]) for f, s in enumerate(path))
        found = tuple(reference_path(log_probs, torch.tensor(target, dtype=torch.int64)))
        assert paths[found] == pytest.approx(max(paths.values()), abs=1e-5)


# ---- modules


@pytest.mark.parametrize("rate, context", [(50.0, 0), (100.0, 2)])
def test_the_recogniser_gives_an_utterance_in_a_batch_what_it_gives_it_alone(rate, context):
    torch.manual_seed(0)
    recogniser = Recogniser(6, rate, 5, hidden=8, layers=2, context_layers=context, context=4).eval()
    lens = torch.tensor([21, 8, 1])
    frames = torch.randn(3, 21, 6) * (torch.arange(21)[None, :, None] < lens[:, None, None])
    states, log_probs, steps = recogniser(frames, lens)
    for k, n in enumerate(lens.tolist()):
        alone, logs, own = recogniser(frames[k : k + 1, :n], lens[k : k + 1])
        assert own[0] == steps[k] == -(-n // recogniser.stack)
        torch.testing.assert_close(states[k, : steps[k]], alone[0])
        torch.testing.assert_close(log_probs[k, : steps[k]], logs[0])


SPANS = [[(0, 4), (5, 9), (9, 10)], [], [(2, 3)], [(0, 6), (6, 7)]]


def tiny_parser():
    torch.manual_seed(0)
    options = {"word_hidden": 7, "word_layers": 2, "hidden": 6, "layers": 2, "mlp": 5}
    parser = Parser(4, relations=3, upos=2, **options)
    with torch.no_grad():
        for parameter in parser.parameters():
            parameter *= 2.0  # at their usual size all scores are nearly equal
    return parser


def test_the_parser_gives_an_utterance_in_a_batch_what_it_gives_it_alone():
    parser, states = tiny_parser().eval(), torch.randn(4, 10, 4)
    together = parser(states, SPANS, best_heads)
    assert together[4].tolist() == [3, 0, 1, 2]
    for k, spans in enumerate(SPANS):
        n, stop = len(spans), max((last for _, last in spans), default=1)
        arcs, heads, labels, upos, lens = parser(states[k : k + 1, :stop], [spans], best_heads)
        assert lens.tolist() == [n]
        torch.testing.assert_close(together[0][k, :n, : n + 1], arcs[0, :n, : n + 1])
        assert together[1][k, :n].tolist() == heads[0, :n].tolist()
        torch.testing.assert_close(together[2][k, :n], labels[0, :n])
        torch.testing.assert_close(together[3][k, :n], upos[0, :n])
        assert tree_faults(heads[0, :n].tolist()) == ([] if n else ["no root"])


def test_no_word_is_its_own_head_or_hangs_on_padding():
    table = impossible(torch.tensor([2, 0]), 3)
    assert (~table[0]).tolist()[:2] == [[True, False, True, False], [True, True, False, False]]
    assert not table[:, :, 0].any()  # the root is always there: no row without a candidate
    arcs = tiny_parser().eval()(torch.randn(4, 10, 4), SPANS, best_heads)[0].exp()
    torch.testing.assert_close(arcs.sum(-1), torch.ones(4, 3))
    assert arcs[3, 0, 1] == arcs[3, 0, 3] == 0 and arcs[3, 0, 2] > 0


@pytest.mark.parametrize("spans", [SPANS, [[]] * 4])
def test_every_parameter_has_a_finite_gradient_even_without_words(spans):
    parser, states = tiny_parser(), torch.randn(4, 10, 4, requires_grad=True)
    zero = torch.zeros(4, max(1, max(map(len, spans))), dtype=torch.int64)
    arcs, _, labels, upos, lens = parser(states, spans, lambda arcs, words: zero)
    sum(nll(scores, zero, lens).sum() for scores in (arcs, labels, upos)).backward()
    for name, parameter in parser.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
    assert parser.upos.weight.grad.any() == (spans is SPANS)


def test_labels_that_training_never_saw_are_told(caplog):
    from lebench_sb.tasks.sa import warn_of_unseen

    def split(upos, relation):
        tree = Tree(("oui",), (upos,), (0,), (relation,))
        return [Utterance("a", "a.wav", 1.0, labels={"tree": tree, "wrd": "oui"})]

    known = split("INTJ", "root")
    warn_of_unseen({"train": known, "valid": split("X", "root"), "test": known})
    assert [r.getMessage() for r in caplog.records] == ["valid: labels unseen in train, always an error: X"]


def test_losses_are_means_over_the_words_that_have_an_answer():
    scores = torch.randn(3, 4, 5).log_softmax(-1)
    answers = torch.tensor([[1, 2, 3, 4], [0, UNKNOWN, 2, 0], [0, 0, 0, 0]])
    found = nll(scores, answers, torch.tensor([4, 3, 0]))
    first = torch.nn.functional.nll_loss(scores[0], answers[0])
    second = torch.nn.functional.nll_loss(scores[1, :3], answers[1, :3], ignore_index=UNKNOWN)
    torch.testing.assert_close(found, torch.stack([first, second, torch.tensor(0.0)]))
    assert padded([(), (3, 1)]).tolist() == [[0, 0], [3, 1]] and padded([()]).shape == (1, 1)


def test_symbols_are_those_of_training():
    tree = Tree(("il", "dort"), ("PRON", "VERB"), (2, 0), ("nsubj", "root"))
    symbols = Symbols.of([Utterance("a", "a.wav", 1.0, labels={"tree": tree, "wrd": tree.text})])
    assert symbols.upos == ("PRON", "VERB") and symbols.relations == ("nsubj", "root")
    assert symbols.roots == (False, True) and symbols.others == (True, False)
    word = Tree(("oui",), ("INTJ",), (0,), ("root",))
    symbols = Symbols.of([Utterance("a", "a.wav", 1.0, labels={"tree": word, "wrd": "oui"})])
    assert symbols.others == (True,) and " " in symbols.characters.number  # any word needs some relation


# ---- the recipe

SENTENCES = [  # words, UPOS, heads, relations
    ("le chat dort", "DET NOUN VERB", (2, 3, 0), "det nsubj root"),
    ("je mange une pomme", "PRON VERB DET NOUN", (2, 0, 4, 2), "nsubj root det obj"),
    ("oui", "INTJ", (0,), "root"),
    ("il pleut encore ici", "PRON VERB ADV ADV", (2, 0, 2, 2), "expl:subj root advmod advmod"),
    ("une belle maison", "DET ADJ NOUN", (3, 3, 0), "det amod root"),
    ("non merci", "INTJ INTJ", (0, 1), "root discourse"),
    ("elle chante très bien", "PRON VERB ADV ADV", (2, 0, 4, 2), "nsubj root advmod advmod"),
    ("marie dort", "PROPN VERB", (2, 0), "nsubj root"),
]


@pytest.fixture(scope="module")
def own_data(corpus, tmp_path_factory):
    """The user's own recordings and a table whose trees are in one CoNLL-U file, with and without the name of
    the sentence, or in the table itself -> words of the command line"""
    folder = tmp_path_factory.mktemp("own")
    rows, blocks = [], []
    for split, count in (("train", 16), ("valid", 6), ("test", 13)):
        for number in range(count):
            name, (text, upos, heads, relations) = f"{split}{number}", SENTENCES[number % 8]
            (folder / f"{name}.wav").write_bytes((corpus / f"{name}.wav").read_bytes())
            tree = Tree(*(tuple(x.split()) for x in (text, upos)), heads, tuple(relations.split()))
            lines = zip(range(1, 9), tree.words, tree.upos, tree.heads, tree.relations, strict=False)
            blocks += [f"# sent_id = {name}", *("\t".join(map(str, (k, w.title(), "_", u, "_", "_", h, r, "_",
                       "_"))) for k, w, u, h, r in lines), ""]  # fmt: skip
            path = ("trees.conllu", f"trees.conllu#{name}", as_conllu(tree))[number % 3]
            rows.append([name, f"{name}.wav", f"{text} !", f"{split}{number % 12}", split, path])
    (folder / "trees.conllu").write_text("\n".join(blocks) + "\n", encoding="utf-8")
    with open(folder / "own.csv", "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["id", "path", "text", "who", "set", "syntax"], *rows])
    columns = {"ID": "id", "wav": "path", "wrd": "text", "spk_id": "who", "tree": "syntax"}
    prepare_own(folder / "own.csv", columns, folder, folder / "m", split="set")
    words = ["--data_folder", str(folder)]
    return words + [w for s in ("train", "valid", "test") for w in (f"--{s}_csv", f"{folder}/m/{s}.csv")]


SMALL = ["--recogniser={hidden: 16, layers: 1, context: 8, context_layers: 1}", "--num_workers", "0",
         "--parser={word_hidden: 8, word_layers: 1, hidden: 8, layers: 1, mlp: 8}"]  # fmt: skip
MEL = ["--ssl_hub", "mel_filterbank", "--layer", "last"]


def run(root, folder, words, recipe="ORFEO", prefix=()):
    script = f"recipes/SA/{recipe}/train.py", f"recipes/SA/{recipe}/hparams/wav2tree.yaml"
    argv = [*prefix, *(str(root / s) for s in script), *words, "--noprogressbar"]
    argv += ["--output_folder", str(folder)]
    done = run_python(argv)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads((folder / "results.json").read_text())


def check_run(folder, record):
    """Five scores with intervals, sums that give them again, trees that are trees"""
    assert list(record["metrics"]) == ["WER", "CER", "UPOS", "UAS", "LAS"] and record["task"] == "SA"
    assert all(m["ci95"] and m["method"] == "bootstrap over speakers" for m in record["metrics"].values())
    rows = list(csv.DictReader((folder / "utterances.csv").open(encoding="utf-8")))
    for name in ("UPOS", "UAS", "LAS"):
        hits, words = (sum(int(row[f"{name}_{k}"]) for row in rows) for k in ("correct", "words"))
        assert record["metrics"][name]["value"] == pytest.approx(100 * hits / words)
        assert record["metrics"][name]["better"] == "higher"
    baseline = json.loads((folder / "trivial_baseline.json").read_text())
    assert [baseline[name]["value"] for name in ("WER", "CER")] == [100, 100]
    assert 0 <= baseline["LAS"]["value"] <= baseline["UAS"]["value"] < 100
    blocks = list(read_blocks(folder / "trees.conllu", None))  # None: a faulty tree would raise
    labels = [(t["head"] == 0, t["deprel"] == "root") for b in blocks for t in b.nodes]
    assert all(at_root == says_root for at_root, says_root in labels)
    hypotheses = {row["ID"]: row["hypothesis"] for row in rows if row["hypothesis"]}
    assert {b.name: " ".join(t["form"] for t in b.nodes) for b in blocks} == hypotheses
    return rows


def test_the_users_own_recordings_with_the_filterbank_baseline(root, own_data, tmp_path):
    record = run(root, tmp_path / "r", [*own_data, *MEL, *SMALL, "--number_of_epochs", "1"], "Rhapsodie")
    assert len(check_run(tmp_path / "r", record)) == 13
    assert {"characters.json", "symbols.json"} <= {path.name for path in (tmp_path / "r").iterdir()}


def test_own_trees_that_do_not_fit_stop_before_training(root, own_data, tmp_path):
    path = own_data[own_data.index("--valid_csv") + 1]
    text = open(path, encoding="utf-8").read().replace(",oui", ",bonjour").replace("#valid1", "#valid99")
    (tmp_path / "valid.csv").write_text(text, encoding="utf-8")
    hparams = {"data_folder": own_data[1], "normaliser": "fr-1", "multiword": "merge", "min_duration": 0.1}
    hparams |= {"max_duration": 9, "train_csv": own_data[3], "valid_csv": str(tmp_path / "valid.csv")}
    with pytest.raises(DataError, match="valid99.*'bonjour', 'oui'"):
        load_sentences(hparams)


@pytest.mark.full
def test_eight_sentences_can_be_overfitted(root, own_data, tmp_path):
    """From files to LAS: words, tags and trees of what it was trained on"""
    eight = [u for u in read_manifest(own_data[3], own_data[1]) if u.id in {f"train{k}" for k in range(8)}]
    write_manifest(tmp_path / "eight.csv", eight, own_data[1], {})
    words = [*own_data[:2], *MEL, "--num_workers", "0", "--mask=!name:lebench_sb.audio.augment.no_mask"]
    words += [w for s in ("train", "valid", "test") for w in (f"--{s}_csv", str(tmp_path / "eight.csv"))]
    words += ["--allow_shared_audio", "True"]
    words += ["--recogniser={hidden: 128, layers: 1, context: 128, max_rate: 25.0, dropout: 0.0}"]
    words += ["--parser={word_hidden: 128, word_layers: 1, hidden: 128, layers: 1, mlp: 64, dropout: 0.0}"]
    words += ["--number_of_epochs", "220", "--head_lr", "0.002"]
    record = run(root, tmp_path / "r", words)
    assert record["metrics"]["LAS"]["value"] > 90 and record["metrics"]["WER"]["value"] < 5
    assert "same speaker in train and test" in record["caveats"]


@pytest.fixture(scope="module")
def tiny_encoder(tmp_path_factory):
    """A folder of an untrained wav2vec 2.0 of 2 layers"""
    return write_wav2vec2(tmp_path_factory.mktemp("encoder"))


@pytest.mark.slow
def test_frozen_untrained_cached_and_end_to_end(root, own_data, tiny_encoder, tmp_path):
    short = [*own_data, *SMALL, "--number_of_epochs", "1"]
    end = "--freeze False --mode end-to-end --context_layers 0 --precision bf16 --root_quirk True"
    for name, words in {
        "frozen": ["--ssl_hub", str(tiny_encoder)],
        "cached": ["--ssl_hub", str(tiny_encoder), "--feature_cache", str(tmp_path / "cache")],
        "control": ["--ssl_hub", f"random:{tiny_encoder}"],
        "end": ["--ssl_hub", str(tiny_encoder), *end.split(), "--encoder_warmup_steps", "0"],
    }.items():
        record = run(root, tmp_path / name, [*short, *words])
        check_run(tmp_path / name, record)
        assert (record["parameters"]["encoder"] > 0) and (record["mode"] == "end-to-end") == (name == "end")
    assert (tmp_path / "end" / "encoder" / "config.json").exists()
    frozen, cached = ((tmp_path / name / "utterances.csv").read_text() for name in ("frozen", "cached"))
    assert frozen == cached


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["ORFEO", "Rhapsodie"])
def test_the_miniature_in_the_corpuss_own_layout(root, recipe, tmp_path):
    pytest.importorskip("espeakng_loader")
    pytest.importorskip("py_nanotts")
    from lebench_sb.corpora.miniature.build import build_miniature

    build_miniature(tmp_path / "data", scale=0.05, workers=1, corpora=(recipe.lower(),))
    words = ["--data_folder", str(tmp_path / "data" / recipe.lower()), "--number_of_epochs", "1"]
    words += ["--caveats", "[synthetic speech]", *MEL, *SMALL]
    record = run(root, tmp_path / "r", words, recipe)
    assert record["corpus"] == recipe and "synthetic speech" in record["caveats"]
    assert record["metrics"]["LAS"]["n"] == record["data"]["test"]["utterances"] > 3


@pytest.mark.slow
def test_two_processes_score_each_utterance_once(root, own_data, tmp_path):
    prefix = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    words = [*own_data, *MEL, *SMALL, "--number_of_epochs", "2", "--max_batch_seconds", "6"]
    record = run(root, tmp_path / "r", words, prefix=prefix)
    assert len(check_run(tmp_path / "r", record)) == 13


@pytest.mark.slow
def test_real_speech_with_automatic_trees(root, shared_data, tmp_path):
    """369 sentences parsed by spaCy (silver, never gold) on real recordings; those with one sentence each"""
    pack = shared_data / "dev_pack"
    with open(pack / "tasks" / "sa.csv", encoding="utf-8") as file:
        rows = {row["ID"]: row for row in csv.DictReader(file)}
    names = {}
    for line in (pack / "sa_silver_fr.conllu").read_text(encoding="utf-8").splitlines():
        if line.startswith("# sent_id"):
            sentence = line.split(" = ")[1]
        elif line.startswith("# audio_id"):
            names.setdefault(line.split(" = ")[1], []).append(sentence)
    found = {"train": [], "valid": [], "test": []}
    for name, (sentence, *others) in sorted(names.items()):
        if name in rows and not others:
            row = rows[name]
            labels = {"tree": f"sa_silver_fr.conllu#{sentence}"}
            u = Utterance(name, str(pack / row["wav"]), float(row["duration"]), labels=labels)
            found[row["split"].replace("dev", "valid")].append(u)
    assert sum(map(len, found.values())) > 200
    words = ["--data_folder", str(pack), "--number_of_epochs", "1", *MEL, *SMALL]
    for split, utterances in found.items():
        write_manifest(tmp_path / f"{split}.csv", utterances, pack, {})
        words += [f"--{split}_csv", str(tmp_path / f"{split}.csv")]
    record = run(root, tmp_path / "r", words)
    assert record["metrics"]["LAS"]["n"] == len(found["test"]) > 10


def test_no_words_at_all_score_nothing():
    gold = Tree(("oui",), ("INTJ",), (0,), ("root",))
    assert count_parses([gold], [NO_WORDS]).tolist() == [[0, 0, 0, 1]]
