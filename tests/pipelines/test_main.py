"""The stages' command line in real processes: interruption, a full disk, a read-only place, wrong options."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.project import make_project, run

TEACH = ("--clean", "build/data", "--teacher", "build/teacher", "--curve", "build/teach.csv")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny project after `validate`, its teacher set to train for very long."""
    project = make_project(
        tmp_path_factory.mktemp("main") / "project", teach__training__epochs=1000, teach__training__patience=1000
    )
    options = ("--source", "data/tiny.csv", "--clean", "build/data", "--report", "build/report")
    run(project, "pipelines", "validate", "tiny", *options)
    return project


def start(project: Path) -> subprocess.Popen[str]:
    """A teacher in training, past its first epoch."""
    env = os.environ | {"PYTHONPATH": f"{project}:{project / 'registry'}", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pipelines", "teach", "tiny", *TEACH]
    process = subprocess.Popen(command, cwd=project, env=env, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    for line in process.stderr:
        if "epoch 2:" in line:
            return process
    raise AssertionError("training ended before its second epoch")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_stage_leaves_nothing_in_place(project: Path, number: signal.Signals) -> None:
    process = start(project)
    time.sleep(0.2)
    process.send_signal(number)
    _, tail = process.communicate(timeout=60)
    assert process.returncode == {signal.SIGTERM: 143, signal.SIGINT: 130, signal.SIGKILL: -9}[number]
    assert not (project / "build" / "teacher").exists()
    assert not (project / "build" / "teach.csv").exists()
    assert "Traceback" not in tail
    if number != signal.SIGKILL:
        assert not list((project / "build").glob("*.partial"))


def test_the_run_after_an_interruption_starts_clean(project: Path) -> None:
    rubbish = project / "build" / "teacher.partial"
    rubbish.mkdir(exist_ok=True)
    (rubbish / "half-written.bin").write_bytes(b"x")
    params = (project / "params.yaml").read_text()
    try:
        (project / "params.yaml").write_text(params.replace("epochs: 1000", "epochs: 1"))
        run(project, "pipelines", "teach", "tiny", *TEACH)
    finally:
        (project / "params.yaml").write_text(params)
    assert not list((project / "build").glob("*.partial"))
    assert not (project / "build" / "teacher" / "half-written.bin").exists()
    for path in (project / "build" / "teacher").iterdir():
        path.unlink()
    (project / "build" / "teacher").rmdir()
    (project / "build" / "teach.csv").unlink()


def test_a_second_trainer_is_told_of_the_first(project: Path) -> None:
    first = start(project)
    try:
        second = run(project, "pipelines", "teach", "tiny", *TEACH, check=False)
    finally:
        first.kill()
        first.communicate(timeout=60)
    assert second.returncode == 7
    assert f"TransientError: build/teacher: process {first.pid} is writing it" in second.stderr


def test_a_killed_stage_goes_on_and_ends_at_the_same_bytes(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each batch is kept, so that the one that is killed is killed after some of them."""
    monkeypatch.setenv("SLM_FACTORY_CHECKPOINT_SECONDS", "0")
    params, build = (project / "params.yaml").read_text(), project / "build"
    try:
        (project / "params.yaml").write_text(params.replace("epochs: 1000", "epochs: 8"))
        first = start(project)
        first.kill()
        first.communicate(timeout=60)
        resumed = run(project, "pipelines", "teach", "tiny", *TEACH)
        made = [(build / name).read_bytes() for name in ("teacher/model.safetensors", "teach.csv")]
        run(project, "pipelines", "teach", "tiny", *TEACH)
        undisturbed = [(build / name).read_bytes() for name in ("teacher/model.safetensors", "teach.csv")]
    finally:
        (project / "params.yaml").write_text(params)
        shutil.rmtree(build / "teacher", ignore_errors=True)
        (build / "teach.csv").unlink(missing_ok=True)
    assert re.search(r"teach: goes on, [1-9]\d* steps done", resumed.stderr)
    assert made == undisturbed
    assert not (build / "teacher.checkpoints").exists() and not (build / "teacher.lock").exists()


def test_a_full_disk_is_one_clear_error(project: Path) -> None:
    small = project / "small"
    small.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(small)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("needs the right to mount a small tmpfs")
    params = (project / "params.yaml").read_text()
    try:
        (project / "params.yaml").write_text(params.replace("epochs: 1000", "epochs: 1"))
        options = ("--clean", "build/data", "--teacher", "small/teacher", "--curve", "small/teach.csv")
        done = run(project, "pipelines", "teach", "tiny", *options, check=False)
    finally:
        (project / "params.yaml").write_text(params)
        left = list(small.iterdir())
        subprocess.run(["umount", str(small)], check=True)
    assert done.returncode == 6
    assert "ResourceError: " in done.stderr
    assert "No space left on device; free space or mend permissions" in done.stderr
    assert "Traceback" not in done.stderr
    assert left == []


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("teach", "nope", *TEACH), 2, "RecipeError: params.yaml: no model 'nope'"),
        (("teach", "tiny", "--clean", "build/data"), 2, "the following arguments are required: --teacher, --curve"),
        (("polish", "tiny"), 2, "invalid choice: 'polish'"),
        (
            ("label", "tiny", "--clean", "build/data", "--teacher", "none", "--signals", "build/s"),
            4,
            "ModelError: none: no such folder",
        ),
        (
            ("teach", "tiny", "--clean", "nowhere", "--teacher", "build/t", "--curve", "build/c.csv"),
            3,
            "DataError: nowhere",
        ),
    ],
)
def test_wrong_input_is_one_line_and_a_code(project: Path, arguments: tuple[str, ...], code: int, message: str) -> None:
    done = run(project, "pipelines", *arguments, check=False)
    assert done.returncode == code
    assert message in done.stderr
    assert "Traceback" not in done.stderr
