"""`python -m flows reproduce NAME`: two builds from scratch of the committed project, and the digests of what they would publish."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from flows.errors import StageFailed
from flows.graph import make_plan
from pipelines.bundle import model_files, sha256_of
from pipelines.errors import RecipeError

#: (command, folder, environment) -> exit code.
Runner = Callable[[Sequence[str], Path, Mapping[str, str]], int]
#: The last stage whose output is the model itself; what follows measures it, and times differ from run to run.
LAST = "quantize"


def reproduce(root: Path, model: str) -> int:
    """Build twice and print both digests of every file; 0 where all agree, 1 where one does not.

    Raises RecipeError outside a git commit, StageFailed where a build fails.
    """
    if subprocess.run(
        ["git", "rev-parse", "--verify", "-q", "HEAD"], cwd=root, capture_output=True, check=False
    ).returncode:
        raise RecipeError(f"{root}: no commit to build from; commit first")
    with tempfile.TemporaryDirectory(prefix="reproduce-") as temporary:
        folders = [Path(temporary) / name for name in ("first", "second")]
        builds = [rebuilt(root, "HEAD", model, folder, _run) for folder in folders]
    same = builds[0] == builds[1]
    for name in sorted(builds[0] | builds[1]):
        one, two = (build.get(name, "absent") for build in builds)
        print(f"{'same  ' if one == two else 'DIFFER'} {name} {one}{'' if one == two else f' / {two}'}")
    print(f"{model}: two builds from scratch are {'byte for byte the same' if same else 'NOT the same'}")
    return 0 if same else 1


def rebuilt(root: Path, commit: str, model: str, folder: Path, run: Runner) -> dict[str, str]:
    """Digests of a model's files, every stage run anew up to the exported one in `folder`, a clone of a commit. The project may be a folder
    of the repository.

    Raises StageFailed where the clone or the build fails.
    """
    top, inner = (_git(root, "rev-parse", asked) for asked in ("--show-toplevel", "--show-prefix"))
    clone = ["git", "clone", "-q", "--no-hardlinks", "--no-checkout", top, str(folder)]
    for command in (clone, ["git", "-C", str(folder), "checkout", "-q", "--detach", commit]):
        if run(command, root, os.environ):
            raise StageFailed(model, "StageFailed", f"`{' '.join(command)}` failed; its message stands above")
    folder = folder / inner
    cache = root / ".dvc" / "cache"
    (folder / ".dvc" / "config.local").write_text(f"[cache]\n    dir = {cache}\n", encoding="utf-8")
    _check_out_data(folder, model, run)
    environment = os.environ | {"PYTHONPATH": f"{folder}{os.pathsep}{folder / 'registry'}"}
    # --force and --no-run-cache: nothing that was built before may stand in for a stage.
    command = [sys.executable, "-m", "dvc", "repro", "--force", "--no-run-cache", "--no-commit", f"{LAST}@{model}"]
    if run(command, folder, environment):
        raise StageFailed(f"{LAST}@{model}", "StageFailed", "the build from scratch failed; its messages stand above")
    return {path.name: sha256_of(path) for path in model_files(folder / "build" / model / "exported")}


def _git(root: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=True).stdout.strip()


def _check_out_data(folder: Path, model: str, run: Runner) -> None:
    """Put the data that .dvc files point to into a clone: from the cache, or from DVC's remote and the origins of imports."""
    pointers = [step.node.name for step in make_plan(folder, model).steps if not step.node.model]
    dvc = [sys.executable, "-m", "dvc"]
    if not pointers or not run([*dvc, "checkout", *pointers], folder, os.environ):
        return
    if run([*dvc, "pull", *pointers], folder, os.environ):
        raise StageFailed(
            model, "StageFailed", f"{', '.join(pointers)}: the data is not to be had; the reasons stand above"
        )


def _run(command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> int:
    return subprocess.run(command, cwd=folder, env=environment, check=False).returncode
