"""Emotion of an utterance, of CaFE or your own table, with any encoder: filterbank, frozen or tuned SSL.

python recipes/AER/CaFE/train.py recipes/AER/CaFE/hparams/conv_pool.yaml --data_folder D --ssl_hub E
"""

from lebench_sb.core.command_line import launch
from lebench_sb.tasks.emotion_categorical import CategoricalEmotionBrain, datasets
from lebench_sb.training.data import load_utterances
from lebench_sb.training.run import fit_and_test, start


def main(argv):
    hparams, run_opts = start(argv)
    utterances = load_utterances(hparams)
    splits, classes = datasets(utterances, hparams)
    hparams["modules"]["head"] = hparams["head"](output_size=len(classes))
    hparams["checkpointer"].add_recoverable("head", hparams["modules"]["head"])
    brain = CategoricalEmotionBrain(hparams["modules"], hparams, run_opts, hparams["checkpointer"], classes)
    fit_and_test(brain, utterances, splits)


if __name__ == "__main__":
    launch(main)
