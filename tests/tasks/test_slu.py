"""Symbols, heads, the chain of runs and the cascade of spoken language understanding."""

import csv
import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from python_process import run_python
from tiny import write_wav2vec2

from lebench_sb.core.errors import DataError, UsageError
from lebench_sb.corpora.own import prepare_own
from lebench_sb.evaluation.metrics.concepts import COLUMNS, concepts, count_all, symbols
from lebench_sb.manifests.reading import read_manifest
from lebench_sb.manifests.utterance import Utterance
from lebench_sb.manifests.writing import write_manifest
from lebench_sb.tasks import curriculum
from lebench_sb.tasks.curriculum import check_source, copy_head, copy_mix, read_symbols, start_from_run
from lebench_sb.tasks.heads.common import (
    PerceptronHead,
    PyramidDecoderHead,
    PyramidHead,
    RecurrentHead,
    WordTagger,
    pool_pairs,
)
from lebench_sb.tasks.slu import SLUBrain, TaggedCharacters, check_concepts, labelled, without_tags
from lebench_sb.tasks.slu_cascade import WordLabels, trigrams
from lebench_sb.training.checkpoints import best_checkpoint

WORD = st.text("aàb'é", min_size=1, max_size=4)
WORDS = st.lists(WORD, max_size=3).map(" ".join)
PIECES = st.lists(st.tuples(st.sampled_from(["", "<ville>", "<temps-date>"]), WORDS), max_size=5)
TEXTS = PIECES.map(lambda ps: " ".join(" ".join(f"{t} {w} >" if t else w for t, w in ps).split()))


def utterance(text, name="a"):
    return Utterance(name, f"{name}.wav", 1.0, labels={"semantics": text})


# ---- symbols


@settings(max_examples=200, deadline=None)
@given(TEXTS)
def test_any_tagged_text_survives_its_path(text):
    characters = TaggedCharacters.of([utterance(text or "a")])
    numbers = characters.encode(text)
    path = torch.cat([torch.tensor([n, n, 0]) for n in numbers.tolist()] or [torch.zeros(1).long()])
    assert characters.decode(path) == text


def test_the_output_layer_has_a_symbol_for_each_label():
    characters = TaggedCharacters.of([utterance("je vais à <ville> nice > et <date> lundi >")])
    tags = {s for s in characters.symbols if s.startswith("<")}
    assert tags == {"<ville>", "<date>"} and ">" in characters.symbols and " " in characters.symbols
    letters = set("jevaisànicetlundi")
    assert len(characters) == 1 + len(letters) + len(tags) + 2  # blank; `>` and the space
    # the spaces around tags are no symbols: 5 spaces fewer than the text has
    text = "à <ville> nice > et"
    assert TaggedCharacters.pieces(text) == ["à", "<ville>", *"nice", ">", *"et"]
    assert len(symbols(text)) == len(TaggedCharacters.pieces(text)) + 4


def test_tags_glued_by_a_model_are_apart_in_its_text():
    characters = TaggedCharacters(["<ville>", ">", " ", "n", "i"])
    assert characters.decode(torch.tensor([1, 4, 5, 2, 2, 0, 2, 3, 1])) == "<ville> ni > > <ville>"


def settings_of(folder, unseen="error"):
    return {f"{split}_csv": str(folder / f"{split}.csv") for split in ("train", "valid", "test")} | {
        "unseen_concepts": unseen
    }


def split_texts(**texts):
    return {split: [utterance(t, f"{split}{i}") for i, t in enumerate(ts)] for split, ts in texts.items()}


def test_concepts_that_train_lacks_are_named_with_their_lines(corpus, tmp_path):
    train = read_manifest(corpus / "train.csv", corpus)
    texts = {"train": ["<ville> x >", "y"], "valid": ["<ville> y >"], "test": ["y", "<vile> x >", "<q> q >"]}
    found = {}
    for split, part in texts.items():
        found[split] = [
            Utterance(f"u{i}", train[i].wav, train[i].duration, labels={"semantics": text})
            for i, text in enumerate(part)
        ]
        write_manifest(tmp_path / f"{split}.csv", found[split], corpus, {})
    with pytest.raises(DataError) as error:
        check_concepts(settings_of(tmp_path), found)
    assert "line 3 <vile> (did you mean <ville>?), line 4 <q>" in str(error.value)
    assert "test.csv" in str(error.value) and "valid.csv" not in str(error.value)
    check_concepts(settings_of(tmp_path, "count"), found)


