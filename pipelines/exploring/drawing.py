"""The front as people look at it: a picture for the report, and a page to try budgets on. Neither needs a network."""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipelines.errors import DataError
from pipelines.exploring.points import COSTS, Point, Reference
from pipelines.reporting import charts
from pipelines.reporting.report import TEMPLATES, render

#: Inches, and dots an inch: twice what a page of 800 pixels shows.
WIDTH, HEIGHT, DPI = 8.0, 5.0, 200
#: Square points of the largest and of the smallest mark; between them the area goes by the bytes.
LARGEST, SMALLEST = 300.0, 14.0


@dataclass(frozen=True)
class Axis:
    """An axis of the page's scatter: a field of Point, times what its unit wants; `low` and `high` are the fields of its interval."""

    key: str
    title: str
    factor: float
    more_is_better: bool
    low: str = ""
    high: str = ""


ACROSS = (
    Axis("p50_ms", "p50, ms", 1, False, "p50_low", "p50_high"),
    Axis("bytes", "MB", 1e-6, False),
    Axis("texts_per_s", "texts/s", 1, True),
    Axis("peak_memory_bytes", "memory, MB", 1e-6, False),
)
UP = (
    Axis("accuracy", "accuracy, %", 100, True),
    Axis("accuracy_difference", "points below the teacher", -100, False, "accuracy_difference_high", "accuracy_difference_low"),
)


@dataclass(frozen=True)
class Bound:
    """A bound of a recipe's `budget:` and the field of Point that must hold it, taken at the pessimistic end of its interval."""

    name: str
    title: str
    key: str
    factor: float
    recipe_factor: int


#: Asked for in the unit of the title; the recipe has bytes where the page has MB.
BOUNDS = (
    Bound("max_bytes", "MB", "bytes", 1e-6, 1_000_000),
    Bound("max_p50_ms", "p50, ms", "p50_high", 1, 1),
    Bound("max_accuracy_loss", "points below the teacher", "accuracy_difference_low", -100, 1),
)


@dataclass(frozen=True)
class Column:
    """A column of the page's table, and a line of what it says of one point; sorted by a field of Point, or by its depth."""

    key: str
    title: str
    write: Callable[[Point], str]
    words: bool = False


COLUMNS = (
    Column("depth", "layers", lambda point: point.layers.replace(",", ", ")),
    Column("intermediate_size", "FFN width", lambda point: str(point.intermediate_size)),
    Column("num_attention_heads", "heads", lambda point: str(point.num_attention_heads)),
    Column("tokens", "vocabulary, tokens", lambda point: f"{point.tokens:,}"),
    Column("quantization", "quantization", lambda point: point.quantization, words=True),
    Column("bytes", "MB", lambda point: f"{point.bytes / 1e6:.2f}"),
    Column("p50_ms", "p50, ms (95 %)", lambda point: f"{_ms(point.p50_ms)} ({_ms(point.p50_low)} to {_ms(point.p50_high)})"),
    Column("accuracy", "accuracy, %", lambda point: f"{100 * point.accuracy:.2f}"),
    Column("accuracy_difference", "points to teacher (95 %)", lambda point: _difference(point)),
    Column("texts_per_s", "texts/s", lambda point: f"{point.texts_per_s:,.0f}"),
    Column("peak_memory_bytes", "memory, MB", lambda point: f"{point.peak_memory_bytes / 1e6:.1f}"),
    Column("calibration_error", "calibration error", lambda point: f"{point.calibration_error:.3f}"),
    Column("estimated_bytes", "MB, estimated", lambda point: f"{point.estimated_bytes / 1e6:.2f}"),
    Column("estimated_p50_ms", "p50, estimated", lambda point: _ms(point.estimated_p50_ms)),
    Column("estimated_accuracy", "accuracy, estimated", lambda point: f"{100 * point.estimated_accuracy:.2f}"),
    Column("steady", "times steady", lambda point: _yes(point.steady), words=True),
    Column("on_front", "on the front", lambda point: _yes(point.on_front), words=True),
)


