"""The bucket policies of docs/operations.md, enforced: each role can do its work with its own, and nothing more."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import boto3
import pytest
from slm_registry import AccessError, ReadOnlyError, Registry
from slm_registry.upkeep.gc import collect

from pipelines.bundle import sha256_of
from tests.registry.helpers import REPOSITORY
from tests.registry.machine import make_contents
from tests.registry.servers import free_ports

ROLES = ("reader", "publisher", "gc")
REFUSED = (AccessError, ReadOnlyError)
BUCKET, PREFIX = "models-bucket", "models"


def policies() -> dict[str, str]:
    """Role -> its policy, as the page shows it, for the bucket of these tests."""
    page = (REPOSITORY / "docs" / "operations.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^\*\*(\w+)\*\*.*?```json\n(.*?)```", page, re.MULTILINE | re.DOTALL)
    found = {role: json.loads(text.replace("BUCKET", BUCKET).replace("PREFIX", PREFIX)) for role, text in blocks}
    for policy in found.values():
        for statement in policy["Statement"]:
            statement.pop("Condition", None)  # moto knows none on the prefix of a listing
    return {role: json.dumps(policy) for role, policy in found.items()}


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """moto in a process of its own: whether it asks for permission is a setting of the process."""
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
        yield url
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def keys(server: str) -> dict[str, dict[str, str]]:
    """Role -> credentials of a user with its policy alone; from here on the server asks for permission."""
    admin = {"aws_access_key_id": "admin", "aws_secret_access_key": "admin", "region_name": "us-east-1"}
    boto3.client("s3", endpoint_url=server, **admin).create_bucket(Bucket=BUCKET)
    iam = boto3.client("iam", endpoint_url=server, **admin)
    found = {}
    for role, text in policies().items():
        iam.create_user(UserName=role)
        iam.put_user_policy(UserName=role, PolicyName=role, PolicyDocument=text)
        made = iam.create_access_key(UserName=role)["AccessKey"]
        found[role] = {"AWS_ACCESS_KEY_ID": made["AccessKeyId"], "AWS_SECRET_ACCESS_KEY": made["SecretAccessKey"]}
    ask = urllib.request.Request(f"{server}/moto-api/reset-auth", data=b"0", headers={"Content-Type": "text/plain"})
    urllib.request.urlopen(ask)
    return found


@pytest.fixture
def registry(
    server: str, keys: dict[str, dict[str, str]], aws: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[[str], Registry]:
    def of(role: str) -> Registry:
        for name, value in keys[role].items():
            monkeypatch.setenv(name, value)
        return Registry(f"s3://{BUCKET}/{PREFIX}?endpoint_url={server}", cache=tmp_path / f"cache-{role}")

    return of


def test_the_page_has_a_policy_for_each_role() -> None:
    found = policies()
    assert tuple(found) == ROLES
    assert all(json.loads(text)["Version"] == "2012-10-17" for text in found.values())


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
