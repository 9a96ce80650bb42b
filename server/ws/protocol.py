"""The native protocol on the wire: JSON text frames with bare PCM in binary ones, or msgpack maps. Pure.

Commands and events are the same in both; audio is `{"type": "audio", "reply", "start_ms", "data"}` in msgpack.
"""

import json

import msgpack

from server.commands import Command, command
from server.errors import ProtocolError
from server.events import Audio, Event

JSON, MSGPACK = "parley.v1", "parley.msgpack.v1"  # the subprotocols; none means the first


def decode(frame: str | bytes, subprotocol: str = JSON) -> Command | bytes:
    """One frame of the client's as a command, or as `bytes` of PCM. Raises `ProtocolError`."""
    if subprotocol == MSGPACK:
        return _unpacked(frame)
    if isinstance(frame, bytes):
        return frame
    try:
        return command(json.loads(frame))
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"not JSON: {error}") from None


def _unpacked(frame: str | bytes) -> Command | bytes:
    if isinstance(frame, str):
        raise ProtocolError("text frame: on parley.msgpack.v1 every message is a msgpack map in a binary frame")
    try:
        message = msgpack.unpackb(frame)
    except (ValueError, msgpack.UnpackException, RecursionError) as error:
        raise ProtocolError(f"not msgpack: {str(error) or type(error).__name__}") from None
    if not (isinstance(message, dict) and message.get("type") == "audio"):
        return command(message)
    if not isinstance(message.get("data"), bytes):
        raise ProtocolError("audio: data must be binary")
    return bytes(message["data"])


def encode(event: Event, subprotocol: str = JSON) -> str | bytes:
    """`event` as one frame: text, or binary."""
    if subprotocol == MSGPACK:
        return bytes(msgpack.packb(event.body()))
    if isinstance(event, Audio):
        return event.data
    return json.dumps(event.body(), ensure_ascii=False, separators=(",", ":"))
