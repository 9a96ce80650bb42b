"""RunPod's serverless API as it is documented, on loopback."""

import asyncio
import base64

from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route


class Api:
    """Jobs that stream `outputs`, one of `per_look` at every look, after `cold` looks in the queue."""

    def __init__(self, outputs=(), per_look=1, cold=2, end="COMPLETED", error=None, aggregate=False):
        self.outputs, self.per_look, self.cold, self.end, self.error = list(outputs), per_look, cold, end, error
        self.aggregate, self.pause, self.strange = aggregate, 0.0, None
        self.looks, self.submitted, self.cancelled, self.busy = 0, [], [], 0

    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/v2/x/run", self.run, methods=["POST"]),
                Route("/v2/x/runsync", self.runsync, methods=["POST"]),
                Route("/v2/x/stream/{id}", self.stream),
                Route("/v2/x/status/{id}", self.status),
                Route("/v2/x/cancel/{id}", self.cancel, methods=["POST"]),
            ]
        )

    async def run(self, request):
        self.submitted.append((await request.json(), request.headers["authorization"]))
        return JSONResponse({"id": "job-1", "status": "IN_QUEUE"})

    async def stream(self, request):
        self.looks += 1
        await asyncio.sleep(self.pause)
        if self.strange is not None:
            return JSONResponse({"id": "job-1", "status": "IN_PROGRESS", "stream": self.strange})
        if self.looks <= self.cold:
            return JSONResponse({"id": "job-1", "status": "IN_QUEUE", "stream": []})
        now, self.outputs = self.outputs[: self.per_look], self.outputs[self.per_look :]
        held = [{"output": now}] if self.aggregate else [{"output": output} for output in now]
        status = "IN_PROGRESS" if self.outputs or (now and self.end != "COMPLETED") else self.end
        told = {"id": "job-1", "status": status, "stream": held if now else []}
        return JSONResponse(told | ({"error": self.error} if self.error else {}))

    async def runsync(self, request):
        self.submitted.append((await request.json(), request.headers["authorization"]))
        if self.cold:
            return JSONResponse({"id": "job-1", "status": "IN_PROGRESS"})
        return await self.status(request)

    async def status(self, request):
        self.looks += 1
        if self.looks < self.cold:
            return JSONResponse({"id": "job-1", "status": "IN_PROGRESS"})
        return JSONResponse({"id": "job-1", "status": self.end, "output": self.outputs, "error": self.error})

    async def cancel(self, request):
        self.cancelled.append(request.path_params["id"])
        return JSONResponse({"id": "job-1", "status": "CANCELLED"})


def spoken(*values):
    chunks = [
        {"status": "streaming", "chunk": n, "format": "pcm_16", "sample_rate": 48_000, "audio_chunk": value}
        for n, value in enumerate((base64.b64encode(bytes([v, 0])).decode() for v in values), 1)
    ]
    return [*chunks, {"status": "complete", "total_chunks": len(chunks)}]
