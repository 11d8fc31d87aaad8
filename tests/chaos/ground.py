"""Where builds are disturbed: a project that was published once, and copies of it in which something changed since."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import yaml
from slm_registry import Registry

from tests.flows.toy import REPOSITORY, make_toy
from tests.project import make_project

#: What follows the gate, all of it but the push of the branch; the address is relative, so that a copy has its own.
HANDED = ("--publish", "store", "--commit", "HEAD")
#: Seconds in which every process of a build that was ended, or lost its parent, must be gone.
ORPHAN_SECONDS = 10.0
_WHO = ("-c", "user.name=t", "-c", "user.email=t@example.org")


@dataclass(frozen=True)
class Kind:
    """A project to disturb: how it is made and changed, and what of its model must come out the same."""

    model: str
    make: Callable[[Path], object]
    change: Callable[[Path], None]
    #: Files whose bytes a build promises; what else a version holds are measurements.
    promised: tuple[str, ...]
    #: How the command of a stage's process begins, after Python.
    stage: tuple[str, ...]


def _make_toy(folder: Path) -> None:
    """Stages that do nothing for a while: for what happens to the flow, to DVC and to Prefect they are as good as any."""
    toy = make_toy(folder)
    for stage in ("teach", "label", "evaluate"):
        toy.behave(stage, "sleep 0.7")


def _change_toy(folder: Path) -> None:
    with (folder / "data" / "alpha.csv").open("a", encoding="utf-8") as file:
        file.write("more,x\n")


def _change_tiny(folder: Path) -> None:
    place = folder / "params.yaml"
    params = yaml.safe_load(place.read_text(encoding="utf-8"))
    block = params["models"]["tiny"]
    block["label"]["batch_size"] = 16
    block["distill"]["training"]["epochs"] += 22
    block["prune"]["recovery"]["epochs"] += 26
    place.write_text(yaml.safe_dump(params), encoding="utf-8")


TOY = Kind("alpha", _make_toy, _change_toy, ("tokenizer.json", "config.json"), ("tool.py",))
#: The real chain, from labelling on.
TINY = Kind(
    "tiny",
    make_project,
    _change_tiny,
    ("model.onnx", "tokenizer.json", "tokenizer_config.json", "config.json"),
    ("-m", "pipelines"),
)


@dataclass(frozen=True)
class Place:
    """A copy: the project, with DVC's remote and the registry beside or in it."""

    kind: Kind
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
                "PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'registry'}",
                "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
                "OMP_NUM_THREADS": "1",
                "PREFECT_HOME": str(self.folder / "prefect"),
                "SLM_FACTORY_CHECKPOINT_SECONDS": "0.1",
            }
            | self.environment
        )

    def build(self, **variables: str) -> int:
        """Build, publish and commit; the exit code."""
        return self.start("build", self.kind.model, *HANDED, **variables).wait()

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

    def git(self, *arguments: str) -> str:
        """What git prints."""
        command = ["git", *_WHO, *arguments]
        return subprocess.run(command, cwd=self.project, check=True, capture_output=True, text=True).stdout

    def dvc(self, *arguments: str) -> None:
        """Run DVC."""
        command = [sys.executable, "-m", "dvc", *arguments]
        subprocess.run(command, cwd=self.project, env=self.variables(), check=True, capture_output=True)

    def running(self, *words: str) -> list[psutil.Process]:
        """Processes of this project whose command begins with these words, after Python."""
        found = []
        for process in self.processes():
            with suppress(psutil.NoSuchProcess):
                if process.cmdline()[1 : 1 + len(words)] == list(words):
                    found.append(process)
        return found

    def registry(self) -> Registry:
        """The registry that builds here publish to."""
        return Registry(self.project / "store")


@dataclass(frozen=True)
class Ground:
    """The place that is copied, with version 1.0.0 built and a change committed since, and what an undisturbed build makes of that."""

    template: Place
    digests: dict[str, str]
    seconds: float

    @property
    def kind(self) -> Kind:
        """What was built."""
        return self.template.kind

    def copy(self, folder: Path, **environment: str) -> Place:
        """A copy to disturb."""
        shutil.copytree(self.template.folder, folder, symlinks=True)
        return Place(self.kind, folder, self.template.environment | environment)


def make_ground(kind: Kind, folder: Path, environment: Mapping[str, str]) -> Ground:
    """Build once, change something, and build a copy undisturbed."""
    place = Place(kind, folder / "template", dict(environment))
    kind.make(place.project)
    place.dvc("remote", "add", "-d", "storage", "../remote")
    place.git("commit", "-qam", "remote")
    _must(place.build() == 0, place, "the first build failed")
    kind.change(place.project)
    place.git("commit", "-qam", "change")
    ground = Ground(place, {}, 0.0)
    undisturbed = ground.copy(folder / "undisturbed")
    began = time.monotonic()
    _must(undisturbed.build() == 0, undisturbed, "the undisturbed build failed")
    made = Ground(place, promised(kind, undisturbed.registry()), time.monotonic() - began)
    _must(made.digests != promised(kind, undisturbed.registry(), "1.0.0"), place, "the change changed nothing")
    shutil.rmtree(undisturbed.folder)
    return made


def promised(kind: Kind, registry: Registry, version: str = "1.0.1") -> dict[str, str]:
    """Digest of each promised file of a published version."""
    files = registry.show(f"{kind.model}@{version}").files
    return {file.path: file.digest for file in files if file.path in kind.promised}


def check(ground: Ground, place: Place, registry: Registry | None = None) -> None:
    """Hold what stands at a place against the undisturbed build. Raises AssertionError."""
    found = registry or place.registry()
    rows = [(row.version, row.aliases) for row in found.list(ground.kind.model)]
    _must(sorted(rows) == [("1.0.0", ()), ("1.0.1", ("candidate",))], place, f"published are {rows}")
    _must(promised(ground.kind, found) == ground.digests, place, "other bytes than those of the undisturbed build")
    builds = place.git("log", "--format=%s").splitlines().count(f"Build {ground.kind.model}")
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
