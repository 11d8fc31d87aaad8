"""Where results are written: one section a benchmark in one page, and the line that says on what machine it ran."""

from __future__ import annotations

import os
import platform
from datetime import date
from pathlib import Path


def machine() -> str:
    """Date, processor, cores, Python."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    names = (line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    processor = next(names, platform.machine())
    return f"{date.today().isoformat()}, {processor}, {os.cpu_count()} cores, Python {platform.python_version()}"


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
