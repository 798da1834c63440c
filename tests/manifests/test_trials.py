"""Trial lists in every format, and all that can be wrong with one."""

import logging
import random
import tracemalloc

import numpy as np
import pytest

from lebench_sb.core.errors import DataError
from lebench_sb.manifests.trials import Trials, make_trials, read_trials, trials_csv
from lebench_sb.manifests.utterance import Utterance

PEOPLE = [
    Utterance(f"{s}--{k}", f"/data/wav/{s}/{k}.wav", 1.0, speaker=s)
    for s in ("ada", "bob")
    for k in ("e1", "e2")
]
EXPECTED = [("ada--e1", "ada--e2", True), ("ada--e1", "bob--e1", False), ("bob--e2", "ada--e2", False)]


def listed(trials):
    return list(zip(trials.enrol, trials.test, trials.targets.tolist(), strict=True))


def read(tmp_path, text, people=PEOPLE):
    (tmp_path / "trials.txt").write_text(text, encoding="utf-8")
    return read_trials(tmp_path / "trials.txt", people)


@pytest.mark.parametrize(
    "text",
    [
        "1 ada--e1 ada--e2\n0 ada--e1 bob--e1\n0 bob--e2 ada--e2\n",  # VoxCeleb, by ID
        "1 ada/e1.wav ada/e2.wav\n0 ada/e1.wav bob/e1.wav\n0 bob/e2.wav ada/e2.wav\n",  # by path
        "1 ada\\e1.wav ada\\e2.wav\n0 wav\\ada\\e1.wav bob\\e1.wav\n0 bob\\e2.wav ada\\e2.wav\n",  # Windows
        "1 ada/e1.flac ada/e2.flac\n0 ada/e1.flac bob/e1.sph\n0 bob/e2.WAV ada/e2.mp3\n",  # converted
        "1 ADA/e1.wav Ada/E2.WAV\n0 ada/e1 BOB/e1\n0 bob/e2 ada/e2\n",
        "1 ada--e1.wav ada--e2.wav\n0 ada--e1.wav bob--e1.wav\n0 bob--e2.flac ada--e2.wav\n",  # ID and suffix
        "1 /mnt/x/ada/e1.flac /mnt/x/ada/e2.flac\n0 /mnt/x/ada/e1.flac /mnt/x/bob/e1.flac\n"
        "0 /mnt/x/bob/e2.flac /mnt/x/ada/e2.flac\n",  # another disk
        "1 wav/ada/e1 wav/ada/e2\n\n0 ada/e1 bob/e1\n0 bob/e2 /data/wav/ada/e2.wav\n",
        "ada--e1 ada--e2 target\nada--e1 bob--e1 nontarget\nbob--e2 ada--e2 nontarget\n",  # Kaldi
        "enrol,test,label\nada--e1,ada--e2,1\nada--e1,bob--e1,0\nbob--e2,ada--e2,0\n",
        "label;model;segment;show\ntarget;ada--e1;ada--e2;x\nimp;ada--e1;bob--e1;y\nimp;bob--e2;ada--e2;z\n",
        "\ufeffTarget\tFile1\tFile2\r\ntrue\tada--e1\tada--e2\r\nFALSE\tada--e1\tbob--e1\r\n"
        "false\tbob--e2\tada--e2\r\n",
        '"enrol","test","label"\n"ada--e1","ada--e2","1"\n"ada--e1","bob--e1","0"\n"bob--e2","ada--e2","0"\n',
    ],
)
def test_formats(tmp_path, text):
    assert listed(read(tmp_path, text)) == EXPECTED


def test_ids_with_spaces_and_commas_go_there_and_back(tmp_path):
    people = [Utterance(f"ada, take {k}", f"/x/{k}.wav", 1.0, speaker="ada") for k in (1, 2)]
    people.append(Utterance("bob", "/x/3.wav", 1.0, speaker="bob"))
    trials = Trials(["ada, take 1"] * 2, ["ada, take 2", "bob"], np.array([True, False]))
    assert listed(read(tmp_path, trials_csv(trials), people)) == listed(trials)


def test_everything_wrong_is_said_at_once(tmp_path):
    text = """\
label enrolment utterance
1 ada--e1 ada--e2
0 ada--e1 ada--e2
1 ada--e1 bob--e1
0 ada--e2 ada--e1
1 ada--e1 ada--e1
0 ada--e1 eve--e1
0 e1.wav bob--e1
2 ada--e1 bob--e2
0 ada--e1
0 ada--e1 bob--e1 0.73
"""
    with pytest.raises(DataError) as error:
        read(tmp_path, text)
    for said in (
        "header line (name its columns enrol, test, label or delete it) (1): label enrolment utterance",
        "comparisons listed as target and as non-target (2): line 3 ada--e1 ada--e2, line 5 ada--e2 ada--e1",
        "labels that contradict the manifest's speakers (3): line 3 non-target ada ada, line 4 target ada",
        "trials of an utterance with itself (1): line 6 ada--e1",
        "unknown utterances (1): line 7 eve--e1",
        "names of several utterances (use IDs) (1): line 8 e1.wav",
        "labels that are neither target nor non-target (1): line 9 '2'",
        "lines in no known format",
        "line 10 '0 ada--e1', line 11 '0 ada--e1 bob--e1 0.73'",
    ):
        assert said in str(error.value)


