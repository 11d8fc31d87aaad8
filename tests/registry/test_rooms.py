"""The registry's rooms: each says in one sentence what it is for, and their imports run one way."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.registry.helpers import REPOSITORY

PACKAGE = REPOSITORY / "registry" / "slm_registry"
ROOMS = sorted(path.parent for path in PACKAGE.glob("*/__init__.py"))


def imported(path: Path) -> Iterator[str]:
    """The modules of ours that a module needs to be imported at all: no others stand at its top level."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("slm_registry"):
            inside = node.module.removeprefix("slm_registry").removeprefix(".")
            yield from [f"{inside}.{alias.name}".strip(".") for alias in node.names]


def room_of(name: str) -> str:
    """A room, or a module beside the rooms."""
    return name.split(".", maxsplit=1)[0]


def needs() -> dict[str, set[str]]:
    """Room, or module beside the rooms, to those that it imports."""
    found: dict[str, set[str]] = {}
    for path in PACKAGE.rglob("*.py"):
        own = room_of(".".join(path.relative_to(PACKAGE).with_suffix("").parts))
        found.setdefault(own, set()).update(room_of(name) for name in imported(path))
        found[own].discard(own)
    return found


@pytest.mark.parametrize("room", ROOMS, ids=lambda room: room.name)
def test_a_room_says_what_it_is_for_and_nothing_else(room: Path) -> None:
    (statement,) = ast.parse((room / "__init__.py").read_text(encoding="utf-8")).body
    assert isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


def test_imports_between_rooms_run_one_way() -> None:
    left = needs()
    assert {room.name for room in ROOMS} <= left.keys()
    assert left["plumbing"] == {"errors"}
    while ready := {room for room, wanted in left.items() if not wanted & left.keys()}:
        left = {room: wanted for room, wanted in left.items() if room not in ready}
    assert left == {}