def draw_front(points: Sequence[Point], teacher: Reference, chosen: Point | None, out: Path) -> None:
    """A PNG of 1600 x 1000 pixels, the same bytes for the same points: accuracy on validation data over p50 (log), bytes as area.

    The teacher is a line: it is some ten times slower than the points and would press them together.
    Raises DataError where a figure cannot be drawn or `chosen` is not one of the points.
    """
    import matplotlib

    _check(points, chosen)
    with matplotlib.rc_context({"font.family": "sans-serif", "font.size": 11}):
        figure, axes = charts.blank(WIDTH, HEIGHT)
        axes.axhline(100 * teacher.accuracy, color=charts.TEACHER, linewidth=1.2, linestyle=(0, (5, 3)), zorder=1)
        _name_teacher(axes, teacher)
        axes.set_ylabel("accuracy on validation data, %")
        axes.set_xlabel("p50 of a text at batch 1, ms (log)")
        if points:
            _draw_points(axes, points, chosen)
        else:
            axes.set_xticks([])
            axes.text(0.5, 0.35, "no point was measured", transform=axes.transAxes, ha="center", color=charts.TEACHER)
        figure.savefig(out, format="png", dpi=DPI, facecolor="white", metadata={"Software": None})


def _name_teacher(axes: Any, teacher: Reference) -> None:
    text = f"teacher: {100 * teacher.accuracy:.1f} %, {_ms(teacher.p50_ms)} ms, {teacher.bytes / 1e6:.3g} MB"
    place = {"xy": (0.0, 100 * teacher.accuracy), "xycoords": ("axes fraction", "data"), "textcoords": "offset points"}
    axes.annotate(text, xytext=(6, 4), color="#5b6676", fontsize=10, path_effects=_halo(), **place)


def _draw_points(axes: Any, points: Sequence[Point], chosen: Point | None) -> None:
    from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

    for beaten in (True, False):
        some = [point for point in points if point.on_front != beaten]
        axes.scatter(
            [point.p50_ms for point in some],
            [100 * point.accuracy for point in some],
            s=[_area(point, points) for point in some],
            color="#e9edf1" if beaten else charts.MODEL,
            edgecolors="#aab3bf" if beaten else "white",
            linewidths=0.8,
            zorder=2 if beaten else 4,
        )
    line = [point for point in _outline(points) if point.on_front]
    across, up = [point.p50_ms for point in line], [100 * point.accuracy for point in line]
    axes.plot(across, up, color=charts.MODEL, linewidth=1.2, zorder=3)
    axes.set_xscale("log")
    axes.margins(y=0.1)
    low, high = min(point.p50_ms for point in points) / 1.25, max(point.p50_ms for point in points) * 1.25
    axes.set_xlim(low, high)
    ticks = _log_ticks(low, high)
    axes.xaxis.set(major_locator=FixedLocator(ticks), minor_locator=NullLocator())
    axes.xaxis.set_major_formatter(FixedFormatter([f"{tick:g}" for tick in ticks]))
    if chosen is not None:
        _ring(axes, points, chosen)
    _legend(axes, points, chosen)


def _ring(axes: Any, points: Sequence[Point], chosen: Point) -> None:
    """A ring around the chosen point, and its name above all points that are as fast: no other stands there."""
    across, up = chosen.p50_ms, 100 * chosen.accuracy
    ring = math.sqrt(_area(chosen, points)) + 9
    axes.scatter(across, up, s=ring**2, facecolors="none", edgecolors=charts.CONTROL, linewidths=2.2, zorder=5)
    low, high = axes.get_xlim()
    near = (high / low) ** 0.06
    top = max(100 * point.accuracy for point in points if across / near < point.p50_ms < across * near)
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


def _legend(axes: Any, points: Sequence[Point], chosen: Point | None) -> None:
    """Below the picture: the two kinds of points, the sizes between which the areas lie, and the chosen point in words."""
    sizes = sorted({min(points, key=lambda point: point.bytes), max(points, key=lambda point: point.bytes)}, key=lambda point: point.bytes)
    style = {"edgecolors": "white", "linewidths": 0.8}
    axes.scatter([], [], s=60, color=charts.MODEL, label="on the front", **style)
    axes.scatter([], [], s=60, color="#e9edf1", label="beaten", edgecolors="#aab3bf", linewidths=0.8)
    for point in sizes:
        axes.scatter([], [], s=_area(point, points), color=charts.TEACHER, label=f"{point.bytes / 1e6:.3g} MB", **style)
    title = None if chosen is None else f"chosen: {name(chosen)}\n{_in_short(chosen)}"
    axes.figure.legend(
        loc="outside lower center", ncols=4, frameon=False, title=title, title_fontproperties={"size": 10.5}, fontsize=10
    )


