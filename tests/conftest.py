"""Small speech-like corpora and models, made by the tests; ../shared/data where it exists."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import speechbrain  # noqa: F401  its lazy modules must exist before they are taken away
import torch
from made_once import made_once
from speechbrain.utils.importutils import LazyModule

from lebench_sb.manifests.utterance import Utterance
from lebench_sb.manifests.writing import write_manifest

# hypothesis looks at every loaded module; SpeechBrain's redirections to optional packages raise when looked
# at
for name, module in list(sys.modules.items()):
    if isinstance(module, LazyModule):
        del sys.modules[name]

ROOT = Path(__file__).parents[1]
if "PYTEST_XDIST_WORKER" in os.environ:  # side by side, threads would only wait for each other
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"
WORDS = ["oui", "non", "bonjour", "merci", "demain", "peut être"]


@pytest.fixture(scope="session")
def root():
    """The repository's top folder"""
    return ROOT


@pytest.fixture(scope="session")
def shared_data():
    """Real speech beside the repository; tests that need it are skipped where it is absent."""
    folder = Path(os.environ.get("LEBENCH_SHARED", ROOT.parent / "shared" / "data"))
    if not (folder / "dev_pack" / "manifest.csv").exists():
        pytest.skip(f"{folder}/dev_pack is absent: real speech is not part of the project")
    return folder


def write_utterance(path, seconds, rng):
    """Noise whose colour changes every 0.1 s: something to predict"""
    pieces = []
    for _ in range(int(seconds * 10)):
        pitch = rng.choice([110, 220, 330, 440, 880])
        t = np.arange(1600) / 16000
        pieces.append(0.3 * np.sin(2 * np.pi * pitch * t) + 0.02 * rng.standard_normal(1600))
    soundfile.write(path, np.concatenate(pieces), 16000)


@pytest.fixture(scope="session")
def corpus(tmp_path_factory):
    """Folder with wavs and manifests train.csv (16), valid.csv (6), test.csv (12 speakers) of 1 to 3
    seconds"""
    folder = tmp_path_factory.mktemp("corpus")
    rng = np.random.default_rng(0)
    for split, count in (("train", 16), ("valid", 6), ("test", 13)):
        utterances = []
        for number in range(count):
            seconds = round(float(rng.uniform(1.0, 3.0)), 1)
            path = folder / f"{split}{number}.wav"
            write_utterance(path, seconds, rng)
            text = " ".join(rng.choice(WORDS, 2))
            speaker = f"{split}{number % 12}"
            labels = {"wrd": text}
            utterances.append(
                Utterance(path.stem, str(path), seconds, speaker=speaker, gender="F", labels=labels)
            )
        write_manifest(folder / f"{split}.csv", utterances, folder, {})
    return folder


@pytest.fixture(scope="session")
def manifests(corpus):
    """The words that name the corpus on a recipe's command line"""
    words = ["--data_folder", str(corpus)]
    for split in ("train", "valid", "test"):
        words += [f"--{split}_csv", str(corpus / f"{split}.csv")]
    return words


@pytest.fixture(scope="session")
def emotion_miniature(tmp_path_factory):
    """Folder with a small miniature of RECOLA, AlloSat and CaFE (six actors)"""
    pytest.importorskip("espeakng_loader")
    pytest.importorskip("py_nanotts")
    from lebench_sb.corpora.miniature.build import build_miniature

    def build(folder):
        build_miniature(folder, scale=0.02, workers=1, corpora=("recola", "allosat", "cafe"))

    return made_once(tmp_path_factory, "emotion", build)


TINY_MODEL = (
    "{conv_dim: [16, 16, 16], conv_kernel: [10, 8, 4], conv_stride: [5, 8, 8], hidden_size: 16, "
    "num_hidden_layers: 2, num_attention_heads: 2, intermediate_size: 32, num_conv_pos_embeddings: 8, "
    "num_conv_pos_embedding_groups: 2, codevector_dim: 8, proj_codevector_dim: 8, "
    "num_codevectors_per_group: 20, hidden_dropout: 0.1, attention_dropout: 0.1, layerdrop: 0.2}"
)


@pytest.fixture(scope="session")
def tiny_pretraining(manifests):
    """The words of a pre-training run of seconds, dropout and LayerDrop on, accumulation 2, two workers"""
    words = [word for word in manifests if "test" not in Path(word).name]
    options = {
        "config": TINY_MODEL, "number_of_updates": 12, "valid_every_updates": 6,
        "checkpoint_every_updates": 2, "grad_accumulation_factor": 2, "num_workers": 2,
        "max_batch_seconds": 6, "max_crop": 2.0, "precision": "fp32", "eval_precision": "fp32",
        "mask_length": 4, "feature_grad_mult": 0.5,
        "freeze_targets_updates": 3, "log_mel_updates": 2,
    }  # fmt: skip
    return words + [f"--{key}={value}" for key, value in options.items()]
