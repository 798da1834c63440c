"""The mTEDx parser on lines as the corpus has them, on broken ones, and on what the miniature writes."""

from collections import Counter

import numpy as np
import pytest
import soundfile

from lebench_sb.core.errors import DataError, UsageError
from lebench_sb.corpora.mtedx import prepare_mtedx, utterances
from lebench_sb.manifests.reading import read_manifest

# {duration, offset, speaker_id, wav} in the flow style of the corpus; a talk's name may look like a number
LINES = {
    "train": [
        ("- {duration: 1.500000, offset: 2.130000, speaker_id: -0x_R1Pa9c8, wav: -0x_R1Pa9c8.flac}",
         "Bonjour à tous, j'ai 26 ans.", "Hello everyone, I'm 26."),
        ("- {duration: 0.9, offset: 0.4, speaker_id: -0x_R1Pa9c8, wav: -0x_R1Pa9c8.flac}",
         "(Applaudissements)", "(Applause)"),
        ("- {duration: 1.0, offset: 0.0, speaker_id: 1e5, wav: 1e5.flac}", "Merci !", ""),
        ("- {duration: 1.25, offset: 1.0, speaker_id: 1e5, wav: 1e5.flac}", "Voilà\u2028tout.",
         "That is: all"),
    ],
    "valid": [("- {duration: 1, offset: 0, speaker_id: 'no', wav: no.wav}", "Non.", "")],
    "test": [("- {wav: Z.flac, speaker_id: Z, offset: 0.25, duration: 0.5}", "[Élan] ♪", "Impetus")],
}  # fmt: skip


def write_split(root, split, rows, target="en"):
    for name in ("txt", "wav"):
        (root / split / name).mkdir(parents=True, exist_ok=True)
    for kind, column in (("yaml", 0), ("fr", 1), (target, 2)):
        text = "".join(row[column] + "\n" for row in rows)
        (root / split / "txt" / f"{split}.{kind}").write_text(text, encoding="utf-8")


def corpus(folder, lines=LINES, target="en"):
    root = folder / f"fr-{target}" / "data"
    for split, rows in lines.items():
        write_split(root, split, rows, target)
    for split, name, seconds in (("train", "-0x_R1Pa9c8", 4.0), ("train", "1e5", 2.25), ("valid", "no", 1.0),
                                 ("test", "Z", 0.7)):  # fmt: skip
        soundfile.write(root / split / "wav" / f"{name}.flac", np.zeros(round(48000 * seconds)), 48000)
    return folder


@pytest.mark.parametrize("inner", ["", "fr-en"])
def test_real_lines(tmp_path, inner):
    folder = corpus(tmp_path) / inner
    dropped = Counter()
    train = list(utterances(folder, "train", "en", dropped=dropped))
    assert [(u.id, u.speaker, u.start, u.stop, u.duration) for u in train] == [
        ("-0x_R1Pa9c8_0000", "-0x_R1Pa9c8", 0.4, 1.3, 0.9),
        ("-0x_R1Pa9c8_0001", "-0x_R1Pa9c8", 2.13, 3.63, 1.5),
        ("1e5_0001", "1e5", 1.0, 2.25, 1.25),
    ]
    assert dropped == {"empty translation": 1}
    assert train[1].labels == {
        "wrd": "bonjour à tous j' ai vingt six ans",
        "translation_en": "Hello everyone, I'm 26.",
    }
    assert train[2].labels["translation_en"] == "That is: all"
    assert train[1].wav.endswith("fr-en/data/train/wav/-0x_R1Pa9c8.flac")
    (valid,), (test,) = (list(utterances(folder, split, "en")) for split in ("valid", "test"))
    # a .wav in the YAML for the .flac in the folder; valid keeps its empty translation, "no" is a name
    assert (valid.speaker, valid.labels["translation_en"]) == ("no", "") and valid.wav.endswith("no.flac")
    assert (test.start, test.stop) == (0.25, 0.7), "cut at the end of the talk, 0.05 s early"
    assert test.labels == {"wrd": "", "translation_en": "Impetus"}, "fr-1 has no reading of a note"


