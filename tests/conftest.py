"""What tests of more than one room share: an S3 server on loopback, and credentials that it takes."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from typing import TYPE_CHECKING

import hypothesis
import pytest
from moto.server import ThreadedMotoServer

if TYPE_CHECKING:
    from tests.made_once import MadeOnce

# A deadline would time a shared machine, not the code.
hypothesis.settings.register_profile("factory", deadline=None)
hypothesis.settings.load_profile("factory")


@pytest.fixture(scope="session", autouse=True)
def registry_settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test reads a user's keys and policy, or leaves what it saw of some store in the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("URL", "KEY", "KEY_PASSPHRASE", "POLICY"):
            patch.delenv(f"SLM_REGISTRY_{name}", raising=False)
        patch.setenv("SLM_REGISTRY_CACHE", str(tmp_path_factory.mktemp("registry-cache")))
        yield


@pytest.fixture(scope="session")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MadeOnce]:
    """Tiny models and their exports, shared with the other workers of this run."""
    from tests.made_once import MadeOnce

    base = tmp_path_factory.getbasetemp()
    shared = MadeOnce((base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "made-once")
    yield shared
    assert not shared.altered(), "a test changed what others use; let it take a copy"


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """The address of moto's server, on a free loopback port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=port, verbose=False)
    server.start()
    yield f"http://127.0.0.1:{port}"
    server.stop()


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> None:
    """Credentials that moto takes, and nothing of the machine's own."""
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL", "AWS_REGION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
