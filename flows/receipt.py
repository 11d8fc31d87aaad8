"""What the last build of a model ended with, kept on this machine, so that the next one sees that nothing is left to do.

It lies beside DVC's own notes of this machine (`.dvc/tmp`). Without it a build does again what is done, which changes nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from flows.graph import Plan, repository_lock
from flows.lockfile import text_of_stages
from flows.publication import Publication
from pipelines.bundle import write_json

FOLDER = Path(".dvc") / "tmp" / "slm-factory"


@dataclass(frozen=True)
class Receipt:
    """A build that ended well: what was asked of it, the digest of its stages' records, what was published where that was asked for."""

    asked: dict[str, Any]
    record: str
    publication: Publication | None


def read_receipt(root: Path, model: str, asked: Mapping[str, Any], plan: Plan) -> Receipt | None:
    """The receipt of a build that was asked for the same and left the same record; None where there is none, or it cannot be read."""
    try:
        found = json.loads(_place(root, model, asked).read_text(encoding="utf-8"))
        published = found["publication"]
        receipt = Receipt(found["asked"], found["record"], Publication(**published) if published else None)
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return receipt if (receipt.asked, receipt.record) == (dict(asked), record_of(root, plan)) else None


def write_receipt(
    root: Path, model: str, asked: Mapping[str, Any], record: str, publication: Publication | None
) -> None:
    """Write it, whole or not at all. `record` is `record_of` as it was before the hand-over."""
    place = _place(root, model, asked)
    place.parent.mkdir(parents=True, exist_ok=True)
    draft = place.with_suffix(".partial")
    write_json(draft, asdict(Receipt(dict(asked), record, publication)))
    draft.replace(place)


def record_of(root: Path, plan: Plan) -> str:
    """Digest of what dvc.lock holds of these stages."""
    names = sorted(step.node.name for step in plan.steps)
    with repository_lock(root):
        text = text_of_stages(root / "dvc.lock", names.__contains__)
    held = yaml.load(text, yaml.CSafeLoader).get("stages", {})
    return hashlib.sha256(json.dumps([(name, held.get(name)) for name in names], sort_keys=True).encode()).hexdigest()


def _place(root: Path, model: str, asked: Mapping[str, Any]) -> Path:
    """One for each request: a build for another alias must not make this one's look undone, or its alias would be moved again."""
    return root / FOLDER / f"{model}.{hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:12]}.json"
