"""A disk that is really full: a tmpfs of each size up to one that is enough, so that each write in turn is the one that fails."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from slm_registry import NoSpaceError, Registry

from tests.registry.machine import make_contents

PAGE = 4096


class Disk:
    """A small file system in memory, of so many pages, or so many files and folders."""

    def __init__(self, path: Path, resource: str) -> None:
        self.path, self.resource = path, resource
        path.mkdir()
        self._mount(self._options(1))

    def resize(self, units: int) -> None:
        self._mount(f"remount,{self._options(units)}")

    def empty(self) -> None:
        self.unmount()
        self._mount(self._options(1))

    def unmount(self) -> None:
        subprocess.run(["umount", str(self.path)], check=True, capture_output=True)

    def _options(self, units: int) -> str:
        return f"size={units * PAGE}" if self.resource == "pages" else f"nr_inodes={units}"

    def _mount(self, options: str) -> None:
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(self.path)]
        subprocess.run(command, check=True, capture_output=True)


@pytest.fixture(params=["pages", "inodes"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Disk]:
    try:
        made = Disk(tmp_path / "disk", request.param)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no tmpfs can be mounted here: {error}")
    yield made
    made.unmount()


def test_a_store_that_is_full(disk: Disk, tmp_path: Path) -> None:
    bundle = make_contents(tmp_path / "contents")[0]
    registry = Registry(disk.path / "store", cache=tmp_path / "cache")
    failures = 0
    for units in range(1, 60):
        disk.resize(units)
        try:
            registry.publish(bundle, "m", lineage={}, alias="candidate")
        except NoSpaceError as error:
            failures += 1
            assert str(disk.path) in str(error)
        else:
            break
        # What is visible is whole, and with room again the same command completes it.
        for model in registry.models():
            registry.pull(f"{model}@1.0.0")
        disk.resize(1000)
        assert registry.publish(bundle, "m", lineage={}, alias="candidate").version == "1.0.0"
        assert [entry.op for entry in registry.log("m")] == ["publish", "alias"]
        disk.empty()
        registry.forget("m")
    assert failures >= 5, "each write should have been the one that fails"
    assert registry.resolve("m@candidate").version == "1.0.0"


def test_a_volume_that_is_pulled_into(disk: Disk, tmp_path: Path) -> None:
    registry = Registry(tmp_path / "store", cache=tmp_path / "cache")
    registry.publish(make_contents(tmp_path / "contents")[0], "m", lineage={})
    failures = 0
    for units in range(1, 60):
        disk.resize(units)
        try:
            registry.pull("m", disk.path)
        except NoSpaceError:
            failures += 1
        else:
            break
        assert not list(disk.path.iterdir())
    assert failures
    assert {path.name for path in disk.path.iterdir()} == {path.name for path in registry.pull("m").iterdir()}


def test_a_cache_that_is_full(disk: Disk, tmp_path: Path) -> None:
    contents = make_contents(tmp_path / "contents")
    (contents[0] / "weights.safetensors").write_bytes(bytes(range(256)) * 100)
    registry = Registry(tmp_path / "store", cache=disk.path / "cache", chunk_size=PAGE)
    registry.publish(contents[0], "m", lineage={})
    failures = 0
    for units in range(1, 60):
        disk.resize(units)
        try:
            registry.pull("m")
        except NoSpaceError:
            failures += 1
        else:
            break
        assert not list((disk.path / "cache").glob("models/m/snapshots/*"))
    assert failures >= 5
    assert (registry.pull("m") / "weights.safetensors").read_bytes() == bytes(range(256)) * 100
    registry.cache.close()
