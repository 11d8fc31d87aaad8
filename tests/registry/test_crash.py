"""kill -9 before and after each step of publish: a reader sees the old state or the new one, and a re-run converges."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from slm_registry import Registry, open_store
from slm_registry.stores.base import Store
from slm_registry.stores.folder import FolderStore
from slm_registry.transfer.blobs import intact

from tests.registry.helpers import REPOSITORY
from tests.registry.machine import make_contents
from tests.registry.trusting import Pair, make_pair


def test_kill_at_every_step(bundle: Path, other_bundle: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    pair = make_pair(tmp_path / "keys", "ci")
    start = Registry(work / "start", cache=tmp_path / "cache")
    start.publish(bundle, "m", lineage={}, alias="candidate", key=pair.private)
    driver = Path(__file__).with_name("crash_driver.py")
    run = subprocess.run(
        [sys.executable, str(driver), str(work), str(other_bundle)],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(REPOSITORY / "registry"), "PATH": "", "SLM_REGISTRY_KEY": str(pair.private)},
        check=False,
    )
    assert run.returncode == 0, run.stderr
    steps = int(run.stdout)
    assert steps > 50
    seen = set()
    for step in range(1, steps + 1):
        for when in ("before", "after"):
            seen.add(check(work / f"{step:03d}-{when}", other_bundle, tmp_path / "cache", pair))
    # Killed early, between the version and its alias, and late: each was met.
    assert seen == {(("1.0.0",), "1.0.0"), (("1.0.0", "1.0.1"), "1.0.0"), (("1.0.0", "1.0.1"), "1.0.1")}


def check(store: Path, bundle: Path, cache: Path, pair: Pair) -> tuple[tuple[str, ...], str]:
    """What a reader sees after the crash, having verified that all of it is whole and that a re-run completes it."""
    registry = Registry(store, cache=cache)
    versions = tuple(sorted(row.version for row in registry.list("m")))
    candidate = registry.resolve("m@candidate").version
    for version in versions:
        # No version is ever seen without its signature.
        registry.verify(f"m@{version}", [pair.public])
        for file in registry.show(f"m@{version}").files:
            assert intact(registry.store, file.digest, file.size)
    done = registry.publish(bundle, "m", lineage={}, alias="candidate")
    assert done.version == "1.0.1"
    assert registry.resolve("m@candidate").version == "1.0.1"
    assert [entry.op for entry in registry.log("m")] == ["publish", "alias", "publish", "alias"]
    return versions, candidate


def test_a_blob_half_written_by_another_tool_is_replaced(
    bundle: Path, folder_registry: Registry, tmp_path: Path
) -> None:
    done = folder_registry.publish(bundle, "m", lineage={})
    blobs = tmp_path / "store" / "blobs" / "sha256"
    for blob in blobs.iterdir():
        blob.write_bytes(blob.read_bytes()[:-1])
    (tmp_path / "store" / "models" / "m" / "log" / "000000000001.json").unlink()
    for hint in ("head", "index"):
        (tmp_path / "store" / "models" / "m" / f"{hint}.json").unlink()
    assert folder_registry.publish(bundle, "m", lineage={}).digest == done.digest
    assert isinstance(folder_registry.store, FolderStore)
    assert folder_registry.load("m").predict(["hello"])[0].label == "other"


class Gone(BaseException):
    """The process is no more."""


class Dying:
    """A store whose user dies before or after call `at`: from then on nothing reaches it."""

    def __init__(self, inner: Store, at: int, when: str) -> None:
        self.inner, self.url, self.identity = inner, inner.url, inner.identity
        self.at, self.when, self.calls = at, when, 0

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.inner, name)

        def called(*arguments: Any, **options: Any) -> Any:
            self.calls += 1
            if self.calls > self.at or (self.calls == self.at and self.when == "before"):
                raise Gone
            answer = method(*arguments, **options)
            if self.calls == self.at:
                raise Gone
            return answer

        return called


@pytest.mark.parametrize("when", ["before", "after"])
def test_dying_at_every_call_of_a_bucket(s3_url: str, tmp_path: Path, when: str) -> None:
    bundle = make_contents(tmp_path / "contents")[0]
    base, _, query = s3_url.partition("?")
    seen = set()
    for step in range(1, 200):
        store = open_store(f"{base}/{step}?{query}")
        dying: Any = Dying(store, step, when)
        registry = Registry(store, cache=tmp_path / "cache")
        try:
            Registry(dying, cache=tmp_path / "cache").publish(bundle, "m", lineage={}, alias="candidate")
        except Gone:
            seen.add(tuple(row.aliases for row in registry.list("m")) if registry.models() else None)
            if registry.models():
                assert registry.pull("m").joinpath("config.json").read_text() == "{}"
        else:
            break
        assert registry.publish(bundle, "m", lineage={}, alias="candidate").version == "1.0.0"
        assert [entry.op for entry in registry.log("m")] == ["publish", "alias"]
    assert step > 20
    # Before the commit, between the version and its alias, and after: each was met.
    assert seen == {None, ((),), (("candidate",),)}
