"""One wav2vec 2.0 pre-training step on the weights of a transformers `Wav2Vec2ForPreTraining`, or of its twin
with Conformer layers.

B utterances of T samples and F frames (padded), N valid frames in the batch, M masked ones, D the
transformer's size. The weights, their names and their shapes are those of transformers; the computation is
ours:

- Valid frames lie one after the other in a single (N, D) tensor. Padding is never computed, so that a batch
  gives what its utterances give alone. (transformers does the same but for the group normalisation of "group"
  extractors, whose statistics it takes over the padding of the batch.)
- Quantiser, losses and the last transformer layer's queries are computed for the M masked frames only.
"""

import random
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from lebench_sb.core.masks import valid_mask
from lebench_sb.encoders.attention import attend
from lebench_sb.pretraining import conformer, losses
from lebench_sb.pretraining.kernels.extractor import extract, output_length
from lebench_sb.pretraining.kernels.linear import feed_forward, linear
from lebench_sb.pretraining.kernels.positions import positions
from lebench_sb.training.data import send

CONFORMER = "wav2vec2-conformer"


@dataclass
class StepOutput:
    """Sums over the masked frames of the batch where noted, so that batches and processes can be added up.

    Only the three losses carry a gradient.
    """

    contrastive: torch.Tensor  # scalar, SUM over masked frames
    diversity: torch.Tensor  # scalar in [0, 1), (GV - sum of perplexities) / GV of this batch, not weighted
    penalty: torch.Tensor  # scalar, mean square of the extractor's output over valid frames, not weighted
    num_masked: int  # M
    frame_losses: torch.Tensor  # (M,) contrastive loss of each masked frame
    correct: torch.Tensor  # (M,) bool: whether its target has the highest logit
    code_counts: torch.Tensor  # (G, V) int64: masked frames that chose each code
    contexts: torch.Tensor  # (M, D) masked frames of the last layer


class ScaleGradient(torch.autograd.Function):
    """The identity, with its gradient multiplied by `factor` (fairseq `GradMultiply`)"""

    @staticmethod
    def forward(ctx, x, factor):
        ctx.factor = factor
        return x.view_as(x)

    @staticmethod
    def backward(ctx, grad):
        return grad * ctx.factor, None