@pytest.mark.parametrize("split", ["train", "valid", "test"])
def test_a_split_without_concepts_is_refused(split, tmp_path):
    texts = {"train": ["<a> x >"], "valid": ["<a> x >"], "test": ["<a> x >"]} | {split: ["x"]}
    with pytest.raises(DataError, match=f"{split}.csv: no concept in {split}"):
        check_concepts(settings_of(tmp_path, "count"), split_texts(**texts))


def test_a_system_that_hears_nothing_says_the_concepts_that_cost_least():
    references = ["<a> x > <b> y >", "<a> z >", "<a> y > <c> x >", "x"]
    counts = count_all(references, [""] * 4)
    rows = [{"reference": text} for text in references]
    for name, (errors, length) in COLUMNS.items():
        for row, found in zip(rows, counts[name].statistics.tolist(), strict=True):
            row[errors], row[length] = found
    what, baseline = SLUBrain.trivial_baseline(None, rows)
    assert what == "saying always <a>" and sum(r["COER_errors"] for r in baseline) == 1 + 0 + 1 + 1
    assert [r["CVER_errors"] for r in baseline] == [r["CVER_concepts"] for r in rows]
    assert [r["ChER_errors"] for r in baseline] == [len(symbols(text)) for text in references]


# ---- heads


@pytest.mark.parametrize(
    "head",
    [
        lambda: PerceptronHead(6, 5, hidden=8, stack=3),
        lambda: PyramidHead(6, 100.0, 5, hidden=8, levels=3),
        lambda: PyramidDecoderHead(6, 50.0, 5, hidden=8, levels=2, decoder_hidden=8),
    ],
)
def test_a_head_gives_an_utterance_in_a_batch_what_it_gives_it_alone(head):
    torch.manual_seed(0)
    head = head().eval()
    frames, lens = torch.randn(4, 21, 6), torch.tensor([21, 8, 13, 1])  # what follows an utterance is noise
    together, steps = head(frames, lens)
    for k, n in enumerate(lens.tolist()):
        alone, own = head(frames[k : k + 1, :n], lens[k : k + 1])
        assert own[0] == steps[k] == alone.shape[1]
        torch.testing.assert_close(together[k, : steps[k]], alone[0, : own[0]])
    assert torch.allclose(together.exp().sum(-1), torch.ones(together.shape[:2]))


def test_halving_means_pairs_and_leaves_a_last_step_alone():
    states = torch.arange(10.0).reshape(2, 5, 1)
    made, lens = pool_pairs(states, torch.tensor([5, 3]))
    assert lens.tolist() == [3, 2]
    assert made[0, :, 0].tolist() == [0.5, 2.5, 4.0] and made[1, :2, 0].tolist() == [5.5, 7.0]


def test_the_decoder_attends_to_the_whole_utterance_and_to_its_own_past():
    """A change of the last frame changes the first step; one of `embeddings` changes all but the first"""
    torch.manual_seed(0)
    head = PyramidDecoderHead(6, 50.0, 5, hidden=8, levels=2, decoder_hidden=8).eval()
    frames, lens = torch.randn(1, 20, 6), torch.tensor([20])
    before = head(frames, lens)[0]
    with torch.no_grad():
        head.embeddings.weight.mul_(-3)
    after = head(frames, lens)[0]
    assert torch.equal(before[:, 0], after[:, 0]) and not torch.allclose(before[:, 1:], after[:, 1:])
    loss = head(frames, lens)[0].pow(2).mean()
    loss.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in head.parameters())


