"""A second machine, one remote of DVC's: what the first one built is brought and not built again."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.flows.toy import Toy, environment, run

pytestmark = pytest.mark.usefixtures("api")
_WHO = ("-c", "user.name=t", "-c", "user.email=t@example.org")


@pytest.fixture
def pushed(built: Toy, tmp_path: Path) -> Toy:
    """A project that is built and has pushed its outputs; dvc.lock is not committed."""
    built.dvc("remote", "add", "-d", "storage", str(tmp_path / "remote"))
    run(["git", *_WHO, "commit", "-qam", "remote"], built.folder)
    code, output = built.flows("build", "alpha", "--publish", "store")
    assert code == 0 and "files sent, all" in output, output
    return built


def other_machine(one: Toy, folder: Path) -> Toy:
    run(["git", "clone", "-q", str(one.folder), str(folder)], folder.parent)
    return Toy(folder)


@pytest.mark.parametrize("committed", [False, True])
def test_what_another_machine_built_is_brought(pushed: Toy, tmp_path: Path, committed: bool) -> None:
    """With its dvc.lock, or from the remote's records of runs alone."""
    if committed:
        assert pushed.flows("build", "alpha", "--publish", "store", "--commit", "HEAD")[0] == 0
    other = other_machine(pushed, tmp_path / "other")
    code, output = other.flows("build", "alpha")
    assert code == 0, output
    assert other.ran() == [] and output.count("from DVC's remote") >= 1
    made = Path("build") / "alpha"
    for path in (pushed.folder / made).rglob("*"):
        if path.is_file():
            assert (other.folder / made / path.relative_to(pushed.folder / made)).read_bytes() == path.read_bytes()
    assert other.flows("build", "alpha")[0] == 0 and other.ran() == []


def test_a_work_tree_of_another_branch_builds_as_a_clone_does(pushed: Toy, tmp_path: Path) -> None:
    """It brings what was built, builds the rest, and commits to its own branch."""
    run(["git", "worktree", "add", "-q", "-b", "next", str(tmp_path / "next")], pushed.folder)
    before = run(["git", "rev-parse", "HEAD"], pushed.folder)
    other = Toy(tmp_path / "next")
    other.change("alpha", "gate", "max_bytes", 77)
    run(["git", *_WHO, "commit", "-qam", "gate"], other.folder)
    code, output = other.flows("build", "alpha", "--publish", str(tmp_path / "registry"), "--commit", "HEAD")
    assert code == 0, output
    assert other.ran() == ["gate"]
    assert run(["git", "log", "-1", "--format=%s", "next"], pushed.folder).strip() == "Build alpha"
    assert run(["git", "rev-parse", "HEAD"], pushed.folder) == before
    assert run(["git", "status", "--porcelain"], other.folder) == ""


def test_only_what_nobody_built_is_built(pushed: Toy, tmp_path: Path) -> None:
    other = other_machine(pushed, tmp_path / "other")
    other.change("alpha", "gate", "max_bytes", 77)
    assert other.flows("build", "alpha")[0] == 0
    assert other.ran() == ["gate"]


def test_a_remote_that_does_not_answer_is_done_without(pushed: Toy, tmp_path: Path) -> None:
    other = other_machine(pushed, tmp_path / "other")
    other.dvc("remote", "modify", "storage", "url", "s3://bucket/prefix")
    other.dvc("remote", "modify", "storage", "endpointurl", "http://127.0.0.1:1")
    command = [sys.executable, "-m", "flows.repro", "validate@alpha"]
    done = subprocess.run(
        command,
        cwd=other.folder,
        env=environment() | {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "nothing comes from DVC's remote: " in done.stdout
    assert other.ran() == ["validate"]


def test_what_the_remote_has_lost_is_built(pushed: Toy, tmp_path: Path) -> None:
    """It knows the runs and lacks what they made."""
    other = other_machine(pushed, tmp_path / "other")
    shutil.rmtree(tmp_path / "remote" / "files")
    code, output = other.flows("build", "alpha")
    assert code == 0, output
    assert {"validate", "evaluate"} <= set(other.ran())
    assert (other.folder / "build" / "alpha" / "gate.json").exists()
