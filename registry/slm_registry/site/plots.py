"""The geometry of the plots: numbers in, places in a picture out. The template draws them as SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from slm_registry.site.measures import Kind, Measure, on_axis, written

WIDTH, HEIGHT = 360, 210
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 18, 16, 34
WIDE, TALL = 720, 340
_LETTER = 6.6
# Which way is better, by whether more of a measure is; over versions, and over download size.
_BETTER = {True: "more is better", False: "less is better", None: ""}
_CORNER = {True: "Up and left", False: "Down and left", None: "Left"}


@dataclass(frozen=True, slots=True)
class Value:
    """A version's value of a measure, with the bounds of its interval where they are known."""

    version: str
    value: float
    low: float | None = None
    high: float | None = None
    current: bool = False


@dataclass(frozen=True, slots=True)
class Tick:
    """A mark on an axis."""

    at: float
    text: str


@dataclass(frozen=True, slots=True)
class Mark:
    """A point: its place, its radius, what it says, and where its label stands ("" for none)."""

    x: float
    y: float
    radius: float
    text: str
    role: str
    label: str = ""
    label_x: float = 0.0
    label_y: float = 0.0
    anchor: str = "start"


@dataclass(frozen=True, slots=True)
class Plot:
    """A picture of `width` x `height` units; `text` says in words what it shows."""

    title: str
    text: str
    width: int
    height: int
    left: float
    right: float
    bottom: float
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    marks: tuple[Mark, ...]
    line: str = ""
    band: str = ""
    reference: Tick | None = None
    x_title: str = ""
    y_title: str = ""
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Scale:
    """From values between `low` and `high` to places between `start` and `end`; by logarithm if so wanted."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        low, high, at = (
            (math.log(x) for x in (self.low, self.high, value)) if self.log else (self.low, self.high, value)
        )
        return round(self.start + (at - low) / (high - low) * (self.end - self.start), 2)


def over_versions(measure: Measure, values: Sequence[Value], teacher: float | None) -> Plot:
    """A measure over the versions, oldest first, its interval as a band and the teacher's value as a dashed line."""
    edges = [x for v in values for x in (v.value, v.low, v.high) if x is not None]
    if teacher is not None and measure.kind == "share":
        edges.append(teacher)
    low, high = _padded(min(edges), max(edges), floor_at_zero=min(edges) >= 0)
    y = Scale(low, high, HEIGHT - _BOTTOM, _TOP)
    step = (WIDTH - _LEFT - _RIGHT - 20) / max(len(values) - 1, 1)
    places = [round(_LEFT + 10 + step * at, 2) for at in range(len(values))]
    marks = tuple(_mark(measure.kind, v, x, y(v.value)) for v, x in zip(values, places, strict=True))
    tops = [(x, y(v.high)) for v, x in zip(values, places, strict=True) if v.high is not None]
    floors = [(x, y(v.low)) for v, x in zip(values, places, strict=True) if v.low is not None]
    shown = teacher is not None and low <= teacher <= high
    return Plot(
        measure.label,
        _in_words(measure, values, teacher),
        WIDTH,
        HEIGHT,
        _LEFT,
        WIDTH - _RIGHT,
        HEIGHT - _BOTTOM,
        _version_ticks(values, places),
        _value_ticks(measure.kind, y),
        marks,
        _path([(mark.x, mark.y) for mark in marks]),
        _path([*tops, *reversed(floors)]) + "Z" if len(tops) == len(floors) == len(values) > 1 else "",
        Tick(y(teacher), "base model") if shown and teacher is not None else None,
        hint=_BETTER[measure.more_is_better],
    )


def _value_ticks(kind: Kind, y: Scale) -> tuple[Tick, ...]:
    values = ticks(y.low, y.high)
    return tuple(Tick(y(at), text) for at, text in zip(values, on_axis(kind, values), strict=True))


def _mark(kind: Kind, value: Value, x: float, y: float) -> Mark:
    role = "current" if value.current else "plain"
    return Mark(x, y, 5 if value.current else 3.5, f"{value.version}: {written(kind, value.value)}", role)


def _version_ticks(values: Sequence[Value], places: Sequence[float]) -> tuple[Tick, ...]:
    """Version names below the axis, as many as there is room for; always the newest."""
    longest = max(len(value.version) for value in values)
    room = max(int((WIDTH - _LEFT - _RIGHT) / ((longest + 1) * _LETTER)), 1)
    every = math.ceil(len(values) / room)
    last = len(values) - 1
    return tuple(
        Tick(place, value.version)
        for at, (value, place) in enumerate(zip(values, places, strict=True))
        if (last - at) % every == 0
    )


def _in_words(measure: Measure, values: Sequence[Value], teacher: float | None) -> str:
    lowest, highest = min(values, key=lambda v: v.value), max(values, key=lambda v: v.value)
    ends = [(f"{written(measure.kind, v.value)} at {v.version}") for v in (values[0], values[-1])]
    said = f"{measure.label} over {len(values)} versions: from {ends[0]} to {ends[1]}"
    said += f"; lowest {written(measure.kind, lowest.value)} at {lowest.version}"
    said += f", highest {written(measure.kind, highest.value)} at {highest.version}"
    said += "" if teacher is None else f"; base model {written(measure.kind, teacher)}"
    return f"{said}; {_BETTER[measure.more_is_better]}".removesuffix("; ") + "."


