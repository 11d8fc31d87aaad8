"""Pushing outputs to DVC's remote: what is missing there is found, whatever DVC's index says; folder and S3."""

from __future__ import annotations

import shutil
from pathlib import Path

import boto3
import pytest

from flows.graph import make_plan
from flows.remote import default_remote, push
from pipelines.errors import ResourceError, TransientError
from tests.flows.toy import Toy


def stages(toy: Toy) -> list[str]:
    return [step.node.name for step in make_plan(toy.folder, "alpha").steps]


def on_remote(remote: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in remote.glob("files/md5/*/*")}


@pytest.fixture
def remote(built: Toy, tmp_path: Path) -> Path:
    built.dvc("remote", "add", "-d", "storage", str(tmp_path / "remote"))
    return tmp_path / "remote"


def test_a_project_has_a_default_remote_or_none(built: Toy, tmp_path: Path) -> None:
    assert default_remote(built.folder) is None
    built.dvc("remote", "add", "-d", "storage", str(tmp_path / "remote"))
    assert default_remote(built.folder) == "storage"


def test_outputs_and_runs_are_there_afterwards_and_sent_once(built: Toy, remote: Path) -> None:
    sent, held = push(built.folder, stages(built))
    runs = {path.name: path.stat().st_mtime_ns for path in remote.glob("runs/*/*/*")}
    assert sent == held == len(on_remote(remote))
    assert set(runs) == {path.name for path in (built.folder / ".dvc" / "cache" / "runs").glob("*/*/*")} != set()
    next(remote.glob("runs/*/*/*")).unlink()
    assert push(built.folder, stages(built)) == (0, held)
    again = {path.name: path.stat().st_mtime_ns for path in remote.glob("runs/*/*/*")}
    assert set(again) == set(runs) and sum(again[name] != runs[name] for name in runs) == 1


def test_what_is_missing_or_cut_short_is_sent_again(built: Toy, remote: Path) -> None:
    """DVC alone sees neither, because the list of the folder's files is there."""
    _, held = push(built.folder, stages(built))
    whole = on_remote(remote)
    small, cut = sorted(
        (path for path in remote.glob("files/md5/*/*") if path.suffix != ".dir"), key=lambda path: path.stat().st_size
    )[:2]
    small.unlink()
    cut.chmod(0o644)
    cut.write_bytes(cut.read_bytes()[:-1])
    sent, again = push(built.folder, stages(built))
    assert again == held and 2 <= sent <= 4, "the two, and the lists of their folders"
    assert on_remote(remote) == whole


def test_a_remote_that_keeps_nothing_is_an_error(built: Toy, remote: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dvc.repo.Repo.push", lambda *_, **__: 0)
    with pytest.raises(TransientError, match=r"DVC's remote storage: \d+ of \d+ files are missing or cut short"):
        push(built.folder, stages(built))


def test_a_remote_that_is_not_there_may_pass(built: Toy, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    built.dvc("remote", "add", "-d", "storage", str(tmp_path / "file" / "remote"))
    with pytest.raises((TransientError, ResourceError), match="DVC's remote storage: "):
        push(built.folder, stages(built))


@pytest.mark.usefixtures("aws")
def test_s3(built: Toy, s3_server: str) -> None:
    client = boto3.client("s3", endpoint_url=s3_server)
    client.create_bucket(Bucket="of-dvc")
    built.dvc("remote", "add", "-d", "storage", "s3://of-dvc/here")
    built.dvc("remote", "modify", "storage", "endpointurl", s3_server)
    sent, held = push(built.folder, stages(built))
    found = client.list_objects_v2(Bucket="of-dvc", Prefix="here/files/")["Contents"]
    assert sent == held == len(found) > 5
    client.delete_object(Bucket="of-dvc", Key=min(found, key=lambda each: each["Size"])["Key"])
    sent, again = push(built.folder, stages(built))
    assert again == held and 1 <= sent <= 2, "the file, and the list of its folder"
    shutil.rmtree(built.folder / ".dvc" / "cache")
    built.dvc("pull", "gate@alpha", "evaluate@alpha")


def test_where_the_cache_is_what_is_damaged_the_remote_keeps_its_copy(built: Toy, remote: Path) -> None:
    push(built.folder, stages(built))
    whole = on_remote(remote)
    cache = built.folder / ".dvc" / "cache" / "files" / "md5"
    cut, lost = sorted(
        (path for path in cache.glob("*/*") if path.suffix != ".dir" and path.name in whole),
        key=lambda path: -path.stat().st_size,
    )[:2]
    cut.chmod(0o644)
    cut.write_bytes(cut.read_bytes()[:3])
    cut.chmod(0o444)  # otherwise DVC sees to it
    with pytest.raises(ResourceError, match=r"lost or damaged this file.*`dvc fetch`"):
        push(built.folder, stages(built))
    assert on_remote(remote) == whole
    cut.unlink()
    lost.unlink()
    assert push(built.folder, stages(built))[0] == 0, "what only the remote has is there"
    assert on_remote(remote) == whole