class PretrainingModel(nn.Module):
    """`hf`: the Wav2Vec2ForPreTraining, or Wav2Vec2ConformerForPreTraining, whose weights are trained and
    exported, as `.hf`.

    feature_grad_mult scales the gradient that reaches the extractor, the penalty's included, as in fairseq
    (0.1 for its base model); 0 freezes the extractor. Dropouts and LayerDrop are those of the config. Channel
    masking (`mask_feature_prob`) belongs to fine-tuning and is not applied. activation_checkpointing: the
    transformer layers keep their inputs alone for the backward pass, which computes the rest again.

    Raises ValueError for a config whose parts are not those of wav2vec 2.0 pre-training.
    """

    optimizer_state = None  # {name: optimiser state} to begin training with
    fresh = None  # names of the weights that no folder gave; None: all of them

    def __init__(self, hf, feature_grad_mult=1.0, activation_checkpointing=False):
        super().__init__()
        check_config(hf.config)
        self.hf = hf
        self.activation_checkpointing = activation_checkpointing
        self.feature_grad_mult = feature_grad_mult
        if feature_grad_mult == 0:
            hf.freeze_feature_encoder()
        self.is_conformer = hf.config.model_type == CONFORMER
        if self.is_conformer:
            hf.base_model.encoder.pos_conv_embed.requires_grad_(False)  # it is there, and nothing uses it

    def is_fresh(self, name):
        """Whether a weight of `hf` starts at random, so that a start may change it: others were given"""
        return self.fresh is None or name in self.fresh

    def fresh_quantiser(self):
        """Whether any of the quantiser's weights starts at random"""
        return any(self.is_fresh(f"quantizer.{name}") for name, _ in self.hf.quantizer.named_parameters())

    def frame_lengths(self, sample_lens):
        """sample_lens (B,) int -> frames (B,) int64; 0 for an utterance too short for one frame"""
        config = self.hf.config
        lens = torch.as_tensor(sample_lens, dtype=torch.int64)
        return output_length(lens, config.conv_kernel, config.conv_stride)

    def forward(self, wavs, layout, temperature, gumbel_noise=None):
        """wavs (B, T) float32, zero-padded right, normalised per utterance if the model wants it; their
        `layout`; temperature of the Gumbel softmax -> StepOutput.

        Nothing here asks the device for a value: a GPU never waits for the processor.

        gumbel_noise (M, G, V) replaces the noise drawn in training; in evaluation codes are the most likely
        ones. Works under autocast: quantiser and losses are in float32 all the same. Every trainable
        parameter gets a gradient in every call, so that DistributedDataParallel needs no search for unused
        ones.
        """
        if not len(layout.negatives):
            return self.nothing_masked()
        batch = layout.of(wavs)
        model = self.hf.base_model
        extracted = self.extract(batch)
        features = model.feature_projection.layer_norm(extracted)
        hidden = model.feature_projection.dropout(linear(model.feature_projection.projection, features))
        hidden = hidden.index_put((batch.masked,), model.masked_spec_embed.to(hidden.dtype))
        contexts = encode(model.encoder, hidden, batch, self.activation_checkpointing)
        with torch.autocast(wavs.device.type, enabled=False):
            logits = self.quantizer_logits(features[batch.masked].float())
            vectors, codes, used = self.quantise(logits, temperature, gumbel_noise)
            similarities = losses.contrastive_logits(
                self.hf.project_hid(contexts.float()),
                self.hf.project_q(vectors),
                codes,
                batch.negatives,
                batch.masked_counts,
                self.hf.config.contrastive_logits_temperature,
            )
            penalty = extracted.float().square().mean()
            diversity = losses.diversity_loss(used)
            return step_output(similarities, diversity, penalty, codes, logits.shape[2], contexts.detach())

    def compile_blocks(self, mode="default"):
        """torch.compile for the feed-forward blocks, which see frames alone and so need no new kernel for
        other lengths; attention and convolutions are single kernels already"""
        for layer in self.hf.base_model.encoder.layers:
            blocks = [layer.ffn1, layer.ffn2] if self.is_conformer else [layer.feed_forward]
            for block in blocks:
                block.compile(dynamic=True, mode=mode)
                block.is_compiled = True

    def layout(self, sample_lens, mask, negatives):
        """sample_lens (B,) int64, mask (B, F) bool and negatives (M, N) of masking.draw_masks, all on the CPU
        -> Layout, without the utterances that are too short for a frame

        Raises ValueError when mask, negatives and lengths contradict each other.
        """
        sample_lens = torch.as_tensor(sample_lens, device="cpu")
        frame_lens = self.frame_lengths(sample_lens)
        valid = valid_mask(frame_lens, mask.shape[1])
        mask = mask.cpu()
        fits = valid.sum() == frame_lens.sum() and not (mask & ~valid).any()
        if not fits or mask.sum() != len(negatives):
            raise ValueError(
                f"mask {tuple(mask.shape)} with {int(mask.sum())} masked frames and negatives "
                f"{tuple(negatives.shape)} do not belong to utterances of {frame_lens.tolist()} frames. "
                "Draw both with masking.draw_masks."
            )
        rows = frame_lens.nonzero().flatten()
        return Layout(
            rows=None if len(rows) == len(sample_lens) else rows,
            sample_lens=sample_lens[rows].tolist(),
            frame_lens=frame_lens[rows].tolist(),
            masked=mask[valid].nonzero().flatten(),
            negatives=negatives.cpu(),
            masked_counts=mask.sum(dim=1)[rows].tolist(),
        )

    def extract(self, batch):
        """-> extractor output of the valid frames (N, C), with its gradient scaled"""
        device = batch.wavs.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else batch.wavs.dtype
        layers = self.hf.base_model.feature_extractor.conv_layers
        extracted = extract(layers, batch.wavs, batch.sample_lens, dtype)
        return ScaleGradient.apply(extracted, self.feature_grad_mult)

    def valid_features(self, wavs, sample_lens):
        """wavs (B, T), sample_lens (B,) -> the extractor's frames after their layer norm (N, C) float32"""
        frame_lens = self.frame_lengths(sample_lens)
        mask = torch.zeros(len(wavs), int(frame_lens.max()), dtype=torch.bool)
        batch = self.layout(sample_lens, mask, torch.zeros(0, 0, dtype=torch.int64)).of(wavs)
        return self.hf.base_model.feature_projection.layer_norm(self.extract(batch)).float()

    def quantizer_logits(self, features):
        """features (M, C) after their layer norm -> (M, G, V)"""
        quantizer = self.hf.quantizer
        logits = quantizer.weight_proj(self.hf.dropout_features(features))
        return logits.unflatten(1, (quantizer.num_groups, quantizer.num_vars))

    def quantise(self, logits, temperature, gumbel_noise):
        """logits (M, G, V) -> codevectors (M, D_q), codes (M, G), distribution of code use for the diversity
        (G, V): the mean softmax in training, the codes chosen in evaluation (as transformers)"""
        codebook = self.hf.quantizer.codevectors.view(*logits.shape[1:], -1)
        if self.training:
            noise = losses.gumbel_noise(logits) if gumbel_noise is None else gumbel_noise
            vectors, codes = losses.choose_codes(logits, codebook, temperature, noise)
            return vectors, codes, logits.softmax(dim=-1).mean(dim=0)
        codes = logits.argmax(dim=-1)
        used = losses.code_counts(codes, logits.shape[2]) / len(logits)
        return losses.look_up(codebook, codes).flatten(1), codes, used

    def nothing_masked(self):
        """-> StepOutput of a batch without masked frames: zeros, which depend on every parameter"""
        quantizer = self.hf.quantizer
        zero = no_gradient(self.parameters())
        counts = torch.zeros(quantizer.num_groups, quantizer.num_vars, dtype=torch.int64, device=zero.device)
        none = zero.new_zeros(0)
        contexts = zero.new_zeros(0, self.hf.config.hidden_size)
        return StepOutput(zero, zero, zero, 0, none, none.bool(), counts, contexts)


