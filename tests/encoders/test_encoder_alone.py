"""In a padded batch, every utterance gets the frames the Hugging Face extractor and model give it alone."""

import pytest
import torch
import torch.nn.functional as F
import transformers
from tiny_encoders import ARCHITECTURES, alone, relative

from lebench_sb.encoders.encoder import PADDED, SSLEncoder, load_encoder

TOLERANCE = 1e-4  # of the largest absolute value


@pytest.fixture(autouse=True, params=["by length", "padded"])
def way(request, monkeypatch):
    """What a CPU does, and what an accelerator does"""
    if request.param == "padded":
        monkeypatch.setattr(SSLEncoder, "_pads", lambda encoder, _: encoder._can_pad)


def assert_equal(frames, expected):
    """frames (F, D) of the encoder, expected (F', D) of the reference, F' = F"""
    assert frames.shape == expected.shape
    assert (frames - expected).abs().max() <= TOLERANCE * expected.abs().max()


def of_layer(reference, layer):
    """The reference's frames (F, D) for a value of `layer`"""
    last, hidden_states = reference
    if layer == "last":
        return last
    if layer == "weighted":
        return sum(F.layer_norm(h, h.shape[-1:]) for h in hidden_states) / len(hidden_states)
    return hidden_states[layer]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_batch_equals_utterances_alone(checkpoints, ragged, name):
    folder, (wavs, lens) = checkpoints(name), ragged
    references = [alone(folder, wavs[i, :n]) for i, n in enumerate(lens)]
    for layer in ("last", "weighted", 0, 2, 3):
        encoder = load_encoder(folder, layer=layer)
        frames, frame_lens = encoder(wavs, relative(lens))
        assert frames.dtype == torch.float32 and frame_lens.dtype == torch.int64
        assert frames.shape == (4, int(frame_lens.max()), encoder.output_size)
        for i in range(len(lens)):
            assert_equal(frames[i, : frame_lens[i]], of_layer(references[i], layer))
            assert not frames[i, frame_lens[i] :].any()


@pytest.mark.parametrize("frame_norm", ["cmvn", "utterance"])
def test_frames_normalised_over_their_own_utterance(checkpoints, ragged, frame_norm):
    folder, (wavs, lens) = checkpoints("wav2vec2-layer"), ragged
    encoder = load_encoder(folder, layer="weighted", frame_norm=frame_norm)
    states, state_lens = encoder.states(wavs, relative(lens))
    frames, frame_lens = encoder(wavs, relative(lens))
    torch.testing.assert_close(
        encoder(states=states, frame_lens=state_lens)[0], frames
    )  # kept states are not yet normalised
    for i, n in enumerate(lens):
        expected = of_layer(alone(folder, wavs[i, :n]), "weighted").numpy()
        over = 0 if frame_norm == "cmvn" else None
        expected = (expected - expected.mean(over)) / expected.std(over)
        assert_equal(frames[i, : frame_lens[i]], torch.from_numpy(expected))
        assert not frames[i, frame_lens[i] :].any()


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_garbage_in_the_padding_changes_nothing(checkpoints, ragged, name):
    wavs, lens = ragged
    noisy = wavs.clone()
    for i, n in enumerate(lens):
        noisy[i, n:] = 5.0
    encoder = load_encoder(checkpoints(name))
    torch.testing.assert_close(
        encoder(noisy, relative(lens)), encoder(wavs, relative(lens)), rtol=0, atol=1e-5
    )


@pytest.mark.parametrize("name", ["wav2vec2-group", "data2vec", "conformer-relative", "hubert-batch"])
def test_transformers_own_batch_leaks(checkpoints, ragged, name):
    """The checkpoints of this test are able to fail it: with an attention mask alone, padding is heard."""
    folder, (wavs, lens) = checkpoints(name), ragged
    model = transformers.AutoModel.from_pretrained(folder).eval()
    extractor = transformers.AutoFeatureExtractor.from_pretrained(folder)
    inputs = extractor(
        [wavs[i, :n].numpy() for i, n in enumerate(lens)],
        sampling_rate=16_000,
        padding=True,
        return_attention_mask=True,
        return_tensors="pt",
    )
    with torch.no_grad():
        batch = model(**inputs).last_hidden_state[2]
    expected = alone(folder, wavs[2, : lens[2]])[0]
    assert (batch[: len(expected)] - expected).abs().max() > 20 * TOLERANCE * expected.abs().max()


