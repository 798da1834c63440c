"""Speaker verification with ECAPA-TDNN on any encoder: filterbank, frozen SSL or fine-tuned SSL.

python recipes/ASV/Fabiole/train.py recipes/ASV/Fabiole/hparams/ecapa.yaml --data_folder D --ssl_hub E
"""

from lebench_sb.core.command_line import launch
from lebench_sb.tasks.asv import ASVBrain, check_speakers, datasets, trial_lists
from lebench_sb.training.data import load_utterances
from lebench_sb.training.run import fit_and_test, start


def main(argv):
    hparams, run_opts = start(argv)
    utterances = load_utterances(hparams)
    shared = check_speakers(utterances, hparams["allow_speaker_overlap"])
    trials = trial_lists(utterances, hparams)
    names = sorted({u.speaker for u in utterances["train"]})
    modules, checkpointer = hparams["modules"], hparams["checkpointer"]
    modules["classifier"] = hparams["classifier"](out_neurons=len(names))
    checkpointer.add_recoverable("classifier", modules["classifier"])
    data = datasets(utterances, hparams)
    brain = ASVBrain(modules, hparams, run_opts, checkpointer, names, trials, shared, data)
    fit_and_test(brain, utterances, data)


if __name__ == "__main__":
    launch(main)
