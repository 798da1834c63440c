"""Speech recognition with characters, CTC and any encoder: filterbank, frozen SSL or fine-tuned SSL.

python recipes/ASR/CommonVoice/train.py recipes/ASR/CommonVoice/hparams/ctc.yaml --data_folder D --ssl_hub E
"""

from lebench_sb.command_line import launch
from lebench_sb.data import load_utterances
from lebench_sb.run import fit_and_test, start
from lebench_sb.tasks.asr import ASRBrain, Characters, datasets


def main(argv):
    hparams, run_opts = start(argv)
    utterances = load_utterances(hparams)
    characters = Characters.of(utterances["train"])
    hparams["modules"]["head"] = hparams["head"](output_size=len(characters))
    hparams["checkpointer"].add_recoverable("head", hparams["modules"]["head"])
    brain = ASRBrain(hparams["modules"], hparams, run_opts, hparams["checkpointer"], characters)
    fit_and_test(brain, utterances, datasets(utterances))


if __name__ == "__main__":
    launch(main)
