"""The catalogue for whoever cannot see it, or not well: axe-core's rules, and what they cannot judge of the plots."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.registry.site.browsing import PAGES, Tab

RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"]
OPTIONS = {"runOnly": RULES, "resultTypes": ["violations", "incomplete"]}
SCHEMES = ["light", "dark", "dark by hand"]
NARROW, WIDE = 390, 1280
TEXT, PICTURE = 4.5, 3.0
# The contrast of what a plot draws, with what is behind it mixed in by its opacity: [selector, ratio] of each.
RATIOS = """
([selector, property]) => {
  const rgb = text => text.match(/[0-9.]+/g).map(Number);
  const paper = rgb(getComputedStyle(document.body).backgroundColor);
  const luminance = colour => colour.slice(0, 3).map(part => part / 255)
    .map(part => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4)
    .reduce((sum, part, at) => sum + part * [0.2126, 0.7152, 0.0722][at], 0);
  return [...document.querySelectorAll(selector)].map(node => {
    const style = getComputedStyle(node), ink = style[property] === "none" ? paper : rgb(style[property]);
    const opacity = Number(style.opacity) * Number(style[property + "Opacity"]);
    const mixed = ink.slice(0, 3).map((part, at) => part * opacity + paper[at] * (1 - opacity));
    const [low, high] = [luminance(mixed), luminance(paper)].sort((a, b) => a - b);
    return [(node.getAttribute("class") || node.tagName) + " " + node.textContent.trim(), (high + 0.05) / (low + 0.05)];
  });
}
"""


@pytest.fixture(params=SCHEMES)
def scheme(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=[WIDE, NARROW])
def dressed(request: pytest.FixtureRequest, browser: Any, site: Path, scheme: str) -> Iterator[Tab]:
    """A tab of one width in one scheme; "dark by hand" is chosen with the button, against the system."""
    seen = "dark" if scheme == "dark" else "light"
    size = {"width": request.param, "height": 900}
    tab = Tab(browser, site, color_scheme=seen, viewport=size, reduced_motion="reduce")
    if scheme == "dark by hand":
        tab.open("index.html").locator("#theme").click()
    yield tab
    tab.page.close()


def problems(page: Any) -> list[str]:
    """What axe-core objects to or cannot decide, one line each: rule, element, reason."""
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page, options=OPTIONS).response
    return [
        f"{kind} {rule['id']} at {' '.join(map(str, node['target']))}: {node['failureSummary']}"
        for kind in ("violations", "incomplete")
        for rule in found[kind]
        for node in rule["nodes"]
        if not (kind == "incomplete" and _judged_elsewhere(rule, node, page.viewport_size["width"]))
    ]


def _judged_elsewhere(rule: dict[str, Any], node: dict[str, Any], width: int) -> bool:
    """Contrast in plots is measured below; that of text scrolled out of a narrow window, at the wide one."""
    return rule["id"] == "color-contrast" and (width == NARROW or node["html"].startswith("<text"))


def unroll(page: Any) -> None:
    """Open what is closed; in a wide window, show what is scrolled away too, so that axe-core sees its colours."""
    page.evaluate("document.querySelectorAll('details').forEach(node => { node.open = true })")
    if page.viewport_size["width"] == WIDE:
        page.evaluate("document.querySelectorAll('.scroll').forEach(node => { node.style.overflow = 'visible' })")
        wrapped = "node.style.whiteSpace = 'pre-wrap'; node.style.maxHeight = 'none'"
        page.evaluate(f"document.querySelectorAll('pre').forEach(node => {{ {wrapped} }})")


@pytest.mark.parametrize("name", PAGES)
def test_axe_finds_nothing(dressed: Tab, name: str, scheme: str) -> None:
    page = dressed.open(name)
    unroll(page)
    found = problems(page)
    assert not found, "\n".join(f"{name}, {scheme}, {page.viewport_size['width']} px: {problem}" for problem in found)
    assert dressed.trouble == []


def test_axe_finds_nothing_where_nothing_is_found(dressed: Tab, empty_site: Path, scheme: str) -> None:
    page = dressed.open("index.html?q=nothing+like+it")
    assert page.get_by_text("No model matches").is_visible()
    assert problems(page) == [], scheme
    dressed.site = empty_site
    page = dressed.open("index.html")
    assert page.get_by_text("holds no model yet").is_visible()
    assert problems(page) == [], scheme


@pytest.mark.parametrize(
    ("selector", "drawn", "least"),
    [
        (".plot text", "fill", TEXT),
        (".plot .mark, .plot .line, .plot .reference, .plot .band", "stroke", PICTURE),
        (".spark path", "stroke", PICTURE),
    ],
)
def test_what_a_plot_draws_stands_out(dressed: Tab, scheme: str, selector: str, drawn: str, least: float) -> None:
    page = dressed.open("index.html" if selector.startswith(".spark") else "models/support-intents.html")
    ratios = page.evaluate(RATIOS, [selector, drawn])
    assert ratios
    faint = [f"{what}: {ratio:.2f}, {scheme}" for what, ratio in ratios if ratio < least]
    assert faint == []


def test_plots_are_named_and_told_in_numbers(tab: Tab) -> None:
    page = tab.open("models/support-intents.html")
    plots = page.get_by_role("img")
    assert plots.count() == 10
    named = [plots.nth(at).locator("title").first.text_content() for at in range(10)]
    told = [plots.nth(at).locator("desc").text_content() for at in range(10)]
    assert named[:2] == ["Accuracy, size and latency", "Accuracy"]
    assert all(text.endswith(".") and any(letter.isdigit() for letter in text) for text in told)
    assert "highest 83.91 % at 2.0.0" in told[1]
    # Every number that is drawn can also be read.
    page.get_by_text("All numbers, as a table").click()
    table = page.get_by_role("table", name="Every measure of each version of support-intents")
    heads = table.get_by_role("columnheader").all_inner_texts()
    assert heads[1:] == named[1:]
    newest = dict(zip(heads, table.get_by_role("row").nth(1).locator("th, td").all_inner_texts(), strict=True))
    assert (newest["Version"], newest["Accuracy"]) == ("2.0.0", "83.91 % (81.96 % to 85.70 %)")
    assert newest["Peak memory"] == "124.8 MB"
    assert table.get_by_role("row", name="base model").get_by_role("cell").first.inner_text() == "85.31 %"


def test_the_page_is_built_of_parts_with_names(tab: Tab) -> None:
    page = tab.open("models/support-intents.html")
    for landmark in ("banner", "main", "contentinfo"):
        assert page.get_by_role(landmark).count() == 1
    assert page.get_by_role("navigation").count() == 2
    assert page.locator("h1").count() == 1
    assert page.locator("th:not([scope])").count() == 0
    assert page.locator("table:not(.prose table):not(:has(caption))").count() == 0
