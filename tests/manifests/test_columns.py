"""Columnar manifests: the same utterances, errors, batches and items as lists of them, without the memory."""

import logging
import multiprocessing
import os
import pickle
import shutil

import numpy as np
import pytest
import soundfile as sf
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lebench_sb.core.errors import DataError
from lebench_sb.manifests import columns
from lebench_sb.manifests.columns import Utterances, columnar, durations_of, open_utterances
from lebench_sb.manifests.reading import read_manifest
from lebench_sb.manifests.utterance import COLUMNS, Utterance
from lebench_sb.manifests.writing import write_manifest
from lebench_sb.training.data import (
    EpochPlan,
    StreamPlan,
    as_dataset,
    describe_split,
    keep_durations,
    load_utterances,
    speakers_of,
)

HEADER = ",".join(COLUMNS)


@pytest.fixture
def large(monkeypatch):
    """Every manifest counts as large, a batch holds three rows"""
    monkeypatch.setattr(columns, "LARGE", 0)
    monkeypatch.setattr(columns, "ROWS", 3)


def write(path, rows, header=f"{HEADER},wrd,trace"):
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8", newline="")
    return path


def eleven(folder, name="m.csv", prefix="u"):
    """A manifest of eleven rows: segments, quotation, line ends inside a text, an empty speaker"""
    rows = []
    for k in range(11):
        segment = f"{k / 10},{k / 10 + 1 + k}" if k % 2 else ","
        text = '"dit ""oui"",\r\n$data_root/ 5 $US"' if k % 3 else "l'été"
        speaker, gender = ("", "U") if k == 4 else (f"s{k % 3}", "FM"[k % 2])
        trace = "$data_root/t.csv" if k % 4 else ""
        rows.append(f"{prefix}{k},{1 + k},$data_root/{k}.wav,{segment},{speaker},{gender},fr,{text},{trace}")
    return write(folder / name, rows)


def test_columns_hold_what_the_list_holds(tmp_path, large):
    path = eleven(tmp_path)
    listed, opened = read_manifest(path, tmp_path), open_utterances([path], tmp_path)
    assert isinstance(opened, Utterances) and len(opened) == 11
    assert list(opened) == listed == [opened[k] for k in range(11)]
    assert opened[-1] == listed[-1] and list(opened[2:9:3]) == listed[2:9:3]
    assert list(reversed(opened)) == listed[::-1]
    chosen = [7, 0, 10, 7]
    assert list(opened.take(np.array(chosen))) == [listed[k] for k in chosen]
    assert list(opened[3:].where(opened[3:].durations > 6)) == [u for u in listed[3:] if u.duration > 6]
    values, codes = opened.distinct("gender")
    assert [values[k] for k in codes] == [u.gender for u in listed]
    with pytest.raises(IndexError, match="utterance 11 of 11"):
        opened[11]


def test_what_is_said_of_a_split_does_not_depend_on_how_it_is_held(tmp_path, monkeypatch, caplog):
    paths = [eleven(tmp_path), eleven(tmp_path, "n.csv", "v")]
    write(paths[1], [line.rpartition(",")[0] for line in lines_of(paths[1])], f"{HEADER},wrd")
    hparams = {"train_csv": [str(p) for p in paths], "data_folder": tmp_path}
    hparams |= {"min_duration": 2.5, "max_duration": 9.0}
    found = []
    for limit, rows in ((1 << 30, 3), (0, 3), (0, 1000)):
        monkeypatch.setattr(columns, "LARGE", limit)
        monkeypatch.setattr(columns, "ROWS", rows)
        for path in paths:
            path.with_name(f"{path.name}.arrow").unlink(missing_ok=True)
        caplog.clear()
        with caplog.at_level(logging.INFO, "lebench_sb.training.data"):
            train = load_utterances(hparams)["train"]
        said = [record.getMessage() for record in caplog.records if "left out" in record.getMessage()]
        described = describe_split(hparams["train_csv"], train)
        found.append((list(train), said, described, speakers_of(train), durations_of(train).tolist()))
    assert found[0] == found[1] == found[2]
    assert "4 utterances shorter than 2.5 s and 4 longer than 9 s left out, 14 kept" in found[0][1][0]
    assert "trace" in found[1][0][0].labels and "trace" not in found[1][0][-1].labels


def lines_of(path):
    """The rows of `eleven` as written, with the line ends inside their texts"""
    written = path.read_bytes().decode().replace("\r\n", "\0").rstrip("\n").split("\n")
    return [row.replace("\0", "\r\n") for row in written[1:]]


