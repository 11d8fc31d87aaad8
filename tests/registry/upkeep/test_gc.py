"""Garbage collection: two marks, grace, leases, and no dangling reference whatever races."""

from __future__ import annotations

import datetime
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from slm_registry import ConflictError, CorruptError, Registry, UsageError
from slm_registry.changes import leases, publish
from slm_registry.log.entries import Entry
from slm_registry.plumbing.hashing import digest_of
from slm_registry.stores.base import Store
from slm_registry.stores.s3 import S3Store
from slm_registry.transfer.blobs import blob_key
from slm_registry.trust.memory import Witness
from slm_registry.trust.signatures import Subject, put_signature, signature_folder
from slm_registry.upkeep import gc, references

from tests.registry.helpers import REPOSITORY
from tests.registry.trusting import make_pair

WEEK, HOUR = 7 * 86400.0, 3600.0
ROUNDS = 200


def litter(store: Store, *texts: bytes) -> list[str]:
    """Blobs that nothing refers to, as a publish that died leaves them."""
    for text in texts:
        store.put(blob_key(digest_of(text)), text)
    return sorted(blob_key(digest_of(text)) for text in texts)


def age(root: Path, seconds: float, *patterns: str) -> None:
    """Make files of a folder store older."""
    for pattern in patterns:
        for path in root.glob(pattern):
            then = path.stat().st_mtime - seconds
            os.utime(path, (then, then))


def keys(items: tuple[Any, ...]) -> list[str]:
    return [item.key for item in items]


def collect(store: Store, **options: Any) -> gc.Collected:
    return gc.collect(store, "keeper", **options)


def test_what_is_unreferenced_goes_at_the_second_mark(registry: Registry, bundle: Path) -> None:
    store = registry.store
    registry.publish(bundle, "m", lineage={"a": 1})
    sound = set(store.children("blobs/sha256"))
    lost = litter(store, b"lost", b"found")
    dry = collect(store, grace=0)
    assert (dry.deleted, dry.removed, dry.marked, keys(dry.unmarked)) == (False, (), (), lost)
    first = collect(store, grace=0, delete=True)
    assert (first.removed, keys(first.marked)) == ((), lost)
    dry = collect(store, grace=0)
    assert (keys(dry.removed), dry.unmarked) == (lost, ())
    assert set(store.children("blobs/sha256")) == sound | {key[13:] for key in lost}
    second = collect(store, grace=0, delete=True)
    assert (keys(second.removed), second.kept, second.marked) == (lost, len(sound), ())
    assert set(store.children("blobs/sha256")) == sound
    assert store.children("gc/sweeps") == []
    assert registry.load("m").predict(["hello"])[0].label == "other"
    (entry,) = gc.removals(store)
    assert (entry["op"], entry["actor"], entry["size"]) == ("gc", "keeper", 9)
    assert [blob_key(digest) for digest in entry["blobs"]] == lost
    assert collect(store, grace=0, delete=True).removed == ()
    assert len(gc.removals(store)) == 1


def test_signatures_and_policies_stay_with_what_they_belong_to(
    registry: Registry, bundle: Path, tmp_path: Path
) -> None:
    store, pair = registry.store, make_pair(tmp_path / "keys", "ci")
    (bundle / "metrics.json").write_text("{}")
    done = registry.publish(bundle, "m", lineage={}, key=pair.private)
    registry.promote("m", "production", "1.0.0", policy="accuracy: 0.8")
    lost = b'{"a": "manifest that was never committed"}'
    litter(store, lost)
    put_signature(store, pair.key, Subject("m", "1.0.1", digest_of(lost)))
    for _ in range(2):
        collect(store, grace=0, delete=True)
    assert store.children(signature_folder(digest_of(lost))) == []
    assert store.children(signature_folder(done.digest)) == [f"{pair.shown.id}.json"]
    assert store.size(blob_key(digest_of(lost))) is None
    assert store.size(blob_key(digest_of(b"accuracy: 0.8"))) == 13
    assert registry.verify("m", [pair.public])[1] == (pair.shown,)


