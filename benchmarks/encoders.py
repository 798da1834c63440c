"""Time of one batch through an encoder: ours, transformers' padded batch, transformers one by one.

    python benchmarks/encoders.py --architecture group --seconds 4 6 9 12 --threads 2

Random weights, wav2vec 2.0 extractor of `--channels`, `--layers` layers of `--width`. All but transformers'
padded batch give each utterance the frames it has alone. "ours" pads on an accelerator and not on a CPU;
"ours, padded" does so everywhere. Forward is without gradient (frozen); step is forward and backward, "
"without dropout.
Rounds are interleaved; medians of wall seconds, of CPU seconds of this process, and the wall ratio to ours.
"""

import argparse
import tempfile
import time

import torch
import transformers

from lebench_sb.encoders.encoder import load_encoder
from lebench_sb.encoders.model_folders import save_encoder

NORMS = {
    "group": {"feat_extract_norm": "group"},
    "layer": {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True},
}


def main():
    args = parse_arguments()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    config = transformers.Wav2Vec2Config(
        conv_dim=(args.channels,) * 7,
        hidden_size=args.width,
        num_hidden_layers=args.layers,
        num_attention_heads=args.width // 64,
        intermediate_size=4 * args.width,
        **NORMS[args.architecture],
    )
    with tempfile.TemporaryDirectory() as folder:
        save_encoder(transformers.Wav2Vec2Model(config), folder + "/encoder", do_normalize=False)
        encoder = load_encoder(folder + "/encoder", freeze=False).eval().to(args.device)
        padded = load_encoder(folder + "/encoder", freeze=False).eval().to(args.device)
        padded._pads = lambda device: True
        model = transformers.AutoModel.from_pretrained(folder + "/encoder").eval().to(args.device)
    lens = [round(16_000 * seconds) for seconds in args.seconds]
    wavs = torch.randn(len(lens), max(lens), device=args.device)
    relative = torch.tensor(lens) / max(lens)
    mask = (torch.arange(max(lens)) < torch.tensor(lens)[:, None]).long().to(args.device)
    ways = {
        "ours": lambda: encoder(wavs, relative)[0].sum(),
        "ours, padded": lambda: padded(wavs, relative)[0].sum(),
        "transformers, padded": lambda: model(wavs * mask, attention_mask=mask).last_hidden_state.sum(),
        "transformers, one by one": lambda: sum(
            model(wavs[i : i + 1, :n]).last_hidden_state.sum() for i, n in enumerate(lens)
        ),
    }
    for kind, run in (("forward", forward), ("step", step)):
        seconds = measure(ways, run, args.rounds, args.device)
        for way, (wall, cpu) in seconds.items():
            print(f"{kind:8} {way:26} {wall:8.3f} s {cpu:8.3f} s CPU {wall / seconds['ours'][0]:5.2f}")


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--architecture", choices=NORMS, default="group")
    parser.add_argument("--seconds", type=float, nargs="+", default=[4, 6, 9, 12], help="of each utterance")
    parser.add_argument("--channels", type=int, default=512)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    return parser.parse_args()


def forward(way):
    with torch.no_grad():
        way()


def step(way):
    way().backward()


def measure(ways, run, rounds, device):
    """Median wall and CPU seconds of each way, after one round that does not count"""
    times = {name: [] for name in ways}
    for _ in range(rounds + 1):
        for name, way in ways.items():
            synchronise(device)
            start = time.perf_counter(), time.process_time()
            run(way)
            synchronise(device)
            times[name].append((time.perf_counter() - start[0], time.process_time() - start[1]))
    middle = rounds // 2
    return {
        name: [sorted(values)[middle] for values in zip(*counted[1:], strict=True)]
        for name, counted in times.items()
    }


def synchronise(device):
    if device.startswith("cuda"):
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
