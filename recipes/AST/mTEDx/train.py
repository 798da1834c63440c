"""Speech translation from French with a Transformer and any encoder: filterbank, frozen SSL, fine-tuned SSL.

python recipes/AST/mTEDx/train.py recipes/AST/mTEDx/hparams/transformer.yaml --data_folder D --ssl_hub E
"""

from lebench_sb.core.command_line import launch
from lebench_sb.tasks.ast import ASTBrain, datasets, learn_subwords, targets, with_targets
from lebench_sb.training.data import load_utterances
from lebench_sb.training.run import fit_and_test, start


def main(argv):
    hparams, run_opts = start(argv)
    utterances = with_targets(load_utterances(hparams), hparams["target_language"])
    texts = targets(utterances, hparams)
    subwords = learn_subwords(texts, hparams)
    hparams["modules"]["head"] = hparams["head"](output_size=len(subwords))
    hparams["checkpointer"].add_recoverable("head", hparams["modules"]["head"])
    brain = ASTBrain(hparams["modules"], hparams, run_opts, hparams["checkpointer"], subwords, texts)
    fit_and_test(brain, utterances, datasets(utterances, hparams["target_language"]))


if __name__ == "__main__":
    launch(main)
