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


CONTRAST = """() => {
  const canvas = new OffscreenCanvas(1, 1).getContext("2d");
  const over = (...colours) => {
    for (canvas.fillStyle of colours) canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data.slice(0, 3)];
  };
  const linear = (part) => (part <= 10 ? part / 255 / 12.92 : ((part / 255 + 0.055) / 1.055) ** 2.4);
  const light = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b) + 0.05;
  const pill = getComputedStyle(document.querySelector(".phase"));
  const paper = getComputedStyle(document.documentElement).backgroundColor;
  const [ground, ink] = [over(paper, pill.backgroundColor), over(pill.color)].map(light);
  return Math.max(ground, ink) / Math.min(ground, ink);
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_the_state_can_be_read_in_each_of_its_colours(scheme: str) -> None:
    """At 4.5 to 1, as WCAG asks of text of this size."""
    async with (
        scripted_server() as server,
        chromium() as chrome,
        open_page(chrome, server.url, color_scheme=scheme) as page,
    ):
        await phase(page, "ready")
        phases = await page.evaluate("async () => Object.keys((await import('/words.js')).PHASES)")
        for name in phases:
            await page.evaluate("name => (document.querySelector('#stage').dataset.phase = name)", name)
            assert await page.evaluate(CONTRAST) >= 4.5, name
