"""What a person at a terminal sees: the plan, the result beside its teacher, what to do next. Plain lines without a terminal."""

from __future__ import annotations

import logging
import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from flows.graph import Plan
from flows.results import result_rows

if TYPE_CHECKING:
    from pipelines.exploring.points import Point
    from pipelines.exploring.yardsticks import Yardstick

#: Prefect's log lines, shortened: time and text, and the task's name where one speaks. Read by Prefect at import.
LOG_FORMATS = {
    "PREFECT_LOGGING_FORMATTERS_STANDARD_FORMAT": "%(asctime)s  %(message)s",
    "PREFECT_LOGGING_FORMATTERS_STANDARD_FLOW_RUN_FMT": "%(asctime)s  %(message)s",
    "PREFECT_LOGGING_FORMATTERS_STANDARD_TASK_RUN_FMT": "%(asctime)s  %(task_run_name)s  %(message)s",
}

#: Task -> the command that asks a published model, and a text to ask it.
ASK = {
    "text-classification": ("predict", "where is my parcel?"),
    "token-classification": ("predict", "where is my parcel?"),
    "text-generation": ("generate", "def read_lines(path):"),
    "text-to-text": ("generate", "def read_lines(path):"),
}


#: Columns of the front, whatever the task.
FRONT_HEADS = (
    "",
    "layers",
    "FFN",
    "heads",
    "tokens",
    "quantization",
    "MB",
    "p50 ms",
)


@contextmanager
def without_tracebacks(*expected: type[BaseException]) -> Iterator[None]:
    """Keep tracebacks of expected errors out of the logs, on the page and in the terminal: their message says all."""

    def drop(record: logging.LogRecord) -> bool:
        if record.exc_info and isinstance(record.exc_info[1], expected):
            record.exc_info = None
        return True

    loggers = [logging.getLogger("prefect.task_runs"), logging.getLogger("prefect.flow_runs")]
    for logger in loggers:
        logger.addFilter(drop)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(drop)


def show_plan(plan: Plan, console: Console) -> None:
    """Which stages would run, and why."""
    rows = [(step.node.name, "\n".join(map(str, step.reasons)) or "up to date") for step in plan.steps]
    if not console.is_terminal:
        for name, why in rows:
            print(f"{name}: {why.replace(chr(10), '; ')}", file=console.file)
        return
    table = Table("stage", "why it runs")
    for (name, why), step in zip(rows, plan.steps, strict=True):
        table.add_row(name, why, style=None if step.stale else "dim")
    console.print(table)


def show_result(metrics: Any, published: bool, console: Console) -> None:
    """The table teacher | model; intervals are of 95 %."""
    heads = ("", "teacher", "published model" if published else "model", "")
    rows = result_rows(metrics)
    if not console.is_terminal:
        for row in (heads, *rows):
            print("{:<29} {:>22} {:>22}   {}".format(*row).rstrip(), file=console.file)
        return
    table = Table(*heads)
    for row in rows:
        table.add_row(*row)
    console.print(table)


def show_costs(rows: Sequence[Sequence[str]], console: Console) -> None:
    """A header and a row a build; as tab-separated values where nobody looks."""
    if not console.is_terminal:
        for row in rows:
            print("\t".join(row), file=console.file)
        return
    table = Table(*rows[0])
    for row in rows[1:]:
        table.add_row(*row)
    console.print(table)


def show_front(points: Sequence[Point], yardstick: Yardstick, console: Console) -> None:
    """The front as a table, the quickest first; a star marks what no other point beats."""
    ordered = sorted(points, key=lambda point: point.p50_ms)
    heads = (*FRONT_HEADS, yardstick.rate, yardstick.title, f"{yardstick.unit_of_loss} to teacher")
    if not console.is_terminal:
        for row in (heads, *(_front_row(point, yardstick) for point in ordered)):
            print("\t".join(row), file=console.file)
        return
    table = Table(*heads)
    for point in ordered:
        table.add_row(*_front_row(point, yardstick), style=None if point.on_front else "dim")
    console.print(table)


def _front_row(point: Point, yardstick: Yardstick) -> list[str]:
    from pipelines.exploring.figures import difference

    return [
        "*" if point.on_front else " ",
        point.layers or "none",
        str(point.intermediate_size),
        str(point.num_attention_heads),
        str(point.tokens),
        point.quantization,
        f"{point.bytes / 1e6:.2f}",
        f"{point.p50_ms:.3f}",
        f"{point.per_s:.0f}",
        yardstick.read(point.quality),
        difference(point, yardstick),
    ]


def next_commands(model: str, task: str, url: str | None, alias: str, home: Path) -> list[str]:
    """Three commands to go on with, as they work from the folder that one is in."""
    here = Path(sys.executable).parent

    def tool(name: str) -> str:
        return name if str(here) in os.environ.get("PATH", "").split(os.pathsep) else os.path.relpath(here / name)

    verb, text = ASK[task]
    ask = f"{tool('slm-registry')} {verb} {model}@{alias} --store {shlex.quote(url or 'store')} {shlex.quote(text)}"
    if not url:
        ask = f"{tool('python')} -m flows build {model} --publish store"
    page = f"PREFECT_HOME={shlex.quote(os.path.relpath(home))} {tool('prefect')} server start"
    return [ask, f"{tool('dvc')} repro gate@{model}", f"{page}   # then open http://127.0.0.1:4200"]
