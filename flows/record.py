"""What the registry keeps beside a published model: enough to build the same model again, and to tell that it is the same."""

from __future__ import annotations

import hashlib
import json
import subprocess
from pathlib import Path
from typing import Any

import yaml

from flows.errors import PublishError

BUNDLE_RECORD = "lineage.json"


def lineage(root: Path, model: str, bundle: Path, metrics: Path, commit: str | None = None) -> dict[str, Any]:
    """The record of one built model; `commit` is the one that holds dvc.lock, where a build has made it.

    Raises PublishError where the bundle does not say which data, teacher and environment it came from.
    """
    made = made_from(bundle)
    return {
        "git": {"commit": commit, "dirty": False} if commit else git_state(root),
        "dvc_lock_sha256": _sha256(root / "dvc.lock"),
        "recipe": recipe_block(root, model),
        "data_sha256": made["data_sha256"],
        "teacher": made["teacher"],
        "bundle": made,
        "metrics": read_json(metrics),
        "environment": made["environment"],
    }


def read_json(path: Path) -> Any:
    """A JSON file; PublishError where it is missing or broken."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise PublishError(f"{path}: cannot be read as JSON ({error}); `dvc repro` makes it again") from error


def recipe_block(root: Path, model: str) -> Any:
    """The model's block of params.yaml, as written."""
    path = root / "params.yaml"
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))["models"][model]
    except (OSError, KeyError, TypeError, yaml.YAMLError) as error:
        raise PublishError(f"{path}: no recipe of model {model!r}") from error


def git_state(root: Path) -> dict[str, Any]:
    """Commit, and whether the work tree differs from it; both null outside git or before the first commit.

    DVC's locks are left out of the comparison: a build has just written them, and the project's own has its digest in the record.
    """
    commit = _git(root, "rev-parse", "--verify", "--quiet", "HEAD")
    if not commit:
        return {"commit": None, "dirty": None}
    return {
        "commit": commit,
        "dirty": bool(_git(root, "status", "--porcelain", "--", ".", ":(exclude,glob)**/dvc.lock")),
    }


def made_from(bundle: Path) -> dict[str, Any]:
    """What a bundle says of its origin; PublishError where that is incomplete."""
    path = bundle / BUNDLE_RECORD
    made = read_json(path)
    missing = [
        key for key in ("data_sha256", "teacher", "environment") if not isinstance(made, dict) or not made.get(key)
    ]
    if missing:
        raise PublishError(
            f"{path}: {' and '.join(missing)} missing; a model without a record of its origin is not published"
        )
    record: dict[str, Any] = made
    return record


def _git(root: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