FAULTS = [
    (["a,1,$data_root/a.wav,,,,F,fr", "b,x,$data_root/a.wav,,,,F,fr"], "line 3 'x'"),
    (["a,1,$data_root/a.wav,,,,F,fr", "b,1,/a.wav,,,,F,fr", "c,1,$data_root/a,,,,Q,fr"], "line 4 'Q'"),
    (["a,1,$data_root/a.wav,,,,F,fr", "b,1,$data_root/a.wav,,,,F"], "line 3 has 7"),
    (["a,1,$data_root/a.wav,,,,F,fr"] * 2 + ["b,1,$data_root/a.wav,,,,F,fr"] * 4, r"b \(lines 4, 5, 6, 7\)"),
    (["a,1,$data_root/a.wav,2,1,,F,fr"], "start must be at least 0 and before stop"),
    (['a,1,"$data_root/a.wav,,,,F,fr'], "line 2"),
    ([], "0 utterances, only a header"),
]


@pytest.mark.parametrize("rows, words", FAULTS, ids=[words for _, words in FAULTS])
def test_every_check_of_rows_is_made_and_said_alike(tmp_path, large, rows, words):
    path = write(tmp_path / "m.csv", rows, HEADER)
    with pytest.raises(DataError, match=words) as listed:
        read_manifest(path, tmp_path)
    with pytest.raises(DataError, match=words) as opened:
        open_utterances([path], tmp_path)
    assert str(opened.value) == str(listed.value)
    assert not list(tmp_path.glob("*.arrow")) and not list(tmp_path.glob("*.tmp"))


TEXTS = ["", "é", '"un, deux"', '"sept"', ' "x" ', '"dit ""oui"""', '"deux\nlignes"', 'a"b', "$data_root/t"]
FIELDS = {
    "ID": st.sampled_from([f"u{k}" for k in range(40)]) | st.sampled_from(["", "é", "\ufeffu"]),
    "duration": st.sampled_from(["1", "2.5", "1e0", "0.25E1", "0", "1,5", "-1", "1e999", "x", "", " 1", "١"]),
    "wav": st.sampled_from(["$data_root/a.wav", '"$data_root/a, b.wav"', "/a.wav", "$data_root/"]),
    "segment": st.sampled_from([",", "0,1", "1.5,4", "0,1.07", "0,1.071", "1,", "4,1", "3,3"]),
    "spk_id": st.sampled_from(["s1", "", '"s 1"']),
    "gender": st.sampled_from(["F", "M", "U", "f", ""]),
    "language": st.sampled_from(["fr", "", "fr\t"]),
    "wrd": st.sampled_from(TEXTS),
}
GOOD = {name: st.just(value) for name, value in {"duration": "1", "segment": ",", "gender": "F"}.items()}
LINES = st.tuples(*(GOOD.get(name, values) | values for name, values in FIELDS.items())).map(",".join)
ENDS = st.sampled_from(["\n", "\n", "\r\n"])
SPOILT = st.sampled_from(["", "", "", "\n", "\r", '"', ",", "\ufeff", "\x00", "\n\n", " "])


def opened_both_ways(path):
    """What a manifest holds, or the error: [opened as a list, opened as columns]"""
    found = []
    for limit in (1 << 30, 0):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(columns, "LARGE", limit)
            try:
                found.append(list(open_utterances([path], path.parent)))
            except DataError as error:
                found.append(str(error))
    return found


@settings(deadline=None, max_examples=400)
@given(st.lists(LINES, max_size=6), SPOILT, st.floats(0, 1), ENDS, st.booleans())
def test_columns_and_lists_are_read_alike(tmp_path_factory, lines, spoilt, place, end, closed):
    folder = tmp_path_factory.mktemp("alike")
    text = end.join([f"{HEADER},wrd", *lines]) + (end if closed else "")
    place = round(place * len(text))
    (folder / "m.csv").write_text(text[:place] + spoilt + text[place:], encoding="utf-8", newline="")
    listed, opened = opened_both_ways(folder / "m.csv")
    shutil.rmtree(folder)
    assert opened == listed


ODD = {
    "gender": ("1,$data_root/a,,,s,f,fr,t", "wrd"),
    "infinite": ("1e999,$data_root/a,,,s,F,fr,t", "wrd"),
    "long field": ("1,$data_root/a,,,s,F,fr," + "a" * 140_000, "wrd"),
    "carriage return": ("1,$data_root/a,,,s,F,fr,a\rb", "wrd"),
    "null": ("1,$data_root/a,,,s,F,fr,a\0b", "wrd"),
    "tags": ("1,$data_root/a,,,s,F,fr,un > deux", "semantics"),
    "quoted header": ("1,$data_root/a,,,s,F,fr,a,b", '"wrd,t"'),
    "column named twice": ("1,$data_root/a,,,s,F,fr,a,b", "wrd,wrd"),
    "text after a quotation": ('1,$data_root/a,,,s,F,fr,"a"b', "wrd"),
}


