"""Any damage to any file of a store or a cache: the right bytes come of it, or an error; never others, nothing outside."""

from __future__ import annotations

import json
import shutil
import uuid
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from slm_registry import Registry, RegistryError

from tests.registry.log.test_log import JSON
from tests.registry.machine import make_contents

CHUNK = 100


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a store of two versions, and a cache that holds one of them."""
    root = tmp_path_factory.mktemp("pristine")
    contents = make_contents(root / "contents")
    registry = Registry(root / "at" / "store", cache=root / "at" / "cache", actor="a", chunk_size=CHUNK)
    registry.publish(contents[0], "m", lineage={"a": 1}, alias="production")
    registry.publish(contents[1], "m", lineage={"a": 2}, alias="candidate")
    registry.pull("m@production")
    return root


def damaged(path: Path, data: st.DataObject) -> None:
    """Change a file into something else, or take it away where that is no attack on the log's end."""
    old = path.read_bytes()
    kinds = ["flip", "cut", "grow", "bytes", "json"] + ([] if "/log/" in str(path) else ["gone"])
    kind = data.draw(st.sampled_from(kinds))
    path.chmod(0o644)
    if kind == "flip":
        new = bytearray(old)
        new[data.draw(st.integers(0, len(old) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    elif kind == "cut":
        new = bytearray(old[: data.draw(st.integers(0, len(old) - 1))])
    elif kind == "grow":
        new = bytearray(old + data.draw(st.binary(min_size=1, max_size=9)))
    elif kind == "bytes":
        new = bytearray(data.draw(st.binary(max_size=300)))
    elif kind == "json":
        new = bytearray(json.dumps(data.draw(JSON)).encode())
    else:
        path.unlink()
        return
    path.write_bytes(new)


@settings(max_examples=120)
@given(st.data())
def test_damage_anywhere(pristine: Path, data: st.DataObject) -> None:
    work = pristine / uuid.uuid4().hex
    shutil.copytree(pristine / "at", work)
    # Locks are empty.
    files = sorted(path for path in work.rglob("*") if path.is_file() and path.stat().st_size)
    for path in data.draw(st.lists(st.sampled_from(files), min_size=1, max_size=3, unique=True)):
        damaged(path, data)
    registry = Registry(work / "store", cache=work / "cache")
    outside = sorted(path.name for path in pristine.iterdir())
    for alias, content in (("production", 0), ("candidate", 1)):
        try:
            pulled = registry.pull(f"m@{alias}")
        except RegistryError as error:
            assert "\n" not in str(error)
            continue
        found = {path.name: path.read_bytes() for path in pulled.iterdir()}
        wanted = {path.name: path.read_bytes() for path in (pristine / "contents" / str(content)).iterdir()}
        assert found == wanted
    assert sorted(path.name for path in pristine.iterdir()) == outside
    assert {path.name for path in work.iterdir()} <= {"store", "cache"}
    shutil.rmtree(work)


@settings(max_examples=40)
@given(st.data())
def test_damage_in_the_cache_is_always_repaired(pristine: Path, data: st.DataObject) -> None:
    work = pristine / uuid.uuid4().hex
    shutil.copytree(pristine / "at", work)
    blobs = sorted(path for path in (work / "cache" / "blobs").iterdir())
    damaged(data.draw(st.sampled_from(blobs)), data)
    pulled = Registry(work / "store", cache=work / "cache").pull("m@production")
    for path in (pristine / "contents" / "0").iterdir():
        assert (pulled / path.name).read_bytes() == path.read_bytes()
    shutil.rmtree(work)
