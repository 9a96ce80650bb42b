"""`/ws/llm` over real sockets, before a scripted OpenAI-compatible server: chunks and how they are told."""

import pytest

from server.pipelines.llm import eliza
from tests.llm_pen import FIRST, SENTENCE, pen, scene, scripted
from tests.llm_server import TEXT, tokens


@pytest.mark.parametrize("flavour", ["openai", "vllm", "llama.cpp"])
async def test_token_mode_says_the_answer_in_chunks_and_nothing_is_lost_between(flavour: str) -> None:
    async with scripted(flavour) as (server, p, _):
        await p.start(pause=FIRST, stream_tokens=True)
        first = await p.until("paused", "done")
        assert first["type"] == "paused"
        assert first["reason"] == "max_tokens"
        assert first["tokens"] == 10
        assert first["text"] == "".join(tokens(TEXT)[:10]) == p.text
        assert isinstance(first["ttft_ms"], float)
        assert isinstance(first["elapsed_ms"], float)
        assert "stream_id" not in first
        chunks = [first]
        while chunks[-1]["type"] == "paused":
            await p.send("continue_stream", stream_id="s1", pause=SENTENCE)
            chunks.append(await p.until("paused", "done"))
        assert p.text == "".join(chunk["text"] for chunk in chunks) == TEXT
        assert [chunk["reason"] for chunk in chunks[1:]] == ["sentence_boundary"] * (len(chunks) - 2) + [
            "sentence_boundary_eos"
        ]
        assert len(server.requests) == (1 if flavour == "openai" else len(chunks))


async def test_a_sentence_is_a_real_one_and_never_holds_the_next_one_s_first_token() -> None:
    async with scripted() as (_, p, _):
        await p.start(pause=SENTENCE)
        said = [(await p.next())["text"]]
        while not p.frames[-1]["done"]:
            await p.send("continue_stream", stream_id="s1", pause=SENTENCE)
            said.append((await p.next())["text"])
    assert [text.strip() for text in said] == [
        "Good evening.",
        "Dr. Smith paid 3.14 dollars for it.",
        "“Is that so? I never knew,” she said.",
        "Then they walked home, talking about the weather, the moon and the price of tea.",
        "It was late.",
        "Nobody else was about!",
    ]


async def test_buffered_mode_has_the_reference_s_fields() -> None:
    async with scripted() as (_, p, _):
        await p.start(pause=FIRST)
        first = await p.next()
        assert first == {
            "stream_id": "s1", "status": "started", "text": "".join(tokens(TEXT)[:10]), "tokens": 10, "paused": True,
            "reason": "max_tokens", "done": False, "ttft_ms": first["ttft_ms"],
            "full_text": "".join(tokens(TEXT)[:10]),
        }  # fmt: skip
        await p.send("continue_stream", stream_id="s1")
        rest = await p.next()
        assert "status" not in rest
        assert (rest["paused"], rest["done"], rest["reason"], rest["full_text"]) == (False, True, "eos", TEXT)
        await p.send("continue_stream", stream_id="s1")
        over = await p.next()
        assert (over["reason"], over["text"], over["tokens"], over["paused"], over["done"]) == (
            "already_done", "", 0, False, True,
        )  # fmt: skip
        assert "ttft_ms" not in over
        await p.send("end_stream", stream_id="s1")
        ended = await p.next()
        assert (ended["stream_id"], ended["status"], ended["tokens"]) == ("s1", "ended", len(tokens(TEXT)))


async def test_after_the_end_token_mode_says_already_done() -> None:
    async with scripted(text="Short.") as (_, p, _):
        await p.start(stream_tokens=True)
        assert (await p.until("done"))["reason"] == "eos"
        await p.send("continue_stream", stream_id="s1")
        over = await p.next()
        assert (over["type"], over["reason"], over["ttft_ms"]) == ("done", "already_done", 0)
        assert "elapsed_ms" not in over


async def test_both_limits_mean_whichever_comes_first_and_zero_means_none() -> None:
    async with scripted() as (_, p, _):
        await p.start("a", pause={"max_tokens": 2, "sentence_boundary": True})
        assert (await p.next())["reason"] == "max_tokens"
        await p.start("b", pause={"max_tokens": 50, "sentence_boundary": True})
        assert (await p.next())["reason"] == "sentence_boundary"
        await p.start("c", pause={"max_tokens": 0, "min_tokens": 10})
        assert (await p.next())["reason"] == "eos"


async def test_an_answer_without_a_word() -> None:
    async with scripted(text="") as (_, p, _):
        await p.start("a", stream_tokens=True)
        assert (await p.next())["reason"] == "empty_response"
        await p.start("b")
        assert (await p.next())["reason"] == "eos"


async def test_settings_reach_the_server() -> None:
    async with scripted() as (server, p, _):
        await p.start("a", pause=FIRST)
        await p.next()
        await p.start("b", temperature=0.1, max_tokens=5, top_p=0.5, stop=["x"], model="other")
        await p.next()
    assert server.requests[0].body["temperature"] == 0.7
    body = server.requests[1].body
    assert (body["temperature"], body["top_p"], body["stop"], body["model"]) == (0.1, 0.5, ["x"], "other")


async def test_the_offline_conversationalist_serves_too() -> None:
    async with scene(eliza.create()) as url, pen(url) as p:
        await p.start(pause={"max_tokens": 1}, stream_tokens=True)
        await p.until("paused")
        await p.send("continue_stream", stream_id="s1")
        assert (await p.until("done"))["text"]
