"""What a build leaves on its Prefect page: the plan, the metrics' table, the report's link."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefect import get_run_logger
from prefect.artifacts import create_link_artifact, create_markdown_artifact, create_table_artifact

from flows.graph import Plan
from flows.results import result_rows

if TYPE_CHECKING:
    from flows.standing import BuildResult

SIDES = ("teacher", "model")


def key_for(kind: str, model: str) -> str:
    """An artifact key; Prefect allows lower-case letters, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", f"{kind}-{model}".lower()).strip("-")


def leave(kind: str, model: str, text: str, description: str) -> None:
    """Leave a page of Markdown on the task's page. What keeps it from being left is logged: the work is done all the same."""
    try:
        create_markdown_artifact(text, key=key_for(kind, model), description=description)
    except Exception as error:  # Prefect's client raises whatever its transport does
        get_run_logger(model=model).warning("the page of %s %s was not left: %r", kind, model, error)


def show_plan(plan: Plan, model: str) -> None:
    """The plan as a Markdown artifact."""
    rows = [f"| `{step.node.name}` | {_reasons(step.reasons)} |" for step in plan.steps]
    text = "\n".join([f"{summary(plan)}.", "", "| stage | why it runs |", "|---|---|", *rows])
    create_markdown_artifact(
        text, key=key_for("plan", model), description=f"Plan of {model}: what DVC finds stale, and why"
    )


def summary(plan: Plan) -> str:
    """`3 of 8 stages would run`."""
    if not plan.stale:
        return f"all {len(plan.steps)} stages are up to date"
    return f"{len(plan.stale)} of {len(plan.steps)} stages would run"


def show_summary(result: BuildResult, metrics: Any) -> None:
    """One page of a finished build: what it published, what the model costs and reaches, what each stage did and took."""
    done = result.publication
    where = (
        f"version {done.version} in {done.url}, alias {done.alias} -> {done.points_at}" if done else "nothing published"
    )
    figures = [
        "| | teacher | model | |",
        "|---|---|---|---|",
        *(f"| {' | '.join(row)} |" for row in result_rows(metrics)),
    ]
    stages = ["| stage | | seconds | processor seconds | MB at most |", "|---|---|---|---|---|"]
    for name, outcome in result.outcomes.items():
        used = result.used.get(name)
        took = f"{used.seconds:.1f} | {used.cpu_seconds:.1f} | {used.megabytes:.0f}" if used else " | | "
        stages.append(f"| `{name}` | {outcome} | {took} |")
    text = "\n".join([f"**{result.model}**: {where}.", "", *figures, "", *stages])
    create_markdown_artifact(
        text, key=key_for("build", result.model), description=f"{result.model}: the build on one page"
    )


def show_metrics(metrics: Any, model: str) -> None:
    """The metrics as a table artifact: a row a measure, a column a side."""
    create_table_artifact(
        rows_of(metrics), key=key_for("metrics", model), description=f"Metrics of {model} beside its teacher"
    )


def show_report(report: Path, model: str) -> None:
    """A link to the report on the machine that built the model."""
    create_link_artifact(
        report.as_uri(), link_text=str(report), key=key_for("report", model), description=f"Report of {model}"
    )


def rows_of(metrics: Any) -> list[dict[str, Any]]:
    """Rows `measure | teacher | model`; what belongs to neither side stands under `model`. Takes any structure."""
    table: dict[str, dict[str, Any]] = {}
    for path, value in _leaves(metrics):
        side = path[0] if path and path[0] in SIDES else ""
        measure = ".".join(path[1:] if side else path) or "value"
        table.setdefault(measure, {})[side or "model"] = value
    return [
        {"measure": measure, "teacher": values.get("teacher", ""), "model": values.get("model", "")}
        for measure, values in table.items()
    ]


def _leaves(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _leaves(inner, (*path, str(key)))
    elif isinstance(value, list):
        yield path, f"{len(value)} {'entry' if len(value) == 1 else 'entries'}"
    else:
        yield path, value


def _reasons(reasons: tuple[object, ...]) -> str:
    return "<br>".join(str(reason).replace("|", "\\|") for reason in reasons) or "up to date"