def test_a_tagger_reads_a_sentence_in_a_batch_as_alone():
    torch.manual_seed(0)
    tagger = WordTagger(9, 4, buckets=16, embedding=8, hidden=8).eval()

    def read(sentences):
        lens = torch.tensor([len(s) for s in sentences])
        numbers = torch.zeros(len(sentences), max(lens), dtype=torch.int64)
        grams, offsets = [], []
        for row, words in enumerate(sentences):
            numbers[row, : len(words)] = torch.tensor([hash_of(w) for w in words])
            for column in range(numbers.shape[1]):
                offsets.append(len(grams))
                grams += trigrams(words[column], 16) if column < len(words) else [0]
        return tagger(numbers, torch.tensor(grams), torch.tensor(offsets), lens)

    def hash_of(word):
        return len(word) % 9

    sentences = [["oui", "demain", "soir"], ["non"], ["le", "mans"]]
    together = read(sentences)
    for k, sentence in enumerate(sentences):
        torch.testing.assert_close(together[k, : len(sentence)], read([sentence])[0])


# ---- the curriculum


def test_shared_symbols_keep_their_rows_and_new_ones_start_fresh():
    old_symbols, new_symbols = ["a", "b", "c"], ["<ville>", ">", "b", "c", "d"]
    old, new = RecurrentHead(6, 50.0, 4, hidden=8), RecurrentHead(6, 50.0, 6, hidden=8)
    before = {name: tensor.clone() for name, tensor in new.state_dict().items()}
    rows = [(0, 0), *((new_symbols.index(s) + 1, old_symbols.index(s) + 1) for s in "bc")]
    copied, fresh = copy_head(old.state_dict(), new, rows)
    assert not fresh and set(copied) == set(before)
    assert torch.equal(new.lstms[1].forwards.weight_hh_l0, old.lstms[1].forwards.weight_hh_l0)
    for name in ("output.weight", "output.bias"):
        now, source = new.state_dict()[name], old.state_dict()[name]
        assert torch.equal(now[[0, 3, 4]], source[[0, 2, 3]])
        assert torch.equal(now[[1, 2, 5]], before[name][[1, 2, 5]])


def test_a_decoder_takes_the_pyramid_and_starts_its_output_fresh():
    sizes = {"hidden": 8, "levels": 2}
    old = PyramidHead(6, 50.0, 4, **sizes)
    new = PyramidDecoderHead(6, 50.0, 4, **sizes, decoder_hidden=8)
    output = {n: t.clone() for n, t in new.state_dict().items() if n.startswith("output")}
    copied, fresh = copy_head(old.state_dict(), new, [(n, n) for n in range(4)])
    assert set(copied) == {n for n in old.state_dict() if not n.startswith("output")}
    assert all(torch.equal(new.state_dict()[name], tensor) for name, tensor in output.items())
    assert set(fresh) == set(new.state_dict()) - set(copied)
    copied, _ = copy_head(RecurrentHead(7, 50.0, 4, hidden=5).state_dict(), new, [(0, 0)])
    assert copied == []


def test_folders_that_hold_nothing_to_start_from_are_named(tmp_path):
    start = (torch.nn.Linear(1, 1), torch.nn.Linear(1, 1), TaggedCharacters(["a"]), "mel_filterbank")
    assert start_from_run("none", *start) == ([], [])
    with pytest.raises(UsageError, match="is not a run of characters"):
        start_from_run(tmp_path, *start)
    (tmp_path / "characters.json").write_text('["a"]')
    with pytest.raises(FileNotFoundError, match="is not the folder of a run"):
        start_from_run(tmp_path, *start)
    (tmp_path / "hyperparams.yaml").write_text("key_metric: COER\nkey_metric_is_better: lower\n")
    (tmp_path / "save").mkdir()
    with pytest.raises(FileNotFoundError, match="holds no checkpoint of a whole epoch"):
        start_from_run(tmp_path, *start)


@pytest.mark.parametrize("text", ["{", '{"a": 1}', "[1]", "null", "[" * 5000])
def test_symbols_that_are_none(tmp_path, text):
    (tmp_path / "characters.json").write_text(text)
    with pytest.raises(UsageError, match="characters.json"):
        read_symbols(tmp_path / "characters.json")


