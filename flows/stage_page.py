"""What a stage leaves on its task's Prefect page: how far it is while it runs; at its end what it made, what that took, and how it learned."""

from __future__ import annotations

import contextvars
import re
import threading
from pathlib import Path
from types import TracebackType
from uuid import UUID

from prefect import get_run_logger
from prefect.artifacts import create_progress_artifact, update_progress_artifact

from flows.artifacts import key_for, leave
from flows.graph import Node
from flows.transcript import Outcome, Used
from pipelines.curves import COLUMNS, read_curve

#: A line of pipelines/progress.py: `distill: 120/400, about 30 s left`.
_LINE = re.compile(r"^(?P<work>[^:]+): (?P<done>\d+)/(?P<total>\d+), about ")
#: Seconds that the page's bar may lag behind.
TICK = 5.0
#: Eight heights, the lowest first.
_BARS = "▁▂▃▄▅▆▇█"


class Gauge:
    """Moves a progress bar of Prefect's by the lines that a stage prints; a server that does not answer moves none, and nothing waits for it.

    Use as a context manager, within the stage's task.
    """

    def __init__(self, node: Node) -> None:
        self._node, self._at = node, ""
        self._percent = 0.0
        self._changed, self._ended = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=contextvars.copy_context().run, args=(self._follow,), daemon=True)

    def __enter__(self) -> Gauge:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None and self._at:
            self._percent = 100.0
        self._ended.set()
        self._changed.set()
        self._thread.join(TICK)

    def read(self, line: str) -> None:
        """Take one line of the stage's."""
        if found := _LINE.match(line):
            self._percent = 100 * int(found["done"]) / int(found["total"])
            self._at = found["work"]
            self._changed.set()

    def _follow(self) -> None:
        bar: UUID | None = None
        ended = False
        while not ended:
            self._changed.wait()
            self._changed.clear()
            ended = self._ended.is_set()  # what was told before it is shown yet
            try:
                bar = self._show(bar) if self._at else None
            except Exception as error:  # whatever keeps the page from being told, the stage goes on
                get_run_logger(**self._node.speaker).debug("the bar on the page stays where it is: %r", error)
            self._ended.wait(TICK)

    def _show(self, bar: UUID | None) -> UUID:
        percent, what = self._percent, f"{self._node.name}: {self._at}"
        if bar is None:
            return UUID(
                str(create_progress_artifact(percent, key=key_for("progress", self._node.name), description=what))
            )
        update_progress_artifact(bar, percent, description=what)
        return bar


def show_stage(node: Node, root: Path, outcome: Outcome, used: Used | None) -> None:
    """Leave the stage's page."""
    leave("stage", node.name, page_of(node, root, outcome, used), node.description or f"What {node.name} made")


def page_of(node: Node, root: Path, outcome: Outcome, used: Used | None) -> str:
    """A stage as Markdown: its outcome, what it took, its outputs with their sizes, and the ends of its loss curves."""
    lines = [f"**{node.name}**: {outcome}{f', {used}' if used else ''}.", "", "| output | bytes |", "|---|---|"]
    lines += [f"| [{out}]({(root / out).as_uri()}) | {_size(root / out)} |" for out in node.outs]
    for out in node.outs:
        lines += _curve(root / out)
    return "\n".join(lines)


def _size(path: Path) -> int:
    return sum(file.stat().st_size for file in ([path] if path.is_file() else path.rglob("*")) if file.is_file())


def _curve(path: Path) -> list[str]:
    """A row a phase of a loss curve; nothing of a file that is none, or of one without an epoch."""
    if path.suffix != ".csv" or not path.is_file():
        return []
    rows = read_curve(path)
    if not rows or tuple(rows[0]) != COLUMNS:
        return []
    lines = ["", "| training | epochs | validation loss | | accuracy |", "|---|---|---|---|---|"]
    for phase in dict.fromkeys(row["phase"] for row in rows):
        losses = [float(row["validation_loss"]) for row in rows if row["phase"] == phase]
        last = [row for row in rows if row["phase"] == phase][-1]
        lines.append(
            f"| {phase} | {len(losses)} | {losses[0]:.4f} to {losses[-1]:.4f} | {spark(losses)} | {float(last['validation_accuracy']):.4f} |"
        )
    return lines


def spark(values: list[float]) -> str:
    """Numbers as a row of bars, the least the lowest."""
    least, most = min(values), max(values)
    span = (most - least) or 1.0
    return "".join(_BARS[round((value - least) / span * (len(_BARS) - 1))] for value in values)
