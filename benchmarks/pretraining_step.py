"""One wav2vec 2.0 pre-training step (masks, forward, backward, clip, AdamW): ours against other systems, on
this machine.

    python benchmarks/pretraining_step.py --size 26m --norm layer --batch 4 --seconds 10 --rounds 5

Systems, interleaved round by round in one process, with the same threads and allocator:
  ours          lebench_sb.pretraining
  transformers  Wav2Vec2ForPreTraining with its own masking functions and scaled_dot_product_attention: same
                weights, batch, masking rule, dropouts, clipping and fused AdamW. With dropouts 0 and the same
                masks and noise its losses must equal ours, or the exit code is 1.
  fairseq       with --fairseq PYTHON:SOURCE (see fairseq_peer.py): its own model in its own process, with the
                same weights, batch, masking rule, dropouts, clipping and fused AdamW, without the projection
                before the transformer where extractor and transformer are equally wide (26m); its losses of
                one utterance on the same mask, negatives and noise must equal ours too.
  speechbrain   speechbrain.lobes.models.wav2vec in its nearest configuration; the differences are printed.
Times are medians over the rounds, ratios the medians of each round's ratio to transformers. Peak memory is
the largest resident size (on a GPU: the most that was allocated there) of a process of its own that runs
three steps of one system.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F
from transformers import Wav2Vec2Config, Wav2Vec2ForPreTraining
from transformers.models.wav2vec2.modeling_wav2vec2 import _compute_mask_indices, _sample_negative_indices

from lebench_sb.pretraining.kernels.extractor import extract
from lebench_sb.pretraining.masking import draw_masks
from lebench_sb.pretraining.model import PretrainingModel

SIZES = {
    "mini": dict(
        conv_dim=(48, 64, 96, 128, 192, 192, 192),
        hidden_size=256,
        num_hidden_layers=6,
        num_attention_heads=4,
        intermediate_size=1024,
    ),
    "26m": dict(hidden_size=512, num_hidden_layers=6, num_attention_heads=8, intermediate_size=2048),
    "base": dict(hidden_size=768, num_hidden_layers=12, num_attention_heads=12, intermediate_size=3072),
}
NORMS = {
    "group": dict(feat_extract_norm="group", conv_bias=False, do_stable_layer_norm=False),
    "layer": dict(feat_extract_norm="layer", conv_bias=True, do_stable_layer_norm=True),
}
DROPOUTS = ["hidden_dropout", "attention_dropout", "feat_proj_dropout", "feat_quantizer_dropout"]
RAGGED = (1.5, 1.1, 0.7, 0.3)  # lengths of --ragged in units of --seconds, repeated over the batch
MASK = dict(prob=0.65, length=10, min_masks=2)
NEGATIVES, TEMPERATURE, DIVERSITY_WEIGHT, CLIP = 100, 2.0, 0.1, 5.0
TOLERANCE = {"fp32": 1e-4, "bf16": 1e-2}  # relative, of the losses

SPEECHBRAIN_DIFFERENCES = (
    "speechbrain's step is not the same work: layer-norm extractor without convolution bias and pre-norm\n"
    "transformer whatever --norm, a layer norm after the extractor, sine positions in place of the\n"
    "positional convolution, its own mask rule (about 65 % of the frames masked, the others 49 %), padding\n"
    "masked in attention only."
)


def make_config(args, dropout):
    """LayerDrop is 0: every step is the same work"""
    zero = dict(layerdrop=0.0, activation_dropout=0.0)
    return Wav2Vec2Config(**SIZES[args.size], **NORMS[args.norm], **zero, **dict.fromkeys(DROPOUTS, dropout))


def make_hf(args, dropout):
    torch.manual_seed(0)
    return Wav2Vec2ForPreTraining(make_config(args, dropout)).train()


def make_batch(args):
    """-> wavs (B, T) of noise, zero-padded, sample_lens (B,)"""
    generator = torch.Generator().manual_seed(0)
    factors = [RAGGED[i % 4] if args.ragged else 1.0 for i in range(args.batch)]
    lens = torch.tensor([int(16000 * args.seconds * factor) for factor in factors])
    wavs = 0.1 * torch.randn(args.batch, int(lens.max()), generator=generator)
    return wavs * (torch.arange(wavs.shape[1]) < lens[:, None]), lens


class Ours:
    def __init__(self, args):
        self.model = PretrainingModel(make_hf(args, args.dropout)).train().to(args.device)
        self.batch = make_batch(args)
        self.steps = 0

    def losses(self):
        """-> loss to minimise, masked frames"""
        wavs, lens = self.batch
        self.steps += 1
        ids = [str(i) for i in range(len(lens))]
        frame_lens = self.model.frame_lengths(lens)
        masks = draw_masks(frame_lens, ids, 0, self.steps, **MASK, num_negatives=NEGATIVES)
        output = self.model(wavs.to(self.model.hf.device), self.model.layout(lens, *masks), TEMPERATURE)
        return output.contrastive / output.num_masked + DIVERSITY_WEIGHT * output.diversity


class Transformers:
    def __init__(self, args):
        self.model = make_hf(args, args.dropout).to(args.device)
        self.batch = make_batch(args)
        np.random.seed(0)

    def losses(self):
        wavs, lens = self.batch
        attention = (torch.arange(wavs.shape[1]) < lens[:, None]).long()
        shape = (len(wavs), int(self.model._get_feat_extract_output_lengths(wavs.shape[1])))
        frames = self.model._get_feature_vector_attention_mask(shape[1], attention)
        mask = _compute_mask_indices(shape, MASK["prob"], MASK["length"], frames, MASK["min_masks"])
        negatives = torch.from_numpy(_sample_negative_indices(shape, NEGATIVES, mask))
        mask = torch.from_numpy(mask)
        ragged = attention if int(attention.min()) == 0 else None
        sent = [None if x is None else x.to(self.model.device) for x in (wavs, ragged, mask, negatives)]
        output = self.model(*sent[:2], mask_time_indices=sent[2], sampled_negative_indices=sent[3])
        return output.loss / mask.sum()


class SpeechBrain:
    def __init__(self, args):
        from speechbrain.lobes.models import wav2vec
        from speechbrain.lobes.models.transformer.Transformer import TransformerEncoder
        from speechbrain.nnet.losses import ContrastiveLoss

        torch.manual_seed(0)
        config, self.parts = make_config(args, args.dropout), wav2vec
        kernels, strides, channels = config.conv_kernel, config.conv_stride, config.conv_dim
        width = config.hidden_size
        transformer = TransformerEncoder(
            config.num_hidden_layers,
            config.num_attention_heads,
            config.intermediate_size,
            d_model=width,
            dropout=args.dropout,
            activation=torch.nn.GELU,
            normalize_before=True,
        )
        self.model = torch.nn.ModuleDict(
            {
                "extractor": wav2vec.W2VLatentExtractor(list(channels), list(kernels), list(strides)),
                "encoder": wav2vec.EncoderWrapper(
                    channels[-1], width, transformer, dropout_encoder_input=args.dropout
                ),
                "quantiser": wav2vec.W2VTargetQuantiser(channels[-1], config.codevector_dim),
                "project": torch.nn.Linear(width, config.proj_codevector_dim),
            }
        ).train()
        self.contrastive = ContrastiveLoss(config.contrastive_logits_temperature)
        wavs, lens = make_batch(args)
        self.samples = [
            {"id": str(i), "sig": wav[:n]} for i, (wav, n) in enumerate(zip(wavs, lens, strict=True))
        ]

    def losses(self):
        wavs, wav_lens, mask = self.parts.w2v_mask_collate_fn(
            self.samples, self.model["extractor"].get_output_lengths, MASK["prob"], MASK["length"]
        )
        latents = self.model["extractor"](wavs, normalize_signal=False)
        encoded = self.model["encoder"](latents, wav_lens=wav_lens, mask=mask)["embeddings"]
        contexts = self.model["project"](encoded[mask]).view(
            len(wavs), -1, self.model["project"].out_features
        )
        targets, meta = self.model["quantiser"](latents[mask].view(len(wavs), -1, latents.shape[2]))
        negatives = self.parts.sample_negatives(targets, NEGATIVES)
        loss, _ = self.contrastive(contexts, targets, negatives)
        return loss / mask.sum() + DIVERSITY_WEIGHT * meta["diversity_loss"]


SYSTEMS = {"ours": Ours, "transformers": Transformers, "speechbrain": SpeechBrain}


class Trainer:
    """A system with its optimiser: one whole step per call"""

    def __init__(self, name, args):
        self.system, self.precision, self.device = SYSTEMS[name](args), args.precision, args.device
        parameters = [p for p in self.system.model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(parameters, lr=1e-5, betas=(0.9, 0.98), eps=1e-6, fused=True)

    def step(self):
        with torch.autocast(self.device, torch.bfloat16, enabled=self.precision == "bf16"):
            loss = self.system.losses()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.system.model.parameters(), CLIP)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss.item()

    def timed_step(self):
        """-> wall, user, system seconds"""
        before = usage()
        self.step()
        return usage() - before


class Fairseq:
    """As Trainer, of a process that runs fairseq_peer.py and ends with the `with` block"""

    def __init__(self, args):
        python, source = args.fairseq.split(":")
        config = make_config(args, args.dropout).to_dict()
        model = PretrainingModel(make_hf(args, args.dropout)).train()
        self.one = one_utterance(args, model)
        given = {
            "config": config, "state": model.hf.state_dict(), "batch": make_batch(args), "mask": MASK,
            "negatives": NEGATIVES, "temperature": TEMPERATURE, "diversity_weight": DIVERSITY_WEIGHT,
            "clip": CLIP, "threads": args.threads, "one": self.one,
        }  # fmt: skip
        with tempfile.NamedTemporaryFile(suffix=".pt") as file:
            torch.save(given, file.name)
            command = [python, str(Path(__file__).with_name("fairseq_peer.py")), source, file.name]
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
            )
            self.losses = self.ask("losses")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.communicate()  # the end of its input ends it, and gives its memory back

    def ask(self, what):
        print(what, file=self.process.stdin, flush=True)
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError("fairseq_peer.py ended: run its command by hand to see why")
        return json.loads(line)

    def step(self):
        self.ask("step")

    def timed_step(self):
        return np.array(self.ask("step"))

    def difference(self, args):
        """Largest relative difference of its losses from ours, on one utterance and without dropout"""
        model, one = PretrainingModel(make_hf(args, 0.0)).train(), self.one
        projection = model.hf.wav2vec2.feature_projection.projection
        if projection.in_features == projection.out_features:  # fairseq has none then
            torch.nn.init.eye_(projection.weight)
            torch.nn.init.zeros_(projection.bias)
        lens = torch.tensor([len(one["wav"])])
        with torch.no_grad():
            layout = model.layout(lens, one["mask"][None], one["negatives"])
            ours = model(one["wav"][None], layout, TEMPERATURE, one["noise"])
        pairs = zip((ours.contrastive, ours.diversity), self.losses.values(), strict=True)
        return max(abs(float(other) / float(own) - 1) for own, other in pairs)


def one_utterance(args, model):
    """-> the first utterance with mask, negatives and Gumbel noise (M, G, V)"""
    wavs, lens = make_batch(args)
    frames = model.frame_lengths(lens[:1])
    mask, negatives = draw_masks(frames, ["0"], 0, 0, **MASK, num_negatives=NEGATIVES)
    noise = torch.rand(len(negatives), 2, model.hf.config.num_codevectors_per_group)
    noise = -(-noise.clamp(1e-6, 1 - 1e-6).log()).log()
    return {"wav": wavs[0, : int(lens[0])], "mask": mask[0], "negatives": negatives, "noise": noise}


def make_trainer(name, args):
    return Fairseq(args) if name == "fairseq" else Trainer(name, args)


def compare_losses(args):
    """Contrastive and diversity losses of ours and of transformers on the same masks and noise -> largest
    relative difference

    transformers sees one utterance at a time where its batch would leak padding into the group norm.
    """
    model = PretrainingModel(make_hf(args, 0.0)).train().to(args.device)
    wavs, lens = make_batch(args)
    frame_lens, places = model.frame_lengths(lens), range(len(wavs))
    ids = [str(i) for i in places]
    mask, negatives = draw_masks(frame_lens, ids, 0, 0, **MASK, num_negatives=NEGATIVES)
    noise = torch.rand(*mask.shape, 2, model.hf.config.num_codevectors_per_group)
    noise = -(-noise.clamp(1e-6, 1 - 1e-6).log()).log()
    alone = args.ragged and args.norm == "group"
    groups = [[i] for i in places] if alone else [list(places)]
    worst, first = 0.0, 0
    for rows in groups:
        count = int(mask[rows].sum())
        samples, frames = int(lens[rows].max()), int(frame_lens[rows].max())
        part = (
            wavs[rows, :samples],
            lens[rows],
            mask[rows, :frames],
            negatives[first : first + count] - first,
        )
        first += count
        with torch.no_grad(), torch.autocast(args.device, torch.bfloat16, enabled=args.precision == "bf16"):
            own = part[0].to(args.device), model.layout(*part[1:]), TEMPERATURE
            ours = model(*own, noise[rows, :frames][part[2]].to(args.device))
            theirs = reference_losses(model.hf, *part, noise[rows, :frames])
        for one, other in zip((ours.contrastive, ours.diversity * count), theirs, strict=True):
            worst = max(worst, abs(float(one) / float(other) - 1))
    return worst


def reference_losses(hf, wavs, lens, mask, negatives, noise):
    """noise (B, F, G, V) -> contrastive and diversity losses of transformers"""

    def gumbel_softmax(logits, tau, hard):
        noisy = (logits + noise.to(logits.device).view_as(logits)) / tau
        return F.one_hot(noisy.argmax(dim=-1), noisy.shape[-1]).to(noisy.dtype)

    sampled = torch.zeros(*mask.shape, NEGATIVES, dtype=torch.long)
    sampled[mask] = mask.flatten().nonzero().flatten()[negatives]
    attention = (torch.arange(wavs.shape[1]) < lens[:, None]).long()
    own, F.gumbel_softmax = F.gumbel_softmax, gumbel_softmax
    try:
        wavs, attention, mask, sampled = (x.to(hf.device) for x in (wavs, attention, mask, sampled))
        output = hf(wavs, attention, mask_time_indices=mask, sampled_negative_indices=sampled)
    finally:
        F.gumbel_softmax = own
    return output.contrastive_loss, output.diversity_loss


def usage():
    """-> wall, user and system seconds of this process so far, the work of a GPU finished"""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    used = resource.getrusage(resource.RUSAGE_SELF)
    return np.array([time.perf_counter(), used.ru_utime, used.ru_stime])


def time_rounds(names, args):
    """-> {name: (rounds, 3) wall, user, system seconds}, the order of the systems turning from round to
    round"""
    trainers = {name: make_trainer(name, args) for name in names}
    times = {name: [] for name in names}
    with trainers.get("fairseq", nullcontext()):
        for trainer in trainers.values():
            trainer.step()
        for i in range(args.rounds):
            for name in names[i % len(names) :] + names[: i % len(names)]:
                times[name].append(trainers[name].timed_step())
    return {name: np.array(rows) for name, rows in times.items()}


def operations(args):
    """Floating-point operations of one step on valid frames: twice the multiplications of convolutions,
    linear layers and attention, and three times the forward pass (without what is computed again)"""
    config = make_config(args, 0.0)
    lens = make_batch(args)[1].tolist()
    width, inner, total = config.hidden_size, config.intermediate_size, 0
    groups, taps = config.num_conv_pos_embedding_groups, config.num_conv_pos_embeddings
    for samples in lens:
        frames, channels = samples, 1
        shapes = zip(config.conv_dim, config.conv_kernel, config.conv_stride, strict=True)
        for wider, kernel, stride in shapes:
            frames = (frames - kernel) // stride + 1
            total += frames * channels * kernel * wider
            channels = wider
        total += frames * channels * width + frames * width * (width // groups) * taps
        layer = 4 * frames * width**2 + 2 * frames * width * inner + 2 * frames**2 * width
        total += config.num_hidden_layers * layer
    return 3 * 2 * total


def matrix_peak(args):
    """Operations per second of a large matrix product in the precision, the best of five"""
    dtype = torch.bfloat16 if args.precision == "bf16" else torch.float32
    a, b = (torch.randn(2048, 2048).to(args.device, dtype) for _ in range(2))
    times = []
    for _ in range(6):
        start = usage()[0]
        a @ b
        times.append(usage()[0] - start)
    return 2 * 2048**3 / min(times[1:])


def split_of_ours(args):
    """-> {part: (wall, CPU) median ms} of our step, each part timed on its own"""
    trainer = Trainer("ours", args)
    model, (wavs, lens) = trainer.system.model, trainer.system.batch
    layers, dtype = model.hf.wav2vec2.feature_extractor.conv_layers, torch.float32
    if args.precision == "bf16":
        dtype = torch.bfloat16
    frame_lens, ids = model.frame_lengths(lens), [str(i) for i in range(len(lens))]

    def extractor_step():
        frames = extract(layers, wavs, lens.tolist(), dtype)
        frames.backward(torch.ones_like(frames))

    def adamw_step():
        for parameter in model.parameters():
            parameter.grad = parameter.detach()  # any values will do, and none are left after a step
        trainer.optimizer.step()
        trainer.optimizer.zero_grad()

    parts = {
        "whole step": trainer.step,
        "masks": lambda: draw_masks(frame_lens, ids, 0, 0, **MASK, num_negatives=NEGATIVES),
        "extractor, forward and backward": extractor_step,
        "AdamW": adamw_step,
    }
    medians = {}
    for name, part in parts.items():
        times = []
        for _ in range(args.rounds + 1):
            start = usage()
            part()
            times.append(usage() - start)
        wall, user, system = 1000 * np.median(times[1:], axis=0)
        medians[name] = wall, user + system
    return medians


def peak_memory(name):
    """MB at the peak of a process that runs three steps of one system"""
    if name == "fairseq":
        args = parse(sys.argv[1:])
        with Fairseq(args) as peer:
            for _ in range(3):
                peer.step()
            return peer.ask("memory")
    command = [sys.executable, os.path.abspath(__file__), *sys.argv[1:], "--memory_of", name]
    run = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(run.stdout.split()[-1])


def print_table(names, times, memory):
    """times {name: (rounds, 3)}, memory {name: MB}"""
    heads = ["wall s", "user s", "system s", "peak MB", "wall", "user", "user+sys", "memory"]
    print(f"\n{'':14}" + "".join(f"{head:>10}" for head in heads))
    with_cpu = {name: np.column_stack([rows[:, :2], rows[:, 1] + rows[:, 2]]) for name, rows in times.items()}
    for name in names:
        seconds = "".join(f"{value:10.2f}" for value in np.median(times[name], axis=0))
        ratios = np.median(with_cpu[name] / with_cpu["transformers"], axis=0)
        ratios = "".join(f"{value:10.2f}" for value in [*ratios, memory[name] / memory["transformers"]])
        print(f"{name:14}{seconds}{memory[name]:10.0f}{ratios}")


def parse(argv):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", choices=SIZES, default="26m")
    parser.add_argument("--norm", choices=NORMS, default="layer", help="of the extractor")
    parser.add_argument("--batch", type=int, default=4, help="utterances")
    parser.add_argument("--seconds", type=float, default=10.0, help="of an utterance")
    parser.add_argument("--ragged", action="store_true", help=f"lengths of {RAGGED} times --seconds")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--precision", choices=TOLERANCE, default="fp32", help="bf16: autocast")
    parser.add_argument("--dropout", type=float, default=0.1, help="hidden, attention, projection, quantiser")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="cuda: without speechbrain")
    parser.add_argument("--without", nargs="*", default=[], choices=["speechbrain"], help="systems left out")
    parser.add_argument("--split", action="store_true", help="print the parts of our step only")
    parser.add_argument("--fairseq", default="", metavar="PYTHON:SOURCE", help="see fairseq_peer.py")
    parser.add_argument("--memory_of", choices=SYSTEMS, help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def main(argv):
    args = parse(argv)
    torch.set_num_threads(args.threads)
    if args.memory_of:
        trainer = Trainer(args.memory_of, args)
        for _ in range(3):
            trainer.step()
        resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(torch.cuda.max_memory_allocated() / 2**20 if args.device == "cuda" else resident)
        return 0
    if args.split:
        for name, (wall, cpu) in split_of_ours(args).items():
            print(f"{name:32}{wall:9.1f} ms wall {cpu:9.1f} ms CPU")
        return 0
    print(f"torch {torch.__version__}, {args.threads} threads, load {os.getloadavg()[0]:.1f}, {vars(args)}")
    difference = compare_losses(args)
    print(f"losses of ours and transformers differ by {difference:.1e} (relative)")
    if difference > TOLERANCE[args.precision]:
        print(f"more than {TOLERANCE[args.precision]}: not the same work, nothing timed", file=sys.stderr)
        return 1
    names = [name for name in SYSTEMS if name not in args.without]
    if args.fairseq:
        names.insert(2, "fairseq")
        with Fairseq(args) as peer:
            difference = peer.difference(args)
        print(f"losses of ours and fairseq differ by {difference:.1e} (relative, one utterance, no dropout)")
        if difference > TOLERANCE[args.precision]:
            print(f"more than {TOLERANCE[args.precision]}: not the same work, nothing timed", file=sys.stderr)
            return 1
    memory = {name: peak_memory(name) for name in names}
    times = time_rounds(names, args)
    print_table(names, times, memory)
    work, peak = operations(args), matrix_peak(args)
    rate = work / np.median(times["ours"][:, 0])
    print(
        f"\nuseful work: {work / 1e9:.0f} GFLOP a step; ours does {rate / 1e9:.0f} GFLOP/s, {rate / peak:.0%}"
    )
    print(f"of the {peak / 1e9:.0f} GFLOP/s of a 2048 x 2048 x 2048 product in the same precision.")
    if "speechbrain" in names:
        print(f"\n{SPEECHBRAIN_DIFFERENCES}")
    print(f"load at the end {os.getloadavg()[0]:.1f}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
