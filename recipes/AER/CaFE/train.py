"""Emotion of an utterance, of CaFE or your own table, with any encoder: filterbank, frozen or tuned SSL.

python recipes/AER/CaFE/train.py recipes/AER/CaFE/hparams/conv_pool.yaml --data_folder D --ssl_hub E
"""

from lebench_sb.core.command_line import launch
from lebench_sb.training.data import load_utterances
from lebench_sb.training.run import fit_and_test, start


def main(argv):
    hparams, run_opts = start(argv)
    utterances = load_utterances(hparams)
    brain, datasets = hparams["brain"](hparams, run_opts, utterances)
    fit_and_test(brain, utterances, datasets)


if __name__ == "__main__":
    launch(main)
