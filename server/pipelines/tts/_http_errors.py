"""What went wrong with a speech server, in the terms of what can be done about it."""

import httpx

from server.errors import TTSError
from server.pipelines.tts._pcm_stream import Unplayable

_MENDS = {
    401: ("tts_auth", "check [tts] api_key (or OPENAI_API_KEY)"),
    403: ("tts_auth", "check [tts] api_key (or OPENAI_API_KEY) and what it may use"),
    404: ("tts_failed", "check [tts] base_url and model"),
    429: ("tts_rate_limit", "wait, or check the quota behind [tts] api_key"),
}


async def refusal(response: httpx.Response) -> TTSError:
    """A status that is no success."""
    status, message = response.status_code, await _message(response)
    if response.has_redirect_location and response.next_request:
        there = str(response.next_request.url).removesuffix("/audio/speech")
        return TTSError(f"the speech server leads on to {there}: set that as [tts] base_url")
    other = "the server behind [tts] base_url failed" if status >= 500 else "check [tts] model, voice and extra"
    code, mend = _MENDS.get(status, ("tts_failed", other))
    return TTSError(f"the speech server answered {status}: {mend}" + (f" ({message})" if message else ""), code=code)


async def _message(response: httpx.Response) -> str:
    """What the server says about it, in brief."""
    body = await response.aread()
    try:
        told = response.json()
        told = told.get("error", told.get("detail", told.get("message", told)))
        return str(told.get("message", told) if isinstance(told, dict) else told)[:200]
    except (ValueError, AttributeError):
        return body.decode(errors="replace").strip()[:200]


def failure(error: Exception, url: str, begun: bool) -> TTSError:
    """A connection that failed, or a body that is none; `begun`: after some of the speech had come."""
    match error:
        case Unplayable():
            return TTSError(f"{url} sent {error}; check [tts] response_format and stream_format")
        case httpx.ConnectError() | httpx.ConnectTimeout():
            return TTSError(f"nothing answers at {url}; check [tts] base_url", code="tts_unreachable")
        case httpx.TimeoutException():
            return TTSError(f"{url} sent nothing in time; check the server, or raise [tts] timeout", code="tts_timeout")
        case _:
            where = "in the middle of the speech" if begun else "before any speech"
            return TTSError(f"the connection to {url} broke {where}; check the server behind [tts] base_url")
