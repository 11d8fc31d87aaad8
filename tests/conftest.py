"""What tests of more than one room share: an S3 server on loopback, credentials that it takes, and a headless Chromium, through Playwright."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hypothesis
import pytest
from moto.server import ThreadedMotoServer

if TYPE_CHECKING:
    from tests.made_once import MadeOnce

#: Files that take half a minute and more, the longest first. They begin first: a worker is not left alone with one at the
#: end. Those that want the same exports stand one after the other, so that one worker makes them and no other waits.
LONG_FILES = (
    "test_matrix_causal.py",
    "pipelines/techniques/test_exporting_causal.py",
    "pipelines/techniques/test_exporting_seq2seq.py",
    "test_matrix_pairs.py",
    "test_end_to_end.py",
    "test_by_budget.py",
    "pipelines/stages/test_explore.py",
    "pipelines/stages/test_explore_tokens.py",
    "flows/test_hand_over.py",
    "flows/test_command_line.py",
    "flows/test_operations.py",
    "flows/test_history.py",
    "flows/test_repro.py",
    "pipelines/techniques/test_quantizing_weights.py",
    "registry/runtime/test_text_generation.py",
    "registry/runtime/test_text_to_text.py",
    "test_matrix.py",
    "flows/test_build.py",
    "flows/test_deployment.py",
    "registry/serving/test_reload.py",
    "benchmarks/test_board.py",
    "registry/test_crash.py",
    "test_matrix_own_code.py",
)

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

# A deadline would time a shared machine, not the code.
hypothesis.settings.register_profile("factory", deadline=None)
hypothesis.settings.load_profile("factory")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files come first; within a file, and among the others, the order stays."""
    places = {Path(__file__).parent / name: at for at, name in enumerate(LONG_FILES)}
    items.sort(key=lambda item: places.get(item.path, len(places)))


@pytest.fixture(scope="session", autouse=True)
def registry_settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test reads a user's keys and policy, or leaves what it saw of some store in the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("URL", "KEY", "KEY_PASSPHRASE", "POLICY"):
            patch.delenv(f"SLM_REGISTRY_{name}", raising=False)
        patch.setenv("SLM_REGISTRY_CACHE", str(tmp_path_factory.mktemp("registry-cache")))
        yield


@pytest.fixture(scope="session", autouse=True)
def no_waiting_for_the_disk() -> Iterator[None]:
    """fsync looks at its descriptor and returns. No test here cuts the power, and a disk takes milliseconds each of thousands of times."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", os.fstat)
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


@pytest.fixture(
    scope="module"
)  # playwright keeps an event loop running in its thread, which tests of other files must not meet
def browser() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="the package playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("no chromium on the path (Debian: apt install chromium)")
    with sync_api.sync_playwright() as playwright:
        quiet = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=quiet)
        yield browser
        browser.close()
