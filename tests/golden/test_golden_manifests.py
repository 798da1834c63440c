"""The preparations write the manifests that they wrote when `manifests.json` was made, byte for byte."""

import json

import manifests
import pytest


@pytest.mark.slow
def test_manifests_are_those_that_were_written_before(tmp_path):
    pytest.importorskip("espeakng_loader")
    pytest.importorskip("py_nanotts")
    miniature = tmp_path / "miniature"
    manifests.build_miniature(miniature, scale=manifests.SCALE, workers=2, corpora=manifests.names())
    found = manifests.prepared_hashes(miniature, tmp_path / "manifests")
    expected = json.loads(manifests.GOLDEN.read_text(encoding="utf-8"))
    assert list(found) == list(expected)
    for named in expected:
        assert found[named] == expected[named], named
