"""Traces: the files of RECOLA, AlloSat and users, and every way in which they are wrong."""

import logging

import numpy as np
import pytest

from lebench_sb.core.errors import DataError
from lebench_sb.manifests.traces import Trace, read_trace, read_traces
from lebench_sb.manifests.utterance import Utterance

ARFF = """\
% AVEC 2016
@relation GOLDSTANDARD

@attribute Instance_name string
@attribute frameTime numeric
@ATTRIBUTE 'GoldStandard' numeric


@data

'train_1',0.00,-0.001
'train_1',0.04,0.5
'train_1',0.08,1.25e-1
"""


def written(folder, text, name="a.csv"):
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_arff_as_distributed(tmp_path):
    trace = read_trace(written(tmp_path, ARFF, "train_1.arff"), "GoldStandard", 0.1)
    np.testing.assert_array_equal(trace.times, [0.0, 0.04, 0.08])
    np.testing.assert_array_equal(trace.values, [-0.001, 0.5, 0.125])


@pytest.mark.parametrize(
    "text, column",
    [
        ("time;satisfaction\n0.00;0.1\n0.25;-.2\n0.5;+1e-1\n", "satisfaction"),
        ("time;satisfaction\n0.00;0.1\n0.25;-.2\n0.5;+1e-1\n", ""),
        ("name,Time (s),other,satisfaction\nx,0.00,3,0.1\nx,0.25,3,-.2\nx,0.5,3,0.1\n", "satisfaction"),
        ("\ufefftime_s\tvalue\r\n0.00\t0.1\r\n0.25\t-.2\r\n0.5\t0.1\r\n", ""),
    ],
)
def test_tables(tmp_path, text, column):
    trace = read_trace(written(tmp_path, text), column, 0.6)
    np.testing.assert_array_equal(trace.times, [0.0, 0.25, 0.5])
    np.testing.assert_array_equal(trace.values, [0.1, -0.2, 0.1])


def test_without_times_the_values_are_spread_over_the_recording(tmp_path):
    path = written(tmp_path, "who;satisfaction\nx;0\nx;1\nx;2\nx;3\n")
    trace = read_trace(path, "satisfaction", 8.0)
    np.testing.assert_array_equal(trace.times, [1, 3, 5, 7])
    with pytest.raises(DataError, match="no column of times"):
        read_trace(path, "satisfaction", 8.0, whole=False)


def test_values_between_and_beyond():
    trace = Trace(np.array([0.0, 1.0, 3.0]), np.array([0.0, 2.0, -2.0]))
    np.testing.assert_allclose(trace.at([-1, 0.25, 2.0, 9]), [0.0, 0.5, 0.0, -2.0])


