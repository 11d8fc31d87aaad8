"""The catalogue in a real browser: it opens, links, filters, and stays itself whatever a bundle says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.registry.site.browsing import PAGES, Tab
from tests.registry.site.demo import EVIL


@pytest.mark.parametrize("name", PAGES)
def test_a_page_opens_alone_and_its_links_resolve(tab: Tab, name: str) -> None:
    page = tab.open(name)
    assert tab.trouble == []
    assert tab.fetched == [page.url]
    links = page.eval_on_selector_all("a", "found => found.map(a => [a.getAttribute('href'), a.href])")
    assert len(links) >= 2
    for written, link in links:
        if written.startswith("https://example.org/"):
            continue
        target, _, anchor = link.removeprefix("file://").partition("#")
        assert Path(target).is_file(), link
        if anchor:
            assert page.locator(f'[id="{anchor}"]').count() == 1, link


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_is_wider_than_the_window(browser: Any, site: Path, name: str, width: int) -> None:
    tab = Tab(browser, site, viewport={"width": width, "height": 800})
    page = tab.open(name)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    tab.page.close()


def test_search_filters(tab: Tab) -> None:
    page = tab.open("index.html")
    rows, search = page.locator("tbody tr:visible"), page.get_by_label("Search models")
    assert rows.count() == 4
    search.focus()
    page.keyboard.type("SUPPORT product")
    assert rows.count() == 1
    assert page.locator("#count").inner_text() == "1 model"
    search.fill("nothing like it")
    assert rows.count() == 0
    assert page.get_by_text("No model matches").is_visible()
    search.press("Escape")
    assert rows.count() == 4
    # By the digest of the data, and from an address.
    search.fill("28c1d2b4d08f")
    assert rows.count() == 1
    tab.open("index.html?q=banking")
    assert rows.count() == 1
    assert tab.trouble == []


def test_hostile_text_is_text(tab: Tab) -> None:
    page = tab.open("models/zz-hostile.html")
    page.wait_for_timeout(200)
    assert page.title() == "zz-hostile · Models"
    assert (tab.trouble, len(tab.fetched)) == ([], 1)
    assert page.locator("script").count() == 2
    assert page.locator("main").locator("img, iframe, script, style, object, embed, form").count() == 0
    assert page.locator("a[href^='javascript']").count() == 0
    assert page.locator(".history").get_by_text(EVIL).count() >= 3
    assert page.locator(".chain").get_by_text(EVIL).count() >= 1
    assert "<svg onload" in page.locator(".prose").inner_text()
    assert page.locator(".prose a").get_attribute("href") == "https://example.org/a?b=1&c=2"


def test_a_policy_stands_behind_the_escaping(tab: Tab) -> None:
    """Even markup that got in would run nothing and fetch nothing."""
    page = tab.open("index.html")
    page.evaluate(
        "document.body.insertAdjacentHTML('beforeend', '<img src=https://example.org/x onerror=\"document.title=1\">')"
    )
    page.evaluate("document.body.append(Object.assign(document.createElement('script'), {text: 'document.title = 2'}))")
    page.wait_for_timeout(200)
    assert page.title() == "Models"
    assert all("Content Security Policy" in text for text in tab.trouble)
    assert len(tab.trouble) >= 2


def test_the_theme_follows_the_system_and_the_reader(browser: Any, site: Path) -> None:
    tab = Tab(browser, site, color_scheme="dark")
    page = tab.open("index.html")
    paper = "getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(paper)
    page.get_by_role("button", name="Switch to the light theme").click()
    light = page.evaluate(paper)
    assert dark != light
    page.reload()
    assert page.evaluate(paper) == light
    page.get_by_role("button", name="Switch to the dark theme").click()
    assert page.evaluate(paper) == dark
    assert tab.trouble == []
    tab.page.close()


def test_a_link_to_a_version_opens_it(tab: Tab) -> None:
    page = tab.open("models/support-intents.html")
    page.locator("table a[href='#v1.0.0']").click()
    assert page.locator("[id='v1.0.0']").get_attribute("open") is not None
