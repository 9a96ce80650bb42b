"""Any server that speaks OpenAI's `POST /v1/audio/speech`: OpenAI, vLLM-Omni, Boson's Higgs, Kokoro-FastAPI and kin.

PCM is passed on as it arrives, raw or in events, whatever its rate. Such servers tell no word timings.
"""

import base64
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Annotated, Any

import httpx
from pydantic import Field

from server.audio import size
from server.errors import ConfigError, TTSError
from server.pipelines.engines import Count, Seconds, Speech, Voice
from server.pipelines.quoting import quoted
from server.pipelines.tts._ahead import ahead
from server.pipelines.tts._http_errors import failure, refusal
from server.pipelines.tts._options import number
from server.pipelines.tts._pcm_stream import ASSUMED, Decoder, Unplayable, announced, sound_in
from server.pipelines.tts._pieces import speakable

OPENAI = "https://api.openai.com/v1"
_NAMES = "alloy ash ballad cedar coral echo fable marin nova onyx sage shimmer verse"
VOICES = tuple(_NAMES.split())
PIECE_MS = 100  # of audio in one `Speech`, at most
AHEAD = 600  # of them read ahead, a minute (2.9 MB); then the server waits
CONNECT_S = 5.0


def create(
    base_url: str = OPENAI,
    api_key: str = "",
    model: str = "gpt-4o-mini-tts",
    voice: str = "alloy",
    instructions: str = "",
    speed: Annotated[float, Field(ge=0.25, le=4)] = 1.0,
    rate: Annotated[int, Field(ge=8_000, le=192_000)] = ASSUMED,
    response_format: str = "pcm",
    stream_format: str = "",
    extra: Mapping[str, Any] = {},
    timeout: Seconds = 30.0,
    streams: Count = 16,
) -> "OpenAISpeech":
    """`base_url`: with its `/v1` or without; `model`, `voice`, `instructions`, `speed`: where a character names none;
    `rate`: the Hz that come out, whatever the server sends; `response_format`: pcm or wav; `stream_format`: sse, audio,
    or empty for the server's own; `extra`: further fields of the request; `timeout`: seconds without a byte."""
    fields = {"model": model, "response_format": response_format, "stream_format": stream_format}
    return OpenAISpeech(
        url=_endpoint(base_url),
        api_key=api_key,
        fields={k: v for k, v in fields.items() if v} | dict(extra),
        voice=Voice(name=voice, instructions=instructions, speed=speed),
        rate=rate,
        timeout=timeout,
        streams=streams,
    )


class OpenAISpeech:
    def __init__(
        self, *, url: str, api_key: str, fields: dict[str, Any], voice: Voice, rate: int, timeout: float, streams: int
    ) -> None:
        self.url = url
        self.rate = rate
        self.streams = streams
        self._headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._fields = fields
        self._voice = voice
        self._timeout = httpx.Timeout(timeout, connect=CONNECT_S)
        self.client: httpx.AsyncClient | None = None

    async def start(self) -> None:
        unlimited = httpx.Limits(max_connections=None, max_keepalive_connections=self.streams)
        self.client = httpx.AsyncClient(headers=self._headers, timeout=self._timeout, limits=unlimited)

    async def stop(self) -> None:
        if self.client:
            await self.client.aclose()
            self.client = None

    def voices(self) -> Sequence[str]:
        """OpenAI's own, or the configured one: other servers do not say."""
        return VOICES if self.url.startswith(OPENAI) else (self._voice.name,)

    def open(self, voice: Voice) -> "OpenAISpeaker":
        """`extra` in `voice.options` is a table of further fields of the request. A recording to clone goes along as
        `ref_audio` and `ref_text`, as vLLM-Omni takes them. Raises `ConfigError`."""
        speed = number("openai", {"speed": self._voice.speed * voice.speed}, "speed", 1.0, 0.25, 4.0)
        fields = {"voice": voice.name or self._voice.name, "instructions": _manner(voice) or self._voice.instructions}
        said = {k: v for k, v in fields.items() if v} | ({"speed": speed} if speed != 1.0 else {})
        return OpenAISpeaker(self, self._fields | said | _reference(voice) | _extra(voice))


