"""The services as the application mounts them: the characters as voices, the token, one engine for everybody."""

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from ctypes.util import find_library

import httpx
import pytest
from websockets.asyncio.client import connect

from server.app import create_app
from server.audio import milliseconds
from server.pipelines.loading import load
from server.pipelines.tts import espeak
from server.serve import Server, build
from server.settings import EngineSettings, ServerSettings, Settings, read
from tests import fakes


@asynccontextmanager
async def application(voices: Mapping[str, str] = {}, **server: object) -> AsyncIterator[str]:
    """Parley with espeak and a language model of few words: its address. `voices`: further engines by name."""
    settings = read()
    tables = {name: EngineSettings(engine=engine) for name, engine in voices.items()}
    update = {"server": ServerSettings(port=0, **server), "voices": tables}  # type: ignore[arg-type]
    settings = settings.model_copy(update=update)
    further = {name: load("tts", engine, {}) for name, engine in voices.items()}
    rack = fakes.rack(llm=fakes.FakeLLM("Hello there."), tts=espeak.create(), voices=further)  # type: ignore[arg-type]
    running = build(settings, create_app(settings, rack))
    running.config.load()
    running.lifespan = running.config.lifespan_class(running.config)
    await running.startup()
    try:
        yield f"http://127.0.0.1:{running.port}"
    finally:
        await _stop(running, settings)


async def _stop(running: Server, settings: Settings) -> None:
    await running.shutdown()
    await running.lifespan.shutdown()


async def test_every_service_is_there_beside_the_page_and_speaks_in_the_characters_voices() -> None:
    async with application() as url, httpx.AsyncClient(base_url=url) as client:
        assert (await client.get("/")).status_code == 200
        voices = (await client.get("/v1/audio/voices")).json()["voices"]
        cast = [voice["id"] for voice in voices if voice["kind"] == "character"]
        assert len(cast) >= 4
        assert (await client.get("/v1/models")).json()["data"][-1]["id"] == "fake"
        said = {}
        for voice in [*cast, "aria"]:
            answer = await client.post("/v1/audio/speech", json={"input": "Good evening.", "voice": voice})
            assert answer.status_code == 200
            said[voice] = answer.content
        assert len(set(said.values())) == len(said)
        stream = (await client.post("/v1/tts/stream", json={"voice": cast[0]})).json()
        await client.post(f"/v1/tts/stream/{stream['stream_id']}/append", json={"text": "Good night."})
        await client.post(f"/v1/tts/stream/{stream['stream_id']}/close")
        assert (await client.get(stream["audio_url"])).content
        socket = url.replace("http", "ws")
        async with connect(f"{socket}/ws/tts/stream") as speech, connect(f"{socket}/ws/llm") as llm:
            await speech.send(json.dumps({"type": "init", "voice": cast[-1]}))
            assert json.loads(await speech.recv())["type"] == "stream_created"
            ask = {"stream_id": "a", "messages": [{"role": "user", "content": "Hi"}]}
            await llm.send(json.dumps({"action": "start_stream", **ask}))
            assert json.loads(await llm.recv())["full_text"].strip() == "Hello there."


@pytest.mark.skipif(not find_library("flite"), reason="libflite1 is not installed")
async def test_a_character_asked_for_on_another_engine_sounds_as_it_does_there() -> None:
    ask = {"input": "Good evening.", "model": "robot"}
    async with application({"robot": "flite"}) as url, httpx.AsyncClient(base_url=url) as client:
        said = {}
        for voice in ("ada", "Finn", "vera", "pip", "slt", "awb"):
            answer = await client.post("/v1/audio/speech", json=ask | {"voice": voice})
            assert (answer.status_code, answer.headers["x-engine"]) == (200, "robot"), answer.text
            said[voice] = answer.content
        ms = {voice: milliseconds(pcm, 16_000) for voice, pcm in said.items()}
        assert ms["ada"] == pytest.approx(ms["slt"], abs=15)
        assert ms["Finn"] < ms["slt"] - 80  # as awb, whose quiet ends are cut now here, now there
        assert ms["vera"] > 1.04 * ms["slt"]


