"""All that lies under `/v1`: open to the configured pages, and in JSON also about what is not there."""

from collections.abc import Sequence

from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Match, Route, Router
from starlette.types import Receive, Scope, Send

from server.http.streams import refusal
from server.pipelines.quoting import brief

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
TOLD = ("X-Sample-Rate", "X-Channels", "X-Encoding", "X-Engine", "X-Duration-Ms", "Retry-After")  # headers, to pages


class V1(BaseRoute):
    """`routes`, whose paths are whole, as one route. `origins`: pages besides the server's own, `*` for all."""

    def __init__(self, routes: Sequence[BaseRoute], origins: Sequence[str]) -> None:
        self._routes = [*routes, Route("/v1/{path:path}", self._nothing, methods=METHODS)]
        self._app = CORSMiddleware(
            Router(self._routes),
            allow_origins=origins,
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["*"],
            expose_headers=TOLD,
        )

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        ours = scope["type"] == "http" and scope["path"].startswith("/v1/")
        return Match.FULL if ours else Match.NONE, {}

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)

    async def _nothing(self, request: Request) -> Response:
        """Before us the page's files would answer, in words that no client of an API expects."""
        path, methods = brief(request.url.path), methods_at(self._routes, request.scope)
        if not methods:
            return refusal(f"there is nothing at {path}", 404, "not_found")
        told = f"{request.method} is not for {path}: {methods}"
        return refusal(told, 405, "method_not_allowed", {"Allow": methods})


def methods_at(routes: Sequence[BaseRoute], scope: Scope) -> str:
    """The methods that `routes` have for the path of `scope`, which are others than its own."""
    met = [r for r in routes if isinstance(r, Route) and r.matches(scope)[0] is Match.PARTIAL]
    return ", ".join(sorted({method for route in met for method in route.methods or ()}))
