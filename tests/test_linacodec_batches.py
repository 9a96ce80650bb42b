"""The codec's one thread and the queue before it: what is alike shares a pass."""

import asyncio

import numpy as np
import pytest

from server.audio import SAMPLE
from server.errors import CodecError, EngineBusy
from server.pipelines.codec._tokens import SPAN, length
from server.pipelines.codec._worker import Worker
from tests.fake_codec import VOICE, FakeNetwork, coded, fake_codec
from tests.tiers_app import until


async def test_requests_of_one_length_share_a_pass_and_come_out_as_alone():
    network = FakeNetwork()
    codec = fake_codec(network)
    await codec.start()
    alone = [await codec.decode(coded(12, seed)) for seed in range(6)]
    network.batches.clear()
    network.gate.clear()
    async with asyncio.TaskGroup() as group:
        first = group.create_task(codec.decode(coded(20)))
        await asyncio.sleep(0)
        tasks = [group.create_task(codec.decode(coded(12, seed))) for seed in range(6)]
        odd = group.create_task(codec.decode(coded(7)))
        await asyncio.sleep(0)
        network.gate.set()
    assert [t.result() for t in tasks] == alone
    assert network.batches == [(1, 20), (6, 12), (1, 7)]
    assert len(odd.result()) == length(7) * SAMPLE
    assert len(first.result()) == length(20) * SAMPLE
    await codec.stop()


async def busy():
    """A network in the middle of one request, and another that waits for it."""
    network = FakeNetwork()
    worker = Worker(network)
    network.gate.clear()
    running = asyncio.create_task(worker.decode(np.arange(4), VOICE))
    await asyncio.sleep(0)
    waiting = asyncio.create_task(worker.decode(np.arange(6), VOICE))
    await asyncio.sleep(0)
    return network, worker, running, waiting


async def test_a_caller_that_leaves_takes_its_request_along():
    network, worker, running, waiting = await busy()
    waiting.cancel()
    await asyncio.wait([waiting])
    network.gate.set()
    await running
    await worker.close()
    assert network.batches == [(1, 4)]


async def test_a_pass_that_fails_for_many_is_tried_one_by_one():
    class Small(FakeNetwork):
        def decode(self, tokens, embeddings):
            if len(tokens) > 1:
                self.batches.append(tokens.shape)
                raise MemoryError("too many")
            return super().decode(tokens, embeddings)

    network = Small()
    worker = Worker(network)
    network.gate.clear()
    async with asyncio.TaskGroup() as group:
        group.create_task(worker.encode(np.zeros(3840, np.float32)))
        await asyncio.sleep(0)
        tasks = [group.create_task(worker.decode(np.arange(4) + n, VOICE)) for n in range(3)]
        await asyncio.sleep(0)
        network.gate.set()
    assert network.batches == [(3, 4), (1, 4), (1, 4), (1, 4)]
    assert all(len(t.result()) == 4 * SPAN for t in tasks)
    await worker.close()


async def test_a_failure_is_told_and_the_next_request_is_served():
    network = FakeNetwork()
    codec = fake_codec(network)
    network.failing = RuntimeError("CUDA error: device-side assert")
    with pytest.raises(CodecError, match="device-side"):
        await codec.decode(coded(4))
    network.failing = None
    assert len(await codec.decode(coded(4))) == 4 * SPAN * SAMPLE
    await codec.stop()


async def test_the_queue_has_an_end():
    network = FakeNetwork()
    worker = Worker(network, waiting=2)
    network.gate.clear()
    tasks = [asyncio.create_task(worker.decode(np.arange(2) + n, VOICE)) for n in range(3)]
    await asyncio.sleep(0)
    tasks.append(asyncio.create_task(worker.decode(np.arange(8), VOICE)))
    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    assert [type(t.exception()) for t in done] == [EngineBusy]
    network.gate.set()
    await asyncio.wait(tasks)
    await worker.close()


async def test_who_leaves_the_queue_makes_room_in_it():
    network = FakeNetwork()
    worker = Worker(network, waiting=1)
    network.gate.clear()
    running = asyncio.create_task(worker.decode(np.arange(2), VOICE))
    await until(lambda: not worker._jobs)
    waiting = asyncio.create_task(worker.decode(np.arange(4), VOICE))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait([waiting])
    another = asyncio.create_task(worker.decode(np.arange(6), VOICE))
    await asyncio.sleep(0)
    network.gate.set()
    await running
    assert len(await another) == 6 * SPAN
    await worker.close()


async def test_stopping_tells_those_who_wait_and_leaves_no_task():
    network, worker, running, waiting = await busy()
    closing = asyncio.create_task(worker.close())
    with pytest.raises(CodecError, match="stopped"):
        await waiting
    network.gate.set()
    await closing
    await running
    with pytest.raises(CodecError, match="stopped"):
        await worker.decode(np.arange(4), VOICE)
    assert network.closed
    assert [t for t in asyncio.all_tasks() if t.get_name() == "codec"] == []
