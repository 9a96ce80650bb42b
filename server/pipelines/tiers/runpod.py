"""RunPod's serverless API: submit a job, then ask again and again what it has streamed so far.

Source: docs.runpod.io, `/run`, `/stream/{id}`, `/cancel/{id}`, `/runsync`, `/status/{id}`; runpod-python 1.12.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Iterator, Mapping
from typing import Any

import httpx

from server.errors import UpstreamError
from server.pipelines.tiers.chunks import Part, Reading
from server.pipelines.tiers.clients import failure, headers, refuse
from server.pipelines.tiers.services import Service

FAILED = {"FAILED", "CANCELLED", "TIMED_OUT"}
GOODBYE_S = 2.0  # to say that a job is not wanted any more
SLOWEST_S = 2.0  # between two looks


class Endpoint:
    """One endpoint, `https://api.runpod.ai/v2/ID`."""

    def __init__(self, http: httpx.AsyncClient, service: Service) -> None:
        self._http, self._service = http, service
        self._base = service.url.rstrip("/")
        for verb in ("/run", "/runsync"):
            self._base = self._base.removesuffix(verb)

    async def parts(self, body: dict[str, Any]) -> AsyncGenerator[Part, None]:
        """What the job streams, ending with `Complete`. Closing it cancels the job. Raises `UpstreamError`."""
        job = await self._submit("run", body)
        reading = Reading()
        try:
            async for message in self._outputs(job):
                for part in reading.read(message):
                    yield part
                    if reading.complete:
                        return
            reading.finish()
        finally:
            if not reading.complete:
                await self._cancel(job)

    async def batch(self, body: dict[str, Any]) -> AsyncGenerator[Part, None]:
        """The whole result of the job. Raises `UpstreamError`."""
        state, reading = await self._ask("POST", "runsync", {"input": body}), Reading()
        while _status(state) not in FAILED | {"COMPLETED"}:
            await asyncio.sleep(self._service.poll_s)
            state = await self._state("status", _id(state))
        if _status(state) in FAILED:
            raise _failed(state)
        for message in _messages(state.get("output")):
            for part in reading.read(message):
                yield part
        reading.finish()

    async def _outputs(self, job: str) -> AsyncGenerator[Mapping[str, Any], None]:
        pause = self._service.poll_s
        while True:
            state = await self._state("stream", job)
            outputs = [output for held in _held(state) for output in _messages(held.get("output"))]
            for output in outputs:
                yield output
            if outputs:
                pause = self._service.poll_s
                continue
            if _status(state) in FAILED:
                raise _failed(state)
            if _status(state) == "COMPLETED":
                return
            await asyncio.sleep(pause)
            pause = min(SLOWEST_S, pause * 1.5)

    async def _submit(self, verb: str, body: dict[str, Any]) -> str:
        return _id(await self._ask("POST", verb, {"input": body}))

    async def _state(self, verb: str, job: str) -> dict[str, Any]:
        """GET, as RunPod has it; the package's own test server wants POST."""
        try:
            return await self._ask("GET", f"{verb}/{job}")
        except UpstreamError as error:
            if "answered 405" not in str(error):
                raise
        return await self._ask("POST", f"{verb}/{job}")

    async def _cancel(self, job: str) -> None:
        with contextlib.suppress(UpstreamError, TimeoutError):
            async with asyncio.timeout(GOODBYE_S):
                await self._ask("POST", f"cancel/{job}")

    async def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        where = f"{self._base}/{path}"
        try:
            response = await self._http.request(method, where, json=body, headers=headers(self._service))
            await refuse(response)
            state = response.json()
        except httpx.HTTPError as error:
            raise failure(error, where) from error
        except ValueError:
            state = None
        if not isinstance(state, dict):
            raise UpstreamError(f"{where} answered something that is no JSON object", code="upstream_garbled")
        return state


def _id(state: Mapping[str, Any]) -> str:
    if not isinstance(state.get("id"), str):
        raise UpstreamError("RunPod gave the job no id", code="upstream_garbled")
    return str(state["id"])


def _status(state: Mapping[str, Any]) -> str:
    return str(state.get("status", ""))


def _held(state: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """What has come since the last look."""
    held = state.get("stream") or []
    if not isinstance(held, list) or not all(isinstance(one, Mapping) for one in held):
        raise UpstreamError("RunPod's stream is no list of outputs", code="upstream_garbled")
    return held


def _messages(output: Any) -> Iterator[Mapping[str, Any]]:
    """A job's output is one message, or a list of them where it was aggregated."""
    if isinstance(output, Mapping):
        yield output
    elif isinstance(output, list):
        for one in output:
            yield from _messages(one)
    elif output is not None:
        raise UpstreamError("RunPod's job sent something that is no JSON object", code="upstream_garbled")


def _failed(state: Mapping[str, Any]) -> UpstreamError:
    return UpstreamError(f"RunPod's job {_status(state).lower()}: {str(state.get('error', 'no reason given'))[:300]}")
