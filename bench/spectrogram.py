"""Spectrograms as PNG files, two side by side, with nothing but numpy."""

import struct
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.uint8]
WINDOW = 1_024
HEIGHT = 256  # pixels
RANGE_DB = 80.0


def spectrogram(pcm: bytes, rate: int, top_hz: int = 24_000, step_ms: float = 8) -> Image:
    """Time from left to right, 0 to `top_hz` upwards, loud is bright; grey, `(HEIGHT, frames)`."""
    samples = np.frombuffer(pcm, "<i2").astype(np.float32) / 32768
    hop = int(rate * step_ms / 1000)
    count = max(1, (len(samples) - WINDOW) // hop)
    frames = np.stack([samples[n * hop : n * hop + WINDOW] for n in range(count)]) * np.hanning(WINDOW)
    level = 20 * np.log10(np.abs(np.fft.rfft(frames, axis=1)) / WINDOW * 4 + 1e-9)
    bright = np.clip((level + RANGE_DB) / RANGE_DB, 0, 1)
    at = np.linspace(0, top_hz, HEIGHT)
    bins = np.arange(bright.shape[1]) * rate / WINDOW
    rows = np.stack([np.interp(at, bins, row, right=0.0) for row in bright], axis=1)
    return np.flipud(rows * 255).astype(np.uint8)


def beside(*images: Image) -> Image:
    """Images of one height, a white line between them."""
    line = np.full((HEIGHT, 4), 255, np.uint8)
    return np.hstack([part for image in images for part in (image, line)][:-1])


def png(image: Image) -> bytes:
    """A grey PNG file."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width = image.shape
    rows = b"".join(b"\0" + row.tobytes() for row in image)
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    parts = [chunk(b"IHDR", head), chunk(b"IDAT", zlib.compress(rows, 9)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def write(path: Path, *images: Image) -> None:
    path.write_bytes(png(beside(*images)))
