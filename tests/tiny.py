"""Encoders with random weights, small enough for a test, as Hugging Face folders"""

import torch
import transformers

SIZES = dict(
    hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24, conv_dim=(12,) * 7,
    num_conv_pos_embeddings=8, num_conv_pos_embedding_groups=2, feat_extract_norm="group",
)  # fmt: skip


def write_wav2vec2(folder, seed=0, **changes):
    """Writes a group-norm wav2vec 2.0, its config that of SIZES but for `changes`; returns the folder"""
    torch.manual_seed(seed)
    config = transformers.Wav2Vec2Config(**{**SIZES, **changes})
    transformers.Wav2Vec2Model(config).save_pretrained(folder)
    transformers.Wav2Vec2FeatureExtractor(do_normalize=True).save_pretrained(folder)
    return folder
