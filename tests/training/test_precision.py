"""bf16 where the CPU has units for it, fp32 where it would be emulated."""

import logging

import pytest
import torch
from speechbrain.utils.run_opts import RunOptions

from lebench_sb.training import run


def settled(typed, written, units, monkeypatch, device="cpu"):
    """-> (precision of the run options, of the YAML) after settling"""
    monkeypatch.setattr(run, "has_bf16_units", lambda: units)
    asked = {"precision"} if typed else set()
    run_opts = RunOptions(device=device, precision=typed or "fp32", overridden_args=asked)
    hparams = {"precision": written, "eval_precision": "fp32"}
    return run.settle_precision(hparams, run_opts).precision, hparams["precision"]


def test_a_cpu_without_units_computes_in_fp32_and_says_so(monkeypatch, caplog):
    with caplog.at_level(logging.WARNING):
        assert settled("", "bf16", False, monkeypatch)[1] == "fp32"
        assert settled("bf16", "fp32", False, monkeypatch)[0] == "fp32"
    assert [line.getMessage() for line in caplog.records] == [
        "precision: fp32 in place of bf16, which this CPU has no units for."
    ] * 2


@pytest.mark.parametrize("device, units", [("cpu", True), ("cuda:0", False)])
def test_elsewhere_the_precision_asked_for_is_kept(device, units, monkeypatch, caplog):
    assert settled("", "bf16", units, monkeypatch, device) == ("fp32", "bf16")
    assert settled("bf16", "fp32", units, monkeypatch, device)[0] == "bf16"
    assert not caplog.records


def test_units_are_those_that_torch_finds():
    if torch.ops.mkldnn._is_mkldnn_bf16_supported() is False:
        assert not run.has_bf16_units()
