"""The flow that holds what a served classifier reads and answers today against what it was measured on, and has it built again."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger
from prefect.artifacts import create_table_artifact
from prefect.states import Completed, Failed, State
from slm_registry import Registry
from slm_registry.errors import RegistryError

from flows import child
from flows.artifacts import key_for
from flows.console import without_tracebacks
from flows.errors import FlowError
from flows.starting import start_once
from pipelines.drift import Moved, moved, read_log, read_reference
from pipelines.errors import FactoryError

STEADY, DRIFTED, FEW = "Steady", "Drifted", "Too few"


@dataclass(frozen=True)
class Watched:
    """A served version, how many predictions of it were looked at, what moved, and the name of the build that was asked for."""

    model: str
    version: str
    digest: str
    rows: int
    features: list[Moved]
    build: str | None

    @property
    def drifted(self) -> list[Moved]:
        """The features that are not what they were."""
        return [feature for feature in self.features if feature.drifted]


@flow(name="monitor", flow_run_name="monitor · {model}@{alias}")  # type: ignore[untyped-decorator]  # Prefect is not followed by mypy
def monitor(
    model: str,
    registry: str,
    log: str,
    alias: str = "production",
    rows: int = 1000,
    least: int = 200,
    psi: float = 0.2,
    p_value: float = 0.01,
    build: str | None = None,
) -> State[Any]:
    """Hold the newest predictions of a served classifier against its evaluation; has its inputs or its answers drifted?

    Args:
        model: Name of the published model.
        registry: Registry that it is served from, a folder or s3://BUCKET/PREFIX.
        log: What `slm-registry serve --log FILE` writes.
        alias: Alias, or version, that is served.
        rows: How many of the newest predictions of that version are looked at.
        least: With fewer nothing is said.
        psi: Population stability index from which a feature counts as moved; 0.1 is a small change and 0.25 a large one.
        p_value: And chance explains it with less than this, over all features.
        build: Deployment that is started once for a version that drifted, such as build/support-intents. Empty: none.
    """
    try:
        with child.ends_with_its_worker(), without_tracebacks(FlowError, FactoryError, RegistryError):
            return _monitor(Registry(registry), f"{model}@{alias}", Path(log), (rows, least), (psi, p_value), build)
    except (FlowError, FactoryError, RegistryError) as error:
        return Failed(message=f"{type(error).__name__}: {error}", data=error)


def _monitor(
    registry: Registry, ref: str, log: Path, sizes: tuple[int, int], bounds: tuple[float, float], build: str | None
) -> State[Any]:
    found, folder = registry.fetch(ref)
    reference, (rows, least) = read_reference(folder), sizes
    now = read_log(log, found.digest, rows)
    what = f"{found.model} {found.version}, {now.rows} predictions"
    if now.rows < least:
        watched = Watched(found.model, found.version, found.digest, now.rows, [], None)
        return Completed(name=FEW, message=f"{what}: {least} are needed", data=watched)
    features = moved(reference, now, *bounds)
    _show(found.model, what, features)
    drifted = ", ".join(f"{one.feature} (PSI {one.psi:.2f})" for one in features if one.drifted)
    started = start_once(build, f"drift-{found.digest}") if drifted and build else None
    watched = Watched(found.model, found.version, found.digest, now.rows, features, started)
    if not drifted:
        return Completed(name=STEADY, message=f"{what}: as when it was measured", data=watched)
    asked = f"; {build} was started as {started}" if started else ""
    return Completed(name=DRIFTED, message=f"{what}: {drifted} drifted{asked}", data=watched)


def _show(model: str, what: str, features: list[Moved]) -> None:
    rows = [
        {
            "feature": one.feature,
            "median when measured": "" if one.then is None else round(one.then, 3),
            "median now": "" if one.now is None else round(one.now, 3),
            "PSI": round(one.psi, 3),
            "p": f"{one.p_value:.2g}",
            "drifted": "yes" if one.drifted else "no",
        }
        for one in features
    ]
    create_table_artifact(rows, key=key_for("drift", model), description=f"Drift of {what}, beside its evaluation")
    for row in rows:
        get_run_logger(model=model).info("%s", "  ".join(f"{key} {value}" for key, value in row.items() if value != ""))
