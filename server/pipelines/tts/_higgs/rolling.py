"""A speaker's rolling context: the voice's own beginning, then its last utterances, which keep it steady. Pure.

Dropping the oldest means reading the rest again, so it is done for several at once: the last `keep` are always there,
and up to half as many more. Without a recording the first utterance is the voice's only anchor, so it is never dropped:
it takes the recording's place. What was interrupted is forgotten, unless it would be that anchor: see
docs/decisions/0050."""

from collections import deque
from dataclasses import dataclass

import numpy as np

from server.errors import TTSError
from server.pipelines.tts._higgs.delay import BOOKS, Codes
from server.pipelines.tts._higgs.prompt import Prompts
from server.pipelines.tts._higgs.windows import CHARACTERS_PER_FRAME

ANCHOR_ROWS = 25 + BOOKS + 1  # an interrupted utterance of less than a second anchors nothing


@dataclass(frozen=True)
class Asked:
    """A prompt, and how much of it belongs to the voice (`head`) and to the conversation (`context`)."""

    tokens: Codes
    head: int
    context: int


class Rolling:
    """`head`: the voice's own tokens. `keep`: how many utterances are kept at least. `length`: tokens a slot holds;
    `longest`: rows an utterance may have. `anchored`: the voice has a recording."""

    def __init__(self, prompts: Prompts, head: Codes, keep: int, length: int, longest: int, anchored: bool) -> None:
        self._prompts, self._head, self._keep = prompts, head, keep
        self._length, self._longest = length, longest
        self._anchored = anchored
        self._anchor: Codes = head[:0]
        self._said: deque[Codes] = deque()

    def ask(self, text: str) -> Asked:
        """The prompt for `text`, with as many utterances before it as leave room for its sound. Raises `TTSError`."""
        turn = self._prompts.turn(text)
        room = min(self._longest, int(2 * len(text) / CHARACTERS_PER_FRAME) + 100)
        while self._said and self._size() + len(turn) + room > self._length:
            self._said.popleft()
        context = np.concatenate([self._head, self._anchor, *self._said])
        if len(context) + len(turn) + room > self._length:
            raise TTSError(
                f"a text of {len(text)} characters needs {len(context) + len(turn) + room} tokens of {self._length}: "
                "send it in sentences, or raise length in [tts]"
            )
        return Asked(np.concatenate([context, turn]), len(self._head), len(context))

    def spoke(self, text: str, rows: Codes) -> None:
        """`text` was spoken to its end as `rows` [R, 8], the last of them all EOS."""
        self._add(np.concatenate([self._prompts.turn(text), self._prompts.sound(rows)]))

    def cut_off(self, text: str, rows: Codes) -> None:
        """`text` as `rows` [R, 8] is what was heard before an interruption."""
        if not (self._anchored or len(self._anchor)) and text.strip() and len(rows) >= ANCHOR_ROWS:
            self.spoke(text, rows)

    def _add(self, tokens: Codes) -> None:
        if not self._keep:
            return
        if not self._anchored and not len(self._anchor):
            self._anchor = tokens
            return
        self._said.append(tokens)
        if len(self._said) > self._keep + self._keep // 2:
            while len(self._said) > self._keep:
                self._said.popleft()

    def _size(self) -> int:
        return len(self._head) + len(self._anchor) + sum(map(len, self._said))
