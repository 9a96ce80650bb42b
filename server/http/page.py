"""The page: static files that a browser checks for changes at each load, and that may talk to their own server only.

Pictures may come from elsewhere: a character's is a path or an address."""

from pathlib import Path

from starlette.routing import Mount
from starlette.staticfiles import StaticFiles
from starlette.types import Message, Receive, Scope, Send

HEADERS = {
    "cache-control": "no-cache",  # else an upgrade leaves browsers with modules of two versions
    "content-security-policy": "default-src 'self'; connect-src 'self' ws: wss:; img-src * data: blob:; "
    "media-src 'self' blob:; worker-src 'self' blob:; object-src 'none'; base-uri 'none'; frame-ancestors 'self'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",  # an access token may stand in the address
}


def mount(directory: Path) -> Mount:
    """The files of `directory` at `/`."""
    files = StaticFiles(directory=directory, html=True)

    async def page(scope: Scope, receive: Receive, send: Send) -> None:
        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *((k.encode(), v.encode()) for k, v in HEADERS.items())]
            await send(message)

        await files(scope, receive, with_headers)

    return Mount("/", page)
