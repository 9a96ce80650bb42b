"""Requests read within limits, and errors as JSON with the status that fits."""

import json
import re
import secrets
from typing import Any

from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse

from server.errors import (
    ConfigError,
    EngineBusy,
    EngineUnavailable,
    LimitError,
    ParleyError,
    ProtocolError,
    UpstreamError,
)

LARGEST = 1024 * 1024  # bytes of a body
_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


async def read_json(request: Request) -> Any:
    """The body. Raises `ProtocolError`, `LimitError`."""
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > LARGEST:
            raise LimitError(f"the request is larger than {LARGEST} bytes", code="too_big")
    try:
        found = json.loads(body)
        json.dumps(found, ensure_ascii=False).encode()
        return found
    except UnicodeEncodeError:  # of which no engine and no other server could make anything
        raise ProtocolError("the request holds half a character (a surrogate without its other half)") from None
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"the request is no JSON: {error}") from None


def request_id(request: HTTPConnection) -> str:
    """The client's own, where it has a fit one; else a new one."""
    given = request.headers.get("x-request-id", "")
    return given if _ID.fullmatch(given) else secrets.token_hex(6)


def status(error: ParleyError) -> int:
    match error:
        case UpstreamError():
            return error.status
        case ProtocolError() | ConfigError():
            return 400
        case LimitError(code="too_big"):
            return 413
        case LimitError(code="unauthorized"):
            return 401
        case LimitError(code="forbidden_origin"):
            return 403
        case LimitError(code="not_found"):
            return 404
        case LimitError(code="method_not_allowed"):
            return 405
        case EngineBusy():
            return 429
        case LimitError() | EngineUnavailable():
            return 503
        case _:
            return 500


def full(streams: int) -> LimitError:
    """There are as many streams as may be."""
    return LimitError(f"{streams} streams are under way (tiers.streams)", code="engine_busy", close=1013, retry_after=2)


def refusal(error: ParleyError, tier: str, id: str) -> JSONResponse:
    """`error` for who asked."""
    told = {"error": str(error), "message": str(error), "code": error.code, "tier": tier, "requestId": id}
    headers = {"X-Request-Id": id, "Cache-Control": "no-store"}
    if retry := error.retry_after:
        headers["Retry-After"] = str(max(1, round(retry)))
    return JSONResponse(told, status(error), headers)
