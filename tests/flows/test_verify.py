"""Building a published version again, without the builds: what cannot be, and what came out otherwise. A whole one is in tests/test_end_to_end.py."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from prefect.states import State
from slm_registry import Registry
from slm_registry.errors import NotFoundError

from flows import verify as module
from flows.errors import HistoryError
from flows.verify import DIFFERENT, SAME, Verified, verify
from pipelines.bundle import sha256_of
from pipelines.reporting.card import environment
from tests.flows.toy import Toy, run

pytestmark = pytest.mark.usefixtures("api")
Inside = Callable[[Toy], Toy]


def publish(toy: Toy, **git: Any) -> dict[str, str]:
    """Publish the built bundle with such a record of git; the digests of its files."""
    bundle = toy.folder / "build" / "alpha" / "bundle"
    Registry(toy.folder / "store").publish(bundle, "alpha", lineage={"git": git} if git else {}, alias="candidate")
    return {name: sha256_of(bundle / name) for name in ("config.json", "tokenizer.json")}


def head(toy: Toy) -> str:
    return run(["git", "rev-parse", "HEAD"], toy.folder).strip()


def verified() -> State[Any]:
    state: State[Any] = verify("alpha", "store", return_state=True)
    return state


@pytest.mark.parametrize(
    ("made", "name", "message"),
    [
        ({}, SAME, "2 files, byte for byte"),
        ({"config.json": "f" * 64}, DIFFERENT, "config.json came out with other bytes"),
        ({"vocab.txt": "f" * 64}, DIFFERENT, "vocab.txt came out with other bytes"),
    ],
)
def test_each_file_is_held_against_the_published_one(
    built: Toy, inside: Inside, monkeypatch: pytest.MonkeyPatch, made: dict[str, str], name: str, message: str
) -> None:
    inside(built)
    published = publish(built, commit=head(built), dirty=False)
    asked: list[tuple[str, str]] = []

    def rebuilt(_: Path, commit: str, model: str, *__: Any) -> dict[str, str]:
        asked.append((commit, model))
        return published | made

    monkeypatch.setattr(module, "rebuilt", rebuilt)
    state = verified()
    assert (state.name, state.message) == (name, f"alpha 1.0.0 from {head(built)[:12]}: {message}")
    assert asked == [(head(built), "alpha")]
    found = state.result(raise_on_failure=False)
    assert isinstance(found, Verified) and found.different == list(made)


@pytest.mark.parametrize(
    ("git", "message"),
    [
        ({}, "was built from what was not committed"),
        ({"commit": None, "dirty": None}, "was built from what was not committed"),
        ({"commit": "HEAD", "dirty": True}, "was built from what was not committed"),
        ({"commit": "0" * 40, "dirty": False}, f"was built from commit {'0' * 40}, which is not in"),
    ],
)
def test_what_no_commit_holds_cannot_be_built_again(
    built: Toy, inside: Inside, git: dict[str, Any], message: str
) -> None:
    inside(built)
    publish(built, **git)
    state = verified()
    error = state.result(raise_on_failure=False)
    assert state.is_failed() and isinstance(error, HistoryError) and message in str(error)


def test_what_is_not_published_is_said(built: Toy, inside: Inside) -> None:
    inside(built)
    (built.folder / "store").mkdir()
    assert isinstance(verified().result(raise_on_failure=False), NotFoundError)


def test_where_the_libraries_are_others_the_difference_is_told_with_them(
    built: Toy, inside: Inside, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside(built)
    git, here = {"commit": head(built), "dirty": False}, environment()
    Registry(built.folder / "store").publish(
        built.folder / "build" / "alpha" / "bundle",
        "alpha",
        lineage={"git": git, "environment": here | {"torch": "0.1"}},
        alias="candidate",
    )
    monkeypatch.setattr(module, "rebuilt", lambda *_: {"config.json": "f" * 64})
    state = verified()
    assert state.name == DIFFERENT
    assert str(state.message).endswith("its record has torch 0.1, and here they are others")
