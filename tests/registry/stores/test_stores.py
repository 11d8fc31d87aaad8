"""What every store must do: one suite, run against each of them: a folder, moto's server, Ceph's gateway."""

from __future__ import annotations

import hashlib
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from slm_registry import CorruptError, UsageError, open_store
from slm_registry.stores.base import Store
from slm_registry.stores.folder import FolderStore
from slm_registry.stores.s3 import S3Store

KEY = "models/m/log/000000000001.json"


@pytest.fixture
def url(any_url: str) -> str:
    return any_url


def blob_of(path: Path, data: bytes) -> tuple[str, str]:
    path.write_bytes(data)
    digest = hashlib.sha256(data).hexdigest()
    return f"blobs/sha256/{digest}", digest


def test_nothing_is_there_at_first(store: Store) -> None:
    assert store.get(KEY, 10) is None
    assert store.size(KEY) is None
    assert b"".join(store.stream(KEY, 0, 10)) == b""
    assert store.children("models") == []
    store.delete(KEY)


def test_create_is_create_only(store: Store) -> None:
    assert store.create(KEY, b"first")
    assert not store.create(KEY, b"second")
    assert not store.create(KEY, b"other")
    assert store.get(KEY, 100) == b"first"


def test_create_knows_its_own(store: Store) -> None:
    assert store.create(KEY, b"nonce 1")
    assert store.create(KEY, b"nonce 1")


def test_create_has_one_winner_among_threads(store: Store) -> None:
    for turn in range(3):
        key = f"models/m/log/{turn:012d}.json"
        values = [f"{turn} {number}".encode() for number in range(8)]
        with ThreadPoolExecutor(8) as pool:
            won = list(pool.map(lambda value, key=key: store.create(key, value), values))
        assert won.count(True) == 1
        assert store.get(key, 100) == values[won.index(True)]


def test_put_replaces(store: Store) -> None:
    store.put("models/m/head.json", b"one")
    store.put("models/m/head.json", b"two")
    assert store.get("models/m/head.json", 100) == b"two"


@pytest.mark.parametrize("data", [b"", b"x", b"0123456789" * 1000])
def test_blobs_are_read_whole_and_in_part(store: Store, tmp_path: Path, data: bytes) -> None:
    key, digest = blob_of(tmp_path / "file", data)
    store.put_blob(key, tmp_path / "file", digest)
    assert store.size(key) == len(data)
    assert store.get(key, len(data)) == data
    assert b"".join(store.stream(key, 0, len(data))) == data
    assert b"".join(store.stream(key, 3, 8)) == data[3:8]
    assert b"".join(store.stream(key, len(data), len(data) + 5)) == b""


