"""Encoders with random weights, small enough for a test, as Hugging Face folders"""

import torch
import transformers

from lebench_sb.encoders.model_folders import save_encoder

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


def write_pretraining_model(folder, do_normalize=True, heads=True):
    """Writes a layer-norm wav2vec 2.0 with its quantiser (`heads`) or without; returns the folder"""
    config = transformers.Wav2Vec2Config(
        conv_dim=[16, 16, 16], conv_kernel=[10, 8, 4], conv_stride=[5, 8, 8], hidden_size=16,
        num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, num_conv_pos_embeddings=8,
        num_conv_pos_embedding_groups=2, codevector_dim=8, proj_codevector_dim=8,
        num_codevectors_per_group=20, feat_extract_norm="layer", do_stable_layer_norm=True, conv_bias=True,
    )  # fmt: skip
    model = transformers.Wav2Vec2ForPreTraining(config)
    save_encoder(model if heads else model.wav2vec2, folder, do_normalize)
    return folder
