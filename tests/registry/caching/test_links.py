"""Links and devices in the cache and at the destination: never followed, never written through, never waited for.

In a bundle's folder: test_bundle_content.py; in a folder store: test_stores.py.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from slm_registry import Registry, RegistryError

from tests.registry.machine import make_contents

PLANTS: dict[str, Callable[[Path, Path], None]] = {
    "link": lambda path, victim: path.symlink_to(victim),
    "dangling link": lambda path, victim: path.symlink_to(victim.with_name("nothing-there")),
    "pipe": lambda path, victim: os.mkfifo(path),
    "device": lambda path, victim: path.symlink_to("/dev/zero"),
}


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    made = Registry(tmp_path / "store", cache=tmp_path / "cache")
    made.publish(make_contents(tmp_path / "contents")[0], "m", lineage={})
    made.pull("m")
    return made


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """A file outside that nobody may touch."""
    path = tmp_path / "outside" / "victim"
    path.parent.mkdir()
    path.write_text("untouched")
    return path


def untouched(victim: Path) -> bool:
    return victim.read_text() == "untouched" and [path.name for path in victim.parent.iterdir()] == ["victim"]


def right_or_refused(registry: Registry, contents: Path) -> None:
    try:
        pulled = registry.pull("m")
    except RegistryError:
        return
    for path in contents.iterdir():
        assert not (pulled / path.name).is_symlink()
        assert (pulled / path.name).read_bytes() == path.read_bytes()


@pytest.mark.timeout(60)
@pytest.mark.parametrize("plant", PLANTS)
@pytest.mark.parametrize("where", ["blob", "partial", "file"])
def test_in_the_cache(registry: Registry, tmp_path: Path, victim: Path, where: str, plant: str) -> None:
    cache = tmp_path / "cache"
    blob = max((cache / "blobs").iterdir(), key=lambda path: path.stat().st_size)
    file = next(path for path in cache.rglob("weights.safetensors"))
    target = {"blob": blob, "partial": blob.with_name(blob.name + ".partial"), "file": file}[where]
    blob.unlink()
    file.unlink()
    PLANTS[plant](target, victim)
    right_or_refused(registry, tmp_path / "contents" / "0")
    assert untouched(victim)


@pytest.mark.parametrize("where", ["blobs", "models", "models/m/snapshots", "snapshot"])
def test_a_folder_of_the_cache_that_leads_elsewhere(
    registry: Registry, tmp_path: Path, victim: Path, where: str
) -> None:
    """The cache's own folders may be links, if its owner wants that; a snapshot may not: what is in it is a model."""
    (snapshot,) = (tmp_path / "cache" / "models" / "m" / "snapshots").iterdir()
    path = snapshot if where == "snapshot" else tmp_path / "cache" / where
    moved = tmp_path / "moved"
    empty = tmp_path / "empty"
    empty.mkdir()
    path.rename(moved)
    for elsewhere in (victim.parent, empty) if where == "snapshot" else (moved,):
        path.symlink_to(elsewhere)
        right_or_refused(registry, tmp_path / "contents" / "0")
        path.unlink()
    assert untouched(victim)
    assert not list(empty.iterdir())


@pytest.mark.parametrize("plant", PLANTS)
def test_at_the_destination(registry: Registry, tmp_path: Path, victim: Path, plant: str) -> None:
    (tmp_path / "into").mkdir()
    PLANTS[plant](tmp_path / "into" / "weights.safetensors", victim)
    with pytest.raises(RegistryError):
        registry.pull("m", tmp_path / "into")
    PLANTS[plant](tmp_path / "direct", victim)
    with pytest.raises(RegistryError):
        registry.pull("m", tmp_path / "direct")
    assert untouched(victim)
