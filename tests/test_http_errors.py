"""What a client of the services is told when something goes wrong that is not its own doing, or is put unusually."""

from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from server.clients import HTTPSpeech, Refused
from server.http import adaptive, speech
from server.http.v1 import V1
from server.pipelines.engines import Speech, Voice
from server.pipelines.studio import Studio
from tests.fakes import FakeSpeaker, FakeTTS
from tests.services import serving
from tests.tiers_app import asked, parley
from tests.tones import ToneSpeaker, ToneTTS

PAGE = {"Origin": "https://a.example"}


class BrokenSpeaker(FakeSpeaker):
    async def speak(self, text: str) -> AsyncGenerator[Speech, None]:
        raise RuntimeError("a bug of the engine's")
        yield Speech(b"")


class Broken(FakeTTS):
    def open(self, voice: Voice) -> FakeSpeaker:
        if voice.speed == 2:
            raise RuntimeError("a bug of the engine's, at once")
        return BrokenSpeaker(self, voice)


@pytest_asyncio.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    studio = Studio({"fake": Broken()}, {"mira": Voice()})
    routes = V1([*speech.routes(studio), *adaptive.routes(studio)], ["https://a.example"])
    async with serving([routes]) as url, httpx.AsyncClient(base_url=url) as made:
        yield made


@pytest.mark.parametrize("more", [{}, {"speed": 2}, {"response_format": "wav"}, {"stream_format": "sse"}])
async def test_a_failure_that_nobody_foresaw_is_told_in_json_to_pages_too(client: Any, more: dict[str, Any]) -> None:
    answer = await client.post("/v1/audio/speech", json={"input": "Hello."} | more, headers=PAGE)
    assert answer.status_code == 500
    told = answer.json()["error"]
    assert (told["code"], told["type"]) == ("internal", "server_error")
    assert "bug" not in told["message"]
    assert answer.headers["access-control-allow-origin"] == "https://a.example"


async def test_where_it_is_foreseen_nowhere_in_a_request_it_is_told_too(monkeypatch: Any, client: Any) -> None:
    def bang(studio: Studio) -> list[dict[str, str]]:
        raise RuntimeError("a bug of ours")

    monkeypatch.setattr(Studio, "catalogue", bang)
    answer = await client.get("/v1/audio/voices", headers=PAGE)
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "internal")
    assert answer.headers["access-control-allow-origin"] == "https://a.example"


class BrokenTones(ToneTTS):
    def open(self, voice: Voice) -> ToneSpeaker:
        raise RuntimeError("a bug of the engine's")


@pytest.mark.parametrize("path", ["stream", "batch", "synthesize"])
async def test_the_tiers_tell_it_in_json_as_well(path: str) -> None:
    body = {"text": "Hi there.", "voice": "bell"} | (
        {"output_format": "pcm_16"} if path == "synthesize" else {"service": "local"}
    )
    async with parley(BrokenTones(), origins=("https://a.example",)) as url, asked(url) as client:
        answer = await client.post(f"/api/tts/{path}", json=body, headers=PAGE)
        assert (answer.status_code, answer.json()["code"]) == (500, "internal")
        assert "bug" not in answer.text
        assert answer.headers["x-request-id"] == answer.json()["requestId"]
        assert answer.headers["access-control-allow-origin"] == "https://a.example"


@pytest.mark.parametrize(("said", "after"), [("3", 3.0), ("Wed, 21 Oct 2026 07:28:00 GMT", None), (None, None)])
async def test_the_client_understands_whatever_a_proxy_says_of_when_to_come_back(
    said: str | None, after: float | None
) -> None:
    async def busy(request: Request) -> Response:
        return PlainTextResponse("slow down", 503, {"Retry-After": said} if said else None)

    async with (
        serving([Route("/v1/audio/speech", busy, methods=["POST"])]) as url,
        HTTPSpeech(url) as http,
    ):
        with pytest.raises(Refused, match="slow down") as refused:
            await http.whole("Hello.")
    assert refused.value.retry_after == after
