"""Syntactic analysis of speech on UD_French-Rhapsodie: words by CTC, their dependency tree, any encoder.

python recipes/SA/Rhapsodie/train.py recipes/SA/Rhapsodie/hparams/wav2tree.yaml --data_folder D --ssl_hub E
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