def test_grace_and_a_day_between_the_marks(folder_registry: Registry, bundle: Path, tmp_path: Path) -> None:
    store, root = folder_registry.store, tmp_path / "store"
    folder_registry.publish(bundle, "m", lineage={})
    (lost,) = litter(store, b"lost")
    assert collect(store, delete=True).marked == ()
    age(root, WEEK + 1, "blobs/sha256/*")
    assert keys(collect(store, delete=True).marked) == [lost]
    age(root, 23 * HOUR, "gc/candidates.json")
    young = collect(store, delete=True)
    assert (young.removed, keys(young.marked)) == ((), [lost])
    # Marked, and uploaded again by somebody: it is young, and that counts.
    age(root, HOUR, "gc/candidates.json")
    litter(store, b"lost")
    assert collect(store, delete=True).removed == ()
    age(root, WEEK + 1, "blobs/sha256/*")
    assert keys(collect(store, delete=True).marked) == [lost]
    age(root, 25 * HOUR, "gc/candidates.json")
    assert keys(collect(store, delete=True).removed) == [lost]
    folder_registry.load("m")


@pytest.mark.parametrize("off", [-86400.0, 86400.0])
def test_clocks_a_day_off_change_nothing(
    folder_registry: Registry, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, off: float
) -> None:
    class Shifted(datetime.datetime):
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> datetime.datetime:
            return datetime.datetime.fromtimestamp(real(), tz)

    sound = time.time

    def real() -> float:
        return sound() + off

    monkeypatch.setattr(time, "time", real)
    monkeypatch.setattr(datetime, "datetime", Shifted)
    test_grace_and_a_day_between_the_marks(folder_registry, bundle, tmp_path)


def test_a_lease_protects_until_it_expires(folder_registry: Registry, tmp_path: Path) -> None:
    store = folder_registry.store
    litter(store, b"lost")
    with leases.held(store, "m", "slow", [digest_of(b"lost")]):
        for _ in range(3):
            assert collect(store, grace=0, delete=True).marked == ()
        age(tmp_path / "store", 23 * HOUR, "leases/*")
        assert collect(store, grace=0, delete=True).marked == ()
        age(tmp_path / "store", 1 * HOUR, "leases/*")
        dry = collect(store, grace=0)
        assert len(dry.leases) == 1
        assert store.children("leases") != []
        assert len(collect(store, grace=0, delete=True).leases) == 1
        assert store.children("leases") == []
    assert len(collect(store, grace=0, delete=True).removed) == 1


