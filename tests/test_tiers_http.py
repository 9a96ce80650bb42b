"""The tiers over real sockets: back end, middleware, both together, and everything that can go wrong between them."""

import asyncio
import base64
import json

import httpx
import pytest

from server.audio import read_wav
from server.http.tiers.progress import KEPT, Ledger
from server.pipelines.codec._tokens import from_wire, to_wire
from server.pipelines.engines import Speech, Voice
from tests.fake_codec import FakeNetwork, fake_codec
from tests.tiers_app import asked, parley, until, upstream
from tests.tones import ToneTTS, heard, pitches, prose

TEXT = "Seven kettles on the harbor wall, and a lantern beyond the meadow. " * 4
BODY = {"text": TEXT, "voice": "flute", "service": "echotts"}


async def tokens_of(text: str) -> dict:
    codec = fake_codec()
    tts = ToneTTS()
    pcm = b"".join([piece.pcm async for piece in tts.open(Voice()).speak(text)])
    made = to_wire(await codec.encode(pcm, 24_000))
    await codec.stop()
    return {"status": "streaming", "chunk": 1, "format": "linacodec_tokens", **made}


DONE = {"status": "complete", "total_chunks": 1}


def service(url: str, kind: str = "ndjson", **more) -> dict:
    return {"echotts": {"kind": kind, "url": url, **more}}


async def listen(client: httpx.AsyncClient, body=BODY, **more) -> tuple[httpx.Response, bytes, str]:
    """The response, the body as far as it came, and how it ended."""
    pcm = b""
    async with client.stream("POST", "/api/tts/stream", json=body, **more) as response:
        try:
            async for piece in response.aiter_bytes():
                pcm += piece
        except httpx.RemoteProtocolError as error:
            return response, pcm, str(error)
        return response, pcm, ""


# The back end


async def test_the_back_end_streams_lines_and_answers_a_batch():
    codec = fake_codec()
    async with parley(ToneTTS(), codec) as url, asked(url) as client:
        lines = []
        body = {"input": {"text": TEXT, "voice": "default", "stream": True}}
        async with client.stream("POST", "/api/tts/synthesize", json=body) as response:
            assert response.headers["content-type"] == "application/x-ndjson"
            lines = [json.loads(line) async for line in response.aiter_lines()]
        pcm = b"".join([await codec.decode(from_wire(line)) for line in lines[:-1]])
        assert heard(pcm) == pitches(TEXT)
        assert lines[-1]["status"] == "complete"
        batch = (await client.post("/api/tts/synthesize", json={"text": TEXT, "output_format": "pcm_16"})).json()
        assert heard(base64.b64decode(batch["audio"])) == pitches(TEXT)
    await codec.stop()


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        (b"{", 400, "no JSON"),
        (b"[]", 400, "object"),
        (b'{"text": ""}', 400, "text"),
        (b'{"text": "Hi.", "voice": "tuba"}', 400, "tuba"),
        (b'{"text": "Hi.", "stream": 1}', 400, "stream"),
        (b" " * 1_100_000, 413, "larger"),
        (b'{"text": "EXPLODE now", "stream": true}', 500, "broke"),
        (b'{"text": "EXPLODE now", "stream": false}', 500, "broke"),
    ],
)
async def test_the_back_end_says_what_is_wrong_with_the_right_status(body, status, says):
    codec = fake_codec()
    async with parley(ToneTTS(), codec) as url, asked(url) as client:
        response = await client.post("/api/tts/synthesize", content=body)
        assert response.status_code == status
        told = response.json()
        assert says in told["error"]
        assert told["tier"] == "backend"
        assert response.headers["x-request-id"] == told["requestId"]
    await codec.stop()


async def test_the_back_end_without_a_codec_refuses_tokens():
    async with parley(ToneTTS()) as url, asked(url) as client:
        response = await client.post("/api/tts/synthesize", json={"text": "Hi.", "stream": True})
        assert response.status_code == 503
        assert response.json()["code"] == "engine_unavailable"


