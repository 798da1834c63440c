"""fairseq's wav2vec 2.0 pre-training step, in an interpreter of its own; driven by pretraining_step.py.

    PYTHON benchmarks/fairseq_peer.py SOURCE WEIGHTS

PYTHON has torch, omegaconf 2.0.6, hydra-core 1.0.7, antlr4-python3-runtime 4.8, bitarray (pip install
--no-deps); SOURCE is the unpacked fairseq-0.12.2.tar.gz of PyPI; WEIGHTS a file of pretraining_step.py:
settings, a transformers state and a batch. Nothing of fairseq is changed; Python 3.11 refuses the unhashable
dataclass defaults of it and of hydra, so that those of both are declared hashable. Answers one line of JSON
to each line `losses`, `step` or `memory`.
"""

import dataclasses
import json
import resource
import sys
import time
from pathlib import Path

import torch
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).parents[1]))
from lebench_sb.encoders.importing.fairseq import transformers_name  # noqa: E402  needs torch alone

OLD = ("fairseq", "hydra")
plain_dataclass = dataclasses.dataclass


def hashable_dataclass(cls=None, /, **options):
    def make(c):
        return plain_dataclass(c, **({"unsafe_hash": True} if c.__module__.startswith(OLD) else {}) | options)

    return make if cls is None else make(cls)


def import_wav2vec2(source):
    dataclasses.dataclass = hashable_dataclass
    sys.path.insert(0, source)
    try:
        from fairseq.models.wav2vec import wav2vec2
    finally:
        dataclasses.dataclass = plain_dataclass
    return wav2vec2


class Peer:
    def __init__(self, source, given):
        wav2vec2, config = import_wav2vec2(source), given["config"]
        norms = config["feat_extract_norm"] == "layer"
        layers = zip(config["conv_dim"], config["conv_kernel"], config["conv_stride"], strict=True)
        cfg = wav2vec2.Wav2Vec2Config(
            extractor_mode="layer_norm" if norms else "default", conv_bias=config["conv_bias"],
            conv_feature_layers=str(list(layers)), encoder_layers=config["num_hidden_layers"],
            encoder_embed_dim=config["hidden_size"], encoder_ffn_embed_dim=config["intermediate_size"],
            encoder_attention_heads=config["num_attention_heads"],
            layer_norm_first=config["do_stable_layer_norm"], dropout=config["hidden_dropout"],
            attention_dropout=config["attention_dropout"],
            activation_dropout=config["activation_dropout"], dropout_input=config["feat_proj_dropout"],
            dropout_features=config["feat_quantizer_dropout"], final_dim=config["proj_codevector_dim"],
            latent_dim=config["codevector_dim"], quantize_targets=True, num_negatives=given["negatives"],
            mask_prob=given["mask"]["prob"], mask_length=given["mask"]["length"],
            latent_temp=(given["temperature"],) * 2 + (1.0,),
        )  # fmt: skip
        self.model = wav2vec2.Wav2Vec2Model(cfg).train()
        # fairseq has no projection where the two widths are equal
        state = {name: given["state"][transformers_name(name)] for name in self.model.state_dict()}
        self.model.load_state_dict(state)
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=1e-5, betas=(0.9, 0.98), eps=1e-6, fused=True
        )
        self.given = given

    def forward(self, wavs, lens, mask=None):
        padding = torch.arange(wavs.shape[1]) >= lens[:, None]
        return self.model(wavs, padding if padding.any() else None, mask_indices=mask)

    def losses(self):
        """Contrastive (summed) and diversity loss of one utterance on given mask, negatives and noise"""
        one = self.given["one"]

        def gumbel_softmax(logits, tau, hard):
            noisy = (logits + one["noise"].view_as(logits)) / tau
            return F.one_hot(noisy.argmax(dim=-1), noisy.shape[-1]).to(noisy.dtype)

        def sample_negatives(y, num, padding_count=None):
            return y[0][one["negatives"]].transpose(0, 1)[:, None], None

        self.model.eval()  # no dropout
        self.model.quantizer.train()
        own, F.gumbel_softmax, self.model.sample_negatives = (
            F.gumbel_softmax,
            gumbel_softmax,
            sample_negatives,
        )
        try:
            with torch.no_grad():
                found = self.forward(one["wav"][None], torch.tensor([len(one["wav"])]), one["mask"][None])
        finally:
            F.gumbel_softmax = own
            del self.model.sample_negatives
            self.model.train()
        logits = self.model.get_logits(found).float()
        contrastive = F.cross_entropy(logits, self.model.get_targets(None, found), reduction="sum")
        return {"contrastive": float(contrastive), "diversity": float(self.diversity(found))}

    @staticmethod
    def diversity(found):
        return (found["num_vars"] - found["prob_perplexity"]) / found["num_vars"]

    def step(self):
        wavs, lens = self.given["batch"]
        before = usage()
        found = self.forward(wavs, lens)
        logits = self.model.get_logits(found).float()
        loss = F.cross_entropy(logits, self.model.get_targets(None, found))
        (loss + self.given["diversity_weight"] * self.diversity(found)).backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.given["clip"])
        self.optimizer.step()
        self.optimizer.zero_grad()
        return [after - start for after, start in zip(usage(), before, strict=True)]

    def memory(self):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def usage():
    used = resource.getrusage(resource.RUSAGE_SELF)
    return time.perf_counter(), used.ru_utime, used.ru_stime


def main(source, weights):
    answers, sys.stdout = sys.stdout, sys.stderr  # fairseq talks while it is imported
    given = torch.load(weights, weights_only=False)
    torch.set_num_threads(given["threads"])
    peer = Peer(source, given)
    for line in sys.stdin:
        print(json.dumps(getattr(peer, line.strip())()), file=answers, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
