"""A server whose alias moves: no request fails, no answer mixes two versions, and a broken version changes nothing."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from slm_registry import Prediction, Registry, UnreachableError, UsageError
from slm_registry.caching.eviction import Evictor
from slm_registry.serving.livemodel import LiveModel
from slm_registry.serving.runner import OverloadedError, Runner

from tests.registry.helpers import make_bundle, make_tokenizer_panic
from tests.registry.serverprocess import Client, ServerProcess, until
from tests.registry.trusting import make_pair, write_policy

# The tiny model's probability of its label for "parcel", by weight.
WEIGHTS = {"1.0.0": 1.0, "1.0.1": 2.0, "1.0.2": 0.5}


def publish(registry: Registry, root: Path, **options: Any) -> None:
    for version, weight in WEIGHTS.items():
        bundle = make_bundle(root / f"bundle-{version}", weight=weight, **options)
        registry.publish(bundle, "m", version=version, lineage={})
    registry.alias("m", "production", "1.0.0")


def expected(version: str) -> float:
    from math import exp

    loud = exp(3 * WEIGHTS[version])
    return loud / (loud + 2)


class Load:
    """Clients that ask without pause until told to stop; everything that goes wrong is kept."""

    def __init__(self, server: ServerProcess, clients: int) -> None:
        self.versions: Counter[str] = Counter()
        self.failures: list[str] = []
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(server.client(),)) for _ in range(clients)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(timeout=60)
            assert not thread.is_alive()

    def _ask(self, client: Client) -> None:
        while not self._stop.is_set():
            try:
                found = client.predict(["parcel", "where is my parcel"])
                version = found["version"]
                assert found["digest"].startswith("sha256:")
                for item in found["predictions"]:
                    assert item["label"] == "delivery"
                    assert item["probability"] == pytest.approx(expected(version), abs=1e-5)
                self.versions[version] += 1
            except Exception as error:
                self.failures.append(repr(error))


def test_no_request_fails_while_the_alias_moves(registry: Registry, url: str, tmp_path: Path) -> None:
    publish(registry, tmp_path)
    versions = list(WEIGHTS)
    with ServerProcess(url, tmp_path / "served", "m@production", "--poll", "0.01") as server:
        with Load(server, clients=6) as load:
            begin = time.monotonic()
            moves = 0
            while moves < 200 or time.monotonic() - begin < 4:
                moves += 1
                registry.alias("m", "production", versions[moves % 3])
            client = server.client()
            until(lambda: client.get("/model")["version"] == versions[moves % 3])
        assert load.failures == []
        assert set(load.versions) == set(versions)
        reloads = int(client.metric("slm_reloads_total"))
        assert reloads >= 10
        assert client.metric("slm_reload_failures_total") == 0
        assert client.get("/health")["status"] == "ok"
        code, error = server.stop()
        assert (code, error) == (0, "")
    print(f"\n{moves} moves, {reloads} reloads, {sum(load.versions.values())} requests: {dict(load.versions)}")


def test_the_memory_of_old_models_comes_back(folder_registry: Registry, tmp_path: Path) -> None:
    publish(folder_registry, tmp_path, ballast=2_000_000)
    with ServerProcess(folder_registry.store.url, tmp_path / "served", "m", "--poll", "0.01") as server:
        client = server.client()

        def move(version: str) -> None:
            folder_registry.alias("m", "production", version)
            until(lambda: client.get("/model")["version"] == version)
            client.predict("parcel")

        process = psutil.Process(server.process.pid)
        for version in WEIGHTS:
            move(version)
        start = process.memory_info().rss
        for _ in range(10):
            for version in WEIGHTS:
                move(version)
        # 30 models of 8 MB each passed by.
        assert (process.memory_info().rss - start) / 1e6 < 60


def damage(registry: Registry, root: Path, version: str) -> Callable[[], None]:
    """Make the blob of a version's model unreadable in the store; what is returned heals it."""
    digest = next(file.digest for file in registry.show(f"m@{version}").files if file.path == "model.onnx")
    blob = root / "store" / "blobs" / "sha256" / digest.removeprefix("sha256:")
    data = blob.read_bytes()
    blob.write_bytes(b"x" * len(data))

    def heal() -> None:
        blob.write_bytes(data)

    return heal


