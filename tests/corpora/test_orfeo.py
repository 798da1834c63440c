"""The Orféo parser on lines typed as the corpus has them, and on what the miniature writes."""

import json
import time

import numpy as np
import pytest
import soundfile

from lebench_sb.core.errors import DataError
from lebench_sb.corpora.orfeo import prepare_orfeo, utterances
from lebench_sb.manifests.reading import read_manifest
from lebench_sb.manifests.trees import trees_of

# ID FORM LEMMA CPOS POS FEATS HEAD DEPREL HEAD DEPREL BEGIN END SPEAKER
FIRST = """\
# sent_id = cefc-{n}-1
# text = euh donc j'habite à Lille
1	euh	euh	INT	INT	_	4	periph	4	periph	0.10	0.32	L1
2	donc	donc	ADV	ADV	_	4	periph	4	periph	0.32	0.55	L1
3	j'	je	CLS	CLS	_	4	subj	4	subj	0.55	0.60	L1
4	habite	habiter	VRB	VRB	_	0	root	0	root	0.60	0.98	L1
5	à	à	PRE	PRE	_	4	dep	4	dep	0.98	1.05	L1
6	Lille	Lille	NOM	NOM	_	5	dep	5	dep	1.05	1.50	L1
"""
SECOND = """\
# sent_id = cefc-{n}-2
# text = parce que oui
1	parce#que	parce#que	CSU	CSU	_	2	mark	2	mark	1.60	1.80	L2
2	oui	oui	INT	INT	_	0	root	0	root	1.80	1.99
"""


def corpus(folder, files=None, seconds=2.0, suffix=".wav"):
    files = files if files is not None else {f"r{k}": (FIRST, SECOND) for k in range(4)}
    for name, blocks in files.items():
        path = folder / f"{name}.orfeo"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(b.format(n=path.stem) for b in blocks), encoding="utf-8")
        soundfile.write(path.with_suffix(suffix), np.zeros(int(16000 * seconds)), 16000)
    return folder


def test_real_lines(tmp_path):
    corpus(tmp_path, {"oral/r0": (FIRST, SECOND)})
    one, two = utterances(tmp_path)
    assert (one.id, one.start, one.stop, one.duration) == ("cefc-r0-1", 0.1, 1.5, 1.4)
    assert one.wav == str(tmp_path / "oral" / "r0.wav") and one.speaker == "r0-L1" and two.speaker == "r0-L2"
    assert one.labels["wrd"] == "euh donc j' habite à lille" and two.labels["wrd"] == "parce_que oui"
    tree = trees_of([one], tmp_path, "fr-1")["cefc-r0-1"]
    assert tree.heads == (4, 4, 4, 0, 4, 5) and tree.upos == ("INT", "ADV", "CLS", "VRB", "PRE", "NOM")
    assert tree.relations == ("periph", "periph", "subj", "root", "dep", "dep")


def test_prepare_draws_whole_recordings_and_repeats(tmp_path):
    folder = corpus(tmp_path / "data", {f"r{k}": (FIRST, SECOND) for k in range(10)})
    markers = prepare_orfeo(folder, tmp_path / "m")
    assert {s: m["utterances"] for s, m in markers.items()} == {"train": 16, "valid": 2, "test": 2}
    before = (tmp_path / "m" / "test.csv").stat().st_mtime_ns
    assert prepare_orfeo(folder, tmp_path / "m") == markers
    assert (tmp_path / "m" / "test.csv").stat().st_mtime_ns == before
    tests = {frozenset(u.wav for u in read_manifest(tmp_path / "m" / "test.csv", folder))}
    for seed in range(8):
        prepare_orfeo(folder, tmp_path / "m", seed=seed, ratios=(0.4, 0.3, 0.3))
        splits = {s: read_manifest(tmp_path / "m" / f"{s}.csv", folder) for s in markers}
        wavs = {s: {u.wav for u in found} for s, found in splits.items()}
        assert {s: len(w) for s, w in wavs.items()} == {"train": 4, "valid": 3, "test": 3}
        assert len(set.union(*wavs.values())) == 10
        tests.add(frozenset(wavs["test"]))
    assert len(tests) > 4


def test_a_changed_annotation_is_prepared_again(tmp_path):
    folder = corpus(tmp_path / "data")
    prepare_orfeo(folder, tmp_path / "m")
    corpus(folder, {f"r{k}": (FIRST.replace("Lille", "Paris"),) for k in range(4)})
    prepare_orfeo(folder, tmp_path / "m")
    for split in ("train", "valid", "test"):
        words = {u.labels["wrd"] for u in read_manifest(tmp_path / "m" / f"{split}.csv", folder)}
        assert words == {"euh donc j' habite à paris"}


def test_splits_by_folders(tmp_path):
    names = ["train/a", "train/sub/b", "dev/c", "test/d"]
    folder = corpus(tmp_path / "data", {name: (FIRST,) for name in names})
    prepare_orfeo(folder, tmp_path / "m")
    ids = {s: [u.id for u in read_manifest(tmp_path / "m" / f"{s}.csv", folder)]
           for s in ("train", "valid", "test")}  # fmt: skip
    assert ids == {"train": ["cefc-a-1", "cefc-b-1"], "valid": ["cefc-c-1"], "test": ["cefc-d-1"]}


