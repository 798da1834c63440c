"""Speech translation from French with a Transformer and any encoder: filterbank, frozen SSL, fine-tuned SSL.

python recipes/AST/mTEDx/train.py recipes/AST/mTEDx/hparams/transformer.yaml --data_folder D --ssl_hub E
"""

from lebench_sb.core.command_line import launch
from lebench_sb.tasks.ast import with_targets
from lebench_sb.training.data import load_utterances
from lebench_sb.training.run import fit_and_test, start


def main(argv):
    hparams, run_opts = start(argv)
    utterances = with_targets(load_utterances(hparams), hparams["target_language"])
    brain, datasets = hparams["brain"](hparams, run_opts, utterances)
    fit_and_test(brain, utterances, datasets)


if __name__ == "__main__":
    launch(main)
