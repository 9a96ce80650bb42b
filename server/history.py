"""The history: who said what, and of a reply only what was heard. Pure."""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from server.characters import Character
from server.pipelines.engines import Message

CUT = "—"  # how a reply that was cut off ends in the prompt
KEEP = 200  # entries; beyond, the oldest quarter goes at once, so that a server's prefix cache is lost rarely
OPENING = "(The conversation begins.)"  # many chat templates refuse a conversation that the assistant opens


@dataclass(frozen=True)
class Entry:
    """One line of the conversation. `cut`: it was interrupted, and `text` is what was heard of it."""

    role: Literal["user", "assistant"]
    text: str
    turn: int
    character: str = ""  # id of who said it; empty: the user
    cut: bool = False

    def body(self) -> dict[str, Any]:
        told: dict[str, Any] = {"role": self.role, "text": self.text, "turn": self.turn}
        return told | ({"character": self.character, "cut": self.cut} if self.character else {})


class History:
    """One conversation's lines, in order, and what is counted through it, over however many connections."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.turn = 0  # the last that was answered
        self.replies = itertools.count(1)  # their numbers

    def heard_user(self, text: str, turn: int) -> None:
        self._add(Entry("user", text, turn))

    def said(self, character: str, text: str, turn: int, *, cut: bool = False) -> None:
        """What was heard of a reply; nothing heard leaves no line."""
        if text:
            self._add(Entry("assistant", text, turn, character, cut))

    def clear(self) -> None:
        self.entries.clear()

    @property
    def speaker(self) -> str:
        """The id of the character who spoke last; empty if nobody did."""
        return next((entry.character for entry in reversed(self.entries) if entry.character), "")

    def _add(self, entry: Entry) -> None:
        if len(self.entries) >= KEEP:
            del self.entries[: KEEP // 4]
        self.entries.append(entry)

    def copy(self) -> "History":
        """What a draft is written on, so that nothing of it stays if it is thrown away."""
        other = History()
        other.entries = list(self.entries)
        return other

    def prompt(self, speaker: Character, cast: Mapping[str, Character], instructions: str) -> list[Message]:
        """The messages for `speaker`'s next reply: its own lines as the assistant's, the others' as heard, by name.

        `cast` is everybody present. Neighbouring messages of one role are joined, as strict chat templates demand."""
        messages = [Message("system", _system(speaker, cast, instructions))]
        for entry in self.entries:
            _append(messages, _as_message(entry, speaker, cast))
        return messages


def _system(speaker: Character, cast: Mapping[str, Character], instructions: str) -> str:
    parts = [f"You are {speaker.name}. {speaker.prompt}".strip(), instructions]
    if others := [c.name for c in cast.values() if c.id != speaker.id]:
        parts.append(f"Also present: {', '.join(others)}. Speak only for yourself, without writing your name.")
    parts.append(f'A line of yours that ends in "{CUT}" was cut off there: the user heard nothing after it.')
    return "\n\n".join(part for part in parts if part)


def _as_message(entry: Entry, speaker: Character, cast: Mapping[str, Character]) -> Message:
    text = f"{entry.text.rstrip('.,;: ')}{CUT}" if entry.cut else entry.text
    if entry.role == "user":
        return Message("user", text)
    if entry.character == speaker.id:
        return Message("assistant", text)
    name = cast[entry.character].name if entry.character in cast else entry.character
    return Message("user", f"{name}: {text}")


def _append(messages: list[Message], message: Message) -> None:
    if message.role == "assistant" and len(messages) == 1:
        messages.append(Message("user", OPENING))
    if messages[-1].role == message.role:
        messages[-1] = replace(messages[-1], content=f"{messages[-1].content}\n{message.content}")
    else:
        messages.append(message)
