"""What outlives an utterance: its KV, for the speaker's next one and for everybody with the same voice; and what is
given up again when memory runs out."""

from collections.abc import Callable
from typing import TypeVar

import numpy as np
import torch

from server.pipelines.tts._higgs.delay import BOOKS, Codes
from server.pipelines.tts._higgs.prefixes import Kept, Prefixes
from server.pipelines.tts._higgs.slots import Slots
from server.pipelines.tts._higgs.stream import Stream

T = TypeVar("T")


class Keeping:
    """Moves KV between `slots` and `prefixes`. `audio_id`: the text id of a token that is sound."""

    def __init__(self, slots: Slots, prefixes: Prefixes, audio_id: int) -> None:
        self.slots, self.prefixes, self.audio_id = slots, prefixes, audio_id

    def recall(self, stream: Stream, slot: int) -> int:
        """Put into `slot` what is known of the stream's prompt; how many tokens that is."""
        kept, length = self.prefixes.best((stream.speaker, stream.voice), stream.prompt)
        if kept is not None:
            self.slots.restore(slot, kept.kv, length)
        return length

    def voice(self, stream: Stream, slot: int) -> None:
        """The prompt has been read: keep what belongs to the voice."""
        if stream.head and stream.voice not in self.prefixes:
            self._keep(stream.voice, stream.prompt[: stream.head], slot)

    def speaker(self, stream: Stream, slot: int) -> None:
        """The stream leaves: keep all of it, or the conversation before it if it was cut off."""
        length = min(stream.read, stream.context) if stream.cancelled else stream.tokens
        if stream.limit and length > stream.head:
            self._keep(stream.speaker, self._tokens(stream, length), slot)

    def park(self, stream: Stream, slot: int) -> None:
        """The stream leaves and will come back: what it said is then part of its prompt, read again if need be."""
        stream.prompt = self._tokens(stream, stream.tokens)
        self._keep(stream.speaker, stream.prompt, slot)
        stream.inside, stream.read, stream.parked = len(stream.said) - 1, 0, True

    def attempt(self, work: Callable[[], T]) -> T:
        """Do it; where memory runs out, free what can be computed again and try once more."""
        try:
            return work()
        except torch.OutOfMemoryError:
            self.spare()
            return work()

    def spare(self) -> None:
        self.prefixes.clear()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _tokens(self, stream: Stream, length: int) -> Codes:
        """The first `length` tokens of the stream's slot: its prompt, then its rows."""
        rows = stream.said.array()[stream.inside :][: max(0, length - stream.read)]
        sound = np.empty((len(rows), 1 + BOOKS), np.int64)
        sound[:, 0], sound[:, 1:] = self.audio_id, rows
        return np.concatenate([stream.prompt[: min(length, stream.read)], sound])

    def _keep(self, key: object, tokens: Codes, slot: int) -> None:
        try:
            self.prefixes.put(key, Kept(tokens, self.slots.saved(slot, len(tokens))))
        except torch.OutOfMemoryError:
            self.spare()  # it will be read again instead