def step_output(similarities, diversity, penalty, codes, num_codes, contexts):
    """similarities (M, 1 + N), codes (M, G) out of num_codes, contexts (M, D) -> StepOutput"""
    contrastive = losses.contrastive_loss(similarities)
    return StepOutput(
        contrastive=contrastive.sum(),
        diversity=diversity,
        penalty=penalty,
        num_masked=len(codes),
        frame_losses=contrastive.detach(),
        correct=losses.is_correct(similarities.detach()),
        code_counts=losses.code_counts(codes, num_codes),
        contexts=contexts,
    )


@dataclass
class Layout:
    """Where the frames of a batch lie: what the processor knows before the step begins"""

    rows: torch.Tensor | None  # (B,) the utterances of the batch that are long enough for a frame, if not all
    sample_lens: list  # B ints
    frame_lens: list  # B ints, at least 1
    masked: torch.Tensor  # (M,) indices into the N valid frames of the batch
    negatives: torch.Tensor  # (M, N) indices into the M masked frames
    masked_counts: list  # B ints, of sum M

    def of(self, wavs):
        """wavs (B, T) of the whole batch -> Batch on their device"""
        device = wavs.device
        if self.rows is not None:
            wavs = wavs[send(self.rows, device)]
        sent = send(self.masked, device), send(self.negatives, device)
        return Batch(wavs, self.sample_lens, self.frame_lens, *sent, self.masked_counts)


@dataclass
class Batch:
    wavs: torch.Tensor  # (B, T); the rest as in Layout
    sample_lens: list
    frame_lens: list
    masked: torch.Tensor
    negatives: torch.Tensor
    masked_counts: list


def check_config(config):
    """Raises ValueError, naming the setting, for what this step does not compute."""
    if config.mask_time_prob == 0 and config.mask_feature_prob == 0:
        raise ValueError("mask_time_prob is 0: the model has no mask embedding. Set it, to 0.65 for one.")
    activation = config.feat_extract_activation
    if activation != "gelu":
        raise ValueError(f"feat_extract_activation is {activation!r}: only gelu is implemented.")
    if config.add_adapter or getattr(config, "adapter_attn_dim", None) is not None:  # Conformers: no such key
        raise ValueError("add_adapter or adapter_attn_dim is set: pre-training has no adapters. Unset them.")


