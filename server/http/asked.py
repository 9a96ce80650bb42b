"""What a client asks for over HTTP, checked: its body, and whether it may ask at all."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect, HTTPConnection, Request
from starlette.responses import JSONResponse, Response

from server.errors import LimitError, ParleyError
from server.http.streams import problem, unforeseen
from server.incoming import decoded, first, place, said, without_null
from server.telemetry import ERRORS

BODY = 1_048_576  # bytes of one request
B = TypeVar("B", bound=BaseModel)
Allowed = Callable[[HTTPConnection], bool]
Endpoint = Callable[[Request], Awaitable[Response]]


async def body(request: Request, model: type[B]) -> B:
    """The request's JSON as `model`, null being the same as nothing.

    Raises `ProtocolError`, `LimitError`, pydantic's `ValidationError`."""
    raw = bytearray()
    async for chunk in request.stream():
        raw += chunk
        if len(raw) > BODY:
            raise LimitError(f"the request is larger than {BODY} bytes", code="too_long")
    return model.model_validate(without_null(decoded(raw or b"{}")))


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
                return _invalid(error)
            except ClientDisconnect:  # in the middle of its request
                return Response(status_code=499)
            except Exception as error:  # else a page would not even be let to read that something failed
                return problem(unforeseen(error))

        return answer

    return guard


def _invalid(error: ValidationError) -> JSONResponse:
    """In FastAPI's words and in OpenAI's."""
    ERRORS.labels("bad_message").inc()
    found = [{"loc": ["body", *place(e)], "msg": said(e), "type": e["type"]} for e in error.errors(include_url=False)]
    told = {"message": first(error), "type": "invalid_request_error", "code": "bad_message"}
    return JSONResponse({"detail": found, "error": told}, 422)
