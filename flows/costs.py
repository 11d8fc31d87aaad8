"""`python -m flows costs NAME`: what the builds of a model took on this machine, as a table and drawn over time."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from flows.ledger import Entry

HEAD = ("began (UTC)", "state", "version", "stages", "minutes", "processor minutes", "most memory, MB")


def rows_of(entries: Sequence[Entry], watts: float | None, price: float | None) -> list[list[str]]:
    """A header and a row a build. With `watts` of a busy core energy is reckoned where none was measured, with `price` of a core-hour the cost."""
    measured = any(entry.joules is not None for entry in entries)
    head = [*HEAD, *(["Wh"] if measured or watts else []), *(["cost"] if price else [])]
    return [head, *(_row(entry, measured, watts, price) for entry in entries)]


def _row(entry: Entry, measured: bool, watts: float | None, price: float | None) -> list[str]:
    memory = max(used.megabytes for used in entry.stages.values())
    cells = [_began(entry, "%Y-%m-%d %H:%M"), entry.state, entry.version or "-", str(len(entry.stages))]
    cells += [f"{entry.seconds / 60:.1f}", f"{entry.cpu_seconds / 60:.1f}", f"{memory:.0f}"]
    if measured or watts:
        energy = _energy(entry, watts)
        cells.append("-" if energy is None else f"{energy:.2f}{'' if entry.joules is not None else ' (reckoned)'}")
    return [*cells, *([f"{_cost(entry, price):.4f}"] if price else [])]


def _began(entry: Entry, how: str) -> str:
    return datetime.fromtimestamp(entry.began, UTC).strftime(how)


def _energy(entry: Entry, watts: float | None) -> float | None:
    """Watt-hours: measured, or reckoned from processor time; None where neither can be had."""
    if entry.joules is not None:
        return entry.joules / 3600
    return entry.cpu_seconds * watts / 3600 if watts else None


def _cost(entry: Entry, price: float) -> float:
    return entry.cpu_seconds / 3600 * price


def draw(entries: Sequence[Entry], place: Path, watts: float | None, price: float | None) -> None:
    """Panels one below the other, a bar a build in the order in which they were built: its stages' processor time, and as `rows_of` has them
    energy and cost; SVG or PNG, as the name says."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    energies, places = [_energy(entry, watts) for entry in entries], range(len(entries))
    further = [("Wh", energies)] if any(energy is not None for energy in energies) else []
    further += [("cost", [_cost(entry, price) for entry in entries])] if price else []
    rows, width = 1 + len(further), max(6.0, 0.5 * len(entries) + 3)
    figure, panels = pyplot.subplots(
        rows, squeeze=False, sharex=True, figsize=(width, 2 + 2 * rows), layout="constrained"
    )
    _draw_stages(panels[0][0], entries)
    for (axes,), (label, values) in zip(panels[1:], further, strict=True):
        axes.bar(places, [value or 0.0 for value in values], color="0.45")
        axes.set_ylabel(label)
    labels = [_began(entry, "%m-%d %H:%M") for entry in entries]
    panels[-1][0].set_xticks(places, labels, rotation=60, ha="right", fontsize=8)
    panels[0][0].set_title(f"{entries[0].model}: what each build took")
    figure.savefig(place)
    pyplot.close(figure)


def _draw_stages(axes: Any, entries: Sequence[Entry]) -> None:
    names = list(dict.fromkeys(name for entry in entries for name in entry.stages))
    bottoms = [0.0] * len(entries)
    for name in names:
        values = [entry.stages[name].cpu_seconds / 60 if name in entry.stages else 0.0 for entry in entries]
        axes.bar(range(len(entries)), values, bottom=bottoms, label=name.partition("@")[0])
        bottoms = [bottom + value for bottom, value in zip(bottoms, values, strict=True)]
    axes.set_ylabel("processor minutes")
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
