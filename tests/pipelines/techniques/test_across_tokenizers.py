"""Distillation across tokenizers against loops over characters and sorted lists, and real tokenizers that disagree."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pipelines.errors import ModelError
from pipelines.techniques.across_tokenizers import align, uld, uld_by_row, vocabularies_agree
from pipelines.techniques.divergences import Dense, Sampled, TopK
from tests.tiny_generators import LINES, bpe_tokenizer, unigram_tokenizer


class Words:
    """A vocabulary from a list: the id is the place."""

    def __init__(self, *tokens: str) -> None:
        self.tokens = tokens

    def get_vocab(self) -> dict[str, int]:
        return {token: index for index, token in enumerate(self.tokens)}


def test_equal_vocabularies_agree() -> None:
    vocabularies_agree(Words("a", "b"), Words("a", "b"))
    vocabularies_agree(bpe_tokenizer(), bpe_tokenizer())


@pytest.mark.parametrize(
    ("ours", "theirs", "told"),
    [
        (Words("a", "c", "b"), Words("a", "b", "c"), "token id 1: 'c' and 'b'"),  # equal sizes, another order
        (Words("a", "b"), Words("a", "b", "c"), "token id 2: no token and 'c'"),
        (Words("a", "b", "c", "d"), Words("a", "b"), "token id 2: 'c' and no token"),
    ],
)
def test_the_first_id_that_differs_is_named(ours: Words, theirs: Words, told: str) -> None:
    with pytest.raises(ModelError, match=told):
        vocabularies_agree(ours, theirs)


def test_real_tokenizers_that_disagree() -> None:
    with pytest.raises(ModelError, match="token id 0: '<|end|>' and '<pad>'".replace("|", r"\|")):
        vocabularies_agree(bpe_tokenizer(), unigram_tokenizer())
    grown = bpe_tokenizer()
    grown.add_tokens(["<tool>"])
    with pytest.raises(ModelError, match=f"token id {len(bpe_tokenizer())}: '<tool>' and no token"):
        vocabularies_agree(grown, bpe_tokenizer())


def test_padded_embedding_rows_are_no_disagreement() -> None:
    """A model of 384 rows over a tokenizer of 320: its logits are cut to the tokenizer's, or its other rows lie in the tail."""
    tokenizer = bpe_tokenizer()
    vocabularies_agree(tokenizer, tokenizer)
    size, padded = len(tokenizer), torch.randn(3, 384)
    log_probs = torch.randn(3, size).log_softmax(-1)
    assert bool(uld(padded[:, :size], Dense(log_probs), 1.0).isfinite())


