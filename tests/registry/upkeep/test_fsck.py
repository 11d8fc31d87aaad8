"""fsck: each kind of damage found, named, and put right where that can be."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from slm_registry import Registry, UnreachableError
from slm_registry.cli import main
from slm_registry.plumbing.files import os_errors
from slm_registry.plumbing.hashing import digest_of
from slm_registry.stores.base import Store
from slm_registry.stores.folder import FolderStore
from slm_registry.stores.s3 import S3Store
from slm_registry.transfer.blobs import blob_key
from slm_registry.trust.memory import Witness
from slm_registry.trust.signatures import signature_folder
from slm_registry.upkeep import fsck

from tests.registry.trusting import make_pair

HEAD = "models/m/head.json"
INDEX = "models/m/index.json"
Damaged = list[tuple[str, str | None, str | None, str | None, str, bool]]


class Setup:
    """Two models, three versions, two of which share all but the weights."""

    def __init__(self, registry: Registry, bundle: Path, other: Path) -> None:
        self.registry, self.store = registry, registry.store
        self.published = registry.publish(bundle, "m", lineage={"a": 1}, alias="production")
        registry.publish(other, "m", lineage={"a": 2})
        registry.publish(other, "n", lineage={"a": 3})
        self.files = {file.path: file.digest for file in registry.show("m@1.0.1").files}

    def check(self, **options: Any) -> tuple[fsck.Report, Damaged]:
        report = fsck.check(self.store, **options)
        return report, [(d.part, d.model, d.version, d.file, d.key, d.repaired) for d in report.damage]

    def repair(self) -> Damaged:
        return self.check(cache=self.registry.cache.root, repair=True)[1]


@pytest.fixture
def setup(registry: Registry, bundle: Path, other_bundle: Path) -> Setup:
    return Setup(registry, bundle, other_bundle)


def spoil(store: Store, key: str) -> None:
    data = bytearray(store.get(key, 1 << 24) or b"")
    data[len(data) // 2] ^= 1
    store.put(key, bytes(data))


def test_a_sound_store(setup: Setup) -> None:
    report, damage = setup.check()
    assert damage == []
    assert (report.models, report.entries, report.versions, report.unreferenced) == (2, 4, 3, 0)
    assert report.blobs == len(setup.store.children("blobs/sha256")) == 5 + 1 + 6
    setup.store.put(blob_key(digest_of(b"lost")), b"lost")
    setup.store.delete(HEAD)
    report, damage = setup.check(repair=True)
    assert (damage, report.unreferenced) == ([], 1)


def test_an_empty_store(store: Store) -> None:
    report = fsck.check(store)
    assert (report.models, report.blobs, report.damage) == (0, 0, ())


@pytest.mark.parametrize("how", ["altered", "missing"])
def test_a_blob_is_named_by_all_that_use_it_and_restored_from_the_cache(setup: Setup, how: str) -> None:
    key = blob_key(setup.files["model.onnx"])
    setup.registry.pull("n")
    spoil(setup.store, key) if how == "altered" else setup.store.delete(key)
    report, damage = setup.check()
    users = [("file", "m", "1.0.1", "model.onnx", key), ("file", "n", "1.0.0", "model.onnx", key)]
    assert damage == [(*user, False) for user in users]
    assert {item.problem for item in report.damage} == {how}
    assert setup.repair() == [(*user, True) for user in users]
    assert setup.check()[1] == []
    setup.registry.load("m@1.0.1")


@pytest.mark.parametrize("how", ["altered", "missing"])
def test_a_manifest_is_restored_from_the_cache(setup: Setup, how: str) -> None:
    key = blob_key(setup.published.digest)
    setup.registry.pull("m@1.0.0")
    spoil(setup.store, key) if how == "altered" else setup.store.delete(key)
    assert setup.repair() == [("manifest", "m", "1.0.0", None, key, True)]
    assert setup.check()[1] == []


def test_what_the_cache_cannot_give_is_left(setup: Setup) -> None:
    key = blob_key(setup.files["model.onnx"])
    setup.registry.pull("n")
    cached = setup.registry.cache.root / "blobs" / key[13:]
    cached.chmod(0o644)
    cached.write_bytes(b"rotten too")
    setup.store.delete(key)
    assert [item[-1] for item in setup.repair()] == [False, False]
    assert setup.store.size(key) is None


def test_manifest_and_lineage(setup: Setup) -> None:
    manifest = blob_key(setup.published.digest)
    config = blob_key(json.loads(setup.store.get(manifest, 1 << 20) or b"")["config"]["digest"])
    spoil(setup.store, config)
    assert setup.check()[1] == [("lineage", "m", "1.0.0", None, config, False)]
    spoil(setup.store, manifest)
    # What it leads to is not known any more; a lineage that nothing is seen to refer to is still altered.
    assert setup.check()[1] == [
        ("manifest", "m", "1.0.0", None, manifest, False),
        ("blob", None, None, None, config, False),
    ]


def test_an_altered_blob_that_nothing_refers_to(setup: Setup) -> None:
    key = blob_key(digest_of(b"lost"))
    setup.store.put(key, b"last")
    setup.store.put("blobs/sha256/notes.txt", b"")
    assert sorted(item[4] for item in setup.check()[1]) == sorted([key, "blobs/sha256/notes.txt"])


def swap(store: Store) -> str:
    one, two = (f"models/m/log/{number:012d}.json" for number in (1, 2))
    data = store.get(one, 1 << 20) or b""
    store.put(one, data.replace(b'"nonce":"', b'"nonce":"0'))
    return two


def delete(number: int) -> Callable[[Store], str]:
    def act(store: Store) -> str:
        key = f"models/m/log/{number:012d}.json"
        store.delete(key)
        return key

    return act


def alter(store: Store) -> str:
    key = "models/m/log/000000000002.json"
    store.put(key, b'{"format":1}')
    return key


@pytest.mark.parametrize(
    ("act", "part"), [(delete(1), "entry"), (delete(2), "entry"), (delete(3), "entry"), (alter, "entry"), (swap, "log")]
)
def test_a_log_that_is_broken(setup: Setup, act: Callable[[Store], str], part: str) -> None:
    key = act(setup.store)
    report = setup.check(repair=True)[0]
    first = report.damage[0]
    assert (first.part, first.model) == (part, "m")
    assert key in first.key + first.problem
    assert report.left
    # The versions behind the break are looked at all the same.
    assert report.versions >= 2
    spoil(setup.store, blob_key(setup.files["model.onnx"]))
    assert "model.onnx" in {item[3] for item in setup.check()[1]}


def test_a_wrong_head_is_written_anew(setup: Setup) -> None:
    sound = setup.store.get(HEAD, 1 << 20) or b""
    for wrong in (b"", sound[:-1], sound.replace(b'"1.0.1"', b'"1.0.2"'), sound.replace(b'"seq":3,"t', b'"seq":7,"t')):
        assert wrong != sound
        setup.store.put(HEAD, wrong)
        assert setup.check()[1] == [("head", "m", None, None, HEAD, False)]
        assert setup.repair() == [("head", "m", None, None, HEAD, True)]
        assert setup.store.get(HEAD, 1 << 20) == sound


def test_a_wrong_index_is_written_anew(setup: Setup) -> None:
    sound = setup.store.get(INDEX, 1 << 20) or b""
    for wrong in (b"", sound[:-1], sound.replace(b'"1.0.1"', b'"1.0.2"')):
        assert wrong != sound
        setup.store.put(INDEX, wrong)
        assert setup.check()[1] == [("index", "m", None, None, INDEX, False)]
        assert setup.repair() == [("index", "m", None, None, INDEX, True)]
        assert setup.check()[1] == []


def test_signatures_and_policies_are_looked_at(setup: Setup, tmp_path: Path) -> None:
    setup.registry.sign("m@1.0.0", key=make_pair(tmp_path / "keys", "ci").private)
    setup.registry.promote("m", "staging", "1.0.1", policy="gate", evaluation="config.json")
    report = setup.check()[0]
    assert (report.damage, report.unreferenced) == ((), 0)
    policy = blob_key(digest_of(b"gate"))
    spoil(setup.store, policy)
    assert setup.check()[1] == [("policy", "m", "1.0.1", None, policy, False)]
    setup.store.put(policy, b"gate")
    folder = f"signatures/{setup.published.digest.removeprefix('sha256:')}"
    (name,) = setup.store.children(folder)
    data = setup.store.get(f"{folder}/{name}", 1 << 16) or b""
    for key, wrong in ((f"{folder}/{name}", data[:-1]), (f"{folder}/{'00' * 32}.json", data)):
        setup.store.put(f"{folder}/{name}", data)
        setup.store.put(key, wrong)
        assert setup.check()[1] == [("signature", None, None, None, key, False)]


def test_a_head_that_knows_more_than_the_log_is_evidence(setup: Setup) -> None:
    sound = setup.store.get(HEAD, 1 << 20)
    setup.store.delete("models/m/log/000000000003.json")
    (damage, *_) = setup.repair()
    assert damage == ("entry", "m", None, None, "models/m/log/000000000003.json", False)
    assert setup.store.get(HEAD, 1 << 20) == sound


def test_numbers_out_of_this_world_cost_nothing(setup: Setup) -> None:
    setup.store.put("models/m/log/999999999999.json", b"{}")
    assert [item[4] for item in setup.check()[1]][:2] == [
        "models/m/log/000000000004.json",
        "models/m/log/999999999999.json",
    ]


def test_the_log_of_collections(setup: Setup) -> None:
    setup.store.put("gc/log/000000000002.json", b"{}")
    assert [item[0] for item in setup.check()[1]] == ["gc log"]


def test_bundles_of_openssf_and_strangers_among_the_signatures(setup: Setup) -> None:
    folder = signature_folder(setup.published.digest)
    bundle = f"{folder}/openssf-{'0' * 64}.json"
    setup.store.put(bundle, b'{"verificationMaterial": {}}')
    assert setup.check()[1] == []
    setup.store.put(bundle, b"no JSON")
    strangers = ["signatures/README", "signatures/Notes/a.txt", f"{folder}/README", f"{folder}/{'0' * 63}.json"]
    for key in strangers:
        _put_anything(setup.store, key)
    damage = setup.check()[1]
    told = {"signatures/Notes" if "Notes" in key else key for key in strangers}
    assert {item[4] for item in damage} == {bundle, *told}
    assert {item[0] for item in damage} == {"signature"}


def _put_anything(store: Store, key: str) -> None:
    """Write to a key that no store of this package would take."""
    if isinstance(store, S3Store):
        store._client.put_object(Bucket=store.bucket, Key=store.prefix + key, Body=b"{}")
    else:
        assert isinstance(store, FolderStore)
        (store.root / key).parent.mkdir(parents=True, exist_ok=True)
        (store.root / key).write_bytes(b"{}")


@pytest.mark.parametrize("url", ["folder"], indirect=True)
def test_what_is_no_plain_file_is_damage_like_any_other(setup: Setup) -> None:
    """Only a folder holds links."""
    assert isinstance(setup.store, FolderStore)
    setup.registry.pull("n")
    key, gone = blob_key(setup.files["model.onnx"]), blob_key(setup.published.digest)
    (setup.store.root / key).unlink()
    (setup.store.root / key).symlink_to(setup.registry.cache.root / key[-64:])
    setup.store.delete(gone)
    report, damage = setup.check()
    assert [item[4] for item in damage] == [gone, key, key]
    assert [item.problem for item in report.damage] == ["missing", "altered", "altered"]
    assert [item[-1] for item in setup.repair()] == [False, True, True]


class Failing(FolderStore):
    """A folder on a disk that gives back an error for some keys."""

    bad: tuple[str, ...] = ()

    def get(self, key: str, limit: int) -> bytes | None:
        self._fail(key)
        return super().get(key, limit)

    def stream(self, key: str, start: int, end: int) -> Iterator[bytes]:
        self._fail(key)
        return super().stream(key, start, end)

    def _fail(self, key: str) -> None:
        if key in self.bad:
            with os_errors("read", key):
                raise OSError(errno.EIO, "Input/output error")


def test_one_key_that_cannot_be_read_does_not_end_the_check(tmp_path: Path, bundle: Path, other_bundle: Path) -> None:
    store = Failing(tmp_path / "store")
    setup = Setup(Registry(store, cache=tmp_path / "cache"), bundle, other_bundle)
    key, entry = blob_key(setup.files["model.onnx"]), "models/m/log/000000000001.json"
    store.bad = (key, entry)
    report, damage = setup.check()
    assert {item[4] for item in damage} == {key, entry}
    assert all(item.problem.startswith("unreadable: cannot read") for item in report.damage)


@pytest.mark.parametrize("url", ["s3"], indirect=True)
def test_a_bucket_that_cannot_be_read_ends_the_check(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*arguments: Any) -> Iterator[bytes]:
        raise UnreachableError("no answer") from ConnectionResetError()

    monkeypatch.setattr(setup.store, "stream", fails)
    with pytest.raises(UnreachableError):
        setup.check()


def test_a_log_that_was_seen_and_is_gone(setup: Setup) -> None:
    witness = Witness(setup.registry.cache.root, setup.store)
    assert setup.check(witness=witness)[1] == []
    # Damaged in itself it is told once.
    last = "models/m/log/000000000003.json"
    setup.store.delete(last)
    assert setup.check(witness=witness)[1] == [("entry", "m", None, None, last, False)]
    for key in (HEAD, INDEX, "models/m/log/000000000002.json", "models/m/log/000000000001.json"):
        setup.store.delete(key)
    report, damage = setup.check(witness=witness)
    assert damage == [("log", "m", None, None, "models/m/log", False)]
    assert "was rolled back" in report.damage[0].problem


@pytest.mark.parametrize("command", ["fsck", "gc"])
def test_a_folder_that_does_not_exist_is_refused_and_not_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    assert main([command, "--store", str(tmp_path / "nowhere")]) == 7
    assert "there is no such folder" in capsys.readouterr().err
    assert not (tmp_path / "nowhere").exists()


def test_the_commands(
    url: str, setup: Setup, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SLM_REGISTRY_CACHE", str(setup.registry.cache.root))
    monkeypatch.setenv("SLM_REGISTRY_URL", url)
    key = blob_key(setup.files["model.onnx"])
    assert main(["fsck"]) == 0
    assert capsys.readouterr().out.startswith("2 models, 4 log entries, 3 versions, 12 blobs")
    setup.registry.pull("n")
    setup.store.delete(key)
    assert main(["fsck"]) == 5
    found = capsys.readouterr()
    assert f"file     m@1.0.1  model.onnx  {key}  missing  left" in found.out
    assert found.err.count("\n") == 1
    assert main(["fsck", "--json"]) == 5
    value = json.loads(capsys.readouterr().out)
    assert (value["error"]["exit_code"], value["report"]["left"]) == (5, 2)
    assert value["report"]["damage"][0]["file"] == "model.onnx"
    assert main(["fsck", "--repair", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["left"] == 0
    assert main(["fsck"]) == 0
