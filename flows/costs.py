"""`python -m flows costs NAME`: what the builds of a model took on this machine, as a table and drawn over time."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from flows.ledger import Entry

HEAD = ("began (UTC)", "state", "version", "stages", "minutes", "processor minutes", "most memory, MB")


def rows_of(entries: Sequence[Entry], watts: float | None, price: float | None) -> list[list[str]]:
    """A header and a row a build. With `watts` of a busy core energy is reckoned where none was measured, with `price` of a core-hour the cost."""
    measured = any(entry.joules is not None for entry in entries)
    head = [*HEAD, *(["Wh"] if measured or watts else []), *(["cost"] if price else [])]
    return [head, *(_row(entry, measured, watts, price) for entry in entries)]


def _row(entry: Entry, measured: bool, watts: float | None, price: float | None) -> list[str]:
    began = datetime.fromtimestamp(entry.began, UTC).strftime("%Y-%m-%d %H:%M")
    memory = max(used.megabytes for used in entry.stages.values())
    cells = [began, entry.state, entry.version or "-", str(len(entry.stages))]
    cells += [f"{entry.seconds / 60:.1f}", f"{entry.cpu_seconds / 60:.1f}", f"{memory:.0f}"]
    if measured or watts:
        cells.append(_energy(entry, watts))
    return [*cells, *([f"{entry.cpu_seconds / 3600 * price:.4f}"] if price else [])]


def _energy(entry: Entry, watts: float | None) -> str:
    if entry.joules is not None:
        return f"{entry.joules / 3600:.2f}"
    return f"{entry.cpu_seconds * watts / 3600:.2f} (reckoned)" if watts else "-"


def draw(entries: Sequence[Entry], place: Path) -> None:
    """A bar a build, its stages' processor time one on the other, in the order in which they were built; SVG or PNG, as the name says."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(max(6.0, 0.5 * len(entries) + 3), 4), layout="constrained")
    names = list(dict.fromkeys(name for entry in entries for name in entry.stages))
    bottoms = [0.0] * len(entries)
    for name in names:
        values = [entry.stages[name].cpu_seconds / 60 if name in entry.stages else 0.0 for entry in entries]
        axes.bar(range(len(entries)), values, bottom=bottoms, label=name.partition("@")[0])
        bottoms = [bottom + value for bottom, value in zip(bottoms, values, strict=True)]
    labels = [datetime.fromtimestamp(entry.began, UTC).strftime("%m-%d %H:%M") for entry in entries]
    axes.set_xticks(range(len(entries)), labels, rotation=60, ha="right", fontsize=8)
    axes.set_ylabel("processor minutes")
    axes.set_title(f"{entries[0].model}: what each build took")
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    figure.savefig(place)
    pyplot.close(figure)