async def test_a_failure_in_the_middle_is_the_last_line():
    codec = fake_codec()
    async with parley(ToneTTS(), codec) as url, asked(url) as client:
        body = {"text": "A good beginning.\n\nThen EXPLODE now.", "stream": True}
        lines = (await client.post("/api/tts/synthesize", json=body)).text.splitlines()
        assert [json.loads(line)["status"] for line in lines] == ["streaming", "error"]
        assert json.loads(lines[1])["error"] == "the voice broke"
    await codec.stop()


async def test_a_client_that_leaves_the_back_end_stops_its_voice():
    codec, tts = fake_codec(), ToneTTS(delay=0.01)
    async with parley(tts, codec) as url, asked(url) as client:
        async with client.stream(
            "POST", "/api/tts/synthesize", json={"text": prose(9_000), "stream": True}
        ) as response:
            await anext(response.aiter_lines())
        await until(lambda: not tts.open_now)
        assert len(tts.said) < 15
    await codec.stop()


# All three tiers


@pytest.mark.parametrize("format", ["linacodec_tokens", "pcm_16"])
@pytest.mark.parametrize("length", [100, 500, 2_000, 10_000])
async def test_through_all_tiers_not_one_sample_is_lost(format, length):
    text = prose(length)
    far, near = fake_codec(), fake_codec()
    async with (
        parley(ToneTTS(), far) as back,
        parley(None, near, services=service(back, "parley", format=format)) as url,
        asked(url) as client,
    ):
        response, pcm, end = await listen(client, BODY | {"text": text})
        assert response.status_code == 200
        assert response.headers["content-type"] == "audio/octet-stream"
        assert response.headers["cache-control"] == "no-cache, no-transform"
        assert response.headers["x-accel-buffering"] == "no"
        assert "content-length" not in response.headers
        assert end == ""
        assert heard(pcm) == pitches(text)
        assert len(pcm) == len(pitches(text)) * 2 * 7_680
    await far.stop()
    await near.stop()


async def test_the_first_audio_comes_while_the_rest_is_not_even_spoken():
    far, near, tts = fake_codec(), fake_codec(), ToneTTS(delay=0.02)
    async with (
        parley(tts, far) as back,
        parley(None, near, services=service(back, "parley")) as url,
        asked(url) as client,
        client.stream("POST", "/api/tts/stream", json=BODY | {"text": prose(10_000)}) as response,
    ):
        await anext(response.aiter_bytes())
        assert len(tts.said) < 15
    await far.stop()
    await near.stop()


async def test_the_local_service_needs_neither_network_nor_codec():
    async with parley(ToneTTS(rate=16_000)) as url, asked(url) as client:
        response, pcm, end = await listen(client, BODY | {"service": "local"})
        assert (response.status_code, end) == (200, "")
        assert heard(pcm) == pitches(TEXT)
        assert len(pcm) == len(pitches(TEXT)) * 2 * 7_680


async def test_batch_is_one_wav_and_goes_on_when_streaming_is_off():
    far, near = fake_codec(), fake_codec()
    async with (
        parley(ToneTTS(), far) as back,
        parley(None, near, streaming=False, services=service(back, "parley")) as url,
        asked(url) as client,
    ):
        response = await client.post("/api/tts/stream", json=BODY)
        assert response.status_code == 503
        told = response.json()
        assert (told["error"], told["message"]) == ("Streaming is disabled", "Set ENABLE_STREAMING=true to enable")
        assert told["requestId"] == response.headers["x-request-id"]
        assert response.headers["cache-control"] == "no-store"
        assert (await client.get("/api/tts/services")).json()["streaming"] is False
        response = await client.post("/api/tts/batch", json=BODY)
        assert response.headers["content-type"] == "audio/wav"
        pcm, rate = read_wav(response.content)
        assert rate == 48_000
        assert [p for p in heard(pcm) if p >= 0] == pitches(TEXT)
    await far.stop()
    await near.stop()


