"""What speaking a slow model's first clause ahead is worth: `python -m bench.clause`.

A scripted model of known speed, espeak, a typed message: the time from it to the first audio, with `audio.clause_ms` at
0 (the first sentence is spoken as a whole) and at its default.
"""

import asyncio
from statistics import median

from bench.house import opened
from bench.user import User
from server.settings import AudioSettings
from tests.llm_server import LLMServer

SPEEDS = (10, 20, 40, 80)  # tokens a second
FIRST_S = 0.2  # to the first token
TURNS = 5
TEXT = "Well, that is a good question, and I have thought about it for most of my life. Ask me another one."
COMMAND = ("server", "serve", "--config", "configs/embedded.toml", "--port", "0")


async def first_audio(speed: int, clause_ms: float) -> float:
    """Median ms from the message to the first audio, the model at `speed` tokens a second."""
    async with LLMServer(TEXT, delay=1 / speed, first=FIRST_S) as llm:
        environment = {
            "PARLEY_LLM_ENGINE": "openai",
            "PARLEY_LLM_BASE_URL": llm.url,
            "PARLEY_LLM_MODEL": "scripted",
            "PARLEY_AUDIO_CLAUSE_MS": str(clause_ms),
        }
        async with opened(*COMMAND, environment=environment) as address:
            return median([await _turn(address) for _ in range(TURNS)])


async def _turn(address: str) -> float:
    async with User(address) as user:
        await user.send("user.text", text="Well?")
        await user.told("reply.audio", 0)
        await user.send("reply.interrupt")
        _, metrics = await user.told("turn.metrics", 0)
        return float(metrics["first_sent"])


async def main() -> None:
    print(f"ms to the first audio ({TURNS} turns)\n{'tokens a second':>16}{'whole sentence':>16}{'first clause':>16}")
    for speed in SPEEDS:
        whole, ahead = await first_audio(speed, 0), await first_audio(speed, AudioSettings().clause_ms)
        print(f"{speed:>16}{whole:>16.0f}{ahead:>16.0f}", flush=True)


if __name__ == "__main__":
    asyncio.run(main())
