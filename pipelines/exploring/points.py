"""The points of a front: one shape of the student in one quantization, what was estimated of it and what was measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from pipelines.errors import DataError
from pipelines.techniques.shapes import Slice

#: What a point is better at where the number is smaller.
COSTS = ("bytes", "p50_ms", "loss")


@dataclass(frozen=True)
class Point:
    """A row of the front's table, all on validation data: the median milliseconds of a text or token at batch 1, texts or tokens a
    second at batch 32, the task's number (exploring/yardsticks.py) and its loss to the teacher, above 0 where the point is worse.

    `loss_low` to `loss_high` is the 95 % interval of a paired bootstrap; so is `p50_low` to `p50_high`, of the median.
    `steady` is false where half of the latter was above `explore.noise` of the median after every repeat.
    """

    layers: str
    intermediate_size: int
    num_attention_heads: int
    vocabulary: int
    tokens: int
    quantization: str
    estimated_bytes: int
    estimated_p50_ms: float
    estimated_loss: float
    bytes: int
    p50_ms: float
    p50_low: float
    p50_high: float
    per_s: float
    peak_memory_bytes: int
    quality: float
    loss: float
    loss_low: float
    loss_high: float
    steady: bool
    on_front: bool

    @property
    def slice(self) -> Slice:
        """The part of the elastic student that it is."""
        layers = tuple(int(layer) for layer in self.layers.split(",") if layer)
        return Slice(layers, self.intermediate_size, self.num_attention_heads, self.vocabulary)

    def __str__(self) -> str:
        return f"{self.slice.shape}, {self.tokens:,} tokens, {self.quantization}"


@dataclass(frozen=True)
class Reference:
    """The teacher beside the points: its number on the same validation data, its median ms at batch 1, its bytes."""

    quality: float
    p50_ms: float
    bytes: int


def best(points: Sequence[Point]) -> list[bool]:
    """Which points no other beats: none is at least as good in bytes, p50 and loss and better in one."""
    costs = [_costs(point) for point in points]
    return [not any(dominates(other, own) for other in costs) for own in costs]


def dominates(one: Sequence[float], other: Sequence[float]) -> bool:
    """Whether costs [K] are nowhere above other costs [K] and somewhere below (Pareto)."""
    pairs = list(zip(one, other, strict=True))
    return all(ours <= theirs for ours, theirs in pairs) and any(ours < theirs for ours, theirs in pairs)


def _costs(point: Point) -> list[float]:
    """What is better where it is smaller."""
    return [getattr(point, name) for name in COSTS]


def write_points(path: Path, points: Sequence[Point]) -> None:
    """One Parquet file, a row a point; empty where nothing was explored."""
    import pyarrow as pa
    from pyarrow import parquet

    kinds = {"str": pa.string(), "int": pa.int64(), "float": pa.float64(), "bool": pa.bool_()}
    schema = pa.schema([(field.name, kinds[str(field.type)]) for field in fields(Point)])
    parquet.write_table(pa.Table.from_pylist([asdict(point) for point in points], schema=schema), path)


def read_points(path: Path) -> list[Point]:
    """The points of a Parquet file. Raises DataError where it is missing, damaged, or of another form."""
    import pyarrow as pa
    from pyarrow import parquet

    try:
        rows: list[dict[str, Any]] = parquet.read_table(path).to_pylist()
        return [Point(**row) for row in rows]
    except (OSError, pa.ArrowException, TypeError) as error:
        raise DataError(
            f"{path}: no table of points ({error}); run the stage that writes it again (`dvc repro explore`)"
        ) from error
