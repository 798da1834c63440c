"""wav2vec 2.0 pre-training (Baevski et al., 2020) from any manifests; writes a Hugging Face encoder.

python recipes/pretraining/wav2vec2/train.py recipes/pretraining/wav2vec2/hparams/mini.yaml --data_folder D
"""

from lebench_sb.core.command_line import launch
from lebench_sb.pretraining.brain import PretrainingBrain
from lebench_sb.pretraining.export import pretrain_and_export
from lebench_sb.pretraining.stream import datasets
from lebench_sb.training.data import load_utterances
from lebench_sb.training.run import start


def main(argv):
    hparams, run_opts = start(argv)
    utterances = load_utterances(hparams)
    brain = PretrainingBrain(hparams["modules"], hparams, run_opts, hparams["checkpointer"])
    pretrain_and_export(brain, utterances, datasets(utterances, hparams))


if __name__ == "__main__":
    launch(main)
