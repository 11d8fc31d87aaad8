"""With the store gone a pulled model loads, says how old its alias is, and can be refused for it."""

from __future__ import annotations

import datetime
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from slm_registry import CorruptError, NotFoundError, PolicyError, Registry, UnreachableError, open_store
from slm_registry.cli import main
from slm_registry.stores.base import Store
from slm_registry.stores.s3 import S3Store
from slm_registry.upkeep import fsck, gc

from tests.registry.helpers import make_bundle
from tests.registry.recording import RecordingStore
from tests.registry.trusting import make_pair, write_policy


class Away(RecordingStore):
    """A store that can be taken away."""

    away = False

    def get(self, key: str, limit: int) -> bytes | None:
        if self.away:
            raise UnreachableError("the store does not answer")
        return super().get(key, limit)


@pytest.fixture
def away(store: Store, bundle: Path, tmp_path: Path) -> Away:
    made = Away(store)
    registry = Registry(made, cache=tmp_path / "cache")
    registry.publish(bundle, "m", lineage={}, alias="candidate")
    registry.load("m@candidate")
    made.away = True
    made.calls.clear()
    return made


def made_old(cache: Path, seconds: float) -> datetime.datetime:
    """Let what is remembered be as old as that."""
    (path,) = (cache / "stores").glob("*/m.json")
    at = datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=seconds)
    os.utime(path, (at.timestamp(),) * 2)
    return at


