"""Log-mel features as Whisper's encoder takes them. Pure.

Source: the Whisper paper and its published front end: windows of 25 ms every 10 ms, Slaney's mel scale, log10 within
eight decades of the loudest."""

import functools

import numpy as np
import numpy.typing as npt

from server.pipelines.engines import HEARING_RATE, Samples

WINDOW = 400  # samples, 25 ms
HOP = 160  # samples, 10 ms
MELS = 80
LINEAR_HZ = 1000.0  # Slaney's scale is linear below, logarithmic above
HZ_PER_MEL = 200 / 3
LOG_STEP = np.log(6.4) / 27


def log_mel(samples: Samples) -> Samples:
    """`[80, len / 160]` features of float32 samples at 16 kHz, first brought to zero mean and unit variance."""
    level = (samples - samples.mean()) / np.sqrt(samples.var() + 1e-7)
    padded = np.pad(level, WINDOW // 2, mode="reflect")
    windows = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[:-1:HOP]
    power = np.abs(np.fft.rfft(windows * _hann())) ** 2
    decades = np.log10(np.maximum(_filters() @ power.T, 1e-10))
    features: Samples = ((np.maximum(decades, decades.max() - 8) + 4) / 4).astype(np.float32)
    return features


@functools.cache
def _hann() -> npt.NDArray[np.float64]:
    return np.hanning(WINDOW + 1)[:-1]  # periodic


@functools.cache
def _filters() -> npt.NDArray[np.float64]:
    """`[80, 201]` triangles, each of area one, from 0 Hz to half the rate."""
    bins = np.linspace(0, HEARING_RATE / 2, WINDOW // 2 + 1)
    corners = _hertz(np.linspace(0, _mel(HEARING_RATE / 2), MELS + 2))
    low, peak, high = corners[:-2, None], corners[1:-1, None], corners[2:, None]
    rising, falling = (bins - low) / (peak - low), (high - bins) / (high - peak)
    return np.maximum(0, np.minimum(rising, falling)) * 2 / (high - low)


def _mel(hertz: float) -> float:
    return float(LINEAR_HZ / HZ_PER_MEL + np.log(hertz / LINEAR_HZ) / LOG_STEP)


def _hertz(mel: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    above = mel - LINEAR_HZ / HZ_PER_MEL
    return np.where(above < 0, mel * HZ_PER_MEL, LINEAR_HZ * np.exp(LOG_STEP * np.maximum(above, 0)))