def slow_align(student: list[tuple[int, int]], teacher: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Every pair of positions: after which both have read the same number of characters, and neither's next token ends there too."""

    def read(offsets: list[tuple[int, int]], position: int) -> int | None:
        end = offsets[position][1]
        if any(later[1] == end for later in offsets[position + 1 :]) and end > 0:
            return None
        if any(earlier[1] > end for earlier in offsets[:position]):
            return None
        leading = [index for index, (_, stop) in enumerate(offsets) if all(o[1] == 0 for o in offsets[: index + 1])]
        if end == 0 and position != leading[-1]:
            return None
        return end

    return [
        (i, j)
        for i in range(len(student))
        for j in range(len(teacher))
        if read(student, i) is not None and read(student, i) == read(teacher, j)
    ]


def cut(text: str, ends: list[int], before: int, after: int) -> list[tuple[int, int]]:
    starts = [0, *ends]
    return [(0, 0)] * before + [(starts[i], end) for i, end in enumerate(ends)] + [(0, 0)] * after


@given(data=st.data(), length=st.integers(1, 12))
@settings(max_examples=80, deadline=None)
def test_align(data: st.DataObject, length: int) -> None:
    def offsets() -> list[tuple[int, int]]:
        inner = data.draw(st.lists(st.integers(1, length), max_size=6))  # repeated ends: the bytes of one character
        special = data.draw(st.tuples(st.integers(0, 2), st.integers(0, 2)))
        return cut("x" * length, sorted([*inner, length]), *special)

    ours, theirs = offsets(), offsets()
    found = list(zip(*(side.tolist() for side in align(ours, theirs)), strict=True))
    assert found == slow_align(ours, theirs)
    assert found  # at the text's end at least


def test_align_two_real_tokenizers() -> None:
    """What both sides have read at an aligned position is the same text, byte fragments of ü and 東 included."""
    bpe, unigram = bpe_tokenizer(), unigram_tokenizer()
    counted = 0
    for text in LINES:
        encodings: list[Any] = [side(text, return_offsets_mapping=True) for side in (bpe, unigram)]
        sides = [encoding["offset_mapping"] for encoding in encodings]
        positions = align(*sides)
        assert positions[0].dtype == np.int64
        for ours, theirs in zip(*positions, strict=True):
            assert sides[0][ours][1] == sides[1][theirs][1]
            read = bpe.decode(encodings[0]["input_ids"][: ours + 1])
            assert text.startswith(read)
            assert "\N{REPLACEMENT CHARACTER}" not in read
        assert len(positions[0]) >= 1
        counted += len(positions[0])
    assert counted > 3 * len(LINES)


def probabilities(scores: list[float], temperature: float) -> list[float]:
    powers = [math.exp((score - max(scores)) / temperature) for score in scores]
    return sorted((power / sum(powers) for power in powers), reverse=True)


def slow_uld(student: Tensor, teacher: Tensor, temperature: float) -> list[float]:
    found = []
    for ours, theirs in zip(student.tolist(), teacher.tolist(), strict=True):
        q, p = probabilities(ours, temperature), probabilities(theirs, temperature)
        width = max(len(p), len(q))
        p, q = p + [0.0] * (width - len(p)), q + [0.0] * (width - len(q))
        found.append(sum(abs(a - b) for a, b in zip(p, q, strict=True)))
    return found


sizes = {
    "seed": st.integers(0, 10_000),
    "rows": st.integers(1, 4),
    "ours": st.integers(2, 9),
    "theirs": st.integers(2, 9),
}


def sides(seed: int, rows: int, ours: int, theirs: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    student, teacher = (torch.randn(rows, n, generator=generator, dtype=torch.float64) * 2 for n in (ours, theirs))
    return student, teacher.log_softmax(-1)


@given(**sizes, temperature=st.floats(0.3, 8))
@settings(max_examples=60, deadline=None)
def test_uld(seed: int, rows: int, ours: int, theirs: int, temperature: float) -> None:
    student, teacher = sides(seed, rows, ours, theirs)
    expected = slow_uld(student, teacher, temperature)
    assert uld_by_row(student, Dense(teacher), temperature).tolist() == pytest.approx(expected, abs=1e-9)
    assert float(uld(student.half(), Dense(teacher.half()), temperature)) == pytest.approx(
        sum(expected) / rows, abs=2e-2 / min(temperature, 1)
    )


@given(**sizes, data=st.data())
@settings(max_examples=60, deadline=None)
def test_uld_of_the_top_k(seed: int, rows: int, ours: int, theirs: int, data: st.DataObject) -> None:
    student, teacher = sides(seed, rows, ours, theirs)
    k = data.draw(st.integers(1, theirs))
    values, ids = teacher.topk(k)
    found = uld_by_row(student, TopK(ids, values, "tail"), 1.0)
    for row in range(rows):
        p, q = values[row].exp().tolist(), probabilities(student[row].tolist(), 1)
        q += [0.0] * (k - len(q))
        expected = sum(abs(a - b) for a, b in zip(p, q, strict=False)) + abs((1 - sum(p)) - sum(q[k:]))
        assert float(found[row]) == pytest.approx(expected, abs=1e-9)
    assert bool((found <= uld_by_row(student, Dense(teacher), 1.0) + 1e-9).all())  # lumping classes can only hide


def test_uld_knows_no_names_and_teaches() -> None:
    student, teacher = sides(1, 3, 7, 7)
    shuffled = teacher[:, torch.randperm(7)]
    assert float(uld(teacher, Dense(shuffled), 1.0)) == pytest.approx(0, abs=1e-12)
    student.requires_grad_()
    (gradient,) = torch.autograd.grad(uld(student, Dense(teacher), 1.0), student)
    assert float(uld(student.detach() - 0.1 * gradient, Dense(teacher), 1.0)) < float(uld(student, Dense(teacher), 1.0))


def test_draws_cannot_serve_uld() -> None:
    with pytest.raises(ModelError, match="uld needs the teacher's probabilities"):
        uld(torch.zeros(1, 3), Sampled(torch.zeros(1, 1, dtype=torch.long), torch.ones(1, 1)), 1.0)
