"""The board as a picture: accuracy against latency, the area of a disc is its size in bytes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.front import FLOOR, TEACHER, is_ours

OURS, OTHERS = "#0b6e4f", "#7a869a"
#: Of the height: the least distance of two names, and what lies below the least accuracy that is drawn.
GAP, FOOT = 0.062, 0.04


def draw(rows: list[dict[str, Any]], out: Path) -> None:
    """Write one SVG, a panel a data set; the same rows give the same bytes. Systems below the joint front's floor are named, not placed."""
    import matplotlib
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(row["data"] for row in rows))
    figure = Figure(figsize=(8.4, 4.4 * len(names)), layout="constrained")
    for at, name in enumerate(names):
        _panel(figure.add_subplot(len(names), 1, at + 1), name, [row for row in rows if row["data"] == name])
    with matplotlib.rc_context({"svg.hashsalt": "slm-factory"}):
        figure.savefig(out, format="svg", metadata={"Date": None}, facecolor="white")


def _panel(axes: Any, name: str, rows: list[dict[str, Any]]) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    teacher = next((row["accuracy"] for row in rows if row["system"] == TEACHER), 0.0)
    shown = sorted((row for row in rows if row["accuracy"] >= FLOOR * teacher), key=lambda row: row["accuracy"])
    low, high = 100 * shown[0]["accuracy"], 100 * shown[-1]["accuracy"]
    span = max(high - low, 0.1)
    bottom, height = low - 0.12 * span, 1.24 * span
    heights = spread([(100 * row["accuracy"] - bottom) / height for row in shown], GAP)
    for row, place in zip(shown, heights, strict=True):
        _system(axes, row, place)
    left_out = [f"{row['system']} ({100 * row['accuracy']:.1f} %)" for row in rows if row not in shown]
    if left_out:
        axes.text(0.01, 0.01, f"below: {', '.join(left_out)}", transform=axes.transAxes, fontsize=7, color=OTHERS)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_ylim(bottom - FOOT * height, bottom + height)
    axes.margins(x=0.1)
    axes.set(title=name, xlabel="milliseconds a text (batch 1, one thread; log)", ylabel="test accuracy, %")


def _system(axes: Any, row: dict[str, Any], place: float) -> None:
    """A disc, and its name at `place` of the height beside the panel, with a line between."""
    ours = is_ours(row)
    color = OURS if ours else OTHERS
    at = (row["p50_ms"], 100 * row["accuracy"])
    axes.scatter(*at, s=12 * row["bytes"] / 1e6, color=color, alpha=0.35)
    axes.scatter(*at, s=10, color=color)
    axes.annotate(
        f"{row['system']}, {row['bytes'] / 1e6:.1f} MB",
        at,
        (1.03, place),
        textcoords="axes fraction",
        fontsize=8,
        color=color,
        weight="bold" if ours else "normal",
        va="center",
        arrowprops={"arrowstyle": "-", "color": color, "alpha": 0.35, "linewidth": 0.7},
    )


def spread(places: Sequence[float], gap: float) -> list[float]:
    """Ascending places moved up or down until none is nearer than `gap` to the next; as far as there is room, within 0 and 1."""
    found: list[float] = []
    for place in places:
        found.append(max(place, found[-1] + gap) if found else max(place, 0.0))
    limit = max(1.0, gap * (len(found) - 1))
    for at in reversed(range(len(found))):
        found[at] = min(found[at], limit)
        limit = found[at] - gap
    return found
