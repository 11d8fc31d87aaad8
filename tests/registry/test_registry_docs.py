"""docs/registry.md: its commands and its Python run as they stand there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from slm_registry import errors

from tests.registry.generators import STORY, make_reciter
from tests.registry.helpers import REPOSITORY, make_bundle

PAGE = (REPOSITORY / "docs" / "registry.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture
def desk(tmp_path: Path) -> Path:
    """A folder with two bundles, a storyteller and a policy in it, and a slm-registry on the path."""
    for number, name in enumerate(("bundle", "bundle-2"), start=1):
        made = make_bundle(tmp_path / name, weight=float(number))
        (made / "metrics.json").write_text('{"accuracy": 0.9}')
    make_reciter(tmp_path / "storyteller")
    (tmp_path / "gate.yaml").write_text("accuracy: '>= 0.8'\n")
    (tmp_path / "bin").mkdir()
    script = tmp_path / "bin" / "slm-registry"
    script.write_text(f'#!/bin/sh\nexec {sys.executable} -m slm_registry "$@"\n')
    script.chmod(0o755)
    return tmp_path


def run(desk: Path, *command: str) -> str:
    environment = {
        "PATH": f"{desk / 'bin'}:/usr/bin:/bin",
        "HOME": str(desk / "home"),
        "PYTHONPATH": str(REPOSITORY / "registry"),
    }
    done = subprocess.run(command, capture_output=True, text=True, cwd=desk, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_commands_and_then_the_python(desk: Path) -> None:
    commands = [line[2:] for block in blocks("console") for line in block.splitlines()]
    assert len(commands) >= 8
    printed = run(desk, "sh", "-ec", "\n".join(commands))
    assert "delivery" in printed
    assert "nightly build" in printed
    assert "exit code 5\n" in printed
    assert STORY[9:24] in printed
    said = run(desk, sys.executable, "-c", "\n".join(blocks("python")))
    assert said.startswith("delivery 0.9")
    assert f"{STORY[9:].partition('end')[0]} stop" in said or " length 20" in said


def test_the_table_of_exit_codes() -> None:
    for name, kind in vars(errors).items():
        if isinstance(kind, type) and issubclass(kind, errors.RegistryError) and kind is not errors.RegistryError:
            row = next(line for line in PAGE.splitlines() if line.startswith("|") and f"`{name}`" in line)
            assert row.startswith(f"| {kind.exit_code} |")
