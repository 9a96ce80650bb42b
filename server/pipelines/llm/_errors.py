"""What can go wrong with an OpenAI-compatible endpoint, in the words of `LLMError`."""

import httpx
import openai

from server.errors import LLMError


def translated(error: Exception, where: str, *, begun: bool = False) -> LLMError:
    """`error`, raised by the `openai` client that speaks to `where`, as an `LLMError` that says what mends it.

    `begun`: part of the answer was already there."""
    match error:
        case LLMError():
            return error
        case openai.AuthenticationError() | openai.PermissionDeniedError():
            mend = "set PARLEY_LLM_API_KEY (or OPENAI_API_KEY) to a key it takes"
            return LLMError(f"{where} refuses the key: {mend}. It says: {_said(error)}", code="llm_auth")
        case openai.RateLimitError():
            return LLMError(
                f"{where} has had enough requests{_when(error)}. It says: {_said(error)}", code="llm_rate_limit"
            )
        case openai.NotFoundError():
            mend = (
                "check PARLEY_LLM_MODEL, and that PARLEY_LLM_BASE_URL ends as that server wants it, most often in /v1"
            )
            return LLMError(
                f"{where} has no such model or address: {mend}. It says: {_said(error)}", code="llm_bad_request"
            )
        case openai.BadRequestError() | openai.UnprocessableEntityError():
            mend = "check PARLEY_LLM_MODEL and the other settings of [llm]"
            return LLMError(
                f"{where} does not take the request: {mend}. It says: {_said(error)}", code="llm_bad_request"
            )
        case openai.APITimeoutError() | TimeoutError() | httpx.TimeoutException():
            return LLMError(f"{where} does not answer in time: {_mend_timeout(begun)}", code="llm_timeout")
        case openai.APIConnectionError() | httpx.TransportError() | OSError():
            if begun:
                return LLMError(f"the connection to {where} broke in the middle of the answer", code="llm_unreachable")
            mend = "start it, or set PARLEY_LLM_BASE_URL to where a language model is served"
            return LLMError(f"nothing answers at {where}: {mend}", code="llm_unreachable")
        case openai.APIError():
            return LLMError(f"the language model at {where} failed: {_said(error)}")
        case _:
            return LLMError(f"what {where} sends cannot be understood (is PARLEY_LLM_BASE_URL right?): {error!r}")


def retry_after(error: openai.APIStatusError) -> float | None:
    """How many seconds the server wants to be left alone, where it says."""
    for header, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            return float(error.response.headers[header]) * unit
        except (KeyError, ValueError):
            continue
    return None


def _when(error: openai.APIStatusError) -> str:
    seconds = retry_after(error)
    return "" if seconds is None else f"; try again in {seconds:g} s"


def _mend_timeout(begun: bool) -> str:
    if begun:
        return "it stopped in the middle of an answer (PARLEY_LLM_STALL_S is how long it may)"
    return "is it still loading? PARLEY_LLM_TIMEOUT_S is how long it may take to begin"


def _said(error: openai.APIError) -> str:
    """The server's own words, in one short line."""
    body = error.body
    told = body.get("message") if isinstance(body, dict) else None
    return " ".join(str(told or error.message).split())[:200]
