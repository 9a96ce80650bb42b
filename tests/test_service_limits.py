"""What is bounded before and behind the services' sockets: bodies, ids, streams that can be asked about, replies."""

from types import SimpleNamespace
from typing import Any

import pytest
from starlette.requests import HTTPConnection, Request

from server.errors import LimitError
from server.http.tiers.bodies import LARGEST, read_json, request_id
from server.http.tiers.progress import KEPT, Ledger
from server.ws.wire import REPLIES, Wire


def connection(**headers: str) -> HTTPConnection:
    found = [(name.replace("_", "-").encode(), value.encode("latin-1")) for name, value in headers.items()]
    return HTTPConnection({"type": "http", "headers": found})


async def test_a_request_is_read_to_its_limit_and_no_further() -> None:
    read = 0

    async def receive() -> dict[str, Any]:
        nonlocal read
        read += 1
        return {"type": "http.request", "body": b"x" * 65_536, "more_body": True}

    with pytest.raises(LimitError, match=f"larger than {LARGEST} bytes"):
        await read_json(Request({"type": "http", "method": "POST", "headers": []}, receive))
    assert read == LARGEST // 65_536 + 1


@pytest.mark.parametrize("id", ["me-1", "a.B_c-9", "x" * 64])
def test_a_clients_own_id_is_kept(id: str) -> None:
    assert request_id(connection(x_request_id=id)) == id


@pytest.mark.parametrize("id", ["", "two words", "x" * 65, "line\tbreak", "naïve", "a/b"])
def test_an_id_that_would_not_do_in_a_log_or_an_address_gives_way_to_a_new_one(id: str) -> None:
    made = request_id(connection(x_request_id=id))
    assert made != id
    assert made == request_id(connection(x_request_id=made))


def test_the_latest_streams_can_be_asked_about_and_the_oldest_are_forgotten() -> None:
    ledger = Ledger()
    for number in range(KEPT + 1):
        ledger.open(str(number), "local")
    assert ledger.get("0") is None
    assert ledger.get("1")
    assert ledger.running() == KEPT + 1  # however many can be asked about


def test_a_client_that_lets_its_replies_pile_up_does_not_read() -> None:
    wire = Wire(SimpleNamespace())  # type: ignore[arg-type]
    for _ in range(REPLIES):
        wire.tell({"type": "pong"})
    with pytest.raises(LimitError, match="does not read"):
        wire.tell({"type": "pong"})