def test_splits_by_lists_of_recordings_and_of_sentences(tmp_path):
    folder = corpus(tmp_path / "data")
    (folder / "train.txt").write_text("r0.orfeo\nr1\ncefc-r2-1\n")
    (folder / "dev.txt").write_text("cefc-r2-2\n")
    (folder / "test.txt").write_text("cefc-r3-1\n")
    markers = prepare_orfeo(folder, tmp_path / "m")
    assert {s: m["utterances"] for s, m in markers.items()} == {"train": 5, "valid": 1, "test": 1}
    assert markers["train"]["dropped"] == {"in no list of a split": 1}
    (folder / "test.txt").write_text("cefc-r3-1\nr9\ncefc-r2-1\ncefc-r1-2\n")
    with pytest.raises(DataError) as error:
        prepare_orfeo(folder, tmp_path / "m")
    for said in ("test.txt:2 r9", "names in two lists (1): test.txt:3 cefc-r2-1", "another (1): cefc-r1-2"):
        assert said in str(error.value)
    (folder / "dev.txt").unlink()
    with pytest.raises(DataError, match="dev.txt not found; lists of splits must be all three or none"):
        prepare_orfeo(folder, tmp_path / "m")


BAD = {
    "columns": FIRST.replace("\t0.32\t0.55\tL1", "\t0.32"),
    "cycle": FIRST.replace("4	habite	habiter	VRB	VRB	_	0", "4	habite	habiter	VRB	VRB	_	5"),
    "roots": FIRST.replace("5	à	à	PRE	PRE	_	4", "5	à	à	PRE	PRE	_	0"),
    "seconds": FIRST.replace("0.98\t1.05", "0,98\t1.05"),
    "back": FIRST.replace("0.98\t1.05", "0.30\t1.05"),
    "late": FIRST.replace("1.05\t1.50", "1.05\t2.50"),
    "twice": FIRST.replace("cefc-{n}-1", "cefc-good-1"),
    "name": FIRST.replace("# sent_id = cefc-{n}-1\n", ""),
    "untimed": "\n".join(line.rsplit("\t", 3)[0] + "\t_\t_" if line[0] != "#" else line
                         for line in FIRST.splitlines()),  # fmt: skip
    "letter": FIRST.replace("Lille", "☃"),
}  # fmt: skip
SAID = [
    "lines without 12 columns or more (1): columns.orfeo, line 4 has 11, sent_id cefc-columns-1",
    "no root, cycle (1): cycle.orfeo, line 1, sent_id cefc-cycle-1", "more than one root (1): roots.orfeo",
    "numbers (1): seconds.orfeo, line 1, sent_id cefc-seconds-1 '0,98'", "backwards (1): back.orfeo",
    "after their recording (1): cefc-late-1 [0.1, 2.5] of 2.00 s", "there twice (1): cefc-good-1",
    "without sent_id (1): name.orfeo, line 1", "without times (1): untimed.orfeo", "letter.orfeo",
    "or leave them out, counted, with --drop_bad True",
]  # fmt: skip


def test_all_faults_are_listed_or_left_out_and_counted(tmp_path):
    files = {"good": (FIRST, SECOND), "good2": (FIRST,), "good3": (FIRST,)}
    folder = corpus(tmp_path / "data", files | {name: (block,) for name, block in BAD.items()})
    (folder / "nowav.orfeo").write_text(FIRST.format(n="nowav"))
    with pytest.raises(DataError) as error:
        prepare_orfeo(folder, tmp_path / "m")
    for said in [*SAID, "no recording (1): nowav (nowav.orfeo, line 1"]:
        assert said in str(error.value), said
    assert not (tmp_path / "m" / "train.csv").exists()
    markers = prepare_orfeo(folder, tmp_path / "m", drop_bad=True)
    assert sum(m["utterances"] for m in markers.values()) == 4
    assert sum(markers["train"]["dropped"].values()) == len(BAD) + 1


def test_what_is_left_out_is_told_by_its_split(tmp_path):
    """A sentence lost from test is told with test: by folder, by list (of recordings, of sentences), drawn"""
    cycle = SECOND.replace("1.60	1.80", "1.80	1.60")
    names = ["train/a", "dev/b", "test/c", "test/d"]
    folder = corpus(tmp_path / "f", {n: (FIRST, cycle if n[0] == "t" else SECOND) for n in names})
    fault = "times that go backwards"
    dropped = {s: m["dropped"] for s, m in prepare_orfeo(folder, tmp_path / "m", drop_bad=True).items()}
    assert dropped == {"train": {fault: 1}, "valid": {}, "test": {fault: 2}}
    (folder / "train.txt").write_text("a\n")
    (folder / "dev.txt").write_text("cefc-b-1\ncefc-d-2\n")
    (folder / "test.txt").write_text("c\ncefc-d-1\n")
    dropped = {s: m["dropped"] for s, m in prepare_orfeo(folder, tmp_path / "m", drop_bad=True).items()}
    lost = {"in no list of a split": 1, fault: 1}
    assert dropped == {"train": lost, "valid": {fault: 1}, "test": {fault: 1}}
    folder = corpus(tmp_path / "g", {f"r{k}": (FIRST, cycle) for k in range(4)})
    markers = prepare_orfeo(folder, tmp_path / "m", drop_bad=True)
    assert all(m["dropped"] == {fault: m["utterances"]} for m in markers.values())


