"""Makes page.png, the picture of the README, from the real page: .venv/bin/python docs/images/page.py

A real server, real voices, a real browser; only the language model is scripted, so that there is something to read.
"""

import asyncio
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))

from tests.browser import chromium, microphone_wav, open_page, phase  # noqa: E402
from tests.llm_server import LLMServer  # noqa: E402
from tests.speech import silence  # noqa: E402
from tests.wire import running  # noqa: E402

SAID = {
    "How does a lighthouse see in fog?": (
        "It doesn't see at all, it only hopes to be seen. The lamp is quite small. What carries it out to sea is the "
        "lens, a beehive of glass rings that bends every stray ray into one beam."
    ),
    "And when the fog is too thick?": (
        "Then it stops shining and starts shouting: a horn, twice a minute, that you feel in your ribs before you "
        "hear it."
    ),
    "Finn, did that ever save you?": (
        "Once, off Stavanger. We heard it on the wrong side of us, which is how we learned which side was the right "
        "one."
    ),
}


def answer(messages: list[dict[str, str]]) -> str:
    """To the question asked last; another character's prompt holds all of them in one message."""
    asked = messages[-1]["content"]
    return SAID[max(SAID, key=asked.rfind)]


async def main() -> None:
    quiet = microphone_wav(HERE / "quiet.wav", silence(2_000))
    try:
        async with (
            LLMServer(answer) as model,
            running(PARLEY_LLM_ENGINE="openai", PARLEY_LLM_BASE_URL=model.url, PARLEY_LLM_MODEL="scripted") as (
                address,
                _,
            ),
            chromium(quiet, loop=True) as browser,
            open_page(browser, f"http://{address}/", viewport={"width": 1280, "height": 820}) as page,
        ):
            await page.click("#main-button")
            await phase(page, "speaking")
            await page.click("[aria-label='Bring Finn in too']")
            await phase(page, "listening")
            for text, heard in zip(SAID, ("rings", "it.", "wrong"), strict=True):  # the second is not cut off
                await page.fill("#say-text", text)
                await page.keyboard.press("Enter")
                await page.wait_for_selector(f".line:last-child .said:text-is(' {heard}')", timeout=30_000)
            await page.evaluate("() => document.activeElement.blur()")
            await page.mouse.move(640, 5)
            await page.screenshot(path=str(HERE / "page.png"))
    finally:
        quiet.unlink()


if __name__ == "__main__":
    asyncio.run(main())