@pytest.mark.parametrize("name", ["wav2vec2-layer", "wav2vec2-bert"])
def test_gain_changes_nothing(checkpoints, ragged, name):
    wavs, lens = ragged
    encoder = load_encoder(checkpoints(name))
    frames, _ = encoder(wavs, relative(lens))
    louder, _ = encoder(wavs * torch.tensor([[0.5], [2.0], [4.0], [0.25]]), relative(lens))
    assert (louder - frames).abs().max() <= 1e-3 * frames.abs().max()


# SEW pools two frames, and gives two back
@pytest.mark.parametrize(
    ("name", "frames"), [("wav2vec2-group", 1), ("data2vec", 1), ("wav2vec2-bert", 1), ("sew", 2)]
)
def test_shortest_utterance(checkpoints, name, frames):
    encoder = load_encoder(checkpoints(name))
    wavs = torch.randn(1, encoder.min_samples, generator=torch.Generator().manual_seed(0))
    _, frame_lens = encoder(wavs, torch.ones(1))
    assert frame_lens.tolist() == [frames]
    with pytest.raises(ValueError, match=f"the shortest with one frame has {encoder.min_samples} "):
        encoder(wavs[:, :-1], torch.ones(1))


def test_lengths_are_relative(checkpoints):
    for encoder in (load_encoder(checkpoints("wav2vec2-group")), load_encoder("mel_filterbank")):
        wavs = torch.randn(2, 2000)
        with pytest.raises(ValueError, match=r"relative lengths in \(0, 1\], not \[2000.0, 900.0\]"):
            encoder(wavs, torch.tensor([2000, 900]))
        with pytest.raises(ValueError, match="relative lengths"):
            encoder(wavs, torch.tensor([1.0, 0.0]))
        with pytest.raises(ValueError, match=r"takes wavs \(B, T\)"):
            encoder(wavs[:, None], torch.ones(2))


def test_frame_lens_for_every_length(checkpoints):
    """The true number for each of 400 lengths: relative length x F would be wrong for a third of them."""
    folder = checkpoints("wav2vec2-layer")
    model = transformers.AutoModel.from_pretrained(folder)
    encoder = load_encoder(folder, layer=0)
    lens = torch.arange(401, 2001, 4)
    _, frame_lens = encoder(torch.randn(len(lens), 2000), lens / 2000)
    assert torch.equal(frame_lens, model._get_feat_extract_output_lengths(lens))


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_frame_rate(checkpoints, name):
    encoder = load_encoder(checkpoints(name))
    seconds = 4
    _, frame_lens = encoder(torch.randn(1, 16_000 * seconds), torch.ones(1))
    assert abs(encoder.frame_rate * seconds - int(frame_lens)) <= 3


def test_one_hot_mix_is_the_layer_normalised_layer(checkpoints, ragged):
    folder, (wavs, lens) = checkpoints("wav2vec2-layer"), ragged
    encoder = load_encoder(folder, layer="weighted")
    with torch.no_grad():
        encoder.layer_mix[2] = 50.0
    assert encoder.layer_weights().tolist() == pytest.approx([0, 0, 1, 0], abs=1e-6)
    frames, frame_lens = encoder(wavs, relative(lens))
    layer, _ = load_encoder(folder, layer=2)(wavs, relative(lens))
    for i, n in enumerate(frame_lens):
        assert_equal(frames[i, :n], F.layer_norm(layer[i, :n], layer.shape[-1:]))


def test_every_padded_architecture_is_tested(checkpoints):
    tested = {transformers.AutoConfig.from_pretrained(checkpoints(name)).model_type for name in ARCHITECTURES}
    assert set(PADDED) < tested
