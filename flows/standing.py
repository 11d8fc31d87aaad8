"""Whether a build has nothing to do: nothing is stale, and what was asked for was handed over and stands. Without Prefect: it takes longer to start."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from flows.graph import Plan
from flows.history import holds_record
from flows.publication import Publication, as_it_stands
from flows.receipt import FOLDER, read_receipt
from flows.remote import default_remote
from flows.transcript import Used

#: The state of what had nothing to do.
UP_TO_DATE = "Up to date"


@dataclass(frozen=True)
class Handing:
    """Where a finished build goes: the registry and its alias, the branch that its record is committed to, the git remote of that."""

    publish: str | None
    alias: str
    commit: str | None
    push: str | None

    def asked(self, root: Path) -> dict[str, str | None]:
        """All that a hand-over goes to: what was asked for, and DVC's remote."""
        return asdict(self) | {"remote": default_remote(root)}


#: Of a build that ends before there is something to hand over.
NOWHERE = Handing(None, "", None, None)


@dataclass(frozen=True)
class BuildResult:
    """What a finished build leaves: each stage's outcome, and where its metrics and its report lie."""

    model: str
    outcomes: dict[str, str]
    #: What the stages took that ran.
    used: dict[str, Used]
    metrics: Path | None
    report: Path | None
    publication: Publication | None


def lock_of_build(root: Path, model: str) -> Path:
    """What a build of this model holds (pipelines/alone.py) while it mends, plans and works, so that there is one at a time in a project."""
    return root / FOLDER / f"{model}.build"


def standing(root: Path, model: str, to: Handing, plan: Plan) -> BuildResult | None:
    """What a build leaves that has nothing to do; None where there is something. Raises slm_registry's StoreError where the store does not answer."""
    if plan.stale:
        return None
    found = None
    if to.publish or to.commit or to.push:
        receipt = read_receipt(root, model, to.asked(root), plan)
        if receipt is None or (to.commit and not holds_record(root, to.commit)):
            return None
        if to.publish:
            found = as_it_stands(receipt.publication) if receipt.publication else None
            if found is None:
                return None
    outcomes = {step.node.name: UP_TO_DATE for step in plan.steps}
    return BuildResult(model, outcomes, {}, plan.metrics_file(), plan.find("report.html"), found)
