"""What lies between middleware and service: bytes cut anywhere, objects and sound under any name."""

import json

import pytest

from server.pipelines.engines import Voice
from tests.fake_codec import fake_codec
from tests.tiers_app import asked, parley, upstream
from tests.tiers_listener import DONE, TEXT, listen, service, tokens_of
from tests.tones import ToneTTS, heard, pitches


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


@pytest.mark.parametrize(
    ("kind", "rate", "more"),
    [
        ("audio/pcm", 48_000, {"x_sample_rate": "24000"}),
        ("audio/L16;rate=24000", 48_000, {}),
        ('audio/pcm; channels=1; rate="24000"', 48_000, {}),
        ("audio/pcm", 24_000, {}),
        ("", 24_000, {}),
    ],
)
async def test_bare_audio_is_forwarded_and_brought_to_48_khz(kind, rate, more):
    tts = ToneTTS()
    pcm = b"".join([piece.pcm async for piece in tts.open(Voice()).speak("Forest glass harbor.")])

    async def script(answer):
        await answer.head(kind=kind, **more)
        for at in range(0, len(pcm), 1_001):  # odd: samples are cut, too
            await answer.piece(pcm[at : at + 1_001])
        await answer.end()

    async with (
        upstream(script) as back,
        parley(services=service(back, format="pcm_16", rate=rate)) as url,
        asked(url) as client,
    ):
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
