"""The project's history: DVC's locks, and the pointers beside them, as a commit that says what was built. The same files twice are one commit."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from flows.errors import HistoryError
from pipelines.errors import TransientError

#: The branch that is checked out, as `commit` names it.
HERE = "HEAD"
#: Where DVC records what it ran: beside each dvc.yaml, of which a project may have further ones, for its data.
LOCKS = ":(glob)**/dvc.lock"
#: Pointers to data, which `dvc update` changes.
POINTERS = ":(glob)**/*.dvc"
#: All that a build does not change itself.
OTHERS = (".", ":(exclude,glob)**/dvc.lock", ":(exclude,glob)**/*.dvc")
#: What git says of a remote that moved on, rather than one that does not answer.
BEHIND = ("[rejected]", "non-fast-forward", "fetch first")
#: What it says of a remote that has the branch's push forbidden.
REFUSED = ("[remote rejected]", "pre-receive hook declined")
#: Stands in the message of every commit that a build makes.
TRAILER = "Built-by: slm-factory"
#: What it says where another git works on the same files.
BUSY = (".lock': File exists", "cannot lock ref")
NOBODY = {"user.name": "slm-factory", "user.email": "slm-factory@localhost"}


@dataclass(frozen=True)
class Committed:
    """The commit that holds a build's record, and its branch. `created` is False where the branch held it before."""

    commit: str
    branch: str
    created: bool


def check_history(root: Path, branch: str | None, push_to: str | None = None) -> str:
    """Before any work: can the result be committed, and built again from that commit? The commit that is checked out.

    Raises HistoryError outside git, before the first commit, where files differ from it or are unknown to it, for an impossible name, or
    none, for a branch that is not the builds' own, and for a remote that git does not know.
    """
    if not branch:
        raise HistoryError(f"a git remote is named and nothing is committed: name a branch, or {HERE}, as `commit`")
    head = _ask(root, "rev-parse", "--verify", "--quiet", HERE)
    if head is None:
        raise HistoryError(f"{root}: no commit to build on; `git init`, `git add .` and `git commit` first")
    if branch == HERE and _ask(root, "symbolic-ref", "--quiet", HERE) is None:
        raise HistoryError(f"{root}: no branch is checked out; check one out, or name another than {HERE} to commit to")
    if branch.startswith("-") or _ask(root, "check-ref-format", f"refs/heads/{branch}") is None:
        raise HistoryError(f"{branch!r} cannot be the name of a branch")
    remotes = _git(root, "remote").splitlines()
    if push_to and push_to not in remotes:
        raise HistoryError(
            f"{push_to!r} is no git remote of this repository (there are: {', '.join(remotes) or 'none'}); `git remote add` it first"
        )
    if branch not in (HERE, checked_out(root)):
        _check_ours(root, branch, head)
    _check_unchanged(root, head)
    return head


def checked_out(root: Path) -> str | None:
    """The branch that is checked out; None where a commit is that belongs to none."""
    return _ask(root, "symbolic-ref", "--quiet", "--short", HERE)


def commit_record(root: Path, branch: str, message: str, head: str, push_to: str | None = None) -> Committed:
    """Commit DVC's locks and changed pointers: to the branch that is checked out (`HEAD`), or to another without touching the work tree.

    `head` is the commit that the build began from; other builds may have committed since. Raises HistoryError where a file of it has changed
    meanwhile, or git refuses; TransientError where a git is at work, or the remote does not answer.
    """
    head = _check_unchanged(root, head)
    message = f"{message}\n\n{TRAILER}"
    name = checked_out(root)
    if branch not in (HERE, name):
        if push_to:
            _follow(root, push_to, branch)
        return _commit_beside(root, branch, message, head)
    if name is None:
        raise HistoryError(f"{root}: no branch is checked out any more; check one out and build again")
    _git(root, "add", "--", LOCKS)
    if not _git(root, "status", "--porcelain", "--untracked-files=no", "--", LOCKS, POINTERS):
        return Committed(head, name, created=False)
    _git(root, *_author(root), "commit", "--quiet", "--only", "--message", message, "--", *_own(root))
    return Committed(_git(root, "rev-parse", HERE), name, created=True)


