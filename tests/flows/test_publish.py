"""The publish step: which failures of a store are worth another try."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from prefect.client.schemas.objects import State, StateType
from slm_registry import Registry, StoreError, errors

from flows.publish import may_pass

Failing = Callable[[Path, str, pytest.MonkeyPatch], Registry]


def no_bucket(folder: Path, server: str, monkeypatch: pytest.MonkeyPatch) -> Registry:
    return Registry(f"s3://nowhere?endpoint_url={server}")


def no_credentials(folder: Path, server: str, monkeypatch: pytest.MonkeyPatch) -> Registry:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("HOME", str(folder))
    return Registry(f"s3://bucket?endpoint_url={server}")


def a_file(folder: Path, server: str, monkeypatch: pytest.MonkeyPatch) -> Registry:
    (folder / "store").write_text("a file where the store should be")
    return Registry(folder / "store")


def full(folder: Path, server: str, monkeypatch: pytest.MonkeyPatch) -> Registry:
    monkeypatch.setattr(os, "fsync", failing_with(errno.ENOSPC))
    return Registry(folder / "store")


def nobody_listens(folder: Path, server: str, monkeypatch: pytest.MonkeyPatch) -> Registry:
    monkeypatch.setattr("botocore.retries.standard.ExponentialBackoff.delay_amount", lambda *_: 0)
    return Registry("s3://bucket?endpoint_url=http://127.0.0.1:9")


def sick_disk(folder: Path, server: str, monkeypatch: pytest.MonkeyPatch) -> Registry:
    monkeypatch.setattr(os, "fsync", failing_with(errno.EIO))
    return Registry(folder / "store")


def failing_with(code: int) -> Callable[[int], None]:
    def fsync(descriptor: int) -> None:
        raise OSError(code, os.strerror(code))

    return fsync


@pytest.mark.parametrize(
    ("failing", "kind", "again"),
    [
        (no_bucket, errors.AddressError, False),
        (no_credentials, errors.AccessError, False),
        (a_file, errors.AddressError, False),
        (full, errors.NoSpaceError, False),
        (nobody_listens, errors.UnreachableError, True),
        (sick_disk, errors.UnreachableError, True),
    ],
)
def test_only_what_may_pass_is_tried_again(
    tmp_path: Path,
    s3_server: str,
    aws: None,
    monkeypatch: pytest.MonkeyPatch,
    failing: Failing,
    kind: type[StoreError],
    again: bool,
) -> None:
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "config.json").write_text("{}")
    registry = failing(tmp_path, s3_server, monkeypatch)
    with pytest.raises(kind) as raised:
        registry.publish(tmp_path / "bundle", "m", lineage={})
    state: State[Any] = State(type=StateType.FAILED, data=raised.value)
    nothing: Any = None
    assert may_pass(nothing, nothing, state) is again