def test_prepare_writes_three_manifests_of_a_pair_and_repeats(tmp_path):
    folder = corpus(tmp_path / "data")
    markers = prepare_mtedx(folder, tmp_path / "m", "en")
    assert {split: marker["utterances"] for split, marker in markers.items()} == {
        "train": 3,
        "valid": 1,
        "test": 1,
    }
    assert markers["train"]["dropped"] == {"empty translation": 1} and markers["train"]["caveats"] == []
    assert markers["test"]["changed"] == {"[": 1, "]": 1, "♪": 1}  # unread, so empty, and told
    before = (tmp_path / "m" / "train.csv").stat().st_mtime_ns
    assert prepare_mtedx(folder, tmp_path / "m", "en") == markers
    assert (tmp_path / "m" / "train.csv").stat().st_mtime_ns == before
    rows = read_manifest(tmp_path / "m" / "train.csv", folder)
    assert rows[0].labels["translation_en"] == "(Applause)" and rows[0].start == 0.4
    (folder / "fr-en" / "data" / "train" / "txt" / "train.en").write_text("a\nb\nc\nd\n", encoding="utf-8")
    assert prepare_mtedx(folder, tmp_path / "m", "en")["train"]["utterances"] == 4, "a changed text"


def test_one_key_picks_the_pair(tmp_path):
    folder = corpus(corpus(tmp_path / "data"), target="pt")
    prepare_mtedx(folder, tmp_path / "m", "pt")
    assert list(read_manifest(tmp_path / "m" / "test.csv", folder)[0].labels) == ["translation_pt", "wrd"]
    with pytest.raises(FileNotFoundError, match=r"fr-es/data not found\. data_folder holds fr-en, fr-pt"):
        prepare_mtedx(folder, tmp_path / "m", "es")
    with pytest.raises(FileNotFoundError, match="data_folder must hold fr-XX/data"):
        prepare_mtedx(tmp_path / "m", tmp_path / "m", "es")
    with pytest.raises(UsageError, match="'English'"):
        prepare_mtedx(folder, tmp_path / "m", "English")
    (folder / "fr-pt" / "data" / "valid" / "txt" / "valid.fr").unlink()
    with pytest.raises(FileNotFoundError, match=r"valid\.fr not found"):
        prepare_mtedx(folder, tmp_path / "m", "pt")


def test_bom_crlf_and_miniature(tmp_path):
    folder = corpus(tmp_path / "data")
    for path in sorted(folder.rglob("txt/*")):
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    (folder / "miniature.done.json").write_text("{}")
    assert prepare_mtedx(folder, tmp_path / "m", "en")["test"]["caveats"] == ["synthetic speech"]
    assert read_manifest(tmp_path / "m" / "test.csv", folder)[0].labels["translation_en"] == "Impetus"


@pytest.mark.parametrize("kind", ["yaml", "fr", "en"])
def test_lists_of_different_length(tmp_path, kind):
    folder = corpus(tmp_path)
    path = folder / "fr-en" / "data" / "train" / "txt" / f"train.{kind}"
    path.write_text(path.read_text(encoding="utf-8").split("\n", 1)[1], encoding="utf-8")
    with pytest.raises(DataError, match="3"):
        list(utterances(folder, "train", "en"))
    assert [u.id for u in utterances(folder, "test", "en")] == ["Z_0000"]


def test_all_bad_segments_are_listed(tmp_path):
    folder = corpus(tmp_path)
    bad = [
        "- {duration: 1.0, offset: 0.0, speaker_id: Q, wav: Q.flac}",
        "- {duration: '1,5', offset: 0.0, speaker_id: Z, wav: Z.flac}",
        "- {duration: 1.0, speaker_id: Z, wav: Z.flac}",
        "- nothing",
    ]
    write_split(folder / "fr-en" / "data", "test", [(line, "Oui.", "Yes.") for line in bad])
    with pytest.raises(DataError) as error:
        list(utterances(folder, "test", "en"))
    for said in ("talks not in wav/ (1): Q.flac", "no number of seconds (1): number 2", "(2): number 3"):
        assert said in str(error.value)


