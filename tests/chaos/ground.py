"""Where builds are disturbed: a tiny project that was published once, and copies of it in which the data changed since."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from slm_registry import Registry

from tests.project import make_project, run

MODEL = "tiny"
#: What follows the gate, all of it but the push of the branch; addresses are relative, so that a copy has its own.
HANDED = ("--publish", "store", "--commit", "HEAD")
#: Files whose bytes a build promises; what else a version holds are measurements.
PROMISED = ("model.onnx", "tokenizer.json", "tokenizer_config.json", "config.json")
#: Seconds in which every process of a build that was ended, or lost its parent, must be gone.
ORPHAN_SECONDS = 10.0
_WHO = ("-c", "user.name=t", "-c", "user.email=t@example.org")


@dataclass(frozen=True)
class Place:
    """A copy: the project, with DVC's remote and the registry beside or in it."""

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def project(self) -> Path:
        """The project's folder."""
        return self.folder / "project"

    def start(self, *arguments: str, **variables: str) -> subprocess.Popen[str]:
        """Start `python -m flows ...` here, what it prints in `build.log`."""
        with (self.folder / "build.log").open("a", encoding="utf-8") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "flows", *arguments],
                cwd=self.project,
                env=self.variables() | variables,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )

    def variables(self) -> dict[str, str]:
        """The environment of a fresh shell that has activated the virtual environment."""
        return (
            os.environ
            | {
                "PYTHONPATH": f"{self.project}:{self.project / 'registry'}",
                "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
                "OMP_NUM_THREADS": "1",
                "PREFECT_HOME": str(self.folder / "prefect"),
                "SLM_FACTORY_CHECKPOINT_SECONDS": "0.1",
            }
            | self.environment
        )

    def build(self, **variables: str) -> int:
        """Build, publish and commit; the exit code."""
        return self.start("build", MODEL, *HANDED, **variables).wait()

    def said(self) -> str:
        """What builds printed here so far."""
        return (self.folder / "build.log").read_text(encoding="utf-8", errors="replace")

    def processes(self) -> list[psutil.Process]:
        """Every live process that works in the project."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.cwd() == str(self.project) and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
        return found

    def change(self, row: str) -> None:
        """A row more in the data, committed as a user would."""
        with (self.project / "data" / "tiny.csv").open("a", encoding="utf-8") as file:
            file.write(f"{row}\n")
        self.git("commit", "-qam", f"data: {row}")

    def git(self, *arguments: str) -> str:
        """What git prints."""
        command = ["git", *_WHO, *arguments]
        return subprocess.run(command, cwd=self.project, check=True, capture_output=True, text=True).stdout

    def registry(self) -> Registry:
        """The registry that builds here publish to."""
        return Registry(self.project / "store")


@dataclass(frozen=True)
class Ground:
    """The place that is copied, with version 1.0.0 built and a change committed since, and what an undisturbed build makes of that."""

    template: Place
    digests: dict[str, str]
    seconds: float

    def copy(self, folder: Path, **environment: str) -> Place:
        """A copy to disturb."""
        shutil.copytree(self.template.folder, folder, symlinks=True)
        return Place(folder, self.template.environment | environment)


def make_ground(folder: Path, environment: Mapping[str, str]) -> Ground:
    """Build once, change the data, and build a copy undisturbed."""
    place = Place(folder / "template", dict(environment))
    make_project(place.project)
    run(place.project, "dvc", "remote", "add", "-d", "storage", "../remote")
    place.git("commit", "-qam", "remote")
    _must(place.build() == 0, place, "the first build failed")
    place.change("where is my parcel chaos,parcel")
    ground = Ground(place, {}, 0.0)
    undisturbed = ground.copy(folder / "undisturbed")
    began = time.monotonic()
    _must(undisturbed.build() == 0, undisturbed, "the undisturbed build failed")
    made = Ground(place, promised(undisturbed.registry()), time.monotonic() - began)
    shutil.rmtree(undisturbed.folder)
    return made


def promised(registry: Registry, version: str = "1.0.1") -> dict[str, str]:
    """Digest of each promised file of a published version."""
    return {file.path: file.digest for file in registry.show(f"{MODEL}@{version}").files if file.path in PROMISED}


def check(ground: Ground, place: Place, registry: Registry | None = None) -> None:
    """Hold what stands at a place against the undisturbed build. Raises AssertionError."""
    found = registry or place.registry()
    rows = [(row.version, row.aliases) for row in found.list(MODEL)]
    _must(sorted(rows) == [("1.0.0", ()), ("1.0.1", ("candidate",))], place, f"published are {rows}")
    _must(promised(found) == ground.digests, place, "other bytes than those of the undisturbed build")
    builds = place.git("log", "--format=%s").splitlines().count(f"Build {MODEL}")
    _must(builds == 2, place, f"{builds} commits of builds")
    _must(place.git("status", "--porcelain") == "", place, "the work tree is not clean")
    left = [path.name for path in (place.project / "build").rglob("*") if path.suffix in (".checkpoints", ".partial")]
    _must(not left, place, f"left behind: {left}")
    _must(not place.processes(), place, f"processes: {place.processes()}")


def gone(place: Place, but: Sequence[int] = ()) -> float:
    """Seconds until no process of a build is left, but these. Raises AssertionError where some stay."""
    return wait(place, lambda: not [one for one in place.processes() if one.pid not in but], ORPHAN_SECONDS, "orphans")


def wait(place: Place, condition: Callable[[], object], seconds: float, what: str) -> float:
    """Seconds until a condition holds. Raises AssertionError where it does not in time."""
    began = time.monotonic()
    while not condition():
        _must(time.monotonic() - began < seconds, place, f"{what} after {seconds:.0f} s: {place.processes()}")
        time.sleep(0.02)
    return time.monotonic() - began


def _must(holds: bool, place: Place, what: str) -> None:
    if not holds:
        raise AssertionError(f"{place.folder}: {what}\n{place.said()[-4000:]}")
