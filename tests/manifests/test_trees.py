"""CoNLL-U with every fault we know of, and trees over the words that are heard."""

import gzip
import time

import pytest

from lebench_sb.core.errors import DataError, Problems
from lebench_sb.manifests.trees import (
    COLUMNS,
    NO_WORDS,
    Tree,
    _depths,
    _heads_among,
    as_conllu,
    read_blocks,
    spoken_tree,
    tree_faults,
    trees_of,
)
from lebench_sb.manifests.utterance import Utterance
from lebench_sb.text.normaliser import fr_1
from lebench_sb.text.normaliser import none as as_it_is


def line(number, form, upos="X", head=0, relation="dep", misc="_"):
    return "\t".join([str(number), form, "_", upos, "_", "_", str(head), relation, "_", misc])


def conllu(*lines, name="s1"):
    return "\n".join([f"# sent_id = {name}", *lines]) + "\n\n"


def read(folder, text, **options):
    (folder / "x.conllu").write_text(text, encoding="utf-8")
    problems = Problems("here")
    return list(read_blocks(folder / "x.conllu", problems, **options)), str(problems)


AU = (
    line(1, "Je", "PRON", 2, "nsubj"), line(2, "vais", "VERB", 0, "root"), line("3-4", "au", "_", "_", "_"),
    line(3, "à", "ADP", 5, "case"), line(4, "le", "DET", 5, "det"),
    line(5, "parc", "NOUN", 2, "obl:arg", "SpaceAfter=No"), line(6, ".", "PUNCT", 2, "punct"),
)  # fmt: skip


def test_a_sound_file(tmp_path):
    text = "# newdoc id = d\n\n" + conllu(*AU) + conllu(line(1, "oui", "INTJ", 0, "root"), name="s2").rstrip()
    found, problems = read(tmp_path, text)
    assert problems == "here: " and [(b.name, b.line, len(b.nodes)) for b in found] == [
        ("s1", 3, 6),
        ("s2", 12, 1),
    ]
    assert found[0].tokens[5]["misc"] == {"SpaceAfter": "No"} and found[0].tokens[2]["id"] == (3, "-", 4)


def test_crlf_and_bom(tmp_path):
    path = tmp_path / "x.conllu"
    path.write_bytes(b"\xef\xbb\xbf" + conllu(*AU).replace("\n", "\r\n").encode())
    problems = Problems("here")
    assert len(next(read_blocks(path, problems)).nodes) == 6 and not problems


@pytest.mark.parametrize(
    "lines, said",
    [
        ([line(1, "a")[:-2]], "lines without 10 columns (1): x.conllu, line 2 has 9, sent_id s1"),
        ([line(1, "a") + "\tz"], "lines without 10 columns (1): x.conllu, line 2 has 11"),
        ([line(1, "a").replace("\t", " ")], "separated by spaces instead of tabs?"),
        ([line(1, "a").replace("\t", "  ")], "separated by spaces instead of tabs?"),
        ([line(1, "")], "empty form"),
        ([line(1, "a", head="x")], "not CoNLL-U, Failed parsing field 'head': 'x' is not a valid"),
        ([line("un", "a")], "not CoNLL-U, Failed parsing field 'id'"),
        ([line(1, "a", head="_")], "head missing or not from 0 to 1 (1): x.conllu, line 1, sent_id s1"),
        ([line(1, "a"), line(2, "b", head=3)], "head missing or out of range"),
        ([line(1, "a"), line(3, "b", head=1)], "words not numbered 1, 2, 3"),
        ([line(1, "a"), line(2, "b")], "more than one root"),
        ([line(1, "a", head=2), line(2, "b", head=1)], "no root, cycle (1): x.conllu, line 1, sent_id s1"),
        ([line(1, "a"), line(2, "b", head=3), line(3, "c", head=2)], "cycle (1)"),
        ([line(1, "a", head=1)], "cycle"),
        ([line("1-2", "ab", head="_"), line(1, "a")], "multiword tokens that overlap or cover words"),
        (
            [line("1-2", "ab", head="_"), line("2-2", "b", head="_"), line(1, "a"), line(2, "b", head=1)],
            "multiword tokens that overlap",
        ),
    ],
)
def test_every_fault_is_named_with_its_place_and_the_rest_is_read(tmp_path, lines, said):
    found, problems = read(tmp_path, conllu(*lines) + conllu(*AU, name="good"))
    assert said in problems and [b.name for b in found] == ["good"]


