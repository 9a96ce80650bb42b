"""The page in headless Chromium, zoomed in as far as it goes and in the system's high contrast."""

import pytest

from tests.browser import chromium, open_page, phase
from tests.scripted_server import scripted_server
from tests.talking_page import talking

REACHED = """name => {
  const button = document.querySelector(name);
  const { left, top, width, height } = button.getBoundingClientRect();
  return button.contains(document.elementFromPoint(left + width / 2, top + height / 2));
}"""
BORDER = "(name) => getComputedStyle(document.querySelector(name)).borderTopColor"


@pytest.mark.parametrize(("width", "height"), [(320, 256), (640, 256), (568, 160)])
async def test_a_window_too_low_for_everything_scrolls(width: int, height: int) -> None:
    """1280 by 1024 at 400 %, a laptop at 200 %, a keyboard over a phone on its side."""
    async with talking() as (server, page):
        await server.tell("error", code="llm_failed", message="It said: " + "no " * 60, fatal=False)
        await page.wait_for_selector(".notice")
        await page.set_viewport_size({"width": width, "height": height})
        for name in ("#main-button", "#stop", "#send", "#open-settings", "#transcript, #welcome"):
            await page.evaluate("name => document.querySelector(name).scrollIntoView({ block: 'center' })", name)
            assert await page.evaluate(REACHED, name), name
        assert await page.evaluate("() => document.documentElement.scrollWidth") == width


async def test_high_contrast_shows_where_one_is() -> None:
    async with (
        scripted_server() as server,
        chromium() as chrome,
        open_page(chrome, server.url, forced_colors="active") as page,
    ):
        await phase(page, "ready")
        await page.focus("#say-text")
        assert (
            await page.evaluate("() => getComputedStyle(document.querySelector('#composer')).outlineStyle") == "solid"
        )
        assert await page.evaluate(BORDER, ".cast li.present") != await page.evaluate(BORDER, ".cast li:not(.present)")
