"""Distillation across tokenizers against loops over characters and sorted lists, and real tokenizers that disagree."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from pipelines.errors import ModelError
from pipelines.techniques.across_tokenizers import AlignedSignals, align, disagreement, uld, uld_by_row
from pipelines.techniques.divergences import Dense, Sampled, TopK
from pipelines.token_signals import Kind, SampledRows, TopKRows, read_token_signals
from tests.tiny_generators import LINES, bpe_tokenizer, unigram_tokenizer
from tests.token_examples import example_of, write


def words(*tokens: str, **roles: str) -> Any:
    """A tokenizer whose tokens are these: the id is the place."""
    core = Tokenizer(models.WordLevel({token: at for at, token in enumerate(tokens)}, unk_token=tokens[0]))
    return PreTrainedTokenizerFast(tokenizer_object=core, **roles)


def merging(*pairs: tuple[str, str]) -> Any:
    """A tokenizer of always the same vocabulary, with other merges."""
    tokens = ["a", "b", "c", "ab", "bc", "abc"]
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.BPE({token: at for at, token in enumerate(tokens)}, list(pairs)))
    )


def told(student: Any, teacher: Any, *texts: str) -> str | None:
    rows = [[side(text)["input_ids"] for text in texts] for side in (student, teacher)]
    return disagreement(student, teacher, *rows)


def test_equal_tokenizers_agree() -> None:
    assert told(words("a", "b"), words("a", "b"), "a", "b") is None
    assert told(bpe_tokenizer(), bpe_tokenizer(), *LINES) is None


@pytest.mark.parametrize(
    ("ours", "theirs", "difference"),
    [
        (("a", "c", "b"), ("a", "b", "c"), "token id 1: 'c' and 'b'"),  # equal sizes, another order
        (("a", "b", "c"), ("a", "b", "d"), "token id 2: 'c' and 'd'"),  # equal sizes, another token
        (("a", "b"), ("a", "b", "c"), "token id 2: no token and 'c'"),
        (("a", "b", "c", "d"), ("a", "b"), "token id 2: 'c' and no token"),
    ],
)
def test_both_tokenizers_and_the_first_id_that_differs_are_named(
    ours: tuple[str, ...], theirs: tuple[str, ...], difference: str
) -> None:
    expected = (
        f"the tokenizers of student (WordLevel, {len(ours)} tokens) and teacher (WordLevel, {len(theirs)} tokens) "
        f"disagree on {difference}"
    )
    assert told(words(*ours), words(*theirs), "a") == expected


def test_equal_vocabularies_that_cut_otherwise_are_found() -> None:
    left = merging(("a", "b"), ("ab", "c"), ("b", "c"))
    right = merging(("b", "c"), ("a", "b"), ("ab", "c"))
    assert left.get_vocab() == right.get_vocab()
    assert told(left, right, "ab", "bc") is None
    found = told(left, right, "ab", "abc")
    assert found is not None
    assert found.endswith("disagree on how to cut example 1: at token 0 stand 'abc' and 'a'")
    found = told(left, right, "bcabc")
    assert found is not None
    assert found.endswith("at token 1 stand 'abc' and 'a'")


def test_real_tokenizers_that_disagree() -> None:
    found = told(bpe_tokenizer(), unigram_tokenizer(), *LINES)
    assert found is not None
    assert "token id 0: '<|end|>' and '<pad>'" in found
    grown = bpe_tokenizer()
    grown.add_tokens(["<tool>"])
    assert f"token id {len(bpe_tokenizer())}: '<tool>' and no token" in str(told(grown, bpe_tokenizer(), "a"))


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


def ends(offsets: list[tuple[int, int]]) -> list[int]:
    return [end for _, end in offsets]


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
    found = list(zip(*(side.tolist() for side in align(ends(ours), ends(theirs))), strict=True))
    assert found == slow_align(ours, theirs)
    assert found  # at the text's end at least


def test_align_two_real_tokenizers() -> None:
    """What both sides have read at an aligned position is the same text, byte fragments of ü and 東 included."""
    bpe, unigram = bpe_tokenizer(), unigram_tokenizer()
    counted = 0
    for text in LINES:
        encodings: list[Any] = [side(text, return_offsets_mapping=True) for side in (bpe, unigram)]
        sides = [encoding["offset_mapping"] for encoding in encodings]
        positions = align(ends(sides[0]), ends(sides[1]))
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
    assert uld(student.detach() - 0.1 * gradient, Dense(teacher), 1.0) < uld(student, Dense(teacher), 1.0)


def test_draws_cannot_serve_uld() -> None:
    with pytest.raises(ModelError, match="uld needs the teacher's probabilities"):
        uld(torch.zeros(1, 3), Sampled(torch.zeros(1, 1, dtype=torch.long), torch.ones(1, 1)), 1.0)


def test_after_fewer_or_unknown_characters_nothing_is_aligned() -> None:
    ours, theirs = align([0, -1, 3, 2, 7], [-1, 0, 2, 3, 7, 0])
    assert (ours.tolist(), theirs.tolist()) == ([0, 2, 4], [1, 3, 4])


@pytest.mark.parametrize("kind", ["top_k", "sampled"])
def test_aligned_signals_are_the_rows_that_a_search_finds(kind: Kind, tmp_path: Path) -> None:
    """Students' examples of 0 to 9 predictions, each without a partner or with any of the store's."""
    stored = [example_of(number, kind)[1] for number in range(12)]
    flat = [(rows, at) for rows in stored for at in range(len(rows.ids))]
    rng = np.random.default_rng(3)
    partners = [rng.integers(-1, len(flat), rng.integers(0, 10)) for _ in range(7)]
    aligned = AlignedSignals(read_token_signals(write(tmp_path / "store", 12, kind=kind)), partners)
    for batch in ([3, 0, 5], [1], list(range(7))):
        found, numbers = aligned.rows(batch)
        wanted = [partner for at in batch for partner in partners[at]]
        assert (numbers >= 0).tolist() == [partner >= 0 for partner in wanted]
        for partner, number in zip(wanted, numbers, strict=True):
            if partner >= 0:
                rows, at = flat[partner]
                _same_row(found, number, rows, at)
    every = np.concatenate(partners)
    assert aligned.share == pytest.approx(sum(every >= 0) / len(every))


def _same_row(found: TopKRows | SampledRows, number: int, rows: TopKRows | SampledRows, at: int) -> None:
    if isinstance(found, TopKRows) and isinstance(rows, TopKRows):
        assert found.ids[number].tolist() == rows.ids[at].tolist()
        assert found.log_probs[number] == pytest.approx(rows.log_probs[at], abs=0.05)
    elif isinstance(found, SampledRows) and isinstance(rows, SampledRows):
        pairs = [
            {i: c for i, c in zip(one.ids[row], one.counts[row], strict=True) if c}
            for one, row in ((found, number), (rows, at))
        ]
        assert pairs[0] == pairs[1]
    else:
        raise AssertionError(f"{type(found)} of {type(rows)}")
