"""What `pull --into` and `export` write to: a new folder, or one that is there and empty, wherever it is."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from slm_registry import Registry, UsageError
from slm_registry.upkeep import oci

from tests.registry.helpers import make_bundle

Writer = Callable[[Registry, Path], Path]


def pull(registry: Registry, folder: Path) -> Path:
    return registry.pull("m", folder)


def export(registry: Registry, folder: Path) -> Path:
    found = registry.resolve("m")
    return oci.export_layout(registry.store, registry.cache, found.model, found.version, found.digest, folder)


# What each writes, and what its readers look for first.
WRITERS: dict[Writer, tuple[set[str], str]] = {
    pull: ({"README.md", "config.json", "model.onnx", "sub", "tokenizer.json", "tokenizer_config.json"}, "config.json"),
    export: ({"blobs", "index.json", "oci-layout"}, "index.json"),
}
every_writer = pytest.mark.parametrize("write", WRITERS, ids=["pull", "export"])


def make_registry(root: Path) -> Registry:
    bundle = make_bundle(root / "bundle")
    (bundle / "sub").mkdir()
    (bundle / "sub" / "notes.md").write_text("notes")
    registry = Registry(root / "store", cache=root / "cache", actor="alice")
    registry.publish(bundle, "m", lineage={})
    return registry


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.fixture
def target(tmp_path: Path) -> Path:
    folder = tmp_path / "target"
    folder.mkdir()
    return folder


@every_writer
def test_the_working_folder(write: Writer, tmp_path: Path, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    registry = make_registry(tmp_path)
    monkeypatch.chdir(target)
    write(registry, Path())
    assert names(target) == WRITERS[write][0]


@every_writer
def test_a_folder_below_one_that_is_read_only(write: Writer, unprivileged: Path) -> None:
    registry = make_registry(unprivileged)
    target = unprivileged / "parent" / "target"
    target.mkdir(parents=True)
    target.parent.chmod(0o555)
    write(registry, target)
    assert names(target) == WRITERS[write][0]


@every_writer
def test_what_readers_look_for_comes_last(
    write: Writer, tmp_path: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = make_registry(tmp_path)
    seen: list[str] = []
    rename = Path.rename

    def watched(path: Path, new: Path) -> Path:
        if new.parent == target:
            seen.append(new.name)
        return rename(path, new)

    monkeypatch.setattr(Path, "rename", watched)
    write(registry, target)
    assert set(seen) == WRITERS[write][0]
    assert seen[-1] == WRITERS[write][1]


@every_writer
@pytest.mark.parametrize("at", [1, 2, 3])
def test_an_interruption_leaves_nothing(
    write: Writer, at: int, tmp_path: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = make_registry(tmp_path)
    count = 0
    rename = Path.rename

    def interrupted(path: Path, new: Path) -> Path:
        nonlocal count
        count += new.parent == target
        if count == at:
            raise KeyboardInterrupt
        return rename(path, new)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", interrupted)
        with pytest.raises(KeyboardInterrupt):
            write(registry, target)
    assert names(target) == set()
    write(registry, target)
    assert names(target) == WRITERS[write][0]


@every_writer
def test_after_a_run_that_was_killed(write: Writer, tmp_path: Path, target: Path) -> None:
    registry = make_registry(tmp_path)
    (target / ".slm-registry.lock").touch()
    (target / ".slm-registry.partial").mkdir()
    (target / ".slm-registry.partial" / "half").write_text("x")
    write(registry, target)
    assert names(target) == WRITERS[write][0]
    # Killed while it moved its files up: nobody but their owner can tell whose they are.
    (target / ".slm-registry.partial").mkdir()
    with pytest.raises(UsageError, match=r"broken off.*empty it and run it again"):
        write(registry, target)
    assert names(target) == WRITERS[write][0] | {".slm-registry.partial"}


@every_writer
def test_what_somebody_puts_there_meanwhile_stays(
    write: Writer, tmp_path: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = make_registry(tmp_path)
    copyfile = shutil.copyfile

    def slow(source: Path, to: Path) -> Path:
        if target in Path(to).parents:
            (target / "config.json").write_text("mine")
        return copyfile(source, to)

    monkeypatch.setattr(shutil, "copyfile", slow)
    with pytest.raises(UsageError, match="new or an empty"):
        write(registry, target)
    assert names(target) == {"config.json"}
    assert (target / "config.json").read_text() == "mine"