@pytest.mark.parametrize(
    "text, seconds, said",
    [
        ("time,v\n0,1\n0.5,nan\n1,inf\n", 1.0, r"v is not a finite .*\(2\): line 3 'nan', line 4 'inf'"),
        ("time;v\n0;1\n0,5;2\n", 1.0, r"time is not a finite number \(decimal point, .*line 3 '0,5'"),
        ("time,v\n0,1\n0.5,2\n0.5,3\n0.2,3\n", 0.5, r"not increase \(2\): line 4: 0.5 s after 0.5 s, line 5"),
        ("time,v\n0,1\n0.5,2\n", 60.0, r"values from 0 to 0.5 s for a recording of 60.00 s"),
        ("time,v\n0,1\n100,2\n", 60.0, r"values from 0 to 100 s for a recording of 60.00 s"),
        ("time,v\n30,1\n60,2\n", 60.0, r"values from 30 to 60 s"),
        ("time,v\n0,1\n60000,2\n", 60.0, r"milliseconds\?"),
        ("time,v\n0,1\n", 1.0, "1 values, a trace has at least 2"),
        ("time,v\n", 1.0, "0 values"),
        ("0.0,1\n0.5,2\n", 0.5, "first line is numbers"),
        ("time,arousal,valence\n0,1,1\n1,2,2\n", 1.0, "--trace_column; of numbers: arousal, valence"),
        ("time,text\n0,a\n1,b\n", 1.0, "--trace_column; of numbers: none"),
        ("time,v\n0,1\n0.5\n", 0.5, "rows shorter .*line 3 has 1"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(tmp_path, text, seconds, said):
    with pytest.raises(DataError, match=said):
        read_trace(written(tmp_path, text), "", seconds)


def test_a_column_that_is_not_there(tmp_path):
    path = written(tmp_path, "time,satisfaction\n0,1\n1,2\n")
    with pytest.raises(DataError, match=r"'satisfation' \(did you mean satisfaction\?\); it has time"):
        read_trace(path, "satisfation", 1.0)


def test_broken_arff(tmp_path):
    with pytest.raises(DataError, match="no line @data"):
        read_trace(written(tmp_path, "time,v\n0,1\n", "a.arff"), "v", 1.0)
    with pytest.raises(DataError, match="3 fields of the @attribute lines.*line 13 has 2"):
        read_trace(written(tmp_path, ARFF.replace(",1.25e-1", ""), "a.arff"), "GoldStandard", 1.0)


def utterance(name, trace, start=None, stop=None, seconds=1.0):
    labels = {"trace": str(trace)} if trace else {}
    return Utterance(name, f"/{name}.wav", seconds, start, stop, labels=labels)


def test_all_files_are_read_once_and_all_faults_listed(tmp_path):
    good = written(tmp_path, "time,v\n0,0.1\n1,0.2\n")
    bad = written(tmp_path, "time,v\n0,0.1\n1,x\n", "bad.csv")
    high = written(tmp_path, "time,v\n0,0.1\n1,5\n", "high.csv")
    assert list(read_traces([utterance("a", good), utterance("b", good)], "")) == [str(good)]
    wrong = [utterance("a", good), utterance("c", bad), utterance("d", high), utterance("e", "")]
    with pytest.raises(DataError) as error:
        read_traces([*wrong, utterance("f", tmp_path / "none.csv")], "", (-1, 1))
    for said in ("no trace (column trace) (1): e", "bad.csv: v is not a finite", "none.csv not found",
                 "outside trace_range [-1, 1]", "high.csv has 0.1 to 5"):  # fmt: skip
        assert said in str(error.value)


def test_pieces_of_a_recording_use_the_times_of_its_file(tmp_path):
    rows = "".join(f"{t},{t / 100}\n" for t in range(0, 61))
    path = written(tmp_path, "time,v\n" + rows)
    pieces = [utterance("a", path, 0.0, 10.0, 10.0), utterance("b", path, 10.0, 20.0, 10.0)]
    assert len(read_traces(pieces, "")[str(path)].times) == 61
    with pytest.raises(DataError, match="recording of 70.00 s"):
        read_traces([utterance("c", path, 60.0, 70.0, 10.0)], "")


def test_values_that_are_missing_in_the_middle_are_told(tmp_path):
    rows = [f"{k * 0.25};0.{k % 9}" for k in range(400) if not 100 < k <= 140]
    path = written(tmp_path, "time;satisfaction\n" + "\n".join(rows) + "\n")
    with pytest.raises(DataError, match=r"for over 5.00 s \(1\): line 103: 35.25 s after 25 s"):
        read_trace(path, "satisfaction", 100.0)
    sparse = written(tmp_path, "time;x\n" + "".join(f"{k * 2.0};0.{k}\n" for k in range(10)), "b.csv")
    assert len(read_trace(sparse, "x", 19.0).times) == 10  # a value every 2 s is no hole


def test_traces_that_never_change_are_told(tmp_path, caplog):
    for name, value in (("a", 0), ("b", 2)):
        rows = "".join(f"{k};{k * value}\n" for k in range(5))
        written(tmp_path, f"time;x\n{rows}", f"{name}.csv")
    found = [Utterance(n, "x.wav", 4.5, labels={"trace": str(tmp_path / f"{n}.csv")}) for n in "ab"]
    with caplog.at_level(logging.WARNING):
        read_traces(found, "x")
    assert f"1 of 2 traces never change: {tmp_path / 'a.csv'}" in caplog.text


def test_a_line_that_no_parser_takes_is_told(tmp_path):
    path = written(tmp_path, ARFF + "'" + "x" * 200_000 + "',0.12,0.1\n", "train_1.arff")
    with pytest.raises(DataError, match="line 14 has 1"):
        read_trace(path, "GoldStandard", 0.1)
