"""One training epoch of speech recognition on a frozen encoder: frames computed anew, or read from the cache.

    python benchmarks/feature_cache.py --data_folder data/miniature --size base --layer weighted --rounds 3

The recipe's own head, batches and loader (recipes/ASR/CommonVoice/hparams/ctc.yaml); encoders with random
weights, as large as real ones. The same epochs in turn, with and without the cache: medians of wall seconds,
their ratio, the seconds the cache took to fill and its size on disk, float32 and float16. The losses must
agree, or the exit code is 1.
"""

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch
import transformers
from tqdm import tqdm

from lebench_sb.encoders.model_folders import save_encoder
from lebench_sb.tasks.asr import ASRBrain, Characters, datasets
from lebench_sb.training.brain import TRAIN
from lebench_sb.training.data import load_utterances
from lebench_sb.training.features import FeatureCache
from lebench_sb.training.run import start

ROOT = Path(__file__).parents[1]
YAML = str(ROOT / "recipes/ASR/CommonVoice/hparams/ctc.yaml")
SIZES = {
    "mini": dict(hidden_size=256, num_hidden_layers=6, num_attention_heads=4, intermediate_size=1024),
    "base": dict(hidden_size=768, num_hidden_layers=12, num_attention_heads=12, intermediate_size=3072),
    "large": dict(
        hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, intermediate_size=4096,
        feat_extract_norm="layer", do_stable_layer_norm=True, conv_bias=True,
    ),
}  # fmt: skip
TOLERANCE = {"float32": 1e-3, "float16": 2e-2}  # of the mean loss of an epoch, relative


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data_folder", required=True, help="Common Voice, or the miniature")
    parser.add_argument("--size", choices=SIZES, default="base")
    parser.add_argument("--layer", default="weighted")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    options, more = parser.parse_known_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        encoder = f"{folder}/encoder"
        torch.manual_seed(0)
        config = transformers.Wav2Vec2Config(**SIZES[options.size])
        save_encoder(transformers.Wav2Vec2Model(config), encoder, do_normalize=True)
        words = ["--data_folder", options.data_folder, "--output_folder", f"{folder}/run", *more]
        hparams, run_opts = start([YAML, *words, "--ssl_hub", encoder, "--layer", options.layer])
        sys.exit(0 if compare(hparams, run_opts, folder, options) else 1)


def compare(hparams, run_opts, folder, options):
    """Prints the table; returns whether the losses agree"""
    utterances = load_utterances(hparams)
    characters = Characters.of(utterances["train"])
    hparams["modules"]["head"] = hparams["head"](output_size=len(characters))
    brain = ASRBrain(hparams["modules"], hparams, run_opts, None, characters)
    made = datasets(utterances)
    brain.total_updates = options.rounds * 1000
    brain.on_fit_start()
    caches = {"recomputed": None}
    caches |= {dtype: FeatureCache(f"{folder}/cache", hparams["encoder"], dtype) for dtype in TOLERANCE}
    loaders = {}
    for name, cache in caches.items():
        brain.cache = cache
        loaders[name] = brain.loader(made["train"], TRAIN)
    seconds, losses = {name: [] for name in caches}, {name: [] for name in caches}
    weights = {name: value.clone() for name, value in brain.modules.state_dict().items()}
    for epoch in range(1, options.rounds + 1):
        for name, cache in caches.items():
            brain.cache = cache
            brain.modules.load_state_dict(weights)
            brain.init_optimizers()
            brain.optimizer_step = 0  # the same learning rates
            started = time.time()
            brain._fit_train(loaders[name], epoch, tqdm(disable=True))
            seconds[name].append(time.time() - started)
            losses[name].append(float(brain.train_loss))
    hours = sum(u.duration for u in utterances["train"]) / 3600
    report(caches, seconds, losses, hours, options)
    pairs = [(losses["recomputed"], losses[dtype], limit) for dtype, limit in TOLERANCE.items()]
    return all(abs(a - b) <= limit * a for one, two, limit in pairs for a, b in zip(one, two, strict=True))


def report(caches, seconds, losses, hours, options):
    print(f"torch {torch.__version__}, {options.threads} threads, {options.size}, layer {options.layer}")
    print(f"{hours:.2f} h of training audio, {options.rounds} rounds\n")
    print(f"{'frames':12} {'epoch s':>9} {'times faster':>13} {'to fill s':>10} {'disk MB':>9} {'loss':>9}")
    base = statistics.median(seconds["recomputed"])
    for name, cache in caches.items():
        epoch = statistics.median(seconds[name])
        fill = f"{cache.seconds:10.1f} {cache.bytes / 1e6:9.0f}" if cache else f"{'':10} {'':9}"
        print(f"{name:12} {epoch:9.2f} {base / epoch:13.1f} {fill} {losses[name][-1]:9.3f}")


if __name__ == "__main__":
    main()
