"""certify passes the stores that keep the protocol's promise, refuses those that do not, and leaves nothing behind."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from slm_registry import Registry, StoreError, open_store
from slm_registry.cli import main
from slm_registry.stores.base import Store
from slm_registry.stores.certify import Report, certify
from slm_registry.stores.folder import FolderStore
from slm_registry.stores.s3 import S3Store

from tests.registry.conftest import NewBucket

NAMES = ["create-only", "race", "read-after-write", "list-after-write", "range reads", "blob", "delete"]


def left_behind(store: Store) -> list[str]:
    """Every key in a bucket, every version of one, every file and folder below a folder store."""
    if isinstance(store, FolderStore):
        return [str(path) for path in store.root.rglob("*")]
    assert isinstance(store, S3Store)
    client = store._client
    keys = [item["Key"] for item in client.list_objects_v2(Bucket=store.bucket).get("Contents", ())]
    if client.get_bucket_versioning(Bucket=store.bucket).get("Status"):
        found = client.list_object_versions(Bucket=store.bucket)
        keys += [item["Key"] for item in [*found.get("Versions", ()), *found.get("DeleteMarkers", ())]]
    return keys


def held(report: Report) -> list[str]:
    return [probe.name for probe in report.probes if probe.held]


def test_folder_moto_and_ceph_pass(any_url: str) -> None:
    store = open_store(any_url)
    report = certify(store)
    assert report.refusals == ()
    assert held(report) == NAMES
    assert left_behind(store) == []


def test_rclone_ignores_the_condition(rclone_server: str, new_bucket: NewBucket) -> None:
    store = open_store(new_bucket(rclone_server))
    report = certify(store)
    assert len(report.refusals) == 2
    assert report.refusals[0].startswith("create-only: a create of a key that exists was accepted")
    # Mostly all 16 writers are told that they won; now and then rclone fails one of them instead.
    assert report.refusals[1].startswith("race: ")
    assert "versioned" not in " ".join(report.refusals)
    # Nothing is said of what is left behind: rclone now and then brings back what sixteen writers raced for and one deleted.
    assert held(report) == NAMES[2:]


def test_a_versioned_bucket_of_ceph_ignores_the_condition(ceph_server: str, new_bucket: NewBucket) -> None:
    store = open_store(new_bucket(ceph_server, versioned=True))
    report = certify(store)
    assert [refusal.partition(":")[0] for refusal in report.refusals] == ["create-only", "race"]
    assert all(refusal.endswith("use a bucket without versioning") for refusal in report.refusals)
    assert left_behind(store) == []


def test_a_versioned_bucket_that_keeps_the_condition_is_noted(s3_server: str, new_bucket: NewBucket) -> None:
    store = open_store(new_bucket(s3_server, versioned=True))
    report = certify(store)
    assert report.refusals == ()
    assert "the bucket is versioned" in report.notes[1]
    assert left_behind(store) == []


def test_what_a_server_verifies_is_noted(ceph_url: str, s3_url: str) -> None:
    assert "verifies: Content-MD5;" in certify(open_store(ceph_url)).notes[0]
    assert "verifies: none;" in certify(open_store(s3_url)).notes[0]


def test_a_store_with_models_in_it_is_left_as_it_was(folder_registry: Registry, bundle: Path, tmp_path: Path) -> None:
    folder_registry.publish(bundle, "m", lineage={})
    before = {path: path.read_bytes() for path in (tmp_path / "store").rglob("*") if path.is_file()}
    assert certify(folder_registry.store).refusals == ()
    assert {path: path.read_bytes() for path in (tmp_path / "store").rglob("*") if path.is_file()} == before
    assert not (tmp_path / "store" / "certify").exists()


class Liar(FolderStore):
    """A folder that breaks one promise."""

    def __init__(self, root: Path, lie: str) -> None:
        super().__init__(root)
        self.lie = lie
        self.old: dict[str, bytes] = {}

    def get(self, key: str, limit: int) -> bytes | None:
        return self.old.get(key, super().get(key, limit))

    def put(self, key: str, data: bytes) -> None:
        if self.lie == "stale read" and (before := super().get(key, 1 << 20)) is not None:
            self.old[key] = before
        super().put(key, data)

    def stream(self, key: str, start: int, end: int) -> Iterator[bytes]:
        if self.lie == "whole for a range":
            start, end = 0, 1 << 30
        yield from super().stream(key, start, end)

    def children(self, prefix: str) -> list[str]:
        names = super().children(prefix)
        return names[:-1] if self.lie == "late list" else names

    def delete(self, key: str) -> None:
        if self.lie != "delete ignored" or "/delete-" not in key:
            super().delete(key)

    def put_blob(self, key: str, source: Path, hex_digest: str) -> None:
        super().put_blob(key, source, hex_digest)
        if self.lie == "altered blob":
            self.put(key, source.read_bytes()[:-1] + b"!")

    def create(self, key: str, data: bytes) -> bool:
        return super().create(key, data) and self.lie != "nobody wins"


@pytest.mark.parametrize(
    ("lie", "refused"),
    [
        ("stale read", ["read-after-write"]),
        ("whole for a range", ["range reads", "blob"]),
        ("late list", ["list-after-write"]),
        ("delete ignored", ["delete"]),
        ("altered blob", ["blob"]),
        ("nobody wins", ["create-only", "race", "delete"]),
    ],
)
def test_each_lie_is_found(tmp_path: Path, lie: str, refused: list[str]) -> None:
    report = certify(Liar(tmp_path / "store", lie))
    found = [refusal.partition(":")[0] for refusal in report.refusals]
    assert [name for name in refused if name in found], report.refusals
    assert set(found) <= set(refused), report.refusals


def test_a_bucket_that_is_not_there(s3_server: str, aws: None) -> None:
    with pytest.raises(StoreError, match=r"nowhere.* there is no such bucket"):
        certify(open_store(f"s3://nowhere?endpoint_url={s3_server}"))


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["certify", str(tmp_path / "store")]) == 0
    assert "keeps what a registry needs" in capsys.readouterr().out
    assert not (tmp_path / "store").exists()
    assert main(["certify", str(tmp_path / "store"), "--json"]) == 0
    value = json.loads(capsys.readouterr().out)
    assert (value["fit"], [probe["name"] for probe in value["probes"]]) == (True, NAMES)


def test_the_command_refuses(rclone_server: str, new_bucket: NewBucket, capsys: pytest.CaptureFixture[str]) -> None:
    url = new_bucket(rclone_server)
    assert main(["certify", url, "--json"]) == StoreError.exit_code
    error = json.loads(capsys.readouterr().out)["error"]
    assert f"{urlsplit(url).netloc}/team/a is not fit for a registry: create-only" in error["message"]