def _halo() -> list[Any]:
    from matplotlib.patheffects import withStroke

    return [withStroke(linewidth=3, foreground="white")]


def _area(point: Point, points: Sequence[Point]) -> float:
    return max(LARGEST * point.bytes / max(other.bytes for other in points), SMALLEST)


def _outline(points: Sequence[Point]) -> list[Point]:
    """Fastest first, the points that are more accurate than all before them: what a picture of two axes can show of a front."""
    kept: list[Point] = []
    for point in sorted(points, key=lambda point: (point.p50_ms, -point.accuracy)):
        if not kept or point.accuracy > kept[-1].accuracy:
            kept.append(point)
    return kept


def _log_ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten; round steps where the range is too narrow for three of them."""
    from matplotlib.ticker import MaxNLocator

    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [times * 10.0**power for power in powers for times in (1, 2, 5)]
    inside = [tick for tick in ticks if low <= tick <= high]
    return inside if len(inside) > 2 else [tick for tick in MaxNLocator(5).tick_values(low, high) if low <= tick <= high]


def front_page(
    points: Sequence[Point], teacher: Reference, chosen: Point | None, model: str, facts: Mapping[str, str]
) -> str:
    """One HTML file that fetches nothing: the points over axes of choice, budgets tried on them, and all their figures in a table.

    `facts` are lines of a label and a value above it all. Raises DataError as `draw_front` does.
    """
    _check(points, chosen)
    style = "".join((TEMPLATES / file).read_text(encoding="utf-8") for file in ("style.css.j2", "front.css"))
    script = (TEMPLATES / "front.js").read_text(encoding="utf-8")
    data = {
        "points": [asdict(point) | {"depth": len(point.slice.layers), "name": name(point)} for point in points],
        "teacher": asdict(teacher),
        "chosen": None if chosen is None else points.index(chosen),
        "axes": [asdict(axis) for axis in (*ACROSS, *UP)],
        "bounds": [asdict(bound) for bound in BOUNDS],
        "costs": COSTS,
    }
    return render(
        "front.html.j2",
        policy=f"default-src 'none'; base-uri 'none'; form-action 'none'; style-src {_source(style)}; script-src {_source(script)}",
        style=style,
        script=script,
        data=data,
        points=points,
        teacher=teacher,
        chosen=data["chosen"],
        model=model,
        facts=facts,
        across=ACROSS,
        up=UP,
        bounds=BOUNDS,
        columns=COLUMNS,
    )


def name(point: Point) -> str:
    """A point in words: `3 layers, FFN 768, 12 heads, 2,700 tokens, dynamic_int8`."""
    depth = len(point.slice.layers)
    shape = f"{depth} layer{'s' if depth > 1 else ''}, FFN {point.intermediate_size}, {point.num_attention_heads} heads"
    return f"{shape}, {point.tokens:,} tokens, {point.quantization}"


def _source(text: str) -> str:
    """What a content policy calls a style or script whose text is this."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _in_short(point: Point) -> str:
    return f"{100 * point.accuracy:.1f} %, {_difference(point)} points; {_ms(point.p50_ms)} ms, {point.bytes / 1e6:.3g} MB"


def _ms(number: float) -> str:
    """Three digits that count, zeros at the end among them."""
    return f"{number:.{max(2 - math.floor(math.log10(number)), 0)}f}"


def _difference(point: Point) -> str:
    numbers = (point.accuracy_difference, point.accuracy_difference_low, point.accuracy_difference_high)
    value, low, high = (f"{100 * number:+.2f}".replace("-", "−") for number in numbers)
    return f"{value} ({low} to {high})"


def _yes(told: bool) -> str:
    return "yes" if told else "no"


def _check(points: Sequence[Point], chosen: Point | None) -> None:
    """Raises DataError for what no axis has a place for."""
    for point in points:
        for field, value in asdict(point).items():
            above_zero = field in {axis.key for axis in ACROSS}
            if isinstance(value, int | float) and (not math.isfinite(value) or (above_zero and value <= 0)):
                wanted = "a number above 0" if above_zero else "a finite number"
                raise DataError(f"{name(point)}: {field} is {value}, not {wanted}; measure the point again")
    if chosen is not None and chosen not in points:
        raise DataError(f"the chosen point ({name(chosen)}) is not one of the {len(points)} points; choose among them")
