"""Prompts as the model reads them: an array [n, 9], a text id and eight codes a token, by the checkpoint's template.

The template is applied to whole conversations only to learn its pieces (what comes before a turn, around a text, behind
the sound). The pieces meet at special tokens, so encoding them one by one gives what encoding the whole would."""

import threading
from dataclasses import dataclass
from typing import Any

import numpy as np

from server.errors import EngineUnavailable
from server.pipelines.tts._higgs.delay import BOOKS, Codes

TASK = "Generate audio following instruction."
ROOM = "Audio is recorded from a quiet room."
_MARK = "\u2063"  # stands for a text in the template; no chat template does anything to it


@dataclass(frozen=True)
class Scene:
    """What is said before the conversation: the room, and the speaker in words."""

    room: str = ROOM
    speaker: str = ""

    def messages(self) -> list[dict[str, Any]]:
        items = [self.room or ROOM] + ([f"SPEAKER0: {self.speaker}"] if self.speaker else [])
        return [_message("system", TASK), _message("scene", *items)]


class Prompts:
    """Writes prompts. Safe to use from several threads."""

    def __init__(self, processor: Any) -> None:
        self._processor = processor
        self._lock = threading.Lock()  # fast tokenizers must not be shared between threads at one moment
        self.audio_id = int(processor.audio_token_id)
        self._before, self._between, self._after = self._pieces()

    def head(self, scene: Scene) -> Codes:
        """Everything before the first turn."""
        return self._text(self._render(scene.messages()))

    def turn(self, text: str) -> Codes:
        """A text to be spoken, up to where its sound begins."""
        return self._text(self._before + _words(text.strip()) + self._between)

    def sound(self, rows: Codes) -> Codes:
        """The sound [R, 8] of the turn before, and how its turn ends."""
        tokens = np.concatenate([np.full((len(rows), 1), self.audio_id, np.int64), rows], axis=1)
        return np.concatenate([tokens, self._text(self._after)])

    def _render(self, messages: list[dict[str, Any]], generate: bool = False) -> str:
        return str(self._processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=generate))

    def _pieces(self) -> tuple[str, str, str]:
        """What the template writes before a text, between it and its sound, and behind the sound."""
        head = Scene().messages()
        asked = [*head, _message("user", _MARK)]
        start, open_turn = self._render(head), self._render(asked, generate=True)
        closed = self._render([*asked, {"role": "assistant", "content": [{"type": "audio"}]}])
        before, mark, between = open_turn[len(start) :].partition(_MARK)
        sound = open_turn + self._processor.audio_token
        if not (mark and open_turn.startswith(start) and closed.startswith(sound)):
            raise EngineUnavailable(
                "the model's chat template is not Higgs Audio's; see docs/gpu.md for models that work"
            )
        return before, between, closed[len(sound) :]

    def _text(self, text: str) -> Codes:
        with self._lock:
            ids = self._processor.tokenizer(text, add_special_tokens=False)["input_ids"]
        tokens = np.zeros((len(ids), 1 + BOOKS), np.int64)
        tokens[:, 0] = ids
        return tokens


def _words(text: str) -> str:
    """`text` as nothing but words: no name of a special token, which would end the turn, and no half of a character,
    which has no tokens."""
    return text.encode("utf-8", "ignore").decode().replace("<|", "< |")


def _message(role: str, *texts: str) -> dict[str, Any]:
    return {"role": role, "content": [{"type": "text", "text": _words(text)} for text in texts]}


def common(a: Codes, b: Codes) -> int:
    """How many tokens two prompts share from their beginning."""
    n = min(len(a), len(b))
    differ = (a[:n] != b[:n]).any(axis=1)
    return int(differ.argmax()) if differ.any() else n