def no_gradient(parameters):
    """-> scalar 0 whose gradient reaches each trainable parameter, as zeros"""
    return sum(p.flatten()[0] * 0.0 for p in parameters if p.requires_grad)


def encode(encoder, hidden, batch, checkpointing=False):
    """HF context network on hidden (N, D) of the valid frames -> (M, D) at the masked frames

    checkpointing: the layers' activations are computed again in the backward pass
    """
    passed, dropped = [], []
    for layer in encoder.layers:
        drop = encoder.training and random.random() < encoder.config.layerdrop
        (dropped if drop else passed).append(layer)
    network = conformer.encode if encoder.config.model_type == CONFORMER else transform
    contexts = network(encoder, hidden, batch, passed, checkpointing and encoder.training)
    return contexts + no_gradient(p for layer in dropped for p in layer.parameters())


def transform(encoder, hidden, batch, layers, checkpointing):
    """HF transformer on hidden (N, D), layers: those that LayerDrop keeps -> (M, D) at the masked frames"""
    stable = encoder.config.do_stable_layer_norm
    hidden = hidden + positions(encoder.pos_conv_embed, hidden, batch.frame_lens)
    if not stable:
        hidden = encoder.layer_norm(hidden)
    hidden = encoder.dropout(hidden)
    layer_function = pre_norm_layer if stable else post_norm_layer
    if checkpointing:
        layer_function = partial(checkpoint, layer_function, use_reentrant=False)
    for layer in layers[:-1]:
        hidden = layer_function(layer, hidden, hidden, batch.frame_lens, batch.frame_lens)
    queries = hidden[batch.masked]
    if layers:
        # nobody looks at the last layer's other frames
        queries = layer_function(layers[-1], queries, hidden, batch.masked_counts, batch.frame_lens)
    return encoder.layer_norm(queries) if stable else queries


def pre_norm_layer(layer, queries, keys, query_lens, key_lens):
    """Wav2Vec2EncoderLayerStableLayerNorm: queries (Nq, D), keys (Nk, D) -> (Nq, D); queries are rows of
    keys"""
    normal_keys = layer.layer_norm(keys)
    normal_queries = normal_keys if queries is keys else layer.layer_norm(queries)
    attended = attend_by_utterance(layer.attention, normal_queries, normal_keys, query_lens, key_lens)
    queries = queries + layer.dropout(attended)
    return queries + feed_forward(layer.feed_forward, layer.final_layer_norm(queries))


def post_norm_layer(layer, queries, keys, query_lens, key_lens):
    """Wav2Vec2EncoderLayer: queries (Nq, D), keys (Nk, D) -> (Nq, D); queries are rows of keys"""
    queries = queries + layer.dropout(
        attend_by_utterance(layer.attention, queries, keys, query_lens, key_lens)
    )
    queries = layer.layer_norm(queries)
    return layer.final_layer_norm(queries + feed_forward(layer.feed_forward, queries))


def attend_by_utterance(attention, queries, keys, query_lens, key_lens):
    """HF attention within each utterance: queries (Nq, D), keys (Nk, D), B lengths each -> (Nq, D)"""
    equal = len(set(query_lens)) == len(set(key_lens)) == 1
    split = batched if equal else one_by_one
    q = split(attention, linear(attention.q_proj, queries), query_lens)
    k = split(attention, linear(attention.k_proj, keys), key_lens)
    v = split(attention, linear(attention.v_proj, keys), key_lens)
    dropout = attention.dropout if attention.training else 0.0
    attended = [attend(*one, dropout) for one in zip(q, k, v, strict=True)]
    # (1 or B, heads, F, head_dim) each -> (Nq, D)
    attended = torch.cat([one.transpose(1, 2).flatten(2).flatten(0, 1) for one in attended])
    return linear(attention.out_proj, attended)


def batched(attention, x, lens):
    """x (N, D) of B utterances of one length F -> [(B, heads, F, head_dim)]"""
    return [x.view(len(lens), lens[0], attention.num_heads, attention.head_dim).transpose(1, 2)]


def one_by_one(attention, x, lens):
    """x (N, D) -> [(1, heads, F, head_dim)] of each utterance"""
    heads = x.view(1, len(x), attention.num_heads, attention.head_dim).transpose(1, 2)
    return heads.split(lens, dim=2)
