"""A tab of the browser as the catalogue's tests use it, and the pages they open."""

from __future__ import annotations

from pathlib import Path
from typing import Any

# One of each kind: the list, a model with one version, one with no figures and a warning, one with a past, one hostile.
PAGES = [
    "index.html",
    *(f"models/{name}.html" for name in ("banking-intents", "language-guess", "support-intents", "zz-hostile")),
]


class Tab:
    """A page that notes what goes wrong and what is fetched."""

    def __init__(self, browser: Any, site: Path, **settings: Any) -> None:
        self.site = site
        self.page = browser.new_page(**settings)
        self.trouble: list[str] = []
        self.fetched: list[str] = []
        self.page.on("console", lambda message: self.trouble.append(message.text))
        self.page.on("pageerror", lambda error: self.trouble.append(str(error)))
        self.page.on("dialog", lambda dialog: (self.trouble.append("dialog"), dialog.dismiss()))
        self.page.on("request", lambda request: self.fetched.append(request.url))

    def open(self, name: str) -> Any:
        self.page.goto((self.site / name.partition("?")[0]).as_uri() + "".join(name.partition("?")[1:]))
        return self.page
