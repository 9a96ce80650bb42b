"""Speech recognition over HTTP: `POST /audio/transcriptions` of OpenAI, vLLM, Speaches, LocalAI and others.

Source: the `openai` package."""

import asyncio
from typing import Annotated
from urllib.parse import urlsplit

import openai
from pydantic import Field

from server.audio import wav
from server.errors import STTError
from server.pipelines.engines import HEARING_RATE, Seconds, Transcript
from server.pipelines.stt._buffered import BufferedRecogniser

OPENAI = "https://api.openai.com/v1"


def create(
    base_url: str = "",
    api_key: str = "",
    model: str = "gpt-4o-mini-transcribe",
    language: str = "",
    prompt: str = "",
    timeout_s: Seconds = 20.0,
    retries: Annotated[int, Field(ge=0)] = 1,
) -> "OpenAITranscription":
    """`base_url`: empty is OpenAI's own. `language`: instead of the session's; "auto" lets the server find out.
    `prompt`: names and words that are likely to come up. `timeout_s`: for a text, tries included."""
    return OpenAITranscription(base_url, api_key, model, language, prompt, timeout_s, retries)


class OpenAITranscription:
    """The engine: one HTTP client for all sessions. A turn is one upload; it begins in the first silence."""

    def __init__(
        self, base_url: str, api_key: str, model: str, language: str, prompt: str, timeout_s: float, retries: int
    ) -> None:
        self._url = base_url.rstrip("/") or OPENAI
        self._key = api_key
        self._model, self._language, self._prompt = model, language, prompt
        self._timeout_s, self._retries = timeout_s, retries
        self._client: openai.AsyncOpenAI | None = None

    async def start(self) -> None:
        """Asks nothing of the network."""
        self._client = await asyncio.to_thread(self._connect)  # reading the certificates takes its time

    def _connect(self) -> openai.AsyncOpenAI:
        near = urlsplit(self._url).hostname in ("localhost", "127.0.0.1", "::1")  # no proxy leads there
        return openai.AsyncOpenAI(
            base_url=self._url,
            api_key=self._key or "none",  # a local server wants none, the client does
            timeout=self._timeout_s,
            max_retries=self._retries,
            http_client=openai.DefaultAsyncHttpxClient(trust_env=not near),
        )

    async def stop(self) -> None:
        client, self._client = self._client, None
        if client:
            await client.close()

    def open(self, language: str) -> BufferedRecogniser:
        """`language` as en or en-US; empty or auto: the server finds out."""
        code = (self._language or language).lower().split("-")[0]

        async def transcribe(pcm: bytes) -> Transcript:
            return await self._transcribe(pcm, "" if code == "auto" else code)

        return BufferedRecogniser(transcribe)

    async def _transcribe(self, pcm: bytes, language: str) -> Transcript:
        if self._client is None:
            raise STTError("the recogniser is not started")
        try:
            async with asyncio.timeout(self._timeout_s):  # all tries and the waiting between them
                answer = await self._client.audio.transcriptions.create(
                    file=("speech.wav", wav(pcm, HEARING_RATE), "audio/wav"),
                    model=self._model,
                    language=language or openai.omit,
                    prompt=self._prompt or openai.omit,
                    response_format="json",
                )
        except Exception as error:
            raise translated(error, self._url) from error
        text = getattr(answer, "text", None)
        if not isinstance(text, str):
            raise STTError(f"what {self._url} answers is no transcription; check [stt] base_url")
        return Transcript(" ".join(text.split()))


def translated(error: Exception, where: str) -> STTError:
    """`error` of the `openai` client that speaks to `where`, in words that name what mends it."""
    match error:
        case openai.AuthenticationError() | openai.PermissionDeniedError():
            said = "refuses the key: set [stt] api_key (or OPENAI_API_KEY) to one it takes"
            return STTError(f"{where} {said}. It says: {_said(error)}", code="stt_auth")
        case openai.RateLimitError():
            said = "has had enough requests: wait, or check the quota behind [stt] api_key"
            return STTError(f"{where} {said}. It says: {_said(error)}", code="stt_rate_limit")
        case openai.NotFoundError() | openai.BadRequestError() | openai.UnprocessableEntityError():
            said = "does not take the request: check [stt] model, language and base_url, which most often ends in /v1"
            return STTError(f"{where} {said}. It says: {_said(error)}", code="stt_bad_request")
        case openai.APITimeoutError() | TimeoutError():
            said = "does not answer in time: check the server, or raise [stt] timeout_s"
            return STTError(f"{where} {said}", code="stt_timeout")
        case openai.APIConnectionError():
            said = "start it, or set [stt] base_url to where speech is recognised"
            return STTError(f"no answer comes from {where}: {said}", code="stt_unreachable")
        case openai.APIStatusError():
            return STTError(f"the speech server at {where} failed ({error.status_code}): {_said(error)}")
        case _:
            return STTError(f"what {where} answers cannot be understood; check [stt] base_url: {error!r}"[:300])


def _said(error: openai.APIError) -> str:
    """The server's own words, in one short line."""
    told = error.body.get("message") if isinstance(error.body, dict) else None
    return " ".join(str(told or error.message).split())[:200]