@pytest.mark.parametrize("row, labels", ODD.values(), ids=ODD)
def test_a_single_oddity_is_read_alike(tmp_path, row, labels):
    path = write(tmp_path / "m.csv", [f"u1,{row}"], f"{HEADER},{labels}")
    listed, opened = opened_both_ways(path)
    assert opened == listed


def test_a_preparation_writes_the_copy_that_reading_would_make(tmp_path, large, monkeypatch):
    texts = ["l'été", "", "un, deux", 'dit "oui"\r\nnon', "$data_root/x 5 $US"]
    utterances = []
    for k in range(8):
        wav, times = tmp_path / f"{k}.wav", (k / 10, k / 10 + 1.5) if k % 2 else (None, None)
        sf.write(wav, np.zeros(16000 * 10), 16000)
        labels = {"wrd": texts[k % 5]} | ({"trace": str(wav)} if k % 3 else {})
        utterances.append(Utterance(f"u{k}", str(wav), 1.5, *times, "s", "F", "fr", labels))
    path = tmp_path / "m.csv"
    write_manifest(path, utterances, tmp_path, {})
    written = (tmp_path / "m.csv.arrow").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(columns, "manifest_rows", None)  # reads rows
        assert list(open_utterances([path], tmp_path)) == read_manifest(path, tmp_path)
    (tmp_path / "m.csv.arrow").unlink()
    open_utterances([path], tmp_path)
    assert (tmp_path / "m.csv.arrow").read_bytes() == written
    write(path, [line for line in path.read_text("utf-8").splitlines()[1:] if line.startswith("u0")])
    assert len(open_utterances([path], tmp_path)) == 1  # changed by hand: read again


def test_encoding_and_absence_are_said_alike(tmp_path, large):
    path = eleven(tmp_path)
    path.write_bytes(path.read_bytes().replace("é".encode(), b"\xe9"))
    for open_it in (lambda: read_manifest(path, tmp_path), lambda: open_utterances([path], tmp_path)):
        with pytest.raises(DataError, match="line 2 is not UTF-8"):
            open_it()
    with pytest.raises(FileNotFoundError, match="no.csv not found"):
        open_utterances([tmp_path / "no.csv"], tmp_path)
    with pytest.raises(FileNotFoundError, match="data_root"):
        open_utterances([path], tmp_path / "no")


def test_an_id_in_two_manifests_is_refused(tmp_path, monkeypatch):
    paths = [eleven(tmp_path), eleven(tmp_path, "n.csv", "u")]
    for limit in (0, 1 << 30):
        monkeypatch.setattr(columns, "LARGE", limit)
        with pytest.raises(DataError, match=r"same ID in .*m.csv and .*n.csv \(11\): u0, u1"):
            open_utterances(paths, tmp_path)
        with pytest.raises(DataError, match="m.csv is named twice"):
            open_utterances([paths[0], paths[0]], tmp_path)


def test_the_copy_is_of_these_very_bytes(tmp_path, large, caplog):
    path = eleven(tmp_path)
    copy = columnar(path)
    made = os.stat(copy).st_ino
    assert copy == tmp_path / "m.csv.arrow" and columnar(path) == copy and os.stat(copy).st_ino == made
    path.write_text(path.read_text().replace("u3,4", "x3,4"))
    os.utime(path, (0, 0))  # older than the copy: content counts, not times
    assert open_utterances([path], tmp_path)[3].id == "x3"
    copy.write_bytes(copy.read_bytes()[:-200])
    assert open_utterances([path], tmp_path)[3].id == "x3" and "built anew" in caplog.text


def test_a_manifest_moves_with_its_data_without_a_new_copy(tmp_path, large):
    (tmp_path / "old").mkdir()
    columnar(eleven(tmp_path / "old"))
    shutil.move(tmp_path / "old", tmp_path / "new")
    made = os.stat(tmp_path / "new/m.csv.arrow").st_ino
    opened = open_utterances([tmp_path / "new/m.csv"], tmp_path / "new")
    assert opened[1].wav == str(tmp_path / "new/1.wav")
    assert os.stat(tmp_path / "new/m.csv.arrow").st_ino == made


