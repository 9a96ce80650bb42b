"""Parley's voices over HTTP, for pipecat: a request for each sentence, or one adaptive stream for each turn."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass, field
from typing import Any

from pipecat.frames.frames import CancelFrame, EndFrame, ErrorFrame, Frame, TTSAudioRawFrame, TTSStoppedFrame
from pipecat.services.settings import TTSSettings
from pipecat.services.tts_service import TextAggregationMode, TTSService

from server.audio import milliseconds
from server.clients.http_speech import AdaptiveStream, HTTPSpeech
from server.clients.pipecat.tts import asked
from server.clients.pipecat.words import Playout, Times, Tokens
from server.errors import ParleyError


class _OverHTTP(TTSService):
    Settings = TTSSettings

    def __init__(self, *, url: str, token: str, settings: TTSSettings | None, **options: Any) -> None:
        chosen = TTSSettings(model=None, voice=None, language=None)
        if settings is not None:
            chosen.apply_update(settings)
        super().__init__(push_text_frames=False, push_start_frame=True, settings=chosen, **options)
        self._http = HTTPSpeech(url, token=token)

    def can_generate_metrics(self) -> bool:
        return True

    def language_to_service_language(self, language: Any) -> str | None:
        return str(language)

    async def stop(self, frame: EndFrame) -> None:
        await super().stop(frame)
        await self._hang_up()

    async def cancel(self, frame: CancelFrame) -> None:
        await super().cancel(frame)
        await self._hang_up()

    async def _hang_up(self) -> None:
        await self._http.__aexit__()

    async def _tell(self, words: Times, playout: Playout, context_id: str) -> Times:
        """Pass on the words whose audio has come, with the times they sound. None are left."""
        await self.add_word_timestamps([(word, playout.at(place)) for word, place in words], context_id)
        return []

    def _asked(self) -> dict[str, Any]:
        return {"sample_rate": self.sample_rate} | asked(self._settings)


class ParleyHTTPTTSService(_OverHTTP):
    """A streamed request for each sentence. `url` is like `http://localhost:8000`."""

    def __init__(
        self,
        *,
        url: str = "http://localhost:8000",
        token: str = "",
        settings: TTSSettings | None = None,
        **options: Any,
    ) -> None:
        super().__init__(url=url, token=token, settings=settings, push_stop_frames=True, **options)
        self._playouts: dict[str, Playout] = {}  # of each context

    async def run_tts(self, text: str, context_id: str) -> AsyncGenerator[Frame | None, None]:
        playout = self._playouts.setdefault(context_id, Playout())
        begin_s, tokens, words = playout.made_s, Tokens(text), Times()
        try:
            async with aclosing(self._http.events(text, **self._asked())) as events:
                await self.start_tts_usage_metrics(text)
                async for event in events:
                    if isinstance(event, bytes):
                        playout.add(milliseconds(event, self.sample_rate) / 1000, asyncio.get_running_loop().time())
                        yield TTSAudioRawFrame(event, self.sample_rate, 1, context_id=context_id)
                        words = await self._tell(words, playout, context_id)
                    else:
                        words += tokens.at(event.words, begin_s)
        except ParleyError as error:
            yield ErrorFrame(error=f"Parley: {error}")
        await self._tell(words + tokens.rest(begin_s, playout.made_s), playout, context_id)

    async def on_audio_context_completed(self, context_id: str) -> None:
        self._playouts.pop(context_id, None)

    async def on_audio_context_interrupted(self, context_id: str) -> None:
        self._playouts.pop(context_id, None)


@dataclass
class _Open:
    """One turn's stream, and the task that reads it."""

    stream: AdaptiveStream
    resources: AsyncExitStack
    tokens: Tokens = field(default_factory=Tokens)
    reading: asyncio.Task[None] | None = None


class ParleyAdaptiveTTSService(_OverHTTP):
    """One adaptive stream for each turn: tokens go in as the model makes them, and the server chooses what to say when.
    `url` is like `http://localhost:8000`."""

    def __init__(
        self,
        *,
        url: str = "http://localhost:8000",
        token: str = "",
        settings: TTSSettings | None = None,
        text_aggregation_mode: TextAggregationMode = TextAggregationMode.TOKEN,
        **options: Any,
    ) -> None:
        super().__init__(
            url=url, token=token, settings=settings, text_aggregation_mode=text_aggregation_mode, **options
        )
        self._open: dict[str, _Open] = {}

    async def run_tts(self, text: str, context_id: str) -> AsyncGenerator[Frame | None, None]:
        try:
            turn = self._open.get(context_id) or await self._begin(context_id)
            # Whole sentences come without the space between them.
            text = text if self._text_aggregation_mode == TextAggregationMode.TOKEN else text.strip() + " "
            turn.tokens.add(text)
            await turn.stream.append(text)
            await self.start_tts_usage_metrics(text)
        except ParleyError as error:
            yield ErrorFrame(error=f"Parley: {error}")
            return
        yield None

    async def flush_audio(self, context_id: str | None = None) -> None:
        if turn := self._open.get(context_id or self.get_active_audio_context_id() or ""):
            try:
                await turn.stream.close()
            except ParleyError as error:
                await self.push_error(error_msg=f"Parley: {error}")

    async def on_audio_context_interrupted(self, context_id: str) -> None:
        await self.stop_all_metrics()
        await self._leave(context_id)

    async def _hang_up(self) -> None:
        for context_id in list(self._open):
            await self._leave(context_id)
        await super()._hang_up()

    async def _begin(self, context_id: str) -> _Open:
        async with AsyncExitStack() as resources:
            stream = await resources.enter_async_context(self._http.adaptive(**self._asked()))
            turn = self._open[context_id] = _Open(stream, resources.pop_all())
        turn.reading = self.create_task(self._read(turn, context_id))
        return turn

    async def _leave(self, context_id: str) -> None:
        """Stop reading; a stream that is not over is cancelled on the server."""
        if turn := self._open.pop(context_id, None):
            if turn.reading is not None:
                await self.cancel_task(turn.reading)
            await turn.resources.aclose()

    async def _read(self, turn: _Open, context_id: str) -> None:
        playout, words = Playout(), Times()
        try:
            async with aclosing(turn.stream.events()) as events:
                async for event in events:
                    if isinstance(event, bytes):
                        playout.add(milliseconds(event, self.sample_rate) / 1000, asyncio.get_running_loop().time())
                        audio = TTSAudioRawFrame(event, self.sample_rate, 1, context_id=context_id)
                        await self.append_to_audio_context(context_id, audio)
                        words = await self._tell(words, playout, context_id)
                    else:
                        words += turn.tokens.at(event.words)
        except ParleyError as error:
            await self.push_error(error_msg=f"Parley: {error}")
        await self._tell(words + turn.tokens.rest(0, playout.made_s), playout, context_id)
        self._open.pop(context_id, None)
        if self.audio_context_available(context_id):
            await self.append_to_audio_context(context_id, TTSStoppedFrame(context_id=context_id))
            await self.remove_audio_context(context_id)
