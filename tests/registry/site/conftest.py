"""The demo catalogue, written once, and a tab of the browser to open it in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from slm_registry import Registry
from slm_registry.site.writing import write_site

from tests.registry.site.browsing import Tab
from tests.registry.site.demo import fill


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


@pytest.fixture
def tab(browser: Any, site: Path) -> Iterator[Tab]:
    tab = Tab(browser, site)
    yield tab
    tab.page.close()