def test_the_copy_lies_in_the_cache_of_the_user_where_nobody_may_write(tmp_path, large, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "m").mkdir()
    path = eleven(tmp_path / "m")
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert len(open_utterances([path], tmp_path)) == 11
    assert os.listdir(tmp_path / "m") == ["m.csv"]
    assert len(list(tmp_path.glob("cache/lebench_sb/manifests/*.arrow"))) == 1


def items_in_worker(dataset, positions, queue):
    queue.put([dataset[position] for position in positions])


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_dataset_gives_the_same_items_in_other_processes(tmp_path, large, method):
    path = eleven(tmp_path)
    keys = ["wav", "duration", "spk_id", "wrd", "pass_number", "start"]
    listed = as_dataset(read_manifest(path, tmp_path), [], keys)
    opened = as_dataset(keep_durations(open_utterances([path], tmp_path), 0.0, 99.0), [], keys)
    positions = [0, 4, (10, 3), 7]
    expected = [listed[position] for position in positions]
    assert [opened[position] for position in positions] == expected
    assert np.array_equal(opened.durations, listed.durations) and len(opened) == len(listed) == 11
    assert opened.data_ids == listed.data_ids and opened.data["u7"] == listed.data["u7"]
    context = multiprocessing.get_context(method)
    queue = context.Queue()
    worker = context.Process(target=items_in_worker, args=(opened, positions, queue))
    worker.start()
    assert queue.get(timeout=60) == expected
    worker.join()


def test_a_copy_for_another_process_is_small(tmp_path, large):
    opened = open_utterances([eleven(tmp_path)], tmp_path)
    assert len(pickle.dumps(opened)) < 1000
    assert list(pickle.loads(pickle.dumps(opened[2:5]))) == list(opened)[2:5]


# ---- batch plans


def packed_one_by_one(durations, order, max_batch_seconds):
    """The rule, one utterance at a time"""
    batch, longest = [], 0.0
    for position in order:
        grown = max(longest, durations[position])
        if batch and grown * (len(batch) + 1) > max_batch_seconds:
            yield batch
            batch, grown = [], durations[position]
        batch.append(position)
        longest = grown
    if batch:
        yield batch


def plan_one_by_one(durations, max_batch_seconds, seed, number, shuffle):
    rng = np.random.default_rng([seed % 2**32, number])
    jitter = rng.uniform(0.9, 1.1, len(durations)) if shuffle else 1.0
    order = np.argsort(-durations * jitter, kind="stable")
    batches = list(packed_one_by_one(durations, order, max_batch_seconds))
    batches = [batches[k] for k in rng.permutation(len(batches))] if shuffle else batches
    return [[(int(position), number) for position in batch] for batch in batches]


some = st.floats(0.01, 40.0), st.sampled_from([1.0, 2.5, 15.6])
lengths = st.lists(some[0] | some[1], min_size=1, max_size=60) | st.lists(some[1], min_size=1, max_size=60)


limits = st.floats(0.5, 100.0) | st.sampled_from([2.0, 5.0, 10.0, 31.2])  # reached exactly, too


@settings(deadline=None)
@given(lengths, limits, st.integers(0, 2**40), st.integers(1, 5), st.booleans())
def test_a_plan_is_the_one_made_one_utterance_at_a_time(durations, limit, seed, number, shuffle):
    durations = np.array(durations)
    expected = plan_one_by_one(durations, limit, seed, number, shuffle)
    assert EpochPlan(durations, limit, seed, shuffle).batches(number) == expected


@settings(deadline=None)
@given(lengths, limits, st.integers(1, 4), st.integers(1, 5), st.integers(1, 12))
def test_a_stream_is_its_passes_one_after_the_other(durations, limit, per_epoch, per_update, updates):
    durations = np.array(durations)
    plan = StreamPlan(durations, limit, 7, per_epoch, per_update, updates)
    epochs = range(1, -(-updates // per_epoch) + 1)
    stream = [batch for epoch in epochs for batch in plan.batches(epoch)]
    expected, number = [], 0
    while len(expected) < updates * per_update:
        number += 1
        expected += plan_one_by_one(durations, limit, 7, number, True)
    assert stream == expected[: updates * per_update]


def test_positions_of_a_plan_are_plain_numbers():
    batch = EpochPlan(np.ones(3), 2.0, 0).batches(1)[0]
    assert all(type(position) is int for position, _ in batch)
    assert torch.utils.data.default_collate([position for position, _ in batch]).dtype == torch.int64
