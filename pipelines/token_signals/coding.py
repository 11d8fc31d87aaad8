"""How a prediction becomes bytes, and what is lost: nothing of ids and counts, at most 0.01 of a probability.

Top k: entry i > 0 is stored as its depth below the first, d = log p_0 - log p_i in [0, 16], in 8 bits on a square-root scale,
so that tokens near the likeliest one keep most precision. The head holds the log-odds of the tail. Reading gives back
p_i = (1 - tail) exp(-d_i) / sum_j exp(-d_j): a row's mass is the teacher's, whatever the rounding of its entries.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np

from pipelines.errors import ModelError
from pipelines.token_signals.rows import FLOOR, Array, Kind, Rows, SampledRows, TopKRows

#: Most that a stored top-k probability differs from the teacher's, any k that can be stored.
PROBABILITY_ERROR = 0.01

#: Most that the log of a ratio to the row's likeliest token differs, down to FLOOR: half of the coarsest step.
DEPTH_ERROR = 0.0631

MOST = 255
_DEPTHS = (-FLOOR * (np.arange(256) / 255) ** 2).astype(np.float32)


@dataclass(frozen=True)
class Packed:
    """The columns of some predictions as bytes; `entries` counts the (id, value) pairs."""

    heads: bytes
    ids: bytes
    codes: bytes
    entries: int


class Coding(Protocol):
    """One kind of signal: its columns' widths, and the way into bytes and back."""

    @property
    def head_bytes(self) -> int:
        """Bytes of the column `heads` a prediction."""

    @property
    def vocabulary(self) -> int:
        """Ids are below this."""

    def codes_of(self, predictions: int, entries: int) -> int:
        """Bytes of the column `codes`."""

    def problem(self, rows: Rows) -> str | None:
        """Why rows cannot be stored, as the end of a sentence; None where they can."""

    def pack(self, rows: Rows) -> Packed:
        """Bytes of rows without a problem."""

    def unpack(self, heads: Array, ids: Array, codes: Array) -> Rows:
        """Rows of columns, each [bytes] uint8."""


def coding_of(kind: Kind, k: int, vocabulary: int) -> Coding:
    """The coding of a kind. Raises ModelError where k or the vocabulary is out of bounds."""
    if not 1 <= k <= MOST:
        raise ModelError(f"{kind} signals with {k} a prediction: 1 to {MOST} can be stored")
    if kind == "top_k" and k >= vocabulary:
        raise ModelError(f"top {k} of a vocabulary of {vocabulary}: nothing is left outside; choose a smaller k")
    if vocabulary > 1 << 24:
        raise ModelError(f"a vocabulary of {vocabulary}: ids up to {1 << 24} can be stored")
    return TopKCoding(k, vocabulary) if kind == "top_k" else SampledCoding(k, vocabulary)


def bytes_per_prediction(kind: Kind, k: int, vocabulary: int, distinct: float | None = None) -> float:
    """Bytes that one prediction takes on disk, beside its token id (`id_bytes`) and 12 bytes an example.

    `distinct`: mean number of distinct ids among the k draws of `sampled`; None: all differ, the most that can be.
    """
    coding, entries = coding_of(kind, k, vocabulary), k if distinct is None or kind == "top_k" else distinct
    values = entries - 1 if kind == "top_k" else entries
    return coding.head_bytes + entries * id_bytes(vocabulary) + values


def id_bytes(vocabulary: int) -> int:
    """Bytes of one token id."""
    return 2 if vocabulary <= 1 << 16 else 3


def pack_ids(ids: Array, vocabulary: int) -> bytes:
    """Ids of any shape as bytes, end to end."""
    if id_bytes(vocabulary) == 2:
        return ids.astype("<u2").tobytes()
    return ids.astype("<u4").reshape(-1, 1).view(np.uint8)[:, :3].tobytes()


def unpack_ids(raw: Array, vocabulary: int) -> Array:
    """Ids [n] int64 of [bytes] uint8."""
    if id_bytes(vocabulary) == 2:
        return raw.view("<u2").astype(np.int64)
    low, middle, high = raw.reshape(-1, 3).T.astype(np.int64)
    ids: Array = low | middle << 8 | high << 16
    return ids


def id_problem(ids: Array, vocabulary: int) -> str | None:
    """Why ids cannot be stored."""
    wrong = ids[(ids < 0) | (ids >= vocabulary)]
    return f"id {wrong[0]} stands outside the vocabulary of {vocabulary}" if wrong.size else None


