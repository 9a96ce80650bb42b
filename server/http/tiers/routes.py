"""The tiers' routes, under `/api/tts`, with what guards them: origins, the token, CORS."""

from collections.abc import Callable

from starlette.middleware import Middleware as Layer
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.routing import Mount, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from server.errors import LimitError
from server.http.tiers.backend import Synthesize
from server.http.tiers.bodies import refusal, request_id
from server.http.tiers.middleware import Middleware
from server.http.v1 import METHODS, methods_at
from server.pipelines.quoting import brief
from server.pipelines.tiers.backend import Backend
from server.pipelines.tiers.relay import Relay
from server.pipelines.tiers.services import TierRules

Fits = Callable[[HTTPConnection], bool]
HEADERS = ("Content-Type", "Authorization", "X-Request-Id")


def routes(rules: TierRules, relay: Relay, backend: Backend | None, origin_fits: Fits, token_fits: Fits) -> list[Mount]:
    """`backend` None: nobody else may ask this server for speech."""
    middleware = Middleware(relay, rules)
    endpoints = [
        Route("/stream", middleware.stream, methods=["POST"]),
        Route("/batch", middleware.batch, methods=["POST"]),
        Route("/services", middleware.services),
        Route("/streams/{id}", middleware.progress),
    ]
    if backend and rules.serve:
        synthesize = Synthesize(backend, rules.longest, rules.streams)
        endpoints.append(Route("/synthesize", synthesize.__call__, methods=["POST"]))

    async def nothing(request: Request) -> Response:
        path, methods = brief(request.url.path), methods_at(endpoints, request.scope)
        error = LimitError(f"there is nothing at {path}", code="not_found")
        if methods:
            error = LimitError(f"{request.method} is not for {path}: {methods}", code="method_not_allowed")
        answer = refusal(error, "middleware", request_id(request))
        if methods:
            answer.headers["Allow"] = methods
        return answer

    layers = [
        Layer(
            CORSMiddleware,
            allow_origins=list(rules.origins),
            allow_methods=["GET", "POST"],
            allow_headers=list(HEADERS),
            expose_headers=["X-Request-Id", "X-Sample-Rate", "Retry-After"],
        ),
        Layer(Guard, rules=rules, origin_fits=origin_fits, token_fits=token_fits),
    ]
    return [Mount("/api/tts", routes=[*endpoints, Route("/{path:path}", nothing, methods=METHODS)], middleware=layers)]


class Guard:
    """Turns away pages of other origins and who lacks the token, before anything is asked of an engine."""

    def __init__(self, app: ASGIApp, rules: TierRules, origin_fits: Fits, token_fits: Fits) -> None:
        self._app, self._rules = app, rules
        self._origin_fits, self._token_fits = origin_fits, token_fits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        connection = HTTPConnection(scope)
        if error := self._refusal(connection):
            await refusal(error, "middleware", request_id(connection))(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _refusal(self, connection: HTTPConnection) -> LimitError | None:
        origin = connection.headers.get("origin")
        known = "*" in self._rules.origins or origin in self._rules.origins
        if not known and not self._origin_fits(connection):
            return LimitError("this page may not ask; add its origin to tiers.origins", code="forbidden_origin")
        if not self._token_fits(connection):
            return LimitError("a token is needed: Authorization: Bearer ...", code="unauthorized")
        return None
