"""What a part would cost, from a table of its pieces: a fixed share, and for each layer its attention and its FFN."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pipelines.techniques.shapes import Slice

#: A piece of a part: its kind and its size; the fixed share has none.
Piece = tuple[str, int]
FIXED: Piece = ("fixed", 0)


@dataclass(frozen=True)
class Measured:
    """What a whole exported part costs: milliseconds at batch 1, and bytes to download."""

    p50_ms: float
    bytes: int


@dataclass(frozen=True)
class CostTable:
    """Milliseconds and bytes of each piece in one quantization, fitted to whole parts by least squares."""

    milliseconds: Mapping[Piece, float]
    bytes: Mapping[Piece, float]

    def of(self, part: Slice) -> Measured:
        """The sum of a part's pieces."""
        ms = sum(count * self.milliseconds[piece] for piece, count in _pieces(part).items())
        size = sum(count * self.bytes[piece] for piece, count in _pieces(part).items())
        return Measured(max(ms, 0.0), max(round(size), 0))


@dataclass(frozen=True)
class Error:
    """How far estimates are from measurements, as shares of the latter."""

    median: float
    largest: float


def probes_of(space: Sequence[Slice]) -> list[Slice]:
    """Parts that say what each piece costs: each size once beside the first of the others, in the deepest and the shallowest part.

    Those without layers share no piece with the others: they are measured themselves.
    """
    first = space[0]
    layered = [part for part in space if part.layers]
    depths = {len(part.layers): part.layers for part in reversed(layered)}
    shallow, deep = depths[min(depths)], depths[max(depths)]
    widths = dict.fromkeys(part.intermediate_size for part in layered)
    heads = dict.fromkeys(part.num_attention_heads for part in layered)
    vocabularies = dict.fromkeys(part.vocabulary for part in layered)
    found = [Slice(deep, first.intermediate_size, first.num_attention_heads, first.vocabulary)]
    found += [Slice(shallow, width, first.num_attention_heads, first.vocabulary) for width in widths]
    found += [Slice(shallow, first.intermediate_size, count, first.vocabulary) for count in heads]
    found += [Slice(shallow, first.intermediate_size, first.num_attention_heads, which) for which in vocabularies]
    return list(dict.fromkeys([*found, layered[-1], *(part for part in space if not part.layers)]))


def fit_table(measured: Mapping[Slice, Measured]) -> CostTable:
    """The table that comes closest to these whole parts; pieces that they cannot tell apart share their cost."""
    pieces = sorted({piece for part in measured for piece in _pieces(part)})
    rows = np.array([[_pieces(part).get(piece, 0) for piece in pieces] for part in measured], dtype=np.float64)
    ms = np.array([each.p50_ms for each in measured.values()])
    sizes = np.array([each.bytes for each in measured.values()], dtype=np.float64)
    fitted = [np.linalg.lstsq(rows, target, rcond=None)[0].tolist() for target in (ms, sizes)]
    return CostTable(dict(zip(pieces, fitted[0], strict=True)), dict(zip(pieces, fitted[1], strict=True)))


def error_of(estimated: Sequence[float], measured: Sequence[float]) -> Error:
    """The median and the largest relative error; of at least one pair."""
    shares = np.abs(np.asarray(estimated) - np.asarray(measured)) / np.asarray(measured)
    return Error(float(np.median(shares)), float(shares.max()))


def _pieces(part: Slice) -> dict[Piece, int]:
    """How often each piece stands in a part."""
    depth = len(part.layers)
    if not depth:
        return {("no layers", part.vocabulary): 1}
    return {
        FIXED: 1,
        ("vocabulary", part.vocabulary): 1,
        ("attention", part.num_attention_heads): depth,
        ("ffn", part.intermediate_size): depth,
    }
