"""What a person at a terminal sees: the plan, the result beside its teacher, what to do next. Plain lines without a terminal."""

from __future__ import annotations

import logging
import os
import shlex
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from flows.graph import Plan

#: Prefect's log lines, shortened: time and text, and the task's name where one speaks. Read by Prefect at import.
LOG_FORMATS = {
    "PREFECT_LOGGING_FORMATTERS_STANDARD_FORMAT": "%(asctime)s  %(message)s",
    "PREFECT_LOGGING_FORMATTERS_STANDARD_FLOW_RUN_FMT": "%(asctime)s  %(message)s",
    "PREFECT_LOGGING_FORMATTERS_STANDARD_TASK_RUN_FMT": "%(asctime)s  %(task_run_name)s  %(message)s",
}

Number = int | float


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


def result_rows(metrics: Any) -> list[tuple[str, str, str, str]]:
    """`measure, teacher, model, comparison` of what the metrics file holds; a missing figure is a dash, never an error."""
    teacher, model, comparison = (_section(metrics, name) for name in ("teacher", "model", "comparison"))

    def ratio(key: str, word: str) -> str:
        value = comparison.get(key)
        return f"{value:.1f}x {word}" if isinstance(value, Number) else ""

    rows = [
        ("accuracy, % (95 % interval)", _accuracy(teacher), _accuracy(model), _difference(comparison)),
        ("macro-F1, %", _percent(teacher.get("macro_f1")), _percent(model.get("macro_f1")), ""),
        ("calibration error (ECE)", _number(teacher.get("ece"), "{:.3f}"), _number(model.get("ece"), "{:.3f}"), ""),
        ("size, MB", _megabytes(teacher), _megabytes(model), ratio("size_ratio", "smaller")),
        (
            "p50, ms at batch 1",
            _number(teacher.get("p50_ms"), "{:.2f}"),
            _number(model.get("p50_ms"), "{:.2f}"),
            ratio("latency_ratio", "faster"),
        ),
        (
            "texts a second",
            _number(teacher.get("texts_per_s"), "{:.0f}"),
            _number(model.get("texts_per_s"), "{:.0f}"),
            ratio("throughput_ratio", "as many"),
        ),
    ]
    return rows


def show_result(metrics: Any, published: bool, console: Console) -> None:
    """The table teacher | model."""
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


def next_commands(model: str, url: str | None, alias: str, home: Path) -> list[str]:
    """Three commands to go on with, as they work from the folder that one is in."""
    here = Path(sys.executable).parent

    def tool(name: str) -> str:
        return name if str(here) in os.environ.get("PATH", "").split(os.pathsep) else os.path.relpath(here / name)

    reference = f"{model}@{alias}"
    predict = f"{tool('slm-registry')} predict {reference} --store {shlex.quote(url or 'store')} 'where is my parcel?'"
    if not url:
        predict = f"{tool('python')} -m flows build {model} --publish store"
    page = f"PREFECT_HOME={shlex.quote(os.path.relpath(home))} {tool('prefect')} server start"
    return [predict, f"{tool('dvc')} repro", f"{page}   # then open http://127.0.0.1:4200"]


def _section(metrics: Any, name: str) -> Mapping[str, Any]:
    section = metrics.get(name) if isinstance(metrics, dict) else None
    return section if isinstance(section, dict) else {}


def _number(value: Any, pattern: str) -> str:
    return pattern.format(value) if isinstance(value, Number) else "-"


def _percent(value: Any) -> str:
    return f"{100 * value:.2f}" if isinstance(value, Number) else "-"


def _megabytes(side: Mapping[str, Any]) -> str:
    size = side.get("bytes")
    return f"{size / 1e6:.1f}" if isinstance(size, Number) else "-"


def _accuracy(side: Mapping[str, Any]) -> str:
    low, high = side.get("accuracy_low"), side.get("accuracy_high")
    interval = f" ({_percent(low)}-{_percent(high)})" if isinstance(low, Number) and isinstance(high, Number) else ""
    return _percent(side.get("accuracy")) + interval


def _difference(comparison: Mapping[str, Any]) -> str:
    value, low, high = (comparison.get(f"accuracy_difference{end}") for end in ("", "_low", "_high"))
    if not isinstance(value, Number):
        return ""
    interval = (
        f" ({100 * low:+.2f} to {100 * high:+.2f})" if isinstance(low, Number) and isinstance(high, Number) else ""
    )
    return f"{100 * value:+.2f} points{interval}"