def committed_text(root: Path, name: str) -> str:
    """A file's text in the commit that is checked out. Raises HistoryError where there is none."""
    done = _run(root, "show", f"{HERE}:./{name}")
    if done.returncode:
        raise HistoryError(f"{name} is in no commit: {' '.join(done.stderr.split())}")
    return done.stdout


def last_change(root: Path, name: str) -> tuple[str, str]:
    """The last commit that changed a file, and the first line of its message."""
    commit, _, subject = _git(root, "log", "-1", "--format=%H %s", "--", name).partition(" ")
    return commit, subject


def commit_file(root: Path, name: str, message: str) -> str:
    """Commit one file as it stands, and nothing else; the commit. Raises HistoryError where git refuses, TransientError where one is at work."""
    _git(root, *_author(root), "commit", "--quiet", "--only", "--message", f"{message}\n\n{TRAILER}", "--", name)
    return _git(root, "rev-parse", HERE)


def holds_record(root: Path, branch: str) -> bool:
    """Whether a branch holds DVC's locks and the pointers as they stand in the work tree."""
    ref = HERE if branch == HERE else f"refs/heads/{branch}"
    names = _git(root, "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", LOCKS).split("\0")
    # Not by `git diff`: of a file that the index does not have it says nothing, or that it is gone.
    held = all(
        _ask(root, "rev-parse", "--verify", "--quiet", f"{ref}:./{name}") == _ask(root, "hash-object", "--", name)
        for name in names
        if name
    )
    return held and _ask(root, "diff", "--quiet", ref, "--", POINTERS) is not None


def has_commit(root: Path, commit: str) -> bool:
    """Whether the repository holds a commit."""
    return _ask(root, "cat-file", "-e", f"{commit}^{{commit}}") is not None


def push_branch(root: Path, remote: str, branch: str) -> None:
    """Push a branch; where the remote has it, nothing happens.

    Raises HistoryError where the remote has commits that the branch lacks, TransientError where it does not answer.
    """
    done = _run(root, "push", "--quiet", "--", remote, f"refs/heads/{branch}")
    if done.returncode == 0:
        return
    said = " ".join(done.stderr.split())
    if any(word in said for word in REFUSED):
        raise HistoryError(f"{remote} takes no push of {branch}: {said}")
    if any(word in said for word in BEHIND):
        raise HistoryError(
            f"{remote} has commits that {branch} here lacks; `git pull --rebase {remote} {branch}`, then build again: {said}"
        )
    raise TransientError(f"git push {remote} {branch}: {said}")


def _check_unchanged(root: Path, head: str) -> str:
    """The commit that is checked out: `head`, or one after it that changed what builds change, no more.

    Raises HistoryError where it is another, or files other than the builds' own differ from it or are unknown to it.
    """
    now = _git(root, "rev-parse", HERE)
    after = now == head or _ask(root, "merge-base", "--is-ancestor", head, now) is not None
    if not after or _ask(root, "diff", "--quiet", head, now, "--", *OTHERS) is None:
        raise HistoryError(f"{root}: {now[:12]} was checked out while {head[:12]} was built; build again")
    # With -z names stand as they are, whatever their characters; a renamed file's old name is an entry of its own without a state.
    entries = _git(root, "status", "--porcelain", "-z", "--no-renames", "--untracked-files=normal", "--", *OTHERS)
    changed = [entry[3:] for entry in entries.split("\0") if entry]
    if changed:
        raise HistoryError(
            f"{', '.join(changed)}: changed and not committed; what is built now could not be built again from a commit. Commit them first, "
            "or have git ignore what no build reads"
        )
    return now


def _check_ours(root: Path, branch: str, head: str) -> None:
    """Raise HistoryError where a branch holds what neither HEAD does nor a build put there, or is checked out elsewhere."""
    places = _git(root, "worktree", "list", "--porcelain", "-z").split("\0")
    if f"branch refs/heads/{branch}" in places:
        raise HistoryError(f"{branch} is checked out in another work tree of this repository; name another branch")
    tip = _ask(root, "rev-parse", "--verify", "--quiet", f"refs/heads/{branch}")
    if tip is None or _ask(root, "merge-base", "--is-ancestor", tip, head) is not None:
        return
    key, _, value = TRAILER.partition(": ")
    if _git(root, "show", "--no-patch", f"--format=%(trailers:key={key},valueonly)", tip).strip() != value:
        raise HistoryError(
            f"{branch}: its last commit {tip[:12]} is no build's, and a record on top of it would not be of what was built; name a branch "
            "of the builds' own"
        )