def test_a_sentence_without_its_name_says_so(tmp_path):
    _, problems = read(tmp_path, line(1, "a", head=1) + "\n")
    assert "line 1, sent_id missing" in problems


def test_more_columns_where_they_are_expected(tmp_path):
    columns = (*COLUMNS, "begin", "end", "speaker")
    lines = [line(1, "a") + "\t0.5\t0.7", line(2, "b", head=1) + "\t0.7\t1.0\tL1\tmore"]
    found, problems = read(tmp_path, conllu(*lines), columns=columns, fewest=12)
    assert problems == "here: " and found[0].tokens[0]["end"] == "0.7"
    assert found[0].tokens[0].get("speaker") is None and found[0].tokens[1]["speaker"] == "L1"
    found, problems = read(tmp_path, conllu(line(1, "a") + "\t0.5"), columns=columns, fewest=12)
    assert "lines without 12 columns or more (1): x.conllu, line 2 has 11" in problems and not found


def test_what_is_no_tree():
    assert tree_faults([0]) == tree_faults([2, 0]) == tree_faults([2, 3, 0]) == []
    assert tree_faults([0, 0]) == ["more than one root"] and tree_faults([2, 1]) == ["no root", "cycle"]
    assert tree_faults([0, 3, 2, 1]) == ["cycle"]


# ---- spoken words


def spoken(tmp_path, *lines, normalise=fr_1, **options):
    (block,), _ = read(tmp_path, conllu(*lines))
    return spoken_tree(block, normalise, **options)


def test_a_multiword_token_is_one_word_and_punctuation_goes(tmp_path):
    expected = Tree(
        ("je", "vais", "au", "parc"), ("PRON", "VERB", "ADP", "NOUN"), (2, 0, 4, 2),
        ("nsubj", "root", "case", "obl:arg"),
    )  # fmt: skip
    assert spoken(tmp_path, *AU) == expected
    split = spoken(tmp_path, *AU, multiword="split")
    assert split.words == ("je", "vais", "à", "le", "parc") and split.heads == (2, 0, 5, 5, 2)


def test_a_multiword_token_takes_the_place_of_its_word_nearest_to_the_root(tmp_path):
    """b (root) hangs above x, x above a; a and b are one token: no cycle arises"""
    lines = [line("1-2", "ab", "_", "_", "_"), line(1, "a", "A", 3, "low"), line(2, "b", "B", 0, "root")]
    tree = spoken(tmp_path, *lines, line(3, "x", "X", 2, "dep"))
    assert tree == Tree(("ab", "x"), ("B", "X"), (0, 1), ("root", "dep"))


def test_pieces_of_a_form_stay_one_word_and_marks_of_broken_off_words_go(tmp_path):
    lines = [line(1, "Vingt-six", "NUM", 2), line(2, "euros", "NOUN", 0), line(3, "vou~", "PRON", 2)]
    lines += [line(4, "parce que", "SCONJ", 2), line(5, "d'#accord", "INTJ", 2), line(6, "#", "X", 5)]
    tree = spoken(tmp_path, *lines)
    assert tree.words == ("vingt_six", "euros", "vou", "parce_que", "d'_accord")
    assert spoken(tmp_path, line(1, "L'", "DET", 0), normalise=as_it_is).words == ("L'",)


def test_what_hung_on_a_word_left_out_hangs_on_its_head(tmp_path):
    lines = [line(1, ",", "PUNCT", 2, "punct"), line(2, "…", "X", 4, "dep"), line(3, "a", "X", 1, "low")]
    tree = spoken(tmp_path, *lines, line(4, "b", "X", 0, "root"))
    assert tree == Tree(("a", "b"), ("X", "X"), (2, 0), ("low", "root"))


def test_where_the_root_is_left_out_the_first_of_its_words_is_root(tmp_path):
    lines = [line(1, ".", "PUNCT", 0, "root"), line(2, "a", "X", 1, "p"), line(3, "b", "X", 1, "q")]
    assert spoken(tmp_path, *lines) == Tree(("a", "b"), ("X", "X"), (0, 1), ("root", "q"))
    assert spoken(tmp_path, line(1, "!", "PUNCT", 0)) == NO_WORDS


def test_empty_nodes_are_left_out(tmp_path):
    lines = [line(1, "a", "X", 0, "root"), line("1.1", "fantôme", "X", "_", "_"), line(2, "b", "X", 1)]
    assert spoken(tmp_path, *lines).words == ("a", "b")


