"""The front as a picture for the report and the README."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipelines.exploring.figures import check, difference, ms, told
from pipelines.exploring.points import Point, Reference
from pipelines.exploring.yardsticks import Yardstick
from pipelines.reporting import charts

#: Inches, and dots an inch: twice what a page of 800 pixels shows.
WIDTH, HEIGHT, DPI = 8.0, 5.0, 200
#: Square points of the largest and of the smallest mark; between them the area goes by the bytes.
LARGEST, SMALLEST = 300.0, 14.0


def draw_front(
    points: Sequence[Point], teacher: Reference, chosen: Point | None, yardstick: Yardstick, out: Path
) -> None:
    """A PNG of 1600 x 1000 pixels, the same bytes for the same points: the task's number on validation data, the better one above,
    over p50 (log), bytes as area.

    The teacher is a line: it is some ten times slower than the points and would press them together.
    Raises DataError where a figure cannot be drawn or `chosen` is not one of the points.
    """
    figure = _front(points, teacher, chosen, yardstick)
    figure.savefig(out, format="png", dpi=DPI, facecolor="white", metadata={"Software": None})


def front_svg(points: Sequence[Point], teacher: Reference, chosen: Point | None, yardstick: Yardstick) -> str:
    """The same as inline SVG. Raises as draw_front does."""
    return charts.as_svg(_front(points, teacher, chosen, yardstick))


def _front(points: Sequence[Point], teacher: Reference, chosen: Point | None, yardstick: Yardstick) -> Any:
    import matplotlib

    check(points, chosen)
    with matplotlib.rc_context({"font.family": "sans-serif", "font.size": 11}):
        figure, axes = charts.blank(WIDTH, HEIGHT)
        axes.axhline(
            yardstick.factor * teacher.quality, color=charts.TEACHER, linewidth=1.2, linestyle=(0, (5, 3)), zorder=1
        )
        _name_teacher(axes, teacher, yardstick)
        axes.set_ylabel(f"{yardstick.words} on validation data" + (f", {yardstick.unit}" if yardstick.unit else ""))
        axes.set_xlabel(f"p50 of a {yardstick.piece} at batch 1, ms (log)")
        if not yardstick.more_is_better:
            axes.yaxis.set_inverted(True)
        if points:
            _draw_points(axes, points, chosen, yardstick)
        else:
            axes.set_xticks([])
            axes.text(0.5, 0.35, "no point was measured", transform=axes.transAxes, ha="center", color=charts.TEACHER)
    return figure


def _name_teacher(axes: Any, teacher: Reference, yardstick: Yardstick) -> None:
    text = f"teacher: {told(teacher.quality, yardstick)}, {ms(teacher.p50_ms)} ms, {teacher.bytes / 1e6:.3g} MB"
    height = yardstick.factor * teacher.quality
    place = {"xy": (0.0, height), "xycoords": ("axes fraction", "data"), "textcoords": "offset points"}
    axes.annotate(text, xytext=(6, 4), color="#5b6676", fontsize=10, path_effects=_halo(), **place)


def _draw_points(axes: Any, points: Sequence[Point], chosen: Point | None, yardstick: Yardstick) -> None:
    from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

    for beaten in (True, False):
        some = [point for point in points if point.on_front != beaten]
        axes.scatter(
            [point.p50_ms for point in some],
            [yardstick.factor * point.quality for point in some],
            s=[_area(point.bytes, points) for point in some],
            color="#e9edf1" if beaten else charts.MODEL,
            edgecolors="#aab3bf" if beaten else "white",
            linewidths=0.8,
            zorder=2 if beaten else 4,
        )
    line = [point for point in outline(points) if point.on_front]
    across, up = [point.p50_ms for point in line], [yardstick.factor * point.quality for point in line]
    axes.plot(across, up, color=charts.MODEL, linewidth=1.2, zorder=3)
    axes.set_xscale("log")
    axes.margins(y=0.1)
    low, high = min(point.p50_ms for point in points) / 1.25, max(point.p50_ms for point in points) * 1.25
    axes.set_xlim(low, high)
    ticks = _log_ticks(low, high)
    axes.xaxis.set(major_locator=FixedLocator(ticks), minor_locator=NullLocator())
    axes.xaxis.set_major_formatter(FixedFormatter([f"{tick:g}" for tick in ticks]))
    if chosen is not None:
        _ring(axes, points, chosen, yardstick)
    _legend(axes, points, chosen, yardstick)


def _ring(axes: Any, points: Sequence[Point], chosen: Point, yardstick: Yardstick) -> None:
    """A ring around the chosen point, and its name above all points that are as fast: no other stands there."""
    across, up = chosen.p50_ms, yardstick.factor * chosen.quality
    ring = math.sqrt(_area(chosen.bytes, points)) + 9
    axes.scatter(across, up, s=ring**2, facecolors="none", edgecolors=charts.CONTROL, linewidths=2.2, zorder=5)
    low, high = axes.get_xlim()
    near = (high / low) ** 0.06
    beside = [point for point in points if across / near < point.p50_ms < across * near]
    top = yardstick.factor * min(beside, key=lambda point: point.loss).quality
    axes.annotate(
        "chosen",
        xy=(across, up),
        xytext=(across, top),
        textcoords=_raised(axes, 22),
        ha="center",
        color="#8a5a10",
        fontweight="bold",
        path_effects=_halo(),
        arrowprops={"arrowstyle": "-", "color": charts.CONTROL, "shrinkB": ring / 2, "shrinkA": 1},
        zorder=6,
    )


def _raised(axes: Any, points: float) -> Any:
    """The coordinates of the data, so many typographic points higher."""
    from matplotlib.transforms import ScaledTranslation

    return axes.transData + ScaledTranslation(0, points / 72, axes.figure.dpi_scale_trans)


def _legend(axes: Any, points: Sequence[Point], chosen: Point | None, yardstick: Yardstick) -> None:
    """Below the picture: the two kinds of points, the sizes between which the areas lie, and the chosen point in words."""
    sizes = sorted({pick(point.bytes for point in points) for pick in (min, max)})
    style = {"edgecolors": "white", "linewidths": 0.8}
    axes.scatter([], [], s=60, color=charts.MODEL, label="on the front", **style)
    axes.scatter([], [], s=60, color="#e9edf1", label="beaten", edgecolors="#aab3bf", linewidths=0.8)
    for size in sizes:
        axes.scatter([], [], s=_area(size, points), color=charts.TEACHER, label=f"{size / 1e6:.3g} MB", **style)
    title = None if chosen is None else f"chosen: {chosen}\n{_in_short(chosen, yardstick)}"
    axes.figure.legend(
        loc="outside lower center",
        ncols=4,
        frameon=False,
        title=title,
        title_fontproperties={"size": 10.5},
        fontsize=10,
    )


def _halo() -> list[Any]:
    from matplotlib.patheffects import withStroke

    return [withStroke(linewidth=3, foreground="white")]


def _area(size: int, points: Sequence[Point]) -> float:
    return max(LARGEST * size / max(other.bytes for other in points), SMALLEST)


def outline(points: Sequence[Point]) -> list[Point]:
    """Fastest first, the points that lose less than all before them: what a picture of two axes can show of a front."""
    kept: list[Point] = []
    for point in sorted(points, key=lambda point: (point.p50_ms, point.loss)):
        if not kept or point.loss < kept[-1].loss:
            kept.append(point)
    return kept


def _log_ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten; round steps where the range is too narrow for three of them."""
    from matplotlib.ticker import MaxNLocator

    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [times * 10.0**power for power in powers for times in (1, 2, 5)]
    inside = [tick for tick in ticks if low <= tick <= high]
    return (
        inside if len(inside) > 2 else [tick for tick in MaxNLocator(5).tick_values(low, high) if low <= tick <= high]
    )


def _in_short(point: Point, yardstick: Yardstick) -> str:
    costs = f"{ms(point.p50_ms)} ms, {point.bytes / 1e6:.3g} MB"
    return f"{told(point.quality, yardstick)}, {difference(point, yardstick)} {yardstick.unit_of_loss}; {costs}"