class Talkative(ToneTTS):
    """Speaks as slowly as people do: a second for twelve characters."""

    def open(self, voice):
        engine = self

        class Speaker:
            async def speak(self, text):
                yield Speech(bytes(2 * (len(text) * engine.rate // 12)))

            async def close(self): ...

        return Speaker()


@pytest.mark.parametrize("format", ["linacodec_tokens", "pcm_16"])
async def test_a_batch_may_be_ten_minutes_in_one_message(format):
    text = prose(7_300)
    far, near = fake_codec(), fake_codec()
    async with parley(Talkative(), far) as back:
        services = service(back + "/api/tts/synthesize", format=format)
        async with parley(None, near, services=services) as url, asked(url) as client:
            response = await client.post("/api/tts/batch", json=BODY | {"text": text})
            assert response.status_code == 200
            assert len(response.content) > 600 * 96_000
    await far.stop()
    await near.stop()


@pytest.mark.parametrize(("kind", "streams"), [("parley", True), ("ndjson", False)])
async def test_another_parley_is_asked_for_a_stream_even_for_a_batch(kind, streams):
    seen = []

    async def script(answer):
        seen.append(answer.body["stream"])
        await answer.head()
        await answer.line(await tokens_of("One."))
        await answer.line(DONE)
        await answer.end()

    codec = fake_codec()
    async with upstream(script) as back, parley(None, codec, services=service(back, kind)) as url, asked(url) as client:
        response = await client.post("/api/tts/batch", json=BODY)
        assert (response.status_code, seen) == (200, [streams])
    await codec.stop()


# What the network does to bytes


@pytest.mark.parametrize("size", [1, 13, 700, 100_000])
async def test_objects_split_and_joined_across_reads_are_all_heard(size):
    first, second = await tokens_of("One kettle."), await tokens_of("Two lanterns beyond.")
    data = json.dumps(first).encode() + json.dumps(second | {"chunk": 2}).encode() + b"\n" + b'{"status": "complete"}'

    async def script(answer):
        await answer.head(kind="application/json")
        step = max(size, len(data) // 400)
        for at in range(0, len(data), step):
            await answer.piece(data[at : at + step])
        await answer.end()

    codec = fake_codec()
    async with upstream(script) as back, parley(None, codec, services=service(back)) as url, asked(url) as client:
        _, pcm, end = await listen(client)
        assert end == ""
        assert [p for p in heard(pcm) if p >= 0] == pitches("One kettle. Two lanterns beyond.")
    await codec.stop()


async def test_what_is_asked_of_a_plain_back_end_is_what_the_plan_says():
    seen = {}

    async def script(answer):
        told = {"key": answer.headers["authorization"], "id": answer.headers["x-request-id"], "path": answer.path}
        seen.update(answer.body | told)
        await answer.head()
        await answer.line(await tokens_of("One."))
        await answer.line(DONE)
        await answer.end()

    codec = fake_codec()
    async with (
        upstream(script) as back,
        parley(None, codec, services=service(back + "/v2/x", key="abc")) as url,
        asked(url) as client,
    ):
        await listen(client, headers={"X-Request-Id": "me-3"})
    assert seen == {
        "text": TEXT, "voice": "flute", "service": "echotts", "stream": True, "output_format": "linacodec_tokens",
        "sample_rate": 48_000, "key": "bearer abc", "path": "/v2/x", "id": "me-3",
    }  # fmt: skip
    await codec.stop()


async def test_bare_audio_is_forwarded_and_brought_to_48_khz():
    tts = ToneTTS()
    pcm = b"".join([piece.pcm async for piece in tts.open(Voice()).speak("Forest glass harbor.")])

    async def script(answer):
        await answer.head(kind="audio/pcm", x_sample_rate="24000")
        for at in range(0, len(pcm), 1_001):  # odd: samples are cut, too
            await answer.piece(pcm[at : at + 1_001])
        await answer.end()

    async with upstream(script) as back, parley(services=service(back, format="pcm_16")) as url, asked(url) as client:
        response, got, end = await listen(client)
        assert (response.status_code, end) == (200, "")
        assert heard(got) == pitches("Forest glass harbor.")
        assert len(got) == 2 * len(pcm)


@pytest.mark.parametrize("size", [1, 5, 100_000])
@pytest.mark.parametrize("kind", ["application/octet-stream", "", "binary/octet-stream", "text/plain"])
async def test_objects_are_no_sound_whatever_they_are_called(kind, size):
    data = json.dumps(await tokens_of("One kettle.")).encode() + b'{"status": "complete"}'

    async def script(answer):
        await answer.head(kind=kind)
        for at in range(0, 20, size):
            await answer.piece(data[at : min(at + size, 20)])
        await answer.piece(data[20:])
        await answer.end()

    codec = fake_codec()
    async with upstream(script) as back, parley(None, codec, services=service(back)) as url, asked(url) as client:
        response, pcm, end = await listen(client)
        assert (response.status_code, end) == (200, "")
        assert heard(pcm) == pitches("One kettle.")
    await codec.stop()


@pytest.mark.parametrize("kind", ["application/octet-stream", ""])
async def test_sound_without_a_name_is_sound(kind):
    async def script(answer):
        await answer.head(kind=kind)
        await answer.piece(b"\x01")
        await answer.piece(b"\0\2\0" * 500)
        await answer.end()

    async with upstream(script) as back, parley(services=service(back, format="pcm_16")) as url, asked(url) as client:
        response, pcm, end = await listen(client)
        assert (response.status_code, end, pcm) == (200, "", (b"\1" + b"\0\2\0" * 500)[:1500])


async def test_one_middleware_can_be_the_service_of_another():
    local = {"echotts": {"kind": "local"}}
    async with (
        parley(ToneTTS(), services=local) as far,
        parley(services=service(far + "/api/tts/stream", format="pcm_16")) as url,
        asked(url) as client,
    ):
        response, pcm, end = await listen(client)
        assert (response.status_code, end) == (200, "")
        assert heard(pcm) == pitches(TEXT)


# What goes wrong before the first byte


def answering(status: str, body: bytes, kind: str = "application/json"):
    async def script(answer):
        await answer.head(status, kind)
        await answer.piece(body)
        await answer.end()

    return script


@pytest.mark.parametrize(
    ("script", "status", "code"),
    [
        (answering("401 Unauthorized", b"no key"), 502, "upstream_auth"),
        (answering("429 Too Many Requests", b"slow down"), 503, "upstream_busy"),
        (answering("500 Internal Server Error", b"CUDA out of memory"), 502, "upstream_failed"),
        (answering("302 Found", b""), 502, "upstream_failed"),
        (answering("200 OK", b"<html>hello</html>", "text/html"), 502, "upstream_garbled"),
        (answering("200 OK", b"", "application/x-ndjson"), 502, "upstream_died"),
        (answering("200 OK", b'{"status": "complete"}\n', "application/x-ndjson"), 502, "upstream_garbled"),
        (answering("200 OK", b'{"audio_chunk": ""}{"status": "complete"}'), 502, "upstream_garbled"),
        (answering("200 OK", b'{"status": "error", "error": "no such voice"}'), 502, "upstream_failed"),
        (answering("200 OK", b'{"status":"streaming","tokens":[-1],"embedding":[]}'), 502, "upstream_garbled"),
        (answering("200 OK", b"ID3 mp3 mp3", "audio/mpeg"), 502, "upstream_garbled"),
    ],
)
async def test_an_upstream_that_fails_at_once_is_told_as_json(script, status, code):
    codec = fake_codec()
    async with upstream(script) as back, parley(None, codec, services=service(back)) as url, asked(url) as client:
        response, body, end = await listen(client, headers={"X-Request-Id": "me-1"})
        assert (response.status_code, end) == (status, "")
        told = json.loads(body)
        assert told["code"] == code
        assert told["tier"] == "middleware"
        assert told["requestId"] == "me-1" == response.headers["x-request-id"]
    await codec.stop()


async def test_an_upstream_that_is_not_there_or_says_nothing_is_told_as_json():
    async def silent(answer):
        await answer.left()

    codec = fake_codec()
    async with (
        upstream(silent) as back,
        parley(
            None, codec, services=service(back) | {"gone": {"url": "http://127.0.0.1:9"}}, chunk_timeout_s=0.2
        ) as url,
        asked(url) as client,
    ):
        response, body, _ = await listen(client)
        assert (response.status_code, json.loads(body)["code"]) == (504, "upstream_timeout")
        response, body, _ = await listen(client, BODY | {"service": "gone"})
        assert (response.status_code, json.loads(body)["code"]) == (502, "upstream_unreachable")
    await codec.stop()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"text": ""}, "text"),
        ({"text": None}, "text"),
        ({"text": "a" * 20_001}, "20001 characters"),
        ({"voice": ""}, "voice"),
        ({"voice": None}, "voice"),
        ({"service": "nobody"}, "no 'nobody'; there are: echotts"),
        ({"service": 3}, "service"),
    ],
)
async def test_requests_that_cannot_be_met_are_400_and_say_why(change, says):
    codec = fake_codec()
    async with parley(None, codec, services=service("http://127.0.0.1:9")) as url, asked(url) as client:
        for path in ("stream", "batch"):
            response = await client.post(f"/api/tts/{path}", json=BODY | change)
            assert response.status_code == 400
            assert says in response.json()["error"]
    await codec.stop()


