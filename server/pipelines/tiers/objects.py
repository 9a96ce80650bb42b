"""JSON objects out of a stream of bytes, however the network cut or joined them. Pure.

One a line is the rule, but objects that lie behind each other without a line break, that span lines, or that come in
pieces (in the middle of a character, even) are read as well.
"""

import json
import re
from typing import Any

from server.errors import UpstreamError

_OUTSIDE = re.compile(rb'[{}\[\]"]')
_BETWEEN = re.compile(rb"[ \t\r\n,]+")
LARGEST = 32 * 1024 * 1024  # bytes of one object


class Objects:
    """Bytes in, objects out. Holds at most one object that is not yet whole."""

    def __init__(self, largest: int = LARGEST) -> None:
        self._largest = largest
        self._held = bytearray()
        self._at = 0  # looked at so far
        self._depth = 0
        self._quoted = False

    def push(self, data: bytes) -> list[dict[str, Any]]:
        """The objects that `data` completes. Raises `UpstreamError` for what is no JSON object."""
        self._held += data
        found = []
        while (end := self._end()) is not None:
            found.append(_object(self._held[:end]))
            del self._held[:end]
            self._at = 0
        if len(self._held) > self._largest:
            raise _garbled(f"an object of more than {self._largest} bytes")
        return found

    def finish(self) -> None:
        """Raises `UpstreamError` where the stream ended within an object."""
        if self._held:
            raise UpstreamError("the stream ended in the middle of a message", code="upstream_died")

    def _end(self) -> int | None:
        """Where the object at the beginning ends; None while it is not whole."""
        if not self._depth and not self._begin():
            return None
        while True:
            if self._quoted:
                if not self._string():
                    return None
                continue
            if not (mark := _OUTSIDE.search(self._held, self._at)):
                self._at = len(self._held)
                return None
            self._at = mark.end()
            match mark.group():
                case b'"':
                    self._quoted = True
                case b"{" | b"[":
                    self._depth += 1
                case _:
                    self._depth -= 1
                    if not self._depth:
                        return self._at

    def _begin(self) -> bool:
        """Whether an object begins, after what may lie between two."""
        if between := _BETWEEN.match(self._held):
            del self._held[: between.end()]
        if self._held and not self._held.startswith(b"{"):
            raise _garbled(f"{bytes(self._held[:40])!r}")
        return bool(self._held)

    def _string(self) -> bool:
        """Moves behind the end of a string; False while it is not there.

        By `find`, since megabytes of base64 lie in one string: it looks at them 20 times as fast as an expression."""
        size, quote = len(self._held), self._held.find(b'"', self._at)
        while (escape := self._held.find(b"\\", self._at, quote if quote >= 0 else size)) >= 0:
            if escape + 1 == size:  # what it escapes is not there yet
                self._at = escape
                return False
            self._at = escape + 2
            if 0 <= quote < self._at:
                quote = self._held.find(b'"', self._at)
        self._quoted = quote < 0
        self._at = quote + 1 if quote >= 0 else size
        return quote >= 0


def _object(data: bytearray) -> dict[str, Any]:
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise _garbled(f"{bytes(data[:40])!r} ({error})") from None
    return found  # type: ignore[no-any-return]  # it begins with a brace


def _garbled(what: str) -> UpstreamError:
    return UpstreamError(f"the server sent {what} where a JSON object was due", code="upstream_garbled")
