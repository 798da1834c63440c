"""Tiny random checkpoints of every architecture, written the way their authors' folders look."""

import torch
import transformers

SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "conv_dim": (16,) * 7,
    "num_conv_pos_embeddings": 17,
    "num_conv_pos_embedding_groups": 2,
    "vocab_size": 12,
}
PRETRAINING = {"codevector_dim": 16, "proj_codevector_dim": 12, "num_codevectors_per_group": 5}
GROUP = {"feat_extract_norm": "group"}
LAYER = {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True}
BERT = {name: SIZES[name] for name in ("hidden_size", "num_hidden_layers", "num_attention_heads")}
BERT.update(intermediate_size=48, conv_depthwise_kernel_size=7, output_hidden_size=32)

# name: (model class, config)
ARCHITECTURES = {
    "wav2vec2-group": ("Wav2Vec2Model", SIZES | GROUP),
    "wav2vec2-layer": ("Wav2Vec2Model", SIZES | LAYER),
    "hubert-group": ("HubertModel", SIZES | GROUP),
    "hubert-layer": ("HubertModel", SIZES | LAYER),
    "hubert-batch": ("HubertModel", SIZES | GROUP | {"conv_pos_batch_norm": True}),
    "wavlm-group": ("WavLMModel", SIZES | GROUP | {"num_buckets": 20, "max_bucket_distance": 40}),
    "wavlm-layer": ("WavLMModel", SIZES | LAYER | {"num_buckets": 20, "max_bucket_distance": 40}),
    "data2vec": ("Data2VecAudioModel", SIZES | {"num_conv_pos_embeddings": 3, "conv_pos_kernel_size": 9}),
    "conformer-relative": ("Wav2Vec2ConformerModel", SIZES | LAYER | {"conv_depthwise_kernel_size": 7}),
    "conformer-rotary": (
        "Wav2Vec2ConformerModel",
        SIZES | GROUP | {"conv_depthwise_kernel_size": 7, "position_embeddings_type": "rotary"},
    ),
    "unispeech": ("UniSpeechModel", SIZES | GROUP),
    "unispeech-layer": ("UniSpeechModel", SIZES | LAYER),
    "unispeech-sat": ("UniSpeechSatModel", SIZES | GROUP),
    "unispeech-sat-layer": ("UniSpeechSatModel", SIZES | LAYER),
    "wav2vec2-bert": ("Wav2Vec2BertModel", BERT),
    # outside encoders.PADDED: utterances of equal length together
    "sew": ("SEWModel", SIZES | GROUP | {"squeeze_factor": 2, "conv_dim": (16,) * 13}),
    "wav2vec2-adapter": ("Wav2Vec2Model", SIZES | LAYER | {"add_adapter": True, "output_hidden_size": 24}),
}


def new_model(kind, sizes, seed=0):
    """A transformers model whose weights are far enough from zero for every mistake to show."""
    torch.manual_seed(seed)
    model_class = getattr(transformers, kind)
    model = model_class(model_class.config_class(**sizes))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            # at the usual scale (0.02) attention is uniform and biases are zero: padding would hardly be seen
            size = 0.3 if parameter.dim() == 1 else parameter[0].numel() ** -0.5
            offset = 1.0 if "norm" in name and name.endswith("weight") else 0.0
            parameter.copy_(offset + size * torch.randn_like(parameter))
        for name, buffer in model.named_buffers():
            if "running" in name:
                buffer.copy_(0.5 + torch.rand_like(buffer))
    return model.eval()


def write_extractor(folder, model, do_normalize):
    if model.main_input_name == "input_features":
        extractor = transformers.SeamlessM4TFeatureExtractor()
    else:
        extractor = transformers.Wav2Vec2FeatureExtractor(do_normalize=do_normalize)
    extractor.save_pretrained(folder)


def relative(lens):
    return torch.tensor(lens) / max(lens)


def alone(folder, wav):
    """wav (T,) -> frames (F, D) of the Hugging Face extractor and model, and its hidden states, each (F, D).

    wav2vec2-BERT's extractor fills an odd number of mel frames up, and says in its mask that this is padding.
    """
    extractor = transformers.AutoFeatureExtractor.from_pretrained(folder)
    model = transformers.AutoModel.from_pretrained(folder).eval()
    inputs = extractor(wav.numpy(), sampling_rate=16_000, return_tensors="pt")
    with torch.no_grad():
        if model.main_input_name == "input_features":
            output, size = model(**inputs, output_hidden_states=True), int(inputs["attention_mask"].sum())
        else:
            output, size = model(inputs["input_values"], output_hidden_states=True), None
    return output.last_hidden_state[0, :size], [hidden[0, :size] for hidden in output.hidden_states]
