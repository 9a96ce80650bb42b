"""RunPod: messages within its limit, and the client against an API that behaves like the real one."""

import json
from contextlib import aclosing

import pytest

from server.errors import UpstreamError
from server.pipelines.tiers.backend import Backend
from server.pipelines.tiers.chunks import Audio, Complete, Reading
from server.pipelines.tiers.clients import client
from server.pipelines.tiers.pieces import LARGEST, pieces
from server.pipelines.tiers.requests import Request
from server.pipelines.tiers.runpod import Endpoint
from server.pipelines.tiers.services import Service
from tests.runpod_api import Api, spoken
from tests.tiers_app import asked, parley, pick_of, serving, until
from tests.tones import ToneTTS, heard, pitches, prose


async def test_much_audio_goes_in_pieces_that_runpod_takes():
    backend = Backend(pick_of(ToneTTS()), None)
    asked = Request(prose(900), format="pcm_16")
    async with aclosing(pieces(backend.stream(asked))) as messages:
        found = [message async for message in messages]
    assert max(len(json.dumps(message)) for message in found) < 1_000_000
    assert max(len(message.get("audio_chunk", "")) for message in found) == LARGEST
    reading = Reading()
    parts = [part for message in found for part in reading.read(message)]
    reading.finish()
    assert heard(b"".join(part.pcm for part in parts[:-1])) == pitches(prose(900))
    assert [message.get("num_samples") for message in found[:-1]] == [len(part.pcm) // 2 for part in parts[:-1]]
    assert all(len(part.pcm) % 2 == 0 for part in parts[:-1])


async def collected(api, batch=False):
    async with serving(api.app()) as url, client() as http:
        endpoint = Endpoint(http, Service(kind="runpod", url=f"{url}/v2/x/runsync", key="k", poll_s=0.005))
        async with aclosing(endpoint.batch({"text": "a"}) if batch else endpoint.parts({"text": "a"})) as parts:
            return [part async for part in parts]


@pytest.mark.parametrize("aggregate", [False, True])
@pytest.mark.parametrize(("per_look", "cold"), [(1, 0), (1, 3), (2, 1), (50, 2)])
async def test_a_job_is_submitted_and_its_stream_polled(per_look, cold, aggregate):
    api = Api(spoken(1, 2, 3), per_look, cold, aggregate=aggregate)
    parts = await collected(api)
    assert parts == [Audio(b"\1\0", 48_000), Audio(b"\2\0", 48_000), Audio(b"\3\0", 48_000), Complete()]
    assert api.submitted == [({"input": {"text": "a"}}, "Bearer k")]
    assert api.cancelled == []


@pytest.mark.parametrize("cold", [0, 3])
async def test_a_batch_is_waited_for(cold):
    parts = await collected(Api(spoken(1, 2), cold=cold), batch=True)
    assert parts == [Audio(b"\1\0", 48_000), Audio(b"\2\0", 48_000), Complete()]


@pytest.mark.parametrize("batch", [False, True])
@pytest.mark.parametrize("end", ["FAILED", "CANCELLED", "TIMED_OUT"])
async def test_a_job_that_fails_is_told(end, batch):
    with pytest.raises(UpstreamError, match=f"{end.lower()}: out of memory"):
        await collected(Api(cold=0, end=end, error="out of memory"), batch)


async def test_a_job_that_fails_after_some_chunks_is_told_after_them():
    api = Api(spoken(1)[:1], cold=0, end="FAILED", error="lost")
    async with serving(api.app()) as url, client() as http:
        endpoint = Endpoint(http, Service(kind="runpod", url=f"{url}/v2/x", key="k", poll_s=0.005))
        async with aclosing(endpoint.parts({})) as parts:
            assert await anext(parts) == Audio(b"\1\0", 48_000)
            with pytest.raises(UpstreamError, match="lost"):
                await anext(parts)
        assert api.cancelled == ["job-1"]


@pytest.mark.parametrize(
    ("api", "says"),
    [
        (Api(spoken(1)[:1], cold=0), "stopped in the middle"),
        (Api(["text"], cold=0), "no JSON object"),
        (Api([{"error": "no such voice"}], cold=0), "no such voice"),
    ],
)
async def test_streams_that_are_none_are_told(api, says):
    with pytest.raises(UpstreamError, match=says):
        await collected(api)


@pytest.mark.parametrize("stream", ["abc", {"a": 1}, ["x"], [None], 5, [[]]])
async def test_answers_that_are_none_of_runpods_are_told(stream):
    api = Api()
    api.strange = stream
    with pytest.raises(UpstreamError, match="no list of outputs") as error:
        await collected(api)
    assert error.value.code == "upstream_garbled"
    assert api.cancelled == ["job-1"]


async def test_who_leaves_cancels_the_job():
    api = Api(spoken(1, 2)[:2], cold=0, end="IN_PROGRESS")
    service = {"kind": "runpod", "format": "pcm_16", "key": "k", "poll_s": 0.01}
    async with (
        serving(api.app()) as back,
        parley(services={"a": service | {"url": f"{back}/v2/x"}}) as url,
        asked(url) as listener,
    ):
        body = {"text": "Hi.", "voice": "a", "service": "a"}
        async with listener.stream("POST", "/api/tts/stream", json=body) as response:
            assert await anext(response.aiter_bytes())
            assert api.cancelled == []
        await until(lambda: api.cancelled == ["job-1"])
