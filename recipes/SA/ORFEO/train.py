"""Syntactic analysis of speech on CEFC-Orféo: words by CTC and their dependency tree, with any encoder.

python recipes/SA/ORFEO/train.py recipes/SA/ORFEO/hparams/wav2tree.yaml --data_folder D --ssl_hub E
"""

from lebench_sb.core.command_line import launch
from lebench_sb.tasks.sa import SABrain, Symbols, build_modules, datasets, load_sentences
from lebench_sb.training.run import fit_and_test, start


def main(argv):
    hparams, run_opts = start(argv)
    sentences = load_sentences(hparams)
    symbols = Symbols.of(sentences["train"])
    build_modules(hparams, symbols, sentences)
    brain = SABrain(hparams["modules"], hparams, run_opts, hparams["checkpointer"], symbols)
    fit_and_test(brain, sentences, datasets(sentences))


if __name__ == "__main__":
    launch(main)