def _follow(root: Path, remote: str, branch: str) -> None:
    """Bring a branch up to what the remote has of it; two machines may build onto one branch.

    Raises HistoryError where both have commits that the other lacks, TransientError where the remote does not answer.
    """
    far = f"refs/remotes/{remote}/{branch}"
    done = _run(root, "fetch", "--quiet", "--no-tags", "--", remote, f"+refs/heads/{branch}:{far}")
    said = " ".join(done.stderr.split())
    if "couldn't find remote ref" in said:
        return
    if done.returncode:
        raise TransientError(f"git fetch {remote} {branch}: {said}")
    ours, theirs = f"refs/heads/{branch}", _git(root, "rev-parse", far)
    tip = _ask(root, "rev-parse", "--verify", "--quiet", ours)
    if tip is None or _ask(root, "merge-base", "--is-ancestor", tip, theirs) is not None:
        _git(root, "update-ref", ours, theirs, tip or "")
    elif _ask(root, "merge-base", "--is-ancestor", theirs, tip) is None:
        raise HistoryError(
            f"{branch} here and on {remote} have each commits that the other lacks; merge them, then build again"
        )


def _commit_beside(root: Path, branch: str, message: str, head: str) -> Committed:
    """As `commit_record`, with an index of its own. The branch keeps its commits, since records name them; its files are those of HEAD,
    whatever the branch held (HEAD may have gone back): with others the build could not be built again from there."""
    _check_ours(root, branch, head)
    tip = _ask(root, "rev-parse", "--verify", "--quiet", f"refs/heads/{branch}")
    onto = tip if tip and _ask(root, "merge-base", "--is-ancestor", head, tip) is not None else head
    with tempfile.TemporaryDirectory(prefix="slm-factory-") as folder:
        index = {"GIT_INDEX_FILE": str(Path(folder) / "index")}
        _git(root, "read-tree", head, **index)
        _git(root, "add", "--", *_own(root), **index)
        tree = _git(root, "write-tree", **index)
    if tree == _git(root, "rev-parse", f"{onto}^{{tree}}"):
        if tip is None:
            _git(root, "update-ref", f"refs/heads/{branch}", onto, "")
        return Committed(onto, branch, created=False)
    parents = (
        [onto]
        if tip is None or onto == tip or _ask(root, "merge-base", "--is-ancestor", tip, head) is not None
        else [tip, head]
    )
    lines = [part for parent in parents for part in ("-p", parent)]
    made = _git(root, *_author(root), "commit-tree", tree, *lines, "-m", message)
    _git(root, "update-ref", f"refs/heads/{branch}", made, tip or "")
    return Committed(made, branch, created=True)


def _own(root: Path) -> list[str]:
    """DVC's locks, and the tracked pointers that changed."""
    changed = _git(root, "diff", "--name-only", "--relative", "-z", HERE, "--", POINTERS).split("\0")
    return [LOCKS, *(f":(literal){path}" for path in changed if path)]


def _author(root: Path) -> list[str]:
    """Options that name an author where neither git's settings nor the environment do."""
    return [
        part
        for key, value in NOBODY.items()
        if _ask(root, "config", key) is None and f"GIT_AUTHOR_{key.removeprefix('user.').upper()}" not in os.environ
        for part in ("-c", f"{key}={value}")
    ]


def _git(root: Path, *arguments: str, **environment: str) -> str:
    done = _run(root, *arguments, **environment)
    if done.returncode:
        said = f"git {' '.join(arguments)}: {' '.join(done.stderr.split()) or f'exit code {done.returncode}'}"
        raise TransientError(said) if any(word in said for word in BUSY) else HistoryError(said)
    return done.stdout.rstrip("\n")


def _ask(root: Path, *arguments: str) -> str | None:
    """What git answers; None where it says no."""
    done = _run(root, *arguments)
    return done.stdout.strip() if done.returncode == 0 else None


def _run(root: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command: Sequence[str] = ["git", "-C", str(root), *arguments]
    # No question may wait for somebody at a terminal.
    settings: Mapping[str, str] = os.environ | {"GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"} | environment
    try:
        return subprocess.run(
            command, env=settings, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
    except FileNotFoundError as error:
        raise HistoryError("git is not installed; without it nothing can be committed") from error
