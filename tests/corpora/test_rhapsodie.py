"""The Rhapsodie parser on lines typed as the treebank has them."""

import numpy as np
import pytest
import soundfile

from lebench_sb.core.errors import DataError
from lebench_sb.corpora.rhapsodie import prepare_rhapsodie, utterances
from lebench_sb.manifests.reading import read_manifest
from lebench_sb.manifests.trees import trees_of

SENTENCE = """\
# sent_id = {name}-{k}
# sound_url = http://www.projet-rhapsodie.fr/sounds/{name}.{suffix}
# text = on va au cinéma,
1	on	on	PRON	_	Gender=Masc|Number=Sing|Person=3	2	nsubj	_	AlignBegin=100|AlignEnd=250
2	va	aller	VERB	_	Mood=Ind|VerbForm=Fin	0	root	_	AlignBegin=250|AlignEnd=400
3-4	au	_	_	_	_	_	_	_	AlignBegin=400|AlignEnd=500
3	à	à	ADP	_	_	5	case	_	_
4	le	le	DET	_	Definite=Def|Gender=Masc	5	det	_	_
5	cinéma	cinéma	NOUN	_	Gender=Masc	2	obl:arg	_	AlignBegin=500|AlignEnd=990|SpaceAfter=No
6	,	,	PUNCT	_	_	2	punct	_	_

"""
NAMES = {"train": "Rhap_D0001", "dev": "Rhap_M0002", "test": "Rhap-D2003"}


def corpus(folder, texts=None, suffix="wav"):
    (folder / "audio").mkdir(parents=True)
    for split, name in NAMES.items():
        text = "".join(SENTENCE.format(name=name, k=k, suffix="mp3") for k in (1, 2))
        text = (texts or {}).get(split, text)
        (folder / f"fr_rhapsodie-ud-{split}.conllu").write_text(text, encoding="utf-8")
        soundfile.write(folder / "audio" / f"{name}.{suffix}", np.zeros(16000), 16000)
    return folder


@pytest.mark.parametrize("suffix", ["wav", "mp3"])
def test_real_lines(tmp_path, suffix):
    """The URL names an mp3; the same recording as wav will do"""
    folder = corpus(tmp_path / "d", suffix=suffix)
    one, two = utterances(folder, "train")
    assert (one.id, one.start, one.stop, one.duration) == ("Rhap_D0001-1", 0.1, 0.99, 0.89)
    assert one.wav == str(folder / "audio" / f"Rhap_D0001.{suffix}") and one.speaker == "Rhap_D0001"
    assert one.labels["wrd"] == "on va au cinéma" and two.id == "Rhap_D0001-2"
    tree = trees_of([one], folder, "fr-1")[one.id]
    assert tree.heads == (2, 0, 4, 2) and tree.relations == ("nsubj", "root", "case", "obl:arg")
    assert next(utterances(folder, "test")).speaker == "Rhap-D2003"


def test_prepare_keeps_the_treebanks_splits_and_repeats(tmp_path):
    folder = corpus(tmp_path / "d")
    markers = prepare_rhapsodie(folder, tmp_path / "m")
    assert {s: m["utterances"] for s, m in markers.items()} == {"train": 2, "valid": 2, "test": 2}
    before = (tmp_path / "m" / "valid.csv").stat().st_mtime_ns
    assert prepare_rhapsodie(folder, tmp_path / "m") == markers
    assert (tmp_path / "m" / "valid.csv").stat().st_mtime_ns == before
    prepare_rhapsodie(folder, tmp_path / "m", multiword="split")
    found = read_manifest(tmp_path / "m" / "valid.csv", folder)
    assert [u.labels["wrd"] for u in found] == ["on va à le cinéma"] * 2
    assert {u.id for u in found} == {"Rhap_M0002-1", "Rhap_M0002-2"}


def test_all_faults_are_listed_or_left_out_and_counted(tmp_path):
    good = SENTENCE.format(name="Rhap_D0001", k=1, suffix="wav")
    bad = [
        good.replace("D0001-1", "D0001-2").replace("\t0\troot", "\t5\tobj"),
        good.replace("D0001-1", "D0001-3").replace("AlignBegin=500", "AlignBegin=5e2"),
        good.replace("Rhap_D0001", "Rhap_D0009"),
        good.replace("D0001-1", "D0001-5").replace("AlignBegin=100|AlignEnd=250", "AlignBegin=100"),
        good,
    ]
    folder = corpus(tmp_path / "d", {"train": good + "".join(bad)})
    with pytest.raises(DataError) as error:
        prepare_rhapsodie(folder, tmp_path / "m")
    for said in (
        "cycle (1): fr_rhapsodie-ud-train.conllu, line 12, sent_id Rhap_D0001-2",
        "AlignBegin=5e2 AlignEnd=990", "AlignBegin=100 AlignEnd=None", "no recording (1): Rhap_D0009.wav",
        "sent_id there twice (1): Rhap_D0001-1", "--drop_bad True",
    ):  # fmt: skip
        assert said in str(error.value), said
    marker = prepare_rhapsodie(folder, tmp_path / "m", drop_bad=True)["train"]
    assert marker["utterances"] == 1 and sum(marker["dropped"].values()) == 5


