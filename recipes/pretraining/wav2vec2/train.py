"""wav2vec 2.0 pre-training (Baevski et al., 2020) from any manifests; writes a Hugging Face encoder.

python recipes/pretraining/wav2vec2/train.py recipes/pretraining/wav2vec2/hparams/mini.yaml --data_folder D
"""

from lebench_sb.core.command_line import launch
from lebench_sb.pretraining.export import pretrain_and_export
from lebench_sb.training.data import load_utterances
from lebench_sb.training.run import start


def main(argv):
    hparams, run_opts = start(argv)
    utterances = load_utterances(hparams)
    brain, datasets = hparams["brain"](hparams, run_opts, utterances)
    pretrain_and_export(brain, utterances, datasets)


if __name__ == "__main__":
    launch(main)