@pytest.mark.parametrize("path", ["stream", "batch", "synthesize"])
@pytest.mark.parametrize(
    "body",
    [
        b'{"text": "Hello \\ud83d", "voice": "flute", "service": "local"}',
        b'{"text": "Hello \xed\xa0\xbd", "voice": "flute", "service": "local"}',
        b'{"text": "Hello.", "\\ud83d": 1, "voice": "\\udc00", "service": "local"}',
    ],
)
async def test_half_a_character_is_told_and_not_passed_on(path, body):
    async with parley(ToneTTS(), None) as url, asked(url) as client:
        response = await client.post(f"/api/tts/{path}", content=body)
        assert (response.status_code, response.json()["code"]) == (400, "bad_message")
        assert "half a character" in response.json()["error"]


async def test_a_pair_of_halves_is_a_character():
    async with parley(ToneTTS(), None) as url, asked(url) as client:
        body = b'{"text": "Hello \\ud83c\\udf88 there", "voice": "flute", "service": "local"}'
        assert (await client.post("/api/tts/stream", content=body)).status_code == 200


# What goes wrong after it: the connection is cut, and no JSON lies in the audio


async def dies(answer):
    answer.die()


async def ends_early(answer):
    await answer.end()


async def says_error(answer):
    await answer.line({"status": "error", "error": "out of memory"})
    await answer.end()