def test_a_publisher_whose_lease_ran_out_uploads_again(
    folder_registry: Registry, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, sound, uploads = folder_registry.store, publish.upload, []

    def slow(*arguments: Any, **options: Any) -> None:
        sound(*arguments, **options)
        uploads.append(1)
        if len(uploads) == 1:
            # A day goes by, and two collections with it.
            age(tmp_path / "store", 25 * HOUR, "leases/*")
            collect(store, grace=0, delete=True)
            assert len(collect(store, grace=0, delete=True).removed) >= 7
            assert store.children("blobs/sha256") == []

    monkeypatch.setattr(publish, "upload", slow)
    folder_registry.publish(bundle, "m", lineage={})
    assert len(uploads) == 2
    assert store.children("leases") == []
    folder_registry.load("m")


def test_a_publisher_waits_for_a_sweep(registry: Registry, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    registry.publish(bundle, "other", lineage={})
    blobs = [f"sha256:{name}" for name in registry.store.children("blobs/sha256")]
    elsewhere = leases.Sweep(registry.store, "keeper", [digest_of(b"nobody's")])
    elsewhere.announce()
    sweep = leases.Sweep(registry.store, "keeper", blobs)
    sweep.announce()
    waits: list[int] = []

    def pause() -> None:
        waits.append(1)
        if len(waits) == 3:
            sweep.end()

    monkeypatch.setattr(leases, "_pause", pause)
    assert registry.publish(bundle, "m", lineage={}).created
    assert len(waits) == 3
    with pytest.raises(ConflictError, match="is gone"):
        sweep.renew()


def test_a_collection_that_died_is_waited_for_and_then_counts_no_more(
    folder_registry: Registry, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = folder_registry.store
    folder_registry.publish(bundle, "other", lineage={})
    leases.Sweep(store, "dead", [f"sha256:{name}" for name in store.children("blobs/sha256")]).announce()
    monkeypatch.setattr(leases, "_pause", lambda: None)
    with pytest.raises(ConflictError, match=r"gc/sweeps/.*run it again"):
        folder_registry.publish(bundle, "m", lineage={})
    assert (store.children("models"), store.children("leases")) == (["other"], [])
    assert collect(store, delete=True).sweeps == ()
    age(tmp_path / "store", HOUR, "gc/sweeps/*")
    assert folder_registry.publish(bundle, "m", lineage={}).created
    assert len(collect(store, delete=True).sweeps) == 1
    assert store.children("gc/sweeps") == []


def test_a_mark_that_is_too_long_is_made_anew_and_no_longer_than_can_be_read(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gc, "_MAX_MARK", 250)
    lost = litter(store, b"one", b"two", b"three")
    store.put("gc/candidates.json", b" " * 300)
    first = collect(store, grace=0, delete=True)
    assert (first.removed, keys(first.marked), keys(first.unmarked)) == ((), lost[:2], lost[2:])
    assert keys(collect(store, grace=0, delete=True).removed) == lost[:2]
    assert keys(collect(store, grace=0, delete=True).removed) == lost[2:]


@pytest.fixture
def left_over(folder_registry: Registry, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A marked blob that the bundle holds and no version does, in a store where sweeps are void after a second."""
    registry = folder_registry
    registry.publish(bundle, "m", lineage={})
    for number in range(4):
        registry.alias("m", f"a{number}", "1.0.0")
    (bundle / "README.md").write_bytes(b"left over")
    (key,) = litter(registry.store, b"left over")
    collect(registry.store, grace=0, delete=True)
    monkeypatch.setattr(leases, "SWEEP_LIFE", 1.0)
    monkeypatch.setattr(leases, "_PATIENCE", 1)
    monkeypatch.setattr(leases, "_pause", lambda: None)
    return key


def test_a_long_walk_renews_its_sweep(
    folder_registry: Registry, bundle: Path, monkeypatch: pytest.MonkeyPatch, left_over: str
) -> None:
    store, sound = folder_registry.store, references.whole_log

    def slow(store: Store, model: str) -> Iterator[Entry]:
        for entry in sound(store, model):
            time.sleep(0.3)
            yield entry
        with pytest.raises(ConflictError, match="garbage collection"):
            folder_registry.publish(bundle, "n", lineage={})

    monkeypatch.setattr(references, "whole_log", slow)
    assert keys(collect(store, grace=0, delete=True).removed) == [left_over]


def test_a_sweep_that_publishers_passed_by_removes_nothing(
    folder_registry: Registry, bundle: Path, monkeypatch: pytest.MonkeyPatch, left_over: str
) -> None:
    store, sound = folder_registry.store, references.whole_log

    def slow(store: Store, model: str) -> tuple[Entry, ...]:
        time.sleep(1.3)
        assert folder_registry.publish(bundle, "n", lineage={}).created
        return sound(store, model)

    monkeypatch.setattr(references, "whole_log", slow)
    with pytest.raises(ConflictError, match="passed it by"):
        collect(store, grace=0, delete=True)
    assert (store.children("gc/sweeps"), store.children("gc/log")) == ([], [])
    assert store.size(left_over) is not None
    folder_registry.pull("n")


def test_a_removal_that_fails_leaves_the_sweep_standing(
    folder_registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    from slm_registry import UnreachableError

    store = folder_registry.store
    litter(store, b"lost")
    collect(store, grace=0, delete=True)

    def fails(key: str) -> None:
        raise UnreachableError("no answer")

    with monkeypatch.context() as patch:
        patch.setattr(store, "delete", fails)
        with pytest.raises(UnreachableError):
            collect(store, grace=0, delete=True)
    assert len(store.children("gc/sweeps")) == 1
    assert len(collect(store, grace=0, delete=True).removed) == 1


Break = Callable[[Path], object]
BREAKS: dict[str, Break] = {
    "an entry in the middle": lambda root: (root / "models/m/log/000000000002.json").unlink(),
    "the last entry": lambda root: (root / "models/m/log/000000000003.json").unlink(),
    "an altered entry": lambda root: (root / "models/m/log/000000000002.json").write_bytes(b"{}"),
    "an unreadable lease": lambda root: [
        (root / "leases").mkdir(exist_ok=True),
        (root / "leases/x.json").write_bytes(b""),
    ],
}


@pytest.mark.parametrize("name", [*BREAKS, "a manifest"])
def test_nothing_goes_from_a_damaged_store(folder_registry: Registry, bundle: Path, tmp_path: Path, name: str) -> None:
    done = folder_registry.publish(bundle, "m", lineage={})
    folder_registry.publish(bundle, "m", version="2.0.0", lineage={})
    folder_registry.alias("m", "production", "2.0.0")
    store = folder_registry.store
    (lost,) = litter(store, b"lost")
    collect(store, grace=0, delete=True)
    if name == "a manifest":
        (tmp_path / "store" / blob_key(done.digest)).write_bytes(b"{}")
    else:
        BREAKS[name](tmp_path / "store")
    before = store.children("blobs/sha256")
    with pytest.raises(CorruptError, match=r"fsck|not strict JSON|format|does not follow"):
        collect(store, grace=0, delete=True)
    assert store.children("blobs/sha256") == before
    assert store.size(lost) is not None
    assert store.children("gc/sweeps") == []


@pytest.mark.parametrize("lost", ["models/m", "models"])
def test_nothing_goes_where_a_log_that_was_seen_is_gone(
    folder_registry: Registry, bundle: Path, tmp_path: Path, lost: str
) -> None:
    store = folder_registry.store
    folder_registry.publish(bundle, "m", lineage={})
    folder_registry.publish(bundle, "n", lineage={"a": 1})
    witness = Witness(folder_registry.cache.root, store)
    collect(store, grace=0, delete=True, witness=witness)
    before = store.children("blobs/sha256")
    (tmp_path / "store" / lost).rename(tmp_path / "store" / "aside")
    for delete in (False, True, True):
        with pytest.raises(CorruptError, match="'m' was rolled back"):
            collect(store, grace=0, delete=delete, witness=witness)
    assert store.children("blobs/sha256") == before


def test_whatever_an_entry_names_stays(folder_registry: Registry, bundle: Path) -> None:
    """A manifest's config may name blobs, such as a bill of materials, that are no layers."""
    store = folder_registry.store
    kept = litter(store, b"a bill of materials")
    folder_registry.publish(bundle, "m", lineage={"bill": digest_of(b"a bill of materials")})
    lost = litter(store, b"lost")
    collect(store, grace=0, delete=True)
    assert keys(collect(store, grace=0, delete=True).removed) == lost
    assert store.size(kept[0]) is not None


def test_temporary_files_and_open_uploads(store: Store, tmp_path: Path) -> None:
    if isinstance(store, S3Store):
        for key in ("blobs/sha256/" + "0" * 64, "elsewhere"):
            store._client.create_multipart_upload(Bucket=store.bucket, Key=store.prefix + key)
    else:
        (tmp_path / "store" / ".tmp").mkdir(parents=True)
        (tmp_path / "store" / ".tmp" / "f00").write_bytes(b"half")
        time.sleep(0.02)
        # Not so on moto, to which every upload was begun in 2010.
        assert collect(store).unfinished == ()
    assert len(collect(store, grace=0).unfinished) == 1
    assert len(collect(store, grace=0, delete=True).unfinished) == 1
    assert collect(store, grace=0).unfinished == ()


def test_the_log_of_collections_is_a_chain(folder_registry: Registry, tmp_path: Path) -> None:
    store = folder_registry.store
    for text in (b"one", b"two"):
        litter(store, text)
        collect(store, grace=0, delete=True)
        collect(store, grace=0, delete=True)
    first, second = gc.removals(store)
    assert (first["seq"], second["seq"]) == (1, 2)
    path = tmp_path / "store" / "gc" / "log" / "000000000001.json"
    path.write_bytes(path.read_bytes().replace(b"keeper", b"nobody"))
    with pytest.raises(CorruptError, match=r"000000000002\.json does not follow"):
        gc.removals(store)


@pytest.mark.parametrize("grace", [-1.0, float("nan"), float("inf")])
def test_a_grace_period_that_is_none(store: Store, grace: float) -> None:
    with pytest.raises(UsageError, match="grace"):
        collect(store, grace=grace)


def drive(root: Path, rounds: int, how: str = "") -> dict[str, int]:
    driver = REPOSITORY / "tests" / "registry" / "gc_driver.py"
    run = subprocess.run(
        [sys.executable, str(driver), str(root), str(rounds), "7", *([how] if how else [])],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(REPOSITORY / "registry"), "PATH": "", "HOME": str(root)},
        check=False,
    )
    assert run.returncode == 0, run.stderr
    found: dict[str, int] = json.loads(run.stdout)
    return found


def test_collections_race_publishers(tmp_path: Path) -> None:
    found = drive(tmp_path, ROUNDS)
    assert found["rounds"] == ROUNDS
    assert "bad rounds" not in found
    # It was a race: blobs went, versions came, and some died at it.
    assert min(found["removed"], found["done"], found["killed"]) > ROUNDS / 20


@pytest.mark.parametrize("how", ["no-wait", "no-lease"])
def test_without_its_protection_the_race_is_lost(tmp_path: Path, how: str) -> None:
    assert drive(tmp_path, ROUNDS // 2, how)["bad rounds"] > 0
