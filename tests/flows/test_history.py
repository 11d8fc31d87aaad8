"""Commits of a build's record: real git, the branch that is checked out and others, a bare remote."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.errors import HistoryError
from flows.history import HERE, Committed, check_history, commit_record, holds_record, push_branch
from flows.record import git_state
from pipelines.errors import TransientError
from tests.flows.toy import run

LOCK = "schema: '2.0'\n"


def git(folder: Path, *arguments: str) -> str:
    return run(["git", *arguments], folder).strip()


def record(project: Path, branch: str, message: str = "Build alpha", push_to: str | None = None) -> Committed:
    """As a build does it: look, then commit."""
    return commit_record(project, branch, message, check_history(project, branch, push_to), push_to)


def committed(project: Path, *arguments: str) -> None:
    """A commit of somebody's."""
    git(project, "-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "-qm", "further", *arguments)


def files_of(folder: Path, commit: str) -> list[str]:
    return git(folder, "show", "--format=", "--name-only", commit).splitlines()


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A repository with a recipe, a pointer and a record, the last two changed since the commit; nobody's name is set."""
    for name in ("AUTHOR_NAME", "AUTHOR_EMAIL", "COMMITTER_NAME", "COMMITTER_EMAIL"):
        monkeypatch.delenv(f"GIT_{name}", raising=False)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    monkeypatch.setenv("GIT_CONFIG_SYSTEM", "/dev/null")
    monkeypatch.setenv("EMAIL", "")
    folder = tmp_path / "project"
    (folder / "data").mkdir(parents=True)
    (folder / "params.yaml").write_text("models: {}\n")
    (folder / "data" / "rows.csv.dvc").write_text("outs: []\n")
    (folder / "dvc.lock").write_text(LOCK)
    git(folder, "init", "-q", "-b", "main", ".")
    git(folder, "add", ".")
    git(folder, "-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "-qm", "begun")
    (folder / "data" / "rows.csv.dvc").write_text("outs: [new]\n")
    (folder / "dvc.lock").write_text(LOCK + "stages: {}\n")
    (folder / "notes.txt").write_text("not git's\n")
    (folder / ".git" / "info" / "exclude").write_text("notes.txt\n")
    yield folder


def test_another_build_may_commit_meanwhile_and_nobody_else(project: Path) -> None:
    head = check_history(project, HERE)
    other = record(project, HERE, "Build beta")
    (project / "dvc.lock").write_text(LOCK + "stages: {more: 1}\n")
    done = commit_record(project, HERE, "Build alpha", head)
    assert done.created and git(project, "rev-parse", f"{done.commit}^") == other.commit
    (project / "params.yaml").write_text("models: {more: 1}\n")
    committed(project, "params.yaml")
    with pytest.raises(HistoryError, match="was checked out while"):
        commit_record(project, HERE, "Build alpha", done.commit)


@pytest.mark.parametrize("branch", [HERE, "builds"])
def test_the_record_of_a_further_dvc_yaml_is_of_the_build_too(project: Path, branch: str) -> None:
    """DVC writes it beside that file, the first time in the middle of a build."""
    head = check_history(project, branch)
    (project / "data" / "dvc.lock").write_text(LOCK)
    done = commit_record(project, branch, "Build alpha", head)
    assert done.created and "data/dvc.lock" in files_of(project, done.commit)
    assert holds_record(project, branch)
    assert not record(project, branch).created
    (project / "data" / "dvc.lock").write_text(LOCK + "stages: {}\n")
    assert not holds_record(project, branch)
    assert git_state(project)["dirty"] is (branch != HERE), "the pointer"
    assert record(project, branch).created


def test_the_record_and_the_pointers_are_one_commit_and_only_one(project: Path) -> None:
    done = record(project, HERE, "Build alpha\n\naccuracy 0.9")
    assert (done.branch, done.created) == ("main", True)
    assert files_of(project, done.commit) == ["data/rows.csv.dvc", "dvc.lock"]
    assert git(project, "show", "-s", "--format=%an %s", done.commit) == "slm-factory Build alpha"
    assert git(project, "status", "--porcelain") == ""
    again = record(project, HERE, "Build alpha")
    assert (again.commit, again.created) == (done.commit, False)


def test_a_record_that_git_did_not_know_is_added(project: Path) -> None:
    git(project, "rm", "-q", "--cached", "dvc.lock")
    git(project, "-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "-qm", "without")
    assert "dvc.lock" in files_of(project, record(project, HERE, "Build alpha").commit)


def test_a_name_of_ones_own_signs_the_commit(project: Path) -> None:
    git(project, "config", "user.name", "Ada")
    git(project, "config", "user.email", "ada@example.org")
    done = record(project, HERE, "Build alpha")
    assert git(project, "show", "-s", "--format=%an <%ae>", done.commit) == "Ada <ada@example.org>"


def test_another_branch_leaves_the_work_tree_alone(project: Path) -> None:
    before = git(project, "status", "--porcelain")
    head = git(project, "rev-parse", "HEAD")
    first = record(project, "built/alpha", "Build alpha")
    assert first.created and files_of(project, first.commit) == ["data/rows.csv.dvc", "dvc.lock"]
    assert git(project, "status", "--porcelain") == before
    assert git(project, "rev-parse", "HEAD") == head
    assert record(project, "built/alpha", "Build alpha") == type(first)(first.commit, "built/alpha", created=False)
    (project / "dvc.lock").write_text(LOCK + "stages: {more: {}}\n")
    second = record(project, "built/alpha", "Build alpha again")
    assert git(project, "rev-parse", f"{second.commit}^") == first.commit


def test_another_branch_keeps_its_commits_when_the_work_goes_on(project: Path) -> None:
    """Records name these commits: they must not go when the code moves on beside them."""
    first = record(project, "built/alpha", "Build alpha")
    git(project, "checkout", "-q", "data")
    (project / "params.yaml").write_text("models: {alpha: {}}\n")
    git(project, "-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "-qm", "further", "params.yaml")
    (project / "dvc.lock").write_text(LOCK + "stages: {more: {}}\n")
    second = record(project, "built/alpha", "Build alpha again")
    assert git(project, "show", "-s", "--format=%P", second.commit).split() == [
        first.commit,
        git(project, "rev-parse", "HEAD"),
    ]
    assert git(project, "show", f"{second.commit}:params.yaml") == "models: {alpha: {}}"
    assert git(project, "show", f"{second.commit}:dvc.lock") == (project / "dvc.lock").read_text().strip()


def test_another_branch_holds_what_was_built_where_the_work_went_back(project: Path) -> None:
    """HEAD goes on, is built, goes back, and is built again: the second record has the older recipe."""
    git(project, "checkout", "-q", "data")
    older = (project / "params.yaml").read_text()
    (project / "params.yaml").write_text("models: {alpha: {}}\n")
    git(project, "-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "-qm", "further", "params.yaml")
    first = record(project, "built/alpha", "Build alpha")
    (project / "dvc.lock").rename(project / "kept")
    git(project, "reset", "-q", "--hard", "HEAD^")
    (project / "kept").rename(project / "dvc.lock")
    second = record(project, "built/alpha", "Build alpha as it was")
    assert second.created and git(project, "rev-parse", f"{second.commit}^") == first.commit
    assert git(project, "show", f"{second.commit}:params.yaml") == older.strip()


@pytest.mark.parametrize(
    ("spoil", "branch", "message"),
    [
        ((), None, "a git remote is named and nothing is committed"),
        ((), "no..name", r"'no\.\.name' cannot be the name of a branch"),
        ((), "@{-1}", "cannot be the name of a branch"),
        ((), "--force", "cannot be the name of a branch"),
        (("checkout", "-q", "--detach"), HERE, "no branch is checked out"),
        (("update-ref", "-d", "HEAD"), HERE, "no commit to build on"),
        (("rm", "-q", "--cached", "params.yaml"), HERE, r"params\.yaml: changed and not committed"),
    ],
)
def test_what_could_not_be_built_again_is_refused_before_any_work(
    project: Path, spoil: tuple[str, ...], branch: str | None, message: str
) -> None:
    if spoil:
        git(project, *spoil)
    with pytest.raises(HistoryError, match=message):
        check_history(project, branch)


def test_a_git_that_is_at_work_may_pass(project: Path) -> None:
    (project / ".git" / "index.lock").touch()
    with pytest.raises(TransientError, match=r"index\.lock"):
        record(project, HERE, "Build alpha")


def test_a_branch_is_pushed_once_and_a_remote_that_moved_on_is_named(project: Path, tmp_path: Path) -> None:
    git(tmp_path, "init", "-q", "--bare", "far.git")
    git(project, "remote", "add", "origin", str(tmp_path / "far.git"))
    done = record(project, HERE, "Build alpha")
    push_branch(project, "origin", done.branch)
    push_branch(project, "origin", done.branch)
    assert git(tmp_path / "far.git", "rev-parse", "main") == done.commit
    git(tmp_path, "clone", "-q", "-b", "main", "far.git", "other")
    git(
        tmp_path / "other",
        "-c",
        "user.name=t",
        "-c",
        "user.email=t@example.org",
        "commit",
        "-q",
        "--allow-empty",
        "-m",
        "x",
    )
    git(tmp_path / "other", "push", "-q")
    (project / "dvc.lock").write_text(LOCK)
    record(project, HERE, "Build alpha again")
    with pytest.raises(HistoryError, match="origin has commits that main here lacks; `git pull --rebase origin main`"):
        push_branch(project, "origin", "main")
    git(project, "remote", "set-url", "origin", str(tmp_path / "nowhere.git"))
    with pytest.raises(TransientError, match="git push origin main"):
        push_branch(project, "origin", "main")


def test_what_git_does_not_know_is_refused_unless_it_is_ignored(project: Path) -> None:
    (project / "data" / "new ü.csv").write_text("a row\n")
    with pytest.raises(HistoryError, match=r"data/new ü\.csv: changed and not committed"):
        check_history(project, HERE)


@pytest.mark.parametrize("branch", [HERE, "built"])
def test_names_in_any_alphabet(project: Path, branch: str) -> None:
    git(project, "checkout", "-q", "data", "dvc.lock")
    (project / "data" / "größe.csv.dvc").write_text("outs: []\n")
    git(project, "add", ".")
    committed(project)
    (project / "data" / "größe.csv.dvc").write_text("outs: [new]\n")
    done = record(project, branch)
    assert git(project, "show", f"{done.commit}:data/größe.csv.dvc") == "outs: [new]"


def test_the_branch_that_is_checked_out_may_be_named(project: Path) -> None:
    done = record(project, "main")
    assert done.created and git(project, "status", "--porcelain") == "" and holds_record(project, "main")


@pytest.mark.parametrize("branch", [HERE, "built"])
@pytest.mark.parametrize("change", ["params.yaml", "commit"])
def test_what_changed_while_it_was_built_is_no_record_of_it(project: Path, branch: str, change: str) -> None:
    head = check_history(project, branch)
    (project / "params.yaml").write_text("models: {alpha: {}}\n")
    if change == "commit":
        committed(project, "params.yaml")
    with pytest.raises(HistoryError, match=r"params\.yaml: changed and not committed|was checked out while"):
        commit_record(project, branch, "Build alpha", head)


def test_a_branch_of_somebodys_is_left_alone(project: Path, tmp_path: Path) -> None:
    git(project, "stash", "-q")
    git(project, "checkout", "-q", "-b", "next")
    (project / "params.yaml").write_text("models: {alpha: {}}\n")
    committed(project, "params.yaml")
    git(project, "checkout", "-q", "main")
    git(project, "stash", "pop", "-q")
    with pytest.raises(HistoryError, match=r"next: its last commit [0-9a-f]{12} is no build's"):
        check_history(project, "next")
    git(project, "worktree", "add", "-q", "-b", "elsewhere", str(tmp_path / "elsewhere"))
    with pytest.raises(HistoryError, match="elsewhere is checked out in another work tree"):
        check_history(project, "elsewhere")


def test_two_machines_build_onto_one_branch(project: Path, tmp_path: Path) -> None:
    git(tmp_path, "init", "-q", "--bare", "far.git")
    git(project, "remote", "add", "origin", str(tmp_path / "far.git"))
    git(project, "push", "-q", "origin", "main")
    first = record(project, "built", push_to="origin")
    push_branch(project, "origin", "built")
    git(tmp_path, "clone", "-q", "-b", "main", "far.git", "other")
    other = tmp_path / "other"
    (other / "dvc.lock").write_text(LOCK + "stages: {more: {}}\n")
    second = record(other, "built", push_to="origin")
    assert git(other, "rev-parse", f"{second.commit}^") == first.commit
    push_branch(other, "origin", "built")
    (project / "dvc.lock").write_text(LOCK + "stages: {most: {}}\n")
    third = record(project, "built", push_to="origin")
    assert git(project, "rev-parse", f"{third.commit}^") == second.commit
    push_branch(project, "origin", "built")
    assert git(tmp_path / "far.git", "rev-parse", "built") == third.commit
    assert git(other, "rev-parse", "built") == second.commit and holds_record(other, "built")


@pytest.mark.parametrize(
    "name", ["orgin", "https://u:secret@127.0.0.1:1/x", "--receive-pack=touch PWNED;git-receive-pack"]
)
def test_only_a_remote_that_git_knows_is_pushed_to(project: Path, name: str) -> None:
    with pytest.raises(HistoryError, match="is no git remote of this repository"):
        check_history(project, HERE, name)
    with pytest.raises(TransientError):
        push_branch(project, name, "main")
    assert not list(project.rglob("PWNED"))


def test_a_hook_that_says_no_is_no_passing_trouble(project: Path, tmp_path: Path) -> None:
    git(tmp_path, "init", "-q", "--bare", "far.git")
    hook = tmp_path / "far.git" / "hooks" / "pre-receive"
    hook.write_text("#!/bin/sh\nexit 1\n")
    hook.chmod(0o755)
    git(project, "remote", "add", "origin", str(tmp_path / "far.git"))
    with pytest.raises(HistoryError, match="origin takes no push of main"):
        push_branch(project, "origin", "main")
