"""The losses of short runs of every task are those of the file."""

import json

import pytest
from losses import GOLDEN, RUNS, differences, losses, machine, prepare


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """The miniature and a tiny encoder"""
    pytest.importorskip("espeakng_loader")
    pytest.importorskip("py_nanotts")
    folder = tmp_path_factory.mktemp("golden")
    prepare(folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", list(RUNS))
def test_losses_are_those_of_the_file(name, prepared):
    known = json.loads(GOLDEN.read_text(encoding="utf-8"))
    found = losses(name, prepared)
    assert len(found) >= 2
    assert differences(known["losses"][name], found, exact=known["machine"] == machine()) == []


def test_a_difference_is_told():
    one = {"train 1": 1.0, "train 2": 2.0, "valid 2": None}
    assert differences(one, dict(one), exact=True) == []
    assert differences(one, {**one, "train 2": 2.0000001}, exact=False) == []
    assert differences(one, {**one, "train 2": 2.0000001}, exact=True) == ["train 2: 2.0, now 2.0000001"]
    assert differences(one, {**one, "train 2": 2.1}, exact=False) == ["train 2: 2.0, now 2.1"]
    assert differences(one, {**one, "valid 2": 3.0}, exact=False) == ["valid 2: None, now 3.0"]
    assert differences(one, {"train 1": 1.0, "train 2": 2.0}, exact=False) == [
        "valid 2: in one of them alone"
    ]
