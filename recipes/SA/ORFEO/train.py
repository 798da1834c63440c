"""Syntactic analysis of speech on CEFC-Orféo: words by CTC and their dependency tree, with any encoder.

python recipes/SA/ORFEO/train.py recipes/SA/ORFEO/hparams/wav2tree.yaml --data_folder D --ssl_hub E
"""

from lebench_sb.core.command_line import launch
from lebench_sb.tasks.sa import load_sentences
from lebench_sb.training.run import fit_and_test, start


def main(argv):
    hparams, run_opts = start(argv)
    utterances = load_sentences(hparams)
    brain, datasets = hparams["brain"](hparams, run_opts, utterances)
    fit_and_test(brain, utterances, datasets)


if __name__ == "__main__":
    launch(main)
