"""The log-mel front ends and the input normalisation, against torchaudio and transformers."""

import pytest
import torch
import torchaudio
import transformers
from tiny_encoders import relative

from lebench_sb.audio.waveforms import StackedLogMel, Waveform
from lebench_sb.encoders.encoder import FRAME_NORMS, MelFilterbank, load_encoder


def test_mel_filterbank_is_kaldis_standardised(ragged):
    wavs, lens = ragged
    encoder = load_encoder("mel_filterbank")
    frames, frame_lens = encoder(wavs, relative(lens))
    assert isinstance(encoder, MelFilterbank) and encoder.output_size == 80 and not list(encoder.parameters())
    assert frames.dtype == torch.float32 and frames.shape == (4, int(frame_lens.max()), 80)
    for i, n in enumerate(lens):
        mels = torchaudio.compliance.kaldi.fbank(wavs[i : i + 1, :n] * 2**15, num_mel_bins=80, dither=0)
        expected = (mels - mels.mean(0)) / mels.std(0)
        assert frame_lens[i] == len(expected)
        assert (frames[i, : frame_lens[i]] - expected).abs().max() < 1e-3
        assert not frames[i, frame_lens[i] :].any()


def test_mel_filterbank_batch_equals_alone(ragged):
    wavs, lens = ragged
    encoder = load_encoder("mel_filterbank", freeze=False)
    frames, frame_lens = encoder(wavs, relative(lens))
    for i, n in enumerate(lens):
        alone, alone_lens = encoder(wavs[i : i + 1, :n], torch.ones(1))
        assert alone_lens == frame_lens[i]
        assert (alone[0] - frames[i, : frame_lens[i]]).abs().max() < 1e-5
    assert torch.equal(encoder(wavs, relative(lens))[0], frames) and not frames.requires_grad


def test_mel_filterbank_shortest():
    encoder = load_encoder("mel_filterbank")
    frames, frame_lens = encoder(torch.randn(1, 400), torch.ones(1))
    assert frame_lens.tolist() == [1] and frames.isfinite().all()
    with pytest.raises(ValueError, match=r"399 samples; the shortest with one frame has 400 \(25.0 ms\)"):
        encoder(torch.randn(1, 399), torch.ones(1))


def test_digital_silence_is_finite(checkpoints):
    wavs = torch.zeros(2, 8000)
    wavs[0, 4000:] = torch.randn(4000)
    for source in ("mel_filterbank", checkpoints("wav2vec2-layer"), checkpoints("wav2vec2-group")):
        for frame_norm in FRAME_NORMS:
            frames, _ = load_encoder(source, frame_norm=frame_norm)(wavs, torch.ones(2))
            assert frames.isfinite().all()


def test_stacked_log_mel_equals_transformers(ragged):
    """Loud, quiet, odd numbers of mel frames; within 1e-4 of the largest value."""
    wavs, lens = ragged
    extractor = transformers.SeamlessM4TFeatureExtractor()
    inputs, frame_lens, _ = StackedLogMel(80, 2)(wavs, torch.tensor(lens))
    for i, n in enumerate(lens):
        expected = extractor(wavs[i, :n].numpy(), sampling_rate=16_000, return_tensors="pt")
        assert frame_lens[i] == expected["attention_mask"].sum()
        expected = expected["input_features"][0, : frame_lens[i]]
        assert (inputs[i, : frame_lens[i]] - expected).abs().max() < 1e-4 * expected.abs().max()
        assert not inputs[i, frame_lens[i] :].any()


def test_waveform_normalisation_equals_transformers(ragged):
    wavs, lens = ragged
    extractor = transformers.Wav2Vec2FeatureExtractor(do_normalize=True)
    inputs, _, _ = Waveform(transformers.Wav2Vec2Config(), True)(wavs, torch.tensor(lens))
    for i, n in enumerate(lens):
        expected = torch.from_numpy(extractor(wavs[i, :n].numpy(), sampling_rate=16_000)["input_values"][0])
        assert (inputs[i, :n] - expected).abs().max() < 1e-5
        assert not inputs[i, n:].any()
