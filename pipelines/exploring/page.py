"""The front as a page to try budgets on: one file that needs no network."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass

from pipelines.exploring.figures import check, difference, ms, told
from pipelines.exploring.points import COSTS, Point, Reference
from pipelines.exploring.yardsticks import Yardstick
from pipelines.reporting.report import TEMPLATES, render


@dataclass(frozen=True)
class Axis:
    """An axis of the page's scatter: a field of Point, times what its unit wants; `low` and `high` are the fields of its interval."""

    key: str
    title: str
    factor: float
    more_is_better: bool
    low: str = ""
    high: str = ""


def across(yardstick: Yardstick) -> tuple[Axis, ...]:
    """What a point costs."""
    return (
        Axis("p50_ms", "p50, ms", 1, False, "p50_low", "p50_high"),
        Axis("bytes", "MB", 1e-6, False),
        Axis("per_s", yardstick.rate, 1, True),
        Axis("peak_memory_bytes", "memory, MB", 1e-6, False),
    )


def up(yardstick: Yardstick) -> tuple[Axis, ...]:
    """What it reaches."""
    return (
        Axis("quality", yardstick.title, yardstick.factor, yardstick.more_is_better),
        Axis("loss", _behind(yardstick), yardstick.factor, False, "loss_low", "loss_high"),
    )


def _behind(yardstick: Yardstick) -> str:
    return f"{yardstick.unit_of_loss} {'below' if yardstick.more_is_better else 'above'} the teacher"


@dataclass(frozen=True)
class Bound:
    """A bound of a recipe's `budget:` and the field of Point that must hold it, taken at the pessimistic end of its interval where it has one."""

    name: str
    title: str
    key: str
    factor: float
    recipe_factor: int
    at_most: bool = True


def bounds(yardstick: Yardstick) -> tuple[Bound, ...]:
    """Asked for in the unit of the title; the recipe has bytes where the page has MB."""
    return (
        Bound("max_bytes", "MB", "bytes", 1e-6, 1_000_000),
        Bound("max_p50_ms", "p50, ms", "p50_high", 1, 1),
        Bound(yardstick.bound, _behind(yardstick), "loss_high", yardstick.factor, 1),
        Bound(yardstick.rate_bound, yardstick.rate, "per_s", 1, 1, at_most=False),
        Bound("max_memory_bytes", "memory, MB", "peak_memory_bytes", 1e-6, 1_000_000),
    )


@dataclass(frozen=True)
class Column:
    """A column of the page's table, and a line of what it says of one point; sorted by a field of Point, or by its depth."""

    key: str
    title: str
    write: Callable[[Point], str]
    words: bool = False


def _yes(true: bool) -> str:
    return "yes" if true else "no"


def _size(point: Point, size: int) -> str:
    """Of a part with layers none is named where all of it stays."""
    return str(size) if size or not point.layers else "all"


def columns(yardstick: Yardstick) -> tuple[Column, ...]:
    """All that is known of a point."""
    return (
        Column("depth", "layers", lambda point: point.layers.replace(",", ", ") or "none"),
        Column("intermediate_size", "FFN width", lambda point: _size(point, point.intermediate_size)),
        Column("num_attention_heads", "heads", lambda point: _size(point, point.num_attention_heads)),
        Column("tokens", "vocabulary, tokens", lambda point: f"{point.tokens:,}"),
        Column("quantization", "quantization", lambda point: point.quantization, words=True),
        Column("bytes", "MB", lambda point: f"{point.bytes / 1e6:.2f}"),
        Column(
            "p50_ms",
            "p50, ms (95 %)",
            lambda point: f"{ms(point.p50_ms)} ({ms(point.p50_low)} to {ms(point.p50_high)})",
        ),
        Column("quality", yardstick.title, lambda point: yardstick.read(point.quality)),
        Column("loss", f"{yardstick.unit_of_loss} to teacher (95 %)", lambda point: difference(point, yardstick)),
        Column("per_s", yardstick.rate, lambda point: f"{point.per_s:,.0f}"),
        Column("peak_memory_bytes", "memory, MB", lambda point: f"{point.peak_memory_bytes / 1e6:.1f}"),
        Column("estimated_bytes", "MB, estimated", lambda point: f"{point.estimated_bytes / 1e6:.2f}"),
        Column("estimated_p50_ms", "p50, estimated", lambda point: ms(point.estimated_p50_ms)),
        Column(
            "estimated_loss", f"{_behind(yardstick)}, estimated", lambda point: yardstick.read(point.estimated_loss)
        ),
        Column("steady", "times steady", lambda point: _yes(point.steady), words=True),
        Column("on_front", "on the front", lambda point: _yes(point.on_front), words=True),
    )


def front_page(
    points: Sequence[Point],
    teacher: Reference,
    chosen: Point | None,
    yardstick: Yardstick,
    model: str,
    facts: Mapping[str, str],
) -> str:
    """One HTML file that fetches nothing: the points over axes of choice, budgets tried on them, and all their figures in a table.

    `facts` are lines of a label and a value above it all. Raises DataError as `draw_front` does.
    """
    check(points, chosen)
    style = "".join((TEMPLATES / file).read_text(encoding="utf-8") for file in ("style.css.j2", "front.css"))
    script = (TEMPLATES / "front.js").read_text(encoding="utf-8")
    data = {
        "points": [asdict(point) | {"depth": len(point.slice.layers), "name": str(point)} for point in points],
        "teacher": asdict(teacher),
        "chosen": None if chosen is None else points.index(chosen),
        "axes": [asdict(axis) for axis in (*across(yardstick), *up(yardstick))],
        "bounds": [asdict(bound) for bound in bounds(yardstick)],
        "budget": list(yardstick.budget.model_fields),
        "yardstick": {
            "key": yardstick.key,
            "bound": yardstick.bound,
            "unit_of_loss": yardstick.unit_of_loss,
            "told": told(teacher.quality, yardstick),
        },
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
        across=across(yardstick),
        up=up(yardstick),
        bounds=bounds(yardstick),
        costs=[
            *((cost, axis.title) for cost in COSTS for axis in across(yardstick) if axis.key == cost),
            (
                f"{yardstick.key}_loss",
                f"loss of {yardstick.words}" if yardstick.more_is_better else f"gain of {yardstick.words}",
            ),
        ],
        columns=columns(yardstick),
        yardstick=yardstick,
        reached=told(teacher.quality, yardstick),
    )


def _source(text: str) -> str:
    """What a content policy calls a style or script whose text is this."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
