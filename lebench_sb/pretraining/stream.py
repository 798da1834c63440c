"""Speech for pre-training: crops of waveforms, and the stream of updates that has no epochs of its own."""

from lebench_sb.audio.waveforms import standardise_waveform
from lebench_sb.core.errors import UsageError
from lebench_sb.pretraining.languages import BalancedPlan, check_exponent
from lebench_sb.training.data import (
    StreamPlan,
    as_dataset,
    cropped_audio_item,
)


def datasets(utterances, hparams):
    """Utterances of each split -> SpeechDataset with `sig` (T,): crops of at most `max_crop` seconds, in
    valid always the same ones; each of mean 0 and variance 1 if `do_normalize`."""
    normalise = standardise_waveform if hparams["do_normalize"] else unchanged
    splits = {}
    for split in ("train", "valid"):
        item = cropped_audio_item(hparams["seed"], hparams["max_crop"], normalise)
        splits[split] = as_dataset(utterances[split], [item], ["sig", "spk_id", "gender", "duration"])
    return splits


def unchanged(sig):
    return sig


def training_plan(dataset, exponent, stream):
    """stream: the arguments of StreamPlan -> one, or a BalancedPlan where `exponent` changes the shares"""
    check_exponent(exponent)
    if exponent == 1:
        return StreamPlan(*stream)
    plan = BalancedPlan(dataset.languages, exponent, *stream)
    plan.tell()
    return plan


def virtual_epochs(number_of_updates, valid_every_updates):
    """Stretches between validations, the last one possibly shorter; UsageError for less than one update"""
    updates, every = int(number_of_updates), int(valid_every_updates)
    if updates < 1 or every < 1:
        raise UsageError(f"number_of_updates {updates}, valid_every_updates {every}: 1 is the least of each.")
    return -(-updates // every)