def test_a_list_of_another_release_is_told_at_once(tmp_path):
    """The nearest name is looked for where it is shown, not thousands of times"""
    folder = corpus(tmp_path / "data")
    for name, split in (("r0", "train"), ("r1", "dev"), ("r2", "test")):
        wrong = "".join(f"cefc-tufs-{k}-{k % 99}\n" for k in range(20_000 if split == "train" else 0))
        (folder / f"{split}.txt").write_text(f"{name}\n{wrong}")
    began = time.process_time()
    with pytest.raises(DataError, match=r"names of no .* \(20000\): train.txt:2 cefc-tufs-0"):
        prepare_orfeo(folder, tmp_path / "m")
    assert time.process_time() - began < 3


@pytest.mark.parametrize(
    "begin, end, said", [("8.98", "9.05", "words over 5 s apart"), ("0.98", "9.05", "words of over 5 s")]
)
def test_a_sentence_that_is_no_one_piece_is_a_fault(tmp_path, begin, end, said):
    text = FIRST.replace("0.98	1.05", f"{begin}	{end}").replace("1.05	1.50", "9.05	9.50")
    with pytest.raises(DataError, match=f"{said}.*r0.orfeo, line 1, sent_id cefc-r0-1"):
        list(utterances(corpus(tmp_path, {"r0": (text,)}, seconds=10.0)))


def test_a_compressed_copy_is_no_second_recording_but_two_folders_are(tmp_path):
    folder = corpus(tmp_path, {"r0": (FIRST,)})
    soundfile.write(folder / "r0.mp3", np.zeros(32000), 16000)
    assert next(utterances(folder)).wav.endswith("r0.wav")
    (folder / "other").mkdir()
    soundfile.write(folder / "other" / "r0.wav", np.zeros(32000), 16000)
    with pytest.raises(DataError, match="several recordings of one name"):
        next(utterances(folder))


def test_an_end_rounded_past_the_recording_is_cut(tmp_path):
    folder = corpus(tmp_path, {"r0": (FIRST,)}, seconds=1.45)
    assert next(utterances(folder)).stop == 1.45


def test_what_data_folder_must_hold(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no \*.orfeo file. data_folder must hold"):
        prepare_orfeo(tmp_path, tmp_path / "m")
    corpus(tmp_path, {"a": (FIRST,), "b": (FIRST,)})
    with pytest.raises(DataError, match="2 recordings for three splits"):
        prepare_orfeo(tmp_path, tmp_path / "m")
    corpus(tmp_path, {"sub/a": (FIRST,)})
    with pytest.raises(DataError, match="keep one of the files named a.orfeo"):
        prepare_orfeo(tmp_path, tmp_path / "m")


def test_the_miniature(tmp_path):
    pytest.importorskip("espeakng_loader")
    pytest.importorskip("py_nanotts")
    from lebench_sb.corpora.miniature.build import build_miniature
    from lebench_sb.corpora.miniature.layout_orfeo import name, token_starts
    from lebench_sb.corpora.miniature.texts import clips

    build_miniature(tmp_path / "data", scale=0.02, workers=1, corpora=("orfeo",))
    markers = prepare_orfeo(tmp_path / "data" / "orfeo", tmp_path / "m")
    assert all(marker["caveats"] == ["synthetic speech"] for marker in markers.values())
    plan = clips(0, 0.02, ("orfeo",))
    said = {f"cefc-{name(clip)}-{k}": s for clip in plan for k, s in enumerate(clip.sentences, 1)}
    for split in markers:
        found = read_manifest(tmp_path / "m" / f"{split}.csv", tmp_path / "data" / "orfeo")
        trees = trees_of(found, tmp_path / "data" / "orfeo", "fr-1")
        for u in found:
            sentence, tree = said.pop(u.id), trees[u.id]
            gold = [t for t in sentence.tokens if t.upos != "PUNCT"]
            assert list(tree.upos) == [t.upos for t in gold]
            assert list(tree.relations) == [t.relation for t in gold]
            numbers = [k for k, t in enumerate(sentence.tokens, 1) if t.upos != "PUNCT"]
            heads = [numbers.index(t.head) + 1 if t.head else 0 for t in gold]
            assert list(tree.heads) == heads and 0.3 < u.duration < 20
            assert tree.text.replace("_", " ").replace("  ", " ").split() == list(sentence.words)
            starts = token_starts(sentence, (u.start, u.stop), [])
            assert starts == sorted(starts) and starts[0] == u.start
    assert not said
    text = json.loads((tmp_path / "data" / "miniature.done.json").read_text())
    assert text["corpora"] == ["orfeo"]