def test_a_broken_version_changes_nothing(folder_registry: Registry, tmp_path: Path) -> None:
    publish(folder_registry, tmp_path)
    heal = damage(folder_registry, tmp_path, "1.0.1")
    with ServerProcess(tmp_path / "store", tmp_path / "served", "m@production", "--poll", "0.02") as server:
        client = server.client()
        with Load(server, clients=2) as load:
            folder_registry.alias("m", "production", "1.0.1", reason="broken")
            until(lambda: bool(client.get("/health")["status"] == "degraded"))
            health = client.get("/health")
            assert (health["version"], client.get("/model")["version"]) == ("1.0.0", "1.0.0")
            assert "model.onnx: chunk 0" in health["problem"]
            assert client.metric("slm_degraded") == 1
            assert client.metric("slm_reload_failures_total") >= 1
            heal()
            # Nothing is appended to the log: it tries again by itself.
            until(lambda: bool(client.get("/model")["version"] == "1.0.1"))
            assert client.get("/health")["problem"] is None
        assert load.failures == []
        assert set(load.versions) == {"1.0.0", "1.0.1"}


def test_a_version_that_loads_but_does_not_predict(folder_registry: Registry, tmp_path: Path) -> None:
    publish(folder_registry, tmp_path)
    bundle = make_bundle(tmp_path / "odd", weight=3.0)
    tokenizer = (bundle / "tokenizer.json").read_text()
    (bundle / "tokenizer.json").write_text(
        tokenizer.replace('"[UNK]":1', '"[UNK]":99').replace('"[UNK]": 1', '"[UNK]": 99')
    )
    with ServerProcess(tmp_path / "store", tmp_path / "served", "m@production", "--poll", "0.02") as server:
        client = server.client()
        folder_registry.publish(bundle, "m", version="2.0.0", lineage={}, alias="production")
        until(lambda: bool(client.get("/health")["status"] == "degraded"))
        assert "the model cannot run what its tokenizer gives it" in client.get("/health")["problem"]
        assert client.predict("parcel")["version"] == "1.0.0"
        folder_registry.alias("m", "production", "1.0.2", reason="rolled back")
        until(lambda: bool(client.predict("parcel")["version"] == "1.0.2"))
        assert client.get("/health")["status"] == "ok"


def test_a_version_that_panics_changes_nothing(folder_registry: Registry, tmp_path: Path) -> None:
    publish(folder_registry, tmp_path)

    async def scenario() -> None:
        live = LiveModel(folder_registry, "m@production", load=folder_registry.load, make_runner=Runner, poll=0.01)
        following = asyncio.create_task(live.follow())
        bundle = make_bundle(tmp_path / "panic", weight=4.0)
        make_tokenizer_panic(bundle)
        folder_registry.publish(bundle, "m", version="2.0.0", lineage={}, alias="production")
        await eventually(lambda: live.status.problem is not None)
        assert "tokenizer" in str(live.status.problem)
        assert (live.resolved.version, following.done()) == ("1.0.0", False)
        folder_registry.alias("m", "production", "1.0.2", reason="rolled back")
        await eventually(lambda: live.resolved.version == "1.0.2")
        assert live.status.problem is None
        following.cancel()
        live.close()

    asyncio.run(scenario())


class OddError(BaseException):
    """No Exception, as a library may raise one."""


