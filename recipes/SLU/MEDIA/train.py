"""Spoken language understanding: characters and concept tags by CTC, on any encoder; and the steps around it.

python recipes/SLU/MEDIA/train.py recipes/SLU/MEDIA/hparams/ctc.yaml --data_folder D --ssl_hub E
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
