"""Arousal or valence of RECOLA at every frame, with any encoder: filterbank, frozen or fine-tuned SSL.

python recipes/AER/RECOLA/train.py recipes/AER/RECOLA/hparams/lintanh.yaml --data_folder D --ssl_hub E
"""

from lebench_sb.core.command_line import launch
from lebench_sb.tasks.emotion_continuous import ContinuousEmotionBrain, datasets
from lebench_sb.training.data import load_utterances
from lebench_sb.training.run import fit_and_test, start


def main(argv):
    hparams, run_opts = start(argv)
    utterances = load_utterances(hparams)
    splits, traces = datasets(utterances, hparams)
    brain = ContinuousEmotionBrain(hparams["modules"], hparams, run_opts, hparams["checkpointer"], traces)
    fit_and_test(brain, utterances, splits)


if __name__ == "__main__":
    launch(main)