def test_whatever_a_load_raises_the_following_goes_on(folder_registry: Registry, tmp_path: Path) -> None:
    publish(folder_registry, tmp_path)
    failures: list[BaseException] = []

    def load(ref: str) -> Any:
        if failures:
            raise failures.pop()
        return folder_registry.load(ref)

    async def scenario() -> None:
        live = LiveModel(folder_registry, "m@production", load=load, make_runner=Runner, poll=0.01)
        following = asyncio.create_task(live.follow())
        failures.append(OddError("out of order"))
        folder_registry.alias("m", "production", "1.0.1")
        await eventually(lambda: live.resolved.version == "1.0.1")
        assert (live.status.failures, live.status.problem) == (1, None)
        following.cancel()
        with pytest.raises(asyncio.CancelledError):
            await following
        live.close()

    asyncio.run(scenario())


class Slow:
    """A model whose predictions wait until they may end."""

    def __init__(self, model: Any) -> None:
        self.model, self.may_end, self.began = model, threading.Event(), threading.Event()
        self.resolved = model.resolved

    @property
    def closed(self) -> bool:
        return bool(self.model.closed)

    task = "text-classification"

    def try_out(self) -> None:
        self.model.try_out()

    def predict(self, texts: list[str]) -> list[Prediction]:
        self.began.set()
        assert self.may_end.wait(30)
        return list(self.model.predict(texts))

    def close(self) -> None:
        self.model.close()


async def eventually(true: Callable[[], bool]) -> None:
    for _ in range(500):
        if true():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not come")


def test_requests_keep_the_model_they_began_with(folder_registry: Registry, tmp_path: Path) -> None:
    publish(folder_registry, tmp_path)
    loaded: list[Slow] = []

    def load(ref: str) -> Any:
        loaded.append(Slow(folder_registry.load(ref)))
        return loaded[-1]

    async def ask(live: LiveModel) -> tuple[str, float]:
        with live.use() as held:
            (found,) = await held.runner.predict(["parcel"])
            return held.resolved.version, found.probability

    async def scenario() -> None:
        live = LiveModel(folder_registry, "m@production", load=load, make_runner=Runner, poll=1)
        old_ones = [asyncio.create_task(ask(live)) for _ in range(3)]
        await eventually(loaded[0].began.is_set)
        folder_registry.alias("m", "production", "1.0.1")
        await live.look()
        assert live.resolved.version == "1.0.1"
        assert not loaded[0].closed
        loaded[1].may_end.set()
        version, probability = await ask(live)
        assert (version, probability) == ("1.0.1", pytest.approx(expected("1.0.1"), abs=1e-5))
        assert not loaded[0].closed
        loaded[0].may_end.set()
        for old in old_ones:
            version, probability = await old
            assert (version, probability) == ("1.0.0", pytest.approx(expected("1.0.0"), abs=1e-5))
        await eventually(lambda: loaded[0].closed)
        assert not loaded[1].closed
        live.close()
        await eventually(lambda: loaded[1].closed)

    asyncio.run(scenario())


def test_a_version_that_no_longer_serves_can_be_evicted(folder_registry: Registry, tmp_path: Path) -> None:
    publish(folder_registry, tmp_path)

    def in_use() -> list[str]:
        return [kept.digest for kept in Evictor(folder_registry.cache.root).snapshots() if kept.in_use]

    async def scenario() -> None:
        live = LiveModel(folder_registry, "m@production", load=folder_registry.load, make_runner=Runner, poll=1)
        for version in ("1.0.1", "1.0.0", "1.0.2"):
            folder_registry.alias("m", "production", version)
            await live.look()
            serving = live.resolved.digest.removeprefix("sha256:")
            await eventually(lambda serving=serving: in_use() == [serving])
        live.close()
        await eventually(lambda: in_use() == [])

    asyncio.run(scenario())


def test_the_store_fails_under_a_look(folder_registry: Registry, tmp_path: Path, monkeypatch: Any) -> None:
    publish(folder_registry, tmp_path)

    async def scenario() -> None:
        live = LiveModel(folder_registry, "m", load=folder_registry.load, make_runner=Runner, poll=1)
        before = live.status.as_of
        get = folder_registry.store.get

        def gone(key: str, limit: int) -> bytes | None:
            raise UnreachableError("the store is gone")

        monkeypatch.setattr(folder_registry.store, "get", gone)
        for _ in range(3):
            await live.look()
        assert (live.status.problem, live.status.failures, live.status.as_of) == ("the store is gone", 3, before)
        monkeypatch.setattr(folder_registry.store, "get", get)
        await live.look()
        assert live.status.problem is None
        assert live.status.as_of > before
        live.close()

    asyncio.run(scenario())


