"""Charts as inline SVG: no network, no files beside the report."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pipelines.techniques.metrics import ReliabilityBin

TEACHER, MODEL, GREY = "#7a869a", "#0b6e4f", "#d0d5dd"
CONTROL, STUDENT = "#c98a2b", "#6bb39a"
#: Phases of a loss curve that a reader knows by another name.
NAMES = {"control": "student alone"}


def blank(width: float, height: float) -> tuple[Any, Any]:
    """A figure of its own, outside pyplot's global state."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def as_svg(figure: Any) -> str:
    """Inline SVG, the same bytes for the same figure."""
    import matplotlib

    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "slm-factory", "svg.fonttype": "none", "font.family": "sans-serif"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def bars(values: Mapping[str, float], unit: str, colors: Mapping[str, str], form: str = "%.3g") -> str:
    """Horizontal bars, the number beside each."""
    figure, axes = blank(4.2, 0.5 + 0.42 * len(values))
    names = list(values)[::-1]
    numbers = [values[name] for name in names]
    axes.barh(names, numbers, color=[colors.get(name, GREY) for name in names], height=0.6)
    for at, number in enumerate(numbers):
        axes.text(number, at, f" {form % number} {unit}", va="center")
    axes.set_xlim(0, max(numbers) * 1.35 or 1)
    axes.set_xticks([])
    axes.spines["bottom"].set_visible(False)
    return as_svg(figure)


def latency_histogram(milliseconds: Mapping[str, np.ndarray]) -> str:
    """Distribution of single-text latencies on a logarithmic axis."""
    figure, axes = blank(6.4, 2.6)
    everything = np.concatenate(list(milliseconds.values()))
    edges = np.geomspace(max(everything.min(), 1e-3), np.percentile(everything, 99.5), 60)
    for name, color in (("teacher", TEACHER), ("model", MODEL)):
        axes.hist(milliseconds[name], edges, color=color, alpha=0.85, label=name)
    axes.set_xscale("log")
    axes.set_xlabel("milliseconds a text, batch 1 (log)")
    axes.set_ylabel("texts")
    axes.legend(frameon=False)
    return as_svg(figure)


def reliability_diagram(bins: Mapping[str, Sequence[ReliabilityBin]]) -> str:
    """Accuracy against confidence; the diagonal is a model that knows what it knows."""
    figure, axes = blank(4.2, 3.6)
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=1)
    for name, color in (("teacher", TEACHER), ("model", MODEL)):
        rows = bins[name]
        axes.plot(
            [item.confidence for item in rows], [item.accuracy for item in rows], marker="o", color=color, label=name
        )
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="confidence", ylabel="accuracy")
    axes.legend(frameon=False)
    return as_svg(figure)


def loss_curves(curves: Mapping[str, Sequence[Mapping[str, str]]], measure: str = "validation_accuracy") -> str:
    """A measure on validation data over the epochs of every training stage, end to end; students of one stage side by side."""
    figure, axes = blank(6.4, 2.8)
    start = 0
    for rows in curves.values():
        students: dict[str, list[float]] = {}
        for row in rows:
            students.setdefault(row["phase"].split()[0], []).append(float(row[measure]))
        for name, values in students.items():
            axes.plot(range(start + 1, start + 1 + len(values)), values, marker=".", label=NAMES.get(name, name))
        start += max(map(len, students.values()), default=0)
    axes.set(xlabel="epoch", ylabel=measure.replace("_", " "))
    axes.xaxis.get_major_locator().set_params(integer=True)
    if start:
        axes.legend(frameon=False)
    return as_svg(figure)


def confusion_heatmap(matrix: np.ndarray, labels: Sequence[str]) -> str:
    """Row-normalised confusion matrix; label names where they can be read."""
    from matplotlib.colors import LinearSegmentedColormap

    readable = len(labels) <= 60
    size = max(4.0, 0.17 * len(labels) + 2.2) if readable else 7.0
    figure, axes = blank(size, size)
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    axes.imshow(
        shares,
        cmap=LinearSegmentedColormap.from_list("ours", ["#ffffff", MODEL]),
        vmin=0,
        vmax=1,
        interpolation="nearest",
    )
    axes.set(xlabel="predicted", ylabel="actual")
    if readable:
        axes.set_xticks(range(len(labels)), labels, rotation=90, fontsize=7)
        axes.set_yticks(range(len(labels)), labels, fontsize=7)
    else:
        axes.set(xticks=[], yticks=[])
    return as_svg(figure)
