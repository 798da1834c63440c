"""What a recording session adds to a clean voice: a room, a microphone, noise. All of it made here, from
numbers."""

import numpy as np

RATE = 16000


def loud(wave, floor=0.01):
    """(first, last + 1) sample of `wave` (T,) above `floor` of its peak"""
    above = np.flatnonzero(np.abs(wave) > floor * np.abs(wave).max())
    return int(above[0]), int(above[-1]) + 1


def trimmed(wave, margin=0.12):
    """`wave` (T,) without silence at both ends, but for `margin` seconds; and how many samples later it now
    begins."""
    first, last = loud(wave)
    silence = np.zeros(int(margin * RATE))
    return np.concatenate([silence, wave[first:last], silence]), len(silence) - first


def reverberated(wave, rt60, rng):
    """`wave` (T,) in a room: direct sound and a noise tail that falls by 60 dB in `rt60` s; length is
    kept."""
    time = np.arange(int(rt60 * RATE)) / RATE
    tail = rng.standard_normal(len(time)) * 10 ** (-3 * time / rt60)
    tail *= 0.5 / np.sqrt(np.sum(tail**2))  # 6 dB below the direct sound
    response = np.concatenate([[1.0], np.zeros(int(0.004 * RATE)), tail])
    size = 1 << (len(wave) + len(response)).bit_length()
    return np.fft.irfft(np.fft.rfft(wave, size) * np.fft.rfft(response, size), size)[: len(wave)]


def _shaped(samples, rng, gain):
    """Gaussian noise whose spectrum is multiplied by `gain(frequencies in Hz)`."""
    size = 1 << samples.bit_length()
    spectrum = np.fft.rfft(rng.standard_normal(size)) * gain(np.fft.rfftfreq(size, 1 / RATE))
    return np.fft.irfft(spectrum, size)[:samples]


def noise(kind, samples, rng):
    """(samples,) of `white`, `pink`, `babble` (six talkers' rhythm on the spectrum of speech) or `hum` (mains
    and hiss)."""
    if kind == "white":
        return rng.standard_normal(samples)
    if kind == "pink":
        return _shaped(samples, rng, lambda f: 1 / np.sqrt(np.maximum(f, 20)))
    time = np.arange(samples) / RATE
    if kind == "hum":
        harmonics = sum(np.sin(2 * np.pi * (50 * k * time + rng.random())) / k for k in range(1, 9))
        return harmonics + 0.3 * rng.standard_normal(samples)
    talkers = [
        _shaped(samples, rng, lambda f: (f / 300) / (1 + (f / 500) ** 2.2))
        * (1 + np.sin(2 * np.pi * (rng.uniform(3, 5) * time + rng.random())))
        for _ in range(6)
    ]
    return sum(talkers)


def recorded(wave, session, rng):
    """Clean `wave` (T,) as `session` (a Speaker) records it -> (T',) int16, and how many samples later
    everything comes. The SNR is that of the trimmed clip."""
    wave, shift = trimmed(wave)
    wave = reverberated(wave, session.rt60, rng)
    wave = np.append(wave[0], wave[1:] - session.tilt * wave[:-1])  # a dull or a sharp microphone
    background = noise(session.noise, len(wave), rng)
    ratio = 10 ** (session.snr / 20) * np.sqrt(np.mean(background**2) / np.mean(wave**2))
    wave = wave + background / ratio
    wave *= 10 ** (session.level / 20) / np.sqrt(np.mean(wave**2))
    return np.round(np.clip(wave, -1, 1) * 32767).astype(np.int16), shift
