"""Three updates of a small fairseq model, in an interpreter that has it: checkpoints, frames, states.

PYTHON tests/encoders/fairseq_run.py SOURCE OUTPUT     (both as benchmarks/fairseq_peer.py says)
"""

import sys
from argparse import Namespace
from dataclasses import asdict
from pathlib import Path

import torch
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
from fairseq_peer import import_wav2vec2  # noqa: E402

SHAPE = {
    "conv_feature_layers": "[(32, 10, 5)] + [(32, 3, 2)] * 2 + [(32,2,2)]", "encoder_layers": 2,
    "encoder_ffn_embed_dim": 64, "encoder_attention_heads": 4, "quantize_targets": True, "final_dim": 16,
    "latent_vars": 20, "conv_pos": 16, "conv_pos_groups": 4,
}  # fmt: skip
KINDS = {
    "base": {"encoder_embed_dim": 32},  # as wide as the extractor: no projection
    "large": {
        "encoder_embed_dim": 48,
        "extractor_mode": "layer_norm",
        "conv_bias": True,
        "layer_norm_first": True,
    },
}


def main(source, output):
    wav2vec2 = import_wav2vec2(source)
    from fairseq.optim.adam import Adam
    from fairseq.optim.fp16_optimizer import _FP16OptimizerMixin
    from omegaconf import OmegaConf

    torch.cuda.current_device = lambda: (
        0
    )  # the flat copy names its device, and holds CPU tensors all the same
    for kind, own in KINDS.items():
        torch.manual_seed(0)
        cfg = wav2vec2.Wav2Vec2Config(**SHAPE, **own)
        model = wav2vec2.Wav2Vec2Model(cfg).train()
        for parameter in model.parameters():
            parameter.data.add_(0.05 * torch.randn_like(parameter))
        parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        flat = _FP16OptimizerMixin.build_fp32_params(Namespace(), parameters, flatten=True)
        adam = {"flat": Adam(list(flat.values()), lr=1e-3), "each": Adam(parameters, lr=1e-3)}
        for _ in range(3):
            update(model, parameters, flat, adam)
        model.eval()
        wavs = torch.randn(2, 8000)
        frames = model(wavs, None, features_only=True, mask=False)["x"].detach()
        states = {name: dict(adam["each"].state[p]) for name, p in model.named_parameters()}
        torch.save({"wavs": wavs, "frames": frames, "states": states}, Path(output) / f"{kind}.pt")
        settings = {
            "model": asdict(cfg),
            "task": {"normalize": kind == "large"},
            "criterion": {"loss_weights": [0.1, 10]},
        }
        for name, optimizer in adam.items():
            content = {
                "args": None, "cfg": settings if name == "flat" else OmegaConf.create(settings),
                "model": model.state_dict(), "criterion": None, "optimizer_history": [{"num_updates": 3}],
                "last_optimizer_state": optimizer.state_dict(),
            }  # fmt: skip
            torch.save(content, Path(output) / f"{kind}_{name}.pt")


def update(model, parameters, flat, adam):
    model.zero_grad()
    found = model(torch.randn(2, 8000), None)
    loss = F.cross_entropy(model.get_logits(found).float(), model.get_targets(None, found))
    (loss + model.get_extra_losses(found)[0]).backward()
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    flat[0].grad = torch.cat([gradient.flatten() for gradient in gradients])
    for optimizer in adam.values():
        optimizer.step()


if __name__ == "__main__":
    main(*sys.argv[1:])