@pytest.mark.parametrize(
    "text, said",
    [
        (
            "1 ada--e1 ada--e2\n1 bob--e1 bob--e2\n",
            "no non-target trial: error rates need both (1): 2 trials",
        ),
        ("0 ada--e1 bob--e2\n", "no target trial"),
        ("", "empty trial list"),
        ("\n \n", "empty trial list"),
        ("hello\n", "no line is a trial; line 1 is 'hello'. Lines look like `1 a b`"),
        ("enrol,test,label\n", "no trial"),
        ("ada ada--e1 target\nada bob--e1 nontarget\n", "unknown utterances (2): line 1 ada, line 2 ada"),
    ],
)
def test_lists_that_cannot_be_scored(tmp_path, text, said):
    with pytest.raises(DataError) as error:
        read(tmp_path, text)
    assert said in str(error.value)


def test_repeated_comparisons_are_kept_and_told(tmp_path, caplog):
    text = "1 ada--e1 ada--e2\n1 ada--e2 ada--e1\n0 ada--e1 bob--e1\n0 ada--e1 bob--e1\n0 ada--e1 bob--e1\n"
    with caplog.at_level(logging.INFO):
        assert len(read(tmp_path, text)) == 5
    said = caplog.text
    assert "5 trials, 2 target and 3 non-target, of 2 speakers and 3 utterances" in said
    assert "2 comparisons are listed more than once (3 lines in excess, mirrored ones included)" in said
    assert "1 test utterances are in no trial" in said


def test_labels_of_unknown_speakers_cannot_be_checked(tmp_path, caplog):
    people = [Utterance(f"u{k}", f"/x/u{k}.wav", 1.0) for k in range(3)]
    assert len(read(tmp_path, "1 u0 u1\n0 u0 u2\n", people)) == 2
    assert "speakers unknown of some utterances" in caplog.text


MODELS = "ada ada/e1.wav ada/e2.wav\nbob bob--e1\n"


@pytest.mark.parametrize("name", ["ada", "ada--e2+ada--e1", "ada/e1+ada/e2.wav"])
def test_models_of_several_utterances(tmp_path, name):
    more = [*PEOPLE, Utterance("ada--e3", "/data/wav/ada/e3.wav", 1.0, speaker="ada")]
    (tmp_path / "models").write_text(MODELS)
    text = f"{name} ada--e3 target\n{name} bob--e2 nontarget\nbob--e1 ada--e1 nontarget\n"
    (tmp_path / "trials.txt").write_text(text)
    trials = read_trials(tmp_path / "trials.txt", more, tmp_path / "models" if name == "ada" else "")
    assert listed(trials)[0] == ("ada--e1+ada--e2", "ada--e3", True)
    assert trials.models == {"ada--e1+ada--e2": ["ada--e1", "ada--e2"]} and trials.enrol[2] == "bob--e1"
    assert listed(read(tmp_path, trials_csv(trials), more)) == listed(trials)


def test_everything_wrong_with_models(tmp_path):
    (tmp_path / "models").write_text(MODELS + "bob bob--e2\nmix ada--e1 bob--e1\nnone\nbad eve\n")
    (tmp_path / "t.txt").write_text("ada ada--e2 target\nada bob--e1 target\nmix bob--e2 nontarget\n")
    with pytest.raises(DataError) as error:
        read_trials(tmp_path / "t.txt", PEOPLE, tmp_path / "models")
    for said in (
        "models listed twice (1): line 3 of models bob",
        "models without utterances (1): line 5 of models none",
        "unknown utterances (1): line 6 of models eve",
        "models of several speakers (1): ada--e1+bob--e1: ada bob",
        "trials of an utterance with itself (1): line 1 ada--e2",
        "(1): line 2 target ada bob",
    ):
        assert said in str(error.value)


def test_a_missing_list_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing.txt not found"):
        read_trials(tmp_path / "nothing.txt", PEOPLE)


def people(speakers, excerpts):
    return [
        Utterance(f"s{s}-{k}", f"/x/{s}/{k}.wav", 1.0, speaker=f"s{s}")
        for s in range(speakers) for k in range(excerpts)
    ]  # fmt: skip