def test_a_pulled_model_loads_with_the_store_gone(away: Away, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    at = made_old(tmp_path / "cache", 3600)
    registry = Registry(away, cache=tmp_path / "cache")
    model = registry.load("m@candidate")
    assert model.predict(["where is my parcel"])[0].label == "delivery"
    assert model.resolved is not None
    assert model.resolved.as_of == registry.resolve("m@candidate").as_of == at.isoformat(timespec="seconds")
    assert "the store does not answer; going on with what it said at" in caplog.text
    assert "3600 s ago" in caplog.text
    assert registry.pull("m@1.0.0") == registry.pull("m")
    # The store back, the answer is of now.
    away.away = False
    back = datetime.datetime.fromisoformat(registry.resolve("m@candidate").as_of)
    assert (datetime.datetime.now(datetime.UTC) - back).total_seconds() < 60


def test_an_old_alias_can_be_refused(away: Away, tmp_path: Path) -> None:
    made_old(tmp_path / "cache", 3600)
    assert Registry(away, cache=tmp_path / "cache", max_age=4000).load("m@candidate").labels
    registry = Registry(away, cache=tmp_path / "cache", max_age=3000)
    for call in (registry.load, registry.pull, registry.resolve):
        with pytest.raises(UnreachableError, match="older than the 3000 s allowed"):
            call("m@candidate")
    away.away = False
    assert registry.load("m@candidate").labels


def test_offline_asks_nothing_of_the_store(away: Away, tmp_path: Path) -> None:
    registry = Registry(away, cache=tmp_path / "cache", offline=True)
    assert registry.load("m@candidate").labels
    assert away.calls == []
    with pytest.raises(UnreachableError, match="offline"):
        registry.load("other")
    with pytest.raises(NotFoundError, match="no alias 'production'"):
        registry.load("m@production")


def test_offline_nothing_reaches_the_store(away: Away, bundle: Path, tmp_path: Path) -> None:
    """Whatever is asked, and though the store is there."""
    away.away = False
    registry = Registry(away, cache=tmp_path / "cache", offline=True)
    (registry.pull("m@candidate") / "model.onnx").unlink()
    for blob in (tmp_path / "cache" / "blobs").iterdir():
        blob.unlink()
    asked: tuple[Callable[[], object], ...] = (
        lambda: registry.pull("m@candidate"),
        registry.list,
        registry.models,
        lambda: registry.list("m"),
        lambda: registry.show("m"),
        lambda: registry.log("m"),
        lambda: registry.publish(bundle, "m", lineage={}),
        lambda: registry.alias("m", "production", "1.0.0"),
        lambda: gc.collect(registry.store, "alice"),
        lambda: fsck.check(registry.store),
    )
    for ask in asked:
        with pytest.raises(UnreachableError, match="not asked: offline"):
            ask()
    assert away.calls == []


@pytest.mark.parametrize("words", [["list"], ["show", "m"], ["certify", "store"], ["watch", "m", "--once"]])
def test_the_commands_offline(words: list[str], bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Registry("store", cache="cache").publish(bundle, "m", lineage={})
    monkeypatch.setenv("SLM_REGISTRY_CACHE", "cache")
    monkeypatch.setenv("SLM_REGISTRY_URL", "store")
    assert main(words) == 0
    assert main([*words, "--offline"]) in (2, 7)


def test_what_was_never_pulled_is_not_there(away: Away, tmp_path: Path) -> None:
    with pytest.raises(UnreachableError, match="does not answer"):
        Registry(away, cache=tmp_path / "other").load("m@candidate")


def test_a_spoiled_memory_is_not_believed(away: Away, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (path,) = (tmp_path / "cache" / "stores").glob("*/m.json")
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(UnreachableError, match="does not answer"):
        Registry(away, cache=tmp_path / "cache").load("m@candidate")
    assert "m.json is ignored" in caplog.text


def test_offline_says_what_the_store_said_last_of_every_version(store: Store, tmp_path: Path) -> None:
    registry = Registry(store, cache=tmp_path / "cache")
    offline = Registry(store, cache=tmp_path / "cache", offline=True)
    for number, version in enumerate(("1.0.0", "1.1.0", "1.2.0")):
        registry.publish(make_bundle(tmp_path / version, weight=1.0 + number), "m", version=version, lineage={})
    registry.pull("m@1.1.0")
    registry.yank("m", "1.2.0")
    registry.yank("m", "1.1.0")
    registry.pull("m@latest")
    for ref in ("m", "m@latest", "m@>=1"):
        assert offline.resolve(ref).version == registry.resolve(ref).version == "1.0.0"
    # What was pulled by version is still found by it.
    assert offline.pull("m@1.1.0") == registry.pull("m@1.1.0")


@pytest.mark.parametrize("put_back", [False, True])
def test_an_answer_of_before_a_store_was_set_back(
    tmp_path: Path, bundle: Path, other_bundle: Path, put_back: bool
) -> None:
    registry = Registry(tmp_path / "store", cache=tmp_path / "cache")
    offline = Registry(tmp_path / "store", cache=tmp_path / "cache", offline=True)
    registry.publish(bundle, "m", lineage={})
    registry.pull("m@1.0.0")
    (answer,) = (tmp_path / "cache" / "stores").glob("*/m.json")
    before = answer.read_bytes()
    shutil.rmtree(tmp_path / "store" / "models")
    assert registry.forget("m")
    with pytest.raises(UnreachableError, match="offline"):
        offline.resolve("m@1.0.0")
    if put_back:
        # As a process does that pulled while it was forgotten.
        answer.write_bytes(before)
    registry.publish(other_bundle, "m", lineage={})
    registry.publish(bundle, "m", lineage={}, alias="candidate")
    registry.pull("m@candidate")
    assert offline.resolve("m@candidate").digest == registry.resolve("m@candidate").digest
    if put_back:
        assert offline.resolve("m@1.0.0").digest == registry.resolve("m@1.0.0").digest
    else:
        with pytest.raises(NotFoundError):
            offline.resolve("m@1.0.0")


def test_a_folder_that_is_not_mounted(bundle: Path, tmp_path: Path) -> None:
    registry = Registry(tmp_path / "store", cache=tmp_path / "cache")
    registry.publish(bundle, "m", lineage={})
    registry.pull("m")
    shutil.rmtree(tmp_path / "store")
    assert registry.load("m").labels
    (tmp_path / "store").mkdir()
    assert registry.load("m").labels
    with pytest.raises(NotFoundError, match="holds no model"):
        Registry(tmp_path / "store", cache=tmp_path / "new").load("m")


def test_a_bucket_behind_a_dead_endpoint(
    s3_url: str, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("botocore.retries.standard.ExponentialBackoff.delay_amount", lambda *_: 0)
    registry = Registry(s3_url, cache=tmp_path / "cache")
    registry.publish(bundle, "m", lineage={})
    registry.load("m")
    store = open_store(s3_url.partition("?")[0] + "?endpoint_url=http://127.0.0.1:1")
    assert isinstance(store, S3Store)
    # The same store as far as this cache is concerned, and it does not answer.
    store.identity = registry.store.identity
    model = Registry(store, cache=tmp_path / "cache").load("m")
    assert model.predict(["hello"])[0].label == "other"


def test_the_gate_stands_with_the_store_gone(away: Away, tmp_path: Path) -> None:
    known, strange = make_pair(tmp_path / "keys", "known"), make_pair(tmp_path / "keys", "strange")
    rules = {
        pair: write_policy(tmp_path / f"{name}.toml", [pair], f'models = ["*"]\nkeys = ["{name}"]')
        for name, pair in (("known", known), ("strange", strange))
    }
    away.away = False
    Registry(away, cache=tmp_path / "cache").sign("m@candidate", key=known.private)
    Registry(away, cache=tmp_path / "cache", policy=rules[known]).load("m@candidate")
    away.away = True
    assert Registry(away, cache=tmp_path / "cache", policy=rules[known]).load("m@candidate").labels
    with pytest.raises(UnreachableError):
        Registry(away, cache=tmp_path / "cache", policy=rules[strange]).load("m@candidate")
    elsewhere = write_policy(tmp_path / "other.toml", [known], 'models = ["other-*"]\nkeys = ["known"]')
    with pytest.raises(PolicyError, match="no rule"):
        Registry(away, cache=tmp_path / "cache", policy=elsewhere, offline=True).resolve("m@candidate")


def test_a_store_that_is_there_and_lost_a_log_is_not_offline(bundle: Path, tmp_path: Path) -> None:
    registry = Registry(tmp_path / "store", cache=tmp_path / "cache")
    registry.publish(bundle, "m", lineage={})
    registry.pull("m")
    shutil.rmtree(tmp_path / "store" / "models")
    with pytest.raises(CorruptError, match="rolled back"):
        registry.load("m")


def test_another_store_of_that_name_is_another(away: Away, tmp_path: Path) -> None:
    away.identity = "elsewhere"
    with pytest.raises(UnreachableError):
        Registry(away, cache=tmp_path / "cache").load("m@candidate")