def test_real_spoken_trees_stay_trees(shared_data, tmp_path):
    """Every sentence of UD_French-ParisStories (text alone), in both readings of multiword tokens"""
    count = 0
    for name in ("train", "dev"):
        path = shared_data / "dev_pack" / "text" / f"fr_parisstories-ud-{name}.conllu.gz"
        (tmp_path / "p.conllu").write_bytes(gzip.decompress(path.read_bytes()))
        problems = Problems(path)
        for block in read_blocks(tmp_path / "p.conllu", problems):
            for multiword in ("merge", "split"):
                tree = spoken_tree(block, fr_1, multiword)
                assert tree_faults(tree.heads) == ([] if tree else ["no root"])
                assert tree.relations.count("root") == (1 if tree else 0)
            count += 1
        assert not problems, problems
    assert count > 1500


# ---- trees of utterances


def utterance(name, tree, **labels):
    return Utterance(name, "/x.wav", 1.0, labels={"tree": tree, **labels})


def test_trees_are_found_inline_in_a_file_and_by_their_key(tmp_path):
    (tmp_path / "t.conllu").write_text(conllu(*AU, name="a") + conllu(*AU[:2], name="b"), encoding="utf-8")
    merged = spoken(tmp_path, *AU)
    found = [utterance("a", "t.conllu"), utterance("c", "t.conllu#b"), utterance("i", as_conllu(merged)),
             utterance("p", str(tmp_path / "t.conllu") + "#a", wrd="je vais au parc")]  # fmt: skip
    trees = trees_of(found, tmp_path, "fr-1")
    assert trees["a"] == trees["i"] == trees["p"] == merged and trees["c"].words == ("je", "vais")


def test_all_that_is_wrong_with_trees_is_listed(tmp_path):
    (tmp_path / "t.conllu").write_text(
        conllu(*AU, name="abc") + conllu(line(1, "x", head=1), name="bad"), encoding="utf-8"
    )
    found = [
        utterance("none", ""), utterance("abd", "t.conllu"), utterance("lost", "no.conllu"),
        utterance("bad", "t.conllu"), utterance("inline", "1\ta\tb"),
        utterance("u", "t.conllu#abc", wrd="tu"),
        utterance("mute", line(1, ".", "PUNCT", 0)), utterance("emoji", line(1, "☃", "X", 0)),
    ]  # fmt: skip
    with pytest.raises(DataError) as error:
        trees_of(found, tmp_path, "fr-1", where="valid.csv")
    for said in (
        "valid.csv: ", "no tree (1): none", "abd (did you mean abc?)", "no.conllu", "bad", "cycle (1)",
        "line 1 has 3, sent_id missing", "'tu', 'je vais au parc'", "without a spoken word (1): mute", "☃",
    ):  # fmt: skip
        assert said in str(error.value), said


def test_conllu_that_is_written_is_read_again(tmp_path):
    tree = spoken(tmp_path, *AU)
    (block,), problems = read(tmp_path, as_conllu(tree, "again") + "\n\n")
    assert problems == "here: " and block.name == "again" and spoken_tree(block, fr_1) == tree


def test_absurd_numbers_are_faults_and_take_no_time(tmp_path):
    far = line("3-99999999999", "au", "_", "_", "_")
    texts = [
        conllu(*AU[:2], far, *AU[3:], name="far"),
        conllu(line("9" * 5000, "x", head=0), name="digits"),
        conllu(line(1, "x", head="9" * 5000), name="head"),
        conllu(line(1, "x") + "\t_" * 1_000_000, name="columns"),
        conllu(line(1, "x"), line("2-1", "x", "_", "_", "_"), name="back"),
    ]
    began = time.process_time()
    found, said = read(tmp_path, "".join(texts))
    assert not found and time.process_time() - began < 5
    for name in ("far", "digits", "head", "columns", "back"):
        assert f"sent_id {name}" in said, name
    assert len(said) < 2500


def test_chains_and_cycles_of_any_length_take_no_time():
    n, began = 30_000, time.process_time()
    chain = [*range(2, n + 1), 0]
    assert tree_faults(chain) == [] and tree_faults([*chain[:-1], 1]) == ["no root", "cycle"]
    assert _depths(chain)[0] == n and _depths([0, *range(1, n)])[-1] == n
    assert _heads_among(chain, list(range(1, 1000)))[:2] == [2, 3]
    assert time.process_time() - began < 5