LAUGHS = "- &a0 x\n" + "".join(f"- &a{k} [{', '.join([f'*a{k - 1}'] * 9)}]\n" for k in range(1, 10))


@pytest.mark.parametrize(
    "text, message",
    [
        ("- {a: 1\n", "not YAML"),
        ("duration: 1\n", "a list of seg"),
        (LAUGHS, r"line 2: an alias \(\*a0\)"),
        ("[" * 3000 + "]" * 3000, "maximum nesting depth"),
        ("[" * 30 + "]" * 30, "line 1: nested over 10 deep"),
        ("- ? [a]\n  : b\n", "not YAML"),
    ],
)
def test_what_is_no_list_of_segments(tmp_path, text, message):
    folder = corpus(tmp_path)
    (folder / "fr-en" / "data" / "test" / "txt" / "test.yaml").write_text(text)
    with pytest.raises(DataError, match=message):
        list(utterances(folder, "test", "en"))


def test_segments_outside_their_talk(tmp_path):
    """One in 200 of train is left out and counted; more, or one of test, stops"""
    folder = corpus(tmp_path)
    root = folder / "fr-en" / "data"
    good = "- {duration: 0.01, offset: 0.5, speaker_id: 1e5, wav: 1e5.flac}"
    late = "- {duration: 1.0, offset: 2.0, speaker_id: 1e5, wav: 1e5.flac}"
    empty = "- {duration: 0.0, offset: 1.0, speaker_id: 1e5, wav: 1e5.flac}"
    rows = [(good, "Oui.", "Yes.")] * 199
    write_split(root, "train", [*rows, (late, "Oui.", "Yes.")])
    dropped = Counter()
    assert len(list(utterances(folder, "train", "en", dropped=dropped))) == 199
    assert dropped == {"segment outside its talk": 1}
    write_split(root, "train", [*rows[:50], (late, "Oui.", "Yes."), (empty, "Oui.", "Yes.")])
    with pytest.raises(DataError, match=r"beyond the end of their talk \(2\): 1e5_0050 \[1, 1\] of 2.25 s"):
        list(utterances(folder, "train", "en"))
    soundfile.write(root / "test" / "wav" / "1e5.flac", np.zeros(36000), 16000)
    write_split(root, "test", [*rows, (late, "Oui.", "Yes.")])
    with pytest.raises(DataError, match=r"1e5_0199 \[2, 3\] of 2.25 s"):
        list(utterances(folder, "test", "en"))


def test_the_miniature(tmp_path):
    pytest.importorskip("espeakng_loader")
    pytest.importorskip("py_nanotts")
    from lebench_sb.corpora.miniature import layout_mtedx, texts
    from lebench_sb.corpora.miniature.build import build_miniature

    build_miniature(tmp_path / "data", scale=0.02, workers=1, corpora=("mtedx",))
    plan = texts.clips(0, 0.02, ("mtedx",))
    for language, missing in layout_mtedx.MISSING.items():
        markers = prepare_mtedx(tmp_path / "data", tmp_path / language, language)
        assert all(marker["caveats"] == ["synthetic speech"] for marker in markers.values())
        for split, theirs in (("train", "train"), ("valid", "dev"), ("test", "test")):
            talks = [clip for clip in plan if clip.split == theirs]
            talks = [clip for clip in talks if split != "train" or clip.number % 4 not in missing]
            said = {layout_mtedx.talk(clip): clip for clip in talks}
            found = read_manifest(tmp_path / language / f"{split}.csv", tmp_path / "data")
            assert len(found) == sum(len(clip.sentences) for clip in talks)
            for u in found:
                talk, _, number = u.id.rpartition("_")
                sentence = said[talk].sentences[int(number)]
                assert u.labels[f"translation_{language}"] == sentence.translations[language]
                assert u.labels["wrd"].split() == list(sentence.words)
                assert u.speaker == said[talk].speaker.name
                assert 0 <= u.start < u.stop <= soundfile.info(u.wav).duration
