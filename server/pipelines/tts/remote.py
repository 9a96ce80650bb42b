"""A voice that is made elsewhere: a back end speaks, its tokens (or its PCM) travel, and are decoded here to 48 kHz.

The back end is another Parley (`/api/tts/synthesize`), a plain newline-delimited stream, or an endpoint of RunPod's.
With `format = "linacodec_tokens"` the settings name a codec, with `encoder = false` where it only has to decode.
"""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any, Literal

import httpx

from server.errors import CodecError, ConfigError, TTSError, UpstreamError
from server.pipelines.codec._tokens import RATE
from server.pipelines.engines import Codec, Count, Speech, Voice
from server.pipelines.tiers.clients import client
from server.pipelines.tiers.relay import Relay, Wanted
from server.pipelines.tiers.services import Service, TierRules
from server.pipelines.tiers.voices import sent

NAME = "remote"


def create(
    url: str,
    key: str = "",
    kind: Literal["parley", "ndjson", "runpod"] = "parley",
    format: Literal["linacodec_tokens", "pcm_16"] = "linacodec_tokens",
    remote_engine: str = "",
    voice: str = "default",
    streams: Count = 8,
    chunk_timeout_s: float = 5,
    first_timeout_s: float | None = None,
    total_timeout_s: float = 30,
    poll_s: float = 0.1,
) -> "Remote":
    """`url` and `key` of the back end; `remote_engine` which of its engines (empty: its default); `voice` for
    characters that name none; `streams` how many utterances it makes at once; the limits of waiting in seconds."""
    service = Service(
        kind=kind,
        url=url,
        key=key,
        format=format,
        engine=remote_engine,
        chunk_timeout_s=chunk_timeout_s,
        first_timeout_s=first_timeout_s,
        total_timeout_s=total_timeout_s,
        poll_s=poll_s,
    )
    return Remote(service, voice, streams)


class Remote:
    """A `TTS`. `codec` is set by who opens the engines, before `start`."""

    rate = RATE

    def __init__(self, service: Service, voice: str, streams: int) -> None:
        self.streams = streams
        self.codec: Codec | None = None
        self._service, self._voice = service, voice
        self._http: httpx.AsyncClient | None = None

    async def start(self) -> None:
        """Raises `ConfigError` where tokens would come and nothing is there to decode them."""
        if self._service.format == "linacodec_tokens" and self.codec is None:
            raise ConfigError(
                'engine "remote" receives tokens: set [codec] engine = "linacodec" (encoder = false is enough), '
                'or format = "pcm_16"'
            )
        self._http = client()

    async def stop(self) -> None:
        if http := self._http:
            self._http = None
            await http.aclose()

    def open(self, voice: Voice) -> "RemoteSpeaker":
        if self._http is None:
            raise TTSError("engine 'remote' is not started")
        options: dict[str, Any] = sent(voice) if self._service.kind == "parley" else {}
        relay = Relay(TierRules(services={NAME: self._service}), self._http, self.codec)
        return RemoteSpeaker(relay, voice.name or self._voice, options)

    def voices(self) -> Sequence[str]:
        """Only the back end knows."""
        return ()


class RemoteSpeaker:
    """One voice. The back end holds no context between utterances."""

    def __init__(self, relay: Relay, voice: str, options: dict[str, Any]) -> None:
        self._relay, self._voice, self._options = relay, voice, options

    async def speak(self, text: str) -> AsyncGenerator[Speech, None]:
        """Closing it closes the connection, and so stops the back end."""
        wanted = Wanted(text, self._voice, NAME, voice_options=self._options)
        try:
            async with aclosing(self._relay.pcm(wanted)) as pieces:
                async for pcm in pieces:
                    yield Speech(pcm)
        except (UpstreamError, CodecError) as error:
            raise TTSError(str(error), code=error.code) from error

    async def close(self) -> None:
        return None
