"""What README and docs name exists: targets, files, commands and their options."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from flows.__main__ import parser as flows_parser
from pipelines.environment import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "data" / "README.md"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_resolve(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    assert [link for link in links if "://" not in link and not (page.parent / link).exists()] == []


def test_make_targets_exist() -> None:
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
    named = {
        name
        for page in PAGES
        for name in re.findall(r"(?:^|`| {4})make (\w+)", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    }
    assert {"demo", "test", "bench", "reproduce"} <= named
    assert named <= targets


def test_flow_commands_parse() -> None:
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    commands = re.findall(r"^ {4}python -m flows ([^#\n]+)", text, flags=re.MULTILINE)
    assert len(commands) >= 6
    for command in commands:
        flows_parser().parse_args(shlex.split(command))


def test_top_level_entries_are_there() -> None:
    for name in ("pyproject.toml", "flows", "pipelines", "dvc.yaml", "params.yaml", "registry", "tests", "README.md"):
        assert (ROOT / name).exists()


def test_the_data_card_counts_the_corpus() -> None:
    from pipelines.data.profile import CLASSES, profile

    seen = profile(ROOT / "data" / "support-intents.csv", CLASSES)
    card = (ROOT / "data" / "README.md").read_text(encoding="utf-8")
    assert f"{seen.rows:,} distinct utterances" in card
    assert seen.duplicate_share == 0
    for label, count in seen.counts.items():
        assert f"| `{label}` | {count} |" in card
