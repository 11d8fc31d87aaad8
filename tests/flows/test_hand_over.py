"""What comes after the gate: its order, what a build that was killed in the middle of it leaves, and a build that has nothing to do."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from slm_registry import Registry

from flows.graph import make_plan
from flows.remote import push
from tests.flows.killed_before import STEPS
from tests.flows.toy import Toy, environment, run, wait_for

pytestmark = pytest.mark.usefixtures("api")
ALL = ("build", "alpha", "--publish", "store", "--commit", "HEAD", "--push", "origin")


@pytest.fixture
def connected(built: Toy, tmp_path: Path) -> Toy:
    """A built project with a remote of DVC's and one of git's; dvc.lock is not committed yet."""
    run(["git", "init", "-q", "--bare", str(tmp_path / "far.git")], tmp_path)
    run(["git", "remote", "add", "origin", str(tmp_path / "far.git")], built.folder)
    built.dvc("remote", "add", "-d", "storage", str(tmp_path / "remote"))
    run(["git", "-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "-qam", "remote"], built.folder)
    return built


def git(toy: Toy, *arguments: str) -> str:
    return run(["git", *arguments], toy.folder).strip()


def builds(toy: Toy, tmp_path: Path) -> list[str]:
    """Subjects of the commits that the git remote has of a build."""
    branch = git(toy, "symbolic-ref", "--short", "HEAD")
    subjects = run(["git", "-C", str(tmp_path / "far.git"), "log", "--format=%s", branch], tmp_path).splitlines()
    return [subject for subject in subjects if subject.startswith("Build")]


def handed_over(toy: Toy, tmp_path: Path) -> None:
    """Everything is in its place, once."""
    registry = Registry(toy.folder / "store")
    (row,) = registry.list("alpha")
    assert (row.version, row.aliases) == ("1.0.0", ("candidate",))
    assert builds(toy, tmp_path) == ["Build alpha"]
    commit = git(toy, "rev-parse", "HEAD")
    assert registry.show("alpha@1.0.0").lineage["git"] == {"commit": commit, "dirty": False}
    assert git(toy, "diff", "HEAD", "--stat") == ""
    names = [step.node.name for step in make_plan(toy.folder, "alpha").steps]
    assert push(toy.folder, names)[0] == 0


@pytest.mark.parametrize("step", STEPS)
def test_killed_before_any_step_the_next_build_does_the_rest(connected: Toy, tmp_path: Path, step: str) -> None:
    killed = subprocess.run(
        [sys.executable, "-m", "tests.flows.killed_before", step, *ALL],
        cwd=connected.folder,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stdout + killed.stderr
    code, output = connected.flows(*ALL)
    assert code == 0, output
    handed_over(connected, tmp_path)
    assert connected.ran() == []


def test_in_order_and_then_nothing_is_left_to_do(connected: Toy, tmp_path: Path) -> None:
    code, output = connected.flows(*ALL)
    assert code == 0, output
    said = (
        "files sent, all",
        "dvc.lock: committed as",
        "already there" if "already there" in output else ": published",
    )
    places = [output.index(word) for word in said]
    assert places == sorted(places)
    handed_over(connected, tmp_path)
    body = git(connected, "show", "-s", "--format=%b", "HEAD").splitlines()
    assert "accuracy, % (95 % interval): 90.00 (88.00-92.00) (teacher 90.00 (88.00-92.00))" in body
    assert f"data {'d' * 64}" in body and f"teacher sha256 {'e' * 64}" in body and "torch 2" in body
    log = len(Registry(connected.folder / "store").log("alpha"))
    code, output = connected.flows(*ALL)
    assert code == 0 and "unchanged  alpha 1.0.0" in output
    assert "push" not in output and len(Registry(connected.folder / "store").log("alpha")) == log


def test_an_alias_that_somebody_moved_stays_where_it_is(built: Toy) -> None:
    """A rollback must outlive the schedule."""
    publish = ("build", "alpha", "--publish", "store")
    assert built.flows(*publish)[0] == 0
    (built.folder / "data" / "alpha.csv").write_text("text,label\nother,x\n")
    assert built.flows(*publish)[0] == 0
    registry = Registry(built.folder / "store")
    registry.rollback("alpha", "candidate", reason="complaints")
    assert built.flows(*publish)[0] == 0
    assert registry.resolve("alpha@candidate").version == "1.0.0"
    assert built.flows(*publish, "--alias", "staging")[0] == 0, "another request, then the one of the schedule"
    assert built.flows(*publish)[0] == 0
    assert registry.resolve("alpha@candidate").version == "1.0.0"


def test_without_receipt_it_is_handed_over_again(built: Toy) -> None:
    publish = ("build", "alpha", "--publish", "store")
    assert built.flows(*publish)[0] == 0
    place = built.folder / ".dvc" / "tmp" / "slm-factory"
    place.rename(built.folder / "away")
    assert built.flows(*publish)[0] == 0
    assert list(place.glob("alpha.*.json"))
    assert [row.version for row in Registry(built.folder / "store").list("alpha")] == ["1.0.0"]


def test_a_store_that_was_lost_is_not_filled_again_unsaid(built: Toy) -> None:
    """Whoever set it back on purpose says so; then everything is published anew."""
    publish = ("build", "alpha", "--publish", "store")
    assert built.flows(*publish)[0] == 0
    (built.folder / "store").rename(built.folder / "away")
    code, output = built.flows(*publish)
    assert code == 5 and "was rolled back" in output and "run `slm-registry forget alpha`" in output
    Registry(built.folder / "store").forget("alpha")
    assert built.flows(*publish)[0] == 0
    assert [row.version for row in Registry(built.folder / "store").list("alpha")] == ["1.0.0"]


def test_a_build_that_only_commits_has_nothing_to_do_once_it_has(connected: Toy) -> None:
    asked = ("build", "alpha", "--commit", "HEAD")
    assert connected.flows(*asked)[0] == 0
    code, output = connected.flows(*asked)
    assert code == 0 and "all 5 stages are up to date" in output
    (connected.folder / "dvc.lock").write_text((connected.folder / "dvc.lock").read_text() + "\n")
    code, output = connected.flows(*asked)
    assert code == 0 and "dvc.lock: committed as" in output


def test_a_receipt_that_is_damaged_or_of_another_request_counts_for_nothing(built: Toy) -> None:
    publish = ("build", "alpha", "--publish", "store")
    assert built.flows(*publish)[0] == 0
    (receipt,) = (built.folder / ".dvc" / "tmp" / "slm-factory").glob("alpha.*.json")
    whole = json.loads(receipt.read_text())
    receipt.write_text(receipt.read_text()[:-20])
    assert built.flows(*publish)[0] == 0
    assert json.loads(receipt.read_text()) == whole | {"publication": whole["publication"] | {"created": False}}
    assert built.flows(*publish, "--alias", "staging")[0] == 0
    assert Registry(built.folder / "store").list("alpha")[0].aliases == ("candidate", "staging")


def test_what_cannot_be_committed_fails_before_any_work(connected: Toy) -> None:
    connected.change("alpha", "gate", "max_bytes", 7)
    code, output = connected.flows(*ALL)
    assert code == 2
    assert (
        "HistoryError: params.yaml: changed and not committed; what is built now could not be built again from a commit"
        in output
    )
    assert connected.ran() == [] and not (connected.folder / "store").exists()
    code, output = connected.flows("build", "alpha", "--push", "origin")
    assert code == 2 and "a git remote is named and nothing is committed" in output


def test_a_remote_that_does_not_answer_ends_it_before_the_record_is_committed(connected: Toy, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    connected.dvc("remote", "modify", "storage", "url", str(tmp_path / "file" / "remote"))
    run(["git", "-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "-qam", "elsewhere"], connected.folder)
    code, output = connected.flows(*ALL)
    assert code in (6, 7), output
    assert git(connected, "log", "-1", "--format=%s") == "elsewhere"
    assert not (connected.folder / "store").exists()


def test_a_second_build_of_a_model_is_skipped_and_says_so(built: Toy) -> None:
    built.behave("gate", "sleep 60")
    built.change("alpha", "gate", "max_bytes", 9)
    first = built.start("build", "alpha")
    try:
        wait_for(lambda: any("nap of" in " ".join(one.cmdline()) for one in built.processes()), 60)
        code, output = built.flows("build", "alpha", "--publish", "store")
        assert code == 7
        assert "Busy: another build of alpha goes on here, so this one is skipped" in output
        assert f"process {first.pid} is" in output
        built.change("beta", "gate", "max_bytes", 9)
        code, output = built.flows("build", "beta")
        assert code == 0, output
        assert built.ran("beta")[-1:] == ["gate"], "another model is built meanwhile"
    finally:
        first.terminate()
        first.communicate(timeout=60)


def test_a_remote_of_dvcs_that_is_added_later_gets_its_files_and_a_commit_that_was_undone_is_made_again(
    connected: Toy, tmp_path: Path
) -> None:
    connected.dvc("remote", "remove", "storage")
    git(connected, "-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "-qam", "no remote")
    assert connected.flows(*ALL)[0] == 0
    connected.dvc("remote", "add", "-d", "storage", str(tmp_path / "remote"))
    git(connected, "-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "-qam", "a remote again")
    code, output = connected.flows(*ALL)
    assert code == 0 and "files sent, all" in output
    git(connected, "rm", "-q", "--cached", "dvc.lock")
    git(connected, "-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "-qm", "undone")
    code, output = connected.flows(*ALL)
    assert code == 0 and "dvc.lock: committed as" in output