@pytest.mark.parametrize("part", ["head", "encoder"])
def test_a_run_whose_weights_are_not_finite_is_no_start(tmp_path, monkeypatch, part):
    head = torch.nn.Linear(1, 1)
    states = {name: dict(torch.nn.Linear(1, 1).state_dict()) for name in ("head", "encoder")}
    states[part]["bias"] = torch.tensor([float("nan")])
    for name, state in states.items():
        torch.save(state, tmp_path / f"{name}.ckpt")
    (tmp_path / "characters.json").write_text('["a"]')
    for name in ("best_checkpoint", "read_settings"):
        monkeypatch.setattr(curriculum, name, lambda folder: tmp_path)
    monkeypatch.setattr(curriculum, "check_source", lambda *_: None)
    with pytest.raises(UsageError, match=rf"{part}\.ckpt: 1 weights are not finite.*: bias"):
        start_from_run(tmp_path, head, head, TaggedCharacters(["a"]), "mel_filterbank")


class Mixed(torch.nn.Module):
    """An encoder with a weight of its own and a learned sum"""

    def __init__(self):
        super().__init__()
        self.model = torch.nn.Linear(2, 2)
        self.layer_mix = torch.nn.Parameter(torch.zeros(3))

    def pretrained_parameters(self):
        return self.model.parameters()


def test_the_sum_of_layers_is_copied_and_the_encoder_is_not():
    encoder, weight = Mixed(), torch.ones(2, 2) * 7
    copied = copy_mix({"layer_mix": torch.arange(3.0), "model.weight": weight}, encoder)
    assert copied == ["encoder.layer_mix"] and encoder.layer_mix.tolist() == [0, 1, 2]
    assert not torch.equal(encoder.model.weight, weight)
    assert copy_mix({"layer_mix": torch.arange(4.0)}, encoder) == []


def test_a_head_is_given_only_to_the_encoder_it_heard(tmp_path):
    check_source(tmp_path, {"ssl_hub": "org/model"}, "org/model")
    with pytest.raises(UsageError, match="its head needs --ssl_hub org/model, not other"):
        check_source(tmp_path, {"ssl_hub": "org/model"}, "other")
    (tmp_path / "encoder").mkdir()
    check_source(tmp_path, {"ssl_hub": "org/model"}, tmp_path / "encoder")
    with pytest.raises(UsageError, match=f"trained its encoder: its head needs --ssl_hub {tmp_path}/encoder"):
        check_source(tmp_path, {"ssl_hub": "org/model"}, "org/model")


# ---- the cascade


@settings(max_examples=200, deadline=None)
@given(TEXTS)
def test_labels_of_words_spell_the_concepts_again(text):
    labels = WordLabels([text])
    kept = [tag for tag, words in split_concepts(text) if words]
    again = labels.tagged(without_tags(text).split(), labels.encode(text).tolist())
    assert without_tags(again) == without_tags(text) and concepts(again) == kept
    if len(kept) == len(concepts(text)):
        assert again == text


def split_concepts(text):
    """[(tag, number of its words)] of a text"""
    return [(c.split()[0], len(c.split()) - 1) for c in concepts(text, values=True)]


def test_labels_of_a_tagger_that_begin_inside_a_concept():
    labels = WordLabels(["<a> x y > z <b> w >"])
    number = labels.number
    assert labels.symbols == ["O", "B<a>", "B<b>", "I<a>"]
    path = [number[name] for name in ("I<a>", "I<a>", "B<a>", "O", "B<b>", "I<a>")]
    assert labels.tagged("p q r s t u".split(), path) == "<a> p q > <a> r > s <b> t > <a> u >"
    assert labels.tagged([], []) == ""
    assert labelled("<a> > x") == [("x", "O")]


# ---- runs


TAGGED = {"oui": "<reponse> oui >", "non": "<reponse> non >", "demain": "<date> demain >"}
SMALL = ["--noprogressbar", "--num_workers=0", "--max_batch_seconds=12"]


