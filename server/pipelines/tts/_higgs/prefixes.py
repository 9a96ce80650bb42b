"""What was read once and may be needed again: KV of voices' references and of speakers' last conversations.

A copy is found by its tokens, not by who left it: of a copy as much is used as the new prompt begins with. So a voice's
reference is shared, a conversation goes on where it stopped, and one whose oldest utterance was dropped falls back to
the reference, all by the same rule. Bounded in bytes: the longest unused goes first, and is read again if needed."""

from collections import OrderedDict
from collections.abc import Hashable, Iterable
from dataclasses import dataclass

from torch import Tensor

from server.pipelines.tts._higgs.delay import Codes
from server.pipelines.tts._higgs.prompt import common


@dataclass(frozen=True)
class Kept:
    """The KV of `tokens`."""

    tokens: Codes
    kv: Tensor

    @property
    def size(self) -> int:
        return self.kv.numel() * self.kv.element_size()


class Prefixes:
    """Copies of KV by key, at most `limit` bytes of them."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0
        self._kept: OrderedDict[Hashable, Kept] = OrderedDict()

    def __contains__(self, key: Hashable) -> bool:
        return key in self._kept

    def put(self, key: Hashable, kept: Kept) -> None:
        """Keep a copy in place of the one under this key. One larger than the limit is not kept."""
        self.drop(key)
        if kept.size > self.limit:
            return
        while self.used + kept.size > self.limit:
            self.drop(next(iter(self._kept)))
        self._kept[key] = kept
        self.used += kept.size

    def best(self, keys: Iterable[Hashable], prompt: Codes) -> tuple[Kept | None, int]:
        """Of the copies under `keys` the one that shares most with `prompt`, and how many tokens that is."""
        found: tuple[Kept | None, int] = None, 0
        for key in keys:
            if key in self._kept:
                self._kept.move_to_end(key)
                length = common(self._kept[key].tokens, prompt)
                found = max(found, (self._kept[key], length), key=lambda pair: pair[1])
        return found

    def drop(self, key: Hashable) -> None:
        if old := self._kept.pop(key, None):
            self.used -= old.size

    def clear(self) -> None:
        self._kept.clear()
        self.used = 0