async def test_the_token_guards_them_all_and_a_page_from_elsewhere_is_turned_away() -> None:
    async with application(token="secret") as url, httpx.AsyncClient(base_url=url) as client:
        for path in ("/v1/audio/voices", "/v1/models"):
            assert (await client.get(path)).status_code == 401
            assert (await client.get(path, headers={"Authorization": "Bearer secret"})).status_code == 200
            other = {"Authorization": "Bearer secret", "Origin": "http://elsewhere.example"}
            turned_away = await client.get(path, headers=other)
            assert (turned_away.status_code, turned_away.json()["error"]["code"]) == (403, "forbidden_origin")
        assert (await client.post("/v1/tts/stream", json={})).status_code == 401
        socket = url.replace("http", "ws")
        for path in ("/ws/tts/stream", "/ws/llm"):
            async with connect(socket + path) as stranger:
                assert json.loads(await stranger.recv())["code"] == "unauthorized"
            async with connect(f"{socket}{path}?token=secret", origin="http://elsewhere.example") as page:
                assert json.loads(await page.recv())["code"] == "forbidden_origin"
            async with connect(f"{socket}{path}?token=secret") as friend:
                await friend.send(json.dumps({"type": "ping", "action": "ping"}))
                assert "pong" in await friend.recv()


@pytest.mark.parametrize(("path", "ask"), [("/ws/llm", '{"action": "ping"}'), ("/ws/tts/stream", '{"type": "ping"}')])
@pytest.mark.parametrize("beside", [[], ["parley.v1"], ["other"]])
async def test_a_browser_s_subprotocols_are_answered_with_one_of_them(beside: list[str], path: str, ask: str) -> None:
    async with application(token="secret") as url:
        offered = [*beside, "parley.token.secret"]
        async with connect(url.replace("http", "ws") + path, subprotocols=offered) as page:  # type: ignore[arg-type]
            await page.send(ask)
            assert "pong" in await page.recv()
            assert page.subprotocol == ("parley.v1" if "parley.v1" in beside else "parley.token.secret")


async def test_a_page_that_is_configured_may_ask_and_read_the_answer() -> None:
    async with application(origins=("https://a.example",)) as url, httpx.AsyncClient(base_url=url) as client:
        page = {"Origin": "https://a.example"}
        ask = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type,x-stainless-os"}
        first = await client.options("/v1/audio/speech", headers=page | ask)
        assert (first.status_code, first.headers["access-control-allow-origin"]) == (200, "https://a.example")
        assert "x-stainless-os" in first.headers["access-control-allow-headers"]
        for body, status in (({"input": "Good evening."}, 200), ({}, 422)):
            answer = await client.post("/v1/audio/speech", json=body, headers=page)
            assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (status, "https://a.example")
            assert "X-Sample-Rate" in answer.headers["access-control-expose-headers"]
        stranger = await client.options("/v1/audio/speech", headers=ask | {"Origin": "https://b.example"})
        assert "access-control-allow-origin" not in stranger.headers


async def test_what_is_not_there_is_said_as_an_api_says_it() -> None:
    async with application() as url, httpx.AsyncClient(base_url=url) as client:
        nothing = await client.post("/v1/chat/completions", json={})
        assert (nothing.status_code, nothing.json()["error"]["code"]) == (404, "not_found")
        assert nothing.json()["detail"] == "there is nothing at /v1/chat/completions"
        wrong = await client.get("/v1/audio/speech")
        assert (wrong.status_code, wrong.headers["allow"]) == (405, "POST")
        assert wrong.json()["error"]["code"] == "method_not_allowed"
        assert (await client.put("/v1/tts/stream/a")).headers["allow"] == "DELETE, GET, HEAD"
        assert (await client.get("/v1/tts/stream/a")).json()["error"]["code"] == "not_found"
