"""Distils hidden layers of any SSL encoder into a small one (DistilHuBERT: Chang et al., 2022).

python recipes/pretraining/distillation/train.py recipes/pretraining/distillation/hparams/mini.yaml \
    --data_folder D --teacher LeBenchmark/wav2vec2-FR-14K-light
"""

from lebench_sb.core.command_line import launch
from lebench_sb.pretraining.distillation import DistillationBrain, distil_and_export, waveforms
from lebench_sb.training.data import load_utterances
from lebench_sb.training.run import start


def main(argv):
    hparams, run_opts = start(argv)
    utterances = load_utterances(hparams)
    brain = DistillationBrain(hparams["modules"], hparams, run_opts, hparams["checkpointer"])
    distil_and_export(brain, utterances, waveforms(utterances, hparams))


if __name__ == "__main__":
    launch(main)
