"""The embedded engines at work: speech into a real server, the stages of each turn as told, and the words misheard."""

import asyncio
from contextlib import suppress
from statistics import median

import numpy as np

from bench import wer
from bench.house import opened
from bench.user import User

STAGES = ("turn_end", "transcript", "first_token", "first_sentence", "first_audio", "first_sent")


async def figures(sentences: int) -> str:
    """A printable table."""
    spoken = list((await wer.speech(("slt",), wer.SENTENCES[:sentences])).values())
    command = ("server", "serve", "--config", "configs/embedded.toml", "--port", "0")
    async with opened(*command, environment={"PARLEY_LLM_ENGINE": "eliza"}) as address:
        plain = await _turns(address, spoken, drafting=False)
        drafted = await _turns(address, spoken, drafting=True)
    printed, _ = await wer.run(3, sentences, {})
    return "\n".join(
        ["From the end of speech to each stage, ms, median / worst\n", *_rows(plain, drafted), "", printed]
    )


async def _turns(address: str, spoken: list[bytes], *, drafting: bool) -> list[dict[str, float]]:
    """Each recording is said, and its answer stopped once it sounds; the timelines."""
    turns = []
    async with User(address) as user:
        await user.send("session.update", turn={"speculative": drafting})
        for pcm in spoken:
            since = len(user.events)
            with suppress(TimeoutError):
                await user.say(pcm)
                await user.told("reply.audio", since)
                await user.heard(100)
                await user.send("reply.interrupt")
                turns.append((await user.told("turn.metrics", since))[1])
            await asyncio.sleep(0.3)
    return turns


def _rows(plain: list[dict[str, float]], drafted: list[dict[str, float]]) -> list[str]:
    def shown(turns: list[dict[str, float]], stage: str) -> str:
        values = [turn[stage] for turn in turns if stage in turn]
        return f"{median(values):.0f} / {np.max(values):.0f}" if values else "-"

    head = f"{'':16}{f'{len(plain)} turns':>18}{'answer drafted':>18}"
    return [head, *(f"{stage:16}{shown(plain, stage):>18}{shown(drafted, stage):>18}" for stage in STAGES)]