async def sends_garbage(answer):
    await answer.piece(b"Internal Server Error")
    await answer.end()


async def sends_bad_tokens(answer):
    await answer.line({"status": "streaming", "chunk": 2, "tokens": [99_999], "embedding": [0.0] * 128})
    await answer.left()


async def loses_a_chunk(answer):
    await answer.line((await tokens_of("Three.")) | {"chunk": 3})
    await answer.left()


async def falls_silent(answer):
    await answer.left()


@pytest.mark.parametrize(
    ("script", "code"),
    [
        (dies, "upstream_died"),
        (ends_early, "upstream_died"),
        (says_error, "upstream_failed"),
        (sends_garbage, "upstream_garbled"),
        (sends_bad_tokens, "upstream_garbled"),
        (loses_a_chunk, "upstream_garbled"),
        (falls_silent, "upstream_timeout"),
    ],
)
async def test_an_upstream_that_fails_later_cuts_the_stream_and_the_reason_can_be_asked(script, code):
    async def then(answer):
        await answer.head()
        await answer.line(await tokens_of("One kettle."))
        await asyncio.sleep(0.05)
        await script(answer)

    codec = fake_codec()
    async with (
        upstream(then) as back,
        parley(None, codec, services=service(back), chunk_timeout_s=0.3) as url,
        asked(url) as client,
    ):
        response, pcm, end = await listen(client, headers={"X-Request-Id": "me-2"})
        assert response.status_code == 200
        assert "incomplete chunked read" in end
        assert heard(pcm) == pitches("One kettle.")
        assert len(pcm) == 2 * 2 * 7_680
        told = (await client.get("/api/tts/streams/me-2")).json()
        assert (told["status"], told["code"], told["chunks"]) == ("failed", code, 1)
        assert told["message"]
        assert told["audio_ms"] == 320
    await codec.stop()


