"""Data that is imported from elsewhere: looked for anew before a build, kept where its origin is gone, committed with the build."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

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
