"""Parley's voices by WebSocket, for pipecat: full duplex, interrupted at once, with the words as they sound."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Any, Literal

from pipecat.frames.frames import (
    CancelFrame,
    EndFrame,
    ErrorFrame,
    Frame,
    StartFrame,
    TTSAudioRawFrame,
    TTSStoppedFrame,
)
from pipecat.services.settings import TTSSettings
from pipecat.services.tts_service import TTSService
from pipecat.utils.types import is_given

from server.audio import milliseconds
from server.clients.link import ConnectionLost, Refused
from server.clients.pipecat.words import Playout, Times, Tokens
from server.clients.speech import Complete, Created, Done, Event, Failed, Lost, Speech, Words, speakable
from server.errors import ParleyError


def asked(settings: TTSSettings) -> dict[str, Any]:
    """What the settings say that Parley understands."""
    given = {name: getattr(settings, name) for name in ("voice", "language", "model")}
    return {name: str(value) for name, value in given.items() if is_given(value) and value}


@dataclass
class _Turn:
    """One audio context of pipecat's: its texts, in the order they will be said."""

    id: str
    texts: list[Tokens] = field(default_factory=list)
    begin_s: float = 0.0  # of the segment at hand
    playout: Playout = field(default_factory=Playout)
    words: Times = field(default_factory=list)  # whose audio is about to come


