"""The Worker between a listener and a service that errs: what is told, and when it breaks off."""

import asyncio
import json
from types import SimpleNamespace

import numpy as np
import pytest

from tests.edge import BODY, chunk, listen, worker
from tests.tiers_app import upstream


@pytest.mark.timeout(420)
async def test_what_the_network_and_the_service_do_wrong_is_told_at_the_edge():
    now = SimpleNamespace()

    async def play(answer):
        await now.script(answer)

    async with (
        upstream(play) as back,
        worker({"a": {"kind": "ndjson", "url": back}}, CHUNK_TIMEOUT_MS="900") as client,
    ):
        # split and joined
        messages = [
            chunk(1, 500) | {"text": 'a "quoted" } brace é'},
            chunk(2, 600),
            {"status": "complete", "total_chunks": 2},
        ]
        data = "".join(json.dumps(m, ensure_ascii=False) for m in messages).encode()
        for size in (7, 1_000, len(data)):

            async def cut(answer, size=size):
                await answer.head(kind="application/json")
                for at in range(0, len(data), max(size, len(data) // 60)):
                    await answer.piece(data[at : at + max(size, len(data) // 60)])
                await answer.end()

            now.script = cut
            _, pcm, end = await listen(client)
            assert end == ""
            assert pcm == np.repeat([500, 600], 2_400).astype("<i2").tobytes()

        # the first piece is heard while the second is not there yet
        go = asyncio.Event()

        async def in_two(answer):
            await answer.head()
            await answer.line(chunk(1, 500))
            await go.wait()
            await answer.line(chunk(2, 600))
            await answer.line({"status": "complete"})
            await answer.end()

        now.script = in_two
        async with client.stream("POST", "/api/tts/stream", json=BODY) as response:
            stream = response.aiter_bytes()
            assert len(await anext(stream)) == 4_800
            go.set()
            assert len(b"".join([piece async for piece in stream])) == 4_800

        # bare audio, cut in the middle of samples
        async def bare(answer):
            await answer.head(kind="audio/pcm")
            for at in range(0, 3_001, 1_001):
                await answer.piece(bytes(range(256))[: min(1_001, 3_001 - at)] * 1)
            await answer.end()

        now.script = bare
        response, pcm, end = await listen(client)
        assert (response.status_code, end, len(pcm) % 2) == (200, "", 0)

        # objects under no name, and a chunk without sound between two with it
        unnamed = [chunk(1, 500), chunk(2, 0) | {"audio_chunk": ""}, chunk(3, 600), {"status": "complete"}]
        for size in (1, 1_000_000):

            async def nameless(answer, size=size):
                data = "".join(map(json.dumps, unnamed)).encode()
                await answer.head(kind="application/octet-stream")
                await answer.piece(data[:size])
                await answer.piece(data[size:]) if data[size:] else None
                await answer.end()

            now.script = nameless
            _, pcm, end = await listen(client)
            assert (end, pcm) == ("", np.repeat([500, 600], 2_400).astype("<i2").tobytes())

        async def wrong_rate(answer):
            await answer.head(kind="audio/pcm", x_sample_rate="24000")
            await answer.piece(bytes(200))
            await answer.end()

        now.script = wrong_rate
        response, body, _ = await listen(client)
        assert (response.status_code, json.loads(body)["code"]) == (502, "upstream_garbled")

        # before the first sound: JSON
        async def answered(answer, status, body, kind="application/json"):
            await answer.head(status, kind)
            await answer.piece(body)
            await answer.end()

        tokens = {"status": "streaming", "tokens": [1], "embedding": [0]}
        for arguments, status, code in [
            (("401 Unauthorized", b"no"), 502, "upstream_auth"),
            (("429 Too Many Requests", b"no"), 503, "upstream_busy"),
            (("500 Internal Server Error", b"no"), 502, "upstream_failed"),
            (("200 OK", b"<html>", "text/html"), 502, "upstream_garbled"),
            (("200 OK", b"ID3", "audio/mpeg"), 502, "upstream_garbled"),
            (("200 OK", b'{"status": "error", "error": "lost"}'), 502, "upstream_failed"),
            (("200 OK", b'{"status": "complete"}'), 502, "upstream_garbled"),
            (("200 OK", b'{"half": '), 502, "upstream_died"),
            (("200 OK", json.dumps(tokens).encode()), 502, "upstream_garbled"),
            (("200 OK", json.dumps(chunk(1, 5) | {"sample_rate": 24_000}).encode()), 502, "upstream_garbled"),
            (("200 OK", json.dumps(chunk(1, 5) | {"audio_chunk": "?"}).encode()), 502, "upstream_garbled"),
            (("200 OK", json.dumps(chunk(1, 5) | {"format": "pcm_f32"}).encode()), 502, "upstream_garbled"),
            (("200 OK", b'{"audio_chunk": "", "chunk": 1}{"status": "complete"}'), 502, "upstream_garbled"),
            (("200 OK", b"\1\0" * 50, "audio/L16;rate=24000"), 502, "upstream_garbled"),
        ]:

            async def at_once(answer, arguments=arguments):
                await answered(answer, *arguments)

            now.script = at_once
            response, body, _ = await listen(client)
            assert (response.status_code, json.loads(body)["code"]) == (status, code), arguments

        async def silent(answer):
            await answer.left()

        now.script = silent
        response, body, _ = await listen(client)
        assert (response.status_code, json.loads(body)["code"]) == (504, "upstream_timeout")

        # after it: the stream breaks off, and no JSON lies in the audio
        async def dies(answer):
            answer.die()

        async def ends(answer):
            await answer.end()

        async def errs(answer):
            await answer.line({"status": "error", "error": "lost"})

        async def skips(answer):
            await answer.line(chunk(3, 600))

        async def hangs(answer):
            await answer.left()

        for then in (dies, ends, errs, skips, hangs):
            begun = asyncio.Event()

            async def then_fails(answer, then=then, begun=begun):
                await answer.head()
                await answer.line(chunk(1, 500))
                await begun.wait()
                await then(answer)

            now.script = then_fails
            response, pcm, end = await listen(client, begun=begun)
            assert response.status_code == 200
            assert "incomplete chunked read" in end, then.__name__
            assert pcm == np.full(2_400, 500, "<i2").tobytes()
