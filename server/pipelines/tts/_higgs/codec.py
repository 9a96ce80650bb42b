"""The codec: a recording to codes, and windows of codes to sound, many streams at a time.

Decoding sums the codebooks, so a missing code (-1) simply adds nothing. On a card it runs on a stream of its own: the
row that comes next does not wait for it. There every new shape costs a millisecond in each of some thirty convolutions,
so batches are filled up to a few shapes, which the start has tried."""

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from server.pipelines.tts._higgs.delay import BOOKS, Codes

RATE = 24_000
HOP = 960
GRAIN = 8  # frames by which windows grow
LONGEST = 48  # frames of the longest window, but for the first of a slow card
Wave = npt.NDArray[np.float32]

log = logging.getLogger(__name__)


class Decoding:
    """A batch that is being decoded; `result` waits for it. On a card `waves` is pinned memory that is being filled."""

    def __init__(self, waves: torch.Tensor, event: Any = None) -> None:
        self._waves, self._event = waves, event

    @property
    def ready(self) -> bool:
        return self._event is None or bool(self._event.query())

    def result(self) -> Wave:
        """The sound [batch, length * 960], also of what a window was filled up with."""
        if self._event is not None:
            self._event.synchronize()
        return np.asarray(self._waves.numpy())


class Codec:
    """Wraps a loaded `HiggsAudioV2TokenizerModel`. `few`: fill batches up, so that there are few shapes (on CUDA)."""

    def __init__(self, model: Any, device: torch.device, few: bool | None = None) -> None:
        self._model, self._device = model, device
        self._few = device.type == "cuda" if few is None else few
        self._encoding, self._decoding = _side_stream(device), _side_stream(device)

    @torch.inference_mode()
    def encode(self, wave: Wave) -> Codes:
        """A recording at 24 kHz as frames [T, 8]."""
        with torch.cuda.stream(self._encoding):
            sound = torch.from_numpy(np.ascontiguousarray(wave, np.float32)).to(self._device)[None, None]
            codes = self._model.encode(sound).audio_codes[0]
            return np.asarray(codes.T.cpu().numpy(), np.int64)

    def length(self, frames: int) -> int:
        """How long a window of so many frames gets; those of one length can be decoded together."""
        return -(-frames // GRAIN) * GRAIN if self._few else frames

    @torch.inference_mode()
    def decode(self, windows: Sequence[Codes]) -> Decoding:
        """Windows [T, 8] of one `length`, with -1 for what is missing, to sound."""
        codes = torch.from_numpy(np.stack([_filled(window, self.length(len(window))) for window in windows]))
        if self._few:
            codes = functional.pad(codes, (0, 0, 0, 0, 0, (1 << (len(codes) - 1).bit_length()) - len(codes)))
        if self._decoding is None:
            return Decoding(self._waves(codes)[: len(windows)])
        with torch.cuda.stream(self._decoding):
            sound = self._waves(codes.pin_memory().to(self._device, non_blocking=True))[: len(windows)]
            host = torch.empty(sound.shape, pin_memory=True)
            host.copy_(sound, non_blocking=True)
            event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            event.record()
        return Decoding(host, event)

    def warm_up(self, most: int) -> None:
        """Decode every shape there will be for up to `most` streams once; where memory is short, without the large."""
        sizes = [1 << i for i in range((most - 1).bit_length() + 1)] if self._few else [1]
        try:
            for count in sizes:
                for frames in range(GRAIN, LONGEST + 1, GRAIN):
                    self.decode([np.zeros((frames, BOOKS), np.int64)] * count).result()
        except torch.OutOfMemoryError as error:
            log.warning("decoding many streams at once has no memory: %s", error)

    def _waves(self, codes: torch.Tensor) -> torch.Tensor:
        total: Any = 0.0
        for book, quantizer in enumerate(self._model.quantizer.quantizers[: codes.shape[2]]):
            said = codes[:, :, book]
            part = quantizer.decode(said.clamp(min=0)) * (said >= 0)[:, None].float()
            total = total + part
        hidden = self._model.fc2(total.transpose(1, 2)).transpose(1, 2)
        waves: torch.Tensor = self._model.acoustic_decoder(hidden)[:, 0].float()
        return waves


def _filled(codes: Codes, length: int) -> Codes:
    """`codes` going on with their last frame."""
    return np.pad(codes, ((0, length - len(codes)), (0, 0)), mode="edge")


def _side_stream(device: torch.device) -> Any:
    return torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]
