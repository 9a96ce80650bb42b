"""What a client asks for over HTTP, checked: its body, and whether it may ask at all."""

import json
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, Response

from server.errors import LimitError, ParleyError, ProtocolError
from server.http.streams import problem

BODY = 1_048_576  # bytes of one request
B = TypeVar("B", bound=BaseModel)
Allowed = Callable[[HTTPConnection], bool]
Endpoint = Callable[[Request], Awaitable[Response]]


async def body(request: Request, model: type[B]) -> B:
    """The request's JSON as `model`. Raises `ProtocolError`, `LimitError`, pydantic's `ValidationError`."""
    raw = bytearray()
    async for chunk in request.stream():
        raw += chunk
        if len(raw) > BODY:
            raise LimitError(f"the request is larger than {BODY} bytes", code="too_long")
    try:
        return model.model_validate(json.loads(raw or b"{}"))
    except ValidationError:
        raise
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"not JSON: {error}") from None


def guarded(allowed: Allowed) -> Callable[[Endpoint], Endpoint]:
    """Endpoints that only an allowed client reaches, and whose errors are answered."""

    def guard(endpoint: Endpoint) -> Endpoint:
        async def answer(request: Request) -> Response:
            try:
                if not allowed(request):
                    raise LimitError("a token is needed: Authorization: Bearer ...", code="unauthorized")
                return await endpoint(request)
            except ParleyError as error:
                return problem(error)
            except ValidationError as error:
                return JSONResponse({"detail": _invalid(error)}, 422)

        return answer

    return guard


def _invalid(error: ValidationError) -> list[dict[str, Any]]:
    return [{"loc": ["body", *e["loc"]], "msg": e["msg"], "type": e["type"]} for e in error.errors(include_url=False)]
