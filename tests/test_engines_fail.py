"""Engines that stall, die and refuse, in a real conversation on a real socket: told in plain words, and survived."""

import pytest

from server.pipelines.llm import openai
from tests import fakes
from tests.llm_server import Fault, LLMServer
from tests.wire import address, connected, serving

TEXT = "This sentence comes first. And this one comes after it. And a third one."


@pytest.mark.parametrize(
    ("fault", "code", "hint"),
    [
        (Fault(status=401), "llm_auth", "PARLEY_LLM_API_KEY"),
        (Fault(status=429, headers={"retry-after": "7"}), "llm_rate_limit", "7"),
        (Fault(status=500), "llm_failed", ""),
        (Fault(stall_after=12), "llm_timeout", ""),
        (Fault(die_after=12), "llm_unreachable", ""),
        (Fault(garbage_after=12), "llm_failed", ""),
        (Fault(hang=True), "llm_timeout", ""),
    ],
)
async def test_a_model_that_fails_is_told_and_the_next_turn_is_answered(fault: Fault, code: str, hint: str):
    async with LLMServer(TEXT) as model:
        model.plan = [fault, fault]  # one retry may be made before the first word
        llm = openai.create(base_url=model.url, model="m", timeout_s=0.5, stall_s=0.5)
        async with serving(fakes.rack(llm)) as server, connected(address(server)) as client:  # type: ignore[arg-type]
            await client.send("user.text", text="hi")
            error = await client.until("error")
            assert (error["code"], error["fatal"]) == (code, False)
            assert hint in error["message"]
            done = await client.until("reply.done")
            assert TEXT.startswith(done["text"])
            if fault.stall_after or fault.die_after:
                assert done["text"].startswith("This sentence comes first.")
            model.plan = []
            await client.send("user.text", text="again")
            assert (await client.until("reply.done", 2))["text"] == TEXT
            assert len(client.of("error")) == 1


async def test_a_model_that_is_not_there_is_told():
    llm = openai.create(base_url="http://127.0.0.1:9/v1", model="m")
    async with serving(fakes.rack(llm)) as server, connected(address(server)) as client:  # type: ignore[arg-type]
        await client.send("user.text", text="hi")
        error = await client.until("error")
        assert error["code"] == "llm_unreachable"
        assert "PARLEY_LLM_BASE_URL" in error["message"]


async def test_an_interruption_stops_the_request():
    async with LLMServer(TEXT * 20, delay=0.02) as model:
        llm = openai.create(base_url=model.url, model="m")
        async with serving(fakes.rack(llm)) as server, connected(address(server)) as client:  # type: ignore[arg-type]
            await client.send("user.text", text="hi")
            await client.until("reply.audio")
            await client.send("reply.interrupt")
            cut = await client.until("reply.interrupted")
            await model.idle()
            assert model.requests[0].aborted
            await client.send("user.text", text="and now?")
            await client.until("reply.started", 2)
            await model.arrived(2)
            assert model.requests[-1].messages[-1]["content"].endswith("and now?")
            told = [m["content"] for m in model.requests[-1].messages if m["role"] == "assistant"]
            assert told == ([cut["heard"].rstrip(".") + "—"] if cut["heard"] else [])


async def test_a_voice_that_raises_is_told_and_the_next_turn_is_spoken():
    rack = fakes.rack(fakes.FakeLLM("EXPLODE now.", "Fine again."))
    async with serving(rack) as server, connected(address(server)) as client:
        await client.send("user.text", text="hi")
        assert (await client.until("error"))["code"] == "tts_failed"
        await client.until("reply.done")
        await client.send("user.text", text="again")
        done = await client.until("reply.done", 2)
        assert fakes.words(client.audio[done["reply"]]) == ["fine", "again"]


async def test_an_engine_that_raises_what_nobody_foresaw_is_told_too():
    class Odd(fakes.FakeLLM):
        async def stream(self, messages, settings):
            if len(self.seen) == 0:
                self.seen.append([])
                raise ZeroDivisionError("a bug")
            yield "Fine."

    async with serving(fakes.rack(Odd())) as server, connected(address(server)) as client:
        await client.send("user.text", text="hi")
        error = await client.until("error")
        assert (error["code"], error["fatal"]) == ("internal", False)
        assert "bug" not in error["message"]
        await client.send("user.text", text="again")
        assert (await client.until("reply.done"))["text"] == "Fine."
