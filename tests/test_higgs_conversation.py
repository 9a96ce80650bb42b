"""A whole conversation on a real socket, voiced by Higgs: two characters, one of them a clone, and an interruption."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="pip install torch==2.13.0")
pytest.importorskip("transformers", reason="pip install -e .[test]")

from server.audio import wav
from server.pipelines.loading import load
from tests import fakes
from tests.higgs import tiny
from tests.wire import address, connected, serving

ADA = """
name = "Ada"
prompt = "An engineer."
[voice]
method = "description"
speaker = "feminine; warm"
seed = 3
temperature = 1.0
"""
BEN = """
name = "Ben"
prompt = "A baker."
[voice]
method = "clone"
reference = "ben.wav"
transcript = "This is how Ben speaks."
seed = 35
temperature = 1.0
"""
LONG = "A sentence of some length, spoken by one of many. " * 6


def _cast(folder: Path) -> Path:
    (folder / "ada.toml").write_text(ADA)
    (folder / "ben.toml").write_text(BEN)
    noise = np.random.default_rng(0).normal(0, 0.1, 48_000)
    (folder / "ben.wav").write_bytes(wav((np.clip(noise, -1, 1) * 32767).astype("<i2").tobytes(), 24_000))
    return folder


async def test_two_characters_and_an_interruption(tmp_path: Path) -> None:
    engine: Any = load(
        "tts",
        "higgs",
        {
            "model": str(tiny.folder()),
            "local_files_only": True,
            "device": tiny.DEVICE,
            "streams": 4,
            "max_seconds": 3.0,
        },
    )
    llm = fakes.FakeLLM("Hello from Ada.", "And from Ben, with flour on his hands.", LONG, "Right, I stop.")
    settings = {"characters": {"directory": _cast(tmp_path), "active": ("ada", "ben")}}
    async with serving(fakes.rack(llm, tts=engine), **settings) as server, connected(address(server)) as client:
        created = await client.until("session.created")
        assert created["output_rate"] == 24_000
        assert created["engines"]["tts"] == "higgs"

        await client.send("user.text", text="Ada, say hello.")
        ada = await client.until("reply.done", 1)
        await client.send("user.text", text="Ben, and you?")
        ben = await client.until("reply.done", 2)
        assert [e["character"] for e in client.of("reply.started")] == ["ada", "ben"]
        for done in (ada, ben):
            assert done["audio_ms"] > 0
            assert len(client.audio[done["reply"]]) / 48 == pytest.approx(done["audio_ms"], abs=1)
            assert np.frombuffer(client.audio[done["reply"]], "<i2").std() > 30, "silence"
        assert (ada["text"], ben["text"]) == ("Hello from Ada.", "And from Ben, with flour on his hands.")

        await client.send("user.text", text="Ben, tell me everything.")
        await client.until("reply.audio", 3)
        await client.speak(fakes.silence(700) + fakes.voice("stop that now please") + fakes.silence(900))
        cut = await client.until("reply.interrupted")
        assert LONG.startswith(cut["heard"])
        assert cut["unheard"]
        assert not [1 for at, reply, _ in client.arrivals if reply == cut["reply"] and at > cut["_at"]]
        last = await client.until("reply.done", 3)
        assert last["text"] == "Right, I stop."
        assert engine.active == 0, "the interrupted utterance still holds its slot"
        assert not client.of("error")
        client.events.clear()
        await client.send("history.get")
        told = (await client.until("history"))["messages"]
        assert [m["text"] for m in told if m.get("cut")] == [cut["heard"]]


async def test_a_voice_that_finds_no_memory_is_told_and_the_conversation_goes_on(tmp_path: Path) -> None:
    import torch

    options = {"model": str(tiny.folder()), "local_files_only": True, "max_seconds": 4.0}
    engine: Any = load("tts", "higgs", options | {"device": tiny.DEVICE, "step": "eager"})
    settings = {"characters": {"directory": _cast(tmp_path), "active": ("ada", "ben")}}
    llm = fakes.FakeLLM("This fails.", "This works.")
    async with serving(fakes.rack(llm, tts=engine), **settings) as server, connected(address(server)) as client:

        def full(*_: Any) -> None:
            raise torch.OutOfMemoryError("CUDA out of memory (simulated)")

        handle = engine._machine.step.model.audio_lm_head.register_forward_pre_hook(full)
        await client.send("user.text", text="Ada, speak.")
        error = await client.until("error")
        assert error["code"] == "tts_out_of_memory"
        handle.remove()
        await client.send("user.text", text="Ada, again.")
        await client.when(lambda: [e for e in client.of("reply.done") if e["text"] == "This works."], what="the reply")
