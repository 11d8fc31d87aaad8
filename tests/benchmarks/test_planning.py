"""The plan of one model among many: a small project of them, as the benchmark makes it."""

from __future__ import annotations

from pathlib import Path

import yaml
from dvc.schema import COMPILED_LOCKFILE_SCHEMA

from benchmarks.planning import FIRST, make_project, measured, record_all, table
from flows.graph import NEVER_RUN, make_plan


def test_all_of_them_are_on_record(tmp_path: Path) -> None:
    make_project(tmp_path / "many", 3)
    assert all(NEVER_RUN in step.reasons for step in make_plan(tmp_path / "many", FIRST).steps)
    record_all(tmp_path / "many", 3)
    record = COMPILED_LOCKFILE_SCHEMA(yaml.safe_load((tmp_path / "many" / "dvc.lock").read_text()))
    assert {name.partition("@")[2] for name in record["stages"]} == {"model-0", "model-1", "model-2"}
    steps = make_plan(tmp_path / "many", FIRST).steps
    assert {step.node.name for step in steps} == {name for name in record["stages"] if name.endswith("-0")}
    assert not any(reason.kind in ("never run", "parameter changed") for step in steps for reason in step.reasons)


def test_each_is_timed(tmp_path: Path) -> None:
    found = measured(tmp_path / "many", 2)
    assert set(found) == {"new", "built", "status"}
    assert f"| 2 | {found['new']:.1f} | {found['built']:.1f} | {found['status']:.1f} |" in table({2: found}, "")
