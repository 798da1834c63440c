"""Distils hidden layers of any SSL encoder into a small one (DistilHuBERT: Chang et al., 2022).

python recipes/pretraining/distillation/train.py recipes/pretraining/distillation/hparams/mini.yaml \
    --data_folder D --teacher LeBenchmark/wav2vec2-FR-14K-light
"""

from lebench_sb.core.command_line import launch
from lebench_sb.pretraining.distillation import distil_and_export
from lebench_sb.training.data import load_utterances
from lebench_sb.training.run import start


def main(argv):
    hparams, run_opts = start(argv)
    utterances = load_utterances(hparams)
    brain, datasets = hparams["brain"](hparams, run_opts, utterances)
    distil_and_export(brain, utterances, datasets)


if __name__ == "__main__":
    launch(main)
