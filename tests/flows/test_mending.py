"""DVC's own files after a kill or a full disk: whatever is left of them, the next build goes on and runs nothing again."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flows import mending
from flows.mending import mend
from flows.receipt import FOLDER
from pipelines.errors import ResourceError
from tests.flows.toy import Toy, run

KEPT = FOLDER / "dvc.lock.damaged"


def commit(toy: Toy) -> None:
    run(["git", "add", "dvc.lock"], toy.folder)
    run(["git", "-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "-qm", "record"], toy.folder)


@pytest.mark.usefixtures("api")
@pytest.mark.parametrize("committed", [True, False])
def test_a_record_that_was_cut_short_costs_no_stage(built: Toy, committed: bool) -> None:
    record = built.folder / "dvc.lock"
    whole = record.read_bytes()
    if committed:
        commit(built)
    record.write_bytes(whole[: len(whole) // 2] + b"\n  x: [")
    code, output = built.flows("build", "alpha")
    assert code == 0, output
    assert "dvc.lock was cut short" in output
    assert built.ran() == []
    assert json.loads(built.dvc("status", "--json", "gate@alpha")) == {}
    assert (built.folder / KEPT).read_bytes().endswith(b"x: [")


def test_a_record_that_was_whole_at_the_last_look_is_not_read_again(
    built: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is remembered is the digest of what stood there: one that was cut short since is found."""
    assert mend(built.folder) == []
    record = built.folder / "dvc.lock"
    whole = record.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(mending, "_whole", lambda content: pytest.fail("it was read"))
        assert mend(built.folder) == []
    record.write_bytes(whole[: len(whole) // 2] + b"\n  x: [")
    assert len(mend(built.folder)) == 1


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_after_mending_dvc_can_read_any_beginning_of_it(built: Toy, data: st.DataObject) -> None:
    from dvc.schema import COMPILED_LOCKFILE_SCHEMA
    from dvc.utils.serialize import parse_yaml

    record = built.folder / "dvc.lock"
    source = built.folder.parent / "whole"
    whole = source.read_bytes() if source.exists() else record.read_bytes()
    source.write_bytes(whole)
    cut = data.draw(st.integers(0, len(whole)))
    record.write_bytes(whole[:cut])
    mend(built.folder)
    if record.exists():
        COMPILED_LOCKFILE_SCHEMA(parse_yaml(record.read_text(), str(record)))


def test_a_merge_that_nobody_finished_is_left_to_its_owner(built: Toy) -> None:
    record = built.folder / "dvc.lock"
    conflict = record.read_bytes().replace(b"stages:\n", b"<<<<<<< HEAD\nstages:\n", 1)
    record.write_bytes(conflict)
    assert mend(built.folder) == []
    assert record.read_bytes() == conflict


@pytest.fixture
def holders(built: Toy) -> Path:
    return built.folder / ".dvc" / "tmp" / "rwlock"


@pytest.mark.parametrize("content", ["", '{"write": {"a', "[]"])
def test_a_list_of_holders_that_was_cut_short_is_begun_anew(built: Toy, holders: Path, content: str) -> None:
    holders.write_text(content)
    assert mend(built.folder) == [f"{holders} was cut short: begun anew"]
    assert "up to date" in built.dvc("repro", "gate@alpha")


def test_a_number_that_another_program_has_got_holds_nothing(built: Toy, holders: Path) -> None:
    """After a restart of the machine numbers begin anew: DVC would wait for a program that has nothing to do with it."""
    other = subprocess.Popen(["sleep", "60"])
    try:
        mine = {"pid": os.getpid(), "cmd": "dvc repro"}
        stranger = {"pid": other.pid, "cmd": "dvc repro"}
        out = str(built.folder / "build" / "alpha" / "gate.json")
        holders.write_text(json.dumps({"write": {out: stranger, "b": mine}, "read": {"c": [stranger, mine]}}))
        assert mend(built.folder) == [f"{holders}: {other.pid} held locks and are no processes of DVC's any more"]
        assert json.loads(holders.read_text()) == {"write": {"b": mine}, "read": {"c": [mine]}}
        assert mend(built.folder) == []
    finally:
        other.kill()
        other.wait()


def test_remains_of_a_record_of_a_run_stop_no_stage(built: Toy) -> None:
    """Where nothing but a piece of a file, or nothing, stands under a stage's key, DVC itself fails at it for ever."""
    for number, key in enumerate(sorted((built.folder / ".dvc" / "cache" / "runs").glob("*/*/"))):
        for record in key.iterdir():
            record.unlink()
        if number % 2:
            (key / ".piece.tmp").write_text("cmd: py")
    (built.folder / "dvc.lock").unlink()
    shutil.rmtree(built.folder / "build")
    with pytest.raises(AssertionError, match="ERROR"):
        built.dvc("repro", "--single-item", "validate@alpha")
    (said,) = mend(built.folder)
    assert "remains of records that were being written" in said
    built.dvc("repro", "gate@alpha")
    assert mend(built.folder) == []


def test_a_disk_that_refuses_is_named(built: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    (built.folder / "dvc.lock").write_text("x: [")
    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(ResourceError, match=r"cannot be mended: .*No space left"):
        mend(built.folder)
