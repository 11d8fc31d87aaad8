"""Data that is imported from elsewhere: looked for anew before a build, kept where its origin is gone, committed with the build."""

from __future__ import annotations

import shutil
import subprocess
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import boto3
import pytest
from prefect.states import State

from flows.build import build
from flows.errors import Transient
from flows.reproduce import rebuilt
from flows.standing import UP_TO_DATE
from flows.updating import update_imports
from tests.flows.toy import Toy, run

pytestmark = pytest.mark.usefixtures("api")
Inside = Callable[[Toy], Toy]


@pytest.fixture
def imported(built: Toy, inside: Inside, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Toy, Path]:
    """A built project whose data is imported from a file elsewhere, and that file."""
    inside(built)
    data, origin = built.folder / "data" / "alpha.csv", tmp_path / "origin.csv"
    origin.write_text("text,label\nfirst,x\n")
    run(["git", "rm", "-q", "--cached", "data/alpha.csv"], built.folder)
    data.unlink()
    built.dvc("import-url", "-q", str(origin), "data/alpha.csv")
    run(["git", "add", "data", "dvc.lock"], built.folder)
    run(["git", "-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "-qm", "imported"], built.folder)
    monkeypatch.setattr(update_imports, "retry_delay_seconds", [0, 0])
    return built, origin


@pytest.fixture
def bucket(s3_server: str, aws: None, monkeypatch: pytest.MonkeyPatch) -> Any:
    """An empty bucket, where DVC and its children look for all of them."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server)
    made = boto3.resource("s3", endpoint_url=s3_server).Bucket(f"origin-{uuid.uuid4().hex}")
    made.create()
    return made


def of_a_prefix(toy: Toy, bucket: Any, _elsewhere: Path) -> Callable[[], object]:
    """Data below an s3 prefix; what puts an object more there."""
    bucket.put_object(Key="tickets/1.csv", Body=b"text,label\nfirst,x\n")
    toy.dvc("import-url", "-q", f"s3://{bucket.name}/tickets", "data/alpha.csv")
    return lambda: bucket.put_object(Key="tickets/2.csv", Body=b"second,x\n")


def of_a_branch(toy: Toy, _bucket: Any, elsewhere: Path) -> Callable[[], object]:
    """Data of another repository's branch; what commits there."""

    def commit(rows: str) -> None:
        (elsewhere / "tickets.csv").write_text(rows)
        run(["git", "add", "-A"], elsewhere)
        run(["git", "-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "-qm", "rows"], elsewhere)

    elsewhere.mkdir()
    run(["git", "init", "-q", "-b", "main", "."], elsewhere)
    commit("text,label\nfirst,x\n")
    toy.dvc("import", "-q", str(elsewhere), "tickets.csv", "-o", "data/alpha.csv", "--rev", "main")
    return lambda: commit("text,label\nfirst,x\nsecond,x\n")


@pytest.mark.parametrize("origin", [of_a_prefix, of_a_branch])
def test_a_new_object_and_a_new_revision_are_built(
    built: Toy,
    inside: Inside,
    bucket: Any,
    tmp_path: Path,
    origin: Callable[[Toy, Any, Path], Callable[[], object]],
) -> None:
    inside(built)
    run(["git", "rm", "-q", "--cached", "data/alpha.csv"], built.folder)
    (built.folder / "data" / "alpha.csv").unlink()
    more = origin(built, bucket, tmp_path / "elsewhere")
    build("alpha", update=True)
    assert "first" in signals(built) and "second" not in signals(built)
    more()
    build("alpha", update=True)
    assert "second" in signals(built)
    assert build("alpha", update=True, return_state=True).name == UP_TO_DATE


def signals(toy: Toy) -> str:
    return (toy.folder / "build" / "alpha" / "signals").read_text()


def test_what_changed_at_the_origin_is_built_and_committed(imported: tuple[Toy, Path]) -> None:
    toy, origin = imported
    asked: dict[str, Any] = {"publish": "store", "commit": "HEAD", "return_state": True}
    build("alpha", update=True, **asked)
    assert "first" in signals(toy)
    origin.write_text("text,label\nsecond,x\n")
    state: State[Any] = build("alpha", **asked)
    assert state.name == UP_TO_DATE, "without `update` nobody looks there"
    result = build("alpha", update=True, **asked).result()
    assert "second" in signals(toy) and result.publication.created
    assert "data/alpha.csv.dvc" in run(["git", "show", "--name-only", "--format="], toy.folder).split()
    state = build("alpha", update=True, **asked)
    assert state.name == UP_TO_DATE


def test_where_the_origin_is_gone_the_data_stays(imported: tuple[Toy, Path]) -> None:
    toy, origin = imported
    before = (toy.folder / "data" / "alpha.csv.dvc").read_text()
    origin.unlink()
    state: State[Any] = build("alpha", update=True, return_state=True)
    error = state.result(raise_on_failure=False)
    assert state.is_failed() and isinstance(error, Transient) and "origin.csv" in str(error)
    assert "first" in (toy.folder / "data" / "alpha.csv").read_text()
    assert (toy.folder / "data" / "alpha.csv.dvc").read_text() == before


def test_a_build_from_scratch_has_the_data_that_the_commit_points_to(
    imported: tuple[Toy, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clone has .dvc files and no data; the origin may have moved on meanwhile."""
    toy, origin = imported
    origin.write_text("text,label\nlater,x\n")
    monkeypatch.setattr("flows.reproduce.LAST", "label")
    folder = tmp_path / "clone"

    def step(command: Sequence[str], where: Path, environment: Mapping[str, str]) -> int:
        return subprocess.run(command, cwd=where, env=environment, check=False).returncode

    with pytest.raises(FileNotFoundError, match="exported"):  # a toy exports nothing
        rebuilt(toy.folder, "HEAD", "alpha", folder, step)
    assert "first" in (folder / "build" / "alpha" / "signals").read_text()


def test_a_project_in_a_folder_of_a_repository_is_built_from_scratch_too(
    toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, inner = tmp_path / "whole", tmp_path / "whole" / "models" / "toy"
    shutil.copytree(toy.folder, inner, ignore=shutil.ignore_patterns(".git"))
    run(["git", "init", "-q", "."], whole)
    (inner / ".dvc" / "config").write_text("[core]\n    analytics = false\n")
    run(["git", "add", "."], whole)
    run(["git", "-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "-qm", "all"], whole)
    monkeypatch.setattr("flows.reproduce.LAST", "label")

    def step(command: Sequence[str], where: Path, environment: Mapping[str, str]) -> int:
        return subprocess.run(command, cwd=where, env=environment, check=False).returncode

    with pytest.raises(FileNotFoundError, match="exported"):  # a toy exports nothing
        rebuilt(inner, "HEAD", "alpha", tmp_path / "clone", step)
    assert (tmp_path / "clone" / "models" / "toy" / "build" / "alpha" / "signals").exists()
