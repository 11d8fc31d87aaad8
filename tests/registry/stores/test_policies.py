"""The bucket policies of docs/operations.md, enforced: each role can do its work with its own, and nothing more."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from slm_registry import AccessError, ReadOnlyError, Registry
from slm_registry.upkeep.gc import collect

from pipelines.bundle import sha256_of
from tests.registry.helpers import REPOSITORY
from tests.registry.machine import make_contents
from tests.registry.servers import KEY, ROLES, SECRET, free_ports

REFUSED = (AccessError, ReadOnlyError)
BUCKET, PREFIX = "models-bucket", "models"
ADMIN = {"aws_access_key_id": KEY, "aws_secret_access_key": SECRET, "region_name": "us-east-1"}


@dataclass(frozen=True)
class Guarded:
    """A server that asks for permission, and credentials of each role."""

    server: str
    keys: dict[str, dict[str, str]]


def policies(bucket: str = BUCKET) -> dict[str, dict[str, Any]]:
    """Role -> its policy, as the page shows it, for a bucket of these tests."""
    page = (REPOSITORY / "docs" / "operations.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^\*\*(\w+)\*\*.*?```json\n(.*?)```", page, re.MULTILINE | re.DOTALL)
    return {role: json.loads(text.replace("BUCKET", bucket).replace("PREFIX", PREFIX)) for role, text in blocks}


@pytest.fixture(scope="module")
def moto() -> Iterator[Guarded]:
    """A process of its own, since whether it asks is a setting of the process: users with policies. It knows no condition on a listing's prefix."""
    (port,) = free_ports(1)
    process = subprocess.Popen([sys.executable, "-m", "moto.server", "-p", str(port)], stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(300):
            try:
                urllib.request.urlopen(f"{url}/moto-api/data.json")
                break
            except OSError:
                time.sleep(0.1)
        yield Guarded(url, _users(url))
    finally:
        process.kill()
        process.wait()


def _users(server: str) -> dict[str, dict[str, str]]:
    boto3.client("s3", endpoint_url=server, **ADMIN).create_bucket(Bucket=BUCKET)
    iam = boto3.client("iam", endpoint_url=server, **ADMIN)
    found = {}
    for role, policy in policies().items():
        for statement in policy["Statement"]:
            statement.pop("Condition", None)
        iam.create_user(UserName=role)
        iam.put_user_policy(UserName=role, PolicyName=role, PolicyDocument=json.dumps(policy))
        made = iam.create_access_key(UserName=role)["AccessKey"]
        found[role] = {"AWS_ACCESS_KEY_ID": made["AccessKeyId"], "AWS_SECRET_ACCESS_KEY": made["SecretAccessKey"]}
    ask = urllib.request.Request(f"{server}/moto-api/reset-auth", data=b"0", headers={"Content-Type": "text/plain"})
    urllib.request.urlopen(ask)
    return found


@pytest.fixture(scope="module")
def ceph(ceph_server: str) -> Guarded:
    """Statements of all roles as the policy of a bucket that belongs to somebody else.

    Without conditions, as the page says: Ceph's packages are older than the gateway that takes a missing key for its own prefix.
    """
    return _guarded(ceph_server, BUCKET, conditions=False)


def _guarded(server: str, bucket: str, conditions: bool) -> Guarded:
    client = boto3.client("s3", endpoint_url=server, **ADMIN)
    client.create_bucket(Bucket=bucket)
    statements = [
        statement | {"Sid": role + statement["Sid"], "Principal": {"AWS": [f"arn:aws:iam:::user/{role}"]}}
        for role, policy in policies(bucket).items()
        for statement in policy["Statement"]
    ]
    for statement in [] if conditions else statements:
        statement.pop("Condition", None)
    client.put_bucket_policy(Bucket=bucket, Policy=json.dumps({"Version": "2012-10-17", "Statement": statements}))
    keys = {role: {"AWS_ACCESS_KEY_ID": role, "AWS_SECRET_ACCESS_KEY": SECRET} for role in ROLES}
    return Guarded(server, keys)


@pytest.fixture(params=["moto", "ceph"])
def guarded(request: pytest.FixtureRequest) -> Guarded:
    found: Guarded = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def registry(guarded: Guarded, aws: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], Registry]:
    def of(role: str) -> Registry:
        for name, value in guarded.keys[role].items():
            monkeypatch.setenv(name, value)
        return Registry(f"s3://{BUCKET}/{PREFIX}?endpoint_url={guarded.server}", cache=tmp_path / f"cache-{role}")

    return of