def test_a_folder_that_is_gone_or_set_back(folder_registry: Registry, tmp_path: Path) -> None:
    publish(folder_registry, tmp_path)
    store, away = tmp_path / "store", tmp_path / "away"
    last = store / "models" / "m" / "log" / "000000000004.json"

    async def scenario() -> None:
        live = LiveModel(folder_registry, "m", load=folder_registry.load, make_runner=Runner, poll=1)
        before = live.status.as_of
        store.rename(away)
        await live.look()
        await live.look()
        assert "gone, or not mounted" in str(live.status.problem)
        assert (live.status.failures, live.status.as_of) == (2, before)
        away.rename(store)
        await live.look()
        assert live.status.problem is None
        assert live.status.as_of > before
        before = live.status.as_of
        last.unlink()
        await live.look()
        assert "rolled back" in str(live.status.problem)
        assert live.status.as_of == before
        live.close()

    asyncio.run(scenario())


def test_what_the_policy_refuses_later_is_told(
    folder_registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without any new entry in the log: the policy's file is read again, and its last days pass."""
    publish(folder_registry, tmp_path)
    pair, rule = make_pair(tmp_path / "keys", "ci"), 'models = ["*"]\nkeys = ["ci"]'
    folder_registry.sign("m@1.0.0", key=pair.private)
    policy = write_policy(tmp_path / "policy.toml", [pair], rule)
    permitting = policy.read_text()
    registry = Registry(tmp_path / "store", cache=tmp_path / "served", policy=policy)
    now = [0.0]
    monkeypatch.setattr("slm_registry.serving.livemodel.time", SimpleNamespace(monotonic=lambda: now[0]))

    async def scenario() -> None:
        live = LiveModel(registry, "m@production", load=registry.load, make_runner=Runner, poll=1)
        for refusing, complaint in (
            (
                permitting.replace('keys = ["ci"]', "keys = []\nsignatures = 0\noldest = '2.0.0'"),
                "refuses versions below",
            ),
            (
                permitting.replace(f'"{pair.shown.line}"', f'{{ public = "{pair.shown.line}", expires = 2020-01-31 }}'),
                "expired on 2020-01-31",
            ),
            ("format = 1", "no rule"),
            ("rules", "not TOML"),
        ):
            policy.write_text(refusing)
            await live.look()
            assert live.status.problem is None
            now[0] += 301
            await live.look()
            assert complaint in str(live.status.problem)
            with live.use() as held:
                assert (await held.runner.predict(["parcel"]))[0].label == "delivery"
            policy.write_text(permitting)
            await live.look()
            assert live.status.problem is None
        live.close()

    asyncio.run(scenario())


def test_too_much_waits_and_a_request_given_up(folder_registry: Registry, tmp_path: Path) -> None:
    publish(folder_registry, tmp_path)

    async def scenario() -> None:
        model: Any = Slow(folder_registry.load("m"))
        runner = Runner(model, waiting=3)
        first, given_up, last = (asyncio.create_task(runner.predict(["hello"])) for _ in range(3))
        await eventually(model.began.is_set)
        with pytest.raises(OverloadedError):
            await runner.predict(["hello"])
        given_up.cancel()
        model.may_end.set()
        assert (await first)[0].label == (await last)[0].label == "other"
        # More than may wait, but nothing else is in hand.
        assert len(await runner.predict(["hello"] * 4)) == 4
        model.close()
        with pytest.raises(UsageError, match="closed"):
            await runner.predict(["hello"])
        runner.close()

    asyncio.run(scenario())
