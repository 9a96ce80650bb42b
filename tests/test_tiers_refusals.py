"""What goes wrong before the first byte is answered as JSON, with the status that fits."""

import json

import pytest

from tests.fake_codec import fake_codec
from tests.tiers_app import asked, parley, upstream
from tests.tiers_listener import BODY, listen, service
from tests.tones import ToneTTS


def answering(status: str, body: bytes, kind: str = "application/json", **headers: str):
    async def script(answer):
        await answer.head(status, kind, **headers)
        await answer.piece(body)
        await answer.end()

    return script


@pytest.mark.parametrize(
    ("script", "status", "code"),
    [
        (answering("401 Unauthorized", b"no key"), 502, "upstream_auth"),
        (answering("403 Forbidden", b"wrong key"), 502, "upstream_auth"),
        (answering("429 Too Many Requests", b"slow down"), 503, "upstream_busy"),
        (answering("503 Service Unavailable", b"full"), 503, "upstream_busy"),
        (answering("504 Gateway Timeout", b"late"), 504, "upstream_timeout"),
        (answering("408 Request Timeout", b"late"), 504, "upstream_timeout"),
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


@pytest.mark.parametrize(
    ("said", "told"), [("7", "7"), ("0.2", "1"), ("Wed, 21 Oct 2026 07:28:00 GMT", None), ("-1", None), ("", None)]
)
async def test_when_a_busy_upstream_may_be_asked_again_is_passed_on_to_pages_too(said: str, told: str | None):
    codec, page = fake_codec(), {"Origin": "https://a.example"}
    script = answering("429 Too Many Requests", b"slow down", retry_after=said)
    async with (
        upstream(script) as back,
        parley(None, codec, services=service(back), origins=("https://a.example",)) as url,
        asked(url) as client,
    ):
        answer = await client.post("/api/tts/stream", json=BODY, headers=page)
        assert (answer.status_code, answer.headers.get("retry-after")) == (503, told)
        assert "Retry-After" in answer.headers["access-control-expose-headers"]
    await codec.stop()


async def test_what_there_is_not_is_told_in_json_as_well():
    async with parley(ToneTTS()) as url, asked(url) as client:
        for method, path, status in (("POST", "nothing", 404), ("GET", "stream", 405), ("GET", "", 404)):
            answer = await client.request(method, f"/api/tts/{path}", headers={"X-Request-Id": "me-2"})
            assert answer.status_code == status
            assert answer.json()["requestId"] == "me-2"
            assert answer.headers.get("allow") == ("POST" if status == 405 else None)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b'{"error": "no voice \'tuba\'", "message": "x", "code": "bad_config"}', "answered 400: no voice 'tuba'"),
        (b'{"error": {"message": "out of credit"}}', "answered 400: out of credit"),
        (b'{"detail": 5}', "answered 400: no reason given"),
        (b"bad gateway", "answered 400: bad gateway"),
        (b"[1]", "answered 400: [1]"),
        (b"", "answered 400: no reason given"),
    ],
)
async def test_the_reason_a_service_gives_is_passed_on_without_its_wrapping(body, says):
    async with (
        upstream(answering("400 Bad Request", body)) as back,
        parley(services=service(back, format="pcm_16")) as url,
        asked(url) as client,
    ):
        response = await client.post("/api/tts/stream", json=BODY)
        assert (response.status_code, response.json()["code"]) == (502, "upstream_failed")
        assert response.json()["error"].endswith(says)


async def test_an_upstream_that_is_not_there_or_says_nothing_is_told_as_json():
    async def silent(answer):
        await answer.left()

    codec, gone = fake_codec(), {"gone": {"url": "http://127.0.0.1:9"}}
    async with (
        upstream(silent) as back,
        parley(None, codec, services=service(back, chunk_timeout_s=0.2) | gone) as url,
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