@dataclass(frozen=True)
class TopKCoding:
    """The k likeliest tokens and the mass of the others."""

    k: int
    vocabulary: int
    head_bytes: ClassVar[int] = 2

    def codes_of(self, predictions: int, entries: int) -> int:
        """One byte an entry but the first."""
        return entries - predictions

    def problem(self, rows: Rows) -> str | None:
        """Anything but k descending log-probabilities and what they leave."""
        if not isinstance(rows, TopKRows) or not rows.ids.shape == rows.log_probs.shape == (len(rows.log_tail), self.k):
            return f"not {self.k} ids and log-probabilities a prediction"
        top = rows.log_probs[:, 0]
        if not (np.isfinite(top).all() and (rows.log_probs[:, 1:] <= rows.log_probs[:, :-1]).all()):
            return "the log-probabilities are not numbers in descending order"
        mass = np.exp(rows.log_probs.astype(np.float64)).sum(-1) + np.exp(rows.log_tail.astype(np.float64))
        if not (np.abs(mass - 1) < 1e-3).all():
            return f"the probabilities of a prediction add up to {mass[np.abs(mass - 1).argmax()]:.4g}, not to 1"
        return id_problem(rows.ids, self.vocabulary)

    def pack(self, rows: Rows) -> Packed:
        """Log-odds of the tail, ids, depths below the first."""
        assert isinstance(rows, TopKRows)
        tail = np.clip(rows.log_tail.astype(np.float64), FLOOR, -1e-12)
        odds = tail - np.log(-np.expm1(tail))
        depths = np.minimum(rows.log_probs[:, :1] - rows.log_probs[:, 1:], -FLOOR)
        codes = np.rint(255 * np.sqrt(depths / -FLOOR)).astype(np.uint8)
        ids = pack_ids(rows.ids, self.vocabulary)
        return Packed(odds.astype("<f2").tobytes(), ids, codes.tobytes(), rows.ids.size)

    def unpack(self, heads: Array, ids: Array, codes: Array) -> TopKRows:
        """Rows whose probabilities and tail add up to 1."""
        odds = heads.view("<f2").astype(np.float32)
        log_probs = np.zeros((len(odds), self.k), dtype=np.float32)
        np.negative(_DEPTHS[codes.reshape(len(odds), self.k - 1)], out=log_probs[:, 1:])
        log_probs -= (np.logaddexp(0, odds) + np.log(np.exp(log_probs).sum(-1)))[:, None]
        return TopKRows(
            unpack_ids(ids, self.vocabulary).reshape(-1, self.k), log_probs, -np.logaddexp(0, -odds).astype(np.float32)
        )


@dataclass(frozen=True)
class SampledCoding:
    """k draws of a prediction: as many entries as distinct ids."""

    k: int
    vocabulary: int
    head_bytes: ClassVar[int] = 1

    def codes_of(self, predictions: int, entries: int) -> int:
        """One byte an entry."""
        return entries

    def problem(self, rows: Rows) -> str | None:
        """Anything but k draws a prediction."""
        if not isinstance(rows, SampledRows) or rows.ids.shape != rows.counts.shape or rows.ids.ndim != 2:
            return "not ids and counts a prediction"
        if (rows.counts < 0).any() or not (rows.counts.sum(-1) == self.k).all():
            return f"the counts of a prediction do not add up to {self.k} draws"
        return id_problem(rows.ids, self.vocabulary)

    def pack(self, rows: Rows) -> Packed:
        """Number of distinct ids, ids, counts; places with count 0 are left out."""
        assert isinstance(rows, SampledRows)
        drawn = rows.counts > 0
        heads, counts = drawn.sum(-1).astype(np.uint8), rows.counts[drawn].astype(np.uint8)
        return Packed(heads.tobytes(), pack_ids(rows.ids[drawn], self.vocabulary), counts.tobytes(), counts.size)

    def unpack(self, heads: Array, ids: Array, codes: Array) -> SampledRows:
        """Rows as wide as the widest of them."""
        drawn = np.arange(heads.max(initial=0)) < heads[:, None]
        out = SampledRows(np.zeros(drawn.shape, dtype=np.int64), np.zeros(drawn.shape, dtype=np.int64))
        out.ids[drawn], out.counts[drawn] = unpack_ids(ids, self.vocabulary), codes
        return out
