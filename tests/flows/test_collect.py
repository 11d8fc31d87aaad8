"""The flow that clears: a registry's blobs in two runs, and DVC's cache of what no commit names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from slm_registry import Registry
from slm_registry.errors import UsageError

from flows.collect import Cleared, collect
from flows.errors import GraphError
from tests.flows.toy import Toy, run

pytestmark = pytest.mark.usefixtures("api")
Inside = Callable[[Toy], Toy]


def cached(toy: Toy, text: bytes) -> bool:
    """Whether a file of the cache holds a text."""
    return any(text in path.read_bytes() for path in (toy.folder / ".dvc" / "cache" / "files").glob("md5/*/*"))


def test_what_nothing_refers_to_goes_and_versions_stay(built: Toy, inside: Inside) -> None:
    inside(built)
    registry = Registry(built.folder / "store")
    registry.publish(built.folder / "build" / "alpha" / "bundle", "alpha", lineage={}, alias="candidate")
    stray = built.folder / "store" / "blobs" / "sha256" / ("ab" + "0" * 62)
    stray.parent.mkdir(parents=True, exist_ok=True)
    stray.write_bytes(b"stray")
    first, second = collect("store", grace_days=0.0), collect("store", grace_days=0.0)
    assert isinstance(first, Cleared) and isinstance(second, Cleared)
    assert (first.removed, first.marked) == (0, 1)
    assert (second.removed, second.bytes) == (1, 5)
    assert not stray.exists()
    assert registry.pull("alpha@candidate").is_dir()


def test_an_address_of_no_registry_is_one_clear_error(built: Toy, inside: Inside) -> None:
    inside(built)
    state = collect("ftp://x", return_state=True)
    assert state.is_failed() and isinstance(state.result(raise_on_failure=False), UsageError)


def test_the_cache_keeps_what_commits_name(built: Toy, inside: Inside) -> None:
    """What was built once and never committed goes; what an older commit names stays."""
    inside(built)
    (built.folder / "store").mkdir()
    run(["git", "add", "dvc.lock"], built.folder)
    run(
        ["git", "-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "-qm", "built", "dvc.lock"],
        built.folder,
    )
    words = (built.folder / "build" / "alpha" / "bundle" / "tokenizer.json").read_bytes()
    for text in ("never committed", "as it stands"):
        (built.folder / "data" / "alpha.csv").write_text(f"text,label\n{text},x\n")
        built.dvc("repro", "-q", "gate@alpha")
    assert cached(built, b"never committed")
    assert isinstance(collect("store", cache=True), Cleared)
    assert not cached(built, b"never committed") and cached(built, b"as it stands")
    run(["git", "checkout", "dvc.lock"], built.folder)
    built.dvc("checkout", "evaluate@alpha")
    assert (built.folder / "build" / "alpha" / "bundle" / "tokenizer.json").read_bytes() == words


def test_a_cache_that_others_may_share_is_not_cleared(built: Toy, inside: Inside, tmp_path: Path) -> None:
    inside(built)
    (built.folder / "store").mkdir()
    built.dvc("cache", "dir", str(tmp_path / "shared"))
    others = tmp_path / "shared" / "files" / "md5" / "aa" / ("b" * 30)
    others.parent.mkdir(parents=True)
    others.write_text("another project's")
    state = collect("store", cache=True, return_state=True)
    assert state.is_failed() and isinstance(state.result(raise_on_failure=False), GraphError)
    assert others.exists()
