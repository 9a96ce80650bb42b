"""What a client sent is never told back to it whole."""

import json
from collections.abc import Callable

import httpx
import pytest
import websockets

from server.characters import chosen
from server.commands import command
from server.errors import ParleyError
from server.http.utterance import Utterance
from server.incoming import given
from server.pipelines.encoders import format_of
from server.pipelines.engines import Voice
from server.pipelines.quoting import MOST, brief, quoted
from server.pipelines.studio import Studio
from server.pipelines.tiers.relay import Relay
from server.pipelines.tiers.requests import request
from server.pipelines.tiers.services import TierRules
from server.pipelines.tiers.voices import described
from server.pipelines.tts import espeak, flite, openai
from server.pipelines.tts._options import number, one_of
from server.rack import Rack
from server.settings import Settings
from server.ws.spoken import Init
from tests.fakes import FakeTTS
from tests.line import services
from tests.wire import address, connected, serving

LONG = "ö" * 100_000


def test_what_is_short_is_quoted_as_it_stands() -> None:
    assert (quoted("a'b"), quoted(None), brief("x.y")) == ('"a\'b"', "None", "x.y")
    assert quoted("x" * MOST) == repr("x" * MOST)


@pytest.mark.parametrize("value", [LONG, [LONG], {LONG: LONG}, LONG.encode()])
def test_what_is_long_is_cut(value: object) -> None:
    assert len(quoted(value)) <= MOST + 3
    assert "…" in quoted(value)


ASKED: dict[str, Callable[[], object]] = {
    "type": lambda: command({"type": LONG}),
    "field": lambda: command({"type": "ping", LONG: 1}),
    "deep field": lambda: command({"type": "session.update", "turn": {LONG: 1}}),
    "character": lambda: chosen({}, [LONG]),
    "init": lambda: given(Init, {"events": [LONG]}),
    "stream_format": lambda: given(Utterance, {"input": "x", "stream_format": LONG}),
    "voice": lambda: Studio({"fake": FakeTTS()}).find(LONG),
    "language": lambda: Studio({"espeak": espeak.create()}).find(language=LONG),
    "engine": lambda: Rack.of(Settings()).tts(LONG),
    "format": lambda: format_of(LONG),
    "service": lambda: Relay(TierRules(), None).check(LONG),  # type: ignore[arg-type]
    "tier's field": lambda: request({LONG: 1}, 10),
    "voice option": lambda: described(Voice(), {LONG: 1}),
    "number": lambda: number("espeak", {"pitch": LONG}, "pitch", 1, 0, 2),
    "name": lambda: one_of("espeak", "voice", LONG, ("en",)),
    "flite": lambda: flite.create().open(Voice(name=LONG)),
    "extra": lambda: openai.create().open(Voice(options={"extra": LONG})),
}


@pytest.mark.parametrize("asked", ASKED.values(), ids=ASKED)
def test_an_error_tells_only_the_beginning(asked: Callable[[], object]) -> None:
    with pytest.raises(ParleyError) as told:
        asked()
    assert "ö" * 100 not in str(told.value)


async def test_nor_do_the_services() -> None:
    async with services() as (line, _):
        at = f"127.0.0.1:{line.port}"
        path = "/" + "y" * 10_000
        async with httpx.AsyncClient(base_url=f"http://{at}") as http:
            for answer in (
                await http.get("/v1/models" + path),
                await http.get("/v1/tts/stream" + path),
                await http.get(f"/v1/tts/stream/x/audio?stream_format={path}"),
            ):
                assert answer.status_code in (400, 404)
                assert len(answer.content) < 500
        for url, frame in (("tts/stream", {"type": LONG}), ("llm", {"action": LONG})):
            async with websockets.connect(f"ws://{at}/ws/{url}", max_size=None) as socket:
                await socket.send(json.dumps(frame, ensure_ascii=False))
                assert len(await socket.recv()) < 500


@pytest.mark.parametrize(("type", "fields"), [(LONG, {}), ("say", {"text": "x", "character": LONG})])
async def test_nor_does_the_conversation(type: str, fields: dict[str, str]) -> None:
    async with serving() as server, connected(address(server)) as client:
        await client.send(type, **fields)
        assert len((await client.until("error"))["message"]) < 500
