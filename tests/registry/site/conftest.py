"""The demo catalogue, written once, and a headless Chromium to open it in, through Playwright."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from slm_registry import Registry
from slm_registry.site.writing import write_site

from tests.registry.site.browsing import Tab
from tests.registry.site.demo import fill

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="package")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("catalogue")
    write_site(fill(root / "store"), root / "site", title="Models", address=None)
    return root / "site"


@pytest.fixture(scope="package")
def empty_site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("empty")
    (root / "store").mkdir()
    write_site(Registry(root / "store", cache=root / "cache"), root / "site", title="Models", address=None)
    return root / "site"


@pytest.fixture(
    scope="module"
)  # playwright keeps an event loop running in its thread, which tests of other files must not meet
def browser() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="the package playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("no chromium on the path (Debian: apt install chromium)")
    with sync_api.sync_playwright() as playwright:
        quiet = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=quiet)
        yield browser
        browser.close()


@pytest.fixture
def tab(browser: Any, site: Path) -> Iterator[Tab]:
    tab = Tab(browser, site)
    yield tab
    tab.page.close()
