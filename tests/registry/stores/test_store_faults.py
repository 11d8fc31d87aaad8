"""Stores that fail: each failure is one clear error of its own class, and nothing is lost or half-visible."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError, ReadTimeoutError
from slm_registry import (
    AccessError,
    AddressError,
    NoSpaceError,
    ReadOnlyError,
    Registry,
    StoreError,
    UnreachableError,
    UsageError,
    open_store,
)
from slm_registry.stores.s3 import S3Store

KEY = "models/m/log/000000000001.json"
Act = Callable[[Callable[[], Any]], Any]


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("slm_registry.stores.s3._pause", lambda attempt: None)


class Faulty:
    """An S3 client that does as `acts` say, one after the other, on calls of one method; then as always."""

    def __init__(self, client: Any, method: str, acts: list[Act]) -> None:
        self.client, self.method, self.acts = client, method, acts

    def __getattr__(self, name: str) -> Any:
        real = getattr(self.client, name)
        if name != self.method or not self.acts:
            return real
        act = self.acts.pop(0)
        return lambda **options: act(lambda: real(**options))


def answers(code: str, status: int) -> Act:
    def act(call: Callable[[], Any]) -> Any:
        raise ClientError({"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}, "Operation")

    return act


def lost(call: Callable[[], Any]) -> Any:
    """The request arrives and is done; its answer does not come back."""
    call()
    raise ReadTimeoutError(endpoint_url="http://store")


def never_sent(call: Callable[[], Any]) -> Any:
    raise EndpointConnectionError(endpoint_url="http://store")


def sent_twice(call: Callable[[], Any]) -> Any:
    """The client library repeats a request whose first answer got lost: the second one is told 412."""
    call()
    return call()


class Torn:
    """A body that breaks after some bytes."""

    def __init__(self, body: Any, good: int) -> None:
        self.body, self.good = body, good

    def read(self, size: int) -> bytes:
        if self.good == 0:
            raise ReadTimeoutError(endpoint_url="http://store")
        data: bytes = self.body.read(min(size, self.good))
        self.good -= len(data)
        return data

    def close(self) -> None:
        self.body.close()


def torn(good: int) -> Act:
    def act(call: Callable[[], Any]) -> Any:
        answer = call()
        return {**answer, "Body": Torn(answer["Body"], good)}

    return act


def faulty(url: str, method: str, acts: list[Act]) -> S3Store:
    store = open_store(url)
    assert isinstance(store, S3Store)
    store._made = Faulty(store._client, method, acts)
    return store


AGAIN, BUSY = answers("ConditionalRequestConflict", 409), answers("SlowDown", 503)
BROKEN = answers("InternalError", 500)


@pytest.mark.parametrize("acts", [[AGAIN], [AGAIN] * 3, [lost], [never_sent], [sent_twice], [BROKEN, BUSY, lost]])
def test_create_over_a_bad_line_wins_once(s3_url: str, acts: list[Act]) -> None:
    store = faulty(s3_url, "put_object", list(acts))
    assert store.create(KEY, b"mine")
    assert store.get(KEY, 100) == b"mine"
    assert not store.create(KEY, b"another's")


@pytest.mark.parametrize("acts", [[AGAIN], [lost], [never_sent], [sent_twice], [BROKEN]])
def test_create_over_a_bad_line_loses_truly(s3_url: str, acts: list[Act]) -> None:
    assert open_store(s3_url).create(KEY, b"theirs")
    store = faulty(s3_url, "put_object", list(acts))
    assert not store.create(KEY, b"mine")
    assert store.get(KEY, 100) == b"theirs"


@pytest.mark.parametrize("act", [AGAIN, never_sent, BROKEN])
def test_create_gives_up(s3_url: str, act: Act) -> None:
    store = faulty(s3_url, "put_object", [act] * 50)
    with pytest.raises(UnreachableError):
        store.create(KEY, b"mine")
    assert store.get(KEY, 100) is None


def test_a_lost_answer_does_not_publish_twice(s3_url: str, bundle: Path, tmp_path: Path) -> None:
    acts: list[Act] = [lambda call: call()] * 8 + [lost]
    store = faulty(s3_url, "put_object", acts)
    done = Registry(store, cache=tmp_path).publish(bundle, "m", lineage={})
    assert acts == []
    assert (done.version, done.created) == ("1.0.0", True)
    assert len(Registry(s3_url, cache=tmp_path).log("m")) == 1


@pytest.mark.parametrize("good", [0, 1, 1000])
def test_a_torn_body_goes_on(s3_url: str, good: int) -> None:
    data = bytes(range(256)) * 20
    store = faulty(s3_url, "get_object", [torn(good)] * 4)
    store.put(KEY, data)
    assert b"".join(store.stream(KEY, 0, len(data))) == data
    store = faulty(s3_url, "get_object", [torn(good)] * 4)
    assert store.get(KEY, len(data)) == data
    for call in (lambda s: s.get(KEY, len(data)), lambda s: list(s.stream(KEY, 0, len(data)))):
        with pytest.raises(UnreachableError, match="broke"):
            call(faulty(s3_url, "get_object", [torn(0)] * 50))


@pytest.mark.parametrize(
    ("code", "kind", "remedy"),
    [
        ("AccessDenied", ReadOnlyError, "s3:PutObject"),
        ("QuotaExceeded", NoSpaceError, "free some space"),
        ("NoSuchBucket", AddressError, "create it or correct the URL"),
        ("PermanentRedirect", AddressError, "region"),
        ("RequestTimeTooSkewed", AccessError, "clock"),
        ("NotImplemented", StoreError, "NotImplemented"),
        ("RequestTimeout", UnreachableError, "try again"),
    ],
)
def test_what_a_bucket_may_answer_to_a_write(s3_url: str, code: str, kind: type[StoreError], remedy: str) -> None:
    store = faulty(s3_url, "put_object", [answers(code, 400)] * 50)
    for call in (lambda: store.put(KEY, b"x"), lambda: store.create(KEY, b"x")):
        with pytest.raises(kind, match=remedy) as raised:
            call()
        assert type(raised.value) is kind
        assert KEY in str(raised.value)


def test_reading_what_is_forbidden(s3_url: str) -> None:
    with pytest.raises(AccessError, match="credentials"):
        faulty(s3_url, "get_object", [answers("AccessDenied", 403)]).get(KEY, 10)


def test_a_bucket_that_is_not_there(s3_server: str, aws: None, bundle: Path, tmp_path: Path) -> None:
    registry = Registry(f"s3://nowhere?endpoint_url={s3_server}", cache=tmp_path)
    for call in (registry.models, lambda: registry.publish(bundle, "m", lineage={}), lambda: registry.load("m")):
        with pytest.raises(AddressError, match=r"nowhere.* there is no such bucket"):
            call()


def test_no_credentials(s3_server: str, aws: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(AccessError, match="AWS_ACCESS_KEY_ID"):
        Registry(f"s3://bucket?endpoint_url={s3_server}", cache=tmp_path).load("m")


def test_a_profile_that_is_not_there(s3_server: str, aws: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(UsageError, match="nobody"):
        Registry(f"s3://bucket?endpoint_url={s3_server}").models()


def test_nobody_listens(aws: None, monkeypatch: pytest.MonkeyPatch) -> None:
    # Its own retries would wait for seconds.
    monkeypatch.setattr("botocore.retries.standard.ExponentialBackoff.delay_amount", lambda *_: 0)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"s3://bucket?endpoint_url=http://127.0.0.1:{closed.getsockname()[1]}"
        with pytest.raises(UnreachableError, match="check the network"):
            Registry(url).models()


def test_an_endpoint_that_is_no_url(aws: None) -> None:
    with pytest.raises(UsageError, match="endpoint"):
        Registry("s3://bucket?endpoint_url=nonsense").models()


def test_a_read_only_store(unprivileged: Path) -> None:
    (unprivileged / "store").mkdir()
    (unprivileged / "store").chmod(0o555)
    registry = Registry(unprivileged / "store", cache=unprivileged / "cache")
    source = unprivileged / "made"
    source.mkdir()
    (source / "config.json").write_text("{}")
    with pytest.raises(ReadOnlyError, match=r"cannot write .*store.*Permission denied; check that this user"):
        registry.publish(source, "m", lineage={})
    (unprivileged / "store").chmod(0o755)
    registry.publish(source, "m", lineage={})
    for path in (unprivileged / "store").rglob("*"):
        path.chmod(0o555 if path.is_dir() else 0o444)
    (unprivileged / "store").chmod(0o555)
    assert registry.pull("m").joinpath("config.json").read_text() == "{}"
    with pytest.raises(ReadOnlyError):
        registry.alias("m", "candidate", "1.0.0")


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO])
def test_a_full_or_failing_disk_at_each_write(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    kind = {errno.EROFS: ReadOnlyError, errno.EIO: UnreachableError}.get(code, NoSpaceError)
    registry = Registry(tmp_path / "store", cache=tmp_path / "cache")
    real, failures = os.fsync, 0
    for last in range(200):
        left = last

        def fsync(descriptor: int) -> None:
            nonlocal left
            if left == 0:
                raise OSError(code, os.strerror(code))
            left -= 1
            real(descriptor)

        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", fsync)
            try:
                done = registry.publish(bundle, f"m{last}", lineage={})
            except kind:
                failures += 1
            else:
                if left:
                    break
                assert done.created
        # Whatever came of it, publishing again is enough.
        assert registry.publish(bundle, f"m{last}", lineage={}).version == "1.0.0"
        assert len(registry.log(f"m{last}")) == 1
    else:
        raise AssertionError("publish never came to its end")
    assert failures > 5


def test_a_full_disk_under_the_cache(bundle: Path, folder_registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    folder_registry.publish(bundle, "m", lineage={})

    def fsync(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        with pytest.raises(NoSpaceError, match="free some space"):
            folder_registry.load("m")
    assert folder_registry.load("m").labels


def test_a_file_system_without_hard_links(
    bundle: Path, folder_registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    def link(source: Path, target: Path) -> None:
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))

    with monkeypatch.context() as patch:
        patch.setattr(os, "link", link)
        with pytest.raises(StoreError, match="no hard links"):
            folder_registry.publish(bundle, "m", lineage={})
    folder_registry.publish(bundle, "m", lineage={})
    monkeypatch.setattr(os, "link", link)
    # The cache gets by with copies.
    assert folder_registry.load("m").labels


def test_a_file_where_the_store_should_be(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(AddressError, match="check that the folder is there"):
        Registry(tmp_path / "file", cache=tmp_path / "cache").publish(bundle, "m", lineage={})


def test_a_hint_that_cannot_be_written_does_not_undo_a_commit(
    bundle: Path, folder_registry: Registry, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real = folder_registry.store.put

    def put(key: str, data: bytes) -> None:
        if key.endswith("head.json"):
            raise ReadOnlyError("no")
        real(key, data)

    monkeypatch.setattr(folder_registry.store, "put", put)
    assert folder_registry.publish(bundle, "m", lineage={}).created
    assert "the hint was not written" in caplog.text
    assert folder_registry.resolve("m").version == "1.0.0"
