"""One stage through DVC, without Prefect: locks, and what becomes of a stage that is stopped."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from flows import child
from flows.errors import Locked
from flows.graph import Node, make_plan
from flows.stage import reproduce, stage_task
from tests.flows.toy import Toy, environment

REPO_LOCK = (
    "from dvc.repo import Repo, lock_repo\nwith Repo() as r, lock_repo(r): print('held', flush=True); time.sleep({})"
)
STAGE_LOCK = """from dvc.repo import Repo
from dvc.rwlock import rwlock
with Repo() as r, rwlock(r.tmp_dir, r.fs, 'another build', [], [r.root_dir + '/build/alpha/gate.json'], False):
    print('held', flush=True); time.sleep({})"""


def gate_of(toy: Toy) -> Node:
    return next(step.node for step in make_plan(toy.folder, "alpha").steps if step.node.stage == "gate")


@contextmanager
def held(toy: Toy, code: str, seconds: int) -> Iterator[None]:
    """Another process holds one of DVC's locks."""
    command = [sys.executable, "-c", "import time\n" + code.format(seconds)]
    holder = subprocess.Popen(command, cwd=toy.folder, env=environment(), stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    try:
        yield
    finally:
        holder.kill()
        holder.communicate()


def test_a_held_repository_is_waited_for(built: Toy) -> None:
    built.change("alpha", "gate", "max_bytes", 5)
    node = gate_of(built)
    with held(built, REPO_LOCK, 5):  # longer than DVC waits by itself
        assert reproduce(node, built.folder, threading.Event(), print)[0] == "built"


def test_a_stage_that_another_process_writes_is_locked(built: Toy) -> None:
    built.change("alpha", "gate", "max_bytes", 5)
    node = gate_of(built)
    with held(built, STAGE_LOCK, 60), pytest.raises(Locked, match="is busy, it is being blocked by"):
        reproduce(node, built.folder, threading.Event(), print)


def test_a_stopped_stage_leaves_dvc_usable(built: Toy) -> None:
    built.behave("gate", "sleep 60")
    built.change("alpha", "gate", "max_bytes", 5)
    stop, node = threading.Event(), gate_of(built)
    lines: list[str] = []

    def show(line: str) -> None:
        lines.append(line)
        if "sleeps" in line:
            stop.set()

    with pytest.raises(child.Stopped):
        reproduce(node, built.folder, stop, show)
    assert built.processes() == []
    assert "Running stage 'gate@alpha':" in lines
    assert [str(reason) for reason in make_plan(built.folder, "alpha").stale[0].reasons][-1].startswith(
        "output missing"
    )
    built.behave("gate", "")
    assert reproduce(node, built.folder, threading.Event(), print)[0] == "built"


def test_a_task_is_named_as_its_stage() -> None:
    task = stage_task(Node("distill@support-intents", "Train", (), (), (), False, False))
    assert (task.name, task.task_run_name, task.description) == ("distill", "distill · support-intents", "Train")
    assert stage_task(Node("data/x.csv.dvc", "", (), (), (), False, False)).task_run_name == "data/x.csv.dvc"
