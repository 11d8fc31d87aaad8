"""The board as a picture: accuracy against latency, the area of a disc is its size in bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.front import is_ours

OURS, OTHERS = "#0b6e4f", "#7a869a"


def draw(rows: list[dict[str, Any]], out: Path) -> None:
    """Write one SVG, a panel a data set; the same rows give the same bytes."""
    import matplotlib
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(row["data"] for row in rows))
    figure = Figure(figsize=(5.2 * len(names), 3.6), layout="constrained")
    for at, name in enumerate(names):
        _panel(figure.add_subplot(1, len(names), at + 1), name, [row for row in rows if row["data"] == name])
    with matplotlib.rc_context({"svg.hashsalt": "slm-factory"}):
        figure.savefig(out, format="svg", metadata={"Date": None}, facecolor="white")


def _panel(axes: Any, name: str, rows: list[dict[str, Any]]) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    for row in rows:
        ours = is_ours(row)
        color = OURS if ours else OTHERS
        axes.scatter(row["p50_ms"], 100 * row["accuracy"], s=12 * row["bytes"] / 1e6, color=color, alpha=0.35)
        axes.scatter(row["p50_ms"], 100 * row["accuracy"], s=10, color=color)
        label = f"{row['system']}\n{row['bytes'] / 1e6:.1f} MB"
        axes.annotate(
            label, (row["p50_ms"], 100 * row["accuracy"]), (6, -16), textcoords="offset points", fontsize=8, color=color
        )
    axes.set_xscale("log")
    axes.set(title=name, xlabel="milliseconds a text (batch 1, one thread; log)", ylabel="test accuracy, %")
    axes.margins(0.18, 0.25)
