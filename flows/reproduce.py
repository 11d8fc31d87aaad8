"""`python -m flows reproduce NAME`: two builds from scratch of the committed project, and the digests of what they would publish."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from flows.errors import StageFailed
from pipelines.bundle import model_files, sha256_of
from pipelines.errors import RecipeError

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
        builds = [_digests(root, Path(temporary) / name, model) for name in ("first", "second")]
    same = builds[0] == builds[1]
    for name in sorted(builds[0] | builds[1]):
        one, two = (build.get(name, "absent") for build in builds)
        print(f"{'same  ' if one == two else 'DIFFER'} {name} {one}{'' if one == two else f' / {two}'}")
    print(f"{model}: two builds from scratch are {'byte for byte the same' if same else 'NOT the same'}")
    return 0 if same else 1


def _digests(root: Path, folder: Path, model: str) -> dict[str, str]:
    """Clone HEAD, build every stage anew up to the exported file, hash the files."""
    subprocess.run(["git", "clone", "-q", "--no-hardlinks", str(root), str(folder)], check=True)
    cache = root / ".dvc" / "cache"
    (folder / ".dvc" / "config.local").write_text(f"[cache]\n    dir = {cache}\n", encoding="utf-8")
    environment = os.environ | {"PYTHONPATH": f"{folder}{os.pathsep}{folder / 'registry'}"}
    # --force and --no-run-cache: nothing that was built before may stand in for a stage.
    command = [sys.executable, "-m", "dvc", "repro", "--force", "--no-run-cache", "--no-commit", f"{LAST}@{model}"]
    if subprocess.run(command, cwd=folder, env=environment, check=False).returncode:
        raise StageFailed(f"{LAST}@{model}", "StageFailed", "the build from scratch failed; its messages stand above")
    return {path.name: sha256_of(path) for path in model_files(folder / "build" / model / "exported")}