@pytest.mark.parametrize("times", ["AlignBegin=0|AlignEnd=0", "AlignBegin=990|AlignEnd=100", "AlignBegin=x"])
def test_times_of_punctuation_are_not_read(tmp_path, times):
    good = SENTENCE.format(name="Rhap_D0001", k=1, suffix="wav")
    mark = "6\t,\t,\tPUNCT\t_\t_\t2\tpunct\t_\t"
    assert f"{mark}_" in good
    folder = corpus(tmp_path / "d", {"train": good.replace(f"{mark}_", mark + times)})
    (one,) = utterances(folder, "train")
    assert (one.start, one.stop) == (0.1, 0.99)


@pytest.mark.parametrize(
    "old, new, said",
    [
        ("AlignBegin=500|AlignEnd=990", "AlignBegin=9500|AlignEnd=9990", "words over 5 s apart"),
        ("AlignBegin=500|AlignEnd=990", "AlignBegin=500|AlignEnd=9990", "words of over 5 s .is one of their"),
        ("AlignBegin=100|AlignEnd=250", "AlignBegin=0|AlignEnd=9250", "words of over 5 s"),
    ],
)
def test_a_sentence_that_is_no_one_piece_is_told_in_every_split(tmp_path, old, new, said):
    """Interrupted for minutes, or with a time of 0 that stands for none: speech of others would be in it"""
    texts = {}
    for split, name in NAMES.items():
        good, bad = (SENTENCE.format(name=name, k=k, suffix="wav") for k in (1, 2))
        assert old in bad
        texts[split] = good + bad.replace(old, new)
    folder = corpus(tmp_path / "d", texts)
    for name in NAMES.values():
        soundfile.write(folder / "audio" / f"{name}.wav", np.zeros(160000), 16000)
    with pytest.raises(DataError, match=f"{said}.*sent_id Rhap_D0001-2, .* s.*"):
        prepare_rhapsodie(folder, tmp_path / "m")
    markers = prepare_rhapsodie(folder, tmp_path / "m", drop_bad=True)
    assert [m["utterances"] for m in markers.values()] == [1, 1, 1]
    assert [list(m["dropped"].values()) for m in markers.values()] == [[1], [1], [1]]


def test_the_speakers_sex_is_read(tmp_path):
    texts = {}
    for (split, name), sex in zip(NAMES.items(), ("female", "male", "unknown"), strict=True):
        text = SENTENCE.format(name=name, k=1, suffix="wav")
        texts[split] = text.replace("# text", f"# speaker_sex = {sex}\n# text")
    folder = corpus(tmp_path / "d", texts)
    genders = [u.gender for split in ("train", "valid", "test") for u in utterances(folder, split)]
    assert genders == ["F", "M", "U"]


def test_a_sentence_of_punctuation_alone_is_left_out_and_counted(tmp_path):
    good = SENTENCE.format(name="Rhap_D0001", k=1, suffix="wav")
    mute = "# sent_id = Rhap_D0001-2\n1\t…\t…\tPUNCT\t_\t_\t0\troot\t_\tAlignBegin=1|AlignEnd=9\n\n"
    folder = corpus(tmp_path / "d", {"train": good + mute})
    marker = prepare_rhapsodie(folder, tmp_path / "m")["train"]
    assert marker["utterances"] == 1 and marker["dropped"] == {"without a spoken word": 1}


def test_what_data_folder_must_hold(tmp_path):
    with pytest.raises(FileNotFoundError, match="fr_rhapsodie-ud-train.conllu not found. data_folder must"):
        prepare_rhapsodie(tmp_path, tmp_path / "m")
    with pytest.raises(ValueError, match="No split 'dev' in Rhapsodie: train, valid, test"):
        list(utterances(tmp_path, "dev"))


def test_the_miniature(tmp_path):
    pytest.importorskip("espeakng_loader")
    pytest.importorskip("py_nanotts")
    from lebench_sb.corpora.miniature.build import build_miniature
    from lebench_sb.corpora.miniature.layout_rhapsodie import CONTRACTED, name
    from lebench_sb.corpora.miniature.texts import clips

    build_miniature(tmp_path / "data", scale=0.02, workers=1, corpora=("rhapsodie",))
    folder = tmp_path / "data" / "rhapsodie"
    markers = prepare_rhapsodie(folder, tmp_path / "m")
    assert all(m["caveats"] == ["synthetic speech"] and not m["dropped"] for m in markers.values())
    plan = clips(0, 0.02, ("rhapsodie",))
    said = {f"{name(clip)}-{k}": (clip, s) for clip in plan for k, s in enumerate(clip.sentences, 1)}
    contracted = 0
    for split in markers:
        found = read_manifest(tmp_path / "m" / f"{split}.csv", folder)
        trees = trees_of(found, folder, "fr-1")
        for u in found:
            (clip, sentence), tree = said.pop(u.id), trees[u.id]
            gold = [t for t in sentence.tokens if t.upos != "PUNCT"]
            numbers = [k for k, t in enumerate(sentence.tokens, 1) if t.upos != "PUNCT"]
            assert list(tree.upos) == [t.upos for t in gold] and u.speaker == clip.speaker.name
            assert list(tree.relations) == [t.relation for t in gold]
            assert list(tree.heads) == [numbers.index(t.head) + 1 if t.head else 0 for t in gold]
            contracted += sum(word in CONTRACTED for word in tree.words)
    assert not said and contracted >= 1
