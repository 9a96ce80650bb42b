"""`/health` and `/metrics`: whether it lives, whether it is ready, and what it counts."""

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from server.lobby import Lobby
from server.rack import Rack
from server.telemetry import QUEUE


def routes(rack: Rack, lobby: Lobby, version: str) -> list[Route]:
    async def health(request: Request) -> Response:
        ready = rack.ready and not lobby.closing
        told = {
            "status": "healthy" if ready else "loading" if not lobby.closing else "stopping",
            "live": True,
            "ready": ready,
            "model_loaded": ready,  # for this, or for the status, clients of other speech servers wait
            "version": version,
            "sessions": len(lobby.sessions),
            "engines": rack.names(),
        }
        return JSONResponse(told, 200 if ready else 503)

    async def live(request: Request) -> Response:
        return JSONResponse({"live": True})

    async def metrics(request: Request) -> Response:
        QUEUE.labels("outbox").set(sum(len(session.outbox) for session in lobby.sessions))
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    return [Route("/health", health), Route("/health/live", live), Route("/metrics", metrics)]
