"""The codec: a recording to codes, and windows of codes to sound, many streams at a time.

Decoding sums the codebooks, so a missing code (-1) simply adds nothing. On a card it runs on a stream of its own: the
row that comes next does not wait for it."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from server.pipelines.tts._higgs.delay import Codes

RATE = 24_000
HOP = 960
Wave = npt.NDArray[np.float32]


class Decoding:
    """A batch that is being decoded; `result` waits for it."""

    def __init__(self, waves: torch.Tensor, event: Any = None) -> None:
        self._waves, self._event = waves, event

    @property
    def ready(self) -> bool:
        return self._event is None or bool(self._event.query())

    def result(self) -> Wave:
        """The sound, [batch, frames * 960]."""
        if self._event is not None:
            self._event.synchronize()
        return np.asarray(self._waves.numpy())


class Codec:
    """Wraps a loaded `HiggsAudioV2TokenizerModel`."""

    def __init__(self, model: Any, device: torch.device) -> None:
        self._model, self._device = model, device
        self._stream = _side_stream(device)

    @torch.inference_mode()
    def encode(self, wave: Wave) -> Codes:
        """A recording at 24 kHz as frames [T, 8]."""
        sound = torch.from_numpy(np.ascontiguousarray(wave, np.float32)).to(self._device)[None, None]
        codes = self._model.encode(sound).audio_codes[0]
        return np.asarray(codes.T.cpu().numpy(), np.int64)

    @torch.inference_mode()
    def decode(self, windows: Sequence[Codes]) -> Decoding:
        """Windows of equal length, each [T, 8] with -1 for what is missing, to sound."""
        codes = torch.from_numpy(np.stack(windows))
        if self._stream is None:
            return Decoding(self._waves(codes))
        with torch.cuda.stream(self._stream):
            sound = self._waves(codes.to(self._device))
            host = torch.empty(sound.shape, pin_memory=True)
            host.copy_(sound, non_blocking=True)
            event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            event.record()
        return Decoding(host, event)

    def _waves(self, codes: torch.Tensor) -> torch.Tensor:
        total: Any = 0.0
        for book, quantizer in enumerate(self._model.quantizer.quantizers[: codes.shape[2]]):
            said = codes[:, :, book]
            part = quantizer.decode(said.clamp(min=0)) * (said >= 0)[:, None].float()
            total = total + part
        hidden = self._model.fc2(total.transpose(1, 2)).transpose(1, 2)
        waves: torch.Tensor = self._model.acoustic_decoder(hidden)[:, 0].float()
        return waves


def _side_stream(device: torch.device) -> Any:
    return torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]