class ParleyTTSService(TTSService):
    """`url` is like `ws://localhost:8000/ws/tts/stream`. `mode`: `stream` gives audio out as it is made, in the sizes
    of `preset`. Voice, language and model (an engine's name) are pipecat's settings."""

    Settings = TTSSettings

    def __init__(
        self,
        *,
        url: str = "ws://localhost:8000/ws/tts/stream",
        token: str = "",
        mode: Literal["batch", "stream"] = "stream",
        preset: Literal["aggressive", "balanced", "conservative"] = "aggressive",
        settings: TTSSettings | None = None,
        **options: Any,
    ) -> None:
        chosen = TTSSettings(model=None, voice=None, language=None)
        if settings is not None:
            chosen.apply_update(settings)
        super().__init__(push_text_frames=False, push_start_frame=True, settings=chosen, **options)
        self._url, self._token, self._mode, self._preset = url, token, mode, preset
        self._speech: Speech | None = None
        self._reading: asyncio.Task[None] | None = None
        self._coming: deque[_Turn] = deque()  # said, but their stream is not announced yet
        self._now: _Turn | None = None
        self._turns: dict[str, _Turn] = {}
        self._unclaimed = False  # a stream is announced that nothing was said to
        self._connection = 0  # what all of these belong to
        self._turn_context_id: str | None

    def can_generate_metrics(self) -> bool:
        return True

    def language_to_service_language(self, language: Any) -> str | None:
        return str(language)

    async def start(self, frame: StartFrame) -> None:
        await super().start(frame)
        self._speech = Speech(
            self._url,
            token=self._token,
            mode=self._mode,
            words=True,
            sample_rate=self.sample_rate,
            **asked(self._settings),
        )
        self._connection = 1
        self._reading = self.create_task(self._read(self._speech))

    async def stop(self, frame: EndFrame) -> None:
        await super().stop(frame)
        await self._hang_up()

    async def cancel(self, frame: CancelFrame) -> None:
        await super().cancel(frame)
        await self._hang_up()

    async def run_tts(self, text: str, context_id: str) -> AsyncGenerator[Frame | None, None]:
        """The audio comes by another way: see `_read`."""
        assert self._speech is not None, "the pipeline has not started"
        if not speakable(text):
            await self._keep(text, context_id)
            yield None
            return
        try:
            await self._renew(await self._speech.connect())
            turn = self._turns.get(context_id) or self._new(context_id)
            turn.texts.append(Tokens(text))
            await self._speech.say(text, preset=self._preset)
            await self.start_tts_usage_metrics(text)
        except ParleyError as error:
            yield ErrorFrame(error=str(error))
            return
        yield None

    async def flush_audio(self, context_id: str | None = None) -> None:
        """The turn is complete: its stream ends when it is said. One that had nothing to say has none, and is over."""
        if context_id is not None and context_id not in self._turns:
            await self._end(_Turn(context_id))
        elif self._speech is not None:
            await self._speech.close()

    async def on_audio_context_interrupted(self, context_id: str) -> None:
        """Everything that was said to the server is cut off."""
        await self.stop_all_metrics()
        if self._speech is not None and self._turns:
            self._forget()
            await self._speech.cancel()

    async def _update_settings(self, delta: Any) -> dict[str, Any]:
        changed: dict[str, Any] = await super()._update_settings(delta)
        if self._speech is not None and changed.keys() & {"voice", "language", "model"}:
            if self._now or self._coming:
                await self._speech.close()  # what has been said keeps its voice
            self._unclaimed = False
            await self._speech.use(**asked(self._settings))
            if self._turn_context_id in self._turns:
                self._turn_context_id = None
                self._turn_context_id = self.create_context_id()
        return changed

    def _new(self, context_id: str) -> _Turn:
        turn = self._turns[context_id] = _Turn(context_id)
        if self._unclaimed:
            self._unclaimed, self._now = False, turn
        else:
            self._coming.append(turn)
        return turn

    async def _read(self, speech: Speech) -> None:
        while True:
            try:
                async for event in speech:
                    await self._take(event)
            except Refused as refused:
                await self._end_all()
                await self.push_error(error_msg=f"Parley: {refused}")
                await asyncio.sleep(refused.retry_after or 1.0)
            except ConnectionLost as lost:
                await self._end_all()
                await self.push_error(error_msg=f"Parley: {lost}")
                await asyncio.sleep(1.0)

    async def _take(self, event: Event) -> None:
        turn = self._now
        match event:
            case Created():
                self._now = self._coming.popleft() if self._coming else None
                self._unclaimed = self._now is None
            case bytes() if turn:
                turn.playout.add(milliseconds(event, self.sample_rate) / 1000, asyncio.get_running_loop().time())
                audio = TTSAudioRawFrame(event, self.sample_rate, 1, context_id=turn.id)
                await self.append_to_audio_context(turn.id, audio)
                await self._tell(turn)
            case Words(segment=segment, words=words) if turn and segment <= len(turn.texts):
                turn.words += turn.texts[segment - 1].at(words)
            case Complete(segment=segment) if turn and segment <= len(turn.texts):
                turn.words += turn.texts[segment - 1].rest(turn.begin_s, turn.playout.made_s)
                turn.begin_s = turn.playout.made_s
                await self._tell(turn)
            case Done():
                self._unclaimed = False
                if turn:
                    turn.words += turn.texts[-1].rest(turn.begin_s, turn.playout.made_s)
                    await self._tell(turn)
                await self._end(turn)
            case Failed(message=message, fatal=fatal):
                await self.push_error(error_msg=f"Parley: {message}")
                if fatal:
                    await self._end(turn or (self._coming.popleft() if self._coming else None))
            case Lost() if self._speech is not None:
                await self._renew(await self._speech.connect())

    async def _keep(self, text: str, context_id: str) -> None:
        """For the context, `text`, to which nothing is said: with what was said before it, if anything was."""
        if turn := self._turns.get(context_id):
            turn.texts[-1].add(f" {text}")
        else:
            await self.add_word_timestamps([(text, 0.0)], context_id)

    async def _tell(self, turn: _Turn) -> None:
        """The words whose audio has come, with the times they sound."""
        words, turn.words = [(word, turn.playout.at(place)) for word, place in turn.words], []
        await self.add_word_timestamps(words, turn.id)

    async def _end(self, turn: _Turn | None) -> None:
        if turn is None:
            return
        self._turns.pop(turn.id, None)
        self._now = None if self._now is turn else self._now
        if self.audio_context_available(turn.id):
            await self.append_to_audio_context(turn.id, TTSStoppedFrame(context_id=turn.id))
            await self.remove_audio_context(turn.id)

    async def _renew(self, connection: int) -> None:
        """What was said on a connection before this one is over; a turn that has begun on it is not."""
        if connection == self._connection:
            return
        self._connection, speaking = connection, bool(self._turns)
        await self._end_all()
        if speaking:
            await self.push_error(error_msg="Parley: the connection was lost while it spoke")

    async def _end_all(self) -> None:
        turns = list(self._turns.values())
        self._forget()
        for turn in turns:
            await self._end(turn)

    def _forget(self) -> None:
        self._coming.clear()
        self._turns.clear()
        self._now, self._unclaimed = None, False

    async def _hang_up(self) -> None:
        if self._reading is not None:
            await self.cancel_task(self._reading)
            self._reading = None
        if self._speech is not None:
            await self._speech.__aexit__()
            self._speech = None
