"""Where results are written: one section a benchmark in one page, and the line that says on what machine it ran."""

from __future__ import annotations

import os
import platform
from datetime import date
from pathlib import Path


def machine() -> str:
    """Date, processor with the instructions that decide how fast integers are, cores, Python."""
    from slm_registry.runtime.machine import this_machine

    found = this_machine()
    processor = f"{found.processor} ({', '.join(found.instructions or ['instructions unknown'])})"
    return f"{date.today().isoformat()}, {processor}, {found.cores} cores, Python {platform.python_version()}"


def load() -> str:
    """The load average of the last minute, which tells whether anything else ran."""
    return f"load average {os.getloadavg()[0]:.2f}"


def write_section(page: Path, name: str, text: str) -> None:
    """Put a section in place of the one of that name, or at the end of the page."""
    begin, end = f"<!-- {name} -->", f"<!-- {name} end -->"
    old = page.read_text(encoding="utf-8") if page.exists() else ""
    section = f"{begin}\n{text.strip()}\n{end}"
    if begin in old:
        before, rest = old.split(begin, 1)
        new = before + section + rest.split(end, 1)[1]
    else:
        new = f"{old.rstrip()}\n\n{section}\n".lstrip()
    page.write_text(new, encoding="utf-8")
