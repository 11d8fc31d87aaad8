"""Secrets that a build is given are nowhere afterwards: project, history, registry, bucket, Prefect's database and logs."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest

from tests.flows.conftest import HOME
from tests.flows.toy import Toy, run

#: Of the kinds that builds take: a bucket's, a teacher's behind an API, and what stands in the address of a git remote's credentials.
PLANTED = {
    "AWS_SECRET_ACCESS_KEY": "planted-secret-of-a-bucket",
    "AWS_SESSION_TOKEN": "planted-token-of-a-session",
    "SLM_FACTORY_TEACHER_KEY": "planted-key-of-a-teacher",
}


def contents(folder: Path) -> Iterator[tuple[str, bytes]]:
    for path in folder.rglob("*"):
        if path.is_file():
            yield str(path), path.read_bytes()


def of_git(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Every object of the repository, uncompressed."""
    listed = run(["git", "cat-file", "--batch-check", "--batch-all-objects"], folder)
    for line in listed.splitlines():
        name, kind, _ = line.split()
        done = subprocess.run(["git", "cat-file", kind, name], cwd=folder, capture_output=True, check=True)
        yield f"git {name}", done.stdout


@pytest.mark.usefixtures("api", "aws")
def test_what_was_planted_is_nowhere(built: Toy, s3_server: str) -> None:
    client = boto3.client("s3", endpoint_url=s3_server)
    client.create_bucket(Bucket="planted")
    built.dvc("remote", "add", "-d", "storage", "s3://planted/remote")
    built.dvc("remote", "modify", "storage", "endpointurl", s3_server)
    run(["git", "-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "-qam", "remote"], built.folder)
    built.change("alpha", "gate", "max_bytes", 12345)
    run(["git", "-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "-qam", "gate"], built.folder)
    store = f"s3://planted/store?endpoint_url={s3_server}"
    code, output = built.flows("build", "alpha", "--publish", store, "--commit", "HEAD", **PLANTED)
    assert code == 0, output
    assert built.ran() == ["gate"]
    listed = client.list_objects_v2(Bucket="planted")["Contents"]
    objects = [(each["Key"], client.get_object(Bucket="planted", Key=each["Key"])["Body"].read()) for each in listed]
    found = [("output", output.encode()), *objects, *contents(built.folder), *of_git(built.folder), *contents(HOME)]
    assert len(objects) > 10 and any(name.endswith("prefect.db") for name, _ in found)
    for name, content in found:
        for variable, secret in PLANTED.items():
            assert secret.encode() not in content, f"{variable} stands in {name}"
    assert any(b"max_bytes" in content for name, content in found if name.startswith("git "))


def test_a_secret_would_be_found(built: Toy) -> None:
    """The search above reads what git and the file system have packed away."""
    (built.folder / "note").write_text(PLANTED["AWS_SESSION_TOKEN"])
    run(["git", "add", "note"], built.folder)
    (built.folder / "note").unlink()
    assert any(PLANTED["AWS_SESSION_TOKEN"].encode() in content for _, content in of_git(built.folder))