class OpenAISpeaker:
    def __init__(self, engine: OpenAISpeech, fields: dict[str, Any]) -> None:
        self._engine = engine
        self._fields = fields

    async def speak(self, text: str) -> AsyncGenerator[Speech, None]:
        """A minute is read ahead of the listener, so that one who pauses does not keep the server waiting."""
        if not speakable(text):
            return
        async with aclosing(ahead(self._request(text), AHEAD)) as made:
            async for pcm in made:
                yield Speech(pcm)

    async def close(self) -> None:
        return None

    async def _request(self, text: str) -> AsyncGenerator[bytes, None]:
        if not self._engine.client:
            raise TTSError("engine 'openai' is not started")
        silent = True
        try:
            body = {**self._fields, "input": text.encode("utf-8", "ignore").decode()}  # no half of a character
            async with self._engine.client.stream("POST", self._engine.url, json=body) as response:
                if not response.is_success:
                    raise await refusal(response)
                async with aclosing(_sound(response, self._engine.rate)) as pieces:
                    async for pcm in pieces:
                        silent = False
                        yield pcm
        except (httpx.HTTPError, Unplayable) as error:
            raise failure(error, self._engine.url, begun=not silent) from error
        if silent:
            raise TTSError(f"{self._engine.url} sent no sound; check [tts] model and voice")


async def _sound(response: httpx.Response, rate: int) -> AsyncGenerator[bytes, None]:
    """The body as PCM at `rate`, in pieces of at most `PIECE_MS`."""
    format, events = announced(response.headers)
    decoder = Decoder(format, rate)
    most = size(PIECE_MS, rate)
    async with aclosing(_events(response, decoder) if events else _raw(response)) as data:
        async for some in data:
            pcm = decoder.push(some)
            for start in range(0, len(pcm), most):
                yield pcm[start : start + most]
    if rest := decoder.finish():
        yield rest


async def _raw(response: httpx.Response) -> AsyncGenerator[bytes, None]:
    async for data in response.aiter_bytes():
        yield data


async def _events(response: httpx.Response, decoder: Decoder) -> AsyncGenerator[bytes, None]:
    async for line in response.aiter_lines():
        for sound in sound_in(line):
            decoder.begin()
            yield sound


def _endpoint(base_url: str) -> str:
    try:
        url = httpx.URL(base_url)
    except (httpx.InvalidURL, TypeError):
        url = httpx.URL("")
    if url.scheme not in ("http", "https") or not url.host:
        raise ConfigError(f"[tts] base_url = {base_url!r} is no address such as http://localhost:8000/v1")
    path = url.path.rstrip("/") or "/v1"
    return str(url.copy_with(path=f"{path}/audio/speech"))


def _manner(voice: Voice) -> str:
    """How to speak, in words: the instructions, else the description of the speaker and the scene."""
    return voice.instructions or ". ".join(part for part in (voice.speaker, voice.scene) if part)


def _extra(voice: Voice) -> dict[str, Any]:
    extra = voice.options.get("extra", {})
    if not isinstance(extra, Mapping):
        raise ConfigError(f"voice.options.extra = {quoted(extra)} is no table of fields")
    return dict(extra)


def _reference(voice: Voice) -> dict[str, str]:
    if voice.method != "clone" or not voice.reference:
        return {}
    try:
        recording = base64.b64encode(voice.reference.read_bytes()).decode()
    except OSError as error:
        raise ConfigError(f"voice {voice.name!r}: reference {voice.reference} cannot be read: {error}") from None
    return {"ref_audio": f"data:audio/wav;base64,{recording}", "ref_text": voice.transcript}
