"""The exception tree: everything Parley raises on purpose, each with a code the client is told."""

import math
from collections.abc import Iterator


class ParleyError(Exception):
    """Anything that goes wrong in a way Parley foresaw. `code` is the machine-readable half of the message;
    `retry_after` how many seconds later it may go better, where that is known."""

    code = "error"
    retry_after: float | None = None


class ConfigError(ParleyError):
    """A setting is missing or wrong. The message names the setting, the file, or the command that mends it."""

    code = "bad_config"


class ProtocolError(ParleyError):
    """The client sent something that cannot be understood. Earns an `error` event; nothing else changes."""

    code = "bad_message"


class LimitError(ParleyError):
    """A limit was passed: rate, size, sessions. `close` is the WebSocket close code where it is fatal."""

    code = "limit"

    def __init__(
        self, message: str, *, code: str = "limit", close: int = 1008, retry_after: float | None = None
    ) -> None:
        super().__init__(message)
        self.code = code
        self.close = close
        self.retry_after = retry_after


class EngineError(ParleyError):
    """An engine failed. The reply or the turn at hand is lost, the conversation goes on."""

    code = "engine_failed"

    def __init__(self, message: str, *, code: str | None = None) -> None:
        super().__init__(message)
        if code is not None:
            self.code = code


class EngineUnavailable(EngineError):
    """An engine cannot be opened here: a package, file or server is missing. The message says how to get it."""

    code = "engine_unavailable"


class EngineBusy(EngineError):
    """An engine carries as many streams as it can in real time. Try again in `retry_after` seconds."""

    code = "engine_busy"

    def __init__(self, message: str, *, retry_after: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class LLMError(EngineError):
    """The language model failed. `code` tells how: llm_auth, llm_rate_limit, llm_timeout, llm_unreachable, ..."""

    code = "llm_failed"


class STTError(EngineError):
    """The recogniser failed; what was said in this turn could not be transcribed."""

    code = "stt_failed"


class TTSError(EngineError):
    """The synthesiser failed; the rest of this reply cannot be spoken."""

    code = "tts_failed"


class CodecError(EngineError):
    """Speech could not be encoded, or tokens could not be decoded: they are no tokens of this codec, or it failed."""

    code = "codec_failed"


class UpstreamError(EngineError):
    """A server that speech is asked of did not deliver it. `status` is what to answer where nothing was sent yet.

    `code` tells how: upstream_unreachable, upstream_auth, upstream_busy, upstream_timeout, upstream_died,
    upstream_garbled, upstream_failed."""

    code = "upstream_failed"

    def __init__(
        self, message: str, *, code: str | None = None, status: int = 502, retry_after: float | None = None
    ) -> None:
        super().__init__(message, code=code)
        self.status, self.retry_after = status, retry_after


def later(header: str | None) -> float | None:
    """The seconds that a `Retry-After` says; None where it is a date, or nothing that makes sense."""
    try:
        wait = float(header or 0)
    except ValueError:
        return None
    return wait if 0 < wait < math.inf else None


def leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    """The exceptions of `group`, however deep they lie."""
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from leaves(error)
        else:
            yield error