@dataclass(frozen=True, slots=True)
class Candidate:
    """One point of the scatter: its size in bytes, its quality, its latency in milliseconds, and its role."""

    name: str
    size: float
    quality: float
    latency: float | None
    role: str


def scatter(measure: Measure, points: Sequence[Candidate]) -> Plot:
    """Quality over size (logarithmic); the area of a point grows with its latency."""
    sizes, heights = [p.size for p in points], [p.quality for p in points]
    left, right, bottom = 64.0, WIDE - 40.0, TALL - 52.0
    x = Scale(min(sizes) / 1.35, max(sizes) * 1.35, left, right, log=True)
    low, high = _padded(min(heights), max(heights), floor_at_zero=min(heights) >= 0)
    y = Scale(low, high, bottom, 26)
    slowest = max((p.latency for p in points if p.latency), default=1.0)
    drawn = sorted(points, key=lambda p: -(p.latency or 0))
    placed: list[Mark] = []
    labels: list[tuple[float, float, float]] = []
    for point in drawn:
        radius = round(5 + 15 * math.sqrt((point.latency or 0) / slowest), 2)
        placed.append(_labelled(point, measure, (x(point.size), y(point.quality), radius), labels))
    said = [_candidate_text(point, measure) for point in points[:20]]
    return Plot(
        f"{measure.label}, size and latency",
        f"{measure.label} over download size, latency as area. " + ". ".join(said) + ".",
        WIDE,
        TALL,
        left,
        right,
        bottom,
        tuple(Tick(x(at), *on_axis("bytes", (at,))) for at in _log_ticks(x.low, x.high)),
        _value_ticks(measure.kind, y),
        tuple(placed),
        x_title="download size, logarithmic",
        y_title=measure.label,
        hint=f"{_CORNER[measure.more_is_better]} is better; a larger circle is slower",
    )


def _labelled(
    point: Candidate, measure: Measure, at: tuple[float, float, float], taken: list[tuple[float, float, float]]
) -> Mark:
    """A mark with its name beside it, right or left, or without one where both would cover another's."""
    x, y, radius = at
    long = len(point.name) * _LETTER
    text = _candidate_text(point, measure)
    for anchor, start in (("start", x + radius + 5), ("end", x - radius - 5 - long)):
        free = all(abs(y - other_y) > 13 or start > end or start + long < begin for begin, end, other_y in taken)
        if free and start > 60 and start + long < WIDE - 4:
            taken.append((start, start + long, y))
            edge = start if anchor == "start" else start + long
            return Mark(x, y, radius, text, point.role, point.name, round(edge, 2), round(y + 4, 2), anchor)
    return Mark(x, y, radius, text, point.role)


def _candidate_text(point: Candidate, measure: Measure) -> str:
    latency = "" if point.latency is None else f", {written('ms', point.latency)}"
    return f"{point.name}: {written(measure.kind, point.quality)}, {written('bytes', point.size)}{latency}"


def spark(values: Sequence[float]) -> str:
    """A line of 88 x 24 units through values, as the path of an SVG; "" for fewer than two."""
    if len(values) < 2:
        return ""
    low, high = _padded(min(values), max(values), floor_at_zero=False)
    y = Scale(low, high, 21, 3)
    return _path([(round(3 + 82 * at / (len(values) - 1), 2), y(value)) for at, value in enumerate(values)])


def _path(points: Sequence[tuple[float, float]]) -> str:
    return "".join(f"{'L' if at else 'M'}{x:g} {y:g}" for at, (x, y) in enumerate(points)) if len(points) > 1 else ""


def _padded(low: float, high: float, *, floor_at_zero: bool) -> tuple[float, float]:
    """The range with air above and below; of some height even where all values are one."""
    air = (high - low) * 0.18 or abs(high) * 0.1 or 1.0
    return max(low - air, 0.0) if floor_at_zero else low - air, high + air


def ticks(low: float, high: float) -> tuple[float, ...]:
    """Three to six round values within a range."""
    rough = (high - low) / 4
    power = 10.0 ** math.floor(math.log10(rough))
    step = next((power * times for times in (1, 2, 2.5, 5) if power * times >= rough), power * 10)
    first = math.ceil(low / step)
    return tuple(round(at * step, 12) for at in range(first, math.floor(high / step) + 1))


def _log_ticks(low: float, high: float) -> tuple[float, ...]:
    """1, 2 and 5 times powers of ten within a range; powers of ten alone where it is wide."""
    start, end = math.floor(math.log10(low)), math.ceil(math.log10(high))
    times = (1, 2, 5) if end - start <= 3 else (1,)
    return tuple(at for power in range(start, end + 1) for m in times if low <= (at := m * 10.0**power) <= high)