def test_a_large_blob_goes_in_parts(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # moto, like S3, wants 5 MiB a part; what counts is that the multipart path is taken.
    monkeypatch.setattr("slm_registry.stores.s3.SINGLE_PUT", 6 << 20)
    data = bytes(range(256)) * (40 << 10)
    key, digest = blob_of(tmp_path / "file", data)
    store.put_blob(key, tmp_path / "file", digest)
    assert hashlib.sha256(b"".join(store.stream(key, 0, len(data)))).hexdigest() == digest


def test_a_file_that_changed_is_not_stored(store: Store, tmp_path: Path) -> None:
    key, digest = blob_of(tmp_path / "file", b"before")
    (tmp_path / "file").write_bytes(b"behind")
    with pytest.raises(CorruptError, match="changed"):
        store.put_blob(key, tmp_path / "file", digest)
    assert store.size(key) is None


def test_get_is_bounded(store: Store) -> None:
    store.put(KEY, b"x" * 11)
    assert store.get(KEY, 11) == b"x" * 11
    with pytest.raises(CorruptError, match="more than the 10 bytes"):
        store.get(KEY, 10)


def test_children_are_names_of_one_level(store: Store) -> None:
    for key in ("models/b/log/1.json", "models/a/head.json", "models/a/log/1.json", "models/a/log/2.json"):
        store.put(key, b"x")
    assert store.children("models") == ["a", "b"]
    assert store.children("models/a") == ["head.json", "log"]
    assert store.children("models/a/log") == ["1.json", "2.json"]


def test_many_children(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    if isinstance(store, S3Store):
        client = store._client
        original = client.get_paginator

        def small_pages(name: str) -> object:
            paginator = original(name)
            paginate = paginator.paginate
            paginator.paginate = lambda **options: paginate(**options, PaginationConfig={"PageSize": 3})
            return paginator

        monkeypatch.setattr(client, "get_paginator", small_pages)
    for number in range(8):
        store.put(f"models/m{number}/head.json", b"x")
    assert store.children("models") == [f"m{number}" for number in range(8)]


def test_a_listing_tells_sizes_and_ages(store: Store) -> None:
    assert list(store.listing("leases")) == []
    store.put("leases/a.json", b"one")
    store.put("leases/b.json", b"three")
    store.put("leases/below/c.json", b"x")
    found = sorted(store.listing("leases"), key=lambda item: item.key)
    assert [(item.key, item.name, item.size) for item in found] == [
        ("leases/a.json", "a.json", 3),
        ("leases/b.json", "b.json", 5),
    ]
    before = found[0].modified
    # A bucket's ages are in whole seconds.
    time.sleep(1.1 if isinstance(store, S3Store) else 0.02)
    store.put("leases/a.json", b"more")
    assert next(item for item in store.listing("leases") if item.name == "a.json").modified > before


def test_delete(store: Store) -> None:
    store.put(KEY, b"x")
    store.delete(KEY)
    store.delete(KEY)
    assert store.get(KEY, 10) is None


@pytest.mark.parametrize(
    "key", ["", "/etc/passwd", "../x", "models/../../x", "models//x", "models/m/..", "a\0b", "a\\b"]
)
def test_keys_cannot_leave_the_store(store: Store, key: str) -> None:
    for call in (lambda: store.get(key, 1), lambda: store.put(key, b""), lambda: store.create(key, b"")):
        with pytest.raises(UsageError):
            call()


def test_nothing_temporary_stays_behind(tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "store")
    store.create(KEY, b"1")
    store.create(KEY, b"2")
    store.put("models/m/head.json", b"x")
    assert [path.name for path in (tmp_path / "store" / ".tmp").iterdir()] == []


def test_a_link_or_a_pipe_in_a_folder_store_is_not_followed(tmp_path: Path) -> None:
    import os

    store = FolderStore(tmp_path / "store")
    (tmp_path / "store" / "models").mkdir(parents=True)
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "store" / "models" / "link").symlink_to(tmp_path / "secret")
    os.mkfifo(tmp_path / "store" / "models" / "pipe")
    for name in ("link", "pipe"):
        with pytest.raises(CorruptError, match="plain file"):
            store.get(f"models/{name}", 10)


def test_addresses(tmp_path: Path) -> None:
    assert isinstance(open_store(tmp_path), FolderStore)
    opened = open_store(f"file://{tmp_path}/a%20b")
    assert isinstance(opened, FolderStore)
    assert opened.root == tmp_path / "a b"
    bucket = open_store("s3://models/team/a?endpoint_url=http://127.0.0.1:9&region=eu-west-1")
    assert isinstance(bucket, S3Store)
    assert (bucket.bucket, bucket.prefix, bucket.url) == ("models", "team/a/", "s3://models/team/a")


@pytest.mark.parametrize(
    "url",
    [
        "",
        "http://x/y",
        "file://host/x",
        "file:///a%00b",
        "\udcff",
        "s3://b/\udcff",
        "a\0b",
        "s3://",
        "s3:///x",
        "s3://b/a/../c",
        "s3://b?endpoint=x",
        "s3://b?x",
        "s3://k@b/x",
        "s3://[x",
        "file://[x/y",
        "~nobody-of-this-name/x",
    ],
)
def test_bad_addresses(url: str) -> None:
    with pytest.raises(UsageError):
        open_store(url)


@pytest.mark.parametrize(
    "url",
    [
        "s3://key:hunter2@bucket/x",
        "s3://key:hunter2@bucket/x?=",
        "s3://key:hunter2@bucket/../x",
        "s3://key:hunter2/3@bucket/x?more=1",
        "s3://bucket/../x?endpoint_url=http://key:hunter2@host",
        "s3://key:hunter2@[bucket/x",
        "https://key:hunter2@host/x",
        "file://key:hunter2@host/x",
    ],
)
def test_an_address_with_a_secret_is_not_repeated(url: str) -> None:
    with pytest.raises(UsageError) as raised:
        open_store(url)
    assert "hunter2" not in str(raised.value)
    assert url.partition("://")[0] in str(raised.value)