@pytest.fixture(scope="module")
def tagged(corpus, tmp_path_factory):
    """The words that name the tone corpus as a user's own CSV with a column of tagged texts"""
    folder = tmp_path_factory.mktemp("own")
    with open(folder / "my.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["name", "file", "text", "meaning", "who", "part"])
        for split in ("train", "valid", "test"):
            for u in read_manifest(corpus / f"{split}.csv", corpus):
                meaning = " ".join(TAGGED.get(word, word) for word in u.labels["wrd"].split())
                writer.writerow([u.id, u.wav, u.labels["wrd"], meaning, u.speaker, split])
    columns = {"ID": "name", "wav": "file", "wrd": "text", "semantics": "meaning", "spk_id": "who"}
    prepare_own(folder / "my.csv", columns, corpus, folder / "M", split="part")
    made = {split: str(folder / "M" / f"{split}.csv") for split in ("train", "valid", "test")}
    return ["--data_folder", str(corpus), *(w for s in made for w in (f"--{s}_csv", made[s]))]


def run(root, name, words, code=0, epochs=1):
    script = root / "recipes/SLU/MEDIA/train.py", root / f"recipes/SLU/MEDIA/hparams/{name}.yaml"
    argv = [*map(str, script), *SMALL, f"--number_of_epochs={epochs}", *words]
    done = run_python(argv)
    assert done.returncode == code, done.stderr[-3000:]
    return done.stdout + done.stderr


def record(folder):
    return json.loads((folder / "results.json").read_text(encoding="utf-8"))


def test_three_steps_on_own_data_each_from_the_one_before(root, tagged, tmp_path):
    """Words, then concepts, then concepts with a decoder, in SpeechBrain's two-batch mode that keeps files"""
    words = [*tagged, "--ssl_hub", "mel_filterbank", "--debug", "--debug_persistently"]
    one, two, three = (str(tmp_path / name) for name in ("one", "two", "three"))
    run(root, "pyramid_words", [*words, "--head={hidden: 8}", "--output_folder", one])
    assert set(record(tmp_path / "one")["metrics"]) == {"WER", "CER"}
    start = ["--head={hidden: 8}", "--init_from_run", one, "--output_folder", two]
    said = run(root, "pyramid", [*words, *start])
    assert "Of the output layer, the rows of" in said and "Starting fresh: nothing" in said
    start = ["--head={hidden: 8, decoder_hidden: 8}", "--init_from_run", two]
    said = run(root, "pyramid_decoder", [*words, *start, "--output_folder", three])
    assert "norms.1 (2) copied" in said and "first (4), second (4)" in said
    found = record(tmp_path / "three")
    assert (found["task"], found["corpus"]) == ("SLU", "MEDIA")
    assert set(found["metrics"]) == {"COER", "CVER", "ChER"}
    for entry in found["metrics"].values():
        assert entry["ci95"][0] <= entry["value"] <= entry["ci95"][1]
    rows = list(csv.DictReader(open(tmp_path / "three/utterances.csv", encoding="utf-8")))
    assert rows and {"COER_errors", "CVER_concepts", "ChER_symbols", "hypothesis"} <= set(rows[0])
    wrong = ["--ssl_hub", "mel_filterbank", "--init_from_run", str(tmp_path), "--output_folder", f"{two}x"]
    assert "is not a run of characters" in run(root, "pyramid", [*tagged, *wrong], 2)


def test_the_head_of_a_run_starts_where_the_run_before_ended(root, tagged, tmp_path):
    """With learning rate 0 the second run's weights are those of the first's best checkpoint"""
    words = [*tagged, "--ssl_hub", "mel_filterbank", "--layer", "last", "--head={hidden: 8}"]
    run(root, "words", [*words, "--output_folder", str(tmp_path / "one")])
    still = ["--head_lr=0", "--init_from_run", str(tmp_path / "one")]
    run(root, "ctc", [*words, *still, "--output_folder", str(tmp_path / "two")])
    runs = (tmp_path / "one", tmp_path / "two")
    first, second = (torch.load(best_checkpoint(r) / "head.ckpt", weights_only=True) for r in runs)
    letters = [json.loads((r / "characters.json").read_text()) for r in runs]
    shared = [(letters[1].index(s) + 1, letters[0].index(s) + 1) for s in letters[0]]
    new, old = map(list, zip((0, 0), *shared, strict=True))
    assert torch.equal(second["output.weight"][new], first["output.weight"][old])
    same = [name for name in first if not name.startswith("output")]
    assert same and all(torch.equal(first[name], second[name]) for name in same)


def test_a_cascade_reads_what_recognition_wrote(root, tagged, tmp_path):
    """With hypotheses that are the references a tagger that knows the words makes no error"""
    asr = tmp_path / "asr"
    encoder = ["--ssl_hub", "mel_filterbank", "--layer", "last", "--head={hidden: 8}"]
    run(root, "words", [*tagged, *encoder, "--caveats", "[synthetic speech]", "--output_folder", str(asr)])
    rows = list(csv.DictReader(open(asr / "utterances.csv", encoding="utf-8")))
    with open(asr / "utterances.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(row | {"hypothesis": row["reference"]} for row in rows)
    words = [*tagged, "--asr_run", str(asr), "--number_of_epochs=30"]
    words = [w for w in words if w != "--number_of_epochs=1"]
    script = [str(root / "recipes/SLU/MEDIA/train.py"), str(root / "recipes/SLU/MEDIA/hparams/cascade.yaml")]
    argv = [*script, "--noprogressbar", "--output_folder", str(tmp_path / "c"), *words]
    done = run_python(argv)
    assert done.returncode == 0, done.stderr[-3000:]
    found = record(tmp_path / "c")
    assert found["system"] == "cascade: mel_filterbank" and found["caveats"].count("one seed") == 1
    assert "synthetic speech" in found["caveats"] and found["parameters"]["encoder"] == 0
    assert {name: entry["value"] for name, entry in found["metrics"].items()} == dict.fromkeys(
        ("COER", "CVER", "ChER"), 0.0
    )
    # a run that scored other utterances is refused
    with open(asr / "utterances.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows[1:])
    said = run(root, "cascade", [*tagged, "--asr_run", str(asr), "--output_folder", str(tmp_path / "d")], 3)
    assert f"test utterances it did not score (1): {rows[0]['ID']}" in said


@pytest.mark.slow
def test_the_four_modes_and_the_control_on_the_miniature(root, tmp_path):
    """In the layout of the corpus: frozen encoder, random weights, recognition first, end to end, exports"""
    pytest.importorskip("espeakng_loader")
    pytest.importorskip("py_nanotts")

    from lebench_sb.corpora.miniature.build import build_miniature

    build_miniature(tmp_path / "data", scale=0.03, workers=1, corpora=("media",))
    write_wav2vec2(tmp_path / "E")
    words = ["--data_folder", str(tmp_path / "data"), "--head={hidden: 8}", "--debug", "--debug_persistently"]
    few = ["--unseen_concepts", "count"]  # so small a train part lacks some
    exported = str(tmp_path / "asr" / "encoder")
    trained = ["--freeze", "False", "--mode", "end-to-end", "--encoder_warmup_steps", "0"]
    for name, yaml, options in (
        ("frozen", "ctc", ["--ssl_hub", str(tmp_path / "E")]),
        ("random", "ctc", ["--ssl_hub", f"random:{tmp_path / 'E'}"]),
        ("asr", "words", ["--ssl_hub", str(tmp_path / "E"), *trained]),
        ("after-asr", "ctc", ["--ssl_hub", exported, "--init_from_run", str(tmp_path / "asr")]),
        ("e2e", "ctc", ["--ssl_hub", str(tmp_path / "E"), *trained]),
    ):
        options = options if yaml == "words" else [*options, *few]
        run(root, yaml, [*words, *options, "--output_folder", str(tmp_path / name)])
        assert all(np.isfinite(e["value"]) for e in record(tmp_path / name)["metrics"].values())
    assert (tmp_path / "e2e" / "encoder" / "model.safetensors").is_file()
    assert not (tmp_path / "frozen" / "encoder").exists()


@pytest.mark.slow
def test_real_speech_with_gold_slots(root, shared_data, tmp_path):
    """400 English orders whose slots are written as tagged text, through `prepare own` and two batches"""
    pack = shared_data / "dev_pack"
    with open(pack / "tasks" / "slu.csv", encoding="utf-8") as source:
        rows = [row for row in csv.DictReader(source) if row["slots"]]
    assert len(rows) == 400
    with open(tmp_path / "slots.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ["ID", "wav", "spk_id", "semantics"])
        writer.writeheader()
        for row in rows:
            text = " ".join(f"<{name}> {value} >" for name, value in json.loads(row["slots"]).items())
            writer.writerow({**{key: row[key] for key in ("ID", "wav", "spk_id")}, "semantics": text})
    columns = {name: name for name in ("ID", "wav", "spk_id", "semantics")}
    report = prepare_own(tmp_path / "slots.csv", columns, pack, tmp_path / "M", language="en")
    assert sum(marker["utterances"] for marker in report["splits"].values()) == 400
    words = ["--data_folder", str(pack), "--ssl_hub", "mel_filterbank", "--layer", "last", "--debug"]
    words += [w for s in ("train", "valid", "test") for w in (f"--{s}_csv", str(tmp_path / "M" / f"{s}.csv"))]
    run(root, "ctc", [*words, "--head={hidden: 8}", "--output_folder", str(tmp_path / "r")])
    assert set(record(tmp_path / "r/debug")["metrics"]) == {"COER", "CVER", "ChER"}


@pytest.mark.full
def test_eight_utterances_can_be_overfitted(root, corpus, tagged, tmp_path):
    """From files through decoder and scorer: no concept of what it was trained on is wrong"""
    train = tagged[tagged.index("--train_csv") + 1]
    eight = [u for u in read_manifest(train, corpus) if concepts(u.labels["semantics"])][:8]
    write_manifest(tmp_path / "eight.csv", eight, corpus, {})
    words = ["--data_folder", str(corpus), "--ssl_hub", "mel_filterbank", "--layer", "last"]
    words += [w for s in ("train", "valid", "test") for w in (f"--{s}_csv", str(tmp_path / "eight.csv"))]
    words += ["--allow_shared_audio", "True"]
    script = [str(root / "recipes/SLU/MEDIA/train.py"), str(root / "recipes/SLU/MEDIA/hparams/ctc.yaml")]
    options = ["--head={dropout: 0.0}", "--mask=!name:lebench_sb.audio.augment.no_mask"]
    options += ["--num_workers=0", "--number_of_epochs=100", "--max_batch_seconds=5", "--noprogressbar"]
    options += ["--output_folder", str(tmp_path / "r")]
    argv = [*script, *words, *options]
    done = run_python(argv)
    assert done.returncode == 0, done.stderr[-3000:]
    assert record(tmp_path / "r")["metrics"]["CVER"]["value"] <= 2.0


@pytest.mark.full
def test_a_curriculum_lowers_the_error_of_the_same_training(root, tagged, tmp_path):
    """Twenty epochs from the head that knows the words, and twenty from nothing"""
    words = [*tagged, "--ssl_hub", "mel_filterbank", "--layer", "last"]
    run(root, "words", [*words, "--output_folder", str(tmp_path / "words")], epochs=100)
    run(root, "ctc", [*words, "--output_folder", str(tmp_path / "fresh")], epochs=20)
    start = ["--init_from_run", str(tmp_path / "words")]
    run(root, "ctc", [*words, *start, "--output_folder", str(tmp_path / "started")], epochs=20)
    scores = {name: record(tmp_path / name)["metrics"]["ChER"]["value"] for name in ("fresh", "started")}
    assert scores["started"] < scores["fresh"] - 5.0, scores
