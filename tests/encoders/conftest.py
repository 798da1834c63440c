"""Tiny checkpoints and a ragged batch that the tests of the encoders share."""

import socket

import pytest
import torch
from tiny_encoders import ARCHITECTURES, new_model, write_extractor


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory):
    """checkpoints(name) -> the folder of a tiny checkpoint of that architecture"""
    root = tmp_path_factory.mktemp("checkpoints")

    def folder(name):
        path = root / name
        if not path.exists():
            kind, sizes = ARCHITECTURES[name]
            model = new_model(kind, sizes)
            model.save_pretrained(path)
            write_extractor(path, model, do_normalize=sizes.get("feat_extract_norm") == "layer")
        return str(path)

    return folder


@pytest.fixture
def headed(tmp_path):
    """headed(kind, sizes) -> the folder of a tiny model of a task class"""

    def folder(kind, sizes):
        path = tmp_path / kind
        model = new_model(kind, sizes)
        model.save_pretrained(path)
        write_extractor(path, model, do_normalize=True)
        return path

    return folder


@pytest.fixture(scope="session")
def ragged():
    """wavs (4, T) and the numbers of samples: voice-like loudness, offsets, an odd number of mel frames"""
    generator = torch.Generator().manual_seed(1)
    lens = [9_037, 16_000, 4_321, 12_560]
    wavs = torch.zeros(4, max(lens))
    for row, length in enumerate(lens):
        wav = torch.randn(length, generator=generator).cumsum(0)
        wavs[row, :length] = 0.1 * (row + 1) * (wav - wav.mean()) / wav.abs().max() + 0.01 * row
    return wavs, lens


@pytest.fixture
def unused_tcp_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]