def test_the_page_has_a_policy_for_each_role() -> None:
    found = policies()
    assert tuple(found) == ROLES
    assert all(policy["Version"] == "2012-10-17" for policy in found.values())


@pytest.fixture(scope="module")
def among_others(ceph_server: str) -> Guarded:
    """The whole of each policy, conditions too, in a bucket that holds other things."""
    found = _guarded(ceph_server, "mixed-bucket", conditions=True)
    owner = boto3.client("s3", endpoint_url=ceph_server, **ADMIN)
    for key in ("payroll/november.csv", f"{PREFIX}/models/m/head.json"):
        owner.put_object(Bucket="mixed-bucket", Key=key, Body=b"something")
    return found


@pytest.mark.parametrize("role", ROLES)
def test_nobody_looks_beside_the_registry(role: str, among_others: Guarded) -> None:
    """What else is in the bucket can be neither listed nor read."""
    mine = {name.lower(): value for name, value in among_others.keys[role].items()}
    client = boto3.client("s3", endpoint_url=among_others.server, region_name="us-east-1", **mine)
    bucket = {"Bucket": "mixed-bucket"}
    listed = client.list_objects_v2(**bucket, Prefix=f"{PREFIX}/models/")
    assert [item["Key"] for item in listed["Contents"]] == [f"{PREFIX}/models/m/head.json"]
    assert client.get_object(**bucket, Key=f"{PREFIX}/models/m/head.json")["Body"].read() == b"something"
    refused: list[Callable[[], Any]] = [
        partial(client.list_objects_v2, **bucket, Prefix="payroll/"),
        partial(client.list_objects_v2, **bucket),
        partial(client.get_object, **bucket, Key="payroll/november.csv"),
        partial(client.put_object, **bucket, Key="payroll/november.csv", Body=b"mine"),
        partial(client.delete_object, **bucket, Key="payroll/november.csv"),
    ]
    for work in refused:
        with pytest.raises(ClientError, match="AccessDenied"):
            work()


def test_each_role_does_its_work_and_nothing_more(registry: Callable[[str], Registry], tmp_path: Path) -> None:
    first, second, *_ = make_contents(tmp_path / "contents")
    publisher = registry("publisher")
    publisher.publish(first, "m", lineage={}, alias="candidate")
    publisher.publish(second, "m", lineage={"other": 1}, alias="candidate")
    assert publisher.resolve("m@candidate").version == "1.0.1"

    reader = registry("reader")
    pulled = reader.pull("m@candidate", tmp_path / "pulled")
    assert {path.name for path in pulled.iterdir()} >= {path.name for path in second.iterdir() if path.is_file()}
    assert [row.version for row in reader.list("m")] == ["1.0.1", "1.0.0"]
    refused: list[Callable[[], Any]] = [
        partial(reader.publish, first, "m", version="3.0.0", lineage={}),
        partial(reader.alias, "m", "production", "1.0.0", reason="why"),
    ]
    for work in refused:
        with pytest.raises(REFUSED):
            work()

    orphan = tmp_path / "orphan"
    orphan.write_bytes(b"nothing refers to this")
    digest = sha256_of(orphan)
    publisher = registry("publisher")
    publisher.store.put_blob(f"blobs/sha256/{digest}", orphan, digest)
    for key in (f"blobs/sha256/{digest}", "models/m/log/000000000001.json"):
        with pytest.raises(REFUSED):
            publisher.store.delete(key)

    store = registry("gc").store
    assert collect(store, "gc", grace=0, delete=True).removed == ()
    assert [item.key for item in collect(store, "gc", grace=0, delete=True).removed] == [f"blobs/sha256/{digest}"]
    with pytest.raises(REFUSED):
        store.delete("models/m/log/000000000001.json")
    assert [row.version for row in registry("reader").list("m")] == ["1.0.1", "1.0.0"]
