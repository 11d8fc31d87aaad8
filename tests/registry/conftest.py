"""What the registry's tests share: bundles, a folder store, and a bucket on the loopback server."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from slm_registry import Registry, s3
from slm_registry.stores import Store, open_store

from tests.registry.command_line import Cli
from tests.registry.helpers import make_bundle


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return make_bundle(tmp_path / "bundle")


@pytest.fixture
def other_bundle(tmp_path: Path) -> Path:
    return make_bundle(tmp_path / "other", weight=2.0)


@pytest.fixture(scope="session")
def s3_clients() -> dict[Any, Any]:
    """Clients made so far. Making one takes longer than most tests, and they may be shared."""
    return {}


@pytest.fixture
def s3_url(s3_server: str, aws: None, s3_clients: dict[Any, Any], monkeypatch: pytest.MonkeyPatch) -> str:
    """A fresh bucket's URL, with a prefix and the endpoint in it."""
    make_client = s3._make_client

    def make_once(endpoint_url: str | None, region: str | None) -> Any:
        key = (endpoint_url, region)
        if key not in s3_clients:
            s3_clients[key] = make_client(endpoint_url, region)
        return s3_clients[key]

    bucket = f"models-{uuid.uuid4().hex[:12]}"
    make_once(s3_server, None).create_bucket(Bucket=bucket)
    monkeypatch.setattr(s3, "_make_client", make_once)
    return f"s3://{bucket}/team/a?endpoint_url={s3_server}"


@pytest.fixture(params=["folder", "s3"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A fresh store's address: each test that takes it runs against every store."""
    if request.param == "s3":
        return str(request.getfixturevalue("s3_url"))
    return str(tmp_path / "store")


@pytest.fixture
def store(url: str) -> Store:
    return open_store(url)


@pytest.fixture
def registry(url: str, tmp_path: Path) -> Registry:
    return Registry(url, cache=tmp_path / "cache", actor="alice")


@pytest.fixture
def folder_registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "store", cache=tmp_path / "cache", actor="alice")


@pytest.fixture
def flip() -> Callable[[Path, int], None]:
    """Flip one bit of a file, whatever its mode."""

    def flip_bit(path: Path, position: int) -> None:
        data = bytearray(path.read_bytes())
        data[position] ^= 1
        mode = path.stat().st_mode
        path.chmod(0o644)
        path.write_bytes(data)
        path.chmod(mode)

    return flip_bit


@pytest.fixture
def cli(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    monkeypatch.setenv("SLM_REGISTRY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("SLM_REGISTRY_ACTOR", "bob")
    monkeypatch.delenv("SLM_REGISTRY_URL", raising=False)
    return Cli(url, capsys)