@pytest.mark.parametrize(
    "speakers, excerpts, most", [(6, 4, 20_000), (40, 12, 1000), (200, 3, 330), (2, 2, 50)]
)
def test_made_trials(speakers, excerpts, most):
    found = people(speakers, excerpts)
    trials = make_trials(found, 1, most)
    of = {u.id: u.speaker for u in found}
    pairs = [frozenset(pair) for pair in zip(trials.enrol, trials.test, strict=True)]
    assert len(set(pairs)) == len(pairs) <= most and all(len(pair) == 2 for pair in pairs)
    same = [of[a] == of[b] for a, b in zip(trials.enrol, trials.test, strict=True)]
    assert same == trials.targets.tolist() and 0 < sum(same) < len(same)
    possible = speakers * excerpts * (excerpts - 1) // 2
    assert sum(same) == min(possible, most // 11)
    assert listed(make_trials(found[::-1], 1, most)) == listed(trials)
    if len(trials) < possible:
        assert listed(make_trials(found, 2, most)) != listed(trials)


@pytest.mark.parametrize(
    "found, said",
    [
        (people(1, 5), "5 utterances of 1 speakers make no trials"),
        (people(5, 1), "5 utterances of 5 speakers make no trials"),
        ([*people(3, 3), Utterance("x", "/x", 1.0)], "no spk_id for 1 utterances: x"),
    ],
)
def test_no_trials_to_make(found, said):
    with pytest.raises(DataError, match=said):
        make_trials(found, 0)


def lists_of(counts):
    return [
        Utterance(f"s{i}--{k:05d}", f"/x/{i}/{k:05d}.wav", 1.0, speaker=f"s{i}")
        for i, count in enumerate(counts)
        for k in range(count)
    ]


def test_pairs_are_drawn_and_never_listed():
    """2 million pairs within speakers, whose list would take 128 megabytes and more"""
    found = lists_of([1000] * 4)
    tracemalloc.start()
    trials = make_trials(found, 1, 3000)
    memory = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert memory < 10e6 and len(trials) == 2992
    speakers = {u.id: u.speaker for u in found}
    assert len({frozenset(pair) for pair in zip(trials.enrol, trials.test, strict=True)}) == len(trials)
    for enrol, test, target in listed(trials):
        assert enrol != test and (speakers[enrol] == speakers[test]) == target


def test_drawn_pairs_are_those_of_a_list_of_all():
    """As `random.sample` draws from the list of all pairs, so that older results stay"""
    counts = [3, 1, 7, 2]
    found = lists_of(counts)
    of_speaker = [[u.id for u in found if u.speaker == f"s{i}"] for i in range(len(counts))]
    every = [(a, b) for ids in of_speaker for k, b in enumerate(ids) for a in ids[:k]]
    trials = make_trials(found, 5, 11 * 9)
    drawn = sorted(random.Random("trials-5").sample(every, 9))
    assert [(a, b) for a, b, target in listed(trials) if target] == drawn


def test_pairs_of_two_speakers_where_nearly_all_are_of_one():
    found = lists_of([5000, 1, 2])
    trials = make_trials(found, 0, 11 * 200)
    others = [(a, b) for a, b, target in listed(trials) if not target]
    assert len(others) == len(set(others)) == 2000  # two drawn at random are of two speakers once in 800
    assert all(a[:2] < b[:2] for a, b in others)
    assert 0.28 < sum(b[:2] == "s1" for _, b in others) / 2000 < 0.39  # one ID of three


def test_another_speakers_file_is_never_taken_for_the_one_that_is_missing(tmp_path):
    """A stem alone does not decide where the list names folders"""
    people = [*PEOPLE, Utterance("eva--e9", "/data/wav/eva/e9.wav", 1.0, speaker="eva")]
    for name in ("zoe/e9.wav", "zoe\\e9.flac", "/mnt/x/wav/zoe/e9.wav"):
        with pytest.raises(DataError, match="unknown utterances .*line 3 .*zoe"):
            read(tmp_path, f"1 ada/e1 ada/e2\n0 ada/e1 bob/e1\n0 ada/e1 {name}\n", people)
    two = [*people, Utterance("ada--e1b", "/data/wav/ada/e1.flac", 1.0, speaker="ada")]
    with pytest.raises(DataError, match="names of several utterances .*line 1 ada/e1.mp3"):
        read(tmp_path, "1 ada/e1.mp3 ada/e2.wav\n0 ada/e2.wav bob/e1.wav\n", two)


def test_a_field_that_no_parser_takes_is_told(tmp_path):
    with pytest.raises(DataError, match="line 2 "):
        read(tmp_path, f"1,ada--e1,ada--e2\n0,{'x' * 200_000},bob--e1\n0,ada--e1,bob--e1\n")
