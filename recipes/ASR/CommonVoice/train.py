"""Speech recognition on CommonVoice with any encoder: filterbank, frozen SSL or fine-tuned SSL.

python recipes/ASR/CommonVoice/train.py recipes/ASR/CommonVoice/hparams/ctc.yaml --data_folder D --ssl_hub E
"""

from lebench_sb.core.command_line import launch
from lebench_sb.tasks.asr import targets
from lebench_sb.training.data import load_utterances
from lebench_sb.training.run import fit_and_test, start


def main(argv):
    hparams, run_opts = start(argv)
    utterances = targets(load_utterances(hparams), hparams["target"])
    brain, datasets = hparams["brain"](hparams, run_opts, utterances)
    fit_and_test(brain, utterances, datasets)


if __name__ == "__main__":
    launch(main)