async def test_a_codec_that_fails_is_told_like_the_rest():
    async def script(answer):
        await answer.head()
        await answer.line(await tokens_of("One."))
        await answer.line(DONE)
        await answer.end()

    network = FakeNetwork()
    network.failing = RuntimeError("device lost")
    codec = fake_codec(network)
    async with upstream(script) as back, parley(None, codec, services=service(back)) as url, asked(url) as client:
        response, body, _ = await listen(client)
        assert (response.status_code, json.loads(body)["code"]) == (500, "codec_failed")
    await codec.stop()


async def test_a_listener_who_leaves_stops_the_upstream():
    left = asyncio.Event()

    async def script(answer):
        await answer.head()
        await answer.line(await tokens_of("One kettle."))
        await answer.left()
        left.set()

    codec = fake_codec()
    async with upstream(script) as back, parley(None, codec, services=service(back)) as url, asked(url) as client:
        async with client.stream("POST", "/api/tts/stream", json=BODY) as response:
            await anext(response.aiter_bytes())
        async with asyncio.timeout(3):
            await left.wait()
    await codec.stop()


async def test_a_listener_who_leaves_before_the_first_byte_stops_the_upstream():
    begun, left = asyncio.Event(), asyncio.Event()

    async def script(answer):
        begun.set()
        await answer.left()
        left.set()

    codec = fake_codec()
    async with upstream(script) as back, parley(None, codec, services=service(back)) as url, asked(url) as client:
        request = asyncio.create_task(listen(client))
        await begun.wait()
        request.cancel()
        async with asyncio.timeout(3):
            await left.wait()
    await codec.stop()
    assert not [t for t in asyncio.all_tasks() if t.get_name() in ("ahead", "delivery", "delivery-left", "codec")]


async def test_a_slow_listener_holds_up_the_voice_instead_of_filling_the_memory():
    tts = ToneTTS()
    async with (
        parley(tts, max_chars=200, longest=500_000) as url,
        asked(url) as client,
        client.stream("POST", "/api/tts/stream", json=BODY | {"service": "local", "text": prose(200_000)}) as response,
    ):
        assert response.status_code == 200
        said = -1
        while said != len(tts.said):
            said = len(tts.said)
            await asyncio.sleep(0.3)
        assert said < len(prose(200_000)) / 500 / 2


# Who may ask


async def test_only_so_many_streams_at_once():
    async def script(answer):
        await answer.head()
        await answer.line(await tokens_of("One."))
        await answer.left()

    codec = fake_codec()
    async with (
        upstream(script) as back,
        parley(None, codec, services=service(back), streams=1) as url,
        asked(url) as client,
    ):
        first = {"X-Request-Id": "first"}
        async with client.stream("POST", "/api/tts/stream", json=BODY, headers=first) as response:
            await anext(response.aiter_bytes())
            refused = await client.post("/api/tts/stream", json=BODY)
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "2")
        ended = "/api/tts/streams/first"
        async with asyncio.timeout(3):
            while (await client.get(ended)).json()["status"] == "streaming":  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        async with client.stream("POST", "/api/tts/stream", json=BODY) as response:
            assert response.status_code == 200
    await codec.stop()


