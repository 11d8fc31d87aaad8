"""The catalogue without a mouse: everything can be reached in a sensible order, and where the focus is can be seen."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.registry.site.browsing import Tab

# Every element that a mouse could use, or that scrolls.
USABLE = "a[href], button, input, summary, [tabindex='0']"
NAMED = (
    """node => [node.tagName.toLowerCase(), node.getAttribute("aria-label") || node.textContent.trim().slice(0, 40)]"""
)
MARGIN = 6
# How much of an outline of two pixels must be there: one side of a wide box is half of it, and not enough.
SHARE = 0.6


def focused(page: Any) -> tuple[str, str]:
    tag, name = page.evaluate(f"({NAMED})(document.activeElement)")
    return tag, name


def walk(page: Any) -> list[tuple[str, str]]:
    """The stops of the Tab key, from the top of the page to the last."""
    stops = []
    for _ in range(page.locator(USABLE).count() + 1):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement === document.body"):
            break
        stops.append(focused(page))
    return stops


@pytest.mark.parametrize("name", ["index.html", "models/support-intents.html"])
def test_tab_reaches_everything_once_in_the_order_of_the_page(tab: Tab, name: str) -> None:
    page = tab.open(name)
    page.evaluate("document.querySelectorAll('details').forEach(node => { node.open = true })")
    wanted = page.eval_on_selector_all(USABLE, f"nodes => nodes.map({NAMED})")
    assert len(wanted) > 7
    assert [list(stop) for stop in walk(page)] == wanted
    assert wanted[0] == ["a", "Skip to the content"]


def test_the_skip_link_leads_past_the_head_to_the_search_box(tab: Tab) -> None:
    page = tab.open("index.html")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    page.keyboard.press("Tab")
    page.keyboard.type("support")
    assert page.locator("tbody tr:visible").count() == 1
    page.keyboard.press("Tab")
    assert focused(page) == ("a", "support-intents")
    page.keyboard.press("Enter")
    page.wait_for_url("**/models/support-intents.html")


def test_no_letter_alone_is_a_command(tab: Tab) -> None:
    """Whoever speaks to the machine would set off such keys unawares (WCAG 2.1.4)."""
    page = tab.open("index.html")
    page.keyboard.type("/search for me?")
    assert page.evaluate("document.activeElement === document.body")
    assert page.locator("tbody tr:visible").count() == 4


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["index.html", "models/support-intents.html"])
def test_the_focus_is_seen_wherever_it_is(browser: Any, site: Path, name: str, scheme: str) -> None:
    """Pixels, not styles: an outline may be cut off by the box around it, or be of the colour of the page."""
    tab = Tab(browser, site, color_scheme=scheme, reduced_motion="reduce", viewport={"width": 1280, "height": 1200})
    page, hidden = tab.open(name), []
    page.evaluate("document.querySelectorAll('details').forEach(node => { node.open = true })")
    page.keyboard.press("Tab")
    stops = 0
    while not page.evaluate("document.activeElement === document.body"):
        stops += 1
        box = around(page)
        seen, bare = picture(page, box), picture_without_outline(page, box)
        marked = int((contrast(seen, bare) >= 3).sum())
        whole = 4 * (box["width"] + box["height"] - 4 * MARGIN)
        if marked < SHARE * whole:
            hidden.append((focused(page), round(marked / whole, 2)))
        page.keyboard.press("Tab")
    tab.page.close()
    assert stops > 7
    assert hidden == []


def around(page: Any) -> dict[str, float]:
    """The focused element with a margin, as far as the window shows it."""
    left, top, right, bottom = page.evaluate(
        "(() => { const box = document.activeElement.getBoundingClientRect();"
        f" return [Math.max(box.left - {MARGIN}, 0), Math.max(box.top - {MARGIN}, 0),"
        f" Math.min(box.right + {MARGIN}, innerWidth), Math.min(box.bottom + {MARGIN}, innerHeight)] }})()"
    )
    return {"x": left, "y": top, "width": right - left, "height": bottom - top}


def picture(page: Any, box: dict[str, float]) -> np.ndarray:
    with Image.open(io.BytesIO(page.screenshot(clip=box, caret="hide"))) as image:
        return np.asarray(image.convert("RGB"), dtype=np.float64) / 255


def picture_without_outline(page: Any, box: dict[str, float]) -> np.ndarray:
    page.evaluate("document.activeElement.style.setProperty('outline-color', 'transparent', 'important')")
    found = picture(page, box)
    page.evaluate("document.activeElement.style.removeProperty('outline-color')")
    return found


def contrast(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """The contrast of each pixel of one picture with that of another, by WCAG's formula."""
    high, low = np.maximum(luminance(one), luminance(other)), np.minimum(luminance(one), luminance(other))
    return (high + 0.05) / (low + 0.05)


def luminance(rgb: np.ndarray) -> np.ndarray:
    """WCAG's relative luminance of sRGB between 0 and 1."""
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return linear @ np.array([0.2126, 0.7152, 0.0722])


def test_details_and_buttons_work_by_key_and_say_so(tab: Tab) -> None:
    from playwright.sync_api import expect

    page = tab.open("models/support-intents.html")
    page.locator(".release summary").first.focus()
    page.keyboard.press("Enter")
    assert page.locator(".release").first.get_attribute("open") is not None
    page.get_by_role("button", name="Copy the Python snippet").focus()
    page.keyboard.press("Enter")
    expect(
        page.locator("#status")
    ).not_to_be_empty()  # a function to wait for would be evaluated, which the page forbids
