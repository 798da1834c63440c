"""What the frames of small extractors hold of a log-mel spectrum: before they are taught it, and after.

    python benchmarks/extractor_shapes.py results/real/ssl --data_folder ../shared/data --updates 300

FOLDER holds train.csv and valid.csv. For each shape and start, a ridge regression on frames of train predicts
the log-mel energies around frames of valid: the share of their variance that it explains, before and after
`--updates` updates of `teach_log_mel`; then the perplexity on valid of codes chosen by a quantiser that
`init_quantizer` has fitted to a batch. Prints a table in Markdown.
"""

import argparse
import random
import sys
import time
from pathlib import Path

import torch

from lebench_sb.audio.waveforms import standardise_waveform
from lebench_sb.manifests.reading import read_manifest
from lebench_sb.pretraining.build import build_model, make_config
from lebench_sb.pretraining.initialise import init_quantizer
from lebench_sb.pretraining.log_mel import Frames, teach_log_mel
from lebench_sb.pretraining.losses import perplexity
from lebench_sb.training.data import PlannedLoader, StreamPlan, as_dataset, cropped_audio_item

FOUR = dict(conv_dim=[96, 128, 192, 192], conv_stride=[20, 4, 2, 2])
THREE = dict(conv_kernel=[320, 4, 4], conv_stride=[80, 2, 2])
SHAPES = [  # (start, conv_dim and so on)
    ("random", FOUR | dict(conv_kernel=[160, 8, 4, 4])),
    ("filterbank", FOUR | dict(conv_kernel=[160, 8, 4, 4])),
    ("filterbank", FOUR | dict(conv_kernel=[320, 8, 4, 4])),
    ("filterbank", dict(conv_dim=[192] * 4, conv_kernel=[320, 4, 4, 4], conv_stride=[40, 2, 2, 2])),
    ("filterbank", dict(conv_dim=[256] * 4, conv_kernel=[400, 1, 4, 4], conv_stride=[80, 1, 2, 2])),
    ("filterbank", THREE | dict(conv_dim=[256] * 3, conv_kernel=[400, 4, 4])),
    ("random", THREE | dict(conv_dim=[192] * 3)),
    ("filterbank", THREE | dict(conv_dim=[192] * 3)),
]
RIDGE = 1e-4  # times the number of frames, of features scaled to variance 1


def utterances(path, data_folder, count, seed=0):
    """A random part of a manifest's utterances as a dataset of crops of at most 8 s"""
    found = [u for u in read_manifest(path, data_folder) if u.duration >= 1.0]
    random.Random(seed).shuffle(found)
    return as_dataset(found[:count], [cropped_audio_item(seed, 8.0, standardise_waveform)], ["sig"])


def batch_of(dataset, first, count):
    """-> wavs (B, T), lens (B,)"""
    wavs = [dataset[k]["sig"] for k in range(first, min(first + count, len(dataset)))]
    return torch.nn.utils.rnn.pad_sequence(wavs, batch_first=True), torch.tensor(list(map(len, wavs)))


@torch.no_grad()
def heard(model, dataset, count):
    """-> features (N, C), log-mel energies (N, K M) of the first `count` utterances"""
    frames, features, targets = Frames(model.hf.config, "cpu"), [], []
    for first in range(0, count, 10):
        wavs, lens = batch_of(dataset, first, 10)
        features.append(model.valid_features(wavs, lens))
        targets.append(frames.targets(wavs, lens.tolist()))
    return torch.cat(features), torch.cat(targets)


def explained(model, train, valid):
    """Share (%) of the variance of valid's log-mel energies that a linear map learnt on train explains"""
    features, targets = heard(model, train, 300)
    mean, scale = features.mean(0), features.std(0) + 1e-6

    def inputs(x):
        return torch.cat([(x - mean) / scale, torch.ones(len(x), 1)], dim=1).double()

    x = inputs(features)
    gram = x.T @ x + RIDGE * len(x) * torch.eye(x.shape[1], dtype=torch.float64)
    weights = torch.linalg.solve(gram, x.T @ targets.double())
    features, targets = heard(model, valid, 100)
    error = (inputs(features) @ weights - targets).square().sum()
    return 100 * float(1 - error / (targets - targets.mean(0)).square().sum())


@torch.no_grad()
def codes_in_use(model, train, valid):
    """Perplexities of the codes of valid after `init_quantizer` on ten utterances"""
    init_quantizer(model, *batch_of(train, 0, 10))
    chosen = model.quantizer_logits(model.valid_features(*batch_of(valid, 0, 60))).argmax(-1)
    counts = torch.nn.functional.one_hot(chosen, model.hf.config.num_codevectors_per_group).float().mean(0)
    return [round(float(perplexity(group))) for group in counts]


def row(start, shape, train, valid, updates):
    config = make_config(
        **shape, conv_bias=True, feat_extract_norm="layer", do_stable_layer_norm=True, hidden_size=256,
        num_hidden_layers=1, num_attention_heads=4, intermediate_size=256, num_conv_pos_embeddings=64,
        num_conv_pos_embedding_groups=8, codevector_dim=128, proj_codevector_dim=128,
        num_codevectors_per_group=320, mask_time_prob=0.65,
    )  # fmt: skip
    model = build_model(config, "", 0.0, 1234, start=start)
    size = sum(p.numel() for p in model.hf.base_model.feature_extractor.parameters())
    before, started = explained(model, train, valid), time.time()
    plan = StreamPlan(train.durations, 16.0, 1234, updates, 1, updates)
    teach_log_mel(model, PlannedLoader(train, plan), updates)
    seconds = time.time() - started
    after, codes = explained(model, train, valid), codes_in_use(model, train, valid)
    told = (
        *(", ".join(map(str, shape[name])) for name in ("conv_dim", "conv_kernel", "conv_stride")), start,
        f"{size / 1000:.0f} k", f"{before:.1f}", f"{after:.1f}", f"{seconds:.0f}", f"{codes[0]}, {codes[1]}",
    )  # fmt: skip
    print("| " + " | ".join(told) + " |", flush=True)


def main(argv):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--data_folder", default="")
    parser.add_argument("--updates", type=int, default=300)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args(argv)
    torch.set_num_threads(options.threads)
    train, valid = (
        utterances(options.folder / f"{split}.csv", options.data_folder, count)
        for split, count in (("train", 2000), ("valid", 100))
    )
    heads = ["conv_dim", "kernels", "strides", "start", "weights", "% before", "% after", "seconds", "codes"]
    print("| " + " | ".join(heads) + " |\n" + "|---" * len(heads) + "|", flush=True)
    for start, shape in SHAPES:
        row(start, shape, train, valid, options.updates)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
