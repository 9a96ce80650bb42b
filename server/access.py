"""Access: who may connect. An optional token, and the origins that a browser may come from."""

import hmac
from collections.abc import Iterable, Sequence
from urllib.parse import urlsplit

from starlette.requests import HTTPConnection

from server.settings import ServerSettings

PREFIX = "parley.token."  # of the subprotocol that carries the token, for browsers that cannot set headers


def token_fits(connection: HTTPConnection, settings: ServerSettings, subprotocols: Iterable[str] = ()) -> bool:
    """Whether it brings the token: as `Authorization: Bearer`, as `?token=`, or as a subprotocol."""
    if not settings.token:
        return True
    scheme, _, bearer = connection.headers.get("authorization", "").partition(" ")
    given = [bearer.strip()] if scheme.lower() == "bearer" else []
    given += connection.query_params.getlist("token")
    given += [name.removeprefix(PREFIX) for name in subprotocols if name.startswith(PREFIX)]
    return any(hmac.compare_digest(token.encode(), settings.token.encode()) for token in given)


def accepted(offered: Sequence[str]) -> str | None:
    """The subprotocol to accept, of those `offered`: browsers drop a connection on which none of theirs is."""
    if "parley.v1" in offered:
        return "parley.v1"
    return next((name for name in offered if name.startswith(PREFIX)), None)


def origin_fits(connection: HTTPConnection, settings: ServerSettings) -> bool:
    """Whether the page it comes from may connect: the server's own, or a configured one. No browser, no origin."""
    origin = connection.headers.get("origin")
    if origin is None or "*" in settings.origins or origin in settings.origins:
        return True
    try:
        return urlsplit(origin).netloc == connection.headers.get("host")
    except ValueError:  # no address at all
        return False


def client_of(connection: HTTPConnection) -> str:
    """Whom to be fair to: an address."""
    return connection.client.host if connection.client else ""
