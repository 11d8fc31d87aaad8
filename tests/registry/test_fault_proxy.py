"""Publish, alias and pull over a line that loses, cuts, delays and refuses: they converge, and nothing happens twice."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from slm_registry import Registry, StoreError, UnreachableError, open_store
from slm_registry.stores.s3 import S3Store

from tests.registry.conftest import store_address
from tests.registry.fault_proxy import FAULTS, FaultProxy, Plans, fault_proxy

PATIENCE = 0.3
TRIES = 60


def impatient_store(url: str, monkeypatch: pytest.MonkeyPatch) -> S3Store:
    """A store whose client waits shortly for an answer."""
    import botocore.config

    real = botocore.config.Config
    store = open_store(url)
    assert isinstance(store, S3Store)
    with monkeypatch.context() as patch:
        patch.setattr(botocore.config, "Config", lambda **options: real(**{**options, "read_timeout": PATIENCE}))
        assert store._client.meta.config.read_timeout == PATIENCE
    return store


@pytest.fixture
def lines(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[str, S3Store, FaultProxy]]:
    """A store's address, the same store through a proxy, and the proxy. On moto, or on what the test is run with."""
    straight = store_address(getattr(request, "param", "s3"), request, tmp_path)
    server = straight.partition("endpoint_url=")[2]
    # No waiting before a request is tried again.
    monkeypatch.setattr("botocore.retries.standard.ExponentialBackoff.delay_amount", lambda *_: 0)
    monkeypatch.setattr("slm_registry.stores.s3._pause", lambda attempt: None)
    with fault_proxy(server, PATIENCE) as proxy:
        yield straight, impatient_store(straight.replace(server, proxy.url), monkeypatch), proxy


def until_done(call: Callable[[], Any]) -> tuple[Any, int]:
    """What the call answers in the end, and how often it failed before. Only errors that may pass are met."""
    for failures in range(TRIES):
        try:
            return call(), failures
        except UnreachableError:
            continue
    raise AssertionError(f"it did not come through in {TRIES} tries")


def files_of(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_alone(lines: tuple[str, S3Store, FaultProxy], bundle: Path, tmp_path: Path, fault: str) -> None:
    """The n-th request meets the fault, for each n: one entry comes of it, with the right files behind it."""
    straight, bad, proxy = lines
    proxy.plan = plan = Plans(1, 0.5, 12, (fault,))
    registry = Registry(bad, cache=tmp_path / "cache")
    done, _ = until_done(lambda: registry.publish(bundle, "m", lineage={}, alias="candidate"))
    pulled, _ = until_done(lambda: registry.pull("m@candidate"))
    assert plan.done.total() >= 5, plan.done
    assert done.version == "1.0.0"
    assert files_of(pulled) == files_of(bundle)
    assert [entry.op for entry in Registry(straight, cache=tmp_path).log("m")] == ["publish", "alias"]


@pytest.mark.parametrize(("lines", "seed"), [("s3", 0), ("s3", 1), ("ceph", 2)], indirect=["lines"])
def test_any_faults_converge(
    lines: tuple[str, S3Store, FaultProxy], bundle: Path, other_bundle: Path, tmp_path: Path, seed: int
) -> None:
    """One request in five goes wrong. Nobody else writes, so a conflict would be one with oneself."""
    straight, bad, proxy = lines
    proxy.plan = plan = Plans(seed, 0.2)
    registry = Registry(bad, cache=tmp_path / "cache")
    until_done(lambda: registry.publish(bundle, "m", lineage={}, alias="candidate"))
    second, _ = until_done(lambda: registry.publish(other_bundle, "m", lineage={}))
    until_done(lambda: registry.alias("m", "candidate", second.version))
    pulled, _ = until_done(lambda: registry.pull("m@candidate"))
    assert plan.done.total() > 5, plan.done
    assert (second.version, files_of(pulled)) == ("1.0.1", files_of(other_bundle))
    found = Registry(straight, cache=tmp_path / "other")
    assert [entry.op for entry in found.log("m")] == ["publish", "alias", "publish", "alias"]
    assert files_of(found.pull("m@1.0.0")) == files_of(bundle)


@pytest.mark.parametrize("fault", ["lost", "late", "done-500"])
def test_a_writer_whose_answer_was_lost_knows_that_it_won(lines: tuple[str, S3Store, FaultProxy], fault: str) -> None:
    _, store, proxy = lines
    proxy.plan = Plans(0, 1.0, 1, (fault,))
    assert store.create("models/m/log/000000000001.json", b"mine")
    assert not store.create("models/m/log/000000000001.json", b"another's")


def test_a_line_that_never_works_is_one_error(
    lines: tuple[str, S3Store, FaultProxy], bundle: Path, tmp_path: Path
) -> None:
    straight, bad, proxy = lines
    proxy.plan = Plans(0, 1.0, faults=("dropped", "500", "503"))
    with pytest.raises(StoreError, match="cannot read"):
        Registry(bad, cache=tmp_path / "cache").publish(bundle, "m", lineage={})
    assert Registry(straight, cache=tmp_path / "cache").models() == ()
