"""Reading prompts into slots: pieces of several at once, through the model's own layers.

The model's own forward picks text and sound apart by masks, which on a card waits for the device in every layer and
cannot be captured. Here both ways are computed for every token and the right one is taken: the same result, a fixed
shape, and for pieces of this size the weights are read either way. What is shorter than its buffer ends in scrap."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from server.pipelines.tts._higgs.attention import Pieces
from server.pipelines.tts._higgs.clock import LARGEST
from server.pipelines.tts._higgs.delay import BOOKS, Codes
from server.pipelines.tts._higgs.graphs import Graphs, Work, settle
from server.pipelines.tts._higgs.layers import Layers, embedded, normal
from server.pipelines.tts._higgs.slots import Slots

SHORT = 64  # tokens: pieces up to this length are read together
TOGETHER = 8
LONG = 256  # tokens of the longest piece that is captured


@dataclass(frozen=True)
class Part:
    """`tokens` [n, 9] (a text id, and codes where it stands for sound) for `slot`, from position `begin`."""

    slot: int
    begin: int
    tokens: Codes


class Reader:
    """Reads into `slots`. `audio_id`: the text id that stands for sound."""

    def __init__(self, model: Any, slots: Slots, graphs: Graphs, audio_id: int) -> None:
        self._model, self._slots, self._graphs, self._audio_id = model.model, slots, graphs, audio_id
        self._layers = Layers(model.model, slots.places)
        self._device = slots.kv.device
        sizes = [(1, LONG), (TOGETHER, SHORT), (1, SHORT)] if graphs.enabled else []
        self._buffers = {size: self._buffer(*size) for size in sizes}

    @property
    def longest(self) -> int:
        """Tokens of a piece, at most."""
        return LONG if self._graphs.enabled else LARGEST

    @torch.inference_mode()
    def read(self, parts: Sequence[Part]) -> None:
        """Read them all, at most `TOGETHER`, in one go. Returns when it is done: a row's time is not to hold it."""
        count, length = len(parts), max(len(part.tokens) for part in parts)
        size = next((s for s in reversed(self._buffers) if s[0] >= count and s[1] >= length), (count, length))
        tokens, slots = self._buffers.get(size) or self._buffer(*size)
        tokens.copy_(torch.from_numpy(self._filled(parts, size)))
        slots[:count].copy_(torch.tensor([part.slot for part in parts]))
        reach = self._slots.reach(max(part.begin + len(part.tokens) for part in parts))
        self._graphs.run(("read", *size, reach), lambda: self._forward(tokens, slots, reach))
        settle(self._device)

    def works(self) -> dict[Hashable, Work]:
        """What there is to capture."""
        return {
            ("read", *size, reach): lambda tokens=tokens, slots=slots, reach=reach: self._forward(tokens, slots, reach)  # type: ignore[misc]
            for reach in self._slots.reaches()
            for size, (tokens, slots) in self._buffers.items()
        }

    def _buffer(self, count: int, length: int) -> tuple[Tensor, Tensor]:
        """Room for `count` pieces: a position, an id and codes for each token; and their slots. All of it scrap."""
        tokens = torch.zeros(count, length, 2 + BOOKS, dtype=torch.int64, device=self._device)
        tokens[..., 0] = self._slots.length
        return tokens, torch.zeros(count, dtype=torch.int64, device=self._device)

    def _filled(self, parts: Sequence[Part], size: tuple[int, int]) -> Codes:
        tokens = np.zeros((*size, 2 + BOOKS), np.int64)
        tokens[..., 0] = self._slots.length
        for row, part in zip(tokens, parts, strict=False):
            row[: len(part.tokens), 0] = np.arange(part.begin, part.begin + len(part.tokens))
            row[: len(part.tokens), 1:] = part.tokens
        return tokens

    @torch.inference_mode()
    def _forward(self, tokens: Tensor, slots: Tensor, reach: int) -> None:
        """Write the KV of `tokens` [n, length, 10] to `slots` [n], looking at `reach` positions."""
        model, positions, ids, codes = self._model, tokens[..., 0], tokens[..., 1].flatten(), tokens[..., 2:]
        sound = (ids == self._audio_id)[:, None]
        hidden = torch.where(sound, embedded(model, codes.flatten(0, 1)), model.embed_tokens(ids))
        turns, seen = self._layers.angles(positions.flatten()), Pieces(self._slots, slots, positions, reach)
        for layer in self._layers.all:
            text = layer.module
            looking = torch.where(sound, normal(hidden, layer.before), normal(hidden, text.input_layernorm))
            self._layers.attend(hidden, looking, turns, layer, seen)
            spoken = functional.linear(self._layers.gated(hidden, layer), layer.down)
            hidden += torch.where(sound, spoken, text.mlp(normal(hidden, text.post_attention_layernorm)))