@pytest.mark.parametrize("id", [lambda n: "the-same", lambda n: f"me-{n}"])
def test_streams_are_counted_whatever_their_ids(id):
    ledger = Ledger()
    streams = [ledger.open(id(n), "a") for n in range(KEPT + 5)]
    assert ledger.running() == KEPT + 5
    for progress in streams[1:]:
        progress.end = "ok"
    assert ledger.running() == 1


async def test_cors_lets_in_the_pages_that_are_configured_and_no_other():
    async with parley(ToneTTS(), origins=("https://a.example",)) as url, asked(url) as client:
        ask = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type"}
        good = await client.options("/api/tts/stream", headers={"Origin": "https://a.example"} | ask)
        assert good.status_code == 200
        assert good.headers["access-control-allow-origin"] == "https://a.example"
        bad = await client.options("/api/tts/stream", headers={"Origin": "https://b.example"} | ask)
        assert "access-control-allow-origin" not in bad.headers
        body = BODY | {"service": "local"}
        refused = await client.post("/api/tts/stream", json=body, headers={"Origin": "https://b.example"})
        assert (refused.status_code, refused.json()["code"]) == (403, "forbidden_origin")
        served = await client.post("/api/tts/stream", json=body, headers={"Origin": "https://a.example"})
        assert served.status_code == 200
        assert served.headers["access-control-allow-origin"] == "https://a.example"
        assert (await client.post("/api/tts/stream", json=body, headers={"Origin": url})).status_code == 200


async def test_the_token_is_asked_for_everywhere():
    async with parley(ToneTTS(), token="secret") as url, asked(url) as client:
        for path in ("stream", "batch", "synthesize"):
            refused = await client.post(f"/api/tts/{path}", json=BODY, headers={"X-Request-Id": "me-4"})
            assert (refused.status_code, refused.json()["requestId"]) == (401, "me-4")
            assert refused.headers["x-request-id"] == "me-4"
        assert (await client.get("/api/tts/services")).status_code == 401
        good = await client.get("/api/tts/services", headers={"Authorization": "Bearer secret"})
        assert good.json()["services"] == [{"name": "local", "kind": "local", "format": "pcm_16"}]


async def test_twenty_listeners_at_once_each_hear_their_own_text():
    far, near = fake_codec(), fake_codec()
    texts = [prose(300 + 7 * n)[n:] for n in range(20)]
    async with (
        parley(ToneTTS(), far, streams=40) as back,
        parley(None, near, services=service(back, "parley"), streams=40) as url,
        asked(url) as client,
    ):
        got = await asyncio.gather(*(listen(client, BODY | {"text": text}) for text in texts))
        for (_, pcm, end), text in zip(got, texts, strict=True):
            assert end == ""
            assert heard(pcm) == pitches(text)
    await far.stop()
    await near.stop()


async def test_stages_are_counted():
    from prometheus_client import REGISTRY

    def count(stage):
        return REGISTRY.get_sample_value("parley_tier_seconds_count", {"stage": stage}) or 0

    before = {stage: count(stage) for stage in ("first_chunk", "chunk", "decode", "first_byte")}
    far, near = fake_codec(), fake_codec()
    async with (
        parley(ToneTTS(), far) as back,
        parley(None, near, services=service(back, "parley")) as url,
        asked(url) as client,
    ):
        await listen(client, headers={"X-Request-Id": "counted"})
        told = (await client.get("/api/tts/streams/counted")).json()
    assert (told["status"], told["chunks"] > 1) == ("complete", True)
    assert count("first_chunk") - before["first_chunk"] == count("first_byte") - before["first_byte"] == 1
    assert count("decode") - before["decode"] == told["chunks"]
    await far.stop()
    await near.stop()
